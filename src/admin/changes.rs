//! Changes that an operator asks for.

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path, Request, State as Shared};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tracing::{info, warn};

use super::guard::Guard;
use super::{Current, Failure, Peer};
use crate::position::{Aggregate, Pause, Position};
use crate::relay::control::Order;
use crate::relay::replay::Plan;
use crate::table::TableName;

/// How long an order is waited for. A relay drains before it rests, and the position store may be away.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

/// Longer words are for another place.
const LONGEST: usize = 500;

/// What a change has changed: the table's state, or its position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The table.
    pub table: TableName,
    /// As it was.
    pub before: String,
    /// As it is now.
    pub after: String,
}

/// Lets in who may change something.
pub(super) async fn admit(
    Shared(guard): Shared<Arc<Guard>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    match guard.admit(request.headers(), peer.certificate.is_some()) {
        Ok(()) => next.run(request).await,
        Err(rejection) => {
            let failure = Failure::from(rejection);
            if failure.error != "too_many_requests" {
                warn!(%peer, path = ?request.uri().path(), reason = failure.error, "change_refused");
            }
            failure.into_response()
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Wish {
    by: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct PauseWish {
    by: Option<String>,
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReleaseWish {
    by: Option<String>,
    aggregate: Aggregate,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PositionWish {
    by: Option<String>,
    position: String,
}

/// A replay that has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// The table.
    pub table: TableName,
    /// Its name, which is the value of the header `outboxd-replay`.
    pub run: String,
    /// What it begins after.
    pub from: String,
    /// Where it ends: what was asked for, or what is published by now.
    pub to: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplayWish {
    by: Option<String>,
    from: String,
    to: Option<String>,
    #[serde(default)]
    ids: Vec<String>,
    #[serde(default)]
    aggregates: Vec<String>,
    #[serde(default = "usual_rate")]
    rate: NonZero<u32>,
}

/// Events a second, where nothing else is said.
fn usual_rate() -> NonZero<u32> {
    NonZero::<u32>::MIN.saturating_add(999)
}

/// Who asks, and for which table.
pub(super) type Asked = (Path<String>, ConnectInfo<Peer>, Shared<Current>);

pub(super) async fn pause(asked: Asked, body: Bytes) -> Result<Json<Changed>, Failure> {
    let PauseWish { by, reason } = read(&body)?;
    let reason = reason.map(|reason| words("reason", reason)).transpose()?;
    let caller = Caller::new(asked, by)?;
    let pause = Pause { by: caller.by.clone(), at: Timestamp::now(), reason };
    caller.ask("pause", Order::Pause(pause)).await
}

pub(super) async fn resume(asked: Asked, body: Bytes) -> Result<Json<Changed>, Failure> {
    let Wish { by } = read(&body)?;
    Caller::new(asked, by)?.ask("resume", Order::Resume).await
}

pub(super) async fn retry(asked: Asked, body: Bytes) -> Result<Json<Changed>, Failure> {
    let Wish { by } = read(&body)?;
    Caller::new(asked, by)?.ask("retry", Order::Retry).await
}

pub(super) async fn position(asked: Asked, body: Bytes) -> Result<Json<Changed>, Failure> {
    let PositionWish { by, position } = read(&body)?;
    let position = place("position", &position)?;
    Caller::new(asked, by)?.ask("position_set", Order::Set(position)).await
}

pub(super) async fn forget(asked: Asked, body: Bytes) -> Result<Json<Changed>, Failure> {
    let Wish { by } = read(&body)?;
    Caller::new(asked, by)?.ask("position_forget", Order::Forget).await
}

pub(super) async fn replay(asked: Asked, body: Bytes) -> Result<Json<Begun>, Failure> {
    let ReplayWish { by, from, to, ids, aggregates, rate } = read(&body)?;
    let run = format!("{}-{:04x}", Timestamp::now().strftime("%Y%m%dT%H%M%SZ"), fastrand::u16(..));
    let bytes = |texts: Vec<String>| texts.into_iter().map(String::into_bytes).collect();
    let plan = Plan {
        run: run.as_str().into(),
        from: place("from", &from)?,
        to: to.map(|to| place("to", &to)).transpose()?,
        ids: bytes(ids),
        aggregates: bytes(aggregates),
        rate,
    };
    let Json(Changed { table, before, after }) =
        Caller::new(asked, by)?.ask("replay", Order::Replay(Box::new(plan))).await?;
    Ok(Json(Begun { table, run, from: before, to: after }))
}

pub(super) async fn release(asked: Asked, body: Bytes) -> Result<Json<Changed>, Failure> {
    let ReleaseWish { by, aggregate } = read(&body)?;
    Caller::new(asked, by)?.ask("release", Order::Release(aggregate)).await
}

fn place(name: &str, text: &str) -> Result<Position, Failure> {
    text.parse().map_err(|error| Failure::new(400, "bad_request", format!("{name}: {error}")))
}

/// An empty body says nothing.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| Failure::new(400, "bad_request", error.to_string()))
}

/// Words that go into logs and stores.
pub(super) fn words(name: &str, text: String) -> Result<String, Failure> {
    if text.chars().count() > LONGEST || text.chars().any(char::is_control) {
        let expected = format!("{name}: at most {LONGEST} characters without control characters");
        return Err(Failure::new(400, "bad_request", expected));
    }
    Ok(text)
}

/// Who asks: as they call themselves, or by their certificate, or by where they are.
pub(super) fn asks(by: Option<String>, peer: &Peer) -> Result<String, Failure> {
    let usual = || peer.certificate.as_deref().map_or_else(|| peer.address.ip().to_string(), ToOwned::to_owned);
    words("by", by.unwrap_or_else(usual))
}

/// Who asks for a change, and of which table.
struct Caller {
    table: TableName,
    by: String,
    peer: Peer,
    current: Current,
}

impl Caller {
    fn new((Path(table), ConnectInfo(peer), Shared(current)): Asked, by: Option<String>) -> Result<Self, Failure> {
        let by = asks(by, &peer)?;
        let unknown = |_| Failure::new(404, "unknown_table", format!("`{table}` is no schema.table"));
        Ok(Self { table: table.parse().map_err(unknown)?, by, peer, current })
    }

    /// Gives the order, and writes down what became of it, also when nobody waits for the answer any more.
    async fn ask(self, action: &'static str, order: Order) -> Result<Json<Changed>, Failure> {
        let control = {
            let view = self.current.borrow();
            if view.metrics.tables().is_empty() {
                return Err(Failure::new(503, "not_ready", "the daemon waits for its servers"));
            }
            view.control.clone()
        };
        let Self { table, peer, by, .. } = self;
        let carried_out = tokio::spawn(async move {
            let answer = control.order(&table, order).await;
            match &answer {
                Ok(done) => {
                    let (before, after) = (&done.before, &done.after);
                    info!(target: "outboxd::audit", action, %table, ?by, %peer, %before, %after, "audit");
                }
                Err(refusal) => {
                    let (reason, detail) = (refusal.name(), refusal);
                    info!(target: "outboxd::audit", action, %table, ?by, %peer, refused = reason, %detail, "audit");
                }
            }
            answer.map(|done| Changed { table, before: done.before, after: done.after })
        });
        match timeout(PATIENCE, carried_out).await {
            Ok(Ok(changed)) => Ok(Json(changed?)),
            Ok(Err(error)) => Err(Failure::new(500, "internal", error.to_string())),
            Err(_) => {
                Err(Failure::new(504, "not_yet", "the order stands, and is not yet carried out; see the table's state"))
            }
        }
    }
}
