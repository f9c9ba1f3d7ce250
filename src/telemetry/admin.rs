//! The admin listener: metrics, liveness, readiness, and the state of each table as JSON.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use crate::relay::stats::{State, TableStats, now_micros};
use crate::table::TableName;

/// One table as `/api/v1/tables` shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TableStatus {
    /// The table.
    pub table: TableName,
    /// `starting`, `running`, `draining`, `stopped` or `halted`.
    pub state: String,
    /// Why it is in its state, if there is anything to say.
    pub reason: Option<String>,
    /// Events acknowledged since the process started.
    pub events: u64,
    /// Events handed to Kafka and not acknowledged.
    pub in_flight: u64,
    /// Now minus commit time of the oldest event not acknowledged, in seconds.
    pub lag_seconds: f64,
    /// The durable position.
    pub position: Option<String>,
    /// When it was saved, in microseconds since the Unix epoch; 0 before the first save.
    pub saved_micros: u64,
}

impl TableStatus {
    fn of(stats: &TableStats) -> Self {
        Self {
            table: stats.table.clone(),
            state: stats.state().name().to_owned(),
            reason: stats.reason(),
            events: stats.events.load(Relaxed),
            in_flight: stats.in_flight.load(Relaxed),
            lag_seconds: stats.lag_seconds(now_micros()),
            position: stats.position().map(|position| position.to_string()),
            saved_micros: stats.saved_micros.load(Relaxed),
        }
    }
}

/// Serves until stopped.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>, stop: CancellationToken) -> std::io::Result<()> {
    let app = Router::new()
        .route("/metrics", get(text))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/api/v1/tables", get(tables))
        .with_state(metrics);
    axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await
}

async fn text(Shared(metrics): Shared<Arc<Metrics>>) -> (StatusCode, String) {
    match metrics.text() {
        Ok(text) => (StatusCode::OK, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

/// Ready: the log is open and no relay has stopped.
async fn ready(Shared(metrics): Shared<Arc<Metrics>>) -> (StatusCode, String) {
    if !metrics.tail().connected.load(Relaxed) {
        let why = metrics.tail().waiting().unwrap_or_else(|| "the binlog is not open yet".to_owned());
        return (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"));
    }
    match metrics.tables().iter().find(|stats| stats.state() != State::Running) {
        Some(stats) => (StatusCode::SERVICE_UNAVAILABLE, format!("{} is {}\n", stats.table, stats.state().name())),
        None => (StatusCode::OK, "ready\n".to_owned()),
    }
}

async fn tables(Shared(metrics): Shared<Arc<Metrics>>) -> Json<Vec<TableStatus>> {
    Json(metrics.tables().iter().map(|stats| TableStatus::of(stats)).collect())
}
