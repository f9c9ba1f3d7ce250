//! Deleting old rows of an outbox table.
//!
//! Promise: rows are given out together with a place in the log that every transaction of theirs stands before; so whoever
//! knows that Kafka has acknowledged everything up to there may have them deleted. Only rows that were given out are
//! deleted: one that is inserted later stays, however small its key and however old its time. Nobody waits: keys are read
//! without locks, and some rows at a time are deleted by their keys, each group in a transaction of its own that gives way to
//! whoever holds a lock. The deletes are in the log, for replicas; relays pass over them.

mod end;
pub mod partitions;
pub mod settings;

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Params, Row, Value};
use tokio::time::timeout;

use super::connect::Flavor;
use super::error::{self, Verdict};
use super::servers::{Identity, Servers};
use super::snapshot::layout::{ALIAS, Layout};
use super::snapshot::point::prepare;
use crate::position::{Key, Position};
use crate::source::Subscription;
use crate::table::{TableName, quote};

/// Keys that are given out at once.
pub const LOOK: usize = 10_000;

/// Rows that are deleted in one transaction.
pub const CHUNK: usize = 200;

/// How long the server may take for an answer: without an index it reads the whole table.
const ANSWER: Duration = Duration::from_mins(5);

/// How long it may take to read what may be a large part of a table.
const READ: Duration = Duration::from_hours(1);

/// Why a table is not cleaned.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// The server refuses, or cannot be reached.
    #[error(transparent)]
    Server(#[from] Error),
    /// The table or the server is not one to be cleaned.
    #[error("{0}")]
    Unfit(String),
    /// The server is silent.
    #[error("no answer within {}", humantime::format_duration(*.0))]
    Silent(Duration),
}

/// Rows that are old enough.
#[derive(Debug)]
pub struct Old {
    /// Their primary keys.
    pub keys: Vec<Key>,
    /// Every transaction that wrote them is before this place.
    pub end: Position,
}

/// How large a table is, by the server's own estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Rows.
    pub rows: u64,
    /// Bytes of data and indexes.
    pub bytes: u64,
}

/// A session that cleans one table.
pub struct Cleaner {
    conn: Conn,
    mariadb: bool,
    layout: Layout,
    /// The condition that a row is old.
    old: String,
    /// That it is not, or has no time.
    young: String,
}

impl Cleaner {
    /// Rows are old that are older than `keep` by their `column`, which has milliseconds or a date and time in UTC.
    pub async fn open(
        servers: &Servers,
        table: &TableName,
        column: &str,
        keep: Duration,
    ) -> Result<Self, CleanupError> {
        let mut conn = servers.connect().await?;
        patiently(ANSWER, async {
            if Identity::of(&mut conn).await?.read_only {
                let why = "the server is read-only; rows are deleted where they are written, and replicated from there";
                return Err(CleanupError::Unfit(why.to_owned()));
            }
            let flavor = Flavor::of(&mut conn).await?;
            prepare(&mut conn, flavor).await?;
            // Locks on the rows that are deleted, and on no gap between them; whoever has one already goes first.
            conn.query_drop("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await?;
            conn.query_drop("SET SESSION autocommit = 1, innodb_lock_wait_timeout = 1, lock_wait_timeout = 1").await?;
            // An alias that rows are deleted of is looked for in the schema in use.
            conn.query_drop(format!("USE {}", quote(table.schema()))).await?;
            let wanted = Subscription { table: table.clone(), columns: [column.to_owned()].into() };
            let layout = Layout::read(&mut conn, &wanted, None).await?;
            let layout = layout.map_err(|fault| CleanupError::Unfit(fault.to_string()))?;
            let kind: Option<String> = conn
                .exec_first(
                    "SELECT DATA_TYPE FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? AND \
                     COLUMN_NAME = ?",
                    (table.schema(), table.table(), column),
                )
                .await?;
            let kind = kind.unwrap_or_default();
            let (old, young) = age(column, &kind, keep).ok_or_else(|| {
                CleanupError::Unfit(format!("column `{column}` {kind} is no date and time, and no whole number"))
            })?;
            Ok((flavor.mariadb, layout, old, young))
        })
        .await
        .map(|(mariadb, layout, old, young)| Self { conn, mariadb, layout, old, young })
    }

    /// Rows that are old, at most [`LOOK`] of them; deletes nothing.
    pub async fn look(&mut self) -> Result<Old, CleanupError> {
        let Self { conn, layout, old, mariadb, .. } = self;
        let table = layout.table.quoted();
        patiently(ANSWER, async {
            let sql = format!("SELECT {} FROM {table} AS {ALIAS} WHERE {old} LIMIT {LOOK}", layout.keys());
            let rows: Vec<Row> = conn.exec(sql, ()).await?;
            let keys = rows.into_iter().map(|row| layout.key_in(row)).collect();
            // Asked for after the rows were seen.
            let end = end::end(conn, *mariadb).await?;
            Ok(Old { keys, end })
        })
        .await
    }

    /// Deletes those of these rows, [`CHUNK`] at most, that are still there, and old; gives how many.
    pub async fn delete(&mut self, keys: &[Key]) -> Result<u64, CleanupError> {
        let mut parameters = Vec::new();
        let these = self.layout.one_of(keys, &mut parameters);
        let sql = format!("DELETE {ALIAS} {} WHERE ({these}) AND {}", self.layout.from(), self.old);
        patiently(ANSWER, async {
            self.conn.exec_drop(sql, Params::Positional(parameters)).await?;
            Ok(self.conn.affected_rows())
        })
        .await
    }

    /// How large the table is now.
    pub async fn size(&mut self) -> Result<Size, CleanupError> {
        let names = (self.layout.table.schema(), self.layout.table.table());
        let sql = "SELECT TABLE_ROWS, DATA_LENGTH + INDEX_LENGTH FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? \
                   AND TABLE_NAME = ?";
        let answer: Option<(Option<u64>, Option<u64>)> =
            patiently(ANSWER, async { Ok(self.conn.exec_first(sql, names).await?) }).await?;
        let (rows, bytes) = answer.unwrap_or_default();
        Ok(Size { rows: rows.unwrap_or(0), bytes: bytes.unwrap_or(0) })
    }

    /// Ends the session.
    pub async fn close(self) {
        let _ = timeout(ANSWER, self.conn.disconnect()).await;
    }
}

impl CleanupError {
    /// Whether somebody else had a row locked, so that it was not deleted this time.
    pub fn is_locked(&self) -> bool {
        matches!(self, Self::Server(error) if error::of(error) == Verdict::Locked)
    }
}

impl Layout {
    /// The condition that a row has one of these keys.
    fn one_of(&self, keys: &[Key], parameters: &mut Vec<Value>) -> String {
        let one = |key: &Key| {
            let parts = self.key.iter().zip(key.columns()).map(|(part, value)| {
                parameters.push(part.value(value));
                format!("{} = {}", part.name, part.parameter)
            });
            format!("({})", parts.collect::<Vec<_>>().join(" AND "))
        };
        keys.iter().map(one).collect::<Vec<_>>().join(" OR ")
    }
}

/// Whether the values of a column of this type can be compared with a time.
pub(super) fn is_time(data_type: &str) -> bool {
    age("", data_type, Duration::ZERO).is_some()
}

/// The condition that a row is older than `keep`, and the opposite. One without a time, or from before the epoch, is not
/// older.
fn age(column: &str, data_type: &str, keep: Duration) -> Option<(String, String)> {
    let column = format!("{ALIAS}.{}", quote(column));
    let (first, last) = match data_type.to_lowercase().as_str() {
        "datetime" | "timestamp" | "date" => {
            ("'1970-01-02'", format!("UTC_TIMESTAMP(6) - INTERVAL {} MICROSECOND", keep.as_micros()))
        }
        "int" | "bigint" => ("1", format!("CAST(UNIX_TIMESTAMP(NOW(6)) * 1000 AS SIGNED) - {}", keep.as_millis())),
        _ => return None,
    };
    let old = format!("({column} >= {first} AND {column} < {last})");
    Some((old, format!("({column} IS NULL OR {column} < {first} OR {column} >= {last})")))
}

async fn patiently<T>(
    patience: Duration,
    answer: impl Future<Output = Result<T, CleanupError>>,
) -> Result<T, CleanupError> {
    timeout(patience, answer).await.map_err(|_| CleanupError::Silent(patience))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_old_by_a_time_or_by_milliseconds() {
        let day = Duration::from_hours(24);
        let (old, young) = age("created`at", "datetime", day).unwrap();
        assert!(old.contains("o.`created``at` < UTC_TIMESTAMP(6) - INTERVAL 86400000000 MICROSECOND"), "{old}");
        assert!(young.contains("IS NULL OR o.`created``at` < '1970-01-02' OR"), "{young}");
        assert!(age("at", "BIGINT", day).unwrap().0.ends_with(" - 86400000)"));
        assert!(!is_time("varchar") && !is_time("double"));
    }
}
