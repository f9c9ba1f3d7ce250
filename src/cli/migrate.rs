//! `outboxd migrate`: creates the tables that are missing.

use super::{code, server, show};
use crate::config::Loaded;
use crate::daemon::{self, DaemonError};
use crate::mysql::migrate::{apply, statements};

pub(super) async fn migrate(loaded: &Loaded, print: bool) -> Result<u8, DaemonError> {
    let tables: Vec<_> =
        daemon::select(&loaded.config, &[])?.into_iter().map(|table| table.subscription.table).collect();
    let positions = &loaded.config.positions;
    let of_positions = statements(Some((&positions.schema, &positions.table)), &[]);
    let of_outboxes = statements(None, &tables);
    if print {
        of_positions.iter().chain(&of_outboxes).for_each(|sql| show(&format!("{sql};")));
        return Ok(code::CLEAN);
    }
    let (log, store) = daemon::endpoints(&loaded.config)?;
    for (endpoint, statements) in [(store, of_positions), (log, of_outboxes)] {
        let mut conn = endpoint.connect().await.map_err(|error| server(&error))?;
        apply(&mut conn, &statements).await.map_err(|error| server(&error))?;
    }
    show(&format!("{} outbox tables and the position table are there", tables.len()));
    Ok(code::CLEAN)
}
