//! What the server says about itself: only questions here, no judgement. None of them changes anything.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row};

use super::Wanted;
use crate::mysql::cleanup::partitions::ranges;
use crate::mysql::cleanup::settings::By;
use crate::mysql::collations::Collations;
use crate::mysql::connect::Flavor;
use crate::mysql::error::{self, Verdict};
use crate::mysql::history::RECEIVED;
use crate::mysql::indexes::Indexes;
use crate::mysql::source::start;
use crate::position::Position;
use crate::table::TableName;

/// Variables that checks look at; servers leave out those they do not know.
const VARIABLES: &[&str] = &[
    "binlog_expire_logs_auto_purge",
    "binlog_expire_logs_seconds",
    "binlog_format",
    "binlog_row_image",
    "binlog_row_metadata",
    "enforce_gtid_consistency",
    "expire_logs_days",
    GROUP_NAME,
    "gtid_mode",
    "gtid_strict_mode",
    "log_bin",
    "log_replica_updates",
    "log_slave_updates",
    "lower_case_table_names",
    "max_allowed_packet",
    "read_only",
    "replica_parallel_type",
    "replica_parallel_workers",
    "replica_preserve_commit_order",
    "server_id",
    "slave_parallel_type",
    "slave_parallel_workers",
    "slave_preserve_commit_order",
];

/// Set on members of a replication group.
const GROUP_NAME: &str = "group_replication_group_name";

/// A replica that is registered with the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Replica {
    pub(super) server_id: u32,
    pub(super) host: String,
}

/// How far the server's clock is ahead of ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Skew {
    pub(super) ahead_micros: i64,
    /// How wrong the measurement may be: half the time that asking took.
    pub(super) give_or_take: Duration,
}

/// One column of an outbox table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    /// As in CREATE TABLE: `varchar(255)`.
    pub(super) kind: String,
    pub(super) nullable: bool,
    pub(super) has_default: bool,
    pub(super) generated: bool,
    pub(super) charset: Option<String>,
    /// A collation of the character set, by its id.
    pub(super) collation: Option<u16>,
    /// Most bytes of a text or blob.
    pub(super) octets: Option<u64>,
}

/// A statement that the server refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: u16,
    pub(super) message: String,
}

impl Refusal {
    /// Whether a grant is missing.
    pub(super) fn is_denied(&self) -> bool {
        error::judge(self.code) == Verdict::Denied
    }

    /// Whether what the statement is about is not there.
    pub(super) fn is_missing(&self) -> bool {
        error::judge(self.code) == Verdict::Missing
    }
}

/// One outbox table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) name: TableName,
    /// As the server writes it, which may take it in another letter case too.
    pub(super) spelling: Option<TableName>,
    /// Why SELECT does not work.
    pub(super) refusal: Option<Refusal>,
    /// `BASE TABLE` or `VIEW`.
    pub(super) kind: String,
    pub(super) engine: String,
    pub(super) has_primary_key: bool,
    /// The first column of the key that it is read by.
    pub(super) read_by: Option<String>,
    /// Whether that numbers the rows as they are inserted.
    pub(super) is_numbered: bool,
    pub(super) columns: Vec<Column>,
    /// The first column of each index.
    pub(super) indexed: Vec<String>,
    /// Why DELETE does not work, where rows are to be deleted.
    pub(super) undeletable: Option<Refusal>,
    /// How many partitions by RANGE it has, where partitions are to be dropped.
    pub(super) ranges: usize,
}

/// Everything that checks of the log's server look at. `None`: the server does not tell us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) flavor: Flavor,
    pub(super) account: String,
    pub(super) variables: BTreeMap<String, String>,
    /// Privileges on `*.*`, in capitals, those of active roles among them.
    pub(super) privileges: Vec<String>,
    /// Schemas that are logged only, and those that are not logged.
    pub(super) filters: Option<(String, String)>,
    pub(super) is_replica: Option<bool>,
    /// Why a member of a replication group does not tell what it has received.
    pub(super) unreceived: Option<Refusal>,
    pub(super) replicas: Option<Vec<Replica>>,
    pub(super) skew: Skew,
    /// Files of the log with their sizes.
    pub(super) logs: Option<Vec<(String, u64)>>,
    /// Where the log begins.
    pub(super) beginning: Option<Position>,
    /// Where the log ends.
    pub(super) end: Option<Position>,
    pub(super) transactional: Vec<String>,
    pub(super) tables: Vec<Table>,
}

impl Facts {
    pub(super) async fn ask(conn: &mut Conn, wanted: &[Wanted]) -> Result<Self, Error> {
        let flavor = Flavor::of(conn).await?;
        let names = VARIABLES.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
        let variables: Vec<(String, String)> =
            conn.query(format!("SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names})")).await?;
        let in_group = variables.iter().any(|(name, value)| name == GROUP_NAME && !value.is_empty());
        let unreceived =
            if in_group { refusal(conn, &format!("SELECT 1 FROM {RECEIVED} LIMIT 0")).await? } else { None };
        let account: Option<String> = conn.query_first("SELECT CURRENT_USER()").await?;
        let grants: Vec<String> = conn.query("SHOW GRANTS").await?;
        let collations = Collations::read(conn).await?;
        let mut tables = Vec::with_capacity(wanted.len());
        for wanted in wanted {
            tables.push(table(conn, wanted, &collations).await?);
        }
        Ok(Self {
            flavor,
            account: super::account(&account.unwrap_or_default()),
            variables: variables.into_iter().collect(),
            privileges: grants.iter().flat_map(|grant| privileges(grant)).collect(),
            filters: filters(conn, flavor).await?,
            is_replica: told(conn.query::<Row, _>(flavor.replica_status()).await)?.map(|rows| !rows.is_empty()),
            unreceived,
            replicas: replicas(conn, flavor).await?,
            skew: skew(conn).await?,
            logs: told(conn.query::<Row, _>("SHOW BINARY LOGS").await)?.map(|rows| files(&rows)),
            beginning: told(start(conn, true).await)?.flatten(),
            end: told(start(conn, false).await)?.flatten(),
            transactional: conn
                .query("SELECT ENGINE FROM information_schema.ENGINES WHERE TRANSACTIONS = 'YES'")
                .await?,
            tables,
        })
    }

    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The most that one statement, so one row, may take.
    pub(super) fn max_packet(&self) -> u64 {
        self.variable("max_allowed_packet").and_then(|text| text.parse().ok()).unwrap_or(u64::MAX)
    }
}

/// An answer, or `None` where the server refuses to give it.
fn told<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(Error::Server(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Why the statement does not work, if it does not.
pub(super) async fn refusal(conn: &mut Conn, sql: &str) -> Result<Option<Refusal>, Error> {
    match conn.query_drop(sql).await {
        Ok(()) => Ok(None),
        Err(Error::Server(error)) => Ok(Some(Refusal { code: error.code, message: error.message })),
        Err(error) => Err(error),
    }
}

/// The privileges of a line of SHOW GRANTS, if it is about `*.*`. The line itself may hold a hash: it goes nowhere else.
fn privileges(grant: &str) -> Vec<String> {
    let named = grant.strip_prefix("GRANT ").and_then(|grant| grant.split_once(" ON *.* TO "));
    named.map_or_else(Vec::new, |(names, _)| names.split(',').map(|name| name.trim().to_uppercase()).collect())
}

async fn filters(conn: &mut Conn, flavor: Flavor) -> Result<Option<(String, String)>, Error> {
    let row: Option<Option<Row>> = told(conn.query_first(flavor.log_status()).await)?;
    let text = |row: &Row, name| row.get::<Option<String>, _>(name).flatten().unwrap_or_default();
    Ok(row.flatten().map(|row| (text(&row, "Binlog_Do_DB"), text(&row, "Binlog_Ignore_DB"))))
}

pub(super) async fn replicas(conn: &mut Conn, flavor: Flavor) -> Result<Option<Vec<Replica>>, Error> {
    let rows: Option<Vec<Row>> = told(conn.query(flavor.replicas()).await)?;
    let replica = |row: &Row| {
        Some(Replica { server_id: row.get(0)?, host: row.get::<Option<String>, _>(1).flatten().unwrap_or_default() })
    };
    Ok(rows.map(|rows| rows.iter().filter_map(replica).collect()))
}

fn files(rows: &[Row]) -> Vec<(String, u64)> {
    rows.iter().filter_map(|row| Some((row.get(0)?, row.get(1)?))).collect()
}

/// Asked three times; the quickest answer is the best.
async fn skew(conn: &mut Conn) -> Result<Skew, Error> {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let mut best: Option<Skew> = None;
    for _ in 0..3 {
        let before = now();
        let theirs: Option<i64> = conn.query_first("SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)").await?;
        let took = now().saturating_sub(before);
        let ours = i64::try_from(before + took / 2).unwrap_or(i64::MAX);
        let give_or_take = Duration::from_micros(u64::try_from(took / 2).unwrap_or(u64::MAX));
        let skew = Skew { ahead_micros: theirs.unwrap_or(ours).saturating_sub(ours), give_or_take };
        if best.is_none_or(|best| skew.give_or_take < best.give_or_take) {
            best = Some(skew);
        }
    }
    Ok(best.unwrap_or_default())
}

/// A line of `information_schema.COLUMNS`.
type Answer = (String, String, String, bool, String, Option<String>, Option<u64>);

async fn table(conn: &mut Conn, wanted: &Wanted, collations: &Collations) -> Result<Table, Error> {
    let name = &wanted.table;
    let refusal = refusal(conn, &format!("SELECT 1 FROM {} LIMIT 0", name.quoted())).await?;
    let place = (name.schema(), name.table());
    let lines: Vec<(String, String, String, Option<String>)> = conn
        .exec(
            "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE FROM information_schema.TABLES \
             WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?",
            place,
        )
        .await?;
    // Of tables that differ in their letter case only, it is the one that is named.
    let line = lines.into_iter().min_by_key(|(schema, table, ..)| (schema.as_str(), table.as_str()) != place);
    let (spelling, kind, engine) = line
        .map(|(schema, table, kind, engine)| (Some(TableName::new(&schema, &table)), kind, engine))
        .unwrap_or_default();
    let indexes = Indexes::read(conn, name).await?;
    let (key, numbered) = (indexes.primary(), indexes.numbering().map(|(column, _)| column.to_owned()));
    let columns: Vec<Answer> = conn
        .exec(
            "SELECT COLUMN_NAME, COLUMN_TYPE, IS_NULLABLE, COLUMN_DEFAULT IS NOT NULL OR EXTRA LIKE '%DEFAULT_GENERATED%' OR \
             EXTRA LIKE '%auto_increment%', EXTRA, CHARACTER_SET_NAME, CHARACTER_OCTET_LENGTH FROM \
             information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION",
            place,
        )
        .await?;
    let column = |(name, kind, nullable, has_default, extra, charset, octets): Answer| Column {
        name,
        kind,
        nullable: nullable == "YES",
        has_default,
        // Not DEFAULT_GENERATED, which is a default that is an expression.
        generated: extra.to_uppercase().split_whitespace().any(|word| word == "GENERATED"),
        collation: collations.of(charset.as_deref()),
        charset,
        octets,
    };
    let columns = columns.into_iter().map(column).collect();
    let by = wanted.cleaned.as_ref().map(|cleaned| cleaned.by);
    let undeletable = if by == Some(By::Rows) { undeletable(conn, name).await? } else { None };
    let ranges = if by == Some(By::Partitions) { ranges(conn, name).await?.len() } else { 0 };
    let engine = engine.unwrap_or_default();
    Ok(Table {
        name: name.clone(),
        spelling,
        refusal,
        kind,
        engine,
        has_primary_key: !key.is_empty(),
        is_numbered: numbered.is_some(),
        read_by: numbered.or_else(|| key.into_iter().next()),
        columns,
        indexed: indexes.first().map(ToOwned::to_owned).collect(),
        undeletable,
        ranges,
    })
}

/// Rolled back, and about no row: the server only says whether it would.
async fn undeletable(conn: &mut Conn, table: &TableName) -> Result<Option<Refusal>, Error> {
    conn.query_drop("START TRANSACTION").await?;
    let refusal = refusal(conn, &format!("DELETE FROM {} WHERE FALSE", table.quoted())).await?;
    conn.query_drop("ROLLBACK").await?;
    Ok(refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_grants_when_read_then_privileges_are_whole_names_of_the_whole_server() {
        let line =
            "GRANT REPLICATION SLAVE ADMIN, SELECT ON *.* TO `u`@`%` IDENTIFIED BY PASSWORD '*41' WITH GRANT OPTION";
        assert_eq!(privileges(line), ["REPLICATION SLAVE ADMIN", "SELECT"]);
        assert_eq!(privileges("GRANT ALL PRIVILEGES ON *.* TO `u`@`%`"), ["ALL PRIVILEGES"]);
        assert!(privileges("GRANT SELECT ON `d`.* TO `u`@`%`").is_empty());
        assert!(privileges("GRANT `r`@`%` TO `u`@`%`").is_empty());
    }
}
