//! A server's log in memory: transactions are committed to it, streams read them, and connections break on command.

mod table;

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use uuid::Uuid;

use self::table::{History, first_prepared, is_before, key, unsettled};
use super::lock;
use crate::position::{DomainGtid, DomainPoint, FilePoint, Gtid, GtidSet, Origin, Point, Position, Scan, TxnId};
use crate::source::{
    BatchBuilder, BatchFull, Fault, ForeignDml, Lapse, LogEvent, LogSource, LogStream, Recovery, Remains, RowSet, Slot,
    SourceError, Subscription,
};
use crate::table::TableName;

pub use self::table::MemoryScan;

/// One inserted row, in the default columns of an outbox table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Insert {
    /// The event's id; an empty one cannot be decoded.
    pub id: String,
    /// The aggregate's id.
    pub key: String,
    /// The payload; `None` is SQL NULL.
    pub payload: Option<String>,
}

impl Insert {
    /// A row whose payload says its id.
    pub fn new(id: &str, key: &str) -> Self {
        Self { id: id.to_owned(), key: key.to_owned(), payload: Some(format!("{{\"id\":\"{id}\"}}")) }
    }

    fn column(&self, name: &str) -> Result<Option<&str>, &'static str> {
        match name {
            "id" if self.id.is_empty() => Err("undecodable_value"),
            "id" => Ok(Some(&self.id)),
            "aggregatetype" | "type" => Ok(Some("test")),
            "aggregateid" => Ok(Some(&self.key)),
            "payload" => Ok(self.payload.as_deref()),
            _ => Err("column_missing"),
        }
    }
}

/// What happens within a transaction, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Rows are inserted.
    Insert(TableName, Vec<Insert>),
    /// Something that an outbox should not see.
    Foreign(TableName, ForeignDml),
    /// Rows of these ids are deleted.
    Delete(TableName, Vec<String>),
    /// A savepoint.
    Savepoint(String),
    /// A rollback to it.
    RollbackTo(String),
    /// The transaction ends here, prepared under this name.
    Prepare(String),
    /// The prepared transaction of that name is committed or undone with this one.
    Settle(String, bool),
    /// Something that must not be passed over; of every table when there is no name.
    Fault(Option<TableName>, Fault),
}

#[derive(Debug)]
struct Transaction {
    steps: Vec<Step>,
    committed: bool,
}

#[derive(Debug, Default)]
struct State {
    transactions: Vec<Transaction>,
    /// The oldest transaction that is still there, counted from 0.
    purged: usize,
    /// Streams of an older connection are broken.
    connection: u64,
    /// The stream breaks after so many events more.
    cut_after: Option<u64>,
    refusals: Vec<SourceError>,
    withheld_rows: Option<(TableName, SourceError)>,
    withheld_ends: Option<SourceError>,
    opened: u64,
    streams: usize,
}

/// What positions of a log are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Terms {
    /// Sets of one server's GTIDs.
    #[default]
    Gtid,
    /// The same on a replica that commits two at a time: of each two, the second comes first, and leaves a gap.
    Replica,
    /// Two domains in turns.
    Domains,
    /// Offsets in one file. Between two transactions there is something else, which a stream tells of now and then.
    Files,
}

impl Terms {
    /// The identity of the transaction of that number.
    pub fn transaction(self, number: u64) -> TxnId {
        match self {
            Self::Gtid => TxnId::Gtid(gtid(number)),
            Self::Replica => TxnId::Gtid(swapped(number)),
            Self::Domains => TxnId::Domain(domain_gtid(number)),
            Self::Files => TxnId::File(file(number * 100 - 50)),
        }
    }

    /// The position after all transactions up to that number.
    pub fn after(self, number: u64) -> Position {
        match self {
            Self::Gtid => {
                let mut set = GtidSet::default();
                (1..=number).for_each(|number| set.add(&gtid(number)));
                Point::Gtid(set)
            }
            Self::Replica => {
                let mut set = GtidSet::default();
                (1..=number).for_each(|number| set.add(&swapped(number)));
                Point::Gtid(set)
            }
            Self::Domains => {
                let mut point = DomainPoint::default();
                (1..=number).for_each(|number| point.add(domain_gtid(number)));
                Point::Domains(point)
            }
            Self::Files => file(number * 100).into(),
        }
        .into()
    }
}

fn swapped(number: u64) -> Gtid {
    gtid(if number.is_multiple_of(2) { number - 1 } else { number + 1 })
}

fn domain_gtid(number: u64) -> DomainGtid {
    DomainGtid { domain: u32::from(number.is_multiple_of(2)), server: 1, sequence: number }
}

fn file(offset: u64) -> FilePoint {
    FilePoint { file: "m.000001".to_owned(), offset, server: None }
}

/// The log. Cheap to clone; the clones are one log. Transactions are numbered from 1, and commit at 1 s each.
#[derive(Debug, Clone)]
pub struct MemoryLog {
    state: Arc<Mutex<State>>,
    news: watch::Sender<()>,
    terms: Terms,
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new(Terms::default())
    }
}

/// The identity of the transaction of that number, in GTIDs.
pub fn transaction(number: u64) -> TxnId {
    Terms::Gtid.transaction(number)
}

/// The position after all transactions up to that number, in GTIDs.
pub fn after(number: u64) -> Position {
    Terms::Gtid.after(number)
}

fn gtid(number: u64) -> Gtid {
    Gtid { origin: Origin { server: Uuid::from_u128(0x0B0C), tag: None }, number }
}

impl MemoryLog {
    /// An empty log.
    pub fn new(terms: Terms) -> Self {
        Self { state: Arc::default(), news: watch::channel(()).0, terms }
    }

    /// What its positions are.
    pub fn terms(&self) -> Terms {
        self.terms
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut lock(&self.state));
        self.news.send_replace(());
        result
    }

    /// Appends a committed transaction; returns its number.
    pub fn commit(&self, steps: Vec<Step>) -> u64 {
        self.append(steps, true)
    }

    /// Appends a transaction that is undone although it is in the log; returns its number.
    pub fn roll_back(&self, steps: Vec<Step>) -> u64 {
        self.append(steps, false)
    }

    /// Appends a committed transaction that inserts one row into one table; returns its number.
    pub fn insert(&self, table: &TableName, id: &str, key: &str) -> u64 {
        self.commit(vec![Step::Insert(table.clone(), vec![Insert::new(id, key)])])
    }

    fn append(&self, steps: Vec<Step>, committed: bool) -> u64 {
        self.change(|state| {
            state.transactions.push(Transaction { steps, committed });
            state.transactions.len() as u64
        })
    }

    /// Breaks every open stream.
    pub fn disconnect(&self) {
        self.change(|state| state.connection += 1);
    }

    /// Breaks every open stream once so many events more were read.
    pub fn disconnect_after(&self, events: u64) {
        self.change(|state| state.cut_after = Some(events));
    }

    /// The next openings fail like this, the first one first.
    pub fn refuse(&self, errors: impl IntoIterator<Item = SourceError>) {
        self.change(|state| state.refusals.extend(errors));
    }

    /// Whoever asks for the rows of this table hears this, until `None`.
    pub fn withhold_rows(&self, table: &TableName, error: Option<SourceError>) {
        self.change(|state| state.withheld_rows = error.map(|error| (table.clone(), error)));
    }

    /// Whoever asks where the log begins or ends hears this, until `None`.
    pub fn withhold_ends(&self, error: Option<SourceError>) {
        self.change(|state| state.withheld_ends = error);
    }

    /// Drops all transactions up to this number.
    pub fn purge(&self, number: u64) {
        self.change(|state| state.purged = usize::try_from(number).unwrap_or(usize::MAX).min(state.transactions.len()));
    }

    /// Number of transactions, the purged ones included.
    pub fn transactions(&self) -> u64 {
        lock(&self.state).transactions.len() as u64
    }

    /// How many streams are open now.
    pub fn streams(&self) -> usize {
        lock(&self.state).streams
    }

    /// How often it was opened.
    pub fn opened(&self) -> u64 {
        lock(&self.state).opened
    }
}

/// Rows of one step.
#[derive(Debug)]
pub struct MemoryRows {
    inserts: Vec<Insert>,
    columns: Arc<[String]>,
    at: TxnId,
}

impl MemoryRows {
    /// Rows of these columns, outside a log.
    pub fn new(inserts: Vec<Insert>, columns: Arc<[String]>) -> Self {
        Self { inserts, columns, at: transaction(0) }
    }
}

impl RowSet for MemoryRows {
    fn append_to(self, batch: &mut BatchBuilder) -> Result<(), Fault> {
        for insert in &self.inserts {
            let mut row = batch.row();
            for (index, name) in self.columns.iter().enumerate() {
                let fault = |name| Fault { name, detail: insert.key.clone(), at: self.at.to_string() };
                let Some(value) = insert.column(name).map_err(fault)? else { continue };
                let write = |out: &mut Vec<u8>| {
                    out.extend_from_slice(value.as_bytes());
                    Ok::<_, BatchFull>(())
                };
                row.set(index, write).map_err(|_| fault("batch_full"))?;
            }
            row.finish();
        }
        Ok(())
    }
}

/// An open log in memory.
#[derive(Debug)]
pub struct MemoryStream {
    log: MemoryLog,
    news: watch::Receiver<()>,
    connection: u64,
    subscriptions: Vec<Subscription>,
    position: Position,
    /// The transaction to read, and the step of it: 0 is its beginning.
    next: (usize, usize),
    /// Prepared transactions, which the position does not cover.
    prepared: BTreeMap<String, TxnId>,
    /// The one that is settled by the open transaction.
    settles: Option<TxnId>,
}

impl Drop for MemoryStream {
    fn drop(&mut self) {
        lock(&self.log.state).streams -= 1;
    }
}

impl MemoryStream {
    fn subscribed(&self, table: &TableName) -> Option<Slot> {
        self.subscriptions.iter().position(|subscription| subscription.table == *table)
    }

    fn touches(&self, transaction: &Transaction) -> bool {
        transaction.steps.iter().any(|step| match step {
            Step::Insert(table, _) | Step::Foreign(table, _) => self.subscribed(table).is_some(),
            _ => false,
        })
    }

    /// The next event, if the log has one.
    fn step(&mut self) -> Option<Result<LogEvent<MemoryRows>, SourceError>> {
        let log = self.log.clone();
        let mut state = lock(&log.state);
        if state.connection != self.connection {
            return Some(Err(SourceError::Transient("the connection is broken".to_owned())));
        }
        loop {
            let (index, step) = self.next;
            let transaction_read = state.transactions.get(index)?;
            let number = index as u64 + 1;
            let txn = log.terms.transaction(number);
            if self.position.point.covers(&txn) == Some(true) {
                self.next = (index + 1, 0);
                continue;
            }
            if let (TxnId::File(begin), Point::File(point), 0) = (&txn, &mut self.position.point, step)
                && point.at < *begin
                && fastrand::bool()
            {
                point.reach(begin.clone());
                return Some(Ok(LogEvent::Progress));
            }
            let event = match step.checked_sub(1).map(|step| transaction_read.steps.get(step)) {
                None => Some(LogEvent::Begin { txn: txn.clone(), commit_micros: number * 1_000_000 }),
                Some(Some(step)) => self.event(step, self.touches(transaction_read), txn.clone()),
                Some(None) if transaction_read.committed => Some(LogEvent::Commit),
                Some(None) => Some(LogEvent::Rollback),
            };
            self.next.1 += 1;
            let Some(event) = event else { continue };
            if let Some(left) = &mut state.cut_after {
                if *left == 0 {
                    state.cut_after = None;
                    state.connection += 1;
                    return Some(Err(SourceError::Transient("the connection is cut".to_owned())));
                }
                *left -= 1;
            }
            if let LogEvent::Prepare { xid } = &event {
                self.position.point.prepare(&txn, file(number * 100));
                self.prepared.insert(xid.clone(), txn.clone());
                self.next = (index + 1, 0);
            }
            if let LogEvent::Settle { xid, .. } = &event {
                self.settles = self.prepared.remove(xid);
            }
            if matches!(event, LogEvent::Commit | LogEvent::Rollback) {
                if let Some(prepared) = self.settles.take() {
                    self.position.point.settle(&prepared);
                }
                self.position.point.add(&txn, || file(number * 100));
                self.next = (index + 1, 0);
            }
            return Some(Ok(event));
        }
    }

    /// What a step says to these tables; `touches`: whether its transaction has anything for them.
    fn event(&self, step: &Step, touches: bool, txn: TxnId) -> Option<LogEvent<MemoryRows>> {
        Some(match step {
            Step::Insert(table, inserts) => {
                let slot = self.subscribed(table)?;
                let columns = Arc::clone(&self.subscriptions[slot].columns);
                LogEvent::Rows { slot, rows: MemoryRows { inserts: inserts.clone(), columns, at: txn } }
            }
            Step::Foreign(table, kind) => LogEvent::Foreign { slot: self.subscribed(table)?, kind: *kind },
            Step::Delete(table, _) => LogEvent::Foreign { slot: self.subscribed(table)?, kind: ForeignDml::Delete },
            Step::Savepoint(name) => LogEvent::Savepoint { name: name.clone() },
            Step::RollbackTo(name) => LogEvent::RollbackTo { name: name.clone() },
            // As a server's log is read: what has nothing for the tables is a transaction like any other.
            Step::Prepare(_) if !touches => return None,
            Step::Settle(xid, _) if !self.prepared.contains_key(xid) => return None,
            Step::Prepare(xid) => LogEvent::Prepare { xid: xid.clone() },
            Step::Settle(xid, commit) => LogEvent::Settle { xid: xid.clone(), commit: *commit },
            Step::Fault(None, fault) => LogEvent::Fault { slot: None, fault: fault.clone() },
            Step::Fault(Some(table), fault) => {
                LogEvent::Fault { slot: Some(self.subscribed(table)?), fault: fault.clone() }
            }
        })
    }
}

/// The next opening that is to fail.
fn refusal(refusals: &mut Vec<SourceError>) -> Option<SourceError> {
    (!refusals.is_empty()).then(|| refusals.remove(0))
}

fn check_purged(purged: &Position, from: &Position) -> Result<(), SourceError> {
    if purged.point.partial_cmp(&from.point).is_none_or(Ordering::is_gt) {
        let detail = format!("the log begins after {purged}");
        return Err(SourceError::Definite(Fault { name: "position_purged", detail, at: from.to_string() }));
    }
    Ok(())
}

impl LogStream for MemoryStream {
    type Rows = MemoryRows;

    async fn next(&mut self) -> Result<LogEvent<MemoryRows>, SourceError> {
        loop {
            self.news.borrow_and_update();
            if let Some(event) = self.step() {
                return event;
            }
            if self.news.changed().await.is_err() {
                return Err(SourceError::Transient("the log is gone".to_owned()));
            }
        }
    }

    fn position(&self) -> &Position {
        &self.position
    }
}

impl LogSource for MemoryLog {
    type Rows = MemoryRows;
    type Stream = MemoryStream;
    type Scan = MemoryScan;

    async fn oldest(&mut self) -> Result<Position, SourceError> {
        lock(&self.state).withheld_ends.clone().map_or(Ok(()), Err)?;
        Ok(self.terms.after(lock(&self.state).purged as u64))
    }

    async fn newest(&mut self) -> Result<Position, SourceError> {
        lock(&self.state).withheld_ends.clone().map_or(Ok(()), Err)?;
        Ok(self.terms.after(lock(&self.state).transactions.len() as u64))
    }

    async fn snapshot(&mut self, subscription: &Subscription) -> Result<Position, SourceError> {
        let mut state = lock(&self.state);
        if let Some((_, error)) = state.withheld_rows.clone().filter(|(table, _)| *table == subscription.table) {
            return Err(error);
        }
        if let Some(error) = refusal(&mut state.refusals) {
            return Err(error);
        }
        // Any place does before which everything is visible; what is only prepared is not. What was prepared and is settled
        // comes by the log, for its keys are not in the order of the commits.
        let newest = first_prepared(&state.transactions).map_or(state.transactions.len() as u64, |first| first - 1);
        let point = self.terms.after(newest - fastrand::u64(0..=3.min(newest.saturating_sub(state.purged as u64))));
        let history = History::of(&state.transactions, &subscription.table);
        let until = history.present.keys().next_back().map(|id| key(id));
        Ok(Position { scan: until.map(|until| Box::new(Scan::new(until))), ..point })
    }

    async fn recover(&mut self, subscription: &Subscription, _lapse: &Lapse) -> Result<Recovery, SourceError> {
        let mut state = lock(&self.state);
        if let Some(error) = refusal(&mut state.refusals) {
            return Err(error);
        }
        let purged = state.purged as u64;
        if unsettled(&state.transactions).is_some_and(|oldest| oldest <= purged) {
            return Err(SourceError::Transient("it is prepared and not settled".to_owned()));
        }
        let history = History::of(&state.transactions, &subscription.table);
        let until = history.present.keys().next_back().map_or_else(|| key(""), |id| key(id));
        let gone = history.deletes.iter().any(|(number, _)| *number <= purged);
        let remains = if gone { Remains::Doubtful("a row is in no table".to_owned()) } else { Remains::Whole };
        Ok(Recovery { from: Position { scan: Some(Box::new(Scan::new(until))), ..self.terms.after(purged) }, remains })
    }

    async fn scan(
        &mut self,
        from: &Position,
        subscription: &Subscription,
        _keys_bytes: usize,
    ) -> Result<MemoryScan, SourceError> {
        let mut state = lock(&self.state);
        if let Some(error) = refusal(&mut state.refusals) {
            return Err(error);
        }
        let purged = self.terms.after(state.purged as u64);
        check_purged(&purged, from)?;
        let scan = from.scan.as_deref().cloned().ok_or_else(|| SourceError::Transient("no scan".to_owned()))?;
        let history = History::of(&state.transactions, &subscription.table);
        let after = |number: u64| from.point.covers(&self.terms.transaction(number)) != Some(true);
        let later: HashSet<&str> =
            history.inserts.iter().filter(|(number, _)| after(*number)).map(|(_, row)| row.id.as_str()).collect();
        let ahead = |row: &&Insert| is_before(scan.last.as_ref(), &row.id);
        let wanted = |row: &Insert| !later.contains(row.id.as_str()) && ahead(&row);
        let gone = history.deletes.iter().filter(|(number, _)| after(*number)).map(|(_, row)| row);
        let gone = gone.map(|row| Some(row.clone()).filter(&wanted)).skip(usize::try_from(scan.gone).unwrap_or(0));
        let present = history.present.values().filter(ahead).filter(|row| !is_before(Some(&scan.until), &row.id));
        let present = present.map(|row| (row.clone(), wanted(row)));
        Ok(MemoryScan {
            total: history.present.len() as u64,
            gone: gone.collect(),
            present: present.collect(),
            log: self.clone(),
            connection: state.connection,
            columns: Arc::clone(&subscription.columns),
            micros: state.transactions.len() as u64 * 1_000_000,
            scan,
        })
    }

    async fn open(&mut self, from: &Position, subscriptions: &[Subscription]) -> Result<MemoryStream, SourceError> {
        let mut state = lock(&self.state);
        state.opened += 1;
        if let Some(error) = refusal(&mut state.refusals) {
            return Err(error);
        }
        check_purged(&self.terms.after(state.purged as u64), from)?;
        state.streams += 1;
        Ok(MemoryStream {
            log: self.clone(),
            news: self.news.subscribe(),
            connection: state.connection,
            subscriptions: subscriptions.to_vec(),
            position: from.clone(),
            next: (state.purged, 0),
            prepared: BTreeMap::new(),
            settles: None,
        })
    }
}
