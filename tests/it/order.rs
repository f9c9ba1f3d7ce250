//! Transactions: their order, their rollbacks, their size.

use std::fmt::Write as _;

use mysql_async::prelude::Queryable;
use outboxd::history::Delivered;

use crate::stage::Stage;

/// The SQL of one event in shard `shard`; its id and its key are told by the caller.
pub(crate) fn event(shard: usize, id: &str, key: &str) -> String {
    format!(
        "INSERT INTO delivery.`delivery-outbox{shard}` (id, aggregatetype, aggregateid, type, payload) VALUES ('{id}', \
         'delivery', '{key}', 'T', '{{}}')"
    )
}

/// Their ids in the order of the topic.
pub(crate) fn ids(records: &[Delivered]) -> Vec<&str> {
    records.iter().map(|record| &*record.event_id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_a_table_have_the_order_of_commits_and_not_that_of_inserts() {
    let stage = Stage::of().partitions(1).up().await;
    let daemon = stage.run();
    let (mut slow, mut fast) = (stage.connect().await, stage.connect().await);
    for sql in ["BEGIN", &event(1, "slow-1", "k"), &event(1, "slow-2", "k"), &event(2, "slow-3", "k")] {
        slow.query_drop(sql).await.unwrap();
    }
    for sql in ["BEGIN", &event(1, "fast-1", "k"), &event(1, "fast-2", "k"), "COMMIT"] {
        fast.query_drop(sql).await.unwrap();
    }
    slow.query_drop("COMMIT").await.unwrap();
    stage.delivered("slow-2").await;
    stage.delivered("slow-3").await;
    assert_eq!(daemon.terminate().await, Some(0));
    let records = stage.records().await;
    let of_one: Vec<_> = ids(&records).into_iter().filter(|id| *id != "slow-3").collect();
    assert_eq!(of_one, ["fast-1", "fast-2", "slow-1", "slow-2"]);
    assert_eq!(records.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_rolled_back_to_a_savepoint_never_leaves() {
    // MariaDB logs what is undone, and then its rollback, where a table was changed that cannot be rolled back.
    for (server, noise) in [("mysql-9.7", "DO 0"), ("mariadb-11.8", "INSERT INTO delivery.noise VALUES (1)")] {
        let stage = Stage::of().server(server).shards(2).partitions(1).up().await;
        stage.sql(["CREATE TABLE delivery.noise (n INT) ENGINE = MyISAM"]).await;
        let daemon = stage.run();
        let transactions = [
            "BEGIN",
            &event(1, "kept-a", "k"),
            "SAVEPOINT `Before it`",
            &event(1, "undone-b", "k"),
            &event(2, "undone-c", "k"),
            noise,
            "SAVEPOINT inner_one",
            &event(1, "undone-d", "k"),
            "ROLLBACK TO SAVEPOINT inner_one",
            "ROLLBACK TO `before IT`",
            &event(1, "kept-e", "k"),
            "SAVEPOINT again",
            &event(1, "kept-f", "k"),
            "RELEASE SAVEPOINT again",
            "COMMIT",
            "BEGIN",
            &event(1, "undone-g", "k"),
            noise,
            "ROLLBACK",
            &event(2, "end-2", "k"),
            &event(1, "end", "k"),
        ];
        stage.sql(transactions).await;
        stage.delivered("end").await;
        stage.delivered("end-2").await;
        assert_eq!(daemon.terminate().await, Some(0));
        let records = stage.records().await;
        let mut ids = ids(&records);
        ids.retain(|id| *id != "end-2");
        assert_eq!(ids, ["kept-a", "kept-e", "kept-f", "end"], "{server}");
    }
}

/// One INSERT of many rows, numbered from `from`.
fn rows(shard: usize, from: usize, count: usize) -> String {
    let mut sql = format!(
        "INSERT INTO delivery.`delivery-outbox{shard}` (id, aggregatetype, aggregateid, type, payload) VALUES "
    );
    for n in from..from + count {
        let comma = if n > from { "," } else { "" };
        write!(sql, "{comma}('{shard}-{n:06}', 'delivery', 'k', 'T', '{{\"n\": {n}}}')").unwrap();
    }
    sql
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_larger_than_what_is_held_survives_a_kill_in_its_middle() {
    const ROWS: usize = 60_000;
    let setup = Stage::of().shards(2).partitions(1).set("RELAY__TRANSACTION_HOLD_BYTES", "64 KiB");
    let setup = setup.set("RELAY__CHECKPOINT_INTERVAL", "20ms").set("RELAY__MAX_UNSAVED_EVENTS", "2000");
    let stage = setup.set("RELAY__BATCH_BYTES", "64 KiB").set("RELAY__QUEUE_BYTES", "128 KiB").up().await;
    let mut transaction = vec!["BEGIN".to_owned()];
    for from in (0..ROWS).step_by(2000) {
        transaction.push(rows(1, from, 2000));
        transaction.push(rows(2, from, 2000));
    }
    transaction.push("COMMIT".into());
    stage.sql(transaction).await;
    stage.sql([event(1, "end", "k"), event(2, "end-2", "k")]).await;
    let daemon = stage.run();
    daemon.kill_when("a position within the transaction", || stage.positions().contains(" of ")).await;
    assert!(stage.positions().contains(" of "), "killed within the transaction");
    let daemon = stage.run();
    stage.delivered("end").await;
    stage.delivered("end-2").await;
    assert_eq!(daemon.terminate().await, Some(0));
    let records = stage.records().await;
    for shard in 1..=2 {
        let prefix = format!("{shard}-");
        let mut newest = 0;
        let mut seen = std::collections::BTreeSet::new();
        for id in ids(&records).into_iter().filter_map(|id| id.strip_prefix(&prefix)) {
            let n: usize = id.parse().unwrap();
            assert!(n <= newest + 1, "{n} follows {newest}: one was skipped");
            newest = n.max(newest);
            seen.insert(n);
        }
        assert_eq!(seen.len(), ROWS);
    }
    let duplicates = records.len() - (2 * ROWS + 2);
    assert!(duplicates <= 2 * 2500, "{duplicates} duplicates, though at most 2000 unsaved for each table");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_larger_than_what_is_held_that_is_undone_in_the_log_halts_its_tables() {
    let stage = Stage::of()
        .server("mariadb-11.8")
        .shards(2)
        .set("RELAY__TRANSACTION_HOLD_BYTES", "4 KiB")
        .set("RELAY__BATCH_BYTES", "4 KiB")
        .up()
        .await;
    stage.sql(["CREATE TABLE delivery.noise (n INT) ENGINE = MyISAM"]).await;
    let daemon = stage.run();
    let undone = [
        "BEGIN",
        &event(2, "kept", "k"),
        "SAVEPOINT s",
        &rows(1, 0, 2000),
        "INSERT INTO delivery.noise VALUES (1)",
        "ROLLBACK TO s",
        "COMMIT",
    ];
    stage.sql(undone).await;
    stage.sql([event(2, "other", "k")]).await;
    daemon.logs("undone_after_release").await;
    stage.delivered("kept").await;
    stage.delivered("other").await;
    assert_eq!(daemon.terminate().await, Some(1), "a relay has halted");
}
