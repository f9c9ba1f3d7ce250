//! The worker: the single task of one table, where order lives.
//!
//! Promise: it publishes the rows of its queue in order (R1), saves only positions whose records are all acknowledged
//! (R2), begins no batch while `max_unsaved_events` are published beyond the durable position (R4), and ends in a named
//! way: drained, abandoned, halted, or to be started again from its durable position. Whatever the end, what is in flight
//! is waited for within the grace period, so that a relay that starts again does not overtake itself.

mod aside;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::aside::{Aside, Poison, Turn};
pub use self::aside::{Condemned, Release};
use super::Item;
use super::lags::Lags;
use super::queue::Line;
use super::replay::Again;
use super::settings::RelaySettings;
use super::spans::{Sink, Spans};
use super::stats::{State, TableStats, now_micros};
use super::window::Window;
use crate::outbox::{Header, Mapping, REPLAY_HEADER, SNAPSHOT_HEADER};
use crate::outlet::{Chunk, DeliveryError, Outlet, PublishError, Settled};
use crate::planted::{self, Bug};
use crate::position::{Parked, Position, StoreError};
use crate::source::{Batch, Fault, ForeignDml, Row};

/// A named reason why a relay stopped for good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {detail}")]
pub struct Halt {
    /// Stable name for alerts and documents, in `snake_case`.
    pub name: &'static str,
    /// What was found, where, and what cures it.
    pub detail: String,
}

impl From<Fault> for Halt {
    fn from(fault: Fault) -> Self {
        Self { name: fault.name, detail: format!("at {}: {}", fault.at, fault.detail) }
    }
}

/// How a worker ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Everything published is acknowledged and saved.
    Drained,
    /// The grace period was too short, or the store could not be reached: a restart publishes this many events again.
    Abandoned {
        /// Events published and not covered by the durable position.
        unsaved: u64,
    },
    /// It stopped on an error that retrying cannot cure.
    Halted(Halt),
    /// Delivery failed in a way that starting again from the durable position may cure.
    Restart(String),
}

type Saving = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>;

struct Save {
    future: Saving,
    /// What the window gave.
    position: Arc<Position>,
    /// What is saved for it.
    durable: Arc<Position>,
    /// Which aggregates are parked, if that is to be saved too.
    parked: Option<Arc<Parked>>,
    records: u64,
    begun: Instant,
}

/// The relay of one table.
pub struct Worker<O> {
    mapping: Mapping,
    outlet: O,
    queue: Line,
    /// What is published again.
    again: mpsc::Receiver<Again>,
    /// Batches that are, until they are acknowledged.
    repeated: VecDeque<(Chunk, Again)>,
    /// Followed by `pace`.
    settings: watch::Receiver<RelaySettings>,
    pace: RelaySettings,
    stats: Arc<TableStats>,
    window: Window,
    saving: Option<Save>,
    saved: Option<Arc<Position>>,
    saved_records: u64,
    last_save: Instant,
    retry_at: Instant,
    /// The store has refused for good: nothing more is saved.
    refused: bool,
    /// Whether the last save failed, which is the stats' reason then.
    save_fails: bool,
    settled: Vec<Settled>,
    /// When an UPDATE was warned of last.
    warned: Option<Instant>,
    /// When an event in the wrong table was.
    misrouted: Option<Instant>,
    aside: Aside,
    spans: Spans,
    lags: Lags,
}

/// How long giving up the table may take.
const RELEASE_WAIT: Duration = Duration::from_secs(2);

/// How often UPDATEs, or events in the wrong table, are warned of at most.
const WARN_EVERY: Duration = Duration::from_mins(1);

/// How long to wait before a save that failed is tried again.
const SAVE_RETRY: Duration = Duration::from_millis(250);

/// Why the loop ends.
enum End {
    Stop,
    Halt(Halt),
    Restart(String),
}

impl<O: Outlet> Worker<O> {
    /// A worker for one table. It follows the settings while it runs.
    pub fn new(
        mapping: Mapping,
        outlet: O,
        queue: Line,
        settings: watch::Receiver<RelaySettings>,
        stats: Arc<TableStats>,
    ) -> Self {
        let pace = settings.borrow().clone();
        Self {
            mapping,
            outlet,
            queue,
            again: mpsc::channel(1).1,
            repeated: VecDeque::new(),
            settings,
            pace,
            stats,
            window: Window::default(),
            saving: None,
            saved: None,
            saved_records: 0,
            last_save: Instant::now(),
            retry_at: Instant::now(),
            refused: false,
            save_fails: false,
            settled: Vec::new(),
            warned: None,
            misrouted: None,
            aside: Aside::default(),
            spans: Spans::default(),
            lags: Lags::default(),
        }
    }

    /// From this durable position on, with these aggregates parked, and with what is known of events from before.
    #[must_use]
    pub fn resuming(mut self, position: Arc<Position>, parked: Parked, condemned: Condemned) -> Self {
        self.window = self.window.resuming(Arc::clone(&position));
        self.saved = Some(position);
        self.aside = Aside::new(parked, condemned);
        self.stats.set_parked(Arc::clone(&self.aside.saved));
        self
    }

    /// Also publishes what comes here, between its other events, and puts aggregates back.
    #[must_use]
    pub fn repeating(mut self, again: mpsc::Receiver<Again>, releases: mpsc::Receiver<Release>) -> Self {
        self.again = again;
        self.aside.releases = releases;
        self
    }

    /// Hands on the spans of traced events.
    #[must_use]
    pub fn traced(mut self, sink: Option<Sink>) -> Self {
        self.spans = Spans::to(sink);
        self
    }

    /// Relays until `stop`, then drains; or until it halts. The table is given up when it halts, and with the process.
    pub async fn run(mut self, stop: CancellationToken, process: CancellationToken) -> Outcome {
        self.stats.set_state(State::Running, None);
        let end = self.relay(&stop).await;
        self.window.abandon();
        let drained = self.drain().await;
        self.end_release();
        if O::ATOMIC && self.window.unsaved() > 0 {
            self.stats.aborts.fetch_add(1, Relaxed);
        }
        let end = match (end, drained) {
            // What has to be cured says more than what followed from it.
            (End::Stop, Some(later)) | (End::Restart(_), Some(later @ End::Halt(_))) => later,
            (end, _) => end,
        };
        let outcome = match end {
            End::Halt(halt) => Outcome::Halted(halt),
            End::Restart(reason) => Outcome::Restart(reason),
            End::Stop if self.window.unsaved() == 0 => Outcome::Drained,
            End::Stop => Outcome::Abandoned { unsaved: self.window.unsaved() },
        };
        match &outcome {
            Outcome::Halted(halt) => self.stats.set_state(State::Halted, Some(halt.to_string())),
            Outcome::Restart(reason) => self.stats.set_state(State::Starting, Some(reason.clone())),
            Outcome::Drained | Outcome::Abandoned { .. } => self.stats.set_state(State::Stopped, None),
        }
        // A relay that starts again or is paused stays the owner meanwhile. A server that does not answer must not hold up
        // the end; the lock goes with the connection anyway.
        if !matches!(outcome, Outcome::Halted(_)) && !process.is_cancelled() {
            return outcome;
        }
        match timeout(RELEASE_WAIT, self.outlet.release()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(table = %self.stats.table, %error, "release_failed"),
            Err(_) => debug!(table = %self.stats.table, "release_unanswered"),
        }
        outcome
    }

    /// The loop. A stop is heard between items, so that a batch is published whole.
    async fn relay(&mut self, stop: &CancellationToken) -> End {
        loop {
            self.observe();
            self.begin_save(false);
            self.pursue_release();
            // What is published beside an atomic save would be in neither transaction.
            let room = self.window.unsaved() < self.pace.max_unsaved_events
                && !(O::ATOMIC && self.saving.is_some())
                && !self.aside.rests();
            let due = self.save_due().filter(|_| self.saving.is_none());
            let done = tokio::select! {
                biased;
                () = stop.cancelled() => return End::Stop,
                result = finish(&mut self.saving) => self.end_save(result),
                () = self.outlet.settled(&mut self.settled), if !self.window.is_settled() => self.settle(),
                Some(again) = self.again.recv(), if room && self.window.leads_somewhere() => self.repeat(again, stop).await,
                turn = self.aside.next() => match turn {
                    Turn::Asked(release) => {
                        self.aside.begin(release);
                        Ok(())
                    }
                    Turn::Read(read) => self.put_back(read, stop).await,
                },
                held = self.queue.recv_if(room) => match held {
                    Some(held) => self.item(&held.item, stop).await,
                    // The tail has ended; it says itself why. What is in flight goes on.
                    None => self.wait_after_the_tail(stop).await,
                },
                () = sleep_until(due.unwrap_or(self.last_save)), if due.is_some() => Ok(()),
                Ok(()) = self.settings.changed() => {
                    self.pace = self.settings.borrow_and_update().clone();
                    Ok(())
                }
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    /// Without a tail there is nothing to publish; acknowledgements are the drain's work.
    async fn wait_after_the_tail(&mut self, stop: &CancellationToken) -> Result<(), End> {
        if let Some(end) = self.drain().await {
            return Err(end);
        }
        stop.cancelled().await;
        Err(End::Stop)
    }

    async fn item(&mut self, item: &Item, stop: &CancellationToken) -> Result<(), End> {
        match item {
            Item::Batch(batch) => self.publish(batch, stop).await,
            Item::Progress(position) => {
                self.window.progress(Arc::clone(position));
                Ok(())
            }
            Item::Foreign(ForeignDml::Update) => {
                let seen = self.stats.updates.fetch_add(1, Relaxed) + 1;
                // The first is said at once, a flood does not fill the log.
                if self.warned.is_none_or(|warned| warned.elapsed() >= WARN_EVERY) {
                    self.warned = Some(Instant::now());
                    warn!(table = %self.stats.table, seen, "update_ignored");
                }
                Ok(())
            }
            Item::Foreign(ForeignDml::Delete | ForeignDml::Truncate) => Ok(()),
            Item::Displaced(reason) => Err(self.again_for("log", reason.clone())),
            Item::Fault(fault) => Err(End::Halt(fault.clone().into())),
        }
    }

    async fn publish(&mut self, batch: &Batch, stop: &CancellationToken) -> Result<(), End> {
        let oldest = batch.rows().next().map_or(0, |row| row.commit_micros());
        let chunk = self.window.open(Arc::clone(batch.position()), oldest);
        let mut patience = None;
        let mut bytes = 0;
        let mut late = Vec::new();
        // Positions with a scan are those of rows that are read in the table.
        let mark =
            batch.position().scan.as_ref().map(|_| Header { name: SNAPSHOT_HEADER, value: Some(b"1".as_slice()) });
        // When those were committed is not known.
        if mark.is_none() {
            self.lags.begin(chunk, batch, now_micros());
        }
        for row in batch.rows() {
            if self.mapping.is_misrouted(row) {
                self.misrouted(row);
            }
            let foregone = match self.foregone(row) {
                None => match self.row(row, mark, chunk, stop, &mut patience).await {
                    Err(End::Restart(_)) if planted::is(Bug::RetryReorders) => {
                        late.push(row);
                        continue;
                    }
                    published => published?.map_err(|poison| (poison, false)),
                },
                Some(foregone) => Err(foregone),
            };
            bytes += match foregone {
                Ok(size) => size,
                Err(why) => self.set_aside(row, why, batch.position(), (chunk, stop, &mut patience)).await?,
            };
        }
        for row in late {
            let _ = self.row(row, mark, chunk, stop, &mut patience).await?;
        }
        self.note_parked();
        self.window.close();
        self.stats.bytes.fetch_add(bytes, Relaxed);
        Ok(())
    }

    /// Publishes what is wanted of a batch once more. A row that is no record today ends the replay, not the relay.
    async fn repeat(&mut self, again: Again, stop: &CancellationToken) -> Result<(), End> {
        let Some(chunk) = self.window.open_again(now_micros()) else { return Ok(()) };
        let (plan, progress) = (Arc::clone(&again.plan), Arc::clone(&again.progress));
        let mut patience = None;
        let mut bytes = 0;
        for row in again.batch.rows() {
            // What is parked was not published before.
            if !plan.wants(&self.mapping, row) || self.is_parked(row) {
                continue;
            }
            let mark = Header { name: REPLAY_HEADER, value: Some(plan.run.as_bytes()) };
            match self.row(row, Some(mark), chunk, stop, &mut patience).await? {
                Ok(size) => bytes += size,
                Err(Poison { name, detail }) => {
                    progress.end(Err(format!("{name}: after {}: {detail}", progress.at())));
                    break;
                }
            }
            progress.published.fetch_add(1, Relaxed);
        }
        self.repeated.push_back((chunk, again));
        self.window.close();
        self.stats.bytes.fetch_add(bytes, Relaxed);
        self.forget_repeated();
        Ok(())
    }

    /// Lets go of repeated batches that are acknowledged.
    fn forget_repeated(&mut self) {
        while self.repeated.front().is_some_and(|(chunk, _)| *chunk < self.window.first()) {
            self.repeated.pop_front();
        }
    }

    /// Publishes a row, waiting for room, and gives its size in bytes; or why it is no record.
    async fn row(
        &mut self,
        row: Row<'_>,
        mark: Option<Header<'_>>,
        chunk: Chunk,
        stop: &CancellationToken,
        patience: &mut Option<Instant>,
    ) -> Result<Result<u64, Poison>, End> {
        loop {
            let (outlet, mapping, spans) = (&mut self.outlet, &self.mapping, &self.spans);
            let place = (&self.stats.table, || self.window.latest().cloned());
            let published = mapping.with_record(row, mark, |record| {
                let size = (record.key.len() + record.value.map_or(0, <[u8]>::len)) as u64;
                let event = || mapping.id(row).unwrap_or_default();
                let span = spans.of(record, place, event, row.commit_micros());
                (outlet.publish(record, chunk), size, span)
            });
            match published {
                Ok((Ok(()), size, span)) => {
                    self.window.publish();
                    if let Some(span) = span {
                        self.spans.begin(chunk, span);
                    }
                    return Ok(Ok(size));
                }
                Ok((Err(PublishError::Full), ..)) => self.wait_for_room(stop, patience).await?,
                Ok((Err(PublishError::Refused(DeliveryError::Poison { refusal, event: None })), ..)) => {
                    return Ok(Err((&refusal).into()));
                }
                Ok((Err(PublishError::Refused(error)), ..)) => return Err(self.undelivered(&error)),
                Err(error) => return Ok(Err(Poison { name: "unmappable_event", detail: error.to_string() })),
            }
        }
    }

    /// It is in the wrong table by the writers' own rule: order with the aggregate's other events is not certain.
    fn misrouted(&mut self, row: Row<'_>) {
        let seen = self.stats.misrouted.fetch_add(1, Relaxed) + 1;
        if self.misrouted.is_none_or(|warned| warned.elapsed() >= WARN_EVERY) {
            self.misrouted = Some(Instant::now());
            let event = String::from_utf8_lossy(self.mapping.id(row).unwrap_or_default());
            warn!(table = %self.stats.table, event = %event.escape_debug(), seen, "event_in_wrong_shard");
        }
    }

    /// Waits until publishing again makes sense; saving goes on. After a stop that is only so long.
    async fn wait_for_room(&mut self, stop: &CancellationToken, patience: &mut Option<Instant>) -> Result<(), End> {
        self.observe();
        self.begin_save(false);
        if patience.is_some_and(|patience| Instant::now() >= patience) {
            return Err(End::Stop);
        }
        let now = Instant::now();
        let room = self.outlet.room();
        tokio::select! {
            biased;
            () = stop.cancelled(), if patience.is_none() => {
                *patience = Some(now + self.pace.shutdown_grace / 2);
                Ok(())
            }
            result = finish(&mut self.saving) => self.end_save(result),
            () = self.outlet.settled(&mut self.settled), if !self.window.is_settled() => self.settle(),
            () = room => Ok(()),
            () = sleep_until(patience.unwrap_or(now)), if patience.is_some() => Err(End::Stop),
        }
    }

    fn settle(&mut self) -> Result<(), End> {
        let mut failed = None;
        for Settled { chunk, records, outcome } in self.settled.drain(..) {
            match outcome {
                Ok(()) => {
                    self.window.acknowledge(chunk, records);
                    self.stats.events.fetch_add(records, Relaxed);
                }
                Err(error) => {
                    self.window.fail(chunk, records);
                    // The first failure says why; what fails after it fails because of it.
                    failed = failed.or(Some(error));
                }
            }
        }
        self.forget_repeated();
        self.spans.end(self.window.first());
        if self.window.is_torn() {
            self.lags.forget();
        } else {
            self.lags.end(self.window.first(), now_micros, &self.stats.delivery);
        }
        failed.map_or(Ok(()), |error| Err(self.undelivered(&error)))
    }

    /// Whether there is a position to save that the durable one does not cover.
    fn wants_save(&self) -> bool {
        let coverable = self.coverable().filter(|_| !self.refused);
        // What was published again leads no further, and is to be covered all the same.
        coverable.is_some_and(|(position, records)| {
            records > self.saved_records || self.saved.as_ref().is_none_or(|saved| !Arc::ptr_eq(position, saved))
        })
    }

    /// What a save can cover now, and how many records that are since the start.
    fn coverable(&self) -> Option<(&Arc<Position>, u64)> {
        if O::ATOMIC || planted::is(Bug::SavedBeforeAck) {
            return self.window.published();
        }
        self.window.acknowledged().map(|position| (position, self.window.acknowledged_records()))
    }

    /// When the position should be saved next; `None` when the durable one is as good.
    fn save_due(&self) -> Option<Instant> {
        let (_, records) = self.coverable().filter(|_| self.wants_save())?;
        let due = if records == self.saved_records {
            self.last_save + self.pace.idle_checkpoint_interval
        } else if self.window.unsaved() >= self.pace.max_unsaved_events / 2
            || O::ATOMIC && self.queue.bytes() == 0
            || self.aside.is_releasing()
        {
            // Consumers wait for an atomic save; it waits only for what it can take along.
            self.last_save
        } else {
            self.last_save + self.pace.checkpoint_interval
        };
        Some(due.max(self.retry_at))
    }

    fn begin_save(&mut self, now: bool) {
        let due = self.save_due().is_some_and(|due| Instant::now() >= if now { self.retry_at } else { due });
        let Some((position, records)) = self.coverable().filter(|_| due && self.saving.is_none()) else { return };
        let position = Arc::clone(position);
        let durable =
            self.stats.position().map_or_else(|| Arc::clone(&position), |from| Arc::new(from.on_to(&position)));
        let parked = if O::ATOMIC { self.window.published_parked() } else { self.window.acknowledged_parked() };
        let parked = parked.filter(|parked| !Arc::ptr_eq(parked, &self.aside.saved)).map(Arc::clone);
        let future = Box::pin(self.outlet.keep(&durable, parked.as_deref()));
        self.saving = Some(Save { future, position, durable, parked, records, begun: Instant::now() });
    }

    fn end_save(&mut self, result: Result<(), StoreError>) -> Result<(), End> {
        let Some(save) = self.saving.take() else { return Ok(()) };
        if O::ATOMIC && self.outlet.settled(&mut self.settled).now_or_never().is_some() {
            self.settle()?;
        }
        match result {
            Ok(()) => {
                self.last_save = Instant::now();
                self.count_save(save.begun);
                self.window.saved(save.records);
                self.saved_records = save.records;
                self.stats.saved_micros.store(now_micros(), Relaxed);
                self.stats.set_position(save.durable);
                if let Some(parked) = save.parked {
                    self.stats.set_parked(Arc::clone(&parked));
                    self.aside.saved = parked;
                }
                self.saved = Some(save.position);
                if std::mem::take(&mut self.save_fails) {
                    self.stats.set_reason(None);
                }
                Ok(())
            }
            Err(StoreError::Unavailable(reason)) => {
                if self.stats.save_retries.fetch_add(1, Relaxed).is_power_of_two() {
                    warn!(table = %self.stats.table, %reason, "save_failed_will_retry");
                }
                self.save_fails = true;
                self.stats.set_reason(Some(format!("waits for the position store: {reason}")));
                self.retry_at = Instant::now() + SAVE_RETRY;
                Ok(())
            }
            Err(StoreError::Broken(reason)) => {
                self.refused = true;
                Err(self.again_for("store", reason))
            }
            Err(error) => {
                self.refused = true;
                Err(End::Halt(Halt { name: store_halt(&error), detail: error.to_string() }))
            }
        }
    }

    fn count_save(&self, begun: Instant) {
        let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.stats.checkpoints.observe(micros, 1);
        if O::ATOMIC {
            self.stats.transactions.fetch_add(1, Relaxed);
        }
    }

    /// Waits for acknowledgements and saves, within the grace period; gives what went wrong first.
    async fn drain(&mut self) -> Option<End> {
        self.stats.set_state(State::Draining, None);
        let deadline = Instant::now() + self.pace.shutdown_grace;
        let mut first = None;
        while Instant::now() < deadline {
            self.observe();
            self.begin_save(true);
            // An atomic outlet will not settle what no save can cover any more.
            let settled = self.window.is_settled() || O::ATOMIC && self.window.is_torn();
            if settled && self.saving.is_none() && !self.wants_save() {
                break;
            }
            let retry = self.saving.is_none() && self.wants_save();
            let done = tokio::select! {
                biased;
                result = finish(&mut self.saving) => self.end_save(result),
                () = self.outlet.settled(&mut self.settled), if !self.window.is_settled() => self.settle(),
                () = sleep_until(self.retry_at), if retry => Ok(()),
                () = sleep_until(deadline) => Ok(()),
            };
            first = match (first, done.err()) {
                (None | Some(End::Restart(_)), Some(halt @ End::Halt(_))) => Some(halt),
                (first, later) => first.or(later),
            };
        }
        self.observe();
        first
    }

    /// Starting again may cure it.
    fn again_for(&self, class: &'static str, reason: String) -> End {
        self.stats.retry(class);
        End::Restart(reason)
    }

    fn observe(&self) {
        self.stats.in_flight.store(self.window.in_flight(), Relaxed);
        self.stats.in_flight_bytes.store(self.outlet.in_flight_bytes(), Relaxed);
        self.stats.queue_bytes.store(self.queue.bytes() as u64, Relaxed);
        // What waits in the queue came after what is in flight.
        let oldest = self.window.oldest_commit_micros().or_else(|| self.queue.ahead_micros());
        self.stats.oldest_micros.store(oldest.unwrap_or(0), Relaxed);
    }
}

async fn finish(saving: &mut Option<Save>) -> Result<(), StoreError> {
    match saving {
        Some(save) => save.future.as_mut().await,
        None => std::future::pending().await,
    }
}

fn store_halt(error: &StoreError) -> &'static str {
    match error {
        StoreError::Unavailable(_) | StoreError::Broken(_) => "store_unavailable",
        StoreError::Owned { .. } => "owned_elsewhere",
        StoreError::Fenced { .. } => "fenced",
        StoreError::Backwards { .. } => "position_backwards",
        StoreError::Unreadable { .. } => "position_unreadable",
        StoreError::Refused(_) => "store_refused",
    }
}

#[cfg(test)]
mod tests;
