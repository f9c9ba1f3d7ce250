//! Migrations: the tables that the daemon needs, and the statements for those who run their own.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};

use crate::table::{TableName, quote};

const POSITIONS: &str = include_str!("../../migrations/0001_positions.sql");
const OUTBOX: &str = include_str!("../../migrations/0002_outbox_table.sql");

/// The statements that create what is missing: idempotent, so two may apply them at once.
pub fn statements(positions: Option<(&str, &str)>, outboxes: &[TableName]) -> Vec<String> {
    let fill = |template: &str, schema: &str, table: &str| {
        let filled = template.replace("{schema}", &quote(schema)).replace("{table}", &quote(table));
        let lines = filled.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join("\n");
        lines
            .split(";\n")
            .map(|sql| sql.trim().trim_end_matches(';').to_owned())
            .filter(|sql| !sql.is_empty())
            .collect::<Vec<_>>()
    };
    let mut all = positions.map_or_else(Vec::new, |(schema, table)| fill(POSITIONS, schema, table));
    for table in outboxes {
        all.extend(fill(OUTBOX, table.schema(), table.table()));
    }
    let mut seen = std::collections::HashSet::new();
    all.retain(|sql| seen.insert(sql.clone()));
    all
}

/// Applies the statements.
pub async fn apply(conn: &mut Conn, statements: &[String]) -> Result<(), Error> {
    for sql in statements {
        conn.query_drop(sql).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_is_created_once_with_its_name_quoted() {
        let tables = [TableName::new("d", "d-outbox1"), TableName::new("d", "d-outbox2")];
        let all = statements(Some(("outboxd", "positions")), &tables);
        assert_eq!(all.len(), 5, "{all:#?}");
        assert_eq!(all[0], "CREATE DATABASE IF NOT EXISTS `outboxd`");
        assert!(all[3].starts_with("CREATE TABLE IF NOT EXISTS `d`.`d-outbox1` ("));
        assert!(all.iter().all(|sql| !sql.contains('{') && !sql.contains(';')));
    }
}
