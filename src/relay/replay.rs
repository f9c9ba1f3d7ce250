//! Publishing again what a table has published before.
//!
//! Promise: what is repeated goes through the table's own relay, between its other events, in the order in which it was
//! committed; so new events of an aggregate come after the repeated ones. The durable position is not touched, and nothing
//! is repeated that it does not cover. A crash, a pause or a failed delivery ends a replay; all that is wanted up to the place it
//! names is acknowledged, and what comes after that is asked for again.

use std::collections::BTreeSet;
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::Item;
use super::meeting::Distances;
use super::queue::{self, Held, Receiver};
use super::tail::{Ended, Feed, Making, Tail};
use crate::outbox::Mapping;
use crate::position::{Point, Position};
use crate::source::{Batch, LogSource, Row, Subscription};

/// What is to be published again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Names the replay; the value of the header that every repeated record has.
    pub run: Arc<str>,
    /// What comes after this,
    pub from: Position,
    /// up to and with this; without it, all that is published.
    pub to: Option<Position>,
    /// Only these events, if any are named.
    pub ids: BTreeSet<Vec<u8>>,
    /// Only events of these aggregates (by the record's key), if any are named.
    pub aggregates: BTreeSet<Vec<u8>>,
    /// Events a second, at most.
    pub rate: NonZero<u32>,
}

impl Plan {
    /// Whether a row is to be published again.
    pub fn wants(&self, mapping: &Mapping, row: Row<'_>) -> bool {
        let among = |wanted: &BTreeSet<Vec<u8>>, value: Option<&[u8]>| {
            wanted.is_empty() || value.is_some_and(|value| wanted.contains(value))
        };
        among(&self.ids, mapping.id(row)) && among(&self.aggregates, mapping.key(row))
    }
}

/// How far a replay is.
#[derive(Debug)]
pub struct Progress {
    /// Its name.
    pub run: Arc<str>,
    /// Where it begins, and where it ends.
    pub from: Position,
    /// See `from`.
    pub to: Position,
    /// Events handed to Kafka again.
    pub published: AtomicU64,
    at: Mutex<Position>,
    ended: Mutex<Option<Result<(), String>>>,
}

impl Progress {
    fn new(run: Arc<str>, from: Position, to: Position) -> Self {
        let at = Mutex::new(from.clone());
        Self { run, from, to, published: AtomicU64::new(0), at, ended: Mutex::new(None) }
    }

    /// How far all that is wanted is acknowledged.
    pub fn at(&self) -> Position {
        self.at.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All that is wanted up to here is acknowledged.
    pub(super) fn reach(&self, at: Position) {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// Whether it is over, and why before its end if so.
    pub fn ended(&self) -> Option<Result<(), String>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it; the first word counts.
    pub(super) fn end(&self, result: Result<(), String>) {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(result);
    }
}

/// A batch that was published before. Counts as under way until it is acknowledged.
#[derive(Debug)]
pub struct Again {
    pub(super) batch: Batch,
    pub(super) plan: Arc<Plan>,
    pub(super) progress: Arc<Progress>,
    pub(super) _under_way: OwnedSemaphorePermit,
}

/// What may be under way at a time, in units of memory; a larger batch goes alone.
const UNDER_WAY: u32 = 4096;

/// Bytes that a unit stands for.
const UNIT: usize = 1024;

/// Rows waiting, in bytes.
const QUEUE: usize = 1 << 20;

/// A full queue is as it should be where the rate is what is waited for.
const PATIENCE: Duration = Duration::from_hours(24);

/// What a replay reads and where it puts it.
pub(super) struct Replay<N> {
    pub(super) source: N,
    pub(super) subscription: Subscription,
    pub(super) mapping: Mapping,
    pub(super) making: Making,
    pub(super) worker: mpsc::Sender<Again>,
}

/// Ends with what it belongs to: a replay that is dropped was not finished.
struct Unfinished(Arc<Progress>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.0.end(Err(format!("the relay stopped; what comes after {} may be left", self.0.at())));
    }
}

/// How a plan would go for a table that stands at `durable`.
pub(super) fn progress(plan: &Plan, durable: &Position) -> Result<Arc<Progress>, String> {
    let wanted = plan.to.as_ref().map_or(&durable.point, |to| &to.point);
    // What is not published yet is not published again.
    let kinds = || format!("the table's positions are of the kind {}=", durable.point.kind());
    let to: Position = wanted.meet(&durable.point).ok_or_else(kinds)?.into();
    if plan.from.point.partial_cmp(&to.point).is_none_or(std::cmp::Ordering::is_ge) {
        return Err(format!("nothing that is published lies between {} and {to}", plan.from));
    }
    Ok(Arc::new(Progress::new(Arc::clone(&plan.run), plan.from.clone(), to)))
}

impl<S: LogSource, N: Fn() -> S + Send + Sync> Replay<N> {
    /// Reads the log once more and hands it to the relay; ends when all of it is acknowledged.
    pub(super) async fn run(self, plan: Arc<Plan>, progress: Arc<Progress>) {
        let unfinished = Unfinished(Arc::clone(&progress));
        let table = self.subscription.table.clone();
        info!(%table, run = %plan.run, from = %progress.from, to = %progress.to, "replay_begins");
        let result = self.publish(&plan, &progress).await;
        let events = progress.published.load(Relaxed);
        match &result {
            Ok(()) => info!(%table, run = %plan.run, events, "replay_ended"),
            Err(reason) => warn!(%table, run = %plan.run, events, %reason, "replay_broke_off"),
        }
        progress.end(result);
        drop(unfinished);
    }

    async fn publish(&self, plan: &Arc<Plan>, progress: &Arc<Progress>) -> Result<(), String> {
        let mut making = self.making.clone();
        // Each transaction by itself, so that others need not wait long and the rate is even.
        making.limits.batch_bytes = 1;
        making.patience = PATIENCE;
        making.distances = Distances { turn: PATIENCE, ..making.distances };
        let goal: &Point = &progress.to.point;
        let under_way = Arc::new(Semaphore::new(UNDER_WAY as usize));
        let mut pace = Pace { next: Instant::now(), rate: plan.rate };
        let mut from = progress.from.clone();
        loop {
            let (queue, receiver) = queue::bounded(QUEUE);
            let left = oneshot::channel().0;
            let feed = Feed { subscription: self.subscription.clone(), resume: from, queue, left };
            let reading = Tail::catch_up((self.source)(), feed, goal.clone(), making.clone(), Arc::default());
            let handing = self.hand_on(receiver, plan, progress, &under_way, &mut pace);
            let (ended, handed) = tokio::join!(reading, handing);
            handed?;
            from = match ended {
                Ended::Met(_) => break,
                Ended::Over(at) | Ended::Full(at) if *goal <= at.point => break,
                Ended::Over(at) | Ended::Full(at) => at,
                Ended::Told => return Err("the log cannot be read".to_owned()),
            };
        }
        // The semaphore is never closed; whoever drops a batch unacknowledged says so.
        let _ = under_way.acquire_many(UNDER_WAY).await;
        if self.worker.is_closed() {
            return Err("the relay stopped before all was acknowledged".to_owned());
        }
        progress.ended().unwrap_or(Ok(()))?;
        progress.reach(progress.to.clone());
        Ok(())
    }

    async fn hand_on(
        &self,
        mut queue: Receiver,
        plan: &Arc<Plan>,
        progress: &Arc<Progress>,
        under_way: &Arc<Semaphore>,
        pace: &mut Pace,
    ) -> Result<(), String> {
        while let Some(Held { item, .. }) = queue.recv().await {
            let at = item.position().map(|position| (**position).clone());
            match item {
                Item::Batch(batch) => {
                    let wanted = batch.rows().filter(|row| plan.wants(&self.mapping, *row)).count();
                    if wanted > 0 {
                        pace.wait(wanted).await;
                        let units =
                            u32::try_from(batch.memory().div_ceil(UNIT)).unwrap_or(UNDER_WAY).clamp(1, UNDER_WAY);
                        let permit = Arc::clone(under_way).acquire_many_owned(units).await;
                        let permit = permit.map_err(|error| error.to_string())?;
                        let (plan, progress) = (Arc::clone(plan), Arc::clone(progress));
                        let again = Again { batch, plan, progress, _under_way: permit };
                        self.worker.send(again).await.map_err(|_| "the relay stopped".to_owned())?;
                    }
                }
                Item::Displaced(reason) => return Err(reason),
                Item::Fault { fault, .. } => return Err(fault.to_string()),
                Item::Progress(_) | Item::Updates(_) => {}
            }
            // Looked at in this order: a relay that ends lets go of what is under way after it has closed the channel.
            let is_level = under_way.available_permits() == UNDER_WAY as usize && !self.worker.is_closed();
            if let Some(reason) = progress.ended().and_then(Result::err) {
                return Err(reason);
            }
            if let Some(at) = at.filter(|_| is_level) {
                progress.reach(at);
            }
        }
        Ok(())
    }
}

/// So many events a second.
struct Pace {
    next: Instant,
    rate: NonZero<u32>,
}

impl Pace {
    /// Waits until so many more may go.
    async fn wait(&mut self, events: usize) {
        sleep_until(self.next).await;
        let events = u32::try_from(events).unwrap_or(u32::MAX);
        self.next = self.next.max(Instant::now()) + Duration::from_secs(1) * events / self.rate.get();
    }
}
