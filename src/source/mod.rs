//! The source seam: what a log gives, in the order in which it was committed.
//!
//! Promise: a stream yields every transaction after the position it was opened at, whole and in commit order, with the
//! rows of the subscribed tables only; everything that it cannot understand about such a table is a [`Fault`], never
//! silence. Rows leave their source undecoded, and are appended to the batch of their table by [`RowSet::append_to`],
//! so one walk over the bytes fills the memory that the relay reads from.

mod batch;
mod builder;
pub mod connects;
mod parting;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use tokio::time::Instant;

pub use batch::{Batch, Row};
pub use builder::{BatchBuilder, BatchFull, Mark, RowWriter};
pub use parting::Parting;

use crate::position::{Position, Scan, TxnId};
use crate::table::TableName;

/// What a reader wants of one outbox table.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// The transaction that has begun is an XA transaction: nothing of it may leave before its outcome.
    XaStart,
    /// The transaction ends prepared: its rows are set aside under this name until its outcome is known, which may be
    /// much later. [`LogStream::position`] leaves it out until then.
    Prepare {
        /// Its XA identifier.
        xid: String,
    },
    /// Within a transaction: the outcome of a prepared one, whose rows now take part in this one if it is committed.
    Settle {
        /// Its XA identifier.
        xid: String,
        /// Whether it is committed.
        commit: bool,
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
    /// The table was truncated, or lost a partition, by others than cleaning.
    Truncate,
    /// The table was dropped or renamed, or another one took its place.
    Drop,
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
}

/// A source of log events for a set of tables.
pub trait LogSource: Send + 'static {
    /// The rows of one event.
    type Rows: RowSet;
    /// The open stream.
    type Stream: LogStream<Rows = Self::Rows>;
    /// A table that is read itself.
    type Scan: TableScan;
    /// The beginning of what the log still has.
    fn oldest(&mut self) -> impl Future<Output = Result<Position, SourceError>> + Send;
    /// The end of the log.
    fn newest(&mut self) -> impl Future<Output = Result<Position, SourceError>> + Send;
    /// Fails while transactions are prepared, and not settled, that the log after its end will say are committed without
    /// saying what is in them.
    fn settled(&mut self) -> impl Future<Output = Result<(), SourceError>> + Send {
        std::future::ready(Ok(()))
    }
    /// What becomes of a position on the server that answers now, which may be another than the position was made on.
    fn place(&mut self, position: &Position) -> impl Future<Output = Result<Place, SourceError>> + Send {
        let _ = position;
        std::future::ready(Ok(Place::Same))
    }
    /// Opens the log right after `from`. The stream numbers tables as `subscriptions` does.
    fn open(
        &mut self,
        from: &Position,
        subscriptions: &[Subscription],
    ) -> impl Future<Output = Result<Self::Stream, SourceError>> + Send;
    /// Where a table starts whose rows are to be relayed, and then the log: at a point before which every transaction is
    /// committed and visible, with a scan of nothing yet. A table without rows needs no scan. Nobody has to wait for it.
    fn snapshot(&mut self, subscription: &Subscription) -> impl Future<Output = Result<Position, SourceError>> + Send;
    /// Where a table goes on that stands at a place which the log no longer reaches back to: at the beginning of the log,
    /// with a scan of everything that the table has from before.
    fn recover(
        &mut self,
        subscription: &Subscription,
        lapse: &Lapse,
    ) -> impl Future<Output = Result<Recovery, SourceError>> + Send;
    /// Reads the table as it is now, from where the scan of `from` is. Rows that the log brings after `from` are left out; it is a
    /// fault when their keys take more than `keys_bytes` of memory.
    fn scan(
        &mut self,
        from: &Position,
        subscription: &Subscription,
        keys_bytes: usize,
    ) -> impl Future<Output = Result<Self::Scan, SourceError>> + Send;
}

/// A table that is read itself, as it was at one moment: what its position says is still to be relayed. Rows come in the
/// order of the primary key; in front of them those that were deleted since the position's point, as the log has them, in
/// the order in which they were deleted.
pub trait TableScan: Send {
    /// Appends the next rows, some `bytes` of them. Gives how far the scan is once they are relayed, also when there were
    /// none to relay; `None` when nothing is left.
    fn fill(
        &mut self,
        batch: &mut BatchBuilder,
        bytes: usize,
    ) -> impl Future<Output = Result<Option<Scan>, SourceError>> + Send;
    /// How many rows the table has, roughly.
    fn total(&self) -> u64;
}

/// An open log.
pub trait LogStream: Send {
    /// The rows of one event.
    type Rows: RowSet;
    /// Waits for the next event. Cancel-safe: a dropped future loses nothing.
    fn next(&mut self) -> impl Future<Output = Result<LogEvent<Self::Rows>, SourceError>> + Send;
    /// Covers everything up to the last [`LogEvent::Commit`], [`LogEvent::Rollback`] or [`LogEvent::Progress`].
    fn position(&self) -> &Position;
    /// When something came from the server last, be it a part of an event; `None` where that is not noted.
    fn heard(&self) -> Option<Instant> {
        None
    }
    /// How far the log is read; `None` where it has no files.
    fn place(&self) -> Option<LogPlace> {
        None
    }
    /// Why [`LogStream::next`] has failed.
    fn parting(&self) -> Parting {
        Parting::Connection
    }
}

/// A place in the files of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPlace {
    /// The number in the name of the file.
    pub file: u64,
    /// Bytes from its beginning.
    pub offset: u64,
}

/// What is known of a table when its log is found to be purged.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lapse {
    /// Whether its oldest rows are deleted by us, once they are acknowledged.
    pub is_cleaned: bool,
    /// When its position was saved, in microseconds since the Unix epoch, if that is known.
    pub saved_micros: Option<u64>,
}

/// How a table goes on whose log is purged.
#[derive(Debug, Clone)]
pub struct Recovery {
    /// Where it goes on.
    pub from: Position,
    /// Whether rows were deleted that nobody has any more.
    pub remains: Remains,
}

/// What a table shows of rows that were inserted and deleted in a part of the log that is purged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remains {
    /// There are none: every number that was given to a row is there.
    Whole,
    /// There may be some, for this reason.
    Doubtful(String),
}

/// A position on the server that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// It is one there too.
    Same,
    /// It has to be another there, which may be further back; everything after that is to be relayed.
    Moved {
        /// Where to resume.
        to: Position,
        /// Transactions that the position covers and the server does not have.
        lost: Option<Lost>,
    },
}

/// Transactions that a server has lost in a failover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Which, in the server's terms.
    pub transactions: String,
    /// How many.
    pub count: u64,
}

/// Why a log cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SourceError {
    /// The server or the network; opening again later is the cure.
    #[error("{0}")]
    Transient(String),
    /// Another server answers, and the position is none there: everyone has to ask for its [`LogSource::place`].
    #[error("{0}")]
    Displaced(String),
    /// Opening again brings the same; an operator has to act.
    #[error("{0}")]
    Definite(Fault),
}
