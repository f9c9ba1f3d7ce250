//! Migrations: the tables that the daemon needs, and the statements for those who run their own.
//!
//! Promise: applying them again changes nothing, and two may apply them at once. The position table is the daemon's own
//! and has a version, kept in its comment, where no second table can disagree with it; outbox tables belong to the
//! application and are only created where they are missing.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};

use crate::table::{TableName, quote};

/// Migrations of the position table: the first makes version 1, and so on.
const POSITIONS: [&str; 3] = [
    include_str!("../../migrations/0001_positions.sql"),
    include_str!("../../migrations/0003_paused.sql"),
    include_str!("../../migrations/0004_parked.sql"),
];

/// The newest version of the position table.
pub const NEWEST: usize = POSITIONS.len();

const OUTBOX: &str = include_str!("../../migrations/0002_outbox_table.sql");

/// What the comment of a position table begins with; its version follows.
const COMMENT: &str = "outboxd positions, version ";

/// How long to wait for another who migrates at the same time, in seconds.
const LOCK_SECONDS: u32 = 60;

/// Why a migration was not applied.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The server refuses, or cannot be reached.
    #[error(transparent)]
    Server(#[from] Error),
    /// There is another table under the position table's name.
    #[error("{0} is not a position table of outboxd; name another in positions.schema and positions.table")]
    Foreign(TableName),
    /// A newer outboxd made the table what it is.
    #[error("{table} has version {found}, and this outboxd knows versions up to {known}; run the newer outboxd")]
    Newer {
        /// The position table.
        table: TableName,
        /// Its version.
        found: usize,
        /// The newest that is known here.
        known: usize,
    },
    /// Another process is at it.
    #[error("another process has been migrating {0} for {LOCK_SECONDS} s; run this again when it is done")]
    Busy(TableName),
}

/// The statements that bring the position table from `version` (0: not there) to the newest.
pub fn of_positions(table: &TableName, version: usize) -> Vec<String> {
    POSITIONS.iter().skip(version).flat_map(|template| fill(template, table)).collect()
}

/// The statements that create outbox tables where they are missing.
pub fn of_outboxes(tables: &[TableName]) -> Vec<String> {
    let mut all: Vec<_> = tables.iter().flat_map(|table| fill(OUTBOX, table)).collect();
    let mut seen = std::collections::HashSet::new();
    all.retain(|sql| seen.insert(sql.clone()));
    all
}

/// How the migration defines a column of an outbox table, if it is one of its own.
pub(super) fn definition(column: &str) -> Option<&'static str> {
    let of = |line: &'static str| {
        let (name, definition) = line.trim().split_once(' ')?;
        name.eq_ignore_ascii_case(column).then(|| definition.split(" COMMENT").next().unwrap_or(definition).trim())
    };
    OUTBOX.lines().find_map(of)
}

fn fill(template: &str, table: &TableName) -> Vec<String> {
    let filled = template.replace("{schema}", &quote(table.schema())).replace("{table}", &quote(table.table()));
    let lines = filled.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join("\n");
    let statements = lines.split(";\n").map(|sql| sql.trim().trim_end_matches(';').to_owned());
    statements.filter(|sql| !sql.is_empty()).collect()
}

/// Brings the position table to the newest version; returns the version it had before, 0 when it was not there.
pub async fn positions(conn: &mut Conn, table: &TableName) -> Result<usize, MigrateError> {
    // Shared by all position tables of the server: migrating is rare.
    let locked: Option<Option<i64>> = conn.exec_first("SELECT GET_LOCK('outboxd:migrate', ?)", (LOCK_SECONDS,)).await?;
    if locked.flatten() != Some(1) {
        return Err(MigrateError::Busy(table.clone()));
    }
    let result = raise(conn, table).await;
    conn.query_drop("DO RELEASE_LOCK('outboxd:migrate')").await?;
    result
}

async fn raise(conn: &mut Conn, table: &TableName) -> Result<usize, MigrateError> {
    let comment: Option<String> = conn
        .exec_first(
            "SELECT TABLE_COMMENT FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?",
            (table.schema(), table.table()),
        )
        .await?;
    let version = match comment {
        None => 0,
        Some(comment) => version(&comment).ok_or_else(|| MigrateError::Foreign(table.clone()))?,
    };
    if version > NEWEST {
        return Err(MigrateError::Newer { table: table.clone(), found: version, known: NEWEST });
    }
    apply(conn, &of_positions(table, version)).await?;
    Ok(version)
}

fn version(comment: &str) -> Option<usize> {
    comment.strip_prefix(COMMENT)?.parse().ok()
}

/// Creates the outbox tables that are missing.
pub async fn outboxes(conn: &mut Conn, tables: &[TableName]) -> Result<(), MigrateError> {
    Ok(apply(conn, &of_outboxes(tables)).await?)
}

async fn apply(conn: &mut Conn, statements: &[String]) -> Result<(), Error> {
    for sql in statements {
        conn.query_drop(sql).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_a_column_is_that_of_the_migration() {
        assert_eq!(definition("payload"), Some("JSON NULL"));
        assert_eq!(definition("id"), Some("CHAR(36) CHARACTER SET ascii NOT NULL"));
        assert_eq!(definition("other"), None);
    }

    #[test]
    fn every_table_is_created_once_with_its_name_quoted() {
        let positions = of_positions(&TableName::new("outboxd", "positions"), 0);
        assert_eq!(positions.len(), 4, "{positions:#?}");
        assert_eq!(positions[0], "CREATE DATABASE IF NOT EXISTS `outboxd`");
        let outboxes = of_outboxes(&[TableName::new("d", "d-outbox1"), TableName::new("d", "d-outbox2")]);
        assert_eq!(outboxes.len(), 3, "{outboxes:#?}");
        assert!(outboxes[1].starts_with("CREATE TABLE IF NOT EXISTS `d`.`d-outbox1` ("));
        assert!(positions.iter().chain(&outboxes).all(|sql| !sql.contains('{') && !sql.contains(';')));
    }

    #[test]
    fn each_migration_says_which_version_it_makes() {
        for (index, template) in POSITIONS.iter().enumerate() {
            assert!(template.contains(&format!("'{COMMENT}{}'", index + 1)), "migration {}", index + 1);
        }
        assert_eq!(version("outboxd positions, version 7"), Some(7));
        assert_eq!(version(""), None);
        assert!(of_positions(&TableName::new("outboxd", "positions"), NEWEST).is_empty());
    }
}
