//! MariaDB's GTID position: the last transaction of each replication domain.
//!
//! Within a domain the log is one sequence, so the last number says it all
//! (<https://mariadb.com/kb/en/gtid/>). The server id is kept, for the server asks for the whole triple back.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// One transaction: `domain-server-sequence`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DomainGtid {
    /// Replication domain.
    pub domain: u32,
    /// `server_id` of the server that committed it first.
    pub server: u32,
    /// Number within the domain.
    pub sequence: u64,
}

impl fmt::Display for DomainGtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.domain, self.server, self.sequence)
    }
}

/// A text is not a MariaDB GTID or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a list of MariaDB GTIDs such as 0-1-100,1-1-7")]
pub struct DomainError(String);

impl FromStr for DomainGtid {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut fields = text.trim().split('-');
        let gtid = (|| {
            Some(Self {
                domain: fields.next()?.parse().ok()?,
                server: fields.next()?.parse().ok()?,
                sequence: fields.next()?.parse().ok()?,
            })
        })();
        gtid.filter(|_| fields.next().is_none()).ok_or_else(|| DomainError(text.to_owned()))
    }
}

/// The last transaction of each domain; a domain that is not in it is at its very beginning.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DomainPoint {
    domains: BTreeMap<u32, DomainGtid>,
}

impl DomainPoint {
    /// Moves the transaction's domain on to it. A domain never moves back.
    pub fn add(&mut self, gtid: DomainGtid) {
        let last = self.domains.entry(gtid.domain).or_insert(gtid);
        if gtid.sequence > last.sequence {
            *last = gtid;
        }
    }

    /// Whether the transaction is at or before the last one of its domain.
    pub fn covers(&self, gtid: &DomainGtid) -> bool {
        self.sequence(gtid.domain) >= gtid.sequence && self.domains.contains_key(&gtid.domain)
    }

    /// The last point before or at both.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        let both = self.domains.values().filter_map(|mine| {
            let theirs = other.domains.get(&mine.domain)?;
            Some((mine.domain, if mine.sequence <= theirs.sequence { *mine } else { *theirs }))
        });
        Self { domains: both.collect() }
    }

    /// How many sequence numbers of `ahead` are not covered, over all domains.
    pub fn lacks(&self, ahead: &Self) -> u64 {
        ahead.domains.values().map(|gtid| gtid.sequence.saturating_sub(self.sequence(gtid.domain))).sum()
    }

    fn sequence(&self, domain: u32) -> u64 {
        self.domains.get(&domain).map_or(0, |gtid| gtid.sequence)
    }
}

impl PartialOrd for DomainPoint {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.domains.keys().chain(other.domains.keys()).try_fold(Ordering::Equal, |so_far, &domain| {
            match (so_far, self.sequence(domain).cmp(&other.sequence(domain))) {
                (order, Ordering::Equal) | (Ordering::Equal, order) => Some(order),
                (a, b) if a == b => Some(a),
                _ => None,
            }
        })
    }
}

impl fmt::Display for DomainPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, gtid) in self.domains.values().enumerate() {
            write!(f, "{}{gtid}", if index > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl FromStr for DomainPoint {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut point = Self::default();
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let gtid: DomainGtid = part.parse()?;
            if point.domains.insert(gtid.domain, gtid).is_some() {
                return Err(DomainError(text.to_owned()));
            }
        }
        Ok(point)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_never_moves_back_and_unknown_domains_are_not_covered() {
        let mut point: DomainPoint = "0-1-100".parse().unwrap();
        point.add("0-2-101".parse().unwrap());
        point.add("0-1-50".parse().unwrap());
        point.add("7-1-3".parse().unwrap());
        assert_eq!(point.to_string(), "0-2-101,7-1-3");
        assert!(point.covers(&"0-9-101".parse().unwrap()));
        assert!(!point.covers(&"0-1-102".parse().unwrap()));
        assert!(!point.covers(&"3-1-1".parse().unwrap()));
    }

    #[test]
    fn domains_that_went_different_ways_do_not_compare() {
        let point = |text: &str| text.parse::<DomainPoint>().unwrap();
        assert!(point("0-1-1") < point("0-1-1,1-1-1"));
        assert!(point("0-1-2,1-1-1") > point("0-5-1,1-1-1"));
        assert_eq!(point("0-1-2,1-1-1").partial_cmp(&point("0-1-1,1-1-2")), None);
        for text in ["0-1", "0-1-2-3", "a-1-2", "0-1-2,0-1-3"] {
            assert!(text.parse::<DomainPoint>().is_err(), "{text}");
        }
    }
}
