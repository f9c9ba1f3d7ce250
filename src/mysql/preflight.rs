//! Preflight: whether the server is set up so that every event can be relayed. Each finding names the setting, what was
//! expected, what was found, and the cure.

use std::collections::HashMap;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};
use serde::Serialize;

use super::connect::Flavor;
use crate::source::Subscription;
use crate::table::TableName;

/// One thing that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The setting, grant, table or column.
    pub setting: String,
    /// What the daemon needs.
    pub expected: String,
    /// What there is.
    pub found: String,
    /// The statement or key that cures it.
    pub cure: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { setting, expected, found, cure } = self;
        write!(f, "{setting}: expected {expected}, found {found}; cure: {cure}")
    }
}

/// Existing base tables, for patterns.
pub async fn tables(conn: &mut Conn) -> Result<Vec<TableName>, Error> {
    let rows: Vec<(String, String)> = conn
        .query("SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE' ORDER BY 1, 2")
        .await?;
    Ok(rows.into_iter().map(|(schema, table)| TableName::new(&schema, &table)).collect())
}

/// Looks at the server and the subscribed tables. Empty when all is well.
pub async fn check(conn: &mut Conn, subscriptions: &[Subscription], server_id: u32) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    let flavor = Flavor::of(conn).await?;
    let variables: Vec<(String, String)> = conn
        .query("SHOW GLOBAL VARIABLES WHERE Variable_name IN ('log_bin', 'binlog_format', 'binlog_row_image', 'server_id')")
        .await?;
    let variables: HashMap<String, String> = variables.into_iter().collect();
    let found = |name: &str| variables.get(name).cloned().unwrap_or_else(|| "unset".to_owned());
    for (setting, expected, cure) in [
        ("log_bin", "ON", "start the server with log_bin"),
        ("binlog_format", "ROW", "SET GLOBAL binlog_format = 'ROW', and in the server's configuration"),
        ("binlog_row_image", "FULL", "SET GLOBAL binlog_row_image = 'FULL', and in the server's configuration"),
    ] {
        let found = found(setting);
        // Servers that know ROW only have no binlog_format any more.
        if !(found.eq_ignore_ascii_case(expected) || setting == "binlog_format" && found == "unset") {
            let (setting, expected, cure) = (setting.to_owned(), expected.to_owned(), cure.to_owned());
            findings.push(Finding { setting, expected, found, cure });
        }
    }
    if found("server_id") == server_id.to_string() {
        findings.push(Finding {
            setting: "mysql.server_id".to_owned(),
            expected: "an id that no server or replica has".to_owned(),
            found: format!("{server_id}, the server's own"),
            cure: "set mysql.server_id to another number, or leave it out".to_owned(),
        });
    }
    grants(conn, flavor, &mut findings).await?;
    for subscription in subscriptions {
        columns(conn, subscription, &mut findings).await?;
    }
    Ok(findings)
}

async fn grants(conn: &mut Conn, flavor: Flavor, findings: &mut Vec<Finding>) -> Result<(), Error> {
    let grants: Vec<String> = conn.query("SHOW GRANTS").await?;
    let global: Vec<String> =
        grants.iter().filter(|grant| grant.contains(" ON *.* ")).map(|g| g.to_uppercase()).collect();
    let has = |names: &[&str]| {
        global.iter().any(|grant| grant.contains("ALL PRIVILEGES") || names.iter().any(|name| grant.contains(name)))
    };
    let client = if flavor.mariadb { "BINLOG MONITOR" } else { "REPLICATION CLIENT" };
    for (name, names) in [
        ("REPLICATION SLAVE", &["REPLICATION SLAVE", "REPLICATION REPLICA"][..]),
        (client, &["REPLICATION CLIENT", "BINLOG MONITOR"]),
    ] {
        if !has(names) {
            findings.push(Finding {
                setting: format!("grant {name}"),
                expected: "granted on *.*".to_owned(),
                found: "not granted".to_owned(),
                cure: format!("GRANT {name} ON *.* TO CURRENT_USER"),
            });
        }
    }
    Ok(())
}

async fn columns(conn: &mut Conn, subscription: &Subscription, findings: &mut Vec<Finding>) -> Result<(), Error> {
    let table = &subscription.table;
    let there: Vec<String> = conn
        .exec(
            "SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?",
            (table.schema(), table.table()),
        )
        .await?;
    if there.is_empty() {
        findings.push(Finding {
            setting: format!("table {table}"),
            expected: "exists, and SELECT is granted".to_owned(),
            found: "not there or not visible".to_owned(),
            cure: format!("outboxd migrate; GRANT SELECT ON {} TO CURRENT_USER", table.quoted()),
        });
        return Ok(());
    }
    for wanted in subscription.columns.iter() {
        if !there.iter().any(|column| column.eq_ignore_ascii_case(wanted)) {
            findings.push(Finding {
                setting: format!("column {table}.{wanted}"),
                expected: "exists".to_owned(),
                found: format!("columns {}", there.join(", ")),
                cure: "add it, or name another under [outbox.columns]".to_owned(),
            });
        }
    }
    Ok(())
}
