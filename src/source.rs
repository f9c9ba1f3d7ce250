//! The source seam: what a log gives, in the order in which it was committed.
//!
//! Promise: a stream yields every transaction after the position it was opened at, whole and in commit order, with the
//! rows of the subscribed tables only; everything that it cannot understand about such a table is a [`Fault`], never
//! silence. Rows leave their source undecoded, and are appended to the batch of their table by [`RowSet::append_to`],
//! so one walk over the bytes fills the memory that the relay reads from.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use crate::position::{Position, TxnId};
use crate::table::TableName;

/// What a reader wants of one outbox table.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// The table.
    pub table: TableName,
    /// The columns to deliver, by name, in the order in which [`Row::get`] numbers them. Shared by every batch.
    pub columns: Arc<[String]>,
}

/// A place in the list of subscriptions a stream was opened with.
pub type Slot = usize;

/// One thing that the log says.
#[derive(Debug)]
pub enum LogEvent<R> {
    /// A transaction begins. `commit_micros`: when it was committed, in microseconds since the Unix epoch.
    Begin {
        /// The transaction's identity.
        txn: TxnId,
        /// Commit time; whole seconds where the server does not write microseconds.
        commit_micros: u64,
    },
    /// Rows inserted into the table of `slot`.
    Rows {
        /// Which subscription.
        slot: Slot,
        /// The rows, undecoded.
        rows: R,
    },
    /// A statement on a subscribed table that an outbox should not see.
    Foreign {
        /// Which subscription.
        slot: Slot,
        /// What was done.
        kind: ForeignDml,
    },
    /// A savepoint was set within the transaction.
    Savepoint {
        /// Its name, as the server wrote it.
        name: String,
    },
    /// Everything after the savepoint of that name is undone.
    RollbackTo {
        /// Its name, as the server wrote it.
        name: String,
    },
    /// The transaction is committed; [`LogStream::position`] now covers it.
    Commit,
    /// The transaction is undone although it is in the log (mixed engines); [`LogStream::position`] covers it.
    Rollback,
    /// Something about one table, or about all when `slot` is `None`, that must not be passed over.
    Fault {
        /// Which subscription, or every one.
        slot: Option<Slot>,
        /// What and where.
        fault: Fault,
    },
    /// Nothing for the tables: the position advanced, or the server showed that it is alive.
    Progress,
}

/// Statements that do not belong on an insert-only table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForeignDml {
    /// Rows were changed in place.
    Update,
    /// Rows were deleted (by cleaning, as a rule).
    Delete,
    /// The table was truncated.
    Truncate,
}

/// A named reason why a table's events cannot be relayed as they were committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Stable name for alerts and documents, in `snake_case`.
    pub name: &'static str,
    /// What was found, and what cures it.
    pub detail: String,
    /// Where in the log, in the server's own terms.
    pub at: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: {}", self.name, self.at, self.detail)
    }
}

/// Rows of one log event, not yet decoded.
pub trait RowSet: Send {
    /// Appends every row to the batch. On an error the batch may hold the rows before the bad one.
    fn append_to(self, batch: &mut BatchBuilder) -> Result<(), Fault>;
    /// Bytes that the rows take in the log: what memory limits count before they are decoded.
    fn wire_bytes(&self) -> usize;
}

/// A source of log events for a set of tables.
pub trait LogSource: Send + 'static {
    /// The rows of one event.
    type Rows: RowSet;
    /// The open stream.
    type Stream: LogStream<Rows = Self::Rows>;
    /// Opens the log right after `from`. The stream numbers tables as `subscriptions` does.
    fn open(
        &mut self,
        from: &Position,
        subscriptions: &[Subscription],
    ) -> impl Future<Output = Result<Self::Stream, SourceError>> + Send;
}

/// An open log.
pub trait LogStream: Send {
    /// The rows of one event.
    type Rows: RowSet;
    /// Waits for the next event. Cancel-safe: a dropped future loses nothing.
    fn next(&mut self) -> impl Future<Output = Result<LogEvent<Self::Rows>, SourceError>> + Send;
    /// Covers everything up to the last [`LogEvent::Commit`], [`LogEvent::Rollback`] or [`LogEvent::Progress`].
    fn position(&self) -> &Position;
}

/// Why a log cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SourceError {
    /// The server or the network; opening again later is the cure.
    #[error("{0}")]
    Transient(String),
    /// Opening again brings the same; an operator has to act.
    #[error("{0}")]
    Definite(Fault),
}

#[derive(Debug, Clone, Copy)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    const NULL: Self = Self { start: u32::MAX, end: 0 };
}

/// Rows of one table, of one or more transactions in commit order, and the position that relaying them all reaches.
///
/// One buffer holds the bytes of every column; a row costs no allocation of its own.
pub struct Batch {
    bytes: Vec<u8>,
    spans: Vec<Span>,
    commit_micros: Vec<u64>,
    columns: usize,
    position: Arc<Position>,
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

/// A place in a batch under construction to which it can be cut back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    rows: usize,
    bytes: usize,
}

impl Mark {
    /// Before the first row.
    pub const START: Self = Self { rows: 0, bytes: 0 };

    /// Rows before the mark.
    pub fn rows(self) -> usize {
        self.rows
    }
}

/// A batch under construction.
pub struct BatchBuilder {
    bytes: Vec<u8>,
    spans: Vec<Span>,
    commit_micros: Vec<u64>,
    columns: usize,
    now_micros: u64,
}

impl BatchBuilder {
    /// An empty batch for rows of `columns` columns.
    pub fn new(columns: usize) -> Self {
        Self { bytes: Vec::new(), spans: Vec::new(), commit_micros: Vec::new(), columns, now_micros: 0 }
    }

    /// Sets the commit time of the rows that follow, in microseconds since the Unix epoch.
    pub fn set_commit_micros(&mut self, micros: u64) {
        self.now_micros = micros;
    }

    /// Starts a row; every column is NULL until [`RowWriter::set`]. The row counts when it is finished.
    pub fn row(&mut self) -> RowWriter<'_> {
        let mark = self.mark();
        self.spans.resize(self.spans.len() + self.columns, Span::NULL);
        RowWriter { batch: self, mark, finished: false }
    }

    /// Where the batch ends now.
    pub fn mark(&self) -> Mark {
        Mark { rows: self.commit_micros.len(), bytes: self.bytes.len() }
    }

    /// Cuts the batch back to `mark`.
    pub fn cut(&mut self, mark: Mark) {
        self.commit_micros.truncate(mark.rows);
        self.spans.truncate(mark.rows * self.columns);
        self.bytes.truncate(mark.bytes);
    }

    /// Drops the first `count` rows after `mark` (they were relayed before); returns how many there were to drop.
    pub fn skip_after(&mut self, mark: Mark, count: u64) -> u64 {
        let there = (self.commit_micros.len() - mark.rows) as u64;
        if there <= count {
            self.cut(mark);
            return there;
        }
        let skipped = usize::try_from(count).unwrap_or(usize::MAX);
        self.commit_micros.drain(mark.rows..mark.rows + skipped);
        self.spans.drain(mark.rows * self.columns..(mark.rows + skipped) * self.columns);
        skipped as u64
    }

    /// Number of finished rows.
    pub fn len(&self) -> usize {
        self.commit_micros.len()
    }

    /// Whether no row is finished.
    pub fn is_empty(&self) -> bool {
        self.commit_micros.is_empty()
    }

    /// Memory held, in bytes.
    pub fn memory(&self) -> usize {
        self.bytes.len() + self.spans.len() * size_of::<Span>() + self.commit_micros.len() * 8
    }

    /// Takes the batch out, leaving an empty builder for the same columns.
    pub fn take(&mut self, position: Arc<Position>) -> Batch {
        Batch {
            bytes: std::mem::take(&mut self.bytes),
            spans: std::mem::take(&mut self.spans),
            commit_micros: std::mem::take(&mut self.commit_micros),
            columns: self.columns,
            position,
        }
    }
}

/// Fills one row. Dropped unfinished, it leaves no trace.
pub struct RowWriter<'b> {
    batch: &'b mut BatchBuilder,
    mark: Mark,
    finished: bool,
}

/// A batch's bytes are addressed by 32 bits; one more row would not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a batch cannot hold more than 4 GiB")]
pub struct BatchFull;

impl RowWriter<'_> {
    /// Sets a column to the bytes that `write` appends. The first error of `write` is passed on.
    pub fn set<E: From<BatchFull>>(
        &mut self,
        column: usize,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.batch.bytes.len();
        write(&mut self.batch.bytes)?;
        let end = self.batch.bytes.len();
        debug_assert!(end >= start, "a column writer only appends");
        let (Ok(start), Ok(end)) = (u32::try_from(start), u32::try_from(end)) else { return Err(BatchFull.into()) };
        self.batch.spans[self.mark.rows * self.batch.columns + column] = Span { start, end };
        Ok(())
    }

    /// Counts the row in.
    pub fn finish(mut self) {
        self.finished = true;
        self.batch.commit_micros.push(self.batch.now_micros);
    }
}

impl Drop for RowWriter<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.batch.cut(self.mark);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(batch: &mut BatchBuilder, text: &str) {
        let mut row = batch.row();
        row.set::<BatchFull>(1, |out| {
            out.extend_from_slice(text.as_bytes());
            Ok(())
        })
        .unwrap();
        row.finish();
    }

    fn texts(batch: &Batch) -> Vec<String> {
        batch.rows().map(|row| String::from_utf8_lossy(row.get(1).unwrap()).into_owned()).collect()
    }

    #[test]
    fn an_unfinished_row_leaves_no_trace() {
        let mut batch = BatchBuilder::new(2);
        push(&mut batch, "one");
        let mut row = batch.row();
        row.set::<BatchFull>(0, |out| {
            out.push(b'x');
            Ok(())
        })
        .unwrap();
        drop(row);
        push(&mut batch, "two");
        let batch = batch.take(Arc::new(Position::default()));
        assert_eq!(texts(&batch), ["one", "two"]);
        assert!(batch.rows().all(|row| row.get(0).is_none()));
    }

    #[test]
    fn cutting_and_skipping_keep_the_other_rows_as_they_were() {
        let mut batch = BatchBuilder::new(2);
        push(&mut batch, "a");
        let mark = batch.mark();
        for text in ["b", "c", "d"] {
            push(&mut batch, text);
        }
        assert_eq!(batch.skip_after(mark, 2), 2);
        let later = batch.mark();
        push(&mut batch, "e");
        batch.cut(later);
        push(&mut batch, "f");
        assert_eq!(batch.skip_after(later, 9), 1);
        push(&mut batch, "g");
        assert_eq!(texts(&batch.take(Arc::new(Position::default()))), ["a", "d", "g"]);
        assert!(batch.is_empty());
    }
}
