//! The committed rows of tables, as the log has them.
//!
//! Promise: every row that was committed between two places of the log, once, in the commit order of its table, numbered
//! from 0; reading the same again numbers them the same. What cannot be read is said, table by table.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::sleep;
use tracing::warn;

use crate::position::{Point, Position, TxnId};
use crate::relay::Item;
use crate::relay::assembler::{Assembler, Limits};
use crate::source::{Batch, Fault, LogEvent, LogSource, LogStream, Slot, SourceError, Subscription};

/// How often in a row the log is opened again before it counts as away.
const TRIES: u32 = 10;

/// How long to wait before that.
const WAIT: Duration = Duration::from_millis(500);

/// Rows that leave memory together, in bytes.
const BATCH: usize = 256 << 10;

/// Rows of one transaction, or of a part of it.
#[derive(Debug)]
pub struct Rows {
    /// Their table.
    pub slot: Slot,
    /// Whether the table's durable position covers their transaction.
    pub covered: bool,
    /// The number of the first one among the table's rows.
    pub first: u64,
    /// The rows.
    pub batch: Batch,
}

/// A table that is read.
#[derive(Debug, Clone)]
pub struct Reading {
    /// The table and its columns.
    pub subscription: Subscription,
    /// What the relay has published.
    pub durable: Option<Point>,
}

/// Reads the log from one place to another.
pub struct LogReader<S: LogSource> {
    source: S,
    stream: Option<S::Stream>,
    subscriptions: Vec<Subscription>,
    durable: Vec<Option<Point>>,
    /// As of the last time that the stream was opened.
    position: Position,
    until: Point,
    done: bool,
    assembler: Assembler,
    open: Option<TxnId>,
    /// Prepared transactions, which positions leave out until they are settled.
    aside: Vec<TxnId>,
    numbers: Vec<u64>,
    ready: VecDeque<Rows>,
    begins_micros: Option<u64>,
    faults: BTreeMap<Slot, Fault>,
    tries: u32,
}

impl<S: LogSource> LogReader<S> {
    /// From right after `from` to where everything in `until` was read. `hold`: rows of one transaction that are held
    /// until its end is known, in bytes.
    pub fn new(source: S, tables: Vec<Reading>, from: Position, until: Position, hold: usize) -> Self {
        let (subscriptions, durable): (Vec<_>, Vec<_>) =
            tables.into_iter().map(|table| (table.subscription, table.durable)).unzip();
        let limits = Limits { batch_bytes: BATCH, hold_bytes: hold, halt_on_update: false };
        let columns = subscriptions.iter().map(|wanted| (wanted.columns.len(), from.clone()));
        Self {
            source,
            stream: None,
            assembler: Assembler::new(columns, limits),
            numbers: vec![0; subscriptions.len()],
            subscriptions,
            durable,
            done: until.point <= from.point,
            position: from,
            until: until.point,
            open: None,
            aside: Vec::new(),
            ready: VecDeque::new(),
            begins_micros: None,
            faults: BTreeMap::new(),
            tries: 0,
        }
    }

    /// The next rows; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Rows>, SourceError> {
        loop {
            if let Some(rows) = self.ready.pop_front() {
                return Ok(Some(rows));
            }
            if self.done {
                return Ok(None);
            }
            match self.step().await {
                Ok(()) => {}
                Err(SourceError::Transient(reason)) if self.tries < TRIES => {
                    warn!(%reason, "log_unavailable");
                    self.tries += 1;
                    self.reopen();
                    sleep(WAIT).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Where the reader stands.
    pub fn position(&self) -> &Position {
        self.stream.as_ref().map_or(&self.position, LogStream::position)
    }

    /// When the first transaction that was read was committed, in microseconds since the Unix epoch.
    pub fn begins_micros(&self) -> Option<u64> {
        self.begins_micros
    }

    /// The tables that could not be read to the end, and why.
    pub fn faults(&self) -> &BTreeMap<Slot, Fault> {
        &self.faults
    }

    fn reopen(&mut self) {
        self.position = self.position().clone();
        self.stream = None;
        self.assembler.reopen(&self.position);
        self.aside.clear();
    }

    async fn step(&mut self) -> Result<(), SourceError> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => self.stream.insert(self.source.open(&self.position, &self.subscriptions).await?),
        };
        let event = stream.next().await?;
        self.tries = 0;
        match &event {
            LogEvent::Begin { txn, commit_micros } => {
                self.begins_micros.get_or_insert(*commit_micros);
                self.open = Some(txn.clone());
            }
            LogEvent::Prepare { .. } => {
                self.aside.extend(self.open.clone());
            }
            _ => {}
        }
        let boundary =
            matches!(event, LogEvent::Commit | LogEvent::Rollback | LogEvent::Prepare { .. } | LogEvent::Progress);
        let position = stream.position();
        self.assembler.take(event, position);
        if boundary {
            self.assembler.flush(position);
            self.done =
                self.until <= position.point || !self.aside.is_empty() && self.until <= seen(position, &self.aside);
        }
        self.drain();
        Ok(())
    }

    /// Everything that is handed on between two ends of transactions is of the one that has begun.
    fn drain(&mut self) {
        let mut faults = Vec::new();
        for (slot, item) in self.assembler.drain() {
            match item {
                Item::Batch(batch) => {
                    let first = self.numbers[slot];
                    self.numbers[slot] += batch.len() as u64;
                    let covers = |durable: &Point| self.open.as_ref().and_then(|txn| durable.covers(txn));
                    let covered = match self.durable[slot].as_ref().map(covers) {
                        Some(Some(covered)) => covered,
                        Some(None) => {
                            faults.push((slot, kind()));
                            false
                        }
                        None => false,
                    };
                    self.ready.push_back(Rows { slot, covered, first, batch });
                }
                Item::Fault { fault, .. } => faults.push((slot, fault)),
                // Only a tail that finds another server's log displaces; this reads one log as it is.
                Item::Progress(_) | Item::Updates(_) | Item::Displaced(_) => {}
            }
        }
        for (slot, fault) in faults {
            self.faults.entry(slot).or_insert(fault);
        }
    }
}

/// What was read: also what is prepared, for it need not be committed before the end.
fn seen(position: &Position, aside: &[TxnId]) -> Point {
    let mut seen = position.point.clone();
    for txn in aside {
        seen.settle(txn);
    }
    seen
}

fn kind() -> Fault {
    let detail = "the saved position is of another kind than the log's transactions".to_owned();
    Fault { name: "position_kind", detail, at: "the saved position".to_owned() }
}
