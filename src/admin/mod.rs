//! The admin listener: what relays tell, and the operator's hand on them.
//!
//! Promise: whoever can reach the listener may read; only who is let in may change; every change, done or refused
//! by a relay, is a line in the log, `audit`, with who asked and what it changed. Errors are JSON with a stable name.
//!
//! `/api/v1/openapi.json` describes the interface; `outboxd status`, `pause`, `resume`, `retry`, `replay`,
//! `parked`, `position set`, `reload` and `log` use it.

mod changes;
mod guard;
pub mod pages;
pub mod reload;
mod reply;
pub mod settings;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::header::CONTENT_TYPE;
use axum::routing::{delete, get, post, put};
use axum::{Router, middleware};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::changes::{Begun, Changed};
pub use self::reply::Failure;

use self::guard::Guard;
use self::reload::Reloads;
use self::settings::AdminSettings;
use crate::relay::control::Control;
use crate::telemetry::logging::Levels;
use crate::telemetry::metrics::Metrics;

/// What the listener shows and reaches.
pub struct View {
    /// Of every table, and of the process.
    pub metrics: Metrics,
    /// The way to the tables.
    pub control: Control,
    /// Has the configuration read again.
    pub reloads: Reloads,
    /// What is logged.
    pub levels: Levels,
}

/// The view as it is now: without tables until it is known which there are.
pub type Current = watch::Receiver<Arc<View>>;

/// A request for a change has few words, but perhaps many ids.
const LARGEST_BODY: usize = 1 << 20;

/// Serves until stopped.
pub async fn serve(
    listener: TcpListener,
    settings: AdminSettings,
    current: Current,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let guard = Guard::new(listener.local_addr()?.ip(), settings.token_file);
    let app = router(guard, current).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await
}

fn router(guard: Guard, current: Current) -> Router {
    let guard = Arc::new(guard);
    let changes = Router::new()
        .route("/api/v1/tables/{table}/pause", post(changes::pause))
        .route("/api/v1/tables/{table}/resume", post(changes::resume))
        .route("/api/v1/tables/{table}/retry", post(changes::retry))
        .route("/api/v1/tables/{table}/position", put(changes::position))
        .route("/api/v1/tables/{table}/position", delete(changes::forget))
        .route("/api/v1/tables/{table}/replay", post(changes::replay))
        .route("/api/v1/tables/{table}/release", post(changes::release))
        .route("/api/v1/reload", post(reload::reload))
        .route("/api/v1/log", put(reload::set_level))
        .route_layer(middleware::from_fn_with_state(guard, changes::admit))
        .layer(DefaultBodyLimit::max(LARGEST_BODY));
    Router::new()
        .route("/metrics", get(pages::text))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(pages::ready))
        .route("/api/v1/tables", get(pages::tables))
        .route("/api/v1/tables/{table}", get(pages::table))
        .route("/api/v1/tables/{table}/replay", get(pages::replay))
        .route("/api/v1/tables/{table}/parked", get(pages::parked))
        .route("/api/v1/log", get(reload::level))
        .route("/api/v1/openapi.json", get(|| async { ([(CONTENT_TYPE, "application/json")], OPENAPI) }))
        .merge(changes)
        .fallback(|| async { Failure::new(404, "not_found", "there is no such page") })
        .method_not_allowed_fallback(|| async { Failure::new(405, "method_not_allowed", "not by this method") })
        .with_state(current)
}

const OPENAPI: &str = include_str!("openapi.json");

#[cfg(test)]
mod tests;
