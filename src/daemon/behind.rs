//! How many events tables have before them whose relays do not run: counted in the log itself.
//!
//! Promise: what is counted is in the log, committed, and not covered by the table's position. Where not all could be counted in
//! time, that is said.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{DaemonError, select, servers, verify};
use crate::config::Config;
use crate::mysql::preflight;
use crate::position::Saved;
use crate::source::LogSource;
use crate::table::TableName;
use crate::verify::{LogReader, Reading};

/// What one table has before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Behind {
    /// Events that are committed and, as far as its position says, not relayed; a transaction that is relayed in part counts
    /// with all of its rows.
    pub events: u64,
    /// When the first of them was committed, in microseconds since the Unix epoch.
    pub oldest_micros: Option<u64>,
}

/// What several tables have before them.
#[derive(Debug, Clone, Default)]
pub struct Counted {
    /// Those whose positions are places of the log. A table whose rows are still to be read itself is not here.
    pub tables: HashMap<TableName, Behind>,
    /// Whether the log was read to its end; otherwise there are at least so many.
    pub whole: bool,
}

/// Reads the log after the saved positions, for so long at most.
pub async fn behind(config: &Config, saved: &[Saved], patience: Duration) -> Result<Counted, DaemonError> {
    let deadline = Instant::now() + patience;
    let late = |_| DaemonError::Server(format!("mysql: no answer within {patience:?}"));
    let (endpoint, _) = servers(config)?;
    let opened = async {
        let mut conn = endpoint.connect().await.map_err(|error| verify::server(&error))?;
        let existing = preflight::tables(&mut conn).await.map_err(|error| verify::server(&error))?;
        let mut source = verify::source(config, &endpoint);
        let until = source.newest().await?;
        Ok::<_, DaemonError>((select(config, &existing)?, source, until))
    };
    let (tables, source, until) = timeout_at(deadline, Box::pin(opened)).await.map_err(late)??;
    let mut readings = Vec::new();
    let mut from = until.clone();
    for table in tables {
        let of_table = saved.iter().find(|saved| saved.table == table.subscription.table);
        let Some(position) = of_table.and_then(|saved| saved.position.as_ref().ok()?.as_ref()) else { continue };
        let Some(both) = from.point.meet(&position.point).filter(|_| position.scan.is_none()) else { continue };
        from.point = both;
        readings.push(Reading { subscription: table.subscription, durable: Some(position.point.clone()) });
    }
    let names: Vec<_> = readings.iter().map(|reading| reading.subscription.table.clone()).collect();
    let mut all = vec![Behind::default(); names.len()];
    let hold = usize::try_from(config.relay.transaction_hold_bytes.as_u64()).unwrap_or(usize::MAX);
    let mut log = LogReader::new(source, readings, from, until, hold);
    let mut whole = false;
    while let Ok(next) = timeout_at(deadline, log.next()).await {
        let Some(rows) = next? else {
            whole = log.faults().is_empty();
            break;
        };
        if !rows.covered {
            let behind = &mut all[rows.slot];
            behind.events += rows.batch.len() as u64;
            let first = rows.batch.rows().next().map(|row| row.commit_micros());
            behind.oldest_micros = behind.oldest_micros.or(first);
        }
    }
    Ok(Counted { tables: names.into_iter().zip(all).collect(), whole })
}
