//! Which table a row event is about, and the decoding of its rows into a batch.

use std::collections::HashMap;
use std::sync::Arc;

use super::decode::{ColumnValue, DecodeError, Dialect, RowsEvent, TableMap, peek_name};
use crate::source::{BatchBuilder, BatchFull, Fault, RowSet, Slot, Subscription};
use crate::table::TableName;

/// A column as the server's data dictionary has it, for logs that carry no names (`binlog_row_metadata=MINIMAL`).
#[derive(Debug, Clone)]
pub(super) struct Defined {
    pub(super) name: String,
    pub(super) unsigned: bool,
    pub(super) collation: Option<u16>,
}

/// A subscribed table as the log describes it at this point.
#[derive(Debug)]
pub(super) struct Layout {
    map: TableMap,
    /// For each column of the table, its place among the subscription's columns.
    wanted: Vec<Option<usize>>,
    columns: Arc<[String]>,
}

/// Table maps of one stream.
pub(super) struct Tables {
    dialect: Dialect,
    subscriptions: Vec<Subscription>,
    slots: HashMap<TableName, Slot>,
    defined: Vec<Vec<Defined>>,
    /// Tables that were defined anew since `defined` was read.
    redefined: Vec<bool>,
    /// A table map without names that `defined` may not fit.
    outdated: Option<Slot>,
    open: HashMap<u64, (Slot, Result<Arc<Layout>, Fault>)>,
}

impl Tables {
    pub(super) fn new(dialect: Dialect, subscriptions: &[Subscription], defined: Vec<Vec<Defined>>) -> Self {
        let slots = subscriptions.iter().enumerate().map(|(slot, wanted)| (wanted.table.clone(), slot)).collect();
        let redefined = vec![false; subscriptions.len()];
        Self {
            dialect,
            subscriptions: subscriptions.to_vec(),
            slots,
            defined,
            redefined,
            outdated: None,
            open: HashMap::new(),
        }
    }

    pub(super) fn subscriptions(&self) -> &[Subscription] {
        &self.subscriptions
    }

    /// Takes a `TABLE_MAP` event's body in.
    pub(super) fn map(&mut self, body: &[u8], at: &str) -> Result<(), DecodeError> {
        let name = peek_name(body)?;
        let Some(&slot) = self.slots.get(&TableName::new(name.schema, name.table)) else {
            self.open.remove(&name.table_id);
            return Ok(());
        };
        let unchanged = |layout: &Layout, map: &TableMap| layout.map == *map;
        let layout = match TableMap::parse_as(body, self.dialect) {
            Ok(map) => match self.open.get(&name.table_id) {
                Some((_, Ok(known))) if unchanged(known, &map) => return Ok(()),
                _ => self.layout(slot, map, at).map(Arc::new),
            },
            Err(error) => Err(undecodable(&error, at)),
        };
        self.open.insert(name.table_id, (slot, layout));
        Ok(())
    }

    /// The subscribed table of a row event's body, if it is one.
    pub(super) fn of_rows(&self, body: &[u8]) -> Option<(Slot, Result<Arc<Layout>, Fault>)> {
        let id: [u8; 6] = body.get(..6)?.try_into().ok()?;
        let mut wide = [0; 8];
        wide[..6].copy_from_slice(&id);
        self.open.get(&u64::from_le_bytes(wide)).cloned()
    }

    /// Forgets every map: a new log file numbers tables anew.
    pub(super) fn clear(&mut self) {
        self.open.clear();
    }

    /// Notes that tables are defined anew from here on.
    pub(super) fn redefine(&mut self, concerned: impl Fn(&TableName) -> bool) {
        for (redefined, wanted) in self.redefined.iter_mut().zip(&self.subscriptions) {
            *redefined |= concerned(&wanted.table);
        }
    }

    /// The table whose definition has to be read again before its rows can be understood.
    pub(super) fn outdated(&self) -> Option<&TableName> {
        self.outdated.map(|slot| &self.subscriptions[slot].table)
    }

    fn layout(&mut self, slot: Slot, mut map: TableMap, at: &str) -> Result<Layout, Fault> {
        if map.columns.iter().any(|column| column.name.is_none()) {
            if self.redefined[slot] {
                self.outdated = Some(slot);
            }
            let defined = &self.defined[slot];
            if defined.len() != map.columns.len() {
                return Err(Fault {
                    name: "table_definition_changed",
                    detail: format!(
                        "the log has {} columns without names, the table now has {}; set binlog_row_metadata=FULL",
                        map.columns.len(),
                        defined.len()
                    ),
                    at: at.to_owned(),
                });
            }
            for (column, defined) in map.columns.iter_mut().zip(defined) {
                column.name = Some(defined.name.clone());
                column.unsigned = Some(defined.unsigned);
                column.collation = column.collation.or(defined.collation);
            }
        }
        let columns = Arc::clone(&self.subscriptions[slot].columns);
        let place = |name: &str| columns.iter().position(|wanted| wanted.eq_ignore_ascii_case(name));
        let wanted: Vec<_> = map.columns.iter().map(|column| column.name.as_deref().and_then(place)).collect();
        if let Some((_, missing)) = columns.iter().enumerate().find(|(place, _)| !wanted.contains(&Some(*place))) {
            return Err(Fault {
                name: "missing_column",
                detail: format!("the table has no column `{missing}`; add it, or name another under [outbox.columns]"),
                at: at.to_owned(),
            });
        }
        Ok(Layout { map, wanted, columns })
    }
}

fn undecodable(error: &DecodeError, at: &str) -> Fault {
    Fault { name: "undecodable_row", detail: error.to_string(), at: at.to_owned() }
}

/// The rows of one event.
pub struct Rows {
    pub(super) kind: u8,
    pub(super) body: Vec<u8>,
    pub(super) layout: Arc<Layout>,
    pub(super) at: String,
}

enum Failure {
    Decode(DecodeError),
    Full,
    Absent(usize),
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

impl From<BatchFull> for Failure {
    fn from(_: BatchFull) -> Self {
        Self::Full
    }
}

impl RowSet for Rows {
    fn append_to(self, batch: &mut BatchBuilder) -> Result<(), Fault> {
        let Layout { map, wanted, columns } = &*self.layout;
        let fault = |failure| match failure {
            Failure::Decode(error) => undecodable(&error, &self.at),
            Failure::Full => Fault { name: "batch_full", detail: BatchFull.to_string(), at: self.at.clone() },
            Failure::Absent(column) => Fault {
                name: "column_not_in_row_image",
                detail: format!("the row image leaves out column `{}`; set binlog_row_image=FULL", columns[column]),
                at: self.at.clone(),
            },
        };
        let mut rows = RowsEvent::parse(self.kind, &self.body).map_err(|error| fault(error.into()))?;
        loop {
            let mut row = batch.row();
            let more = rows.next_row(map, wanted, &mut |column, value| match value {
                ColumnValue::Value(value) => row.set(column, |out| value.write_text(out).map_err(Failure::from)),
                ColumnValue::Null => Ok(()),
                ColumnValue::Absent => Err(Failure::Absent(column)),
            });
            match more {
                Ok(true) => row.finish(),
                Ok(false) => return Ok(()),
                Err(failure) => {
                    drop(row);
                    return Err(fault(failure));
                }
            }
        }
    }
}
