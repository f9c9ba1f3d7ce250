//! Cleaning: what is acknowledged and old goes, everything else stays.

use std::collections::HashSet;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use outboxd::history::Journal;
use outboxd::table::TableName;
use serde_json::Value;

use tokio::time::sleep;

use crate::stage::{Setup, Stage, until};

/// Two shards whose rows have a time, by which they are cleaned.
async fn up(setup: Setup, keep: &str) -> Stage {
    up_by(setup, keep, None).await
}

/// The same; with so many rows in a partition, and so many of those, they are cleaned by partitions.
async fn up_by(setup: Setup, keep: &str, partitions: Option<(u32, u32)>) -> Stage {
    let grants = if partitions.is_some() { "INSERT, CREATE, ALTER, DROP, LOCK TABLES" } else { "DELETE" };
    let stage = setup
        .grant(&format!("{grants} ON delivery.*"))
        .shards(2)
        .set("OUTBOX__0__COLUMNS__TIMESTAMP", "created_at")
        .set("CLEANUP__KEEP", keep)
        .set("CLEANUP__INTERVAL", "100ms")
        .set("RELAY__CHECKPOINT_INTERVAL", "50ms")
        .set("RELAY__IDLE_CHECKPOINT_INTERVAL", "200ms")
        .set("CLEANUP__BY", if partitions.is_some() { "partitions" } else { "rows" })
        .servers()
        .await;
    stage.create_topic().await;
    stage.migrate();
    for table in &stage.outboxes {
        let time = "ADD COLUMN created_at TIMESTAMP(6) NULL DEFAULT CURRENT_TIMESTAMP(6), ADD INDEX (created_at)";
        stage.sql([format!("ALTER TABLE {} {time}", table.quoted())]).await;
        if let Some((rows, count)) = partitions {
            let one = |n| format!("PARTITION p{n} VALUES LESS THAN ({})", n * rows);
            let ranges = (1..count).map(one).collect::<Vec<_>>().join(", ");
            let last = format!("PARTITION p{count} VALUES LESS THAN MAXVALUE");
            // A unique index has to have the partitions' column.
            let parts = format!("PARTITION BY RANGE (seq) ({ranges}, {last})");
            let name = table.quoted();
            stage.sql([format!("ALTER TABLE {name} DROP INDEX id"), format!("ALTER TABLE {name} {parts}")]).await;
        }
    }
    stage
}

/// The names of a table's partitions, and of the table of those that are set aside.
async fn partitions(stage: &Stage, table: &TableName) -> Vec<String> {
    let name = table.table();
    let sql = format!(
        "SELECT COALESCE(PARTITION_NAME, TABLE_NAME) FROM information_schema.PARTITIONS WHERE TABLE_SCHEMA = 'delivery' AND \
         TABLE_NAME IN ('{name}', '{name}~outboxd') ORDER BY TABLE_NAME, PARTITION_ORDINAL_POSITION"
    );
    stage.connect().await.query(sql).await.unwrap()
}

/// The statement that inserts rows with the time that the expression gives; their ids begin with `name`.
fn rows(table: &TableName, name: &str, count: u32, time: &str) -> String {
    let ids = (0..count).map(|n| format!("('{name}-{n}', 'delivery', 'k-{}', 'T', '{{}}', {time})", n % 7));
    let columns = "id, aggregatetype, aggregateid, type, payload, created_at";
    format!("INSERT INTO {} ({columns}) VALUES {}", table.quoted(), ids.collect::<Vec<_>>().join(", "))
}

/// An account that may relay and not clean, and how a daemon has it.
async fn poor(stage: &Stage) -> [(&'static str, String); 2] {
    stage
        .sql([
            "CREATE USER poor IDENTIFIED BY 'poor-secret'",
            "GRANT REPLICATION SLAVE, REPLICATION CLIENT, XA_RECOVER_ADMIN ON *.* TO poor",
            "GRANT SELECT ON delivery.* TO poor",
            "GRANT SELECT, INSERT, UPDATE ON outboxd.* TO poor",
        ])
        .await;
    let url = format!("mysql://poor@127.0.0.1:{}", stage.mysql.port());
    [("MYSQL__URL", url), ("MYSQL__PASSWORD", "poor-secret".to_owned())]
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

/// Given partitions with old rows, when all of their rows are old and later ones have rows, then they go, and all rows are
/// in the topic.
async fn old_partitions_go(setup: Setup) {
    let stage = up_by(setup, "1h", Some((100, 5))).await;
    let table = &stage.outboxes[0];
    let daemon = stage.run();
    stage.sql([rows(table, "old", 249, OLD), rows(table, "young", 3, "NOW(6)"), rows(table, "old-too", 30, OLD)]).await;
    until("old partitions are gone", async || partitions(&stage, table).await == ["p3", "p4", "p5"]).await;
    until("it is counted", async || daemon.metric("outboxd_cleaned_rows_total") >= 199.0).await;
    assert_eq!(daemon.metric("outboxd_cleaned_rows_total").to_string(), "199");
    stage.sql([rows(table, "later", 300, OLD)]).await;
    stage.delivered("later-299").await;
    assert_eq!(partitions(&stage, table).await, ["p3", "p4", "p5"], "one of its rows is young");
    stage.sql([format!("DELETE FROM {} WHERE id LIKE 'young%'", table.quoted())]).await;
    until("all but the last go", async || partitions(&stage, table).await == ["p5"]).await;
    assert_eq!(daemon.terminate().await, Some(0));
    assert_eq!(ids(&stage, "later").await.len(), 300 - (399 - 282), "what is in the last one stays");

    // Given a process that was killed in the middle, when another one starts, then it finishes.
    let copy = format!("`delivery`.`{}~outboxd`", table.table());
    stage
        .sql([
            format!("ALTER TABLE {} REORGANIZE PARTITION p5 INTO (PARTITION p5 VALUES LESS THAN (600), PARTITION p6 VALUES LESS THAN MAXVALUE)", table.quoted()),
            format!("CREATE TABLE {copy} LIKE {}", table.quoted()),
            format!("ALTER TABLE {copy} REMOVE PARTITIONING"),
            rows(table, "unseen", 20, OLD),
            format!("ALTER TABLE {} EXCHANGE PARTITION p5 WITH TABLE {copy}", table.quoted()),
        ])
        .await;
    // What is set aside is no outbox table, whatever it is called.
    let daemon = stage.run_with(&[("OUTBOX__0__TABLES", "delivery.delivery-outbox*")]);
    until("what was set aside is dropped", async || partitions(&stage, table).await == ["p5", "p6"]).await;
    assert_eq!(daemon.terminate().await, Some(0));
    assert_eq!(stage.records().await.len(), 249 + 3 + 30 + 300 + 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_partitions_go_once_they_are_acknowledged_on_mysql() {
    old_partitions_go(Stage::of()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_partitions_go_once_they_are_acknowledged_on_mariadb() {
    old_partitions_go(Stage::of().server("mariadb-10.11")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_be_cleaned_by_partitions_is_told_and_relayed() {
    let stage = up_by(Stage::of(), "1h", Some((100, 2))).await;
    let table = &stage.outboxes[0];
    let poor = poor(&stage).await;
    stage.sql([format!("ALTER TABLE {} REMOVE PARTITIONING", stage.outboxes[1].quoted())]).await;
    stage.sql([rows(table, "old", 150, OLD)]).await;
    let daemon = stage.run_with(&poor.each_ref().map(|(key, value)| (*key, value.as_str())));
    daemon.logs("check=cleanup setting=cleaning of delivery.delivery-outbox2").await;
    daemon.logs("wants a table that is PARTITIONED BY RANGE").await;
    daemon.logs("needs GRANT SELECT, INSERT, CREATE, ALTER, DROP, LOCK TABLES ON `delivery`.*").await;
    stage.delivered("old-149").await;
    stage.sql(["GRANT INSERT, CREATE, ALTER, DROP, LOCK TABLES ON delivery.* TO poor"]).await;
    // A grant on a schema is seen by sessions that come after.
    until("the old partition is gone", async || partitions(&stage, table).await == ["p2"]).await;
    assert_eq!(daemon.terminate().await, Some(0));
}

/// Given partitions that the daemon has dropped, when the table is read again and the log after it from its beginning, then
/// they are no loss: they were acknowledged. One that somebody else has dropped is.
async fn what_cleaning_dropped_is_no_loss(setup: Setup) {
    let stage = up_by(setup, "1h", Some((100, 4))).await;
    let table = stage.outboxes[0].clone();
    let again = || stage.outboxd(&["position", "set", &table.to_string(), "--to", "table", "--yes"]).status().unwrap();
    let daemon = stage.run();
    stage.sql([rows(&table, "old", 249, OLD)]).await;
    until("old partitions are gone", async || partitions(&stage, &table).await == ["p3", "p4"]).await;
    assert_eq!(daemon.terminate().await, Some(0));
    assert!(again().success());
    let daemon = stage.run();
    stage.sql([rows(&table, "after", 1, "NOW(6)")]).await;
    stage.delivered("after-0").await;
    assert!(!daemon.log().contains("snapshot_truncated"), "{}", daemon.log());
    assert_eq!(daemon.terminate().await, Some(0));

    stage.sql([format!("ALTER TABLE {} DROP PARTITION p3", table.quoted())]).await;
    assert!(again().success());
    let daemon = stage.run();
    daemon.logs("snapshot_truncated").await;
    daemon.logs(&format!("outboxd position forget {table}, then outboxd retry {table}")).await;
    assert_eq!(daemon.terminate().await, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_cleaning_dropped_are_no_loss_when_the_table_is_read_again_on_mysql() {
    what_cleaning_dropped_is_no_loss(Stage::of()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_cleaning_dropped_are_no_loss_when_the_table_is_read_again_on_mariadb() {
    what_cleaning_dropped_is_no_loss(Stage::of().server("mariadb-11.8")).await;
}

/// Writers at full speed, and a daemon that is killed when it has cleaned some of what they write.
async fn killed_while_it_cleans(stage: &Stage, seed: u64) -> Journal {
    let writing = stage.write_at(seed, None).await;
    let daemon = stage.run();
    until("rows are cleaned while writers write", async || {
        daemon.page("/metrics").is_some() && daemon.metric("outboxd_cleaned_rows_total") > 2_000.0
    })
    .await;
    daemon.kill();
    writing.stop().await
}

/// Whatever is committed and not kept is in the topic.
async fn all_that_is_gone_is_delivered(stage: &Stage, journal: &Journal, kept: &HashSet<String>) {
    let delivered: HashSet<_> = stage.records().await.into_iter().map(|record| record.event_id.to_string()).collect();
    let gone: Vec<_> = journal.committed().filter(|event| !kept.contains(&*event.id)).collect();
    assert!(gone.len() > 2_000, "{}", gone.len());
    let lost: Vec<_> = gone.into_iter().filter(|event| !delivered.contains(&*event.id)).collect();
    assert!(lost.is_empty(), "deleted, and not in the topic: {lost:?}");
}

/// Given writers at full speed and rows that are old at once, when the daemon is killed, then every row that is gone is in
/// the topic; and when it starts again, nothing is missing in the end, and the tables are empty.
async fn killed(setup: Setup, seed: u64) {
    let stage = up(setup, "1ms").await;
    let journal = killed_while_it_cleans(&stage, seed).await;
    all_that_is_gone_is_delivered(&stage, &journal, &ids(&stage, "").await).await;
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

/// The same with partitions, of which the newest with rows stays. Two tables of a killed process may be in the middle.
async fn killed_by_partitions(setup: Setup, seed: u64) {
    let stage = up_by(setup, "1ms", Some((400, 25))).await;
    let journal = killed_while_it_cleans(&stage, seed).await;
    let mut kept = ids(&stage, "").await;
    for table in &stage.outboxes {
        if partitions(&stage, table).await.contains(&format!("{}~outboxd", table.table())) {
            let aside = format!("SELECT id FROM `delivery`.`{}~outboxd`", table.table());
            kept.extend(stage.connect().await.query::<String, _>(aside).await.unwrap());
        }
    }
    all_that_is_gone_is_delivered(&stage, &journal, &kept).await;
    let daemon = stage.run();
    for table in &stage.outboxes {
        until("only the newest partition has rows", async || {
            let newest = format!("SELECT COUNT(DISTINCT LEAST(seq DIV 400, 24)) <= 1 FROM {}", table.quoted());
            let aside = format!("{}~outboxd", table.table());
            stage.ask(&newest).await == "1" && !partitions(&stage, table).await.contains(&aside)
        })
        .await;
    }
    stage.judge(&journal, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_partition_goes_whose_rows_are_not_in_the_topic_when_the_daemon_is_killed_on_mysql() {
    killed_by_partitions(Stage::of(), 952).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_partition_goes_whose_rows_are_not_in_the_topic_when_the_daemon_is_killed_on_mariadb() {
    killed_by_partitions(Stage::of().server("mariadb-11.8"), 953).await;
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
    let poor = poor(&stage).await;
    let poor = poor.each_ref().map(|(key, value)| (*key, value.as_str()));
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
