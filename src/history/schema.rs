//! The tables that the writer needs.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::table::{TableName, quote};

/// Creates the schemas, the outbox tables and the table of deliveries, where they do not exist yet.
pub(super) async fn create(conn: &mut Conn, outboxes: &[TableName], data: &TableName) -> mysql_async::Result<()> {
    for table in outboxes.iter().chain([data]) {
        let schema = quote(table.schema());
        conn.query_drop(format!("CREATE DATABASE IF NOT EXISTS {schema} CHARACTER SET utf8mb4")).await?;
    }
    for table in outboxes {
        conn.query_drop(format!(
            "CREATE TABLE IF NOT EXISTS {} (\
               id CHAR(36) NOT NULL PRIMARY KEY, \
               aggregatetype VARCHAR(255) NOT NULL, \
               aggregateid VARCHAR(255) NOT NULL, \
               type VARCHAR(255) NOT NULL, \
               payload JSON\
             ) ENGINE = InnoDB CHARACTER SET utf8mb4",
            table.quoted()
        ))
        .await?;
    }
    conn.query_drop(format!(
        "CREATE TABLE IF NOT EXISTS {} (\
           id VARCHAR(64) NOT NULL PRIMARY KEY, \
           status VARCHAR(32) NOT NULL, \
           version BIGINT UNSIGNED NOT NULL\
         ) ENGINE = InnoDB CHARACTER SET utf8mb4",
        data.quoted()
    ))
    .await
}
