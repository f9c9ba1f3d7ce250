//! What a relay and the tail tell of themselves: plain values, read by whoever exports them.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crate::position::Position;
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
}

impl State {
    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
            Self::Halted => "halted",
        }
    }
}

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
    /// Now: bytes in the queue and in work.
    pub queue_bytes: AtomicU64,
    /// Now: commit time of the oldest event not acknowledged, microseconds since the Unix epoch; 0 when none waits.
    pub oldest_micros: AtomicU64,
    /// When the position was saved last, microseconds since the Unix epoch; 0 before the first save.
    pub saved_micros: AtomicU64,
    /// UPDATE statements seen in the log.
    pub updates: AtomicU64,
    /// Failed saves that are retried.
    pub save_retries: AtomicU64,
    state: AtomicU8,
    position: Mutex<Option<Arc<Position>>>,
    reason: Mutex<Option<String>>,
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
            queue_bytes: AtomicU64::new(0),
            oldest_micros: AtomicU64::new(0),
            saved_micros: AtomicU64::new(0),
            updates: AtomicU64::new(0),
            save_retries: AtomicU64::new(0),
            state: AtomicU8::new(State::Starting as u8),
            position: Mutex::new(None),
            reason: Mutex::new(None),
        }
    }

    /// The relay's state.
    pub fn state(&self) -> State {
        match self.state.load(Relaxed) {
            1 => State::Running,
            2 => State::Draining,
            3 => State::Stopped,
            4 => State::Halted,
            _ => State::Starting,
        }
    }

    /// Changes the state; the reason is for people.
    pub fn set_state(&self, state: State, reason: Option<String>) {
        self.set_reason(reason);
        self.state.store(state as u8, Relaxed);
    }

    /// Says what the relay waits for, or that it no longer does; the state stays.
    pub fn set_reason(&self, reason: Option<String>) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }

    /// Why the relay is in its state, if there is anything to say.
    pub fn reason(&self) -> Option<String> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The durable position.
    pub fn position(&self) -> Option<Arc<Position>> {
        self.position.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes the durable position.
    pub fn set_position(&self, position: Arc<Position>) {
        *self.position.lock().unwrap_or_else(PoisonError::into_inner) = Some(position);
    }

    /// Now minus the commit time of the oldest event not acknowledged, in seconds; 0 when nothing waits.
    pub fn lag_seconds(&self, now_micros: u64) -> f64 {
        match self.oldest_micros.load(Relaxed) {
            0 => 0.0,
            #[allow(clippy::cast_precision_loss, reason = "a lag of 285 years is exact enough")]
            oldest => now_micros.saturating_sub(oldest) as f64 / 1e6,
        }
    }
}

/// What the tail tells of itself.
#[derive(Debug, Default)]
pub struct TailStats {
    /// Now: whether the log is open.
    pub connected: AtomicBool,
    /// How often the log was opened again.
    pub reconnects: AtomicU64,
    waiting: Mutex<Option<String>>,
}

impl TailStats {
    /// Why the log is not open.
    pub fn waiting(&self) -> Option<String> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_connected(&self) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.connected.store(true, Relaxed);
    }

    /// Notes why the log is not open.
    pub fn set_waiting(&self, reason: String) {
        self.connected.store(false, Relaxed);
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }
}

/// Microseconds since the Unix epoch.
pub fn now_micros() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
