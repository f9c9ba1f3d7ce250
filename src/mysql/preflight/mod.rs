//! Preflight of MySQL and MariaDB: whether every event can be relayed from this server, in order and only once committed.
//!
//! Questions (`facts`) and judgement (a file for each group) are apart, so the judgement needs no server to be tested.

mod binlog;
mod cleanup;
mod facts;
mod grants;
mod identity;
mod order;
mod positions;
mod tables;
#[cfg(test)]
mod tests;
pub mod tls;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};

use self::facts::Facts;
pub use self::positions::Store;
use crate::mysql::cleanup::partitions::has_rows_aside;
use crate::mysql::cleanup::settings::By;
use crate::preflight::Check;
use crate::table::TableName;

/// What the configuration wants of one outbox table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The table.
    pub table: TableName,
    /// The columns that are read.
    pub columns: Vec<WantedColumn>,
    /// Whether it is read itself when it has no saved position.
    pub reads_table: bool,
    /// Whether it is read itself when the log has lost what comes after its position.
    pub recovers: bool,
    /// How old rows are deleted, if they are.
    pub cleaned: Option<Cleaned>,
}

/// How old rows are deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cleaned {
    /// The column with their time.
    pub column: String,
    /// What is deleted at once.
    pub by: By,
}

/// One column that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedColumn {
    /// Its name.
    pub name: String,
    /// Whether a row in which it is NULL cannot become a record.
    pub required: bool,
}

/// The id that the daemon shows to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerId {
    /// The id.
    pub id: u32,
    /// Whether it was configured, not drawn.
    pub configured: bool,
    /// Whether the daemon that asks shows it already, so that it is in use.
    pub is_shown: bool,
}

/// The largest row that a table may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Widest {
    /// The table.
    pub table: TableName,
    /// Bytes of all columns that are read, as text.
    pub bytes: u64,
    /// The widest column with its type, for people.
    pub column: String,
}

/// What the log's server and the store of positions answered.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    /// The checks.
    pub checks: Vec<Check>,
    /// The largest row of each table that is there.
    pub widest: Vec<Widest>,
}

/// Existing base tables, for patterns.
pub async fn tables(conn: &mut Conn) -> Result<Vec<TableName>, Error> {
    let rows: Vec<(String, String)> = conn
        .query("SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE' ORDER BY 1, 2")
        .await?;
    let names = rows.into_iter().map(|(schema, table)| TableName::new(&schema, &table));
    Ok(names.filter(|table| !has_rows_aside(table)).collect())
}

/// Checks the server of the log and the outbox tables on it; positions too, as far as the store could be asked.
pub async fn check(
    conn: &mut Conn,
    wanted: &[Wanted],
    server_id: ServerId,
    store: Option<&Store>,
) -> Result<Answers, Error> {
    let mut facts = Facts::ask(conn, wanted).await?;
    identity::outwait_the_dead(conn, &mut facts, server_id, store).await?;
    let mut checks = binlog::check(&facts, wanted);
    checks.extend(identity::check(&facts, server_id, store));
    checks.extend(grants::check(&facts));
    checks.extend(tables::check(&facts, wanted));
    checks.extend(order::check(&facts, wanted, store));
    checks.extend(cleanup::check(&facts, wanted));
    if let Some(store) = store {
        checks.extend(positions::check(&facts, wanted, store));
    }
    Ok(Answers { checks, widest: tables::widest(&facts, wanted) })
}

/// `u@%` as `'u'@'%'`, for statements.
fn account(text: &str) -> String {
    let (user, host) = text.rsplit_once('@').unwrap_or((text, "%"));
    format!("'{}'@'{}'", user.replace('\'', "''"), host.replace('\'', "''"))
}
