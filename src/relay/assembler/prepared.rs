//! XA transactions between PREPARE and their outcome.
//!
//! Promise: rows of a prepared transaction leave with the transaction that commits it, in that one's place in the commit
//! order, and not at all when it is rolled back. They are held in memory meanwhile; what outgrows `hold_bytes` halts its
//! tables if it is committed.

use std::collections::HashMap;

use super::Assembler;
use crate::position::{Position, TxnId};
use crate::source::{BatchBuilder, Fault, Slot};

/// The prepared transactions of a stream, by XA identifier.
#[derive(Default)]
pub(super) struct Prepared {
    transactions: HashMap<String, Vec<PreparedRows>>,
    bytes: usize,
}

/// One table's part in a prepared transaction.
pub(super) struct PreparedRows {
    slot: Slot,
    rows: BatchBuilder,
    updates: u64,
    /// What halts the table if the transaction is committed.
    fault: Option<Fault>,
}

impl Prepared {
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.transactions.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn take(&mut self, xid: &str) -> Vec<PreparedRows> {
        let rows = self.transactions.remove(xid).unwrap_or_default();
        self.bytes -= rows.iter().map(|rows| rows.rows.memory()).sum::<usize>();
        rows
    }
}

impl Assembler {
    /// Sets the open transaction aside until its outcome is known.
    pub(super) fn prepare(&mut self, xid: String) {
        let Some(open) = self.open.take() else { return };
        let mut parts = Vec::new();
        for slot in open.touched {
            let table = &mut self.tables[slot];
            // What the table's own position covers was settled and relayed in an earlier run.
            let Some(part) = table.part.take().filter(|part| !part.relayed) else { continue };
            let mut rows = table.batch.split_off(part.start);
            let mut fault = part.fault;
            if self.prepared.bytes + rows.memory() > self.limits.hold_bytes {
                rows = BatchBuilder::new(0);
                fault.get_or_insert_with(|| outgrown(&open.txn));
            }
            self.prepared.bytes += rows.memory();
            parts.push(PreparedRows { slot, rows, updates: part.updates, fault });
        }
        self.prepared.transactions.insert(xid, parts);
    }

    /// The outcome of a prepared transaction, within the transaction that tells it.
    pub(super) fn settle(&mut self, xid: &str, commit: bool, position: &Position) {
        let parts = self.prepared.take(xid);
        for PreparedRows { slot, rows, updates, fault } in parts {
            if !commit {
                continue;
            }
            let Some(part) = self.part(slot, position) else { continue };
            part.updates += updates;
            match fault {
                Some(fault) => self.spoil(slot, fault, position),
                None => self.append(slot, position, |batch| {
                    let full = |error: crate::source::BatchFull| Fault {
                        name: "batch_full",
                        detail: error.to_string(),
                        at: xid.to_owned(),
                    };
                    batch.append(&rows).map_err(full)
                }),
            }
        }
    }

    /// The open XA transaction holds more than may be held, and nothing of it may leave.
    pub(super) fn outgrown(&mut self, position: &Position) {
        let Some(open) = self.open.as_mut() else { return };
        open.held = 0;
        let (txn, touched) = (open.txn.clone(), open.touched.clone());
        for slot in touched {
            self.spoil(slot, outgrown(&txn), position);
        }
    }
}

fn outgrown(txn: &TxnId) -> Fault {
    Fault {
        name: "xa_outgrew_hold",
        detail: "rows of XA transactions are held until their outcome is known, and these are more than \
                 relay.transaction_hold_bytes; raise it above their size"
            .to_owned(),
        at: txn.to_string(),
    }
}
