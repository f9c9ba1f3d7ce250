//! `outboxd migrate`: creates the tables that are missing.
//!
//! Promise: the position table is brought to its newest version, whatever the configuration says of the outbox tables; of
//! these, those that are written out are created.

use std::collections::BTreeSet;

use super::{code, say, server, show};
use crate::config::{Config, Loaded};
use crate::daemon::{self, DaemonError};
use crate::mysql::migrate::{self, MigrateError};
use crate::mysql::settings::Keeper;
use crate::table::{TableName, TablePattern};

pub(super) async fn migrate(loaded: &Loaded, print: bool) -> Result<u8, DaemonError> {
    let (outboxes, wildcards) = named(&loaded.config)?;
    for pattern in wildcards {
        say(&format!("{pattern} is a wildcard, for which no table is created: it selects those that are there"));
    }
    let positions = TableName::new(&loaded.config.positions.schema, &loaded.config.positions.table);
    let in_table = loaded.config.keeper() == Keeper::Mysql;
    if print {
        let of_positions = if in_table {
            show(&head(&positions));
            migrate::of_positions(&positions, 0)
        } else {
            Vec::new()
        };
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
    if !outboxes.is_empty() {
        let mut conn = log.connect().await.map_err(|error| server(&error))?;
        migrate::outboxes(&mut conn, &outboxes).await.map_err(failed)?;
        show(&format!("outbox tables: all {} there", outboxes.len()));
    }
    Ok(code::CLEAN)
}

/// The tables that are written out, and the wildcards, which name none.
fn named(config: &Config) -> Result<(Vec<TableName>, Vec<&str>), DaemonError> {
    let (mut tables, mut wildcards) = (BTreeSet::new(), Vec::new());
    for pattern in config.outbox.iter().flat_map(|block| &block.tables) {
        match TablePattern::parse(pattern).map_err(|error| DaemonError::Configuration(error.to_string()))? {
            TablePattern::Names(names) => tables.extend(names),
            TablePattern::Wildcard(_) => wildcards.push(pattern.as_str()),
        }
    }
    Ok((tables.into_iter().collect(), wildcards))
}

/// What stands above the statements, which begin without any table.
fn head(positions: &TableName) -> String {
    format!(
        "-- The position table, from nothing up to version {}. Where there is one, SHOW CREATE TABLE {}\n\
         -- ends in its version: begin behind the statement that ends in the same.",
        migrate::NEWEST,
        positions.quoted()
    )
}

fn failed(error: MigrateError) -> DaemonError {
    match error {
        MigrateError::Server(error) => server(&error),
        MigrateError::Foreign(_) | MigrateError::Newer { .. } => DaemonError::Configuration(error.to_string()),
        MigrateError::Busy(_) => DaemonError::Server(error.to_string()),
    }
}
