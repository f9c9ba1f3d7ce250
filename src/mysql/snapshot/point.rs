//! Sessions that read tables, and where a table starts.
//!
//! A point serves if the transactions before it are visible to whoever reads the table later: then the log after it brings
//! everything else, and what the table shows of that is left out. So nobody has to be stopped to find one.
//!
//! - MySQL with GTIDs: `gtid_executed` gets a transaction after the engine has committed it.
//! - MySQL without: the beginning of the newest file; a file is begun when everything in the one before is committed.
//! - MariaDB: a consistent snapshot says its own place in the log.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row};
use tracing::warn;
use uuid::Uuid;

use super::layout::Layout;
use crate::mysql::connect::Flavor;
use crate::mysql::servers::Identity;
use crate::mysql::source::other;
use crate::position::{FilePoint, Key, Point};
use crate::source::SourceError;

/// Makes a session one that reads as the log's decoder writes, and that nothing ends while it waits.
pub(in crate::mysql) async fn prepare(conn: &mut Conn, flavor: Flavor) -> Result<(), Error> {
    conn.query_drop(
        "SET SESSION time_zone = '+00:00', sql_mode = '', wait_timeout = 31536000, net_write_timeout = 31536000",
    )
    .await?;
    conn.query_drop("SET NAMES utf8mb4").await?;
    conn.query_drop("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
    let unknown_to_some = if flavor.mariadb {
        ["max_statement_time = 0", "idle_transaction_timeout = 0", "idle_readonly_transaction_timeout = 0"]
    } else {
        // Generated primary keys are in the log; the dictionary is to show them too.
        [
            "max_execution_time = 0",
            "information_schema_stats_expiry = 0",
            "show_gipk_in_create_table_and_information_schema = ON",
        ]
    };
    for setting in unknown_to_some {
        match conn.query_drop(format!("SET SESSION {setting}")).await {
            Ok(()) | Err(Error::Server(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A point that serves; `None` when the server writes no log.
pub(super) async fn point(conn: &mut Conn, flavor: Flavor) -> Result<Option<Point>, Error> {
    if flavor.mariadb {
        return consistent(conn).await;
    }
    let mode: Option<String> = conn.query_first("SELECT @@GLOBAL.gtid_mode").await?;
    if mode.as_deref() == Some("ON") {
        let set: Option<String> = conn.query_first("SELECT @@GLOBAL.gtid_executed").await?;
        return Ok(Some(Point::Gtid(set.unwrap_or_default().parse().map_err(|error| other(&error))?)));
    }
    let logs: Vec<Row> = conn.query("SHOW BINARY LOGS").await?;
    let newest = logs.last().and_then(|row| row.get::<String, _>(0));
    let server = Uuid::parse_str(&Identity::of(conn).await?.name).ok();
    Ok(newest.map(|file| Point::File(FilePoint { file, offset: 4, server }.into())))
}

/// Fails while transactions are prepared that were so before a start: the log after it says that they are committed, and
/// not what is in them. Asked after the point was taken: what was settled since is visible, or undone.
pub(in crate::mysql) async fn settled(conn: &mut Conn) -> Result<(), SourceError> {
    let prepared: Vec<Row> = match conn.query("XA RECOVER").await {
        Ok(prepared) => prepared,
        // Without XA_RECOVER_ADMIN, MySQL says that something else is wrong (ER_XAER_RMERR).
        Err(Error::Server(error)) => {
            warn!(%error, cure = "GRANT XA_RECOVER_ADMIN, if applications use XA", "prepared_transactions_unknown");
            return Ok(());
        }
        Err(error) => return Err(SourceError::Transient(error.to_string())),
    };
    let Some(first) = prepared.first() else { return Ok(()) };
    let xid: Vec<u8> = first.get("data").unwrap_or_default();
    Err(SourceError::Transient(format!(
        "XA transactions are prepared, {} of them, the first `{}`; a table that starts waits for XA COMMIT or XA ROLLBACK",
        prepared.len(),
        xid.escape_ascii()
    )))
}

/// The place of a consistent snapshot of `MariaDB`, which is given up again.
async fn consistent(conn: &mut Conn) -> Result<Option<Point>, Error> {
    conn.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await?;
    let status: Vec<(String, String)> = conn.query("SHOW SESSION STATUS LIKE 'binlog\\_snapshot\\_%'").await?;
    let of = |name: &str| status.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    let place = of("Binlog_snapshot_file").filter(|file| !file.is_empty()).zip(of("Binlog_snapshot_position"));
    let point = match place {
        None => None,
        Some((file, offset)) => {
            let offset: u64 = offset.parse().map_err(|error| other(&error))?;
            let list: Option<Option<String>> = conn.exec_first("SELECT BINLOG_GTID_POS(?, ?)", (file, offset)).await?;
            let Some(list) = list.flatten() else {
                return Err(other(&format!("BINLOG_GTID_POS knows no place {file}:{offset}")));
            };
            Some(Point::Domains(list.parse().map_err(|error| other(&error))?))
        }
    };
    conn.query_drop("ROLLBACK").await?;
    Ok(point)
}

/// The highest key of the table.
pub(super) async fn highest(conn: &mut Conn, layout: &Layout) -> Result<Option<Key>, Error> {
    let sql = format!("SELECT {} {} ORDER BY {} LIMIT 1", layout.keys(), layout.from(), layout.order("DESC"));
    let row: Option<Row> = conn.exec_first(sql, ()).await?;
    Ok(row.map(|row| layout.key_in(row)))
}

/// Where the log ends now. What is visible stands before it, for it is written before it is committed.
pub(super) async fn end(conn: &mut Conn, flavor: Flavor) -> Result<FilePoint, Error> {
    let row: Option<Row> = conn.query_first(flavor.log_status()).await?;
    let place = row.and_then(|row| Some(FilePoint { file: row.get(0)?, offset: row.get(1)?, server: None }));
    place.ok_or_else(|| other(&"the server writes no binlog"))
}
