//! Rows ready for a relay.

use std::fmt;
use std::sync::Arc;

use crate::position::Position;

#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Span {
    pub(super) const NULL: Self = Self { start: u32::MAX, end: 0 };

    /// The same bytes when the buffer that they are in has `up` bytes more in front, or `down` fewer.
    pub(super) fn moved(self, up: u32, down: u32) -> Self {
        if self.start == u32::MAX {
            return self;
        }
        Self { start: self.start + up - down, end: self.end + up - down }
    }
}

/// Rows of one table, of one or more transactions in commit order, and the position that relaying them all reaches.
///
/// One buffer holds the bytes of every column; a row costs no allocation of its own.
pub struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) spans: Vec<Span>,
    pub(super) commit_micros: Vec<u64>,
    pub(super) columns: usize,
    pub(super) position: Arc<Position>,
}

impl Batch {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.commit_micros.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.commit_micros.is_empty()
    }

    /// Memory that the batch holds, in bytes; what queue limits count.
    pub fn memory(&self) -> usize {
        self.bytes.len() + self.spans.len() * size_of::<Span>() + self.commit_micros.len() * 8
    }

    /// The position that is reached when every row of this batch is relayed.
    pub fn position(&self) -> &Arc<Position> {
        &self.position
    }

    /// The rows in commit order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = Row<'_>> {
        self.commit_micros.iter().enumerate().map(|(index, &commit_micros)| Row {
            bytes: &self.bytes,
            spans: &self.spans[index * self.columns..(index + 1) * self.columns],
            commit_micros,
        })
    }
}

impl fmt::Debug for Batch {
    /// Sizes only: payloads never reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} rows, {} bytes, up to {})", self.len(), self.memory(), self.position)
    }
}

/// One row, borrowed from its batch.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    bytes: &'a [u8],
    spans: &'a [Span],
    commit_micros: u64,
}

impl<'a> Row<'a> {
    /// The value of the subscription's column `column`; `None` is SQL NULL. Text is UTF-8, numbers are decimal text,
    /// JSON is JSON text, binary types are byte for byte.
    pub fn get(&self, column: usize) -> Option<&'a [u8]> {
        let Span { start, end } = self.spans[column];
        (start != u32::MAX).then(|| &self.bytes[start as usize..end as usize])
    }

    /// When the row's transaction was committed, in microseconds since the Unix epoch.
    pub fn commit_micros(&self) -> u64 {
        self.commit_micros
    }
}
