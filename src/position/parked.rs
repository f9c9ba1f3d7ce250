//! Aggregates whose events are set aside: what a table has to know of them, kept with its position.
//!
//! Promise: it is durable together with the position that covers it, so whoever resumes there knows every aggregate whose
//! events before that position were parked.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// An aggregate, by the key of its records. Its text form is the key where that is text, and else `0x` and the bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Aggregate(Vec<u8>);

/// What the form for bytes begins with.
const BYTES: &str = "0x";

impl Aggregate {
    /// By the key; events without one are one aggregate, whose key is empty.
    pub fn new(key: &[u8]) -> Self {
        Self(key.to_vec())
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for Aggregate {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |text: &&str| !text.starts_with(BYTES) && !text.chars().any(char::is_control);
        if let Some(text) = std::str::from_utf8(&self.0).ok().filter(plain) {
            return f.write_str(text);
        }
        f.write_str(BYTES)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that begins like the form for bytes, and is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}`: an aggregate is its key, or 0x and its bytes, two digits each")]
pub struct AggregateError(String);

impl FromStr for Aggregate {
    type Err = AggregateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some(digits) = text.strip_prefix(BYTES) else { return Ok(Self(text.as_bytes().to_vec())) };
        let wrong = || AggregateError(text.to_owned());
        let byte = |pair: &[u8]| {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(pair, 16).ok()
        };
        digits.as_bytes().chunks(2).map(|pair| byte(pair).ok_or_else(wrong)).collect::<Result<_, _>>().map(Self)
    }
}

impl From<Aggregate> for String {
    fn from(aggregate: Aggregate) -> Self {
        let mut text = String::new();
        // Writing to a text does not fail.
        let _ = write!(text, "{aggregate}");
        text
    }
}

impl TryFrom<String> for Aggregate {
    type Error = AggregateError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// A parked aggregate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parking {
    /// Tells it from other times that the aggregate was parked: the id of its first event.
    pub run: String,
    /// Why: the halt that it would have been, and what was found.
    pub reason: String,
    /// When the first event was committed.
    pub since: Timestamp,
    /// The position of the batch that the first event came in.
    pub position: String,
    /// The topics that its events are parked in.
    pub topics: BTreeSet<String>,
    /// Events parked so far; they are numbered from 0.
    pub events: u64,
    /// So many of them, the first ones, were put back.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub released: u64,
    /// Bytes of those that were not.
    pub bytes: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Parking {
    /// Events that were not put back.
    pub fn left(&self) -> u64 {
        self.events.saturating_sub(self.released)
    }
}

/// Every parked aggregate of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Parked(BTreeMap<Aggregate, Parking>);

impl Parked {
    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Events that are parked now, of all of them.
    pub fn events(&self) -> u64 {
        self.0.values().map(Parking::left).sum()
    }

    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.0.values().map(|parking| parking.bytes).sum()
    }

    /// The aggregate with this key, if it is parked.
    pub fn get(&self, key: &[u8]) -> Option<&Parking> {
        self.0.get(key)
    }

    /// To change it.
    pub fn get_mut(&mut self, key: &[u8]) -> Option<&mut Parking> {
        self.0.get_mut(key)
    }

    /// Parks an aggregate, or changes what is known of it.
    pub fn put(&mut self, aggregate: Aggregate, parking: Parking) {
        self.0.insert(aggregate, parking);
    }

    /// Its events are put back.
    pub fn remove(&mut self, key: &[u8]) -> Option<Parking> {
        self.0.remove(key)
    }

    /// By key.
    pub fn iter(&self) -> impl Iterator<Item = (&Aggregate, &Parking)> {
        self.0.iter()
    }

    /// As it is stored; nothing for none.
    pub fn text(&self) -> Option<String> {
        if self.is_empty() { None } else { serde_json::to_string(self).ok() }
    }

    /// What was stored.
    pub fn read(text: Option<&str>) -> Result<Self, serde_json::Error> {
        text.map_or_else(|| Ok(Self::default()), serde_json::from_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aggregate_of_any_bytes_is_the_same_after_it_was_written() {
        for key in [&b"42"[..], b"", b"d\xc3\xa9j\xc3\xa0", b"\xff\x00", b"0xff", b"a\nb"] {
            let text = Aggregate::new(key).to_string();
            assert_eq!(text.parse::<Aggregate>().unwrap().key(), key, "{text}");
            assert!(!text.contains('\n'));
        }
        assert_eq!(Aggregate::new(b"\xff\x01").to_string(), "0xff01");
        assert!("0xf".parse::<Aggregate>().is_err() && "0xzz".parse::<Aggregate>().is_err());
    }

    #[test]
    fn what_is_stored_is_read_again() {
        let mut parked = Parked::default();
        assert_eq!((parked.text(), Parked::read(None).unwrap()), (None, Parked::default()));
        let parking = Parking {
            run: "e1".into(),
            reason: "record_too_large: t".into(),
            since: Timestamp::UNIX_EPOCH,
            position: "gtid=".into(),
            topics: ["outboxd.parked.t".to_owned()].into(),
            events: 3,
            released: 1,
            bytes: 10,
        };
        parked.put(Aggregate::new(b"\xff"), parking);
        assert_eq!(Parked::read(parked.text().as_deref()).unwrap(), parked);
        assert_eq!((parked.len(), parked.events(), parked.bytes()), (1, 2, 10));
        assert!(parked.get(b"\xff").is_some() && parked.get(b"x").is_none());
    }
}
