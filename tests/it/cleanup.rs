//! Cleaning: what is acknowledged and old goes, everything else stays.

use std::collections::HashSet;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use outboxd::table::TableName;
use serde_json::Value;

use tokio::time::sleep;

use crate::stage::{Setup, Stage, until};

/// Two shards whose rows have a time, by which they are cleaned.
async fn up(setup: Setup, keep: &str) -> Stage {
    let stage = setup
        .shards(2)
        .set("OUTBOX__0__COLUMNS__TIMESTAMP", "created_at")
        .set("CLEANUP__KEEP", keep)
        .set("CLEANUP__INTERVAL", "100ms")
        .set("RELAY__CHECKPOINT_INTERVAL", "50ms")
        .set("RELAY__IDLE_CHECKPOINT_INTERVAL", "200ms")
        .servers()
        .await;
    stage.create_topic().await;
    stage.migrate();
    for table in &stage.outboxes {
        let time = "ADD COLUMN created_at TIMESTAMP(6) NULL DEFAULT CURRENT_TIMESTAMP(6), ADD INDEX (created_at)";
        stage.sql([format!("ALTER TABLE {} {time}", table.quoted())]).await;
    }
    stage
}

/// The statement that inserts rows with the time that the expression gives; their ids begin with `name`.
fn rows(table: &TableName, name: &str, count: u32, time: &str) -> String {
    let ids = (0..count).map(|n| format!("('{name}-{n}', 'delivery', 'k-{}', 'T', '{{}}', {time})", n % 7));
    let columns = "id, aggregatetype, aggregateid, type, payload, created_at";
    format!("INSERT INTO {} ({columns}) VALUES {}", table.quoted(), ids.collect::<Vec<_>>().join(", "))
}

async fn ids(stage: &Stage, prefix: &str) -> HashSet<String> {
    let mut conn = stage.connect().await;
    let mut all = HashSet::new();
    for table in &stage.outboxes {
        let sql = format!("SELECT id FROM {} WHERE id LIKE '{prefix}%'", table.quoted());
        all.extend(conn.query::<String, _>(sql).await.unwrap());
    }
    all
}

const OLD: &str = "NOW(6) - INTERVAL 2 HOUR";

/// Given old, new and timeless rows, when they are relayed, then the old ones go, and all of them are in the topic.
async fn old_rows_go(setup: Setup) {
    let stage = up(setup, "1h").await;
    for (table, old) in stage.outboxes.iter().zip([700, 1]) {
        stage.sql([rows(table, "old", old, OLD), rows(table, "young", 3, "NOW(6) - INTERVAL 59 MINUTE")]).await;
        stage.sql([rows(table, "timeless", 2, "NULL")]).await;
    }
    let daemon = stage.run();
    until("old rows are gone", async || ids(&stage, "old").await.is_empty()).await;
    stage.sql([rows(&stage.outboxes[1], "late", 450, OLD)]).await;
    until("late ones too", async || ids(&stage, "late").await.is_empty()).await;
    until("it is counted", async || daemon.metric("outboxd_cleaned_rows_total") >= 1151.0).await;
    assert_eq!(daemon.metric("outboxd_cleaned_rows_total").to_string(), "1151");
    until("what is kept is told", async || daemon.metric("outboxd_table_bytes") > 0.0).await;
    assert_eq!((ids(&stage, "young").await.len(), ids(&stage, "timeless").await.len()), (3, 2));
    assert_eq!(daemon.terminate().await, Some(0));
    let records = stage.records().await;
    assert_eq!(records.len(), 701 + 6 + 4 + 450);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_rows_go_once_they_are_acknowledged_on_mysql() {
    old_rows_go(Stage::of()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_rows_go_once_they_are_acknowledged_where_positions_are_files() {
    old_rows_go(Stage::of().without_gtids()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_rows_go_once_they_are_acknowledged_on_mariadb() {
    old_rows_go(Stage::of().server("mariadb-11.8")).await;
}

/// Given writers at full speed and rows that are old at once, when the daemon is killed, then every row that is gone is in
/// the topic; and when it starts again, nothing is missing in the end, and the tables are empty.
async fn killed(setup: Setup, seed: u64) {
    let stage = up(setup, "1ms").await;
    let writing = stage.write_at(seed, None).await;
    let daemon = stage.run();
    until("rows are cleaned while writers write", async || {
        daemon.page("/metrics").is_some() && daemon.metric("outboxd_cleaned_rows_total") > 2_000.0
    })
    .await;
    daemon.kill();
    let journal = writing.stop().await;
    let kept = ids(&stage, "").await;
    let delivered: HashSet<_> = stage.records().await.into_iter().map(|record| record.event_id.to_string()).collect();
    let gone: Vec<_> = journal.committed().filter(|event| !kept.contains(&*event.id)).collect();
    assert!(gone.len() > 2_000, "{}", gone.len());
    let lost: Vec<_> = gone.into_iter().filter(|event| !delivered.contains(&*event.id)).collect();
    assert!(lost.is_empty(), "deleted, and not in the topic: {lost:?}");
    let daemon = stage.run();
    until("the tables are empty", async || ids(&stage, "").await.is_empty()).await;
    stage.judge(&journal, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_not_in_the_topic_is_deleted_when_the_daemon_is_killed_on_mysql() {
    killed(Stage::of(), 950).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_not_in_the_topic_is_deleted_when_the_daemon_is_killed_on_mariadb() {
    killed(Stage::of().server("mariadb-10.11"), 951).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_deleted_while_kafka_is_away_or_the_table_paused() {
    let mut stage = up(Stage::of().own_kafka(), "1h").await;
    let table = stage.outboxes[0].clone();
    let daemon = stage.run();
    stage.sql([rows(&table, "before", 10, OLD)]).await;
    until("acknowledged rows go", async || ids(&stage, "before").await.is_empty()).await;

    stage.kafka().tell("kill").unwrap();
    stage.sql([rows(&table, "during", 10, OLD)]).await;
    until("many a look was taken in vain", async || daemon.metric("outboxd_lag_seconds") > 4.0).await;
    assert_eq!(ids(&stage, "during").await.len(), 10);
    stage.kafka().tell("start").unwrap();
    until("they go when they are acknowledged", async || ids(&stage, "during").await.is_empty()).await;

    let hand = |command: &str| {
        let address = daemon.log().split("admin_listening address=").nth(1).unwrap().to_owned();
        let address = address.split_whitespace().next().unwrap().to_owned();
        let done =
            stage.outboxd(&[command, &table.to_string()]).env("OUTBOXD__ADMIN__LISTEN", address).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    hand("pause");
    stage.sql([rows(&table, "paused", 10, OLD), rows(&stage.outboxes[1], "beside", 10, OLD)]).await;
    until("the other table is cleaned", async || ids(&stage, "beside").await.is_empty()).await;
    assert_eq!(ids(&stage, "paused").await.len(), 10);
    hand("resume");
    until("it is cleaned again", async || ids(&stage, "paused").await.is_empty()).await;
    assert_eq!(daemon.terminate().await, Some(0));
    let delivered: HashSet<_> = stage.records().await.into_iter().map(|record| record.event_id.to_string()).collect();
    assert_eq!(delivered.len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_somebody_has_locked_are_left_until_later_and_a_missing_grant_is_told() {
    let stage = up(Stage::of(), "1h").await;
    let table = &stage.outboxes[0];
    stage
        .sql([
            "CREATE USER poor IDENTIFIED BY 'poor-secret'",
            "GRANT REPLICATION SLAVE, REPLICATION CLIENT, XA_RECOVER_ADMIN ON *.* TO poor",
            "GRANT SELECT ON delivery.* TO poor",
            "GRANT SELECT, INSERT, UPDATE ON outboxd.* TO poor",
        ])
        .await;
    let url = format!("mysql://poor@127.0.0.1:{}", stage.mysql.port());
    let poor = [("MYSQL__URL", url.as_str()), ("MYSQL__PASSWORD", "poor-secret")];
    let check = || {
        let mut command = stage.outboxd(&["check", "--format", "json"]);
        command.envs(poor.map(|(key, value)| (format!("OUTBOXD__{key}"), value)));
        let shown: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
        let checks = shown["checks"].as_array().unwrap().clone();
        checks.into_iter().filter(|check| check["name"] == "cleanup").collect::<Vec<_>>()
    };
    let told = check();
    assert!(!told.is_empty() && told.iter().all(|check| check["status"] == "warned"), "{told:?}");

    stage.sql([rows(table, "old", 5, OLD)]).await;
    let daemon = stage.run_with(&poor);
    daemon.logs("DELETE command denied").await;
    stage.delivered("old-4").await;
    assert_eq!(ids(&stage, "old").await.len(), 5, "they are relayed all the same");

    let mut locking = stage.connect().await;
    locking.query_drop("BEGIN").await.unwrap();
    locking.query_drop(format!("SELECT * FROM {} WHERE id = 'old-3' FOR UPDATE", table.quoted())).await.unwrap();
    for check in told {
        stage.sql([check["cure"].as_str().unwrap()]).await;
    }
    let waits = "SELECT COUNT(*) FROM information_schema.INNODB_TRX WHERE trx_state = 'LOCK WAIT'";
    until("the cleaner waits for the lock", async || {
        // It shows nothing new to whoever asks more often than every 100 ms.
        sleep(Duration::from_millis(150)).await;
        stage.ask(waits).await != "0"
    })
    .await;
    stage.sql([rows(table, "beside", 5, "NOW(6)")]).await;
    locking.query_drop("ROLLBACK").await.unwrap();
    until("old rows are gone", async || ids(&stage, "old").await.is_empty()).await;
    assert!(check().iter().all(|check| check["status"] == "passed"));
    assert_eq!(daemon.terminate().await, Some(0));
}
