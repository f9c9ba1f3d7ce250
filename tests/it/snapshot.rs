//! First starts: what is in the tables, and then the log, on every server, with writers and deletes under way.

use std::collections::HashSet;

use mysql_async::prelude::Queryable;
use outboxd::history::Journal;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::daemon::Daemon;
use crate::order::{event, ids};
use crate::stage::{Setup, Stage, Writing, until};

/// Shards that begin with a snapshot. Their keys ascend with the commits for each aggregate, so it has their order.
async fn up(setup: Setup) -> Stage {
    let setup = setup.set("OUTBOX__0__START", "snapshot").set("RELAY__CHECKPOINT_INTERVAL", "20ms");
    setup.set("RELAY__BATCH_BYTES", "8 KiB").up().await
}

/// Rows that the log no longer has, and writers that go on as fast as they can.
async fn written(stage: &Stage, seed: u64, events: u64) -> Writing {
    let writing = stage.write_at(seed, None).await;
    writing.more(events).await;
    stage.sql(["FLUSH BINARY LOGS"]).await;
    stage.purge().await;
    writing
}

/// Deletes the oldest rows of every shard again and again.
struct Deleting(CancellationToken, AbortOnDropHandle<u64>);

impl Deleting {
    async fn of(stage: &Stage) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let mut conn = stage.connect().await;
        let tables: Vec<_> = stage.outboxes.iter().map(outboxd::table::TableName::quoted).collect();
        let task: JoinHandle<u64> = tokio::spawn(async move {
            let mut deleted = 0;
            while !stopped.is_cancelled() {
                for table in &tables {
                    conn.query_drop(format!("DELETE FROM {table} ORDER BY seq LIMIT 40")).await.unwrap();
                    deleted += conn.affected_rows();
                }
            }
            deleted
        });
        Self(stop, AbortOnDropHandle::new(task))
    }

    async fn stop(self) -> u64 {
        self.0.cancel();
        self.1.await.unwrap()
    }
}

/// Waits until it is saved for every table where it starts: what is deleted from here on was in the table at the start.
async fn claimed(stage: &Stage) {
    until("every table has a position", async || {
        let positions = stage.positions();
        stage
            .outboxes
            .iter()
            .all(|table| positions.lines().any(|line| line.contains(&table.to_string()) && line.contains('=')))
    })
    .await;
}

async fn judge(stage: &Stage, journal: &Journal, daemon: Daemon, duplicates: bool) {
    let verdict = stage.judge(journal, daemon).await;
    assert!(duplicates || verdict.total.duplicates == 0, "{verdict}");
    assert!(!stage.positions().contains(" scan "), "{}", stage.positions());
}

/// Given tables with rows that the log has lost, when the daemon starts while writers write and cleaners delete, then
/// every row comes once.
async fn start_under_load(setup: Setup, seed: u64) {
    let stage = up(setup).await;
    let writing = written(&stage, seed, 4_000).await;
    let daemon = stage.run();
    claimed(&stage).await;
    let deleting = Deleting::of(&stage).await;
    daemon.logs("snapshot_done").await;
    daemon.ready().await;
    writing.more(1_000).await;
    let journal = writing.stop().await;
    assert!(deleting.stop().await > 0);
    until("the snapshots are done", async || daemon.log().matches("snapshot_done").count() == stage.outboxes.len())
        .await;
    assert!(daemon.metric("outboxd_snapshot_rows") >= 2_000.0);
    judge(&stage, &journal, daemon, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_under_load_publishes_every_row_once_on_mysql() {
    start_under_load(Stage::of(), 901).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_under_load_publishes_every_row_once_where_positions_are_files() {
    start_under_load(Stage::of().without_gtids(), 902).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_under_load_publishes_every_row_once_on_mariadb() {
    for (server, seed) in [("mariadb-10.11", 903), ("mariadb-11.8", 904)] {
        start_under_load(Stage::of().server(server), seed).await;
    }
}

/// Given a snapshot under way, when the daemon is killed, rows are deleted and written, and it starts again, then it goes
/// on where it was, and what was deleted is published all the same.
async fn killed_in_the_scan(setup: Setup, seed: u64, exactly_once: bool) {
    let setup = setup.shards(2).set("RELAY__MAX_UNSAVED_EVENTS", "100").set("RELAY__QUEUE_BYTES", "64 KiB");
    let stage = up(setup).await;
    let writing = written(&stage, seed, 6_000).await;
    // Within the table; and the second time, behind what was deleted after the first kill.
    for place in [" after ", "+"] {
        let daemon = stage.run();
        daemon.logs("snapshot_opened").await;
        daemon.kill_when("a position within the table", || stage.positions().contains(place)).await;
        let deleting = Deleting::of(&stage).await;
        writing.more(200).await;
        assert!(deleting.stop().await > 0);
        assert!(stage.positions().contains(" after "), "killed within the scan: {}", stage.positions());
    }
    let daemon = stage.run();
    daemon.logs("snapshot_done").await;
    writing.more(200).await;
    let journal = writing.stop().await;
    judge(&stage, &journal, daemon, !exactly_once).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_killed_goes_on_and_misses_nothing_on_mysql() {
    killed_in_the_scan(Stage::of(), 911, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_killed_goes_on_and_misses_nothing_where_positions_are_files() {
    killed_in_the_scan(Stage::of().without_gtids(), 912, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_killed_goes_on_and_misses_nothing_on_mariadb() {
    for (server, seed) in [("mariadb-10.11", 913), ("mariadb-11.8", 914)] {
        killed_in_the_scan(Stage::of().server(server), seed, false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_killed_goes_on_exactly_once() {
    let setup = crate::exactly_once::exactly_once(Stage::of()).set("DELIVERY__COMMIT_EVENTS", "50");
    killed_in_the_scan(setup.set("KAFKA__CREATE_TOPICS", "true"), 915, true).await;
}

/// Given more rows in the log behind the point of a first start than their keys may take, when the daemon starts, then the
/// table halts by name, and nothing is published out of order; with room for the keys it goes on to the end.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_do_not_fit_halt_by_name() {
    let stage = up(Stage::of().without_gtids().shards(1).partitions(1)).await;
    for id in ["a1", "a2"] {
        stage.sql([event(1, id, "a")]).await;
    }
    // With files, a start is at the beginning of the newest one.
    stage.sql(["FLUSH BINARY LOGS"]).await;
    for number in 3..40 {
        stage.sql([event(1, &format!("a{number}"), "a")]).await;
    }
    let daemon = stage.run_with(&[("RELAY__SNAPSHOT_KEYS_BYTES", "800 B")]);
    daemon.logs("snapshot_keys_full").await;
    assert_eq!(daemon.terminate().await, Some(1));
    assert!(stage.records().await.is_empty());
    let daemon = stage.run();
    stage.delivered("a39").await;
    assert_eq!(daemon.terminate().await, Some(0));
    let expected: Vec<_> = (1..40).map(|number| format!("a{number}")).collect();
    assert_eq!(ids(&stage.records().await), expected);
}

/// Given a table that is read by its ids, when its numbers get a unique index half-way, then it is read by its ids to the
/// end; a position of an earlier version, which does not say by what, halts it by name until it has its key back.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_changes_half_way_is_never_taken_for_that_of_the_position() {
    for by in [" by id", ""] {
        let setup = Stage::of().shards(1).partitions(1).set("RELAY__MAX_UNSAVED_EVENTS", "100");
        let stage = up(setup.set("RELAY__QUEUE_BYTES", "64 KiB")).await;
        let table = stage.outboxes[0].quoted();
        let keys = "DROP PRIMARY KEY, DROP INDEX id, ADD PRIMARY KEY (id), ADD INDEX by_seq (seq)";
        let rows = (0..3_000).map(|n| format!("('row-{n}', 'delivery', 'k-{}', 'T', '{{}}')", n % 7));
        let rows = rows.collect::<Vec<_>>().join(", ");
        let columns = "id, aggregatetype, aggregateid, type, payload";
        let insert = format!("INSERT INTO {table} ({columns}) VALUES {rows}");
        stage.sql([format!("ALTER TABLE {table} {keys}"), insert, "FLUSH BINARY LOGS".to_owned()]).await;
        stage.purge().await;
        let daemon = stage.run();
        daemon.kill_when("a position within the table", || stage.positions().contains(" after ")).await;
        assert!(stage.positions().contains(" by id"), "{}", stage.positions());
        stage.sql([format!("ALTER TABLE {table} ADD UNIQUE INDEX numbers (seq)")]).await;
        if by.is_empty() {
            stage.sql(["UPDATE outboxd.outboxd_positions SET position = REPLACE(position, ' by id', '')"]).await;
            let mut daemon = stage.run();
            assert_eq!(daemon.ended().await, Some(1), "{}", daemon.log());
            let log = daemon.log();
            assert!(log.contains("position_mismatch") && log.contains("give the table its key back"), "{log}");
            assert!(!log.contains("snapshot_done"), "{log}");
            stage.sql([format!("ALTER TABLE {table} DROP INDEX numbers")]).await;
        }
        let daemon = stage.run();
        daemon.logs("snapshot_done").await;
        // The last one by its id. What is read is not yet published.
        stage.delivered("row-999").await;
        assert_eq!(daemon.terminate().await, Some(0));
        let records = stage.records().await;
        assert_eq!(ids(&records).into_iter().collect::<HashSet<_>>().len(), 3_000, "{by}");
    }
}

/// Given a snapshot that is broken off, when another table takes the place of the one that was being read, then it halts by
/// name instead of taking the new one for the rest of the old one; and begins anew by the steps that the halt tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_another_one_takes_the_place_of_half_way_halts_by_name() {
    const NAME: &str = "delivery.delivery-outbox1";
    const TABLE: &str = "delivery.`delivery-outbox1`";
    let swapped = vec![format!("RENAME TABLE {TABLE} TO delivery.old, delivery.spare TO {TABLE}")];
    let dropped = vec![format!("DROP TABLE {TABLE}"), format!("CREATE TABLE {TABLE} LIKE delivery.spare")];
    let replaced = vec![format!("CREATE OR REPLACE TABLE {TABLE} LIKE delivery.spare")];
    for (setup, statements) in [
        (Stage::of(), &swapped),
        (Stage::of().without_gtids(), &dropped),
        (Stage::of().server("mariadb-10.11"), &replaced),
        (Stage::of().server("mariadb-11.8"), &swapped),
    ] {
        let setup = setup.shards(1).partitions(1).set("RELAY__MAX_UNSAVED_EVENTS", "100");
        let stage = up(setup.set("RELAY__QUEUE_BYTES", "64 KiB")).await;
        let rows = (0..3_000).map(|n| format!("('row-{n}', 'delivery', 'k-{}', 'T', '{{}}')", n % 7));
        let rows = rows.collect::<Vec<_>>().join(", ");
        let insert = format!("INSERT INTO {TABLE} (id, aggregatetype, aggregateid, type, payload) VALUES {rows}");
        let spare = format!("CREATE TABLE delivery.spare LIKE {TABLE}");
        stage.sql([insert.as_str(), &spare, "FLUSH BINARY LOGS"]).await;
        let daemon = stage.run();
        daemon.kill_when("a position within the table", || stage.positions().contains(" after ")).await;
        stage.sql(statements).await;
        let daemon = stage.run();
        daemon.logs("snapshot_truncated").await;
        let log = daemon.log();
        assert!(!log.contains("snapshot_done"), "{statements:?}: {log}");
        assert!(log.contains("FLUSH BINARY LOGS") && log.contains(&format!("outboxd position forget {NAME}")), "{log}");
        assert_eq!(daemon.terminate().await, Some(1), "{statements:?}");
        stage.sql([event(1, "in-the-new-table", "k").as_str(), "FLUSH BINARY LOGS"]).await;
        assert!(stage.outboxd(&["position", "forget", NAME, "--yes"]).status().unwrap().success());
        let daemon = stage.run();
        stage.delivered("in-the-new-table").await;
        assert_eq!(daemon.terminate().await, Some(0), "{statements:?}");
    }
}

/// Given a transaction that has a row of the table and does not end, when the daemon starts, then the snapshot does not wait
/// for it and no writer waits for the snapshot; its row comes once it is committed.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_snapshot_and_it_waits_for_nobody() {
    for setup in [
        Stage::of(),
        Stage::of().without_gtids(),
        Stage::of().server("mariadb-10.11"),
        Stage::of().server("mariadb-11.8"),
    ] {
        let stage = up(setup.shards(1).partitions(1)).await;
        stage.sql([event(1, "before", "k")]).await;
        let mut open = stage.connect().await;
        for sql in ["BEGIN", &event(1, "open", "k")] {
            open.query_drop(sql).await.unwrap();
        }
        let daemon = stage.run();
        stage.delivered("before").await;
        stage.sql([event(1, "after", "k")]).await;
        stage.delivered("after").await;
        assert!(daemon.log().contains("snapshot_done") || daemon.log().contains("snapshot_opened"));
        open.query_drop("COMMIT").await.unwrap();
        stage.delivered("open").await;
        assert_eq!(daemon.terminate().await, Some(0));
        assert_eq!(ids(&stage.records().await), ["before", "after", "open"]);
    }
}

/// Given a table without a primary key among others, when the daemon starts, then that one is refused with what to do, and
/// the others are relayed; and from a position that is told, it starts behind it.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_a_key_is_refused_and_starts_at_a_position_that_is_told() {
    let stage = up(Stage::of().shards(2).partitions(1)).await;
    stage.sql(["ALTER TABLE delivery.`delivery-outbox2` MODIFY seq BIGINT UNSIGNED NULL, DROP PRIMARY KEY"]).await;
    stage.sql([event(1, "keyed", "k"), event(2, "not-published", "k")]).await;
    let here = stage.ask("SELECT @@GLOBAL.gtid_executed").await.replace('\n', "");
    let daemon = stage.run();
    stage.delivered("keyed").await;
    assert!(daemon.log().contains("ADD PRIMARY KEY"));
    assert_eq!(daemon.terminate().await, Some(1));
    stage.sql([event(2, "behind", "k")]).await;
    let daemon = stage.run_with(&[("OUTBOX__0__START", &format!("gtid={here}"))]);
    stage.delivered("behind").await;
    assert_eq!(daemon.terminate().await, Some(0));
    assert_eq!(ids(&stage.records().await), ["keyed", "behind"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_waits_for_what_is_prepared() {
    for server in ["mysql-9.7", "mariadb-10.11"] {
        for start in ["snapshot", "now"] {
            // MariaDB shows to everybody what is prepared.
            let setup = Stage::of().server(server).shards(1);
            let setup = if server == "mysql-9.7" { setup.grant("XA_RECOVER_ADMIN ON *.*") } else { setup };
            let stage = up(setup).await;
            let mut conn = stage.connect().await;
            for sql in [
                "XA START 'x'".to_owned(),
                event(1, "prepared", "k"),
                "XA END 'x'".to_owned(),
                "XA PREPARE 'x'".to_owned(),
            ] {
                conn.query_drop(&sql).await.unwrap();
            }
            let daemon = stage.run_with(&[("OUTBOX__0__START", start)]);
            daemon.logs("a table that starts waits for XA COMMIT or XA ROLLBACK").await;
            conn.query_drop("XA COMMIT 'x'").await.unwrap();
            daemon.logs("table_claimed").await;
            daemon.ready().await;
            stage.sql([event(1, "later", "k")]).await;
            stage.delivered("later").await;
            let expected: &[&str] = if start == "now" { &["later"] } else { &["prepared", "later"] };
            assert_eq!(ids(&stage.records().await), expected, "{server} {start}");
            assert_eq!(daemon.terminate().await, Some(0));
        }
    }
}
