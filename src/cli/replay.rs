//! `outboxd replay`: publishes again what was published before, through the running daemon.

use std::io::IsTerminal;
use std::num::NonZero;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::time::sleep;
use ureq::http::Method;

use super::hand::{Hand, Way, confirmed};
use super::position::place::{Log, configured};
use super::{code, say, show};
use crate::admin::Begun;
use crate::config::Loaded;
use crate::daemon::{self, DaemonError};
use crate::status::client::Unchanged;
use crate::table::TableName;

/// How often the daemon is asked how far it is.
const EVERY: Duration = Duration::from_millis(200);

/// Publish again what was published before, with the header `outboxd-replay`; asks the running daemon
#[derive(Args)]
pub(super) struct ReplayArguments {
    /// Tables as the configuration writes them: names, ranges, lists, wildcards
    #[arg(required = true, value_name = "TABLE")]
    tables: Vec<String>,
    /// What comes after a position, or was committed since a time; `earliest` is the beginning of the log
    #[arg(long, value_name = "POSITION|TIME", required_unless_present_any = ["id", "aggregate"], default_value_if("id", clap::builder::ArgPredicate::IsPresent, "earliest"), default_value_if("aggregate", clap::builder::ArgPredicate::IsPresent, "earliest"))]
    from: Option<String>,
    /// Up to a position or a time [default: all that is published]
    #[arg(long, value_name = "POSITION|TIME")]
    to: Option<String>,
    /// Only this event; may be given several times
    #[arg(long, value_name = "ID")]
    id: Vec<String>,
    /// Only events of this aggregate (the record's key); may be given several times
    #[arg(long, value_name = "ID")]
    aggregate: Vec<String>,
    /// Events a second, at most, of each table
    #[arg(long, default_value = "1000/s", value_parser = rate)]
    rate: NonZero<u32>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    way: Way,
}

/// `1000/s`, or the number alone.
fn rate(text: &str) -> Result<NonZero<u32>, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    number.parse().map_err(|_| "a number of events a second, such as 1000/s".to_owned())
}

pub(super) async fn replay(arguments: ReplayArguments, loaded: &Loaded) -> Result<u8, DaemonError> {
    let ReplayArguments { tables, from, to, id, aggregate, rate, yes, way } = arguments;
    let hand = Hand::new(way, Ok(&loaded.config.admin))?;
    let tables = hand.select(&tables).await?;
    let (endpoint, _) = daemon::servers(&loaded.config)?;
    let configured = configured(&loaded.config, &endpoint).await?.into_iter().map(|table| table.subscription);
    let subscriptions = configured.filter(|one| tables.contains(&one.table)).collect();
    let mut log = Log::new(&loaded.config, endpoint, subscriptions);
    let from = log.place(&from.unwrap_or_default()).await?;
    let to = match to {
        Some(to) => Some(log.place(&to).await?),
        None => None,
    };
    for table in &tables {
        show(&table.to_string());
    }
    show(&format!("  from {from}"));
    show(&format!("  to   {}", to.as_ref().map_or_else(|| "what is published by now".to_owned(), ToString::to_string)));
    if !id.is_empty() || !aggregate.is_empty() {
        show(&format!("  only {} events by id, of {} aggregates (none: all)", id.len(), aggregate.len()));
    }
    show(&format!("  is published AGAIN, at most {rate} events a second"));
    if !yes && !confirmed() {
        say("nothing is published: nobody said yes (--yes)");
        return Ok(code::REFUSED);
    }
    let body = json!({
        "from": from.to_string(),
        "to": to.map(|to| to.to_string()),
        "ids": id,
        "aggregates": aggregate,
        "rate": rate,
    });
    let mut exit = code::CLEAN;
    for table in tables {
        match hand.change(Method::POST, &table, "replay", body.clone()).await {
            Ok(begun) => {
                let begun: Begun =
                    serde_json::from_value(begun).map_err(|error| DaemonError::Server(error.to_string()))?;
                if !follow(&hand, &table, &begun.run).await? {
                    exit = code::UNAVAILABLE;
                }
            }
            Err(Unchanged::Refused(failure)) => {
                say(&format!("{table}: {failure}"));
                exit = code::REFUSED;
            }
            Err(Unchanged::Silent(silent)) => return Err(DaemonError::Server(silent.to_string())),
        }
    }
    Ok(exit)
}

/// Shows how far a replay is until it is over; gives whether it came to its end.
async fn follow(hand: &Hand, table: &TableName, run: &str) -> Result<bool, DaemonError> {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {pos} events, {per_sec}, {elapsed}") {
        bar.set_style(style);
    }
    bar.set_message(table.to_string());
    loop {
        let status = hand.client.replay(table).await.map_err(|silent| DaemonError::Server(silent.to_string()))?;
        if status.run != run {
            say(&format!("{table}: another replay has begun since, {}", status.run));
            return Ok(false);
        }
        bar.set_position(status.published);
        match status.state.as_str() {
            "running" => sleep(EVERY).await,
            "done" => {
                bar.finish_and_clear();
                show(&format!("{table}: {} events published again, outboxd-replay: {run}", status.published));
                return Ok(true);
            }
            _ => {
                bar.finish_and_clear();
                let (published, at) = (status.published, status.at);
                let reason = status.reason.unwrap_or_default();
                say(&format!(
                    "{table}: broke off after {published} events, at {at}: {reason}; go on with --from '{at}'"
                ));
                return Ok(false);
            }
        }
    }
}
