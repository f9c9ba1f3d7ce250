//! MariaDB's GTID position: the last transaction of each replication domain.
//!
//! Within a domain the log is one sequence, so the last number says it all
//! (<https://mariadb.com/kb/en/gtid/>). Where `gtid_strict_mode=OFF` lets a number go back, whoever reads the log halts.
//! The server id is kept, for the server asks for the whole triple back.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Stands between a prepared transaction and what it comes after.
const AFTER: &str = " after ";

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

/// The last transaction of each domain; a domain that is not in it is at its very beginning. Transactions that were only
/// prepared are not covered, wherever they stand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DomainPoint {
    domains: BTreeMap<u32, DomainGtid>,
    /// By domain and sequence: prepared transactions whose outcome is not covered, and what each comes after in its
    /// domain, for that is where the server has to be asked to begin.
    prepared: BTreeMap<(u32, u64), (DomainGtid, Option<DomainGtid>)>,
}

impl DomainPoint {
    /// Covers the transaction, and moves its domain on to it. A domain never moves back.
    pub fn add(&mut self, gtid: DomainGtid) {
        self.settle(&gtid);
        self.reach(gtid);
    }

    fn reach(&mut self, gtid: DomainGtid) {
        let last = self.domains.entry(gtid.domain).or_insert(gtid);
        if gtid.sequence > last.sequence {
            *last = gtid;
        }
    }

    /// Makes the transaction the last of its domain, wherever that was.
    pub fn set(&mut self, gtid: DomainGtid) {
        self.domains.insert(gtid.domain, gtid);
        self.prepared.retain(|(domain, sequence), _| *domain != gtid.domain || *sequence <= gtid.sequence);
    }

    /// The last transaction of each domain.
    pub fn domains(&self) -> impl Iterator<Item = &DomainGtid> {
        self.domains.values()
    }

    /// The last transaction of a domain.
    pub fn domain(&self, domain: u32) -> Option<&DomainGtid> {
        self.domains.get(&domain)
    }

    /// Moves on past a prepared transaction, without covering it.
    pub fn prepare(&mut self, gtid: DomainGtid) {
        let after = self.domains.get(&gtid.domain).copied();
        self.prepared.entry((gtid.domain, gtid.sequence)).or_insert((gtid, after));
        self.reach(gtid);
    }

    /// Covers a prepared transaction, for its outcome is.
    pub fn settle(&mut self, gtid: &DomainGtid) {
        self.prepared.remove(&(gtid.domain, gtid.sequence));
    }

    /// Where the server has to be asked to begin: before the oldest transaction of each domain that is not covered.
    #[must_use]
    pub fn start(&self) -> Self {
        let mut domains = self.domains.clone();
        for ((domain, _), (_, after)) in self.prepared.iter().rev() {
            match after {
                Some(after) => drop(domains.insert(*domain, *after)),
                None => drop(domains.remove(domain)),
            }
        }
        Self { domains, prepared: BTreeMap::new() }
    }

    /// Domains that have to be read from before their last transaction, which is given.
    pub fn read_again(&self) -> BTreeMap<u32, DomainGtid> {
        self.prepared.keys().filter_map(|(domain, _)| Some((*domain, *self.domains.get(domain)?))).collect()
    }

    /// Whether the transaction is at or before the last one of its domain, and not only prepared.
    pub fn covers(&self, gtid: &DomainGtid) -> bool {
        self.has_reached(gtid.domain, gtid.sequence) && !self.prepared.contains_key(&(gtid.domain, gtid.sequence))
    }

    fn has_reached(&self, domain: u32, sequence: u64) -> bool {
        self.domains.get(&domain).is_some_and(|last| last.sequence >= sequence)
    }

    /// Whether what the other leaves out within this is left out here too.
    fn leaves_out(&self, other: &Self) -> bool {
        other.prepared.keys().all(|key| !self.has_reached(key.0, key.1) || self.prepared.contains_key(key))
    }

    /// What both cover.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        let both = self.domains.values().filter_map(|mine| {
            let theirs = other.domains.get(&mine.domain)?;
            Some((mine.domain, if mine.sequence <= theirs.sequence { *mine } else { *theirs }))
        });
        let mut both = Self { domains: both.collect(), prepared: BTreeMap::new() };
        let prepared = self.prepared.iter().chain(&other.prepared).filter(|(key, _)| both.has_reached(key.0, key.1));
        both.prepared = prepared.map(|(key, prepared)| (*key, *prepared)).collect();
        both
    }

    /// What one or the other covers.
    #[must_use]
    pub fn join(&self, other: &Self) -> Self {
        let mut all = self.clone();
        all.prepared.retain(|_, (gtid, _)| !other.covers(gtid));
        for gtid in other.domains.values() {
            all.reach(*gtid);
        }
        let prepared = other.prepared.iter().filter(|(_, (gtid, _))| !self.covers(gtid));
        all.prepared.extend(prepared.map(|(key, prepared)| (*key, *prepared)));
        all
    }

    /// How many sequence numbers of `ahead` have to be read, over all domains, those that have to be read again included.
    pub fn lacks(&self, ahead: &Self) -> u64 {
        let oldest = |domain: u32| {
            let mut settled = self.prepared.range((domain, 0)..=(domain, u64::MAX));
            settled.find(|(key, _)| !ahead.prepared.contains_key(key)).map(|((_, sequence), _)| sequence - 1)
        };
        let from = |domain: u32| oldest(domain).unwrap_or_else(|| self.sequence(domain));
        ahead.domains.values().map(|gtid| gtid.sequence.saturating_sub(from(gtid.domain))).sum()
    }

    fn sequence(&self, domain: u32) -> u64 {
        self.domains.get(&domain).map_or(0, |gtid| gtid.sequence)
    }
}

impl PartialOrd for DomainPoint {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let sequences =
            self.domains.keys().chain(other.domains.keys()).try_fold(Ordering::Equal, |so_far, &domain| {
                match (so_far, self.sequence(domain).cmp(&other.sequence(domain))) {
                    (order, Ordering::Equal) | (Ordering::Equal, order) => Some(order),
                    (a, b) if a == b => Some(a),
                    _ => None,
                }
            })?;
        super::both_ways(sequences, self.leaves_out(other), other.leaves_out(self))
    }
}

impl fmt::Display for DomainPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, gtid) in self.domains.values().enumerate() {
            write!(f, "{}{gtid}", if index > 0 { "," } else { "" })?;
        }
        for (index, (gtid, after)) in self.prepared.values().enumerate() {
            write!(f, "{}{gtid}", if index > 0 { "," } else { super::WITHOUT })?;
            if let Some(after) = after {
                write!(f, "{AFTER}{after}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for DomainPoint {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut point = Self::default();
        let (list, prepared) = text.split_once(super::WITHOUT).unwrap_or((text, ""));
        for part in list.split(',').filter(|part| !part.trim().is_empty()) {
            let gtid: DomainGtid = part.parse()?;
            if point.domains.insert(gtid.domain, gtid).is_some() {
                return Err(DomainError(text.to_owned()));
            }
        }
        for part in prepared.split(',').filter(|part| !part.is_empty()) {
            let (gtid, after) = part.split_once(AFTER).map_or((part, None), |(gtid, after)| (gtid, Some(after)));
            let (gtid, after): (DomainGtid, _) = (gtid.parse()?, after.map(str::parse).transpose()?);
            let before = after.is_none_or(|after: DomainGtid| after.domain == gtid.domain);
            if !before || !point.has_reached(gtid.domain, gtid.sequence) {
                return Err(DomainError(text.to_owned()));
            }
            point.prepared.insert((gtid.domain, gtid.sequence), (gtid, after));
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
