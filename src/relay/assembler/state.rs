//! What is known of each table and of the open transaction.

use smallvec::SmallVec;

use super::savepoints::Savepoints;
use crate::planted::{self, Bug};
use crate::position::{Position, TxnId};
use crate::source::{BatchBuilder, Fault, Mark, Slot};

/// One table.
pub(super) struct Table {
    pub(super) batch: BatchBuilder,
    /// What the table's own position covers beyond the stream's; dropped once the stream has passed it.
    pub(super) resume: Option<Position>,
    pub(super) halted: bool,
    pub(super) part: Option<Part>,
}

impl Table {
    pub(super) fn new(columns: usize, resume: Position) -> Self {
        Self { batch: BatchBuilder::new(columns), resume: Some(resume), halted: false, part: None }
    }

    /// Takes part in a transaction from here on. An error is what the transaction will halt the table with.
    pub(super) fn enter(&mut self, txn: &TxnId, commit_micros: u64) -> Result<(), Fault> {
        let resume = self.resume.as_ref();
        let covered = resume.map_or(Some(false), |resume| resume.point.covers(txn));
        let partial = resume.and_then(|resume| resume.partial.as_ref()).filter(|partial| partial.txn == *txn);
        let partial = partial.filter(|_| covered == Some(false) && !planted::is(Bug::RowOffsetForgotten));
        let skip = partial.map_or(0, |partial| partial.rows);
        self.batch.set_commit_micros(commit_micros);
        self.part = Some(Part {
            start: self.batch.mark(),
            rows: 0,
            relayed: covered == Some(true),
            skip,
            released: skip,
            updates: 0,
            fault: None,
        });
        match (covered, resume) {
            (None, Some(resume)) => Err(Fault {
                name: "position_kind",
                detail: format!("the saved position {resume} is of another kind than the log's transactions"),
                at: txn.to_string(),
            }),
            _ => Ok(()),
        }
    }

    /// The stream stands at `position`: from where the table resumed matters no more once that is behind.
    pub(super) fn pass(&mut self, position: &Position) {
        let passed = |resume: &mut Position| {
            let partial = resume.partial.as_ref();
            resume.point <= position.point
                && partial.is_none_or(|partial| position.point.covers(&partial.txn) == Some(true))
        };
        self.resume.take_if(passed);
    }
}

/// A table's part in the open transaction.
pub(super) struct Part {
    /// Where the transaction's rows begin in the batch.
    pub(super) start: Mark,
    /// Rows of the transaction seen so far, the skipped and the released ones included.
    pub(super) rows: u64,
    /// Whether the whole transaction is relayed already.
    pub(super) relayed: bool,
    /// Rows yet to skip, for they are relayed already.
    pub(super) skip: u64,
    /// Rows handed on before the end of the transaction, or relayed by an earlier run.
    pub(super) released: u64,
    /// Events of rows that were updated.
    pub(super) updates: u64,
    /// What will halt the table at the end of the transaction, if it commits.
    pub(super) fault: Option<Fault>,
}

impl Part {
    /// The transaction has fewer rows than the saved position says were relayed of it.
    pub(super) fn short(&self, txn: &TxnId) -> Option<Fault> {
        let missing = self.skip;
        let detail =
            format!("the transaction has {missing} rows fewer than the saved position says were relayed of it");
        (missing > 0).then(|| Fault { name: "position_mismatch", detail, at: txn.to_string() })
    }
}

/// The open transaction.
pub(super) struct Transaction {
    pub(super) txn: TxnId,
    pub(super) commit_micros: u64,
    pub(super) touched: SmallVec<[Slot; 4]>,
    pub(super) savepoints: Savepoints,
    pub(super) held: usize,
    /// Nothing may leave before the end.
    pub(super) xa: bool,
}

/// Published, and then rolled back.
pub(super) fn undone(txn: &TxnId) -> Fault {
    Fault {
        name: "undone_after_release",
        detail:
            "the transaction outgrew relay.transaction_hold_bytes, so its first rows were published, and then it was \
                 rolled back in the log; raise the limit above the transaction's size"
                .to_owned(),
        at: txn.to_string(),
    }
}
