//! From log events to batches per table: the decisions of the router, without I/O.
//!
//! Promise: a table's batches hold exactly the rows of committed transactions after the table's own position, in commit
//! order, each once. Rows of a transaction are held until its end is known (R7); one that outgrows `hold_bytes` is
//! released before its end, in parts whose positions say how many rows are relayed, and if it is then undone after all
//! its tables halt by name. What a fault touches halts with the position before the faulted transaction (R6).

use std::sync::Arc;

use super::Item;
use crate::position::{Partial, Position, TxnId};
use crate::source::{BatchBuilder, Fault, ForeignDml, LogEvent, Mark, RowSet, Slot};

/// Sizes in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A batch is handed on when it has reached this size.
    pub batch_bytes: usize,
    /// Rows of one transaction that are held until its end is known, over all tables.
    pub hold_bytes: usize,
}

/// One table.
struct Table {
    batch: BatchBuilder,
    /// What the table's own position covers beyond the stream's; dropped once the stream has passed it.
    resume: Option<Position>,
    halted: bool,
    part: Option<Part>,
}

/// A table's part in the open transaction.
struct Part {
    /// Where the transaction's rows begin in the batch.
    start: Mark,
    /// Rows of the transaction seen so far, the skipped and the released ones included.
    rows: u64,
    /// Rows yet to skip, for they are relayed already.
    skip: u64,
    /// Rows handed on before the end of the transaction, or relayed by an earlier run.
    released: u64,
    /// Set by an update, delete or truncate.
    foreign: Vec<ForeignDml>,
    /// What will halt the table at the end of the transaction, if it commits.
    fault: Option<Fault>,
}

struct Savepoint {
    name: String,
    marks: Vec<(Slot, Mark, u64)>,
}

struct Transaction {
    txn: TxnId,
    commit_micros: u64,
    touched: Vec<Slot>,
    savepoints: Vec<Savepoint>,
    held: usize,
}

/// Assembles batches for a set of tables.
pub struct Assembler {
    tables: Vec<Table>,
    limits: Limits,
    open: Option<Transaction>,
    out: Vec<(Slot, Item)>,
}

impl Assembler {
    /// For tables with these numbers of columns, each resuming at its own position.
    pub fn new(tables: impl IntoIterator<Item = (usize, Position)>, limits: Limits) -> Self {
        let tables = tables
            .into_iter()
            .map(|(columns, resume)| Table {
                batch: BatchBuilder::new(columns),
                resume: Some(resume),
                halted: false,
                part: None,
            })
            .collect();
        Self { tables, limits, open: None, out: Vec::new() }
    }

    /// Takes one event in. `position` is the stream's, before this event for everything but
    /// [`LogEvent::Commit`], [`LogEvent::Rollback`] and [`LogEvent::Progress`], which it covers.
    pub fn take<R: RowSet>(&mut self, event: LogEvent<R>, position: &Position) {
        match event {
            LogEvent::Begin { txn, commit_micros } => self.begin(txn, commit_micros),
            LogEvent::Rows { slot, rows } => self.rows(slot, rows, position),
            LogEvent::Foreign { slot, kind } => {
                if let Some(part) = self.part(slot, position) {
                    part.foreign.push(kind);
                }
            }
            LogEvent::Savepoint { name } => self.savepoint(name),
            LogEvent::RollbackTo { name } => self.rollback_to(&name, position),
            LogEvent::Commit => self.end(position, true),
            LogEvent::Rollback => self.end(position, false),
            LogEvent::Fault { slot: Some(slot), fault } => self.fault(slot, fault, position),
            LogEvent::Fault { slot: None, fault } => {
                self.abandon();
                for slot in 0..self.tables.len() {
                    self.fault(slot, fault.clone(), position);
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

    /// The items to hand on, in order.
    pub fn drain(&mut self) -> std::vec::Drain<'_, (Slot, Item)> {
        self.out.drain(..)
    }

    /// Whether there is something to hand on.
    pub fn is_drained(&self) -> bool {
        self.out.is_empty()
    }

    /// Whether every table has halted.
    pub fn is_halted(&self) -> bool {
        self.tables.iter().all(|table| table.halted)
    }

    /// No more items for this table: its relay has ended.
    pub fn close(&mut self, slot: Slot) {
        let table = &mut self.tables[slot];
        table.halted = true;
        table.part = None;
        table.batch.cut(Mark::START);
    }

    /// The stream has broken off: forgets the open transaction's held rows, for the next stream brings it again from
    /// its beginning. What was released of it is remembered. `position` is the stream's.
    pub fn reopen(&mut self, position: &Position) {
        let Some(open) = self.open.take() else { return };
        for slot in open.touched {
            let table = &mut self.tables[slot];
            if let Some(part) = table.part.take() {
                table.batch.cut(part.start);
                if part.released > 0 {
                    let partial = Some(Partial { txn: open.txn.clone(), rows: part.released });
                    table.resume = Some(Position { point: position.point.clone(), partial });
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
        self.open = Some(Transaction { txn, commit_micros, touched: Vec::new(), savepoints: Vec::new(), held: 0 });
    }

    /// The table's part in the open transaction, if the table still takes part and has not relayed all of it before.
    fn part(&mut self, slot: Slot, position: &Position) -> Option<&mut Part> {
        let table = &mut self.tables[slot];
        if table.halted {
            return None;
        }
        let open = self.open.as_mut()?;
        if table.part.is_none() {
            let mut fault = None;
            let skip = match &table.resume {
                None => 0,
                Some(resume) => match resume.point.covers(&open.txn) {
                    Some(true) => u64::MAX,
                    Some(false) => match &resume.partial {
                        Some(partial) if partial.txn == open.txn => partial.rows,
                        _ => 0,
                    },
                    None => {
                        fault = Some(Fault {
                            name: "position_kind",
                            detail: format!(
                                "the saved position {resume} is of another kind than the log's transactions"
                            ),
                            at: open.txn.to_string(),
                        });
                        0
                    }
                },
            };
            let released = if skip == u64::MAX { 0 } else { skip };
            open.touched.push(slot);
            table.batch.set_commit_micros(open.commit_micros);
            table.part =
                Some(Part { start: table.batch.mark(), rows: 0, skip, released, foreign: Vec::new(), fault: None });
            if let Some(fault) = fault {
                self.spoil(slot, fault, position);
            }
        }
        self.tables[slot].part.as_mut().filter(|part| part.skip != u64::MAX)
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
        let table = &mut self.tables[slot];
        let (Some(part), Some(open)) = (table.part.as_mut(), self.open.as_mut()) else { return };
        let (mark, before) = (table.batch.mark(), table.batch.memory());
        if let Err(fault) = rows.append_to(&mut table.batch) {
            return self.spoil(slot, fault, position);
        }
        part.rows += (table.batch.len() - mark.rows()) as u64;
        if part.skip > 0 {
            part.skip -= table.batch.skip_after(mark, part.skip);
        }
        open.held += table.batch.memory().saturating_sub(before);
        if open.held > self.limits.hold_bytes {
            self.release(position);
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
                let position = Arc::new(Position { point: position.point.clone(), partial });
                self.out.push((slot, Item::Batch(table.batch.take(position))));
                part.start = Mark::START;
                // Marks from before point into the batch that has left; what follows them begins at the start now.
                for savepoint in &mut open.savepoints {
                    savepoint
                        .marks
                        .iter_mut()
                        .filter(|(marked, ..)| *marked == slot)
                        .for_each(|kept| kept.1 = Mark::START);
                }
            }
        }
    }

    fn savepoint(&mut self, name: String) {
        let Some(open) = self.open.as_mut() else { return };
        open.savepoints.retain(|savepoint| savepoint.name != name);
        let marks = open.touched.iter().filter_map(|&slot| {
            let table = &self.tables[slot];
            table.part.as_ref().map(|part| (slot, table.batch.mark(), part.rows))
        });
        let marks = marks.collect();
        open.savepoints.push(Savepoint { name, marks });
    }

    fn rollback_to(&mut self, name: &str, position: &Position) {
        let Some(open) = self.open.as_mut() else { return };
        let found = open.savepoints.iter().position(|savepoint| savepoint.name == name);
        let marks = found.map(|found| {
            open.savepoints.truncate(found + 1);
            open.savepoints[found].marks.clone()
        });
        let (txn, touched) = (open.txn.clone(), open.touched.clone());
        for slot in touched {
            let table = &mut self.tables[slot];
            let Some(part) = table.part.as_mut().filter(|part| part.fault.is_none()) else { continue };
            let Some(marks) = &marks else {
                let detail = format!("the log rolls back to savepoint {name}, which it did not set");
                self.spoil(slot, Fault { name: "unknown_savepoint", detail, at: txn.to_string() }, position);
                continue;
            };
            let kept = marks.iter().find(|(marked, ..)| *marked == slot);
            let (mark, rows) = kept.map_or((part.start, 0), |&(_, mark, rows)| (mark, rows));
            if rows < part.released {
                self.spoil(slot, undone(&txn), position);
            } else if part.rows > rows {
                table.batch.cut(mark);
                part.rows = rows;
            }
        }
    }

    fn fault(&mut self, slot: Slot, fault: Fault, position: &Position) {
        if self.open.is_some() {
            if self.part(slot, position).is_some() {
                self.spoil(slot, fault, position);
            }
            return;
        }
        let table = &mut self.tables[slot];
        if !table.halted && !table.batch.is_empty() {
            self.out.push((slot, Item::Batch(table.batch.take(Arc::new(position.clone())))));
        }
        self.halt(slot, fault);
    }

    fn halt(&mut self, slot: Slot, fault: Fault) {
        if !self.tables[slot].halted {
            self.tables[slot].halted = true;
            self.out.push((slot, Item::Fault(fault)));
        }
    }

    fn end(&mut self, position: &Position, committed: bool) {
        if let Some(open) = self.open.take() {
            for &slot in &open.touched {
                let table = &mut self.tables[slot];
                let Some(mut part) = table.part.take() else { continue };
                self.out.extend(part.foreign.drain(..).filter(|_| committed).map(|kind| (slot, Item::Foreign(kind))));
                let short = part.skip > 0 && part.skip != u64::MAX;
                if let Some(fault) = part.fault.filter(|_| committed || part.released > 0) {
                    self.halt(slot, fault);
                } else if committed && short {
                    table.batch.cut(part.start);
                    self.halt(slot, fewer(&open.txn, part.skip));
                } else if !committed {
                    table.batch.cut(part.start);
                    if part.released > 0 {
                        self.halt(slot, undone(&open.txn));
                    }
                }
            }
        }
        for table in &mut self.tables {
            let passed = |resume: &Position| {
                let partial = resume.partial.as_ref();
                resume.point <= position.point
                    && partial.is_none_or(|partial| position.point.covers(&partial.txn) == Some(true))
            };
            table.resume.take_if(|resume| passed(resume));
        }
    }
}

fn fewer(txn: &TxnId, missing: u64) -> Fault {
    let detail = format!("the transaction has {missing} rows fewer than the saved position says were relayed of it");
    Fault { name: "position_mismatch", detail, at: txn.to_string() }
}

fn undone(txn: &TxnId) -> Fault {
    Fault {
        name: "undone_after_release",
        detail:
            "the transaction outgrew relay.transaction_hold_bytes, so its first rows were published, and then it was \
                 rolled back in the log; raise the limit above the transaction's size"
                .to_owned(),
        at: txn.to_string(),
    }
}

#[cfg(test)]
mod tests;
