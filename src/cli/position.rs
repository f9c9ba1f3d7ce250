//! `outboxd position`: the saved positions.

use std::time::Duration;

use clap::Subcommand;
use comfy_table::Table;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;

use super::{code, show};
use crate::config::Loaded;
use crate::daemon::DaemonError;
use crate::daemon::store::Store;

/// What to do with them.
#[derive(Subcommand)]
pub(super) enum PositionCommand {
    /// Show the saved position of every table
    Show,
}

pub(super) async fn position(command: &PositionCommand, loaded: &Loaded) -> Result<u8, DaemonError> {
    match command {
        PositionCommand::Show => positions(loaded).await,
    }
}

async fn positions(loaded: &Loaded) -> Result<u8, DaemonError> {
    let store = Store::new(&loaded.config, Duration::ZERO)?;
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header(["table", "position", "saved", "owner", "epoch"]);
    for saved in store.list().await? {
        let micros = i64::try_from(saved.saved_micros).unwrap_or(i64::MAX);
        let when = jiff::Timestamp::from_microsecond(micros).map_or_else(|_| "?".to_owned(), |when| when.to_string());
        let position = saved.position.map_or_else(|| "none yet".to_owned(), |position| position.to_string());
        table.add_row([saved.table.to_string(), position, when, saved.owner, saved.epoch.to_string()]);
    }
    show(&table);
    Ok(code::CLEAN)
}
