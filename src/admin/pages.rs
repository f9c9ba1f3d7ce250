//! What the listener tells: metrics, liveness, readiness, and the state of each table as JSON.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::Json;
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{Current, Failure, cures};
use crate::relay::stats::{State, TableStats, TailStats, now_micros};
use crate::table::TableName;
use crate::telemetry::metrics::Metrics;

/// Acknowledgements that take longer are waited for, in seconds.
const SLOW: f64 = 3.0;

/// One table as `/api/v1/tables` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableStatus {
    /// The table.
    pub table: TableName,
    /// `starting`, `running`, `snapshot`, `detached`, `catching_up`, `draining`, `stopped`, `paused` or `halted`.
    pub state: String,
    /// Why it is in its state, or what it waits for, if there is anything to say.
    pub reason: Option<String>,
    /// What cures a halt.
    #[serde(default)]
    pub cure: Option<String>,
    /// When the process began to count, in microseconds since the Unix epoch. Another value means another process.
    pub started_micros: u64,
    /// Events acknowledged since then.
    pub events: u64,
    /// Events handed to Kafka and not acknowledged.
    pub in_flight: u64,
    /// Now minus commit time of the oldest event not acknowledged, in seconds.
    pub lag_seconds: f64,
    /// The durable position.
    pub position: Option<String>,
    /// When it was saved, in microseconds since the Unix epoch; 0 before the first save.
    pub saved_micros: u64,
    /// Since when the shared tail does not feed the table, in microseconds since the Unix epoch; 0 while it does.
    #[serde(default)]
    pub detached_micros: u64,
    /// Aggregates whose events are set aside.
    #[serde(default)]
    pub parked: u64,
    /// Bytes between the tail and the relay.
    #[serde(default)]
    pub queue_bytes: u64,
}

impl TableStatus {
    pub(super) fn of(stats: &TableStats, tail: &TailStats) -> Self {
        let lag_seconds = stats.lag_seconds(now_micros());
        let in_flight = stats.in_flight.load(Relaxed);
        let is = stats.state();
        let reason = stats.reason().or_else(|| waits_for(is, tail, in_flight, lag_seconds));
        Self {
            table: stats.table.clone(),
            state: is.name().to_owned(),
            cure: reason.as_deref().filter(|_| is == State::Halted).and_then(cures::of).map(ToOwned::to_owned),
            reason,
            started_micros: stats.started_micros,
            events: stats.events.load(Relaxed),
            in_flight,
            lag_seconds,
            position: stats.position().map(|position| position.to_string()),
            saved_micros: stats.saved_micros.load(Relaxed),
            detached_micros: stats.detached_micros.load(Relaxed),
            parked: stats.parked().len() as u64,
            queue_bytes: stats.queue.bytes(),
        }
    }
}

/// What keeps a running relay from going on, if anything does.
fn waits_for(state: State, tail: &TailStats, in_flight: u64, lag_seconds: f64) -> Option<String> {
    if !state.is_running() {
        return None;
    }
    if in_flight > 0 && lag_seconds >= SLOW {
        return Some(format!("waits for Kafka to acknowledge {in_flight} events, the oldest for {lag_seconds:.0} s"));
    }
    let open = tail.connected.load(Relaxed) || tail.idle.load(Relaxed);
    let why = (!open).then(|| tail.waiting());
    why.map(|why| format!("waits for the binlog: {}", why.as_deref().unwrap_or("it is not open yet")))
}

pub(super) async fn text(Shared(current): Shared<Current>) -> (StatusCode, String) {
    let view = Arc::clone(&current.borrow());
    match view.metrics.text() {
        Ok(text) => (StatusCode::OK, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// Ready: the positions are loaded, both servers are connected, and no relay has stopped. A detached table does not
/// count: the others go on, it comes back by itself, and taking the daemon out of service would help neither. Nor does a
/// paused one: that is as somebody wants it.
pub(super) async fn ready(Shared(current): Shared<Current>) -> (StatusCode, String) {
    let view = Arc::clone(&current.borrow());
    match not_ready(&view.metrics) {
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        None => (StatusCode::OK, "ready\n".to_owned()),
    }
}

/// Why the daemon is not ready, if it is not.
pub(super) fn not_ready(metrics: &Metrics) -> Option<String> {
    let tail = metrics.tail();
    let is_stopped = |stats: &&Arc<TableStats>| !stats.state().is_running() && stats.state() != State::Paused;
    let stopped = metrics.tables().iter().find(is_stopped).map(|stats| {
        let why = stats.reason().map_or_else(String::new, |reason| format!(": {reason}"));
        format!("{} is {}{why}", stats.table, stats.state().name())
    });
    if !tail.connected.load(Relaxed) && !tail.idle.load(Relaxed) {
        // Before the first table is claimed, nothing is read.
        let why = tail.waiting().or_else(|| stopped.filter(|_| tail.position().is_none()));
        return Some(why.unwrap_or_else(|| "the binlog is not open yet".to_owned()));
    }
    // Where everything rests, no client is there that would know.
    let is_sent = |stats: &Arc<TableStats>| !matches!(stats.state(), State::Paused | State::Halted);
    if metrics.tables().iter().any(is_sent) && !metrics.reach().is_connected() {
        return Some("no Kafka broker is connected".to_owned());
    }
    stopped
}

pub(super) async fn tables(Shared(current): Shared<Current>) -> Json<Vec<TableStatus>> {
    let view = Arc::clone(&current.borrow());
    let metrics = &view.metrics;
    Json(metrics.tables().iter().map(|stats| TableStatus::of(stats, metrics.tail())).collect())
}

pub(super) async fn table(
    Path(name): Path<String>,
    Shared(current): Shared<Current>,
) -> Result<Json<TableStatus>, Failure> {
    let view = Arc::clone(&current.borrow());
    let found = view.metrics.tables().iter().find(|stats| stats.table.to_string() == name);
    let unknown = || Failure::new(404, "unknown_table", format!("no table {name} is relayed here"));
    Ok(Json(TableStatus::of(found.ok_or_else(unknown)?, view.metrics.tail())))
}

/// A parked aggregate as `/api/v1/tables/TABLE/parked` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParkedStatus {
    /// The key of its records; 0x and the bytes where they are no text.
    pub aggregate: String,
    /// The id of its first event.
    pub run: String,
    /// Why that event could not be delivered.
    pub reason: String,
    /// When it was committed.
    pub since: String,
    /// The position of the batch that it came in.
    pub position: String,
    /// Where its events are.
    pub topics: Vec<String>,
    /// Events that are parked.
    pub events: u64,
    /// Their bytes.
    pub bytes: u64,
}

pub(super) async fn parked(
    Path(name): Path<String>,
    Shared(current): Shared<Current>,
) -> Result<Json<Vec<ParkedStatus>>, Failure> {
    let view = Arc::clone(&current.borrow());
    let found = view.metrics.tables().iter().find(|stats| stats.table.to_string() == name);
    let unknown = || Failure::new(404, "unknown_table", format!("no table {name} is relayed here"));
    let parked = found.ok_or_else(unknown)?.parked();
    let shown = parked.iter().map(|(aggregate, parking)| ParkedStatus {
        aggregate: aggregate.to_string(),
        run: parking.run.clone(),
        reason: parking.reason.clone(),
        since: parking.since.to_string(),
        position: parking.position.clone(),
        topics: parking.topics.iter().cloned().collect(),
        events: parking.left(),
        bytes: parking.bytes,
    });
    Ok(Json(shown.collect()))
}

/// A replay as `/api/v1/tables/TABLE/replay` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayStatus {
    /// Its name, which is the value of the header `outboxd-replay`.
    pub run: String,
    /// `running`, `done` or `failed`.
    pub state: String,
    /// Why it failed.
    pub reason: Option<String>,
    /// Events published again so far.
    pub published: u64,
    /// What it began after.
    pub from: String,
    /// How far it is.
    pub at: String,
    /// Where it ends.
    pub to: String,
}

pub(super) async fn replay(
    Path(name): Path<String>,
    Shared(current): Shared<Current>,
) -> Result<Json<ReplayStatus>, Failure> {
    let view = Arc::clone(&current.borrow());
    let found = view.metrics.tables().iter().find(|stats| stats.table.to_string() == name);
    let unknown = || Failure::new(404, "unknown_table", format!("no table {name} is relayed here"));
    let none =
        || Failure::new(404, "no_replay", format!("{name} has published nothing again since the daemon started"));
    let replay = found.ok_or_else(unknown)?.replay().ok_or_else(none)?;
    let (state, reason) = match replay.ended() {
        None => ("running", None),
        Some(Ok(())) => ("done", None),
        Some(Err(reason)) => ("failed", Some(reason)),
    };
    Ok(Json(ReplayStatus {
        run: replay.run.to_string(),
        state: state.to_owned(),
        reason,
        published: replay.published.load(Relaxed),
        from: replay.from.to_string(),
        at: replay.at().to_string(),
        to: replay.to.to_string(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Position;

    #[test]
    fn what_a_relay_waits_for_is_said() {
        let stats = TableStats::new(TableName::new("d", "t"));
        let tail = TailStats::default();
        let reason = || TableStatus::of(&stats, &tail).reason;
        assert_eq!(reason(), None, "starting");
        stats.set_state(State::Running, None);
        assert_eq!(reason().unwrap(), "waits for the binlog: it is not open yet");
        tail.connected.store(true, Relaxed);
        assert_eq!(reason(), None);
        stats.in_flight.store(7, Relaxed);
        stats.oldest_micros.store(now_micros() - 10_400_000, Relaxed);
        assert_eq!(reason().unwrap(), "waits for Kafka to acknowledge 7 events, the oldest for 10 s");
        stats.set_state(State::Halted, Some("fenced".to_owned()));
        assert_eq!(reason().unwrap(), "fenced");
        stats.set_state(State::Halted, Some("topic_missing: topic `x`".to_owned()));
        assert_eq!(TableStatus::of(&stats, &tail).cure.unwrap(), "create it");
        stats.set_position(std::sync::Arc::new(Position::default()));
        assert_eq!(TableStatus::of(&stats, &tail).position.unwrap(), Position::default().to_string());
    }
}
