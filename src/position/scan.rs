//! A table that is being read itself: how far its rows are relayed, by primary key.
//!
//! The order of keys is the server's, by the collations of their columns. So what is compared here is how many rows were
//! relayed, which only grows, and never the keys.

use std::cmp::Ordering;
use std::fmt::{self, Write as _};
use std::str::FromStr;

/// A key: the values of its columns as the log's decoder writes them, or their names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(Vec<Box<[u8]>>);

impl Key {
    /// A key of these columns.
    pub fn new(columns: impl IntoIterator<Item = Box<[u8]>>) -> Self {
        Self(columns.into_iter().collect())
    }

    /// The values, in the order of the key's columns.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.0.iter().map(AsRef::as_ref)
    }

    /// Whether what it holds are these names of columns.
    pub fn is_named<'n>(&self, names: impl ExactSizeIterator<Item = &'n str>) -> bool {
        self.0.len() == names.len()
            && self.columns().zip(names).all(|(own, name)| own.eq_ignore_ascii_case(name.as_bytes()))
    }
}

/// Rows that are in a table although the log after the position's point does not bring them, relayed in part.
///
/// They are those with keys up to `until` that were inserted before the point. Rows that were inserted after it are never
/// among them, wherever their keys lie: the log brings those.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// How many rows were read in the order of their keys and relayed.
    pub rows: u64,
    /// How many rows deleted after the point are dealt with, in the order of the log: relayed from what the log has of them
    /// where they had not been before they were deleted.
    pub gone: u64,
    /// Rows up to this key are relayed; none are without it.
    pub last: Option<Key>,
    /// The highest key that a row from before the point can have.
    pub until: Key,
    /// The names of the key's columns; positions of earlier versions do not have them.
    pub by: Option<Key>,
}

impl Scan {
    /// How many rows are dealt with, those still in the table and those deleted.
    pub fn done(&self) -> u64 {
        self.rows + self.gone
    }

    /// Nothing is relayed yet of the rows up to this key.
    pub fn new(until: Key) -> Self {
        Self { rows: 0, gone: 0, last: None, until, by: None }
    }

    /// The key has columns of these names.
    #[must_use]
    pub fn with_columns(self, names: Key) -> Self {
        Self { by: Some(names), ..self }
    }
}

impl PartialOrd for Scan {
    /// By how much is relayed. Two scans up to different keys do not compare.
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self.rows.cmp(&other.rows), self.gone.cmp(&other.gone)) {
            _ if (&self.until, &self.by) != (&other.until, &other.by) => None,
            (Ordering::Equal, Ordering::Equal) => (self.last == other.last).then_some(Ordering::Equal),
            (Ordering::Equal, order) | (order, Ordering::Equal) => Some(order),
            (rows, gone) => (rows == gone).then_some(rows),
        }
    }
}

impl fmt::Display for Key {
    /// Columns separated by commas; what is not a letter, a digit or one of `-_.:` is a percent sign and two hex digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, column) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_char(',')?;
            }
            for &byte in column {
                if byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte) {
                    f.write_char(byte.into())?;
                } else {
                    write!(f, "%{byte:02x}")?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "scan {}", self.rows)?;
        if self.gone > 0 {
            write!(f, "+{}", self.gone)?;
        }
        if let Some(last) = &self.last {
            write!(f, " after {last}")?;
        }
        write!(f, " until {}", self.until)?;
        match &self.by {
            Some(names) => write!(f, " by {names}"),
            None => Ok(()),
        }
    }
}

/// A text is not a scan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` does not say rows of a table that is read as `scan ROWS after KEY until KEY by COLUMNS`")]
pub struct ScanError(String);

impl FromStr for Key {
    type Err = ScanError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let column = |text: &str| {
            let mut bytes = Vec::with_capacity(text.len());
            let mut rest = text.as_bytes();
            while let Some((&byte, behind)) = rest.split_first() {
                rest = behind;
                if byte != b'%' {
                    bytes.push(byte);
                    continue;
                }
                let (digits, behind) = rest.split_at_checked(2)?;
                bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
                rest = behind;
            }
            Some(bytes.into_boxed_slice())
        };
        text.split(',').map(column).collect::<Option<_>>().map(Self).ok_or_else(|| ScanError(text.to_owned()))
    }
}

impl FromStr for Scan {
    type Err = ScanError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ScanError(text.to_owned());
        let words: Vec<_> = text.split(' ').collect();
        let (count, last, rest) = match words.as_slice() {
            ["scan", count, "after", last, rest @ ..] => (*count, Some(*last), rest),
            ["scan", count, rest @ ..] => (*count, None, rest),
            _ => return Err(bad()),
        };
        let (until, by) = match rest {
            ["until", until] => (*until, None),
            ["until", until, "by", names] => (*until, Some(*names)),
            _ => return Err(bad()),
        };
        let (rows, gone) = count.split_once('+').unwrap_or((count, "0"));
        Ok(Self {
            rows: rows.parse().map_err(|_| bad())?,
            gone: gone.parse().map_err(|_| bad())?,
            last: last.map(str::parse).transpose()?,
            until: until.parse()?,
            by: by.map(str::parse).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> impl Strategy<Value = Key> {
        let column = prop_oneof![
            "[0-9]{1,5}".prop_map(String::into_bytes),
            ".{0,5}".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..17)
        ];
        prop::collection::vec(column.prop_map(Vec::into_boxed_slice), 1..4).prop_map(Key)
    }

    proptest! {
        #[test]
        fn text_reads_back(
            rows in any::<u64>(),
            gone in any::<u64>(),
            last in prop::option::of(keys()),
            until in keys(),
            by in prop::option::of(keys()),
        ) {
            let scan = Scan { rows, gone, last, until, by };
            let text = scan.to_string();
            prop_assert_eq!(text.parse::<Scan>().unwrap(), scan);
            prop_assert!(text.is_ascii() && !text.contains('\n'));
        }
    }

    #[test]
    fn what_is_not_one_is_refused() {
        for text in [
            "",
            "scan",
            "scan 1",
            "scan x until 1",
            "scan 1 until %4",
            "scan 1 until %zz",
            "scan 1 after 1",
            "scan 1 until 1 by",
            "scan 1 until 1 by id until 2",
        ] {
            assert!(text.parse::<Scan>().is_err(), "{text}");
        }
        assert_eq!("scan 12+3 after a%2cb,7 until z".parse::<Scan>().unwrap().last.unwrap().columns().len(), 2);
    }

    #[test]
    fn given_columns_that_are_known_when_another_scan_has_others_then_the_two_do_not_compare() {
        let scan = |text: &str| text.parse::<Scan>().unwrap();
        assert!(scan("scan 1 until 9 by id") < scan("scan 2 after 2 until 9 by id"));
        for other in ["scan 2 after 2 until 9 by seq", "scan 2 after 2 until 9", "scan 1 until 9 by id,seq"] {
            assert_eq!(scan("scan 1 until 9 by id").partial_cmp(&scan(other)), None, "{other}");
        }
        assert_eq!(scan("scan 1 until 9").by, None, "earlier versions did not write them");
    }
}
