//! Tables whose log was purged before it was relayed, and that recover from what they have themselves: really purged, on every
//! server.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::order::event;
use crate::stage::{Setup, Stage, until};

const TABLE: &str = "delivery.delivery-outbox1";

/// One table whose rows are numbered, as the migration makes it.
async fn up(setup: Setup) -> Stage {
    let setup = setup.set("OUTBOX__0__START", "snapshot").set("OUTBOX__0__ON_PURGED", "recover_from_table");
    setup.set("RELAY__CHECKPOINT_INTERVAL", "20ms").shards(1).partitions(1).up().await
}

fn all() -> [Setup; 4] {
    [Stage::of(), Stage::of().without_gtids(), Stage::of().server("mariadb-10.11"), Stage::of().server("mariadb-11.8")]
}

/// Many events in one statement.
fn events(name: &str, count: usize) -> String {
    let rows = (0..count).map(|n| format!("('{name}-{n}', 'delivery', 'k-{}', 'T', '{{}}')", n % 7));
    let columns = "id, aggregatetype, aggregateid, type, payload";
    let rows = rows.collect::<Vec<_>>().join(", ");
    format!("INSERT INTO delivery.`delivery-outbox1` ({columns}) VALUES {rows}")
}

/// Relays "first", and loses the log of what these statements do afterwards; gives how the log names what is lost: by the
/// server's uuid, the domain, or the file.
async fn lose(stage: &Stage, statements: &[String]) -> String {
    // Times of tables are whole seconds: one that was made in that of the save may have been made anew.
    let age = "SELECT CREATE_TIME < NOW() - INTERVAL 1 SECOND FROM information_schema.TABLES WHERE TABLE_NAME = \
               'delivery-outbox1'";
    until("the table is older than a second", async || stage.ask(age).await == "1").await;
    let daemon = stage.run();
    daemon.ready().await;
    stage.sql([event(1, "first", "k")]).await;
    stage.delivered("first").await;
    assert_eq!(daemon.terminate().await, Some(0));
    stage.sql(statements).await;
    stage.sql(["FLUSH BINARY LOGS"]).await;
    stage.purge().await;
    let saved = stage.positions();
    let (_, name) = ["gtid=", "domains=", "file="].iter().find_map(|kind| saved.split_once(kind)).unwrap();
    let name = name.split([':', ' ', '\n']).next().unwrap();
    // Of a uuid nothing is cut off, of a domain's GTID the number.
    if saved.contains("domains=") { name.rsplit_once('-').unwrap().0.to_owned() } else { name.to_owned() }
}

/// How often each event is in the topic.
async fn counts(stage: &Stage) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for record in stage.records().await {
        *counts.entry(record.event_id.to_string()).or_default() += 1;
    }
    counts
}

/// Inserts without end, at a pace that leaves the machine to the relay, and gives how many.
fn write(stage: &Stage) -> (CancellationToken, JoinHandle<usize>) {
    let stop = CancellationToken::new();
    let (stopped, opts) = (stop.clone(), stage.opts());
    let task = tokio::spawn(async move {
        let mut conn = mysql_async::Conn::new(opts).await.unwrap();
        let mut written = 0;
        while !stopped.is_cancelled() {
            conn.query_drop(event(1, &format!("during-{written}"), "k")).await.unwrap();
            written += 1;
            sleep(Duration::from_millis(5)).await;
        }
        written
    });
    (stop, task)
}

/// Given rows whose log is lost, when the daemon starts while somebody writes, and is killed on the way, then all of them
/// come, and what the log still has after them, in order; and exactly once, nothing twice but what had come before.
async fn recovers(setup: Setup, exactly_once: bool) {
    let setup = setup.set("RELAY__MAX_UNSAVED_EVENTS", "100").set("RELAY__BATCH_BYTES", "8 KiB");
    let stage = up(setup.set("RELAY__QUEUE_BYTES", "64 KiB")).await;
    let name = lose(&stage, &[events("lost", 3_000)]).await;
    stage.sql([events("kept", 10)]).await;
    let (stop, writing) = write(&stage);
    let daemon = stage.run();
    daemon.logs("recovers_from_table").await;
    let log = daemon.log();
    let line = log.lines().find(|line| line.contains("recovers_from_table")).unwrap();
    assert!(line.contains("missing=") && line.contains(&name) && line.contains("duplicates"), "{name}: {line}");
    daemon.logs("snapshot_opened").await;
    daemon.kill_when("a position within the table", || stage.positions().contains(" after ")).await;
    let daemon = stage.run();
    daemon.logs("snapshot_done").await;
    stop.cancel();
    let written = writing.await.unwrap();
    stage.delivered("lost-2999").await;
    stage.delivered(&format!("during-{}", written - 1)).await;
    assert!(!daemon.log().contains("recovers_from_table"), "it goes on where it was");
    assert_eq!(daemon.terminate().await, Some(0));
    let counts = counts(&stage).await;
    assert_eq!(counts.len(), 1 + 3_000 + 10 + written);
    assert_eq!(counts["first"], 2, "it is still in the table");
    assert!(!exactly_once || counts.iter().all(|(id, count)| *count == 1 || id == "first"), "{counts:?}");
    in_order(&stage).await;
    // What had come before is a duplicate where there are to be none.
    let verified = stage.outboxd(&["verify"]).output().unwrap();
    let code = if exactly_once { 2 } else { 0 };
    assert_eq!(verified.status.code(), Some(code), "{}", String::from_utf8_lossy(&verified.stdout));
}

/// Every key's rows in the order of their numbers, as often as they first come.
async fn in_order(stage: &Stage) {
    let mut seen = HashSet::new();
    let mut last = HashMap::new();
    for record in stage.records().await {
        let id = record.event_id.to_string();
        let Some(number) = id.strip_prefix("lost-").and_then(|number| number.parse::<usize>().ok()) else { continue };
        if seen.insert(id) {
            let before = last.insert(number % 7, number);
            assert!(before < Some(number), "{before:?} before {number}");
        }
    }
    assert_eq!(seen.len(), 3_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_of_the_table_comes_and_then_the_log() {
    for setup in all() {
        recovers(setup, false).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_of_the_table_comes_once_where_each_event_is_to_be_seen_once() {
    let setup = crate::exactly_once::exactly_once(Stage::of()).set("DELIVERY__COMMIT_EVENTS", "500");
    recovers(setup.set("KAFKA__CREATE_TOPICS", "true"), true).await;
}

/// Given rows that were deleted in the lost part too, when the daemon starts, then the table halts and names what is lost;
/// by hand it goes on with what is there, deleted rows that the log still has among it.
#[tokio::test(flavor = "multi_thread")]
async fn where_rows_are_gone_the_table_halts_and_names_what_is_lost() {
    for setup in all() {
        let stage = up(setup).await;
        let delete = |id: &str| format!("DELETE FROM delivery.`delivery-outbox1` WHERE id = '{id}'");
        let name = lose(&stage, &[events("lost", 4), delete("lost-1"), delete("lost-2")]).await;
        stage.sql([events("kept", 2), delete("lost-3")]).await;
        let mut daemon = stage.run();
        assert_eq!(daemon.ended().await, Some(1), "{}", daemon.log());
        let log = daemon.log();
        let line = log.lines().find(|line| line.contains("purged_rows_gone")).unwrap_or_else(|| panic!("{log}"));
        assert!(line.contains("3 are in no row (3-5)") && line.contains(&name), "{name}: {line}");
        assert!(line.contains(&format!("outboxd position set {TABLE} --to table")), "{line}");
        let set = stage.outboxd(&["position", "set", TABLE, "--to", "table", "--yes"]).output().unwrap();
        let said = String::from_utf8_lossy(&set.stdout);
        assert!(set.status.success() && said.contains("REPEATS every row"), "{said}");
        assert!(said.contains("SKIPS what") && said.contains(&name), "{said}");
        let daemon = stage.run();
        stage.delivered("kept-1").await;
        assert_eq!(daemon.terminate().await, Some(0));
        let counts = counts(&stage).await;
        let mut ids: Vec<_> = counts.keys().map(String::as_str).collect();
        ids.sort_unstable();
        assert_eq!(ids, ["first", "kept-0", "kept-1", "lost-0", "lost-3"]);
    }
}

/// Given a table that is empty, or truncated, or does not number its rows, when its log was purged, then nothing shows that
/// all rows are there, and it halts; and what the log shows being deleted comes even from a table that is empty.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_does_not_show_that_it_has_all_rows_halts() {
    let empty = "DELETE FROM delivery.`delivery-outbox1`".to_owned();
    let truncate = "TRUNCATE delivery.`delivery-outbox1`".to_owned();
    let unnumbered =
        "ALTER TABLE delivery.`delivery-outbox1` MODIFY seq BIGINT UNSIGNED NOT NULL DEFAULT 0, DROP PRIMARY \
                      KEY, ADD PRIMARY KEY (id)"
            .to_owned();
    for (statement, reason) in
        [(empty.clone(), "it is empty"), (truncate, "it is empty"), (unnumbered, "no AUTO_INCREMENT")]
    {
        let stage = up(Stage::of()).await;
        lose(&stage, &[events("lost", 4), statement]).await;
        let mut daemon = stage.run();
        assert_eq!(daemon.ended().await, Some(1), "{}", daemon.log());
        let log = daemon.log();
        let line = log.lines().find(|line| line.contains("purged_rows_gone")).unwrap_or_else(|| panic!("{log}"));
        assert!(line.contains(reason), "{line}");
    }
    for setup in [Stage::of(), Stage::of().server("mariadb-11.8")] {
        let stage = up(setup).await;
        lose(&stage, &[events("lost", 4)]).await;
        stage.sql([empty.clone()]).await;
        let mut daemon = stage.run();
        assert_eq!(daemon.ended().await, Some(1), "{}", daemon.log());
        assert!(stage.outboxd(&["position", "set", TABLE, "--to", "table", "--yes"]).status().unwrap().success());
        let daemon = stage.run();
        for id in ["lost-0", "lost-3"] {
            stage.delivered(id).await;
        }
        stage.sql([event(1, "last", "k")]).await;
        stage.delivered("last").await;
        assert_eq!(daemon.terminate().await, Some(0));
        assert_eq!(counts(&stage).await["last"], 1);
    }
}

/// Given writers that also roll back, a lost log, and rows deleted in what is left of it, when the table is read again by
/// hand, then nothing is missing, and what comes for the first time comes in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_read_again_by_hand_under_load_misses_nothing() {
    for (setup, seed) in all().into_iter().zip(921..) {
        let stage = up(setup).await;
        let writing = stage.write(seed).await;
        let daemon = stage.run();
        writing.more(200).await;
        daemon.ready().await;
        daemon.kill();
        writing.more(400).await;
        stage.sql(["FLUSH BINARY LOGS"]).await;
        stage.purge().await;
        writing.more(200).await;
        stage.sql(["DELETE FROM delivery.`delivery-outbox1` ORDER BY seq LIMIT 300"]).await;
        let mut daemon = stage.run();
        assert_eq!(daemon.ended().await, Some(1), "{}", daemon.log());
        assert!(stage.outboxd(&["position", "set", TABLE, "--to", "table", "--yes"]).status().unwrap().success());
        let daemon = stage.run();
        daemon.logs("snapshot_done").await;
        writing.more(200).await;
        let journal = writing.stop().await;
        stage.judge(&journal, daemon).await;
    }
}
