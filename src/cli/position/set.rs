//! `outboxd position set` and `forget`: moves saved positions, or has a table begin anew, by hand.
//!
//! Promise: it says what a move repeats and what it skips before it asks, changes nothing without a yes, and writes down what
//! it did. A running daemon is asked to move the position itself; without one, the table is claimed first.

use std::iter::repeat;
use std::time::Duration;

use clap::{ArgGroup, Args};
use serde_json::json;
use tracing::info;
use ureq::http::Method;

use super::place::{Log, configured};
use super::text;
use crate::cli::hand::{Hand, Way, chosen, confirmed, told};
use crate::cli::{code, say, show};
use crate::config::Loaded;
use crate::daemon::store::Store;
use crate::daemon::{self, DaemonError};
use crate::mysql::settings::Keeper;
use crate::position::{Claimed, Position, PositionStore, Saved, Shift, StoreError};
use crate::relay::settings::Start;
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
    /// A position (gtid=SET, domains=LIST, file=NAME:OFFSET), `earliest` (the beginning of the log), `newest` (its end), or
    /// `table` (the table's own rows, and then the log from its beginning)
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

#[derive(Args)]
pub(in crate::cli) struct ForgetArguments {
    /// Tables as the configuration writes them: names, ranges, lists, wildcards
    #[arg(required = true, value_name = "TABLE")]
    tables: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    way: Way,
}

/// A table and where it stands.
struct Stand {
    table: TableName,
    /// Where it begins without a position.
    start: Start,
    position: Result<Option<Position>, StoreError>,
    /// Whether a running daemon has it.
    online: bool,
}

pub(super) async fn set(arguments: SetArguments, loaded: Loaded) -> Result<u8, DaemonError> {
    let SetArguments { tables, to, to_time, yes, way } = arguments;
    let mut bench = Bench::new(&tables, way, loaded).await?;
    let goals = match (to.unwrap_or_default().as_str(), to_time) {
        (_, Some(time)) => vec![bench.log.at(&time).await?; bench.stands.len()],
        ("table", None) => {
            let mut goals = Vec::with_capacity(bench.stands.len());
            for stand in &bench.stands {
                goals.push(bench.log.of_table(&stand.table).await?);
            }
            goals
        }
        (to, None) => vec![bench.log.place(to).await?; bench.stands.len()],
    };
    for to in &goals {
        if let Err(reason) = bench.log.can_resume(to).await {
            say(&format!("{to} is no place to resume: {reason}"));
            return Ok(code::REFUSED);
        }
    }
    bench.move_to(goals.into_iter().map(Some), yes).await
}

pub(super) async fn forget(arguments: ForgetArguments, loaded: Loaded) -> Result<u8, DaemonError> {
    let ForgetArguments { tables, yes, way } = arguments;
    Bench::new(&tables, way, loaded).await?.move_to(repeat(None), yes).await
}

/// What a move needs: the tables, the log, the store, and a daemon that may run.
struct Bench {
    stands: Vec<Stand>,
    log: Log,
    store: Store,
    hand: Hand,
    keeper: Keeper,
}

impl Bench {
    async fn new(tables: &[String], way: Way, loaded: Loaded) -> Result<Self, DaemonError> {
        logging::init(&loaded.config.log).map_err(|error| DaemonError::Configuration(error.to_string()))?;
        let (log, _) = daemon::servers(&loaded.config)?;
        let store = Store::new(&loaded.config, Duration::ZERO)?;
        let saved = store.list().await?;
        let configured = configured(&loaded.config, &log).await?;
        let hand = Hand::new(way, Ok(&loaded.config.admin))?;
        let stands = stands(tables, &configured, &saved, &hand).await?;
        let subscriptions: Vec<_> = configured
            .into_iter()
            .map(|table| table.subscription)
            .filter(|subscription| stands.iter().any(|stand| stand.table == subscription.table))
            .collect();
        let log = Log::new(&loaded.config, log, subscriptions);
        Ok(Self { stands, log, store, hand, keeper: loaded.config.keeper() })
    }

    /// Says what the move does, asks, and makes it, each table to its goal; one without begins anew.
    async fn move_to(self, goals: impl Iterator<Item = Option<Position>>, yes: bool) -> Result<u8, DaemonError> {
        let all: Vec<_> = self.stands.into_iter().zip(goals).collect();
        for (stand, to) in &all {
            stand.show(to.as_ref());
        }
        if all.iter().any(|(stand, _)| !stand.online) && self.keeper == Keeper::Kafka {
            show(&"positions are in Kafka: a daemon that does relay such a table after all will halt as fenced");
        }
        if !yes && !confirmed() {
            say("nothing is changed: nobody said yes (--yes)");
            return Ok(code::REFUSED);
        }
        let mut exit = code::CLEAN;
        for (stand, to) in all {
            let (table, to) = (stand.table.clone(), to.as_ref());
            let moved = if stand.online {
                ask(&self.hand, &stand, to).await?
            } else {
                take(&self.hand, &self.store, stand, to).await?
            };
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
}

impl Stand {
    /// Says where it stands, and what a move repeats and skips.
    fn show(&self, to: Option<&Position>) {
        let Self { table, start, position, online } = self;
        show(&format!("{table}{}", if *online { "" } else { " (no daemon relays it at the moment)" }));
        show(&format!("  from {}", text(position)));
        let from = position.as_ref().ok().and_then(Option::as_ref);
        let Some(to) = to else {
            show(&format!("  to   none: it begins anew, with start = {start}"));
            show(&format!("  {}", anew(start)));
            return;
        };
        show(&format!("  to   {to}"));
        if to.scan.is_some() {
            show(&"  REPEATS every row that is in the table, and what the log still has of it");
            let lost = from.and_then(|from| from.point.names_to(&to.point)).filter(|lost| !lost.is_empty());
            if let Some(lost) = lost {
                show(&format!("  SKIPS what {lost} inserted, as far as it was deleted before the log that is left"));
            }
            return;
        }
        let shift = from.and_then(|from| Shift::between(from, to));
        let why =
            if position.is_ok() { "the positions are of different kinds" } else { "nobody can read where it stood" };
        let what = || format!("how much that repeats or skips is not known: {why}");
        show(&format!("  {}", shift.map_or_else(what, |shift| shift.to_string())));
    }
}

/// What beginning anew repeats and skips.
fn anew(start: &Start) -> &'static str {
    match start {
        Start::Snapshot => "REPEATS every row that is in the table; SKIPS what was deleted and not published",
        Start::Earliest => "REPEATS everything that the log still has; SKIPS what it has lost and was not published",
        Start::Now => "SKIPS everything up to now that was not published",
        Start::At(_) => "REPEATS or SKIPS what is between the two",
    }
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
    let start = |name: &TableName| configured.iter().find(|table| table.subscription.table == *name);
    let stand = |table: TableName| Stand {
        start: start(&table).map_or_else(Start::default, |table| table.start.clone()),
        position: saved.iter().find(|saved| saved.table == table).map_or(Ok(None), |saved| saved.position.clone()),
        online: online.iter().any(|status| status.table == table),
        table,
    };
    Ok(chosen(patterns, &known)?.into_iter().map(stand).collect())
}

/// Has the daemon move a position; it writes down who asked.
async fn ask(
    hand: &Hand,
    Stand { table, .. }: &Stand,
    to: Option<&Position>,
) -> Result<Result<String, String>, DaemonError> {
    let (method, body) = match to {
        Some(to) => (Method::PUT, json!({ "position": to.to_string() })),
        None => (Method::DELETE, json!({})),
    };
    match hand.change(method, table, "position", body).await {
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
    to: Option<&Position>,
) -> Result<Result<String, String>, DaemonError> {
    let Claimed { claim, position, .. } = match store.claim(&table).await {
        Err(error @ (StoreError::Owned { .. } | StoreError::Fenced { .. })) => return Ok(Err(error.to_string())),
        claimed => claimed?,
    };
    let moved = match to {
        _ if position != shown => Ok(false),
        Some(to) => store.set(&claim, to).await.map(|()| true),
        None => store.forget(&claim).await.map(|()| true),
    };
    store.release(&claim).await?;
    if !moved? {
        return Ok(Err("a daemon has moved it meanwhile; look again".to_owned()));
    }
    let before = text(&position);
    let (action, after) = match to {
        Some(to) => ("position_set", to.to_string()),
        None => ("position_forget", "none".to_owned()),
    };
    info!(target: "outboxd::audit", action, %table, by = ?hand.by(), %before, %after, "audit");
    Ok(Ok(format!("{table}: {before} -> {after}")))
}
