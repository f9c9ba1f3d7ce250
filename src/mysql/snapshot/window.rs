//! The log between a position's point and the end of what a view shows: which keys are not to be read from the table, and
//! which rows are no longer in it.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use super::layout::Layout;
use crate::mysql::stream::MysqlStream;
use crate::position::{FilePoint, Key, Position};
use crate::source::{Batch, BatchBuilder, Fault, ForeignDml, LogEvent, LogStream, Row, RowSet, SourceError};

/// What one remembered key may take, in bytes: the set is half empty after it has grown, and has the old one beside it while
/// it grows.
const KEY_BYTES: usize = 60;

/// Keys by 128 bits of keyed hash, for they may be many: among a thousand million, two are alike once in 10²⁰ times.
#[derive(Default)]
struct Keys {
    hashes: HashSet<u128>,
    by: (RandomState, RandomState),
}

impl Keys {
    fn hash(&self, key: &Key) -> u128 {
        u128::from(self.by.0.hash_one(key)) << 64 | u128::from(self.by.1.hash_one(key))
    }

    fn contains(&self, key: &Key) -> bool {
        self.hashes.contains(&self.hash(key))
    }

    fn insert(&mut self, key: &Key) {
        self.hashes.insert(self.hash(key));
    }

    fn memory(&self) -> usize {
        self.hashes.len() * KEY_BYTES
    }
}

/// The log between.
pub(super) struct Window {
    stream: Option<MysqlStream>,
    end: FilePoint,
    columns: usize,
    /// Keys that the log brings after the point.
    later: Keys,
    /// What they may take, in bytes.
    limit: usize,
    /// Rows deleted by the open transaction, and those of prepared ones.
    open: Vec<Gone>,
    prepared: HashMap<String, Vec<Gone>>,
    /// Deleted rows that are committed, and how many there were before them.
    gone: Vec<Gone>,
    first: u64,
}

/// Rows of one DELETE, as they were.
struct Gone {
    rows: Batch,
    /// Which of them were inserted after the point too.
    is_later: Vec<bool>,
}

/// Deleted rows in the order of the log.
pub(super) struct AllGone {
    batches: Vec<Gone>,
    /// How many were deleted before these.
    pub(super) first: u64,
    /// Which of them were inserted after the point too.
    pub(super) is_later: Vec<bool>,
}

impl AllGone {
    pub(super) fn rows(&self) -> std::vec::IntoIter<Row<'_>> {
        self.batches.iter().flat_map(|gone| gone.rows.rows()).collect::<Vec<_>>().into_iter()
    }
}

impl Window {
    /// The log from where `stream` was opened up to `end`. Its rows have so many columns; keys of them may take `limit`
    /// bytes.
    pub(super) fn new(stream: MysqlStream, end: FilePoint, columns: usize, limit: usize) -> Self {
        Self {
            stream: Some(stream),
            end,
            columns,
            later: Keys::default(),
            limit,
            open: Vec::new(),
            prepared: HashMap::new(),
            gone: Vec::new(),
            first: 0,
        }
    }

    /// Whether the log brings a row of this key.
    pub(super) fn is_later(&self, key: &Key) -> bool {
        self.later.contains(key)
    }

    /// Takes out the deleted rows.
    pub(super) fn take_gone(&mut self) -> AllGone {
        let batches = std::mem::take(&mut self.gone);
        let is_later: Vec<bool> = batches.iter().flat_map(|gone| gone.is_later.iter().copied()).collect();
        let first = self.first;
        self.first += is_later.len() as u64;
        AllGone { batches, first, is_later }
    }

    /// Reads on, until there are some `bytes` of deleted rows to take out or the window ends, and gives whether there are any.
    pub(super) async fn read(&mut self, layout: &Layout, bytes: usize) -> Result<bool, SourceError> {
        let Some(mut stream) = self.stream.take() else { return Ok(false) };
        while !stream.has_passed(&self.end) {
            let event = stream.next().await?;
            let deleted = matches!(&event, LogEvent::Foreign { kind: ForeignDml::Delete, .. });
            let deleted = if deleted { stream.deleted() } else { None };
            self.take(event, deleted, layout).map_err(SourceError::Definite)?;
            // What a transaction deletes is there once it ends; or when it is too much to hold.
            let held: usize = self.open.iter().map(|gone| gone.rows.memory()).sum();
            if held >= bytes {
                self.gone.append(&mut self.open);
            }
            let ready: usize = self.gone.iter().map(|gone| gone.rows.memory()).sum();
            if ready >= bytes {
                self.stream = Some(stream);
                return Ok(true);
            }
        }
        Ok(!self.gone.is_empty())
    }

    fn take(
        &mut self,
        event: LogEvent<<MysqlStream as LogStream>::Rows>,
        deleted: Option<Result<<MysqlStream as LogStream>::Rows, Fault>>,
        layout: &Layout,
    ) -> Result<(), Fault> {
        match event {
            LogEvent::Rows { rows, .. } => {
                let rows = self.decode(rows)?;
                for row in rows.rows() {
                    self.remember(&layout.key_of(|place| row.get(place)), layout)?;
                }
            }
            LogEvent::Foreign { kind: ForeignDml::Delete, .. } => {
                if let Some(rows) = deleted {
                    let rows = self.decode(rows?)?;
                    let is_later =
                        rows.rows().map(|row| self.is_later(&layout.key_of(|place| row.get(place)))).collect();
                    self.open.push(Gone { rows, is_later });
                }
            }
            LogEvent::Foreign { kind: ForeignDml::Truncate | ForeignDml::Drop, .. } => {
                let table = &layout.table;
                // Where positions are files, a start is at the beginning of the newest one.
                let detail = format!(
                    "the table was truncated, dropped, renamed or replaced before all of its rows were relayed, and the \
                     log does not have them; begin anew with what there is: FLUSH BINARY LOGS where the server has no \
                     GTIDs, outboxd position forget {table}, then outboxd retry {table}"
                );
                return Err(Fault { name: "snapshot_truncated", detail, at: table.to_string() });
            }
            LogEvent::Commit => self.gone.append(&mut self.open),
            LogEvent::Rollback => self.open.clear(),
            LogEvent::Prepare { xid } => _ = self.prepared.insert(xid, std::mem::take(&mut self.open)),
            LogEvent::Settle { xid, commit } => {
                self.open.extend(self.prepared.remove(&xid).filter(|_| commit).unwrap_or_default());
            }
            LogEvent::Fault { fault, .. } => return Err(fault),
            LogEvent::Begin { .. }
            | LogEvent::Foreign { kind: ForeignDml::Update, .. }
            | LogEvent::Savepoint { .. }
            | LogEvent::RollbackTo { .. }
            | LogEvent::XaStart
            | LogEvent::Progress => {}
        }
        Ok(())
    }

    fn decode(&self, rows: impl RowSet) -> Result<Batch, Fault> {
        let mut batch = BatchBuilder::new(self.columns);
        rows.append_to(&mut batch)?;
        Ok(batch.take(Arc::new(Position::default())))
    }

    /// Leaves the row of this key out of the view.
    pub(super) fn remember(&mut self, key: &Key, layout: &Layout) -> Result<(), Fault> {
        self.later.insert(key);
        if self.later.memory() <= self.limit {
            return Ok(());
        }
        let detail = format!(
            "{} rows and more were written since the position, as far as the log has been read, and their keys take more \
             than relay.snapshot_keys_bytes = {} bytes; raise it",
            self.later.hashes.len(),
            self.limit
        );
        Err(Fault { name: "snapshot_keys_full", detail, at: layout.table.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_again_and_told_apart_by_their_columns() {
        let key = |columns: &[&str]| Key::new(columns.iter().map(|column| column.as_bytes().into()));
        let mut keys = Keys::default();
        keys.insert(&key(&["a", "bc"]));
        keys.insert(&key(&["a", "bc"]));
        assert!(keys.contains(&key(&["a", "bc"])));
        for other in [&["ab", "c"][..], &["a"], &["abc"], &["a", "bc", ""]] {
            assert!(!keys.contains(&key(other)), "{other:?}");
        }
        assert_eq!(keys.memory(), KEY_BYTES);
    }
}
