//! Which table a row event is about, and the decoding of its rows into a batch.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use super::decode::{ColumnValue, DecodeError, Dialect, RowsEvent, TableMap, peek_name};
use super::definition::{Definition, Feeder};
use super::statement::{Replaced, feeds, mentions, names, replaced};
use crate::position::TxnId;
use crate::source::{BatchBuilder, BatchFull, Fault, RowSet, Slot, Subscription};
use crate::table::{TableName, TablePattern};

/// How often definitions are read again for a transaction that makes a table which the server does not show: it is in the log
/// a moment before.
const ASKS: u32 = 5;

/// Which statements of the log are older than the definitions that were read with its opening, although they come behind
/// the place where it was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Older {
    /// None that is known to be.
    #[default]
    None,
    /// Those of the transaction for which definitions had to be read anew, so many times now. Without this, one that makes a
    /// table and fills it would have them read anew for ever.
    Of(TxnId, u32),
    /// All: no more is read than was there before the definitions were.
    All,
}

impl Older {
    fn has(&self, txn: Option<&TxnId>) -> bool {
        match self {
            Self::None => false,
            Self::Of(known, _) => txn == Some(known),
            Self::All => true,
        }
    }
}

/// Table maps of one stream.
pub(super) struct Tables {
    dialect: Dialect,
    subscriptions: Vec<Subscription>,
    /// By schema, and then by table: looked up for every map that is in the log.
    slots: HashMap<Box<str>, HashMap<Box<str>, Slot>>,
    definitions: Vec<Definition>,
    open: BTreeMap<u64, Known>,
    wants_definitions: bool,
    older: Older,
    /// Where no server is at hand: tables are selected as they come, and all of their columns.
    selection: Option<Selection>,
}

/// Which tables of an archived log are wanted, and what the log leaves out about them.
pub(super) struct Selection {
    pub(super) patterns: Vec<TablePattern>,
    /// Names of the columns of tables whose columns have none in the log; without them they are `c1`, `c2` and so on.
    pub(super) names: Vec<String>,
}

impl Selection {
    /// Whether a statement run in `schema` has a word that may name a selected table.
    fn mentioned_by(&self, text: &str, schema: &str) -> bool {
        let apart = |c: char| c.is_whitespace() || "(),;=".contains(c);
        let words = text.split(apart).map(|word| word.replace(['`', '"'], ""));
        words.filter(|word| !word.is_empty()).any(|word| {
            let name = word.split_once('.').unwrap_or((schema, &word));
            self.patterns.iter().any(|pattern| pattern.matches(&TableName::new(name.0, name.1)))
        })
    }

    /// Adds names where the log has none.
    fn complete(&self, map: &mut TableMap) -> Result<(), String> {
        let count = map.columns.len();
        if map.columns.iter().all(|column| column.name.is_some()) {
            return Ok(());
        }
        if !self.names.is_empty() && self.names.len() != count {
            return Err(format!("the log has {count} columns without names, and {} names are given", self.names.len()));
        }
        for (index, column) in map.columns.iter_mut().enumerate() {
            let given = || self.names.get(index).cloned().unwrap_or_else(|| format!("c{}", index + 1));
            column.name.get_or_insert_with(given);
        }
        Ok(())
    }
}

/// A table map of a subscribed table.
struct Known {
    slot: Slot,
    /// The event's body: the same bytes need no second look.
    body: Box<[u8]>,
    layout: Result<Arc<Layout>, Fault>,
}

/// A subscribed table as the log describes it at this point.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) map: TableMap,
    /// For each column of the table, its place among the subscription's columns.
    pub(super) wanted: Vec<Option<usize>>,
    columns: Arc<[String]>,
}

impl Tables {
    pub(super) fn new(dialect: Dialect, subscriptions: &[Subscription], definitions: Vec<Definition>) -> Self {
        let mut tables = Self {
            dialect,
            subscriptions: subscriptions.to_vec(),
            slots: HashMap::new(),
            definitions,
            open: BTreeMap::new(),
            wants_definitions: false,
            older: Older::None,
            selection: None,
        };
        for (slot, wanted) in subscriptions.iter().enumerate() {
            tables.give(&wanted.table, slot);
        }
        tables
    }

    fn give(&mut self, name: &TableName, slot: Slot) {
        self.slots.entry(name.schema().into()).or_default().insert(name.table().into(), slot);
    }

    /// These statements are older than the definitions.
    pub(super) fn know_older(&mut self, older: Older) {
        self.older = older;
    }

    /// What is older than definitions that are read now, for something within this transaction.
    pub(super) fn older_than_next(&self, txn: &TxnId) -> Older {
        let before = match &self.older {
            Older::Of(known, times) if known == txn => *times,
            _ => 0,
        };
        Older::Of(txn.clone(), before + 1)
    }

    /// Of an archived log, whose dialect [`Tables::start`] tells.
    pub(super) fn of_archive(selection: Selection) -> Self {
        Self { selection: Some(selection), ..Self::new(Dialect::MySql, &[], Vec::new()) }
    }

    /// A file begins, of this dialect.
    pub(super) fn start(&mut self, dialect: Dialect) {
        self.clear();
        self.dialect = dialect;
    }

    /// The table of a slot.
    pub(super) fn name(&self, slot: Slot) -> &TableName {
        &self.subscriptions[slot].table
    }

    /// Whether a statement may have changed a selected table that has no slot yet.
    pub(super) fn may_be_changed_by(&self, text: &str, schema: &str) -> bool {
        self.selection.as_ref().is_some_and(|selection| selection.mentioned_by(text, schema))
    }

    /// The slot of a table that is wanted.
    fn slot(&mut self, schema: &str, table: &str) -> Option<Slot> {
        if let Some(&slot) = self.slots.get(schema).and_then(|tables| tables.get(table)) {
            return Some(slot);
        }
        let patterns = &self.selection.as_ref()?.patterns;
        let name = TableName::new(schema, table);
        patterns.iter().any(|pattern| pattern.matches(&name)).then(|| {
            let slot = self.subscriptions.len();
            self.give(&name, slot);
            self.subscriptions.push(Subscription { table: name, columns: Arc::default() });
            self.definitions.push(Definition::default());
            slot
        })
    }

    /// The subscribed tables that a statement run in `schema` may change, be it by a trigger, a function or a view.
    /// `target`: the part of it that names what it changes itself.
    pub(super) fn changed_by(&self, target: &str, text: &str, schema: &str) -> Vec<Slot> {
        let feeds = |feeder: &Feeder| mentions(if feeder.anywhere { text } else { target }, schema, &feeder.name);
        let concerns = |slot: Slot, wanted: &Subscription| {
            mentions(target, schema, &wanted.table) || self.definitions[slot].feeders.iter().any(feeds)
        };
        let tables = self.subscriptions.iter().enumerate();
        tables.filter(|(slot, wanted)| concerns(*slot, wanted)).map(|(slot, _)| slot).collect()
    }

    /// The subscribed tables that a statement without comments, run in `schema`, names itself.
    pub(super) fn named_by(&self, text: &str, schema: &str) -> Vec<Slot> {
        self.slots_of(|table| names(text, schema, table))
    }

    /// The subscribed tables that a statement without comments, run in `schema`, takes away, or puts others in the
    /// place of.
    pub(super) fn replaced_by(&self, text: &str, schema: &str) -> Vec<Slot> {
        match replaced(text) {
            None => Vec::new(),
            Some(Replaced::Tables(part)) => self.named_by(part, schema),
            // It has the form of a table's name without a schema.
            Some(Replaced::Schema(part)) => self.slots_of(|table| names(part, "", &TableName::new("", table.schema()))),
        }
    }

    fn slots_of(&self, is_meant: impl Fn(&TableName) -> bool) -> Vec<Slot> {
        let tables = self.subscriptions.iter().enumerate();
        tables.filter(|(_, wanted)| is_meant(&wanted.table)).map(|(slot, _)| slot).collect()
    }

    /// A statement of this transaction that may define tables: what it names is no longer what it was.
    pub(super) fn defined_anew(&mut self, text: &str, schema: &str, txn: Option<&TxnId>) {
        if self.older.has(txn) {
            return;
        }
        let feeds = feeds(text);
        for (definition, wanted) in self.definitions.iter_mut().zip(&self.subscriptions) {
            let named = mentions(text, schema, &wanted.table);
            let mut feeders = definition.feeders.iter();
            let feeds = feeds && (named || feeders.any(|feeder| mentions(text, schema, &feeder.name)));
            definition.stale |= named;
            self.wants_definitions |= feeds;
        }
    }

    /// Whether something has come that only a definition explains which has to be read anew first.
    pub(super) fn wants_definitions(&self) -> bool {
        self.wants_definitions
    }

    /// Takes a `TABLE_MAP` event's body in, of a transaction that ended at this time or later, in seconds since the Unix
    /// epoch.
    pub(super) fn map(&mut self, body: &[u8], ended: u64, at: impl Fn() -> At) -> Result<(), DecodeError> {
        let name = peek_name(body)?;
        if let Some(known) = self.open.get(&name.table_id)
            && *known.body == *body
            && known.layout.is_ok()
            && !self.definitions[known.slot].stale
        {
            return Ok(());
        }
        let Some(slot) = self.slot(name.schema, name.table) else {
            self.open.remove(&name.table_id);
            return Ok(());
        };
        let layout = match TableMap::parse_as(body, self.dialect) {
            Ok(map) => self.layout(slot, map, ended, &at()).map(Arc::new),
            Err(error) => Err(undecodable(&error, &at())),
        };
        self.open.insert(name.table_id, Known { slot, body: body.into(), layout });
        Ok(())
    }

    /// The subscribed table of a row event's body, if it is one.
    pub(super) fn of_rows(&self, body: &[u8]) -> Option<(Slot, Result<Arc<Layout>, Fault>)> {
        let id: [u8; 6] = body.get(..6)?.try_into().ok()?;
        let mut wide = [0; 8];
        wide[..6].copy_from_slice(&id);
        self.open.get(&u64::from_le_bytes(wide)).map(|known| (known.slot, known.layout.clone()))
    }

    /// Forgets every map: a new log file numbers tables anew.
    pub(super) fn clear(&mut self) {
        self.open.clear();
    }

    fn layout(&mut self, slot: Slot, mut map: TableMap, ended: u64, at: &At) -> Result<Layout, Fault> {
        if let Some(selection) = &self.selection {
            let fault = |detail| Fault { name: "column_names", detail, at: at.to_string() };
            selection.complete(&mut map).map_err(fault)?;
            return Ok(Layout { wanted: (0..map.columns.len()).map(Some).collect(), columns: Arc::default(), map });
        }
        let definition = &self.definitions[slot];
        if definition.is_needed_for(&map) {
            let unseen = definition.is_absent()
                && matches!(&self.older, Older::Of(txn, times) if at.txn.as_ref() == Some(txn) && *times < ASKS);
            self.wants_definitions |= definition.stale || unseen;
            definition.complete(&mut map, ended).map_err(|detail| Fault {
                name: "table_definition_changed",
                detail: format!("{detail}; set binlog_row_metadata=FULL"),
                at: at.to_string(),
            })?;
        }
        let columns = Arc::clone(&self.subscriptions[slot].columns);
        let place = |name: &str| columns.iter().position(|wanted| wanted.eq_ignore_ascii_case(name));
        let wanted: Vec<_> = map.columns.iter().map(|column| column.name.as_deref().and_then(place)).collect();
        if let Some((_, missing)) = columns.iter().enumerate().find(|(place, _)| !wanted.contains(&Some(*place))) {
            return Err(Fault {
                name: "missing_column",
                detail: format!(
                    "the table had no column `{missing}`; name another under [outbox.columns], or add it for what comes"
                ),
                at: at.to_string(),
            });
        }
        Ok(Layout { map, wanted, columns })
    }
}

fn undecodable(error: &DecodeError, at: &At) -> Fault {
    Fault { name: "undecodable_row", detail: error.to_string(), at: at.to_string() }
}

/// A place of the log, which is kept with every event and becomes text only when something is wrong with one.
#[derive(Debug, Clone)]
pub(super) struct At {
    pub(super) txn: Option<TxnId>,
    pub(super) file: Arc<str>,
    pub(super) offset: u64,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { txn, file, offset } = self;
        match txn {
            Some(txn) => write!(f, "{txn} ({file}:{offset})"),
            None => write!(f, "{file}:{offset}"),
        }
    }
}

/// The rows of one event.
pub struct Rows {
    pub(super) kind: u8,
    pub(super) body: Vec<u8>,
    pub(super) layout: Arc<Layout>,
    pub(super) at: At,
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
            Failure::Full => Fault { name: "batch_full", detail: BatchFull.to_string(), at: self.at.to_string() },
            Failure::Absent(column) => Fault {
                name: "column_not_in_row_image",
                detail: format!("the row image leaves out column `{}`; set binlog_row_image=FULL", columns[column]),
                at: self.at.to_string(),
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
