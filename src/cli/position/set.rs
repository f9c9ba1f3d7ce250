//! `outboxd position set`: moves saved positions, by hand.
//!
//! Promise: it says what a move repeats and what it skips before it asks, changes nothing without a yes, and writes down what
//! it did. A running daemon is asked to move the position itself; without one, the table is claimed first.

use std::time::Duration;

use clap::{ArgGroup, Args};
use serde_json::json;
use tracing::info;
use ureq::http::Method;

use super::place::{Log, configured};
use crate::cli::hand::{Hand, Way, chosen, confirmed, told};
use crate::cli::{code, say, show};
use crate::config::Loaded;
use crate::daemon::store::Store;
use crate::daemon::{self, DaemonError};
use crate::mysql::settings::Keeper;
use crate::position::{Claimed, Position, PositionStore, Saved, Shift, StoreError};
use crate::relay::supervisor::Table;
use crate::status::client::Unchanged;
use crate::table::TableName;
use crate::telemetry::logging;

#[derive(Args)]
#[command(group = ArgGroup::new("place").required(true))]
pub(in crate::cli) struct SetArguments {
    /// Tables as the configuration writes them: names, ranges, lists, wildcards
    #[arg(required = true, value_name = "TABLE")]
    tables: Vec<String>,
    /// A position (gtid=SET, domains=LIST, file=NAME:OFFSET), `earliest` (the beginning of the log) or `newest` (its end)
    #[arg(long, value_name = "POSITION", group = "place")]
    to: Option<String>,
    /// Before what was committed then: "2026-11-20 10:30", "yesterday 10:30", "10:30", "2h ago", RFC 3339; local time
    #[arg(long, value_name = "TIME", group = "place")]
    to_time: Option<String>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    way: Way,
}

/// A table and where it stands.
struct Stand {
    table: TableName,
    position: Option<Position>,
    /// Whether a running daemon has it.
    online: bool,
}

pub(super) async fn set(arguments: SetArguments, loaded: Loaded) -> Result<u8, DaemonError> {
    let SetArguments { tables, to, to_time, yes, way } = arguments;
    logging::init(&loaded.config.log).map_err(|error| DaemonError::Configuration(error.to_string()))?;
    let (log, _) = daemon::servers(&loaded.config)?;
    let store = Store::new(&loaded.config, Duration::ZERO)?;
    let saved = store.list().await?;
    let configured = configured(&loaded.config, &log).await?;
    let hand = Hand::new(way, Ok(&loaded.config.admin))?;
    let stands = stands(&tables, &configured, &saved, &hand).await?;
    let subscriptions: Vec<_> = configured
        .into_iter()
        .map(|table| table.subscription)
        .filter(|subscription| stands.iter().any(|stand| stand.table == subscription.table))
        .collect();
    let mut log = Log::new(&loaded.config, log, subscriptions);
    let to = match (to, to_time) {
        (_, Some(time)) => log.at(&time).await?,
        (to, None) => log.place(&to.unwrap_or_default()).await?,
    };
    if let Err(reason) = log.can_resume(&to).await {
        say(&format!("{to} is no place to resume: {reason}"));
        return Ok(code::REFUSED);
    }
    for Stand { table, position, online } in &stands {
        show(&format!("{table}{}", if *online { "" } else { " (no daemon relays it at the moment)" }));
        show(&format!("  from {}", position.as_ref().map_or_else(|| "none yet".to_owned(), ToString::to_string)));
        show(&format!("  to   {to}"));
        let shift = position.as_ref().and_then(|from| Shift::between(from, &to));
        let what = || "how much that repeats or skips is not known: the positions are of different kinds".to_owned();
        show(&format!("  {}", shift.map_or_else(what, |shift| shift.to_string())));
    }
    if stands.iter().any(|stand| !stand.online) && loaded.config.keeper() == Keeper::Kafka {
        show(&"positions are in Kafka: a daemon that does relay such a table after all will halt as fenced");
    }
    if !yes && !confirmed() {
        say("nothing is changed: nobody said yes (--yes)");
        return Ok(code::REFUSED);
    }
    let mut exit = code::CLEAN;
    for stand in stands {
        let table = stand.table.clone();
        let moved = if stand.online { ask(&hand, &stand, &to).await? } else { take(&hand, &store, stand, &to).await? };
        match moved {
            Ok(said) => show(&said),
            Err(refused) => {
                say(&format!("{table}: {refused}"));
                exit = code::REFUSED;
            }
        }
    }
    Ok(exit)
}

/// The tables that are meant, and where they stand. A daemon that answers has those that it names.
async fn stands(
    patterns: &[String],
    configured: &[Table],
    saved: &[Saved],
    hand: &Hand,
) -> Result<Vec<Stand>, DaemonError> {
    let known: Vec<_> = configured.iter().map(|table| table.subscription.table.clone()).collect();
    let online = hand.client.tables().await.unwrap_or_default();
    let stand = |table: TableName| Stand {
        position: saved.iter().find(|saved| saved.table == table).and_then(|saved| saved.position.clone()),
        online: online.iter().any(|status| status.table == table),
        table,
    };
    Ok(chosen(patterns, &known)?.into_iter().map(stand).collect())
}

/// Has the daemon move a position; it writes down who asked.
async fn ask(hand: &Hand, Stand { table, .. }: &Stand, to: &Position) -> Result<Result<String, String>, DaemonError> {
    match hand.change(Method::PUT, table, "position", json!({ "position": to.to_string() })).await {
        Ok(changed) => Ok(Ok(told(table, &changed))),
        Err(Unchanged::Refused(failure)) => Ok(Err(failure.to_string())),
        Err(Unchanged::Silent(silent)) => Err(DaemonError::Server(silent.to_string())),
    }
}

/// Moves a position that no daemon has at the moment.
async fn take(
    hand: &Hand,
    store: &Store,
    Stand { table, position: shown, .. }: Stand,
    to: &Position,
) -> Result<Result<String, String>, DaemonError> {
    let Claimed { claim, position, .. } = match store.claim(&table).await {
        Err(error @ (StoreError::Owned { .. } | StoreError::Fenced { .. })) => return Ok(Err(error.to_string())),
        claimed => claimed?,
    };
    let moved = if position == shown { store.set(&claim, to).await.map(|()| true) } else { Ok(false) };
    store.release(&claim).await?;
    if !moved? {
        return Ok(Err("a daemon has moved it meanwhile; look again".to_owned()));
    }
    let before = position.map_or_else(|| "none yet".to_owned(), |position| position.to_string());
    info!(target: "outboxd::audit", action = "position_set", %table, by = ?hand.by(), %before, after = %to, "audit");
    Ok(Ok(format!("{table}: {before} -> {to}")))
}
