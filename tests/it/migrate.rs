//! Migrations.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts};
use outboxd::mysql::migrate::{MigrateError, NEWEST, outboxes, positions};
use outboxd::table::TableName;

use crate::stage::{Stage, hold};

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

/// What `outboxd migrate` says: standard output, and standard error.
fn migrate(stage: &Stage, arguments: &[&str]) -> (String, String) {
    let output = stage.outboxd(&[&["migrate"], arguments].concat()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (told, notes) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(0), "{told}{notes}");
    (told, notes)
}

/// Nothing but a wildcard, of shards even, and none of its tables is there yet.
#[tokio::test(flavor = "multi_thread")]
async fn the_position_table_is_made_and_raised_also_where_all_tables_are_wildcards() {
    let setup = Stage::of().tables("delivery.*-outbox*", Vec::new()).set("OUTBOX__0__SHARD", "crc32(aggregateid) % 4");
    let stage = setup.servers().await;
    let comment = "SELECT TABLE_COMMENT FROM information_schema.TABLES WHERE TABLE_NAME = 'outboxd_positions'";
    let newest = format!("outboxd positions, version {NEWEST}");

    // Given nothing, when it is migrated, then the position table is there; and what is not made is said.
    let (told, notes) = migrate(&stage, &[]);
    assert!(told.ends_with(&format!(": created, version {NEWEST}\n")), "{told}");
    assert!(notes.contains("delivery.*-outbox* is a wildcard"), "{notes}");
    assert_eq!(stage.ask(comment).await, newest);

    // Given a table of the first version, made by the statements that are printed, when it is migrated, then it is raised.
    let (printed, _) = migrate(&stage, &["--print"]);
    assert!(printed.starts_with("-- ") && printed.contains("SHOW CREATE TABLE `outboxd`.`outboxd_positions`"));
    let statements: Vec<&str> = printed.split_inclusive(";\n").collect();
    let first = statements.iter().position(|sql| sql.ends_with("version 1';\n")).unwrap();
    let (made, raised) = statements.split_at(first + 1);
    let away = ["DROP TABLE outboxd.outboxd_positions"];
    stage.sql(away).await;
    stage.sql(made).await;
    assert_eq!(stage.ask(comment).await, "outboxd positions, version 1");
    let (told, _) = migrate(&stage, &[]);
    assert!(told.ends_with(&format!(": raised from version 1 to {NEWEST}\n")), "{told}");
    assert_eq!(stage.ask(comment).await, newest);

    // Given the same, when the statements that are printed behind it are run by hand, then it is raised as well.
    stage.sql(away).await;
    stage.sql(made).await;
    stage.sql(raised).await;
    assert_eq!(stage.ask(comment).await, newest);
}
