//! The worker: the single task of one table, where order lives.
//!
//! Promise: it publishes the rows of its queue in order (R1), saves only positions whose records are all acknowledged
//! (R2), begins no batch while `max_unsaved_events` are published beyond the durable position (R4), and ends in a named
//! way: drained, abandoned, halted, or to be started again from its durable position. Whatever the end, what is in flight
//! is waited for within the grace period, so that a relay that starts again does not overtake itself.

mod aside;
mod past;
mod publishing;
mod saving;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::aside::{Aside, Turn};
pub use self::aside::{Condemned, Release};
use self::saving::{Save, finish};
use super::Item;
use super::lags::Lags;
use super::queue::Line;
use super::replay::Again;
use super::settings::RelaySettings;
use super::spans::{Sink, Spans};
use super::stats::{State, TableStats, now_micros};
use super::window::Window;
use crate::outbox::Mapping;
use crate::outlet::{Chunk, Failing, Outlet, Settled};
use crate::position::{Parked, Position};
use crate::source::Fault;

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

/// The relay of one table.
pub struct Worker<O> {
    mapping: Mapping,
    outlet: O,
    queue: Line,
    /// What is published again. Dropped before `repeated`: who waits for those finds the channel closed then.
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
    /// What comes next waits for acknowledgements.
    gathers: bool,
}

/// How long giving up the table may take.
const RELEASE_WAIT: Duration = Duration::from_secs(2);

/// How often UPDATEs, or events in the wrong table, are warned of at most.
const WARN_EVERY: Duration = Duration::from_mins(1);

/// Why the loop ends.
enum End {
    Stop,
    Halt(Halt),
    /// What the log has, and the place right behind its transaction, where that is known.
    Fault(Fault, Option<Arc<Position>>),
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
            gathers: false,
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
            End::Fault(fault, behind) => {
                let (stands, is_saved) = (self.stats.position(), self.window.unsaved() == 0);
                let halt = past::halt(fault, &self.stats.table, stands.as_deref(), behind.as_deref(), is_saved);
                Outcome::Halted(halt)
            }
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
            // A release and a replay would end with it.
            let is_spent = self.outlet.is_spent() && !self.aside.is_releasing() && !self.is_repeating();
            // What is on its way is waited for and saved, for however long that takes, so nothing comes twice.
            let is_level = self.window.is_settled() && self.window.unsaved() == 0 && self.saving.is_none();
            if is_spent && is_level && !stop.is_cancelled() {
                let reason = "no record is refused any more; they are sent in batches again".to_owned();
                return self.again_for(Failing::Event.name(), reason);
            }
            // What is published beside an atomic save would be in neither transaction.
            let takes = !is_spent && !self.aside.rests();
            let gathers = self.gathers();
            let lull = self.outlet.room();
            let room =
                takes && self.window.unsaved() < self.pace.max_unsaved_events && !(O::ATOMIC && self.saving.is_some());
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
                // Else `settled` tells of acknowledgements.
                () = lull, if gathers && O::ATOMIC => Ok(()),
                held = self.queue.recv_if(room && !gathers) => match held {
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

    /// Whether a replay is under way: there is one more sender then.
    fn is_repeating(&self) -> bool {
        self.again.sender_strong_count() > 1
    }

    /// Whether what comes next is gathered in the queue until the outlet is less busy: handed over now it would wait there all
    /// the same, and leave in more and smaller batches. Nothing is gathered while the queue has more, which fills batches by
    /// itself, nor in a replay, which would keep the outlet busy and the queue waiting.
    fn gathers(&mut self) -> bool {
        if self.is_repeating() || !self.outlet.is_busy() {
            self.gathers = false;
        } else if self.queue.is_empty() {
            self.gathers = true;
        }
        self.gathers
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
            Item::Updates(count) => {
                let seen = self.stats.updates.fetch_add(*count, Relaxed) + count;
                // The first is said at once, a flood does not fill the log.
                if self.warned.is_none_or(|warned| warned.elapsed() >= WARN_EVERY) {
                    self.warned = Some(Instant::now());
                    warn!(table = %self.stats.table, seen, "update_ignored");
                }
                Ok(())
            }
            Item::Displaced(reason) => Err(self.again_for("log", reason.clone())),
            Item::Fault { fault, behind } => Err(End::Fault(fault.clone(), behind.clone())),
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
        // What waits in the queue came after what is in flight.
        let oldest = self.window.oldest_commit_micros().or_else(|| self.queue.ahead_micros());
        self.stats.oldest_micros.store(oldest.unwrap_or(0), Relaxed);
    }
}

#[cfg(test)]
mod tests;
