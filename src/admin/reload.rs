//! The configuration read again, and the level of the log: how it is asked for, and what became of it.
//!
//! Promise: a reload takes over everything that has changed, or nothing; either is a line in the log, `audit`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, State as Shared};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::info;

use super::Peer;
use super::changes::{PATIENCE, asks, read, words};
use super::{Current, Failure};
use crate::table::TableName;

/// A key whose value is another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// The key, levels separated by dots.
    pub key: String,
    /// As it was, as TOML writes it; `***` for a secret, `unset` for nothing.
    pub before: String,
    /// As it is now.
    pub after: String,
}

/// What a reload has changed; or would change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Keys with other values.
    pub settings: Vec<Setting>,
    /// Tables that are relayed from now on.
    pub joined: Vec<TableName>,
    /// Tables that were drained, and are relayed another way from now on.
    pub renewed: Vec<TableName>,
    /// Tables that were drained, and are relayed here no more.
    pub left: Vec<TableName>,
    /// Tables of which a part of this did not come about, with why.
    pub troubles: Vec<String>,
}

/// Why a reload has changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unloaded {
    /// The configuration has errors.
    #[error("the configuration cannot be used, and the old one stays in force:\n{0}")]
    Configuration(String),
    /// Keys have changed that count from a start on only.
    #[error("this takes a restart, and nothing has changed yet: {0}")]
    NeedsRestart(String),
    /// Tables that would join or be relayed another way fail their checks.
    #[error("tables fail their checks, and nothing has changed: {0}")]
    Unfit(String),
    /// Servers do not answer.
    #[error("the tables cannot be looked at, and nothing has changed: {0}")]
    Unavailable(String),
    /// The daemon is about to end, or has not begun.
    #[error("the daemon is starting or stopping")]
    NotNow,
}

impl Unloaded {
    /// For a log, whose lines are one line each.
    pub fn line(&self) -> String {
        self.to_string().replace('\n', "; ")
    }

    /// A name for programs, in `snake_case`, and the HTTP status.
    pub fn name(&self) -> (&'static str, u16) {
        match self {
            Self::Configuration(_) => ("configuration", 422),
            Self::NeedsRestart(_) => ("needs_restart", 409),
            Self::Unfit(_) => ("unfit", 409),
            Self::Unavailable(_) => ("unavailable", 503),
            Self::NotNow => ("not_ready", 503),
        }
    }
}

/// Somebody who wants the configuration read again.
#[derive(Debug)]
pub struct Asked {
    /// Whether to say only what would change.
    pub rehearse: bool,
    /// Hears what became of it.
    pub answer: oneshot::Sender<Result<Reloaded, Unloaded>>,
}

/// Asks for the configuration to be read again. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reloads(mpsc::Sender<Asked>);

impl Reloads {
    /// The way in, and where it leads.
    pub fn channel() -> (Self, mpsc::Receiver<Asked>) {
        let (way, end) = mpsc::channel(1);
        (Self(way), end)
    }

    /// Asks, and waits. Dropping the future does not take it back.
    pub async fn ask(&self, rehearse: bool) -> Result<Reloaded, Unloaded> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Asked { rehearse, answer }).await.map_err(|_| Unloaded::NotNow)?;
        answered.await.unwrap_or(Err(Unloaded::NotNow))
    }

    /// Asks, and writes down what became of it.
    pub async fn audited(&self, by: &str, peer: Option<Peer>) -> Result<Reloaded, Unloaded> {
        let answer = self.ask(false).await;
        let peer = peer.map(tracing::field::display);
        match &answer {
            Ok(Reloaded { settings, joined, renewed, left, troubles }) => {
                let keys: Vec<_> = settings.iter().map(|setting| &setting.key).collect();
                let names = |tables: &[TableName]| tables.iter().map(ToString::to_string).collect::<Vec<_>>();
                let (joined, renewed, left) = (names(joined), names(renewed), names(left));
                info!(
                    target: "outboxd::audit",
                    action = "reload", ?by, peer, ?keys, ?joined, ?renewed, ?left, ?troubles, "audit"
                );
            }
            Err(refusal) => {
                let (refused, _) = refusal.name();
                let detail = refusal.line();
                info!(target: "outboxd::audit", action = "reload", ?by, peer, refused, %detail, "audit");
            }
        }
        answer
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ReloadWish {
    by: Option<String>,
    rehearse: bool,
}

pub(super) async fn reload(
    ConnectInfo(peer): ConnectInfo<Peer>,
    Shared(current): Shared<Current>,
    body: Bytes,
) -> Result<Json<Reloaded>, Failure> {
    let ReloadWish { by, rehearse } = read(&body)?;
    let by = asks(by, &peer)?;
    let view = std::sync::Arc::clone(&current.borrow());
    if view.metrics.tables().is_empty() {
        return Err(Unloaded::NotNow.into());
    }
    let reloads = view.reloads.clone();
    let asked =
        tokio::spawn(
            async move { if rehearse { reloads.ask(true).await } else { reloads.audited(&by, Some(peer)).await } },
        );
    match timeout(PATIENCE, asked).await {
        Ok(Ok(reloaded)) => Ok(Json(reloaded?)),
        Ok(Err(error)) => Err(Failure::new(500, "internal", error.to_string())),
        Err(_) => Err(Failure::new(504, "not_yet", "the reload goes on; see the log and the states of the tables")),
    }
}

/// What is logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLevel {
    /// A level, or directives such as `info,outboxd::kafka=debug`.
    pub level: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LevelWish {
    by: Option<String>,
    level: String,
}

pub(super) async fn level(Shared(current): Shared<Current>) -> Json<LogLevel> {
    Json(LogLevel { level: current.borrow().levels.now() })
}

pub(super) async fn set_level(
    ConnectInfo(peer): ConnectInfo<Peer>,
    Shared(current): Shared<Current>,
    body: Bytes,
) -> Result<Json<LogLevel>, Failure> {
    let LevelWish { by, level } = read(&body)?;
    let by = asks(by, &peer)?;
    let levels = current.borrow().levels.clone();
    let before = levels.now();
    levels.set(&words("level", level)?).map_err(|error| Failure::new(400, "bad_request", format!("level: {error}")))?;
    let after = levels.now();
    info!(target: "outboxd::audit", action = "log_level", ?by, %peer, ?before, ?after, "audit");
    Ok(Json(LogLevel { level: after }))
}
