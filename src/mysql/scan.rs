//! The rows that a table has now, in no order.
//!
//! Promise: every row that was committed before and is still there; columns as the log's decoder gives them, asked for and
//! written as those of a table that is relayed from its own rows. The server keeps no lock, and a view of the rows only as
//! long as this lasts.

use std::io;
use std::sync::Arc;

use mysql_async::prelude::Queryable;
use mysql_async::{Error, Value};

use super::connect::Flavor;
use super::servers::Servers;
use super::snapshot::layout::{ALIAS, ask};
use super::snapshot::point::prepare;
use super::source::other;
use crate::position::Position;
use crate::source::{Batch, BatchBuilder, BatchFull, Subscription};

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
    let flavor = Flavor::of(&mut conn).await?;
    prepare(&mut conn, flavor).await?;
    // Who takes no more rows must not keep the view.
    conn.query_drop("SET SESSION net_write_timeout = 600").await?;
    let places: Vec<_> = (0..subscription.columns.len()).filter(|place| wanted(*place)).collect();
    let columns = places.iter().map(|place| subscription.columns[*place].clone()).collect();
    let telling = Subscription { table: subscription.table.clone(), columns };
    let columns = ask(&mut conn, &telling).await?.map_err(|fault| other(&fault))?;
    let expressions: Vec<_> = columns.iter().map(|asked| asked.expression.as_str()).collect();
    let sql = format!("SELECT {} FROM {} AS {ALIAS}", expressions.join(", "), telling.table.quoted());
    let nowhere = Arc::new(Position::default());
    let mut batch = BatchBuilder::new(subscription.columns.len());
    let mut rows = conn.exec_iter(sql, ()).await?;
    while let Some(values) = rows.next().await? {
        let mut row = batch.row();
        for ((place, asked), value) in places.iter().zip(&columns).zip(values.unwrap()) {
            if value != Value::NULL {
                row.set::<BatchFull>(*place, |out| {
                    asked.write(&value, out);
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
