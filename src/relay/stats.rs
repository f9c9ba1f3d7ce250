//! What a relay and the tail tell of themselves: plain values, read by whoever exports them.
//!
//! Counters live here and not with whoever exports them, so that nothing begins anew when the tables become others.

pub mod histogram;
mod tail;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use self::tail::TailStats;

use self::histogram::Histogram;
use super::queue::Gauge;
use super::replay::Progress;
use crate::position::{Margin, Parked, Position};
use crate::table::TableName;

/// State of one relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Not yet claimed, or waiting for a server.
    Starting = 0,
    /// Publishing, or ready to.
    Running = 1,
    /// Stopping: waiting for acknowledgements.
    Draining = 2,
    /// Ended after a drain.
    Stopped = 3,
    /// Stopped on an error that retrying cannot cure.
    Halted = 4,
    /// Running, but its queue stayed full and the tail let go of it; or it waits for its turn to catch up.
    Detached = 5,
    /// Running, and reading the log on its own until it meets the tail.
    CatchingUp = 6,
    /// Somebody wants the table not to be relayed for now.
    Paused = 7,
    /// Running, and reading the table itself, whose rows come before the log.
    Snapshot = 8,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 9] = [
        Self::Starting,
        Self::Running,
        Self::Draining,
        Self::Stopped,
        Self::Halted,
        Self::Detached,
        Self::CatchingUp,
        Self::Paused,
        Self::Snapshot,
    ];

    /// Whether the relay publishes what the log has, now or as soon as it can; a restart would cure nothing.
    pub fn is_running(self) -> bool {
        matches!(self, Self::Running | Self::Detached | Self::CatchingUp | Self::Snapshot)
    }

    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
            Self::Halted => "halted",
            Self::Detached => "detached",
            Self::CatchingUp => "catching_up",
            Self::Paused => "paused",
            Self::Snapshot => "snapshot",
        }
    }
}

/// What a relay starts again for: the cluster or the way to it, the client within this process, an event that is refused and
/// is looked for, the position store, the table's place in the log.
pub const RETRIES: [&str; 5] = ["cluster", "client", "event", "store", "log"];

/// Bounds of the cells of times from commit to acknowledgement, in microseconds.
const DELIVERY_MICROS: &[u64] = &[
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    1_800_000_000,
    7_200_000_000,
];

/// Bounds of the cells of how long saves take, in microseconds.
const CHECKPOINT_MICROS: &[u64] = &[
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 10_000_000,
    60_000_000,
];

/// Counters and gauges of one table. Everything is cumulative since the process started unless it says otherwise.
#[derive(Debug)]
pub struct TableStats {
    /// The table.
    pub table: TableName,
    /// When counting began, microseconds since the Unix epoch.
    pub started_micros: u64,
    /// Events acknowledged.
    pub events: AtomicU64,
    /// Bytes of keys and values published.
    pub bytes: AtomicU64,
    /// Now: events published and not acknowledged.
    pub in_flight: AtomicU64,
    /// Now: bytes of these, with what the client adds; 0 where the outlet does not count them.
    pub in_flight_bytes: AtomicU64,
    /// From commit to acknowledgement, of each event that the log brought.
    pub delivery: Histogram,
    /// How long saves of the position took that succeeded.
    pub checkpoints: Histogram,
    /// Kafka transactions that were committed.
    pub transactions: AtomicU64,
    /// Kafka transactions that were given up with what was published in them.
    pub aborts: AtomicU64,
    /// Now: how full the queue between the reader and the relay is.
    pub queue: Gauge,
    /// Now: commit time of the oldest event not acknowledged, microseconds since the Unix epoch; 0 when none waits.
    pub oldest_micros: AtomicU64,
    /// When the position was saved last, microseconds since the Unix epoch; 0 before the first save.
    pub saved_micros: AtomicU64,
    /// When the position was known first, microseconds since the Unix epoch; 0 before.
    known_micros: AtomicU64,
    /// UPDATE statements seen in the log.
    pub updates: AtomicU64,
    /// Events that the writers' rule has in another table.
    pub misrouted: AtomicU64,
    /// Events that were parked.
    pub parked_total: AtomicU64,
    /// Events that were set aside alone.
    pub dead_letters: AtomicU64,
    /// Failed saves that are retried.
    pub save_retries: AtomicU64,
    /// Transactions that the table's position covered and that the server lost in a failover.
    pub lost_transactions: AtomicU64,
    /// How often the tail let go of the table because its queue was full.
    pub detaches: AtomicU64,
    /// Now: since when the tail does not feed the table, microseconds since the Unix epoch; 0 while it does.
    pub detached_micros: AtomicU64,
    /// What the reader of this table alone tells of itself, which it has while the tail does not feed it.
    pub reader: Arc<TailStats>,
    /// Rows read of the table itself, by the processes before this one too.
    pub snapshot_rows: AtomicU64,
    /// How often the table was read again because the log had lost what came next.
    pub recoveries: AtomicU64,
    /// Rows deleted because they were acknowledged and old.
    pub cleaned: AtomicU64,
    /// Now: rows that the table has, roughly, while it is read itself; 0 otherwise.
    pub snapshot_total: AtomicU64,
    state: AtomicU8,
    apart: Mutex<Option<(State, String)>>,
    position: Mutex<Option<Arc<Position>>>,
    replay: Mutex<Option<Arc<Progress>>>,
    reason: Mutex<Option<String>>,
    parked: Mutex<Arc<Parked>>,
    retries: Mutex<[u64; RETRIES.len()]>,
    halts: Mutex<BTreeMap<&'static str, u64>>,
    margin: Mutex<Option<Margin>>,
    kept: Mutex<Option<Kept>>,
}

/// How large a table is, by its server's estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Rows.
    pub rows: u64,
    /// Bytes of data and indexes.
    pub bytes: u64,
}

impl TableStats {
    /// All zero.
    pub fn new(table: TableName) -> Self {
        Self {
            table,
            started_micros: now_micros(),
            events: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            in_flight_bytes: AtomicU64::new(0),
            delivery: Histogram::new(DELIVERY_MICROS),
            checkpoints: Histogram::new(CHECKPOINT_MICROS),
            transactions: AtomicU64::new(0),
            aborts: AtomicU64::new(0),
            queue: Gauge::default(),
            oldest_micros: AtomicU64::new(0),
            saved_micros: AtomicU64::new(0),
            known_micros: AtomicU64::new(0),
            updates: AtomicU64::new(0),
            misrouted: AtomicU64::new(0),
            parked_total: AtomicU64::new(0),
            dead_letters: AtomicU64::new(0),
            save_retries: AtomicU64::new(0),
            lost_transactions: AtomicU64::new(0),
            detaches: AtomicU64::new(0),
            detached_micros: AtomicU64::new(0),
            reader: Arc::default(),
            snapshot_rows: AtomicU64::new(0),
            recoveries: AtomicU64::new(0),
            cleaned: AtomicU64::new(0),
            snapshot_total: AtomicU64::new(0),
            state: AtomicU8::new(State::Starting as u8),
            apart: Mutex::new(None),
            position: Mutex::new(None),
            replay: Mutex::new(None),
            reason: Mutex::new(None),
            parked: Mutex::default(),
            retries: Mutex::default(),
            halts: Mutex::default(),
            margin: Mutex::new(None),
            kept: Mutex::new(None),
        }
    }

    /// The relay's state.
    pub fn state(&self) -> State {
        match self.state.load(Relaxed) {
            1 => lock(&self.apart).as_ref().map_or(State::Running, |(state, _)| *state),
            2 => State::Draining,
            3 => State::Stopped,
            4 => State::Halted,
            7 => State::Paused,
            _ => State::Starting,
        }
    }

    /// The tail feeds the table.
    pub fn set_attached(&self) {
        *lock(&self.apart) = None;
        self.detached_micros.store(0, Relaxed);
        self.reader.held_bytes.store(0, Relaxed);
    }

    /// The tail does not feed the table: what it does or waits for meanwhile, [`State::Detached`], [`State::CatchingUp`]
    /// or [`State::Snapshot`], and why.
    pub fn set_apart(&self, state: State, reason: String) {
        // A table that is read itself has not been attached yet.
        if state != State::Snapshot {
            let _ = self.detached_micros.compare_exchange(0, now_micros(), Relaxed, Relaxed);
        }
        *lock(&self.apart) = Some((state, reason));
    }

    /// Changes the state; the reason is for people.
    pub fn set_state(&self, state: State, reason: Option<String>) {
        self.set_reason(reason);
        self.state.store(state as u8, Relaxed);
    }

    /// Says what the relay waits for, or that it no longer does; the state stays.
    pub fn set_reason(&self, reason: Option<String>) {
        *lock(&self.reason) = reason;
    }

    /// Nobody relays the table now: nothing of it is in flight. What was is as late as it was.
    pub(super) fn rests(&self) {
        for gauge in [&self.in_flight, &self.in_flight_bytes] {
            gauge.store(0, Relaxed);
        }
    }

    /// Why the relay is in its state, if there is anything to say.
    pub fn reason(&self) -> Option<String> {
        let apart = || lock(&self.apart).as_ref().map(|(_, reason)| reason.clone());
        let reason = lock(&self.reason).clone();
        reason.or_else(|| apart().filter(|_| self.state().is_running()))
    }

    /// For how long the tail has not fed the table, in seconds; 0 while it does.
    pub fn detached_seconds(&self, now_micros: u64) -> f64 {
        seconds_since(self.detached_micros.load(Relaxed), now_micros)
    }

    /// The durable position.
    pub fn position(&self) -> Option<Arc<Position>> {
        lock(&self.position).clone()
    }

    /// Notes that there is no durable position any more.
    pub fn forget_position(&self) {
        *lock(&self.position) = None;
    }

    /// Notes the durable position.
    pub fn set_position(&self, position: Arc<Position>) {
        let _ = self.known_micros.compare_exchange(0, now_micros(), Relaxed, Relaxed);
        *lock(&self.position) = Some(position);
    }

    /// How far the durable position is from being purged; `None` before somebody has looked.
    pub fn margin(&self) -> Option<Margin> {
        *lock(&self.margin)
    }

    /// Notes how far the durable position is from being purged.
    pub fn set_margin(&self, margin: Margin) {
        *lock(&self.margin) = Some(margin);
    }

    /// How large the table is; `None` before it was cleaned once.
    pub fn kept(&self) -> Option<Kept> {
        *lock(&self.kept)
    }

    /// Notes how large the table is after it was cleaned.
    pub fn set_kept(&self, kept: Kept) {
        *lock(&self.kept) = Some(kept);
    }

    /// Which aggregates are parked, as far as that is durable.
    pub fn parked(&self) -> Arc<Parked> {
        Arc::clone(&lock(&self.parked))
    }

    /// Notes which aggregates are parked.
    pub fn set_parked(&self, parked: Arc<Parked>) {
        *lock(&self.parked) = parked;
    }

    /// How often the relay has started again, by what it was for: the names are [`RETRIES`].
    pub fn retries(&self) -> [u64; RETRIES.len()] {
        *lock(&self.retries)
    }

    /// Counts a fresh start.
    pub(super) fn retry(&self, class: &str) {
        if let Some(place) = RETRIES.iter().position(|name| *name == class) {
            lock(&self.retries)[place] += 1;
        }
    }

    /// How often the relay has halted, by the halt's name.
    pub fn halts(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.halts).clone()
    }

    /// Counts a halt.
    pub(super) fn halt(&self, name: &'static str) {
        *lock(&self.halts).entry(name).or_default() += 1;
    }

    /// The latest replay, if there was one.
    pub fn replay(&self) -> Option<Arc<Progress>> {
        lock(&self.replay).clone()
    }

    /// A replay begins.
    pub(super) fn set_replay(&self, progress: Arc<Progress>) {
        *lock(&self.replay) = Some(progress);
    }

    /// Since the position was saved, in seconds; before the first save since it was read from the store, and 0 before that.
    pub fn position_age_seconds(&self, now_micros: u64) -> f64 {
        let (saved, known) = (self.saved_micros.load(Relaxed), self.known_micros.load(Relaxed));
        seconds_since(saved.max(known), now_micros)
    }

    /// Now minus the commit time of the oldest event not acknowledged, in seconds; 0 when nothing waits. A table that the
    /// tail does not feed may be behind with nothing that waits: then how late its own reader is, or for how long nobody has
    /// read for it. A paused table is as late as somebody wants it to be: 0.
    pub fn lag_seconds(&self, now_micros: u64) -> f64 {
        let oldest = self.oldest_micros.load(Relaxed);
        match self.state() {
            State::Paused => 0.0,
            _ if oldest > 0 => seconds_since(oldest, now_micros),
            State::CatchingUp => self.reader.late_seconds(),
            State::Detached => self.detached_seconds(now_micros).max(self.reader.late_seconds()),
            _ => 0.0,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long ago that was; 0 stands for never, and gives 0.
#[allow(clippy::cast_precision_loss, reason = "285 years are exact enough")]
pub fn seconds_since(micros: u64, now_micros: u64) -> f64 {
    if micros == 0 { 0.0 } else { now_micros.saturating_sub(micros) as f64 / 1e6 }
}

/// Microseconds since the Unix epoch.
pub fn now_micros() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_a_table_that_is_read_apart_when_nothing_is_in_flight_then_its_lag_is_how_late_it_is_read() {
        let stats = TableStats::new(TableName::new("d", "outbox1"));
        let now = now_micros();
        let lag = || format!("{:.0}", stats.lag_seconds(now));
        stats.set_state(State::Running, None);
        stats.reader.set_late(now - 90_000_000);
        assert_eq!(lag(), "0", "the tail feeds it");
        stats.set_apart(State::CatchingUp, String::new());
        assert_eq!(lag(), "90");
        stats.set_apart(State::Detached, String::new());
        stats.detached_micros.store(now - 120_000_000, Relaxed);
        assert_eq!(lag(), "120", "nobody has read for it since");
        stats.oldest_micros.store(now - 3_000_000, Relaxed);
        assert_eq!(lag(), "3", "what waits is known");
        stats.oldest_micros.store(0, Relaxed);
        stats.set_attached();
        assert_eq!(lag(), "0");
    }

    #[test]
    fn given_a_relay_that_ends_with_events_waiting_when_asked_then_nothing_is_held_and_what_waits_is_late_until_paused()
    {
        let stats = TableStats::new(TableName::new("d", "outbox1"));
        let now = now_micros();
        stats.set_state(State::Running, None);
        stats.oldest_micros.store(now - 5_000_000, Relaxed);
        stats.in_flight_bytes.store(1_000, Relaxed);
        stats.in_flight.store(3, Relaxed);
        stats.rests();
        assert_eq!((stats.in_flight_bytes.load(Relaxed), stats.in_flight.load(Relaxed)), (0, 0));
        stats.set_state(State::Starting, None);
        assert!(stats.lag_seconds(now) > 4.9, "it is to go on");
        stats.set_state(State::Paused, None);
        assert_eq!(format!("{:.1}", stats.lag_seconds(now)), "0.0");
    }

    #[test]
    fn given_a_position_that_was_never_saved_when_its_age_is_asked_then_it_counts_since_it_is_known() {
        let stats = TableStats::new(TableName::new("d", "outbox1"));
        let later = now_micros() + 400_000_000;
        assert_eq!(format!("{:.0}", stats.position_age_seconds(later)), "0", "nobody knows where it stands");
        stats.set_position(Arc::default());
        assert!(stats.position_age_seconds(later) > 399.0);
        stats.saved_micros.store(later - 7_000_000, Relaxed);
        assert_eq!(format!("{:.0}", stats.position_age_seconds(later)), "7");
    }
}
