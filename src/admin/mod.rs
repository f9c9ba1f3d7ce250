//! The admin listener: what relays tell, and the operator's hand on them.
//!
//! Promise: whoever can reach the listener may read; only who is let in may change; every change, done or refused
//! by a relay, is a line in the log, `audit`, with who asked and what it changed. Errors are JSON with a stable name.
//!
//! `/` is the status page, for people; what it shows comes by `/api/v1/stream` (`live`), and what it asks for goes the way
//! of every change. `/api/v1/openapi.json` describes the interface; `outboxd status`, `pause`, `resume`, `retry`, `replay`,
//! `parked`, `position set`, `reload` and `log` use it.

mod changes;
mod cures;
mod guard;
pub mod history;
mod incoming;
mod live;
pub mod overview;
mod page;
pub mod pages;
pub mod reload;
mod reply;
pub mod settings;
pub mod tls;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::serve::Listener;
use axum::{Router, middleware};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

pub use self::changes::{Begun, Changed};
pub use self::incoming::{Incoming, Peer};
pub use self::reply::Failure;

use self::guard::Guard;
use self::live::Live;
use self::reload::Reloads;
use self::settings::AdminSettings;
use crate::relay::control::Control;
use crate::telemetry::happenings::Happenings;
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

/// How long answers may take that are under way at a stop.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Serves until stopped.
pub async fn serve(
    incoming: Incoming,
    settings: AdminSettings,
    current: Current,
    happenings: Happenings,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let AdminSettings { token_file, tls, .. } = settings;
    let guard = Arc::new(Guard::new(incoming.local_addr()?.address.ip(), token_file, tls.client_ca.is_some()));
    let live = Live::new(current.clone(), happenings, guard.changes(), stop.clone());
    let _sampling = AbortOnDropHandle::new(tokio::spawn(Arc::clone(&live).sample()));
    let app = router(guard, current, live).into_make_service_with_connect_info::<Peer>();
    let serving = axum::serve(incoming, app).with_graceful_shutdown(stop.clone().cancelled_owned());
    tokio::select! {
        served = serving.into_future() => served,
        () = async { stop.cancelled().await; sleep(LAST_ANSWERS).await } => Ok(()),
    }
}

fn router(guard: Arc<Guard>, current: Current, live: Arc<Live>) -> Router {
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
        .route_layer(middleware::from_fn_with_state(Arc::clone(&guard), changes::admit))
        .layer(DefaultBodyLimit::max(LARGEST_BODY));
    let seen = Router::new()
        .route("/api/v1/overview", get(live::overview))
        .route("/api/v1/stream", get(live::stream))
        .with_state(live);
    let read = Router::new()
        .route("/api/v1/tables", get(pages::tables))
        .route("/api/v1/tables/{table}", get(pages::table))
        .route("/api/v1/tables/{table}/replay", get(pages::replay))
        .route("/api/v1/tables/{table}/parked", get(pages::parked))
        .route("/api/v1/log", get(reload::level))
        .route("/api/v1/openapi.json", get(|| async { ([(CONTENT_TYPE, "application/json")], OPENAPI) }))
        .merge(seen)
        .merge(page::routes())
        .route_layer(middleware::from_fn_with_state(guard, show));
    Router::new()
        .route("/metrics", get(pages::text))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(pages::ready))
        .merge(read)
        .merge(changes)
        .fallback(|| async { Failure::new(404, "not_found", "there is no such page") })
        .method_not_allowed_fallback(|| async { Failure::new(405, "method_not_allowed", "not by this method") })
        .layer(middleware::map_response(failures))
        .with_state(current)
}

/// What the library refuses by itself, as a body that is too large or a path that is no text, is told like everything else.
async fn failures(response: Response) -> Response {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !response.status().is_client_error() || !kind.starts_with("text/plain") {
        return response;
    }
    let (parts, body) = response.into_parts();
    let detail = axum::body::to_bytes(body, LARGEST_BODY).await.unwrap_or_default();
    Failure::new(parts.status.as_u16(), "bad_request", String::from_utf8_lossy(&detail)).into_response()
}

/// Shows what may be read.
async fn show(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.may_read(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(rejection) => Failure::from(rejection).into_response(),
    }
}

const OPENAPI: &str = include_str!("openapi.json");

#[cfg(test)]
mod tests;
