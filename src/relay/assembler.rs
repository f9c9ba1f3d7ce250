//! From log events to batches per table: the decisions of the router, without I/O.
//!
//! Promise: a table's batches hold exactly the rows of committed transactions after the table's own position, in commit
//! order, each once. Rows of a transaction are held until its end is known (R7); one that outgrows `hold_bytes` is
//! released before its end, in parts whose positions say how many rows are relayed, and if it is then undone after all
//! its tables halt by name. What a fault touches halts with the position before the faulted transaction (R6), and is told
//! the one behind it.

mod prepared;
mod savepoints;
mod state;

use std::sync::Arc;

use prepared::Prepared;
use savepoints::Savepoints;
use smallvec::SmallVec;
use state::{Part, Table, Transaction, undone};

use super::Item;
use crate::planted::{self, Bug};
use crate::position::{Partial, Position, TxnId};
use crate::source::{BatchBuilder, Fault, ForeignDml, LogEvent, Mark, RowSet, Slot};

/// What the assembler keeps to; sizes in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A batch is handed on when it has reached this size.
    pub batch_bytes: usize,
    /// Rows of one transaction that are held until its end is known, over all tables.
    pub hold_bytes: usize,
    /// Whether an UPDATE on a table halts its relay.
    pub halt_on_update: bool,
}

/// Assembles batches for a set of tables.
pub struct Assembler {
    tables: Vec<Table>,
    limits: Limits,
    open: Option<Transaction>,
    prepared: Prepared,
    out: Vec<(Slot, Item)>,
}

impl Assembler {
    /// For tables with these numbers of columns, each resuming at its own position.
    pub fn new(tables: impl IntoIterator<Item = (usize, Position)>, limits: Limits) -> Self {
        let tables = tables.into_iter().map(|(columns, resume)| Table::new(columns, resume)).collect();
        Self { tables, limits, open: None, prepared: Prepared::default(), out: Vec::new() }
    }

    /// Takes one event in. `position` is the stream's, before this event for everything but
    /// [`LogEvent::Commit`], [`LogEvent::Rollback`] and [`LogEvent::Progress`], which it covers.
    pub fn take<R: RowSet>(&mut self, event: LogEvent<R>, position: &Position) {
        match event {
            LogEvent::Begin { txn, commit_micros } => self.begin(txn, commit_micros),
            LogEvent::Rows { slot, rows } => self.rows(slot, rows, position),
            LogEvent::Foreign { slot, kind: ForeignDml::Update } if self.limits.halt_on_update => {
                let at = self.open.as_ref().map(|open| open.txn.to_string()).unwrap_or_default();
                self.fault(slot, updated(at), position);
            }
            LogEvent::Foreign { slot, kind } => {
                if let Some(part) = self.part(slot, position) {
                    part.updates += u64::from(kind == ForeignDml::Update);
                }
            }
            LogEvent::Savepoint { name } => self.savepoint(&name),
            LogEvent::RollbackTo { name } => self.rollback_to(&name, position),
            LogEvent::XaStart => {
                if let Some(open) = &mut self.open {
                    open.xa = true;
                }
            }
            LogEvent::Prepare { xid } => self.prepare(xid),
            LogEvent::Settle { xid, commit } => self.settle(&xid, commit, position),
            LogEvent::Commit => self.end(position, true),
            LogEvent::Rollback => self.end(position, false),
            LogEvent::Fault { slot: Some(slot), fault } => self.fault(slot, fault, position),
            LogEvent::Fault { slot: None, fault } => {
                let behind = self.behind(position);
                self.abandon();
                for slot in 0..self.tables.len() {
                    self.halt_at(slot, fault.clone(), position, behind.clone());
                }
            }
            LogEvent::Progress => {}
        }
        let full = |table: &Table| table.part.is_none() && table.batch.memory() >= self.limits.batch_bytes;
        if self.open.is_none() && self.tables.iter().any(full) {
            self.flush(position);
        }
    }

    /// Hands on what is complete. `position` is the stream's; rows of an open transaction stay.
    pub fn flush(&mut self, position: &Position) {
        if self.open.is_some() {
            return;
        }
        let mut shared = None;
        for (slot, table) in self.tables.iter_mut().enumerate() {
            if !table.batch.is_empty() {
                let position = shared.get_or_insert_with(|| Arc::new(position.clone()));
                self.out.push((slot, Item::Batch(table.batch.take(Arc::clone(position)))));
            }
        }
    }

    /// Tells every table that it stands at `position`, after what is complete. Tables that are still ahead of the
    /// stream, and those that have halted, are left alone.
    pub fn progress(&mut self, position: &Position) {
        if self.open.is_some() {
            return;
        }
        self.flush(position);
        let position = Arc::new(position.clone());
        for (slot, table) in self.tables.iter().enumerate() {
            if !table.halted && table.resume.is_none() {
                self.out.push((slot, Item::Progress(Arc::clone(&position))));
            }
        }
    }

    /// Tells every table to find its place anew; nothing more is handed on.
    pub fn displace(&mut self, reason: &str) {
        self.abandon();
        for (slot, table) in self.tables.iter_mut().enumerate().filter(|(_, table)| !table.halted) {
            table.halted = true;
            table.batch.cut(Mark::START);
            self.out.push((slot, Item::Displaced(reason.to_owned())));
        }
    }

    /// The items to hand on, in order.
    pub fn drain(&mut self) -> std::vec::Drain<'_, (Slot, Item)> {
        self.out.drain(..)
    }

    /// Whether there is something to hand on.
    pub fn is_drained(&self) -> bool {
        self.out.is_empty()
    }

    /// Whether a transaction is open; its rows belong to the tables that were there when it began.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Memory that rows of transactions take whose end is not known, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.held) + self.prepared.bytes()
    }

    /// Whether rows of prepared transactions are held; those of tables that were not there when they came are not.
    pub fn holds_prepared(&self) -> bool {
        !self.prepared.is_empty()
    }

    /// Takes a table on, between transactions: what the stream brings after `resume` is the table's from here on. `slot`
    /// is one that is closed, or the next new one.
    pub fn admit(&mut self, slot: Slot, columns: usize, resume: Position) {
        debug_assert!(self.open.is_none(), "a table is taken on between transactions");
        let table = Table::new(columns, resume);
        match self.tables.get_mut(slot) {
            Some(closed) => *closed = table,
            None => self.tables.push(table),
        }
    }

    /// No more items for this table: its relay has ended, or another reader feeds it.
    pub fn close(&mut self, slot: Slot) {
        let table = &mut self.tables[slot];
        table.halted = true;
        table.part = None;
        table.batch.cut(Mark::START);
    }

    /// The stream has broken off: forgets the open transaction's held rows, for the next stream brings it again from
    /// its beginning, and every prepared one that is not settled. What was released of it is remembered. `position` is
    /// the stream's.
    pub fn reopen(&mut self, position: &Position) {
        self.prepared.clear();
        let Some(open) = self.open.take() else { return };
        for slot in open.touched {
            let table = &mut self.tables[slot];
            if let Some(part) = table.part.take() {
                table.batch.cut(part.start);
                if part.released > 0 {
                    let partial = Some(Partial { txn: open.txn.clone(), rows: part.released });
                    table.resume = Some(Position { point: position.point.clone(), partial, scan: None });
                }
            }
        }
    }

    fn abandon(&mut self) {
        if let Some(open) = self.open.take() {
            for slot in open.touched {
                if let Some(part) = self.tables[slot].part.take() {
                    self.tables[slot].batch.cut(part.start);
                }
            }
        }
    }

    fn begin(&mut self, txn: TxnId, commit_micros: u64) {
        debug_assert!(self.open.is_none(), "transactions do not nest");
        self.abandon();
        self.open = Some(Transaction {
            txn,
            commit_micros,
            touched: SmallVec::new(),
            savepoints: Savepoints::default(),
            held: 0,
            xa: false,
        });
    }

    /// The table's part in the open transaction, if the table still takes part and has not relayed all of it before.
    fn part(&mut self, slot: Slot, position: &Position) -> Option<&mut Part> {
        let table = &mut self.tables[slot];
        if table.halted {
            return None;
        }
        let open = self.open.as_mut()?;
        if table.part.is_none() {
            open.touched.push(slot);
            if let Err(fault) = table.enter(&open.txn, open.commit_micros) {
                self.spoil(slot, fault, position);
            }
        }
        self.tables[slot].part.as_mut().filter(|part| !part.relayed)
    }

    /// The table will halt if the transaction commits. What it has from before leaves now, with the position before the
    /// transaction; of the transaction itself nothing more leaves.
    fn spoil(&mut self, slot: Slot, fault: Fault, before: &Position) {
        let table = &mut self.tables[slot];
        let Some(part) = table.part.as_mut().filter(|part| part.fault.is_none()) else { return };
        part.fault = Some(fault);
        table.batch.cut(part.start);
        part.start = Mark::START;
        if !table.batch.is_empty() {
            self.out.push((slot, Item::Batch(table.batch.take(Arc::new(before.clone())))));
        }
    }

    fn rows<R: RowSet>(&mut self, slot: Slot, rows: R, position: &Position) {
        if self.part(slot, position).is_none_or(|part| part.fault.is_some()) {
            return;
        }
        self.append(slot, position, |batch| rows.append_to(batch));
    }

    /// Rows of the open transaction for a table that takes part in it.
    fn append(&mut self, slot: Slot, position: &Position, rows: impl FnOnce(&mut BatchBuilder) -> Result<(), Fault>) {
        let table = &mut self.tables[slot];
        let (Some(part), Some(open)) = (table.part.as_mut(), self.open.as_mut()) else { return };
        let (mark, before) = (table.batch.mark(), table.batch.memory());
        if let Err(fault) = rows(&mut table.batch) {
            return self.spoil(slot, fault, position);
        }
        part.rows += (table.batch.len() - mark.rows()) as u64;
        if part.skip > 0 {
            part.skip -= table.batch.skip_after(mark, part.skip);
        }
        open.held += table.batch.memory().saturating_sub(before);
        if open.held > self.limits.hold_bytes {
            if open.xa {
                self.outgrown(position);
            } else {
                self.release(position);
            }
        }
    }

    /// Hands on the rows of the open transaction although its end is not known.
    fn release(&mut self, position: &Position) {
        let Some(open) = self.open.as_mut() else { return };
        open.held = 0;
        for &slot in &open.touched {
            let table = &mut self.tables[slot];
            let Some(part) = table.part.as_mut() else { continue };
            if table.batch.len() > part.start.rows() {
                part.released = part.rows;
                let partial = Some(Partial { txn: open.txn.clone(), rows: part.rows });
                let position = Arc::new(Position { point: position.point.clone(), partial, scan: None });
                self.out.push((slot, Item::Batch(table.batch.take(position))));
                part.start = Mark::START;
            }
        }
    }

    fn savepoint(&mut self, name: &str) {
        let Some(Transaction { savepoints, touched, .. }) = self.open.as_mut() else { return };
        let tables = &self.tables;
        let marks = touched.iter().filter_map(|&slot| {
            let table = &tables[slot];
            table.part.as_ref().map(|part| (slot, table.batch.mark(), part.rows))
        });
        savepoints.set(name, marks);
    }

    fn rollback_to(&mut self, name: &str, position: &Position) {
        if planted::is(Bug::SavepointForgotten) {
            return;
        }
        let Some(open) = self.open.as_mut() else { return };
        let marks = open.savepoints.back_to(name);
        let (txn, touched) = (open.txn.clone(), open.touched.clone());
        for slot in touched {
            let table = &mut self.tables[slot];
            let Some(part) = table.part.as_mut().filter(|part| part.fault.is_none()) else { continue };
            let Some(marks) = &marks else {
                let detail =
                    format!("the log rolls back to savepoint {name}, which it did not set, or before too many others");
                self.spoil(slot, Fault { name: "unknown_savepoint", detail, at: txn.to_string() }, position);
                continue;
            };
            let kept = marks.iter().find(|(marked, ..)| *marked == slot);
            let (mark, rows) = kept.map_or((part.start, 0), |&(_, mark, rows)| (mark, rows));
            if part.skip > 0 {
                // Not all rows have come yet that an earlier run relayed, so these were undone before it relayed any.
                part.skip += part.rows - rows;
                part.rows = rows;
            } else if rows < part.released {
                self.spoil(slot, undone(&txn), position);
            } else if part.rows > rows {
                // A mark from before the latest release points into the batch that has left.
                table.batch.cut(if rows == part.released { part.start } else { mark });
                part.rows = rows;
            }
        }
    }

    fn fault(&mut self, slot: Slot, fault: Fault, position: &Position) {
        if self.open.is_none() {
            self.halt_at(slot, fault, position, None);
        } else if self.part(slot, position).is_some() {
            self.spoil(slot, fault, position);
        }
    }

    /// Right behind the open transaction, whose end is not read. It may settle a prepared one: then nobody knows.
    fn behind(&self, position: &Position) -> Option<Arc<Position>> {
        let open = self.open.as_ref().filter(|_| self.prepared.is_empty())?;
        Some(Arc::new(position.point.behind(&open.txn)?.into()))
    }

    /// What the table has from before leaves, and it halts.
    fn halt_at(&mut self, slot: Slot, fault: Fault, position: &Position, behind: Option<Arc<Position>>) {
        let table = &mut self.tables[slot];
        if !table.halted && !table.batch.is_empty() {
            self.out.push((slot, Item::Batch(table.batch.take(Arc::new(position.clone())))));
        }
        self.halt(slot, fault, behind);
    }

    fn halt(&mut self, slot: Slot, fault: Fault, behind: Option<Arc<Position>>) {
        if !self.tables[slot].halted {
            self.tables[slot].halted = true;
            self.out.push((slot, Item::Fault { fault, behind }));
        }
    }

    fn end(&mut self, position: &Position, committed: bool) {
        if let Some(open) = self.open.take() {
            let behind = || Some(Arc::new(position.clone()));
            for &slot in &open.touched {
                let table = &mut self.tables[slot];
                let Some(mut part) = table.part.take() else { continue };
                if committed && part.updates > 0 {
                    self.out.push((slot, Item::Updates(part.updates)));
                }
                if let Some(fault) = part.fault.take().filter(|_| committed || part.released > 0) {
                    self.halt(slot, fault, behind());
                } else if let Some(fault) = part.short(&open.txn).filter(|_| committed) {
                    table.batch.cut(part.start);
                    self.halt(slot, fault, behind());
                } else if !committed {
                    table.batch.cut(part.start);
                    if part.released > 0 {
                        self.halt(slot, undone(&open.txn), behind());
                    }
                }
            }
        }
        for table in &mut self.tables {
            table.pass(position);
        }
    }
}

fn updated(at: String) -> Fault {
    let detail = "an UPDATE on an outbox table; insert a new row instead, or set relay.on_update = \"warn\"";
    Fault { name: "update_on_outbox", detail: detail.to_owned(), at }
}

#[cfg(test)]
mod tests;
