//! `outboxd migrate`: creates the tables that are missing.

use super::{code, server, show};
use crate::config::Loaded;
use crate::daemon::{self, DaemonError};
use crate::mysql::migrate::{self, MigrateError};
use crate::mysql::settings::Keeper;
use crate::table::TableName;

pub(super) async fn migrate(loaded: &Loaded, print: bool) -> Result<u8, DaemonError> {
    let outboxes: Vec<_> =
        daemon::select(&loaded.config, &[])?.into_iter().map(|table| table.subscription.table).collect();
    let positions = TableName::new(&loaded.config.positions.schema, &loaded.config.positions.table);
    let in_table = loaded.config.keeper() == Keeper::Mysql;
    if print {
        let of_positions = if in_table { migrate::of_positions(&positions, 0) } else { Vec::new() };
        let all = [of_positions, migrate::of_outboxes(&outboxes)].concat();
        for sql in all {
            show(&format!("{sql};"));
        }
        return Ok(code::CLEAN);
    }
    let (log, store) = daemon::servers(&loaded.config)?;
    if in_table {
        let mut conn = store.connect().await.map_err(|error| server(&error))?;
        let before = migrate::positions(&mut conn, &positions).await.map_err(failed)?;
        let now = migrate::NEWEST;
        let done = match before {
            0 => format!("created, version {now}"),
            before if before == now => format!("there, version {now}"),
            before => format!("raised from version {before} to {now}"),
        };
        show(&format!("position table {positions}: {done}"));
    }
    let mut conn = log.connect().await.map_err(|error| server(&error))?;
    migrate::outboxes(&mut conn, &outboxes).await.map_err(failed)?;
    show(&format!("outbox tables: all {} there", outboxes.len()));
    Ok(code::CLEAN)
}

fn failed(error: MigrateError) -> DaemonError {
    match error {
        MigrateError::Server(error) => server(&error),
        MigrateError::Foreign(_) | MigrateError::Newer { .. } => DaemonError::Configuration(error.to_string()),
        MigrateError::Busy(_) => DaemonError::Server(error.to_string()),
    }
}
