//! MySQL GTID sets, tagged ones included: exact, gaps kept.
//!
//! A set is a map from source (server uuid and optional tag) to sorted, disjoint, non-touching half-open intervals.
//! Text form as the server prints and reads it: `uuid:1-5:7,uuid:tag:1-3`
//! (<https://dev.mysql.com/doc/refman/8.4/en/replication-gtids-concepts.html>).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use uuid::Uuid;

use crate::planted::{self, Bug};

/// Where a transaction was first committed: the server, and the tag if the application gave one (MySQL 8.3 and later).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// `server_uuid` of the server.
    pub server: Uuid,
    /// The tag, lower case; `None` for an untagged transaction.
    pub tag: Option<Arc<str>>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tag {
            Some(tag) => write!(f, "{}:{tag}", self.server),
            None => write!(f, "{}", self.server),
        }
    }
}

/// One transaction's identity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gtid {
    /// Where it was committed first.
    pub origin: Origin,
    /// Its number there; 1 is the first.
    pub number: u64,
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.origin, self.number)
    }
}

/// A text is not a GTID or a set of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a GTID set such as 3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5")]
pub struct GtidError {
    text: String,
}

fn bad(text: &str) -> GtidError {
    GtidError { text: text.to_owned() }
}

/// From `start` up to, not including, `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// First number.
    pub start: u64,
    /// One after the last number.
    pub end: u64,
}

/// A set of transactions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GtidSet {
    origins: BTreeMap<Origin, Vec<Interval>>,
}

impl GtidSet {
    /// Whether no transaction is in it.
    pub fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    /// The intervals by origin, in order.
    pub fn origins(&self) -> impl Iterator<Item = (&Origin, &[Interval])> {
        self.origins.iter().map(|(origin, intervals)| (origin, intervals.as_slice()))
    }

    /// How many transactions are in it.
    pub fn len(&self) -> u64 {
        self.origins.values().flatten().map(|interval| interval.end - interval.start).sum()
    }

    /// Puts one transaction in.
    pub fn add(&mut self, gtid: &Gtid) {
        // The common case, the next number of a known origin, needs no allocation.
        if let Some(last) = self.origins.get_mut(&gtid.origin).and_then(|intervals| intervals.last_mut())
            && last.end == gtid.number
        {
            last.end += 1;
            return;
        }
        self.add_interval(gtid.origin.clone(), Interval { start: gtid.number, end: gtid.number + 1 });
    }

    /// Puts an interval in, joining what it touches. An empty one changes nothing.
    pub fn add_interval(&mut self, origin: Origin, new: Interval) {
        if new.start >= new.end {
            return;
        }
        let intervals = self.origins.entry(origin).or_default();
        let gap = u64::from(planted::is(Bug::GapMerged));
        let first = intervals.partition_point(|old| old.end + gap < new.start);
        let last = intervals.partition_point(|old| old.start <= new.end + gap);
        let joined = intervals[first..last]
            .iter()
            .fold(new, |all, old| Interval { start: all.start.min(old.start), end: all.end.max(old.end) });
        intervals.splice(first..last, [joined]);
    }

    /// Whether the transaction is in the set.
    pub fn contains(&self, gtid: &Gtid) -> bool {
        self.origins.get(&gtid.origin).is_some_and(|intervals| {
            let after = intervals.partition_point(|interval| interval.start <= gtid.number);
            after > 0 && gtid.number < intervals[after - 1].end
        })
    }

    /// Whether every transaction of `self` is in `other`.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.origins.iter().all(|(origin, mine)| {
            let theirs = other.origins.get(origin).map_or(&[][..], Vec::as_slice);
            mine.iter().all(|interval| {
                let after = theirs.partition_point(|their| their.start <= interval.start);
                after > 0 && interval.end <= theirs[after - 1].end
            })
        })
    }

    /// Everything that is in one or the other.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut all = self.clone();
        for (origin, intervals) in &other.origins {
            for &interval in intervals {
                all.add_interval(origin.clone(), interval);
            }
        }
        all
    }

    /// Everything that is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut both = Self::default();
        for (origin, mine) in &self.origins {
            for &a in mine {
                for b in other.origins.get(origin).into_iter().flatten() {
                    let common = Interval { start: a.start.max(b.start), end: a.end.min(b.end) };
                    both.add_interval_if_any(origin, common);
                }
            }
        }
        both
    }

    /// Everything that is in `self` and not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut left = Self::default();
        for (origin, mine) in &self.origins {
            let theirs = other.origins.get(origin).map_or(&[][..], Vec::as_slice);
            for interval in mine {
                let mut start = interval.start;
                for their in theirs.iter().filter(|their| their.end > interval.start && their.start < interval.end) {
                    left.add_interval_if_any(origin, Interval { start, end: their.start });
                    start = start.max(their.end);
                }
                left.add_interval_if_any(origin, Interval { start, end: interval.end });
            }
        }
        left
    }

    fn add_interval_if_any(&mut self, origin: &Origin, interval: Interval) {
        if interval.start < interval.end {
            self.add_interval(origin.clone(), interval);
        }
    }
}

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (origin, intervals)) in self.origins.iter().enumerate() {
            write!(f, "{}{origin}", if index > 0 { "," } else { "" })?;
            for Interval { start, end } in intervals {
                if end - start == 1 {
                    write!(f, ":{start}")?;
                } else {
                    write!(f, ":{start}-{}", end - 1)?;
                }
            }
        }
        Ok(())
    }
}

impl FromStr for GtidSet {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut set = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let mut fields = part.split(':').map(str::trim);
            let server = fields.next().and_then(|uuid| Uuid::parse_str(uuid).ok()).ok_or_else(|| bad(part))?;
            let mut origin = Origin { server, tag: None };
            let mut any = false;
            for field in fields {
                if field.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') {
                    if field.len() > 32 || !field.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                        return Err(bad(part));
                    }
                    origin.tag = Some(field.to_ascii_lowercase().into());
                    continue;
                }
                let (first, last) = field.split_once('-').unwrap_or((field, field));
                let number = |digits: &str| digits.trim().parse::<u64>().ok().filter(|&n| n > 0 && n < i64::MAX as u64);
                let (start, last) = (number(first).ok_or_else(|| bad(part))?, number(last).ok_or_else(|| bad(part))?);
                if last < start {
                    return Err(bad(part));
                }
                set.add_interval(origin.clone(), Interval { start, end: last + 1 });
                any = true;
            }
            if !any {
                return Err(bad(part));
            }
        }
        Ok(set)
    }
}

impl FromStr for Gtid {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let set: GtidSet = text.parse()?;
        let mut origins = set.origins.into_iter();
        match (origins.next(), origins.next()) {
            (Some((origin, intervals)), None) => match intervals.as_slice() {
                [Interval { start, end }] if end - start == 1 => Ok(Self { origin, number: *start }),
                _ => Err(bad(text)),
            },
            _ => Err(bad(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The same set, the slow and obvious way.
    fn members(set: &GtidSet) -> BTreeSet<(Origin, u64)> {
        set.origins()
            .flat_map(|(origin, all)| all.iter().flat_map(|i| i.start..i.end).map(|n| (origin.clone(), n)))
            .collect()
    }

    fn sets() -> impl Strategy<Value = GtidSet> {
        prop::collection::vec((0_u8..2, prop::option::of("[ab]"), 1_u64..30, 1_u64..6), 0..12).prop_map(|parts| {
            let mut set = GtidSet::default();
            for (server, tag, start, length) in parts {
                let origin = Origin { server: Uuid::from_u128(server.into()), tag: tag.map(Into::into) };
                set.add_interval(origin, Interval { start, end: start + length });
            }
            set
        })
    }

    proptest! {
        #[test]
        fn the_algebra_is_that_of_sets(a in sets(), b in sets()) {
            let (ma, mb) = (members(&a), members(&b));
            prop_assert_eq!(members(&a.union(&b)), ma.union(&mb).cloned().collect());
            prop_assert_eq!(members(&a.intersection(&b)), ma.intersection(&mb).cloned().collect());
            prop_assert_eq!(members(&a.difference(&b)), ma.difference(&mb).cloned().collect());
            prop_assert_eq!(a.is_subset(&b), ma.is_subset(&mb));
            for (origin, number) in &mb {
                prop_assert_eq!(a.contains(&Gtid { origin: origin.clone(), number: *number }), ma.contains(&(origin.clone(), *number)));
            }
        }

        #[test]
        fn adding_one_by_one_is_the_same_as_by_interval(a in sets()) {
            let mut grown = GtidSet::default();
            for (origin, number) in members(&a).into_iter().rev() {
                grown.add(&Gtid { origin, number });
            }
            prop_assert_eq!(grown, a);
        }

        #[test]
        fn text_reads_back(a in sets()) {
            prop_assert_eq!(a.to_string().parse::<GtidSet>().unwrap(), a);
        }
    }

    #[test]
    fn the_servers_own_spellings_are_read() {
        let set: GtidSet =
            "3E11FA47-71CA-11E1-9E33-C80AA9429562:1-5:7:Tag_1:2,\n4e11fa47-71ca-11e1-9e33-c80aa9429562:9"
                .parse()
                .unwrap();
        assert_eq!(
            set.to_string(),
            "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:7,3e11fa47-71ca-11e1-9e33-c80aa9429562:tag_1:2,4e11fa47-71ca-11e1-9e33-c80aa9429562:9"
        );
        for text in [
            "x:1",
            "3e11fa47-71ca-11e1-9e33-c80aa9429562",
            "3e11fa47-71ca-11e1-9e33-c80aa9429562:0",
            "3e11fa47-71ca-11e1-9e33-c80aa9429562:5-1",
        ] {
            assert!(text.parse::<GtidSet>().is_err(), "{text}");
        }
    }
}
