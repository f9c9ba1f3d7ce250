//! Whether a table still has every row that was ever inserted into it.
//!
//! Promise: a table is called whole only if every number that was handed out for a row is in one; below the lowest one,
//! where our own cleaning deletes, a number is taken for one of an acknowledged row. Numbers that are handed out for
//! transactions under way are waited for a moment: what they insert is in the log that is left.
//!
//! Numbers are missing for harmless reasons too: a rollback uses them up. Nothing tells these from deleted rows. And TRUNCATE
//! begins them anew: a table that was truncated and has got rows since is not told from one that was not.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};
use tokio::time::{Instant, sleep};

use super::patiently;
use crate::mysql::cleanup::partitions::is_aside;
use crate::mysql::indexes::Indexes;
use crate::source::{Lapse, Remains};
use crate::table::{TableName, quote};

/// How long numbers of transactions under way are waited for.
const UNDER_WAY: Duration = Duration::from_secs(5);

/// How often they are asked for meanwhile.
const AGAIN: Duration = Duration::from_millis(500);

/// How many missing ranges are named.
const NAMED: usize = 10;

/// A column that numbers a table's rows.
struct Numbers {
    table: String,
    column: String,
    /// The next one.
    next: u64,
    /// From where on each is to be there.
    first: u64,
}

/// What a table shows of rows that are gone. Reads its index of numbers, without locks.
pub(super) async fn remains(conn: &mut Conn, table: &TableName, lapse: &Lapse) -> Result<Remains, Error> {
    let indexes = Indexes::read(conn, table).await?;
    let Some((column, _)) = indexes.numbering() else {
        let why = "it has no AUTO_INCREMENT column with a unique index of its own, which would show what was deleted";
        return Ok(Remains::Doubtful(why.to_owned()));
    };
    if let Some(aside) = is_aside(conn, table).await? {
        return Ok(Remains::Doubtful(format!("cleaning has set rows of it aside, which are in {aside}")));
    }
    if let Some(made) = made_since(conn, table, lapse).await? {
        return Ok(Remains::Doubtful(format!("it was created or rebuilt at {made} UTC, after its position was saved")));
    }
    let next: Option<Option<u64>> = conn
        .exec_first(
            "SELECT AUTO_INCREMENT FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?",
            (table.schema(), table.table()),
        )
        .await?;
    let name = quote(column);
    let sql = format!("SELECT CAST(MIN({name}) AS UNSIGNED) FROM {} WHERE {name} > 0", table.quoted());
    let lowest: Option<Option<u64>> = patiently(conn.query_first(sql)).await?;
    let Some(lowest) = lowest.flatten() else {
        return Ok(Remains::Doubtful("it is empty: its rows were deleted or truncated, if it had any".to_owned()));
    };
    let first = if lapse.is_cleaned { lowest } else { 1 };
    let numbers = Numbers { table: table.quoted(), column: name, next: next.flatten().unwrap_or(1), first };
    let deadline = Instant::now() + UNDER_WAY;
    loop {
        let missing = numbers.missing(conn).await?;
        if missing == 0 {
            return Ok(Remains::Whole);
        }
        if Instant::now() >= deadline {
            let ranges = numbers.ranges(conn).await?;
            let many = if ranges.len() > NAMED { ", …" } else { "" };
            let named = ranges[..ranges.len().min(NAMED)].join(", ");
            return Ok(Remains::Doubtful(format!(
                "of the numbers that `{column}` was given, {missing} are in no row ({named}{many}), because it was deleted or \
                 its transaction was rolled back"
            )));
        }
        sleep(AGAIN).await;
    }
}

/// When the table was made or rebuilt, to the second, if that was not before its position was saved. TRUNCATE does not show.
async fn made_since(conn: &mut Conn, table: &TableName, lapse: &Lapse) -> Result<Option<String>, Error> {
    let Some(saved) = lapse.saved_micros else { return Ok(None) };
    let made: Option<Option<String>> = conn
        .exec_first(
            "SELECT CAST(CREATE_TIME AS CHAR) FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? AND \
             (UNIX_TIMESTAMP(CREATE_TIME) + 1) * 1000000 > ?",
            (table.schema(), table.table(), saved),
        )
        .await?;
    Ok(made.flatten())
}

impl Numbers {
    /// How many are in no row.
    async fn missing(&self, conn: &mut Conn) -> Result<u64, Error> {
        let Self { table, column, next, first } = self;
        let sql = format!("SELECT COUNT(*) FROM {table} WHERE {column} >= {first} AND {column} < {next}");
        let there: Option<u64> = patiently(conn.query_first(sql)).await?;
        Ok(next.saturating_sub(*first).saturating_sub(there.unwrap_or(0)))
    }

    /// The first ranges of those.
    async fn ranges(&self, conn: &mut Conn) -> Result<Vec<String>, Error> {
        let Self { table, column, next, first } = self;
        let sql = format!(
            "SELECT CAST(gap.low AS UNSIGNED), CAST(gap.high AS UNSIGNED) FROM (SELECT COALESCE(LAG({column}) OVER (ORDER BY \
             {column}), {first} - 1) + 1 AS low, {column} - 1 AS high FROM {table} WHERE {column} >= {first} AND {column} < \
             {next} UNION ALL SELECT COALESCE(MAX({column}), {first} - 1) + 1, {next} - 1 FROM {table} WHERE {column} >= \
             {first} AND {column} < {next}) AS gap WHERE gap.low <= gap.high ORDER BY gap.low LIMIT {}",
            NAMED + 1
        );
        let ranges: Vec<(u64, u64)> = patiently(conn.query(sql)).await?;
        let range = |(low, high): (u64, u64)| if low == high { low.to_string() } else { format!("{low}-{high}") };
        Ok(ranges.into_iter().map(range).collect())
    }
}
