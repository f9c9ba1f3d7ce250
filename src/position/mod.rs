//! Positions: where a table's relay resumes.
//!
//! Promise: a position covers whole transactions exactly (gaps kept), says of the one that follows how many of its rows
//! are relayed already, and of a table that is read itself how far that is; and it is comparable, so that nothing durable
//! ever moves backwards (R3). The kind of a position is explicit; two kinds are never compared as if they were one.

mod extent;
mod file;
mod gtid;
mod margin;
mod mariadb;
mod parked;
mod scan;
mod store;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

pub use extent::{Extent, Shift};
pub use file::{FileError, FilePoint, FilePosition};
pub use gtid::{Gtid, GtidError, GtidSet, Interval, Origin};
pub use margin::Margin;
pub use mariadb::{DomainError, DomainGtid, DomainPoint};
pub use parked::{Aggregate, AggregateError, Parked, Parking};
pub use scan::{Key, Scan, ScanError};
pub use store::{Claim, Claimed, Pause, PositionStore, Saved, StoreError, table_of_row};

/// A place between transactions, in the terms of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Point {
    /// MySQL: everything in the set is relayed.
    Gtid(GtidSet),
    /// MariaDB: in each domain, everything up to the sequence number is relayed.
    Domains(DomainPoint),
    /// A server without GTIDs: everything before this offset is relayed.
    File(FilePosition),
}

/// Stands between a list of domains or a place, and transactions before it that are only prepared.
const WITHOUT: &str = " without ";

/// An order by where two end, if also the transactions within them that each leaves out allow it: `less` if what the
/// second leaves out is left out by the first too, `greater` the other way round.
fn both_ways(ends: Ordering, less: bool, greater: bool) -> Option<Ordering> {
    match (ends.is_le() && less, ends.is_ge() && greater) {
        (true, true) => Some(Ordering::Equal),
        (true, false) => Some(Ordering::Less),
        (false, true) => Some(Ordering::Greater),
        (false, false) => None,
    }
}

impl From<FilePoint> for Point {
    fn from(at: FilePoint) -> Self {
        Self::File(at.into())
    }
}

/// One transaction's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TxnId {
    /// MySQL's GTID.
    Gtid(Gtid),
    /// MariaDB's GTID.
    Domain(DomainGtid),
    /// No GTID: where the transaction begins.
    File(FilePoint),
}

/// Rows of a transaction that is relayed in part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partial {
    /// The transaction.
    pub txn: TxnId,
    /// How many of its rows in this table are relayed; at least 1.
    pub rows: u64,
}

/// Where a relay resumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Whole transactions.
    pub point: Point,
    /// The one after them, if it is relayed in part.
    pub partial: Option<Partial>,
    /// The rows that are in the table from before, if they are relayed in part; first them, then the log.
    pub scan: Option<Box<Scan>>,
}

impl Default for Position {
    /// The position before everything that a MySQL server with GTIDs ever committed.
    fn default() -> Self {
        Point::Gtid(GtidSet::default()).into()
    }
}

impl From<Point> for Position {
    fn from(point: Point) -> Self {
        Self { point, partial: None, scan: None }
    }
}

impl Point {
    /// Whether the whole transaction is covered; `None` when the two are of different kinds.
    pub fn covers(&self, txn: &TxnId) -> Option<bool> {
        match (self, txn) {
            (Self::Gtid(set), TxnId::Gtid(gtid)) => Some(set.contains(gtid)),
            (Self::Domains(point), TxnId::Domain(gtid)) => Some(point.covers(gtid)),
            (Self::File(point), TxnId::File(begin)) => point.covers(begin),
            _ => None,
        }
    }

    /// Covers a transaction that has ended, at `end` in the log. A transaction of another kind is no matter.
    pub fn add(&mut self, txn: &TxnId, end: impl FnOnce() -> FilePoint) {
        match (self, txn) {
            (Self::Gtid(set), TxnId::Gtid(gtid)) => set.add(gtid),
            (Self::Domains(point), TxnId::Domain(gtid)) => point.add(*gtid),
            (Self::File(point), txn) => {
                point.reach(end());
                if let TxnId::File(begin) = txn {
                    point.settle(begin);
                }
            }
            _ => {}
        }
    }

    /// Moves on past a transaction that ends prepared, at `end` in the log, without covering it.
    pub fn prepare(&mut self, txn: &TxnId, end: FilePoint) {
        match (self, txn) {
            (Self::Domains(point), TxnId::Domain(gtid)) => point.prepare(*gtid),
            (Self::File(point), TxnId::File(begin)) => point.prepare(begin, end),
            // A set has a gap there of itself.
            _ => {}
        }
    }

    /// Covers a prepared transaction, whose outcome is covered now.
    pub fn settle(&mut self, txn: &TxnId) {
        match (self, txn) {
            (Self::Gtid(set), TxnId::Gtid(gtid)) => set.add(gtid),
            (Self::Domains(point), TxnId::Domain(gtid)) => point.settle(gtid),
            (Self::File(point), TxnId::File(begin)) => point.settle(begin),
            _ => {}
        }
    }

    /// Right behind a transaction that comes after this; `None` in a file, for where it ends is not known, and when the two
    /// are of different kinds.
    pub fn behind(&self, txn: &TxnId) -> Option<Self> {
        let covered = self.covers(txn).filter(|_| !matches!(self, Self::File(_)));
        covered.map(|_| {
            let mut point = self.clone();
            point.add(txn, FilePoint::default);
            point
        })
    }

    /// The name of the kind, as the text form begins with it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Gtid(_) => "gtid",
            Self::Domains(_) => "domains",
            Self::File(_) => "file",
        }
    }

    /// What both cover; `None` when they cannot be compared. Reading from there serves both.
    pub fn meet(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Gtid(a), Self::Gtid(b)) => Some(Self::Gtid(a.intersection(b))),
            (Self::Domains(a), Self::Domains(b)) => Some(Self::Domains(a.meet(b))),
            (Self::File(a), Self::File(b)) => a.meet(b).map(Self::File),
            _ => None,
        }
    }
}

impl Point {
    /// What one or the other covers; `None` when they cannot be compared.
    fn join(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Gtid(a), Self::Gtid(b)) => Some(Self::Gtid(a.union(b))),
            (Self::Domains(a), Self::Domains(b)) => Some(Self::Domains(a.join(b))),
            (Self::File(a), Self::File(b)) => a.join(b).map(Self::File),
            _ => None,
        }
    }
}

impl Position {
    /// The point, or the beginning of the transaction in part where that is known: between the end of one transaction and
    /// the beginning of the next there are many places in a file, and they are all the same.
    fn place(&self) -> Cow<'_, Point> {
        match (&self.point, &self.partial) {
            (Point::File(point), Some(Partial { txn: TxnId::File(begin), .. })) => {
                Cow::Owned(Point::File(point.moved(begin.clone())))
            }
            (point, _) => Cow::Borrowed(point),
        }
    }

    /// Where a table stands that stood here and has come to `next`. That is `next`, but that readers of different tables
    /// leave out different prepared transactions: what either covers, the table has.
    #[must_use]
    pub fn on_to(&self, next: &Self) -> Self {
        let Some(point) = self.point.join(&next.point).filter(|_| self.partial_cmp(next).is_none_or(Ordering::is_gt))
        else {
            // Another server may have the transaction in part later than this one had it.
            let ahead = |partial: &&Partial| next.point.covers(&partial.txn) == Some(false);
            let partial = next.partial.as_ref().or_else(|| self.partial.as_ref().filter(ahead));
            return Self { partial: partial.cloned(), ..next.clone() };
        };
        let scan = next.scan.clone();
        let open = |partial: &&Partial| point.covers(&partial.txn) == Some(false);
        let (mine, next) = (self.partial.as_ref().filter(open), next.partial.as_ref().filter(open));
        let further = mine.filter(|mine| next.is_none_or(|next| next.txn == mine.txn && next.rows < mine.rows));
        Self { partial: further.or(next).cloned(), point, scan }
    }

    /// Whether nothing at all is covered: a log that begins here is whole.
    pub fn is_beginning(&self) -> bool {
        self.partial.is_none()
            && self.scan.is_none()
            && match &self.point {
                Point::Gtid(set) => set.is_empty(),
                Point::Domains(point) => *point == DomainPoint::default(),
                Point::File(point) => point.is_beginning(),
            }
    }
}

impl PartialOrd for Point {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Gtid(a), Self::Gtid(b)) => match (a.is_subset(b), b.is_subset(a)) {
                (true, true) => Some(Ordering::Equal),
                (true, false) => Some(Ordering::Less),
                (false, true) => Some(Ordering::Greater),
                (false, false) => None,
            },
            (Self::Domains(a), Self::Domains(b)) => a.partial_cmp(b),
            (Self::File(a), Self::File(b)) => a.partial_cmp(b),
            _ => None,
        }
    }
}

impl PartialOrd for Position {
    /// By point, then by the rows of a scan, which comes before the log, then by the rows of the transaction that follows.
    /// Two different transactions in part do not compare.
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let order = match (&self.scan, &other.scan) {
            (None, None) => Ordering::Equal,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => a.partial_cmp(b)?,
        };
        match self.place().partial_cmp(&other.place())?.then(order) {
            Ordering::Equal => match (&self.partial, &other.partial) {
                (None, None) => Some(Ordering::Equal),
                (None, Some(_)) => Some(Ordering::Less),
                (Some(_), None) => Some(Ordering::Greater),
                (Some(a), Some(b)) if a.txn == b.txn => Some(a.rows.cmp(&b.rows)),
                (Some(_), Some(_)) => None,
            },
            order => Some(order),
        }
    }
}

impl fmt::Display for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gtid(gtid) => gtid.fmt(f),
            Self::Domain(gtid) => gtid.fmt(f),
            Self::File(point) => point.fmt(f),
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gtid(set) => write!(f, "gtid={set}"),
            Self::Domains(point) => write!(f, "domains={point}"),
            Self::File(point) => write!(f, "file={point}"),
        }
    }
}

impl fmt::Display for Position {
    /// The text form, which [`FromStr`] reads back: `gtid=SET`, `domains=LIST` or `file=NAME:OFFSET`, the last two with
    /// ` without TXN,…` for what is only prepared; ` +ROWS of TXN` for a transaction in part, and ` scan ROWS after KEY
    /// until KEY by COLUMNS` for a table that is read itself.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.point.fmt(f)?;
        if let Some(Partial { txn, rows }) = &self.partial {
            write!(f, " +{rows} of {txn}")?;
        }
        match &self.scan {
            Some(scan) => write!(f, " {scan}"),
            None => Ok(()),
        }
    }
}

/// A text is not a position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PositionError {
    /// It begins with none of the kinds.
    #[error("`{0}` is not a position; expected gtid=SET, domains=LIST or file=NAME:OFFSET")]
    Kind(String),
    /// The rows of the transaction in part are not readable.
    #[error("`{0}` does not say rows of a transaction in part as ` +ROWS of TXN`")]
    Partial(String),
    /// The GTID set is not readable.
    #[error(transparent)]
    Gtid(#[from] GtidError),
    /// The list of domains is not readable.
    #[error(transparent)]
    Domains(#[from] DomainError),
    /// File and offset are not readable.
    #[error(transparent)]
    File(#[from] FileError),
    /// The rows of a table that is read are not readable.
    #[error(transparent)]
    Scan(#[from] ScanError),
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Neither keys nor identities of transactions have blanks; but a key may be the word. Behind it there is no number.
        let is_scan = |(at, word): &(usize, &str)| text[at + word.len()..].starts_with(|c: char| c.is_ascii_digit());
        let (log, scan) = match text.rmatch_indices(" scan ").find(is_scan) {
            Some((at, _)) => (&text[..at], Some(Box::new(text[at + 1..].parse()?))),
            None => (text, None),
        };
        let (point, partial) = match log.rsplit_once(" +") {
            Some((point, partial)) => (point, Some(partial)),
            None => (log, None),
        };
        let point = match point.split_once('=') {
            Some(("gtid", set)) => Point::Gtid(set.parse()?),
            Some(("domains", list)) => Point::Domains(list.parse()?),
            Some(("file", place)) => Point::File(place.parse()?),
            _ => return Err(PositionError::Kind(text.to_owned())),
        };
        let Some(partial) = partial else { return Ok(Self { point, partial: None, scan }) };
        let bad = || PositionError::Partial(text.to_owned());
        let (rows, txn) = partial.split_once(" of ").ok_or_else(bad)?;
        let rows = rows.parse().ok().filter(|&rows| rows > 0).ok_or_else(bad)?;
        let txn = match &point {
            Point::Gtid(_) => TxnId::Gtid(txn.parse()?),
            Point::Domains(_) => TxnId::Domain(txn.parse()?),
            Point::File(_) => TxnId::File(txn.parse()?),
        };
        Ok(Self { point, partial: Some(Partial { txn, rows }), scan })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn position(text: &str) -> Position {
        text.parse().unwrap()
    }

    #[test]
    fn every_kind_reads_back_as_written() {
        for text in [
            format!("gtid={A}:1-5"),
            format!("gtid={A}:1-5 +7 of {A}:6"),
            "gtid=".to_owned(),
            "domains=0-1-100,1-2-5 +1 of 1-2-6".to_owned(),
            "file=my.bin-log.000003:5000000000 +2 of my.bin-log.000003:5000000000".to_owned(),
            "domains=0-1-100,1-2-5 without 0-1-9 after 0-2-8,1-2-1 +1 of 1-2-6".to_owned(),
            "file=b.000003:500 without b.000002:70,b.000003:4 +1 of b.000003:600".to_owned(),
            format!("gtid={A}:1-5 scan 7 after 12,a%20b until 99,z"),
            "file=b.000001:4 +1 of b.000001:4 scan 0+3 until %ff".to_owned(),
            format!("gtid={A}:1-5 scan 7 after scan until scan by id,scan"),
            format!("file=my.bin-log.000003:4@{A} +2 of my.bin-log.000003:4"),
        ] {
            assert_eq!(position(&text).to_string(), text);
        }
        for text in [
            "",
            "gtid",
            "x=1",
            "gtid=x",
            "file=a",
            "gtid= +0 of x:1",
            "file=a.000001:4 +1",
            "domains=0-1-5 without 0-1-6",
            "domains=0-1-5 without 0-1-4 after 1-1-3",
            "file=a.000001:4 without a.000001:4",
        ] {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
    }

    #[test]
    fn positions_order_by_what_they_cover() {
        let ordered = [
            format!("gtid={A}:1-3 scan 9 after 9 until 9"),
            format!("gtid={A}:1-4 scan 0 until 9"),
            format!("gtid={A}:1-4 scan 0+2 until 9"),
            format!("gtid={A}:1-4 scan 1+2 after 1 until 9"),
            format!("gtid={A}:1-4"),
            format!("gtid={A}:1-4 +1 of {A}:5"),
            format!("gtid={A}:1-4 +9 of {A}:5"),
            format!("gtid={A}:1-5"),
        ];
        for pair in ordered.windows(2) {
            assert!(position(&pair[0]) < position(&pair[1]), "{pair:?}");
        }
        let places =
            ["200", "250", "200 +1 of b.000001:250", "250 +2 of b.000001:250", "200 +3 of b.000001:250", "300"];
        for pair in places.map(|place| position(&format!("file=b.000001:{place}"))).windows(2) {
            assert!(pair[0] < pair[1], "{pair:?}");
        }
        assert_eq!(position(&format!("gtid={A}:1-3:5")).partial_cmp(&position(&format!("gtid={A}:1-4"))), None);
        assert_eq!(position("file=b.000001:4").partial_cmp(&position("gtid=")), None);
        let other = "4e11fa47-71ca-11e1-9e33-c80aa9429562";
        let of = |server: &str, offset: u64| position(&format!("file=b.000001:{offset}@{server}"));
        assert!(of(A, 4) < of(A, 5) && position("file=b.000001:4") < of(A, 5), "an older position has no server");
        assert_eq!(of(A, 4).partial_cmp(&of(other, 5)), None, "files of two servers are not one log");
        assert!(position("file=b.999999:900") < position("file=b.1000000:4"));
        let scan = |until: u8| position(&format!("gtid= scan 1 until {until}"));
        assert_eq!(scan(1).partial_cmp(&scan(2)), None);
    }

    #[test]
    fn the_place_behind_a_transaction_is_known_where_it_has_a_number() {
        let behind = |from: &str, txn: TxnId| position(from).point.behind(&txn).map(|point| point.to_string());
        let gtid = |number: u64| TxnId::Gtid(format!("{A}:{number}").parse().unwrap());
        let domain = |text: &str| TxnId::Domain(text.parse().unwrap());
        let file = TxnId::File("b.000001:250".parse().unwrap());
        assert_eq!(behind(&format!("gtid={A}:1-4"), gtid(5)).unwrap(), format!("gtid={A}:1-5"));
        assert_eq!(behind(&format!("gtid={A}:1-4"), gtid(7)).unwrap(), format!("gtid={A}:1-4:7"));
        assert_eq!(behind("domains=0-1-9,1-1-2", domain("0-2-10")).unwrap(), "domains=0-2-10,1-1-2");
        let prepared = "domains=0-1-9 without 0-1-7 after 0-1-6";
        assert_eq!(behind(prepared, domain("0-1-10")).unwrap(), "domains=0-1-10 without 0-1-7 after 0-1-6");
        assert_eq!((behind("file=b.000001:200", file), behind("gtid=", domain("0-1-1"))), (None, None));
    }

    #[test]
    fn what_a_position_lacks_is_counted_in_bytes_of_log() {
        let lacks = |from: &str, to: &str| position(from).point.lacks(&position(to).point);
        assert_eq!(lacks(&format!("gtid={A}:1-4:9"), &format!("gtid={A}:1-10")), Some(5 * 1024));
        assert_eq!(lacks(&format!("gtid={A}:1-4"), "gtid="), Some(0));
        assert_eq!(lacks("domains=0-1-9,1-1-2", "domains=0-2-5,1-1-4,7-1-1"), Some(3 * 1024));
        assert_eq!(lacks("file=b.000001:900", "file=b.000003:100"), Some((2 << 30) - 800));
        assert_eq!((lacks("file=b.000001:9", "file=c.000001:9"), lacks("gtid=", "domains=0-1-1")), (None, None));
    }

    #[test]
    fn a_prepared_transaction_is_left_out_until_it_is_settled() {
        let end = |offset: u64| FilePoint { file: "b.000002".to_owned(), offset, server: None };
        for (before, first, second, after, start) in [
            (
                "domains=0-1-9,1-1-5",
                "0-1-10",
                "0-1-11",
                "domains=0-1-11,1-1-5 without 0-1-10 after 0-1-9",
                "0-1-9,1-1-5",
            ),
            ("domains=1-1-5", "0-1-10", "0-1-11", "domains=0-1-11,1-1-5 without 0-1-10", "1-1-5"),
            (
                "file=b.000002:90",
                "b.000002:100",
                "b.000002:200",
                "file=b.000002:300 without b.000002:100",
                "b.000002:100",
            ),
        ] {
            let txn = |text: &str| match position(before).point {
                Point::File(_) => TxnId::File(text.parse().unwrap()),
                _ => TxnId::Domain(text.parse().unwrap()),
            };
            let mut point = position(before).point;
            let mut steps = vec![point.clone()];
            point.prepare(&txn(first), end(200));
            steps.push(point.clone());
            point.add(&txn(second), || end(300));
            steps.push(point.clone());
            assert_eq!(point.to_string(), after);
            assert_eq!((point.covers(&txn(first)), point.covers(&txn(second))), (Some(false), Some(true)));
            let asked = match &point {
                Point::Domains(point) => point.start().to_string(),
                Point::File(point) => point.start().to_string(),
                Point::Gtid(_) => unreachable!(),
            };
            assert_eq!(asked, start);
            assert_eq!(point.lacks(&point.clone()), Some(0));
            point.settle(&txn(first));
            steps.push(point.clone());
            assert_eq!(point.covers(&txn(first)), Some(true));
            assert!(steps.is_sorted_by(|a, b| a < b), "{steps:?}");
            // What has been read again counts as missing where it is settled.
            assert!(steps[2].lacks(&point).unwrap() > 0);
        }
    }

    #[test]
    fn a_table_stands_where_it_stood_or_beyond_whatever_its_next_reader_leaves_out() {
        for (from, next, stands) in [
            ("domains=0-1-25", "domains=0-1-26", "domains=0-1-26"),
            ("domains=0-1-25", "domains=0-1-26 without 0-1-10 after 0-1-9", "domains=0-1-26"),
            ("domains=0-1-25", "domains=0-1-25 without 0-1-10 after 0-1-9", "domains=0-1-25"),
            (
                "domains=0-1-25 without 0-1-20 after 0-1-19",
                "domains=0-1-30 without 0-1-10 after 0-1-9,0-1-28 after 0-1-27",
                "domains=0-1-30 without 0-1-28 after 0-1-27",
            ),
            ("file=b.000001:90", "file=b.000001:95 without b.000001:50", "file=b.000001:95"),
            (
                "file=b.000001:90 +2 of b.000001:92",
                "file=b.000001:91 without b.000001:50 +1 of b.000001:92",
                "file=b.000001:91 +2 of b.000001:92",
            ),
            ("file=b.000001:90 without b.000001:50", "file=b.000001:95", "file=b.000001:95"),
            ("gtid=", "file=b.000001:95", "file=b.000001:95"),
            // Another server has the transaction that was relayed in part later.
            ("domains=0-1-25 +3 of 1-1-7", "domains=0-1-26", "domains=0-1-26 +3 of 1-1-7"),
            ("domains=0-1-25 +3 of 0-1-26", "domains=0-1-26", "domains=0-1-26"),
        ] {
            assert_eq!(position(from).on_to(&position(next)).to_string(), stands, "{from} {next}");
        }
        let (from, next) = (position(&format!("gtid={A}:1-25")), position(&format!("gtid={A}:1-9:11-26")));
        assert_eq!(from.on_to(&next).to_string(), format!("gtid={A}:1-26"));
    }

    #[test]
    fn what_is_left_out_by_either_is_left_out_by_the_meeting_point_and_not_comparable_with_what_goes_on() {
        for (a, b, both) in [
            (
                "domains=0-1-20 without 0-1-10 after 0-1-9",
                "domains=0-1-30",
                "domains=0-1-20 without 0-1-10 after 0-1-9",
            ),
            ("domains=0-1-30 without 0-1-25 after 0-1-24", "domains=0-1-20", "domains=0-1-20"),
            (
                "domains=0-1-30 without 0-1-10 after 0-1-9",
                "domains=0-1-20",
                "domains=0-1-20 without 0-1-10 after 0-1-9",
            ),
            ("file=b.000002:90 without b.000001:50", "file=b.000003:4", "file=b.000002:90 without b.000001:50"),
            ("file=b.000003:90 without b.000001:50", "file=b.000002:4", "file=b.000002:4 without b.000001:50"),
        ] {
            let (a, b) = (position(a).point, position(b).point);
            assert_eq!(a.meet(&b).unwrap().to_string(), both);
            assert_eq!(b.meet(&a).unwrap().to_string(), both);
            let within = a.partial_cmp(&b);
            assert_eq!(within, b.partial_cmp(&a).map(Ordering::reverse));
            assert_eq!(within.is_none(), both != a.to_string() && both != b.to_string());
        }
    }

    #[test]
    fn the_meeting_point_covers_no_more_than_either() {
        let (a, b) = (position(&format!("gtid={A}:1-9")), position(&format!("gtid={A}:1-4:8-12")));
        assert_eq!(a.point.meet(&b.point).unwrap().to_string(), format!("gtid={A}:1-4:8-9"));
        let (a, b) = (position("domains=0-1-9,1-1-2"), position("domains=0-2-5"));
        assert_eq!(a.point.meet(&b.point).unwrap().to_string(), "domains=0-2-5");
        assert_eq!(a.point.meet(&Point::Gtid(GtidSet::default())), None);
    }
}
