//! What the statements of a log mean for the relay.
//!
//! Promise: a statement that may have changed a subscribed table without leaving its rows in the log is a fault of that table,
//! or of all of them where it cannot be told which.

use super::{Reader, file_point};
use crate::mysql::decode::QueryEvent;
use crate::mysql::statement::{Statement, cleans, plain, target};
use crate::position::{Point, TxnId};
use crate::source::{ForeignDml, LogEvent, Slot};

impl Reader {
    /// A statement that began at this time, in seconds since the Unix epoch.
    pub(super) fn query(&mut self, query: &QueryEvent<'_>, began: u32) {
        let (text, schema) = (&*query.text, &*query.schema);
        // Every transaction has it, just so.
        if text == "BEGIN" {
            self.begun(began);
            return;
        }
        let plain = plain(text);
        let within = self.open.as_ref().is_some_and(|open| open.begun);
        let statement = Statement::classify(&plain, within);
        let ended = u64::from(began).saturating_add_signed(query.seconds.into());
        match statement {
            Statement::Begin => self.begun(began),
            Statement::XaStart => {
                self.begun(began);
                self.pending.push_back(LogEvent::XaStart);
            }
            Statement::XaEnd => {}
            Statement::Commit => self.end(LogEvent::Commit),
            Statement::Rollback => self.end(LogEvent::Rollback),
            Statement::Savepoint(name) => self.pending.push_back(LogEvent::Savepoint { name: name.to_owned() }),
            Statement::RollbackTo(name) => self.pending.push_back(LogEvent::RollbackTo { name: name.to_owned() }),
            Statement::XaCommit(xid) => self.settle(&xid, true),
            Statement::XaRollback(xid) => self.settle(&xid, false),
            Statement::Dml => {
                self.statement(target(text), text, schema);
                self.end_of_single();
            }
            Statement::Truncate => {
                // What cleaning takes away has no reader any more.
                if !cleans(text) {
                    self.lose(self.tables.named_by(&plain, schema), ForeignDml::Truncate);
                }
                self.end_of_single();
            }
            Statement::Filled(made) => {
                self.statement(made, text, schema);
                self.lose(self.tables.replaced_by(&plain, schema), ForeignDml::Drop);
                self.define(text, schema, ended);
                self.end_of_single();
            }
            Statement::Other => {
                self.lose(self.tables.replaced_by(&plain, schema), ForeignDml::Drop);
                self.define(text, schema, ended);
                self.end_of_single();
            }
        }
    }

    /// A statement that may define tables, and ended at this time, in seconds since the Unix epoch.
    fn define(&mut self, text: &str, schema: &str, ended: u64) {
        if let Some(open) = &mut self.open {
            open.defined = ended;
        }
        self.tables.defined_anew(text, schema, self.open.as_ref().map(|open| &open.txn));
    }

    /// A transaction's BEGIN, at this time in seconds since the Unix epoch.
    fn begun(&mut self, began: u32) {
        match (&mut self.open, &self.position.point) {
            (Some(open), _) => open.begun = true,
            // Opened behind the event that begins every transaction, where Debezium's places are.
            (None, Point::File(point)) if !self.archived => {
                let txn = TxnId::File(file_point(&point.at.file, point.at.offset));
                self.begin(txn, u64::from(began) * 1_000_000, true);
            }
            (None, _) => {}
        }
    }

    /// A group without BEGIN is one statement.
    fn end_of_single(&mut self) {
        if self.open.as_ref().is_some_and(|open| !open.begun) {
            self.end(LogEvent::Commit);
        }
    }

    /// Statement-format changes of a subscribed table: its rows are not in the log. `target`: what the statement names in
    /// it may change; the rest is read or called.
    fn statement(&mut self, target: &str, text: &str, schema: &str) {
        const DETAIL: &str =
            "rows were changed in statement format, so the log does not have them; use binlog_format=ROW";
        let changed = self.tables.changed_by(target, text, schema);
        if changed.is_empty() && self.tables.may_be_changed_by(target, schema) {
            let fault = self.fault("statement_format", DETAIL);
            self.pending.push_back(LogEvent::Fault { slot: None, fault });
        }
        for slot in changed {
            self.touch(slot);
            let fault = self.fault("statement_format", DETAIL);
            self.pending.push_back(LogEvent::Fault { slot: Some(slot), fault });
        }
    }

    /// These tables lose rows without the log's having them.
    fn lose(&mut self, slots: Vec<Slot>, kind: ForeignDml) {
        for slot in slots {
            self.touch(slot);
            self.pending.push_back(LogEvent::Foreign { slot, kind });
        }
    }
}
