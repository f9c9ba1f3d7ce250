//! `outboxd parked`: aggregates whose events are set aside, through the running daemon.

use clap::{Args, Subcommand, ValueEnum};
use comfy_table::Table;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use serde_json::json;
use ureq::http::Method;

use super::hand::{Hand, Way, told};
use super::{code, say, show};
use crate::admin::pages::ParkedStatus;
use crate::admin::settings::AdminSettings;
use crate::config::ConfigErrors;
use crate::daemon::DaemonError;
use crate::status::client::{Silent, Unchanged};
use crate::table::TableName;
use crate::terminal::text::harmless;

#[derive(Subcommand)]
pub(super) enum ParkedCommand {
    /// Show which aggregates are parked, since when, and why
    List(ListArguments),
    /// Put the events of aggregates back into their topics, in order, before newer ones of the same aggregate
    Release(ReleaseArguments),
}

/// For whom the answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// A table for people.
    Table,
    /// JSON for machines, one object.
    Json,
}

#[derive(Args)]
pub(super) struct ListArguments {
    /// Tables as the configuration writes them [default: all]
    #[arg(value_name = "TABLE")]
    tables: Vec<String>,
    /// For people, or for machines
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    #[command(flatten)]
    way: Way,
}

#[derive(Args)]
pub(super) struct ReleaseArguments {
    /// Tables as the configuration writes them: names, ranges, lists, wildcards
    #[arg(required = true, value_name = "TABLE")]
    tables: Vec<String>,
    /// This aggregate, as `parked list` shows it; may be given several times
    #[arg(long, value_name = "KEY", required_unless_present = "all")]
    aggregate: Vec<String>,
    /// Every aggregate that is parked
    #[arg(long, conflicts_with = "aggregate")]
    all: bool,
    #[command(flatten)]
    way: Way,
}

pub(super) async fn parked(
    command: ParkedCommand,
    admin: Result<AdminSettings, ConfigErrors>,
) -> Result<u8, DaemonError> {
    match command {
        ParkedCommand::List(arguments) => list(arguments, &admin).await,
        ParkedCommand::Release(arguments) => release(arguments, &admin).await,
    }
}

fn hand(way: Way, admin: &Result<AdminSettings, ConfigErrors>) -> Result<Hand, DaemonError> {
    Hand::new(way, admin.as_ref())
}

async fn of(hand: &Hand, table: &TableName) -> Result<Vec<ParkedStatus>, DaemonError> {
    let silent = |silent: Silent| DaemonError::Server(silent.to_string());
    hand.client.parked(table).await.map_err(silent)
}

async fn list(
    ListArguments { tables, format, way }: ListArguments,
    admin: &Result<AdminSettings, ConfigErrors>,
) -> Result<u8, DaemonError> {
    let hand = hand(way, admin)?;
    let patterns = if tables.is_empty() { vec!["*.*".to_owned()] } else { tables };
    let mut all = Vec::new();
    for table in hand.select(&patterns).await? {
        all.extend(of(&hand, &table).await?.into_iter().map(|parked| (table.clone(), parked)));
    }
    match format {
        Format::Json => {
            let lines = all.iter().map(|(table, parked)| {
                let mut line = serde_json::to_value(parked).unwrap_or_default();
                line["table"] = json!(table);
                line
            });
            show(&json!({ "parked": lines.collect::<Vec<_>>() }));
        }
        Format::Table if all.is_empty() => show(&"no aggregate is parked"),
        Format::Table => {
            let mut text = Table::new();
            text.load_style(UTF8_HORIZONTAL_ONLY).set_header([
                "table",
                "aggregate",
                "events",
                "since",
                "first event",
                "why",
                "in",
            ]);
            for (table, parked) in all {
                let ParkedStatus { aggregate, events, since, run, reason, topics, .. } = parked;
                let table = table.to_string();
                let cells = [table, aggregate, events.to_string(), since, run, reason, topics.join(" ")];
                text.add_row(cells.iter().map(|cell| harmless(cell)));
            }
            show(&text);
        }
    }
    Ok(code::CLEAN)
}

async fn release(
    ReleaseArguments { tables, aggregate, all, way }: ReleaseArguments,
    admin: &Result<AdminSettings, ConfigErrors>,
) -> Result<u8, DaemonError> {
    let hand = hand(way, admin)?;
    let mut exit = code::CLEAN;
    for table in hand.select(&tables).await? {
        let aggregates = if all {
            of(&hand, &table).await?.into_iter().map(|parked| parked.aggregate).collect()
        } else {
            aggregate.clone()
        };
        for aggregate in aggregates {
            match hand.change(Method::POST, &table, "release", json!({ "aggregate": aggregate })).await {
                Ok(changed) => show(&format!("{aggregate}: {}", told(&table, &changed))),
                Err(Unchanged::Refused(failure)) => {
                    say(&failure.to_string());
                    exit = code::REFUSED;
                }
                Err(Unchanged::Silent(silent)) => return Err(DaemonError::Server(silent.to_string())),
            }
        }
    }
    Ok(exit)
}
