//! What relays are doing, as seen from outside: asked of a running daemon, kept over time, laid out for a terminal.
//!
//! Promise: what is not known is said to be unknown; nothing is guessed from what was known before.
//!
//! [`client`] asks the admin listener, [`rates`] turns counters into events per second, [`layout`] draws the table.
pub mod client;
pub mod layout;
pub mod rates;
pub mod trust;

use jiff::Timestamp;
use serde::Serialize;

use crate::admin::pages::TableStatus;
use crate::position::Saved;
use crate::status::rates::Rate;
use crate::table::TableName;

/// One table's line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// The table.
    pub table: TableName,
    /// The relay's state; when the daemon did not say, `paused` if the store has that, or else `unknown`.
    pub state: String,
    /// Why it is in its state, or what it waits for.
    pub reason: Option<String>,
    /// Events acknowledged since the daemon started.
    pub events: Option<u64>,
    /// Events acknowledged per second, lately; none before there are two looks to compare.
    pub events_per_second: Option<f64>,
    /// Now minus the commit time of the oldest event not acknowledged, in seconds.
    pub lag_seconds: Option<f64>,
    /// Events that are committed and not relayed, where they were counted in the log because no daemon runs.
    pub behind: Option<u64>,
    /// Events handed to Kafka and not acknowledged.
    pub in_flight: Option<u64>,
    /// The durable position.
    pub position: Option<String>,
    /// When it was saved.
    pub saved: Option<Timestamp>,
}

impl Line {
    /// As a daemon tells it.
    pub fn of_daemon(status: TableStatus, rate: Rate) -> Self {
        Self {
            table: status.table,
            state: status.state,
            reason: status.reason,
            events: Some(status.events),
            events_per_second: rate.per_second,
            lag_seconds: Some(status.lag_seconds),
            behind: None,
            in_flight: Some(status.in_flight),
            position: status.position,
            saved: time(status.saved_micros),
        }
    }

    /// As the position store has it; what only a daemon knows is unknown.
    pub fn of_store(saved: Saved) -> Self {
        let state = if saved.pause.is_some() { "paused" } else { "unknown" }.to_owned();
        let (position, unreadable) = match saved.position {
            Ok(position) => (position, None),
            Err(unreadable) => (None, Some(unreadable.to_string())),
        };
        Self {
            table: saved.table,
            state,
            reason: unreadable.or_else(|| saved.pause.map(|pause| pause.to_string())),
            events: None,
            events_per_second: None,
            lag_seconds: None,
            behind: None,
            in_flight: None,
            saved: position.is_some().then(|| time(saved.saved_micros)).flatten(),
            position: position.map(|position| position.to_string()),
        }
    }
}

/// Microseconds since the Unix epoch; 0 is never.
fn time(micros: u64) -> Option<Timestamp> {
    i64::try_from(micros).ok().filter(|&micros| micros > 0).and_then(|micros| Timestamp::from_microsecond(micros).ok())
}
