//! A table in memory, as the log has made it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::{Insert, MemoryLog, MemoryRows, Step, Transaction, lock, transaction};
use crate::position::{Key, Scan};
use crate::source::{BatchBuilder, RowSet, SourceError, TableScan};
use crate::table::TableName;

/// The primary key of a row: its id.
pub(super) fn key(id: &str) -> Key {
    Key::new([id.as_bytes().into()])
}

/// Whether a key comes before that of a row; none does.
pub(super) fn is_before(before: Option<&Key>, id: &str) -> bool {
    before.and_then(|key| key.columns().next()).is_none_or(|key| key < id.as_bytes())
}

/// The number of the first transaction that was prepared.
pub(super) fn first_prepared(transactions: &[Transaction]) -> Option<u64> {
    let prepares = |of: &Transaction| of.steps.iter().any(|step| matches!(step, Step::Prepare(_)));
    transactions.iter().position(prepares).map(|index| index as u64 + 1)
}

/// The number of the oldest transaction that is prepared and not settled.
pub(super) fn unsettled(transactions: &[Transaction]) -> Option<u64> {
    let mut prepared: BTreeMap<&str, u64> = BTreeMap::new();
    for (number, of) in (1..).zip(transactions) {
        for step in &of.steps {
            match step {
                Step::Prepare(xid) => _ = prepared.insert(xid, number),
                Step::Settle(xid, _) => _ = prepared.remove(xid.as_str()),
                _ => {}
            }
        }
    }
    prepared.into_values().min()
}

/// What became of a table's rows.
#[derive(Default)]
pub(super) struct History {
    /// The rows, by id.
    pub(super) present: BTreeMap<String, Insert>,
    /// Every row that was inserted, and by which transaction.
    pub(super) inserts: Vec<(u64, Insert)>,
    /// Every row that was deleted, and by which transaction.
    pub(super) deletes: Vec<(u64, Insert)>,
}

/// A change that a transaction has made so far.
#[derive(Clone)]
enum Change {
    Insert(Insert),
    Delete(String),
}

impl History {
    pub(super) fn of(transactions: &[Transaction], table: &TableName) -> Self {
        let mut history = Self::default();
        let mut prepared: HashMap<&str, Vec<Change>> = HashMap::new();
        for (index, of) in transactions.iter().enumerate() {
            let mut changes: Vec<Change> = Vec::new();
            let mut savepoints: Vec<(&str, usize)> = Vec::new();
            for step in &of.steps {
                match step {
                    Step::Insert(to, rows) if to == table => changes.extend(rows.iter().cloned().map(Change::Insert)),
                    Step::Delete(from, ids) if from == table => changes.extend(ids.iter().cloned().map(Change::Delete)),
                    Step::Savepoint(name) => savepoints.push((name, changes.len())),
                    Step::RollbackTo(name) => {
                        let kept = savepoints.iter().rfind(|(known, _)| known == name).map_or(0, |(_, kept)| *kept);
                        changes.truncate(kept);
                    }
                    Step::Prepare(xid) => _ = prepared.insert(xid, std::mem::take(&mut changes)),
                    Step::Settle(xid, commit) => {
                        changes.extend(prepared.remove(xid.as_str()).filter(|_| *commit).unwrap_or_default());
                    }
                    _ => {}
                }
            }
            if of.committed {
                history.commit(index as u64 + 1, changes);
            }
        }
        history
    }

    fn commit(&mut self, number: u64, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Insert(row) => {
                    self.inserts.push((number, row.clone()));
                    self.present.insert(row.id.clone(), row);
                }
                Change::Delete(id) => self.deletes.extend(self.present.remove(&id).map(|row| (number, row))),
            }
        }
    }
}

/// A table that is being read.
#[derive(Debug)]
pub struct MemoryScan {
    pub(super) total: u64,
    /// Deleted rows, those to relay and those that only count.
    pub(super) gone: VecDeque<Option<Insert>>,
    /// Rows by key, and whether they are to be relayed.
    pub(super) present: VecDeque<(Insert, bool)>,
    pub(super) log: MemoryLog,
    pub(super) connection: u64,
    pub(super) columns: Arc<[String]>,
    pub(super) micros: u64,
    pub(super) scan: Scan,
}

impl TableScan for MemoryScan {
    async fn fill(&mut self, batch: &mut BatchBuilder, bytes: usize) -> Result<Option<Scan>, SourceError> {
        if lock(&self.log.state).connection != self.connection {
            return Err(SourceError::Transient("the connection is broken".to_owned()));
        }
        batch.set_commit_micros(self.micros);
        let before = self.scan.clone();
        while batch.memory() < bytes {
            let row = if let Some(gone) = self.gone.pop_front() {
                self.scan.gone += 1;
                gone
            } else if let Some((row, wanted)) = self.present.pop_front() {
                self.scan.rows += 1;
                self.scan.last = Some(key(&row.id));
                Some(row).filter(|_| wanted)
            } else {
                break;
            };
            let rows = MemoryRows {
                inserts: row.into_iter().collect(),
                columns: Arc::clone(&self.columns),
                at: transaction(0),
            };
            rows.append_to(batch).map_err(SourceError::Definite)?;
        }
        Ok((self.scan != before).then(|| self.scan.clone()))
    }

    fn total(&self) -> u64 {
        self.total
    }
}
