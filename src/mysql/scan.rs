//! The rows that a table has now, in no order.
//!
//! Promise: every row that was committed before and is still there; columns as the log's decoder gives them, as long as they
//! are numbers, text, dates, UUIDs or binary strings. The server keeps no lock, and a view of the rows only as long as
//! this lasts.

use std::io;
use std::sync::Arc;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Value};

use super::servers::Servers;
use crate::position::Position;
use crate::source::{Batch, BatchBuilder, BatchFull, Subscription};
use crate::table::quote;

/// Rows that are handed on together, in bytes.
const BATCH: usize = 256 << 10;

/// Why a table cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The server refuses, or went away.
    #[error("mysql: {0}")]
    Server(#[from] Error),
    /// What takes the rows in cannot.
    #[error(transparent)]
    Taking(#[from] io::Error),
}

impl From<BatchFull> for ScanError {
    fn from(full: BatchFull) -> Self {
        Self::Taking(io::Error::other(full))
    }
}

/// How many rows a table has, as the server guesses.
pub async fn guess(endpoint: &Servers, subscription: &Subscription) -> Result<u64, Error> {
    let table = &subscription.table;
    let sql = "SELECT CAST(COALESCE(TABLE_ROWS, 0) AS UNSIGNED) FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?";
    let rows = endpoint.connect().await?.exec_first(sql, (table.schema(), table.table())).await?;
    Ok(rows.unwrap_or_default())
}

/// Reads the columns for which `wanted` says so; the others are NULL. Rows say nothing of when they were committed.
pub async fn scan(
    endpoint: &Servers,
    subscription: &Subscription,
    wanted: impl Fn(usize) -> bool,
    mut each: impl FnMut(&Batch) -> io::Result<()>,
) -> Result<(), ScanError> {
    let mut conn = endpoint.connect().await?;
    conn.query_drop("SET SESSION time_zone = '+00:00', net_write_timeout = 600").await?;
    let places: Vec<_> = (0..subscription.columns.len()).filter(|place| wanted(*place)).collect();
    let sql = select(&mut conn, subscription, &places).await?;
    let nowhere = Arc::new(Position::default());
    let mut batch = BatchBuilder::new(subscription.columns.len());
    let mut rows = conn.query_iter(sql).await?;
    while let Some(values) = rows.next().await? {
        let mut row = batch.row();
        for (place, value) in places.iter().zip(values.unwrap()) {
            // Text is what the text protocol gives.
            if let Value::Bytes(bytes) = value {
                row.set::<BatchFull>(*place, |out| {
                    out.extend_from_slice(&bytes);
                    Ok(())
                })?;
            }
        }
        row.finish();
        if batch.memory() >= BATCH {
            each(&batch.take(Arc::clone(&nowhere)))?;
        }
    }
    each(&batch.take(nowhere))?;
    drop(rows);
    Ok(conn.disconnect().await?)
}

async fn select(conn: &mut Conn, subscription: &Subscription, places: &[usize]) -> Result<String, Error> {
    let table = &subscription.table;
    let types: Vec<(String, String)> = conn
        .exec(
            "SELECT COLUMN_NAME, DATA_TYPE FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?",
            (table.schema(), table.table()),
        )
        .await?;
    let column = |place: &usize| {
        let name = &subscription.columns[*place];
        let of = types.iter().find(|(column, _)| column.eq_ignore_ascii_case(name));
        // The log has their number.
        let numbered = of.is_some_and(|(_, ty)| ["enum", "set"].contains(&ty.to_lowercase().as_str()));
        format!("{}{}", quote(name), if numbered { " + 0" } else { "" })
    };
    let columns: Vec<_> = places.iter().map(column).collect();
    Ok(format!("SELECT {} FROM {}", columns.join(", "), table.quoted()))
}
