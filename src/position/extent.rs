//! How much log lies between two positions.

use std::fmt;

use bytesize::ByteSize;
use serde::Serialize;

use super::{DomainGtid, FilePoint, Point, Position};

/// What a transaction counts where only transactions can be counted, in bytes of log.
const TRANSACTION: u64 = 1024;

/// A piece of log, in the terms of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Extent {
    /// So many transactions, of whatever tables.
    Transactions(u64),
    /// So many bytes; where files lie between, as if each were of the largest usual size.
    Bytes(u64),
}

impl Extent {
    /// Whether there is nothing.
    pub fn is_empty(self) -> bool {
        matches!(self, Self::Transactions(0) | Self::Bytes(0))
    }

    /// Roughly, in bytes.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Transactions(number) => number.saturating_mul(TRANSACTION),
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transactions(1) => f.write_str("1 transaction"),
            Self::Transactions(number) => write!(f, "{number} transactions"),
            Self::Bytes(bytes) => write!(f, "up to {} of binlog", ByteSize(*bytes)),
        }
    }
}

impl Point {
    /// What `ahead` covers and this does not; `None` when the two are of different kinds.
    pub fn extent_to(&self, ahead: &Self) -> Option<Extent> {
        match (self, ahead) {
            (Self::Gtid(mine), Self::Gtid(ahead)) => Some(Extent::Transactions(ahead.difference(mine).len())),
            (Self::Domains(mine), Self::Domains(ahead)) => Some(Extent::Transactions(mine.lacks(ahead))),
            (Self::File(mine), Self::File(ahead)) => mine.lacks(ahead).map(Extent::Bytes),
            _ => None,
        }
    }

    /// What `ahead` covers and this does not, by name: GTIDs, or places in files; `None` when the two are of different kinds.
    pub fn names_to(&self, ahead: &Self) -> Option<String> {
        match (self, ahead) {
            (Self::Gtid(mine), Self::Gtid(ahead)) => Some(ahead.difference(mine).to_string()),
            (Self::Domains(mine), Self::Domains(ahead)) => {
                let range = |ahead: &DomainGtid| {
                    let next = mine.domain(ahead.domain).map_or(0, |mine| mine.sequence) + 1;
                    let DomainGtid { domain, server, sequence } = ahead;
                    (next <= *sequence).then(|| format!("{domain}-{server}-{next}..{sequence}"))
                };
                Some(ahead.domains().filter_map(range).collect::<Vec<_>>().join(","))
            }
            (Self::File(mine), Self::File(ahead)) => {
                let (FilePoint { file, offset, .. }, ahead) = (mine.start(), ahead.start());
                Some(format!("{file}:{offset} to {}:{}", ahead.file, ahead.offset))
            }
            _ => None,
        }
    }

    /// How much log lies between here and `ahead`, roughly, in bytes; `None` when the two are of different kinds.
    pub fn lacks(&self, ahead: &Self) -> Option<u64> {
        self.extent_to(ahead).map(Extent::bytes)
    }
}

/// What becomes of a table whose position is moved by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Shift {
    /// Covered before and not any more: its events are published again.
    pub repeats: Extent,
    /// Not covered before: its events are never published.
    pub skips: Extent,
}

impl Shift {
    /// Between two positions; `None` when they are of different kinds.
    pub fn between(from: &Position, to: &Position) -> Option<Self> {
        Some(Self { repeats: to.point.extent_to(&from.point)?, skips: from.point.extent_to(&to.point)? })
    }
}

impl fmt::Display for Shift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.repeats.is_empty(), self.skips.is_empty()) {
            (true, true) => f.write_str("moves past no transaction"),
            (false, true) => write!(f, "REPEATS what {} hold of this table", self.repeats),
            (true, false) => {
                write!(f, "SKIPS what {} hold of this table: those events are never published", self.skips)
            }
            (false, false) => write!(
                f,
                "REPEATS what {} hold of this table, and SKIPS what {} hold: those events are never published",
                self.repeats, self.skips
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn shift(from: &str, to: &str) -> Option<(Extent, Extent)> {
        let shift = Shift::between(&from.parse().unwrap(), &to.parse().unwrap())?;
        Some((shift.repeats, shift.skips))
    }

    #[test]
    fn what_lies_between_has_its_names() {
        let names = |from: &str, to: &str| {
            from.parse::<Position>().unwrap().point.names_to(&to.parse::<Position>().unwrap().point)
        };
        let (early, late) = (format!("gtid={A}:1-4"), format!("gtid={A}:1-9"));
        assert_eq!(names(&early, &late).unwrap(), format!("{A}:5-9"));
        assert_eq!(names("domains=0-1-4,2-1-3", "domains=0-3-9,1-1-2,2-1-3").unwrap(), "0-3-5..9,1-1-1..2");
        assert_eq!(names("file=b.000003:157", "file=b.000005:4").unwrap(), "b.000003:157 to b.000005:4");
        assert_eq!(names(&early, "file=b.000005:4"), None);
    }

    #[test]
    fn a_move_says_what_it_repeats_and_what_it_skips() {
        use Extent::{Bytes, Transactions};
        let (early, late) = (format!("gtid={A}:1-4"), format!("gtid={A}:1-9"));
        assert_eq!(shift(&late, &early), Some((Transactions(5), Transactions(0))));
        assert_eq!(shift(&early, &late), Some((Transactions(0), Transactions(5))));
        assert_eq!(shift(&format!("gtid={A}:1-4:8"), &late), Some((Transactions(0), Transactions(4))));
        assert_eq!(shift("file=b.000001:900", "file=b.000001:100"), Some((Bytes(800), Bytes(0))));
        assert_eq!(shift("domains=0-1-9", "domains=0-1-7,1-1-2"), Some((Transactions(2), Transactions(2))));
        assert_eq!(shift("file=b.000001:4", &early), None);
        let text =
            |from: &str, to: &str| Shift::between(&from.parse().unwrap(), &to.parse().unwrap()).unwrap().to_string();
        assert!(text(&late, &early).starts_with("REPEATS what 5 transactions"));
        assert!(text(&early, &late).starts_with("SKIPS what 5 transactions"));
        assert_eq!(text(&early, &early), "moves past no transaction");
    }
}
