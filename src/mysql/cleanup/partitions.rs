//! Dropping whole partitions of an outbox table.
//!
//! Promise: the rows of a partition go together, and only when all of them are old and acknowledged. They are set aside
//! first: the partition is exchanged for an empty table, which takes milliseconds however many there are. Nobody adds to
//! them any more then, so they are looked through without a lock, and dropped when everything up to a place behind the
//! exchange is acknowledged. The newest partition that has rows stays. Nobody waits longer than a second for any of this;
//! what a process leaves set aside when it is killed, the next one finds and finishes.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};

use super::{ANSWER, Cleaner, CleanupError, READ, end, patiently};
use crate::mysql::error::{self, Verdict};
use crate::mysql::snapshot::layout::ALIAS;
use crate::mysql::statement::CLEANING;
use crate::position::Position;
use crate::table::{TableName, quote};

/// What the name of a table with rows that are set aside ends in.
const ASIDE: &str = "~outboxd";

/// The longest name that a table may have, in characters.
const LONGEST: usize = 64;

/// A partition whose rows are all old, with newer rows in later partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its name.
    pub name: String,
    /// Every transaction that wrote what was seen of it is before this place.
    pub end: Position,
}

/// Rows that are set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aside {
    /// How many.
    pub rows: u64,
    /// Whether all of them are old.
    pub is_old: bool,
    /// Every transaction that wrote them is before this place.
    pub end: Position,
}

/// The table that has a table's rows while they are set aside; `None` where no name is left for it.
pub fn aside_of(table: &TableName) -> Option<TableName> {
    let name = format!("{}{ASIDE}", table.table());
    (name.chars().count() <= LONGEST).then(|| TableName::new(table.schema(), &name))
}

/// Whether a table is one that has another one's rows while they are set aside.
pub(in crate::mysql) fn has_rows_aside(table: &TableName) -> bool {
    table.table().ends_with(ASIDE)
}

/// Whether rows of a table are set aside, and where.
pub(in crate::mysql) async fn is_aside(conn: &mut Conn, table: &TableName) -> Result<Option<TableName>, Error> {
    let Some(aside) = aside_of(table) else { return Ok(None) };
    let sql = "SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?";
    let there: Option<u8> = conn.exec_first(sql, (aside.schema(), aside.table())).await?;
    Ok(there.map(|_| aside))
}

/// A table's partitions by RANGE, in their order; none for a table that is divided in another way, or not at all.
pub(in crate::mysql) async fn ranges(conn: &mut Conn, table: &TableName) -> Result<Vec<String>, Error> {
    conn.exec(
        "SELECT PARTITION_NAME FROM information_schema.PARTITIONS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? AND \
         PARTITION_METHOD LIKE 'RANGE%' AND SUBPARTITION_NAME IS NULL ORDER BY PARTITION_ORDINAL_POSITION",
        (table.schema(), table.table()),
    )
    .await
}

impl Cleaner {
    /// What is set aside, by whomever; from now on nobody else sets rows of the table aside.
    pub async fn aside(&mut self) -> Result<Option<Aside>, CleanupError> {
        let Self { conn, layout, mariadb, young, .. } = self;
        patiently(READ, async {
            // A process that was asleep must not drop what its heir has set aside since. Ends with the session.
            let name = format!("outboxd~{:08x}", crc32fast::hash(layout.table.to_string().as_bytes()));
            if conn.exec_first("SELECT GET_LOCK(?, 0)", (name,)).await? != Some(Some(1)) {
                return Err(CleanupError::Unfit("another process cleans this table".to_owned()));
            }
            let Some(aside) = is_aside(conn, &layout.table).await? else { return Ok(None) };
            let aside = aside.quoted();
            let rows: Option<u64> = conn.query_first(format!("SELECT COUNT(*) FROM {aside}")).await?;
            let rows = rows.unwrap_or(0);
            let sql = format!("SELECT 1 FROM {aside} AS {ALIAS} WHERE {young} LIMIT 1");
            let is_old = rows == 0 || conn.query_first::<u8, _>(sql).await?.is_none();
            let end = end::end(conn, *mariadb).await?;
            Ok(Some(Aside { rows, is_old, end }))
        })
        .await
    }

    /// Deletes what is set aside, for good.
    pub async fn drop_aside(&mut self) -> Result<(), CleanupError> {
        let aside = self.aside_name()?.quoted();
        let dropped = patiently(ANSWER, async { Ok(self.conn.query_drop(format!("DROP TABLE {aside}")).await?) }).await;
        dropped.map_err(|error| self.granted(error))
    }

    /// The first partition of which every row is old, if all before it are empty; changes nothing.
    pub async fn oldest(&mut self) -> Result<Option<Partition>, CleanupError> {
        let Self { conn, layout, mariadb, young, .. } = self;
        let table = layout.table.quoted();
        patiently(READ, async {
            let names = ranges(conn, &layout.table).await?;
            if names.is_empty() {
                let why = "cleanup.by = \"partitions\" wants a table that is PARTITIONED BY RANGE, without subpartitions; or \
                           cleanup.by = \"rows\"";
                return Err(CleanupError::Unfit(why.to_owned()));
            }
            for (place, name) in names.iter().enumerate() {
                let one = format!("FROM {table} PARTITION ({}) AS {ALIAS}", quote(name));
                if conn.query_first::<u8, _>(format!("SELECT 1 {one} LIMIT 1")).await?.is_none() {
                    continue;
                }
                let later = names[place + 1..].iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ");
                let newer = format!("SELECT 1 FROM {table} PARTITION ({later}) LIMIT 1");
                let stays = later.is_empty()
                    || conn.query_first::<u8, _>(newer).await?.is_none()
                    || conn.query_first::<u8, _>(format!("SELECT 1 {one} WHERE {young} LIMIT 1")).await?.is_some();
                if stays {
                    return Ok(None);
                }
                // Asked for after the rows were seen.
                let end = end::end(conn, *mariadb).await?;
                return Ok(Some(Partition { name: name.clone(), end }));
            }
            Ok(None)
        })
        .await
    }

    /// Sets the rows of a partition aside, where nothing is yet, and drops it unless somebody has added to it.
    pub async fn set_aside(&mut self, partition: &Partition) -> Result<(), CleanupError> {
        let (table, aside) = (self.layout.table.quoted(), self.aside_name()?.quoted());
        let name = quote(&partition.name);
        let Self { conn, .. } = self;
        let done = patiently(ANSWER, async {
            conn.query_drop(format!("CREATE TABLE {aside} LIKE {table}")).await?;
            conn.query_drop(format!("ALTER TABLE {aside} REMOVE PARTITIONING")).await?;
            conn.query_drop(format!("ALTER TABLE {CLEANING} {table} EXCHANGE PARTITION {name} WITH TABLE {aside}"))
                .await?;
            conn.query_drop(format!("LOCK TABLES {table} WRITE")).await?;
            let added = format!("SELECT 1 FROM {table} PARTITION ({name}) LIMIT 1");
            let dropped = match conn.query_first::<u8, _>(added).await {
                Ok(None) => conn.query_drop(format!("ALTER TABLE {CLEANING} {table} DROP PARTITION {name}")).await,
                Ok(Some(_)) => Ok(()),
                Err(error) => Err(error),
            };
            conn.query_drop("UNLOCK TABLES").await?;
            Ok(dropped?)
        })
        .await;
        done.map_err(|error| self.granted(error))
    }

    fn aside_name(&self) -> Result<TableName, CleanupError> {
        let table = &self.layout.table;
        let too_long = || {
            let most = LONGEST - ASIDE.len();
            CleanupError::Unfit(format!(
                "cleanup.by = \"partitions\" wants a table's name to have {most} characters at most"
            ))
        };
        aside_of(table).ok_or_else(too_long)
    }

    /// The error with its cure, where it is about a grant.
    fn granted(&self, error: CleanupError) -> CleanupError {
        match &error {
            CleanupError::Server(server) if error::of(server) == Verdict::Denied => {
                let schema = quote(self.layout.table.schema());
                let grants = "SELECT, INSERT, CREATE, ALTER, DROP, LOCK TABLES";
                CleanupError::Unfit(format!("{server}; cleanup.by = \"partitions\" needs GRANT {grants} ON {schema}.*"))
            }
            _ => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_a_table_when_rows_are_set_aside_then_they_are_beside_it_if_a_name_is_left() {
        assert_eq!(
            aside_of(&TableName::new("d", "delivery-outbox1")),
            Some(TableName::new("d", "delivery-outbox1~outboxd"))
        );
        assert_eq!(aside_of(&TableName::new("d", &"ü".repeat(56))).map(|name| name.table().chars().count()), Some(64));
        assert_eq!(aside_of(&TableName::new("d", &"x".repeat(57))), None);
    }
}
