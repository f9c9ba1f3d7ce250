//! `outboxd position`: the saved positions.

mod moment;
pub(super) mod place;
mod set;
mod wait;

use std::time::Duration;

use clap::Subcommand;
use comfy_table::Table;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;

use self::set::{ForgetArguments, SetArguments};
use self::wait::WaitArguments;
use super::{code, say, show};
use crate::config::Loaded;
use crate::daemon::DaemonError;
use crate::daemon::store::{self, Store};
use crate::mysql::settings::Keeper;
use crate::position::{Position, PositionStore, StoreError};
use crate::terminal::text::harmless;

/// What to do with them.
#[derive(Subcommand)]
pub(super) enum PositionCommand {
    /// Show the saved position of every table
    Show,
    /// Move the saved position of tables, backwards too: shows what that repeats or skips, and asks
    Set(SetArguments),
    /// Forget the saved position of tables, which begin anew as `start` says: shows what that repeats, and asks
    Forget(ForgetArguments),
    /// Wait until everything of these tables that the log has up to now, or up to a position, is acknowledged
    Wait(WaitArguments),
    /// Move the positions of the configured tables from one store to the other, while no daemon runs
    Migrate {
        /// Where they are kept from now on
        #[arg(long, value_enum)]
        to: Keeper,
    },
}

pub(super) async fn position(command: PositionCommand, loaded: Loaded) -> Result<u8, DaemonError> {
    match command {
        PositionCommand::Show => {
            show(&table(&loaded).await?);
            Ok(code::CLEAN)
        }
        PositionCommand::Set(arguments) => set::set(arguments, loaded).await,
        PositionCommand::Forget(arguments) => set::forget(arguments, loaded).await,
        PositionCommand::Wait(arguments) => wait::wait(arguments, loaded).await,
        PositionCommand::Migrate { to } => migrate(&loaded, to).await,
    }
}

async fn migrate(loaded: &Loaded, to: Keeper) -> Result<u8, DaemonError> {
    let moved = store::migrate(&loaded.config, to).await?;
    for (table, position) in &moved {
        show(&format!("{table}: {position}"));
    }
    show(&format!("{} moved to {to}", moved.len()));
    if loaded.config.keeper() != to {
        say(&format!(
            "the configuration still keeps positions in {}: set positions.store or delivery.guarantee",
            loaded.config.keeper()
        ));
    }
    Ok(code::CLEAN)
}

/// Every saved position.
pub(super) async fn table(loaded: &Loaded) -> Result<Table, DaemonError> {
    let store = Store::new(&loaded.config, Duration::ZERO)?;
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header(["table", "position", "saved", "owner", "epoch"]);
    for saved in store.list().await? {
        let micros = i64::try_from(saved.saved_micros).unwrap_or(i64::MAX);
        let when = jiff::Timestamp::from_microsecond(micros).map_or_else(|_| "?".to_owned(), |when| when.to_string());
        let position = text(&saved.position);
        let name = harmless(&saved.table.to_string()).into_owned();
        table.add_row([name, position, when, saved.owner, saved.epoch.to_string()]);
    }
    Ok(table)
}

/// A saved position for people.
fn text(position: &Result<Option<Position>, StoreError>) -> String {
    match position {
        Ok(Some(position)) => position.to_string(),
        Ok(None) => "none yet".to_owned(),
        Err(unreadable) => harmless(&unreadable.to_string()).into_owned(),
    }
}
