//! The log goes from file to file, and positions with it.

use mysql_async::Row;
use mysql_async::prelude::Queryable;

use crate::order::{event, ids};
use crate::stage::{Setup, Stage, until};

/// Small files, a rotation now and then, restarts in between.
async fn across_rotations(setup: Setup, kind: &str, seed: u64) {
    let stage = setup.setting("max_binlog_size=16384").up().await;
    let writing = stage.write(seed).await;
    for turn in 0..6 {
        let daemon = stage.run();
        daemon.ready().await;
        writing.more(150).await;
        stage.sql(["FLUSH BINARY LOGS"]).await;
        writing.more(50).await;
        if turn % 2 == 0 {
            daemon.kill();
        } else {
            assert_eq!(daemon.terminate().await, Some(0));
        }
        stage.sql(["FLUSH BINARY LOGS", "FLUSH BINARY LOGS"]).await;
    }
    assert!(stage.positions().contains(kind), "{}", stage.positions());
    let daemon = stage.run();
    let journal = writing.stop().await;
    stage.judge(&journal, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gtid_positions_hold_across_rotations() {
    across_rotations(Stage::of(), "gtid=", 31).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn file_positions_hold_across_rotations() {
    let setup = Stage::of().without_gtids();
    across_rotations(setup, "file=", 32).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn domain_positions_hold_across_rotations_on_mariadb_10_11() {
    across_rotations(Stage::of().server("mariadb-10.11"), "domains=", 33).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn domain_positions_hold_across_rotations_on_mariadb_11_8() {
    across_rotations(Stage::of().server("mariadb-11.8"), "domains=", 34).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_table_is_not_stranded_by_a_purge() {
    for setup in [Stage::of(), Stage::of().without_gtids()] {
        let stage = setup.shards(2).set("RELAY__IDLE_CHECKPOINT_INTERVAL", "300ms").up().await;
        let daemon = stage.run();
        stage.sql([event(1, "first", "k")]).await;
        stage.delivered("first").await;
        stage.sql(["FLUSH BINARY LOGS"]).await;
        // Shard 2 has never had an event; its position follows all the same.
        let (newest, executed) = (stage.newest_log().await, stage.ask("SELECT @@GLOBAL.gtid_executed").await);
        let beyond = format!(
            "SELECT CAST(SUM(position LIKE 'file={newest}%' OR position LIKE 'gtid=%' AND GTID_SUBSET('{executed}', \
             SUBSTRING(position, 6))) AS CHAR) FROM outboxd.outboxd_positions"
        );
        until("both positions are beyond the rotation", async || stage.ask(&beyond).await == "2").await;
        assert_eq!(daemon.terminate().await, Some(0));
        assert_eq!(stage.purge().await, newest);
        let daemon = stage.run();
        stage.sql([event(2, "second", "k")]).await;
        stage.delivered("second").await;
        assert_eq!(daemon.terminate().await, Some(0));
        assert_eq!(stage.records().await.len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purged_position_halts_its_table_by_name_and_no_other() {
    for setup in [Stage::of(), Stage::of().without_gtids(), Stage::of().server("mariadb-11.8")] {
        let stage = setup.shards(2).up().await;
        let daemon = stage.run();
        stage.sql([event(1, "first", "k")]).await;
        stage.delivered("first").await;
        assert_eq!(daemon.terminate().await, Some(0));
        stage.sql([event(1, "lost", "k"), "FLUSH BINARY LOGS".into()]).await;
        stage.sql([event(1, "there", "k"), "FLUSH BINARY LOGS".into()]).await;
        stage.purge().await;
        let mut daemon = stage.run();
        assert_eq!(daemon.ended().await, Some(78), "{}", daemon.log());
        for table in &stage.outboxes {
            assert!(daemon.log().contains(&format!("position of {table}: expected still in the server's log")));
        }
        // Another table that is where the log is goes on beside the one that cannot.
        stage.sql(["DELETE FROM outboxd.outboxd_positions WHERE table_name LIKE '%2'"]).await;
        let daemon = stage.run();
        stage.sql([event(2, "other", "k")]).await;
        stage.delivered("other").await;
        let halted = format!("relay_halted table={} reason=\"preflight\"", stage.outboxes[0]);
        assert!(daemon.log().contains(&halted), "{}", daemon.log());
        assert_eq!(daemon.terminate().await, Some(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_stands_still_is_warned_of_before_its_position_is_purged() {
    let mariadb = Stage::of().server("mariadb-11.8").setting("max_binlog_total_size=1000000");
    for (bounded, setup) in [(false, Stage::of()), (false, Stage::of().without_gtids()), (true, mariadb)] {
        let stage = setup.shards(2).setting("binlog_expire_logs_seconds=6").set("RELAY__ON_UPDATE", "halt").up().await;
        let daemon = stage.run();
        stage.sql([event(1, "first", "k"), "UPDATE delivery.`delivery-outbox1` SET type = 'u'".into()]).await;
        daemon.logs("relay_halted").await;
        stage.sql(["FLUSH BINARY LOGS".into(), event(2, "second", "k")]).await;
        stage.delivered("second").await;
        assert_eq!(daemon.terminate().await, Some(1));
        let since = stage.ask("SELECT UNIX_TIMESTAMP()").await;
        let elapsed = format!("SELECT UNIX_TIMESTAMP() > {since} + 4");
        until("two thirds of the time are over", async || stage.ask(&elapsed).await == "1").await;
        let daemon = stage.run();
        daemon.logs("position_near_purge").await;
        let log = daemon.log();
        let line = log.lines().find(|line| line.contains("position_near_purge")).unwrap();
        assert!(line.contains(&format!("table={}", stage.outboxes[0])), "the one that halted: {line}");
        assert!(!log.contains(&format!("position_near_purge table={}", stage.outboxes[1])), "{log}");
        let metrics = daemon.page("/metrics").unwrap().1;
        let of = |name: &str, shard: usize| {
            let start = format!("{name}{{table=\"{}\"}} ", stage.outboxes[shard]);
            metrics.lines().find_map(|line| line.strip_prefix(&start)?.parse::<f64>().ok()).unwrap()
        };
        assert!(of("outboxd_until_purge_seconds", 0) < 3.0, "{metrics}");
        assert!(of("outboxd_until_purge_seconds", 1) > 5.0, "{metrics}");
        assert_eq!(of("outboxd_until_purge_bytes", 0).is_finite(), bounded, "{metrics}");
        let behind = |shard| of("outboxd_position_behind_bytes", shard);
        assert!(behind(0) > behind(1), "{metrics}");
        daemon.terminate().await;
    }
}

/// Given a place behind the event that begins a transaction, where Debezium's are, when a table starts there, then all rows of
/// that transaction are relayed; and one behind its BEGIN halts by name.
#[tokio::test(flavor = "multi_thread")]
async fn a_place_within_a_transaction_is_one_to_start_at_before_its_first_row_only() {
    let stage = Stage::of().without_gtids().shards(1).up().await;
    let mut conn = stage.connect().await;
    conn.query_drop("START TRANSACTION").await.unwrap();
    for id in ["first", "second"] {
        conn.query_drop(event(1, id, "k")).await.unwrap();
    }
    conn.query_drop("COMMIT").await.unwrap();
    let logs: Vec<Row> = conn.query("SHOW BINARY LOGS").await.unwrap();
    let file: String = logs.last().unwrap().get(0).unwrap();
    let events: Vec<Row> = conn.query(format!("SHOW BINLOG EVENTS IN '{file}'")).await.unwrap();
    let begin = events.iter().rposition(|event| event.get::<String, _>("Info").unwrap() == "BEGIN").unwrap();
    let place = |event: &Row| format!("file={file}:{}", event.get::<u64, _>("Pos").unwrap());

    let mut daemon = stage.run_with(&[("OUTBOX__0__START", &place(&events[begin + 1]))]);
    assert_eq!(daemon.ended().await, Some(1));
    assert!(daemon.log().contains("reason=\"position_mismatch\""), "{}", daemon.log());
    stage.sql(["DELETE FROM outboxd.outboxd_positions"]).await;
    let daemon = stage.run_with(&[("OUTBOX__0__START", &place(&events[begin]))]);
    stage.delivered("second").await;
    assert_eq!(daemon.terminate().await, Some(0));
    assert_eq!(ids(&stage.records().await), ["first", "second"]);
}
