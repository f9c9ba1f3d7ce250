//! A place in the log of a server without GTIDs: binlog file and offset.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// File and offset. Files of one base name order by their number, which may have more than six digits; files of
/// different base names do not compare, nor those of servers that are known to be two.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilePoint {
    /// File name as the server lists it, such as `mysql-bin.000003`.
    pub file: String,
    /// Offset in bytes; wider than 32 bits, for files grow beyond 4 GiB.
    pub offset: u64,
    /// `server_uuid` of the server whose file it is, where it is known.
    pub server: Option<Uuid>,
}

impl FilePoint {
    /// Whether the two are known to be of two servers.
    pub fn is_elsewhere(&self, other: &Self) -> bool {
        matches!((self.server, other.server), (Some(mine), Some(theirs)) if mine != theirs)
    }

    /// Bytes from here to `ahead`, a file between them counting as 1 GiB, its usual size; 0 when `ahead` is behind.
    /// `None` when the two do not compare.
    pub fn lacks(&self, ahead: &Self) -> Option<u64> {
        if self.is_elsewhere(ahead) {
            return None;
        }
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
        if self.is_elsewhere(other) {
            return None;
        }
        if self.file == other.file {
            return Some(self.offset.cmp(&other.offset));
        }
        let ((base, number), (other_base, other_number)) = (self.parts()?, other.parts()?);
        (base == other_base).then(|| (number, self.offset).cmp(&(other_number, other.offset)))
    }
}

/// Everything before a place is covered, but for transactions that were only prepared there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePosition {
    /// The place.
    pub at: FilePoint,
    /// Where prepared transactions begin whose outcome stands behind the place, in their order.
    prepared: Vec<FilePoint>,
}

impl From<FilePoint> for FilePosition {
    fn from(at: FilePoint) -> Self {
        Self { at, prepared: Vec::new() }
    }
}

impl FilePosition {
    /// Where the log has to be read from: the oldest transaction that is not covered.
    pub fn start(&self) -> &FilePoint {
        self.prepared.first().unwrap_or(&self.at)
    }

    /// Whether a transaction that begins there is covered; `None` if the places do not compare.
    pub fn covers(&self, begin: &FilePoint) -> Option<bool> {
        Some(begin.partial_cmp(&self.at)?.is_lt() && !self.prepared.contains(begin))
    }

    /// Moves on to a place; never back. One whose server is not known is of the same.
    pub fn reach(&mut self, at: FilePoint) {
        if at.partial_cmp(&self.at).is_none_or(Ordering::is_gt) {
            self.at = FilePoint { server: at.server.or(self.at.server), ..at };
        }
    }

    /// Moves on past a prepared transaction, without covering it.
    pub fn prepare(&mut self, begin: &FilePoint, end: FilePoint) {
        if !self.prepared.contains(begin) {
            self.prepared.push(begin.clone());
        }
        self.reach(end);
    }

    /// Covers a prepared transaction, for its outcome is.
    pub fn settle(&mut self, begin: &FilePoint) {
        self.prepared.retain(|prepared| prepared != begin);
    }

    /// What both cover.
    pub fn meet(&self, other: &Self) -> Option<Self> {
        let at = if self.at.partial_cmp(&other.at)?.is_lt() { &self.at } else { &other.at };
        let mut prepared: Vec<_> =
            self.prepared.iter().chain(&other.prepared).filter(|begin| *begin < at).cloned().collect();
        prepared.sort_by(|a, b| a.partial_cmp(b).unwrap_or(Ordering::Equal));
        prepared.dedup();
        Some(Self { at: at.clone(), prepared })
    }

    /// What one or the other covers; `None` if the places do not compare.
    pub fn join(&self, other: &Self) -> Option<Self> {
        let at = if self.at.partial_cmp(&other.at)?.is_lt() { &other.at } else { &self.at };
        let left_out = |one: &Self, other: &Self| -> Vec<FilePoint> {
            one.prepared.iter().filter(|begin| other.covers(begin) != Some(true)).cloned().collect()
        };
        let mut prepared = [left_out(self, other), left_out(other, self)].concat();
        prepared.sort_by(|a, b| a.partial_cmp(b).unwrap_or(Ordering::Equal));
        prepared.dedup();
        Some(Self { at: at.clone(), prepared })
    }

    /// Bytes from here to `ahead`, as [`FilePoint::lacks`] counts, what has to be read again included.
    pub fn lacks(&self, ahead: &Self) -> Option<u64> {
        let settled = self.prepared.iter().find(|begin| !ahead.prepared.contains(begin));
        settled.unwrap_or(&self.at).lacks(&ahead.at)
    }

    /// The same transactions are prepared, as seen from another place.
    pub(super) fn moved(&self, at: FilePoint) -> Self {
        Self { at, prepared: self.prepared.clone() }
    }

    /// Whether nothing is covered.
    pub fn is_beginning(&self) -> bool {
        self.start().is_beginning()
    }

    /// Whether what the other leaves out within this is left out here too.
    fn leaves_out(&self, other: &Self) -> bool {
        other.prepared.iter().all(|begin| *begin >= self.at || self.prepared.contains(begin))
    }
}

impl PartialOrd for FilePosition {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        super::both_ways(self.at.partial_cmp(&other.at)?, self.leaves_out(other), other.leaves_out(self))
    }
}

impl fmt::Display for FilePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.at.fmt(f)?;
        for (index, begin) in self.prepared.iter().enumerate() {
            write!(f, "{}{begin}", if index > 0 { "," } else { super::WITHOUT })?;
        }
        Ok(())
    }
}

impl FromStr for FilePosition {
    type Err = FileError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (at, prepared) = text.split_once(super::WITHOUT).unwrap_or((text, ""));
        let prepared = prepared.split(',').filter(|part| !part.is_empty()).map(str::parse).collect::<Result<_, _>>();
        let point = Self { at: at.parse()?, prepared: prepared? };
        let within = point.prepared.iter().all(|begin| *begin < point.at) && point.prepared.is_sorted();
        Some(point).filter(|_| within).ok_or_else(|| FileError(text.to_owned()))
    }
}

impl fmt::Display for FilePoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.offset)?;
        self.server.map_or(Ok(()), |server| write!(f, "@{server}"))
    }
}

/// A text is not file and offset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a file and offset such as mysql-bin.000003:4, with @server_uuid behind it or not")]
pub struct FileError(String);

impl FromStr for FilePoint {
    type Err = FileError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = |(file, place): (&str, &str)| {
            let (offset, server) = match place.split_once('@') {
                Some((offset, server)) => (offset, Some(Uuid::parse_str(server).ok()?)),
                None => (place, None),
            };
            Some(Self { file: file.to_owned(), offset: offset.parse().ok()?, server })
        };
        let point = text.rsplit_once(':').and_then(read);
        point.filter(|point| point.parts().is_some()).ok_or_else(|| FileError(text.to_owned()))
    }
}
