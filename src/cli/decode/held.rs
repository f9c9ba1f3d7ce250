//! Rows held back until their transaction is committed.
//!
//! Promise: memory is bounded whatever the size of a transaction: beyond [`IN_MEMORY`] its rows wait in a file.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};

use jiff::Timestamp;
use serde_json::json;
use tempfile::SpooledTempFile;

use crate::position::TxnId;
use crate::table::TableName;

/// How much of a transaction waits in memory, in bytes.
const IN_MEMORY: usize = 8 << 20;

/// Rows of one transaction: lines without what is known only when it ends.
struct Rows {
    lines: SpooledTempFile,
    bytes: u64,
    count: u64,
}

impl Default for Rows {
    fn default() -> Self {
        Self { lines: SpooledTempFile::new(IN_MEMORY), bytes: 0, count: 0 }
    }
}

/// Transactions on their way to the output.
pub(super) struct Transactions<W> {
    out: W,
    /// What the lines of the open transaction begin with.
    head: String,
    /// Of the open transaction, and of those whose outcome it is.
    held: Vec<Rows>,
    /// Name, and rows and bytes before it.
    savepoints: Vec<(String, u64, u64)>,
    prepared: BTreeMap<String, Rows>,
    rows: u64,
    committed: u64,
}

impl<W: Write> Transactions<W> {
    pub(super) fn new(out: W) -> Self {
        let (held, savepoints, prepared) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { out, head: String::new(), held, savepoints, prepared, rows: 0, committed: 0 }
    }

    /// Rows and transactions with rows that were written.
    pub(super) fn written(&self) -> (u64, u64) {
        (self.rows, self.committed)
    }

    /// XA transactions without an outcome so far, and how many rows each has.
    pub(super) fn prepared(&self) -> impl Iterator<Item = (&str, u64)> {
        self.prepared.iter().map(|(xid, rows)| (xid.as_str(), rows.count))
    }

    pub(super) fn begin(&mut self, txn: &TxnId, commit_micros: u64) {
        self.abandon();
        let gtid = (!matches!(txn, TxnId::File(_))).then(|| txn.to_string());
        let micros = i64::try_from(commit_micros).ok();
        let time = micros.and_then(|micros| Timestamp::from_microsecond(micros).ok()).map(|time| time.to_string());
        self.head = format!("{{\"gtid\":{},\"commit_time\":{}", json!(gtid), json!(time));
    }

    /// A row of the open transaction: `columns` is a JSON object, without a line break.
    pub(super) fn row(&mut self, table: &TableName, place: &str, columns: &[u8]) -> io::Result<()> {
        let table = table.to_string();
        let start = format!(",\"table\":{},\"position\":{},\"columns\":", json!(table), json!(place));
        if self.held.is_empty() {
            self.held.push(Rows::default());
        }
        let Some(rows) = self.held.last_mut() else { return Ok(()) };
        for part in [start.as_bytes(), columns, b"}\n"] {
            rows.lines.write_all(part)?;
            rows.bytes += part.len() as u64;
        }
        rows.count += 1;
        Ok(())
    }

    pub(super) fn savepoint(&mut self, name: &str) {
        let (rows, bytes) = self.held.last().map_or((0, 0), |held| (held.count, held.bytes));
        self.savepoints.push((name.to_lowercase(), rows, bytes));
    }

    /// Undoes what came after the savepoint; all of the transaction if it is not known.
    pub(super) fn rollback_to(&mut self, name: &str) -> io::Result<()> {
        let name = name.to_lowercase();
        let known = self.savepoints.iter().rposition(|(known, ..)| *known == name);
        let (rows, bytes) = known.map_or((0, 0), |at| {
            self.savepoints.truncate(at + 1);
            (self.savepoints[at].1, self.savepoints[at].2)
        });
        if let Some(held) = self.held.last_mut() {
            held.lines.set_len(bytes)?;
            held.lines.seek(SeekFrom::Start(bytes))?;
            (held.count, held.bytes) = (rows, bytes);
        }
        Ok(())
    }

    /// The open transaction waits for its outcome.
    pub(super) fn prepare(&mut self, xid: String) {
        if let Some(rows) = self.held.pop() {
            self.prepared.insert(xid, rows);
        }
        self.abandon();
    }

    /// The outcome of a prepared transaction, within the open one.
    pub(super) fn settle(&mut self, xid: &str, commit: bool) {
        if let Some(rows) = self.prepared.remove(xid).filter(|_| commit) {
            self.held.push(rows);
        }
    }

    /// Writes the rows of the open transaction.
    pub(super) fn commit(&mut self) -> io::Result<()> {
        self.committed += u64::from(self.held.iter().any(|held| held.count > 0));
        for mut held in std::mem::take(&mut self.held) {
            held.lines.seek(SeekFrom::Start(0))?;
            let mut lines = BufReader::new(held.lines);
            let mut line = Vec::new();
            while lines.read_until(b'\n', &mut line)? > 0 {
                self.out.write_all(self.head.as_bytes())?;
                self.out.write_all(&line)?;
                line.clear();
            }
            self.rows += held.count;
        }
        self.savepoints.clear();
        Ok(())
    }

    /// Drops what is open.
    pub(super) fn abandon(&mut self) {
        self.held.clear();
        self.savepoints.clear();
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ids that are written, in order.
    fn ids(transactions: &Transactions<Vec<u8>>) -> Vec<u64> {
        let text = std::str::from_utf8(&transactions.out).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.map(|line| line["columns"]["id"].as_u64().unwrap()).collect()
    }

    fn row(transactions: &mut Transactions<Vec<u8>>, id: u64) {
        let columns = format!("{{\"id\":{id}}}");
        transactions.row(&TableName::new("s", "t"), "f:4", columns.as_bytes()).unwrap();
    }

    fn begin(transactions: &mut Transactions<Vec<u8>>) {
        transactions.begin(&TxnId::File("f.1:4".parse().unwrap()), 1_700_000_000_000_001);
    }

    #[test]
    fn given_savepoints_when_rolled_back_to_then_what_came_after_is_not_written() {
        let mut transactions = Transactions::new(Vec::new());
        begin(&mut transactions);
        transactions.savepoint("first");
        row(&mut transactions, 1);
        transactions.savepoint("S");
        row(&mut transactions, 2);
        transactions.savepoint("t");
        row(&mut transactions, 3);
        transactions.rollback_to("s").unwrap();
        row(&mut transactions, 4);
        transactions.commit().unwrap();
        begin(&mut transactions);
        row(&mut transactions, 5);
        transactions.abandon();
        begin(&mut transactions);
        row(&mut transactions, 6);
        transactions.rollback_to("s").unwrap();
        transactions.commit().unwrap();
        assert_eq!(ids(&transactions), [1, 4]);
        assert_eq!(transactions.written(), (2, 1));
        let first = "{\"gtid\":null,\"commit_time\":\"2023-11-14T22:13:20.000001Z\",\"table\":\"s.t\",\
                     \"position\":\"f:4\",\"columns\":{\"id\":1}}\n";
        assert!(transactions.out.starts_with(first.as_bytes()));
    }

    #[test]
    fn given_prepared_transactions_when_settled_then_they_are_written_in_the_order_of_their_commits() {
        let mut transactions = Transactions::new(Vec::new());
        for (xid, id) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
            begin(&mut transactions);
            row(&mut transactions, id);
            transactions.prepare(xid.to_owned());
        }
        for (xid, commit) in [("c", true), ("b", false), ("a", true), ("unknown", true)] {
            begin(&mut transactions);
            transactions.settle(xid, commit);
            transactions.commit().unwrap();
        }
        assert_eq!(ids(&transactions), [3, 1]);
        assert_eq!(transactions.prepared().collect::<Vec<_>>(), [("d", 1)]);
    }

    #[test]
    fn given_a_transaction_larger_than_memory_when_committed_then_it_is_whole() {
        let mut transactions = Transactions::new(Vec::new());
        begin(&mut transactions);
        let columns = format!("{{\"id\":7,\"text\":\"{}\"}}", "x".repeat(1 << 20));
        for _ in 0..20 {
            transactions.row(&TableName::new("s", "t"), "f:4", columns.as_bytes()).unwrap();
        }
        assert!(transactions.held[0].lines.is_rolled());
        transactions.savepoint("s");
        row(&mut transactions, 8);
        transactions.rollback_to("s").unwrap();
        row(&mut transactions, 9);
        transactions.commit().unwrap();
        assert_eq!(ids(&transactions), [vec![7; 20], vec![9]].concat());
    }
}
