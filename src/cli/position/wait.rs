//! `outboxd position wait`: waits until tables are past a place in the log.
//!
//! Promise: it ends well only when everything of these tables that the log has in front of that place is acknowledged.

use std::cmp::Ordering;
use std::time::Duration;

use clap::Args;
use tokio::time::sleep;

use super::place::{Log, configured};
use crate::cli::hand::chosen;
use crate::cli::{code, show};
use crate::config::Loaded;
use crate::daemon::store::Store;
use crate::daemon::{self, DaemonError};
use crate::position::{Position, PositionStore, Saved};

/// How often the saved positions are looked at.
const AGAIN: Duration = Duration::from_millis(500);

#[derive(Args)]
pub(in crate::cli) struct WaitArguments {
    /// Tables as the configuration writes them: names, ranges, lists, wildcards
    #[arg(required = true, value_name = "TABLE")]
    tables: Vec<String>,
    /// What they have to be past: a position (gtid=SET, domains=LIST, file=NAME:OFFSET), or `newest`, the end that the log
    /// has now
    #[arg(long, value_name = "POSITION", default_value = "newest")]
    past: String,
}

pub(super) async fn wait(arguments: WaitArguments, loaded: Loaded) -> Result<u8, DaemonError> {
    let WaitArguments { tables, past } = arguments;
    let (log, _) = daemon::servers(&loaded.config)?;
    let known: Vec<_> = configured(&loaded.config, &log).await?.into_iter().map(|table| table.subscription).collect();
    let names: Vec<_> = known.iter().map(|subscription| subscription.table.clone()).collect();
    let mut waiting = chosen(&tables, &names)?;
    let past = Log::new(&loaded.config, log, known).place(&past).await?;
    show(&format!("waiting until {} tables are past {past}", waiting.len()));
    let store = Store::new(&loaded.config, Duration::ZERO)?;
    loop {
        let saved = store.list().await?;
        waiting.retain(|table| {
            let passed = saved.iter().any(|saved| saved.table == *table && is_past(saved, &past));
            if passed {
                show(&format!("{table} is past it"));
            }
            !passed
        });
        if waiting.is_empty() {
            return Ok(code::CLEAN);
        }
        sleep(AGAIN).await;
    }
}

fn is_past(saved: &Saved, place: &Position) -> bool {
    let ordering = saved.position.as_ref().and_then(|position| place.partial_cmp(position));
    ordering.is_some_and(Ordering::is_le)
}
