//! Migrations.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts};
use outboxd::mysql::migrate::{MigrateError, outboxes, positions};
use outboxd::table::TableName;

use crate::stage::hold;

#[tokio::test(flavor = "multi_thread")]
async fn migrations_can_be_applied_again_and_by_two_at_once() {
    let mysql = hold("mysql-9.7", &[]);
    let opts = Opts::from_url(&format!("mysql://admin:admin@127.0.0.1:{}", mysql.port())).unwrap();
    let table = TableName::new("outboxd", "outboxd_positions");
    let tables: Vec<_> = (1..=4).map(|n| TableName::new("delivery", &format!("delivery-outbox{n}"))).collect();
    let migrating = (0..8).map(|_| {
        let (opts, table, tables) = (opts.clone(), table.clone(), tables.clone());
        tokio::spawn(async move {
            let mut conn = Conn::new(opts).await.unwrap();
            let before = positions(&mut conn, &table).await.unwrap();
            outboxes(&mut conn, &tables).await.unwrap();
            before
        })
    });
    let mut created = 0;
    for done in migrating.collect::<Vec<_>>() {
        created += usize::from(done.await.unwrap() == 0);
    }
    assert_eq!(created, 1, "one of them makes the table, the others find it");

    // What is not ours, or from the future, is left as it is.
    let mut conn = Conn::new(opts).await.unwrap();
    conn.query_drop(format!("ALTER TABLE {} COMMENT = 'outboxd positions, version 99'", table.quoted())).await.unwrap();
    assert!(matches!(positions(&mut conn, &table).await, Err(MigrateError::Newer { found: 99, .. })));
    assert!(matches!(positions(&mut conn, &tables[0]).await, Err(MigrateError::Foreign(_))));
}
