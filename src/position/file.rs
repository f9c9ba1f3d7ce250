//! A place in the log of a server without GTIDs: binlog file and offset.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// File and offset. Files of one base name order by their number, which may have more than six digits; files of
/// different base names do not compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePoint {
    /// File name as the server lists it, such as `mysql-bin.000003`.
    pub file: String,
    /// Offset in bytes; wider than 32 bits, for files grow beyond 4 GiB.
    pub offset: u64,
}

impl FilePoint {
    /// Bytes from here to `ahead`, a file between them counting as 1 GiB, its usual size; 0 when `ahead` is behind.
    /// `None` when the two do not compare.
    pub fn lacks(&self, ahead: &Self) -> Option<u64> {
        let ((base, number), (other_base, other_number)) = (self.parts()?, ahead.parts()?);
        let end = |number: u64, offset: u64| number.saturating_mul(1 << 30).saturating_add(offset);
        (base == other_base).then(|| end(other_number, ahead.offset).saturating_sub(end(number, self.offset)))
    }

    /// Base name and number of the file.
    fn parts(&self) -> Option<(&str, u64)> {
        let (base, number) = self.file.rsplit_once('.')?;
        Some((base, number.parse().ok()?))
    }

    /// Whether this is the very first place: a log's first file has number 1, and its header is 4 bytes long.
    pub fn is_beginning(&self) -> bool {
        self.offset <= 4 && self.parts().is_some_and(|(_, number)| number == 1)
    }
}

impl PartialOrd for FilePoint {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        if self.file == other.file {
            return Some(self.offset.cmp(&other.offset));
        }
        let ((base, number), (other_base, other_number)) = (self.parts()?, other.parts()?);
        (base == other_base).then(|| (number, self.offset).cmp(&(other_number, other.offset)))
    }
}

impl fmt::Display for FilePoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.offset)
    }
}

/// A text is not file and offset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a file and offset such as mysql-bin.000003:4")]
pub struct FileError(String);

impl FromStr for FilePoint {
    type Err = FileError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let point = text
            .rsplit_once(':')
            .and_then(|(file, offset)| Some(Self { file: file.to_owned(), offset: offset.parse().ok()? }));
        point.filter(|point| point.parts().is_some()).ok_or_else(|| FileError(text.to_owned()))
    }
}
