//! MySQL with GTIDs.

use outboxd::position::GtidSet;

use super::cluster::Cluster;
use super::replicas::in_kafka;
use crate::account;
use crate::daemon::Daemon;
use crate::order::{event, ids};
use crate::stage::{Stage, until};

const EXECUTED: &str = "SELECT @@GLOBAL.gtid_executed";

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_switchover_and_back_loses_nothing_and_doubles_nothing() {
    let cluster = Cluster::mysql(Stage::of(), 1, &[]).await;
    let writing = cluster.write(50).await;
    let daemon = cluster.run(&[0, 1], &[]);
    daemon.ready().await;
    writing.more(300).await;
    for (from, to) in [(0, 1), (1, 0)] {
        cluster.switch_over(from, to).await;
        writing.more(300).await;
    }
    let journal = writing.stop().await;
    let verdict = cluster.judge(&journal, None, daemon).await;
    assert_eq!(verdict.total.duplicates, 0, "{verdict}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_is_killed_under_load_and_what_survives_is_relayed() {
    let mut cluster = Cluster::mysql(Stage::of(), 1, &[]).await;
    let writing = cluster.write(51).await;
    let daemon = cluster.run(&[0, 1], &[]);
    daemon.ready().await;
    writing.more(500).await;
    cluster.tell(0, "kill");
    cluster.applied(1).await;
    cluster.promote(1).await;
    daemon.logs("server_changed").await;
    writing.more(300).await;
    // The old primary comes back as a replica; what only it has stays with it.
    cluster.tell(0, "start");
    cluster.follow(0, 1).await;
    writing.more(300).await;
    let journal = writing.stop().await;
    cluster.judge(&journal, Some(0), daemon).await;
}

/// The replica that is promoted lacks what the daemon has relayed already.
async fn lagging(cluster: &mut Cluster, daemon: &Daemon, marked: &str) -> GtidSet {
    cluster.caught_up(1, 0).await;
    cluster.sql(1, ["STOP REPLICA IO_THREAD"]).await;
    let rows: Vec<_> = (0..5).map(|n| event(1 + n % 4, &format!("{marked}-{n}"), &format!("lost-{n}"))).collect();
    cluster.sql(0, rows).await;
    for n in 0..5 {
        cluster.stage.delivered(&format!("{marked}-{n}")).await;
    }
    // While it stands still it saves no positions, which are transactions too.
    daemon.signal("STOP");
    let had: GtidSet = cluster.ask(0, EXECUTED).await.parse().unwrap();
    cluster.tell(0, "kill");
    daemon.signal("CONT");
    let has: GtidSet = cluster.ask(1, EXECUTED).await.parse().unwrap();
    had.difference(&has)
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_that_are_lost_are_reported_and_their_numbers_may_be_given_again() {
    let mut cluster = Cluster::mysql(Stage::of(), 1, &[]).await;
    let writing = cluster.write(52).await;
    let daemon = cluster.run(&[0, 1], &[]);
    daemon.ready().await;
    writing.more(300).await;
    let journal = writing.stop().await;
    let lost = lagging(&mut cluster, &daemon, "lost").await;
    assert!(lost.len() >= 5, "{lost}");
    cluster.promote(1).await;
    daemon.logs("transactions_lost_by_failover").await;
    let writing = cluster.write(53).await;
    writing.more(300).await;
    until("every table has told it", async || daemon.log().matches("transactions_lost_by_failover").count() == 4).await;
    for line in daemon.log().lines().filter(|line| line.contains("transactions_lost_by_failover")) {
        let named = line.split("lost=").nth(1).unwrap().split(' ').next().unwrap().trim_matches('"');
        let named: GtidSet = named.parse().unwrap();
        assert!(named.is_subset(&lost) && !named.is_empty(), "{named} of {lost}");
    }
    assert!(daemon.metric("outboxd_source_lost_transactions_total") >= 5.0);
    // The old primary comes back as a copy of the new one, as CLONE makes it: with its old uuid, so that once it is the
    // primary again it gives the lost numbers to other transactions.
    cluster.tell(0, "start");
    let has = cluster.ask(1, EXECUTED).await;
    let mut again = vec!["SET SESSION sql_log_bin = 0".to_owned()];
    again.extend((1..=4).map(|n| format!("DELETE FROM delivery.`delivery-outbox{n}` WHERE id LIKE 'lost-%'")));
    again.push("RESET BINARY LOGS AND GTIDS".to_owned());
    // What the new primary has written meanwhile is replicated.
    let had: GtidSet = cluster.ask(0, EXECUTED).await.parse().unwrap();
    let of_old = has.parse::<GtidSet>().unwrap().intersection(&had);
    again.push(format!("SET GLOBAL gtid_purged = '{of_old}'"));
    cluster.sql(0, again).await;
    cluster.follow(0, 1).await;
    cluster.caught_up(0, 1).await;
    cluster.switch_over(1, 0).await;
    writing.more(300).await;
    let executed: GtidSet = cluster.ask(0, EXECUTED).await.parse().unwrap();
    assert!(lost.is_subset(&executed), "{lost} are given again: {executed}");
    let mut journal = journal;
    journal.absorb(writing.stop().await);
    let history = cluster.history(&journal, None).await;
    let verdict = cluster.stage.verdict(&history).await;
    let found = verdict.total;
    assert_eq!((found.missing, found.ghosts, found.out_of_order, found.duplicates), (0, 0, 0, 0), "{verdict}");
    assert_eq!(found.unexpected, 5, "the lost ones: {verdict}");
    assert_eq!(daemon.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_transactions_halt_the_tables_when_told_so() {
    let mut cluster = Cluster::mysql(Stage::of(), 1, &[]).await;
    let mut daemon = cluster.run(&[0, 1], &[("MYSQL__ON_LOST_TRANSACTIONS", "halt")]);
    daemon.ready().await;
    lagging(&mut cluster, &daemon, "halting").await;
    cluster.promote(1).await;
    assert_eq!(daemon.ended().await, Some(1));
    assert!(daemon.log().contains("reason=\"transactions_lost\""), "{}", daemon.log());
    // On request it goes on.
    let daemon = cluster.run(&[0, 1], &[]);
    cluster.sql(1, [event(1, "after", "after")]).await;
    cluster.stage.delivered("after").await;
    assert_eq!(daemon.terminate().await, Some(0));
}

/// Given a server that has lost its last transaction, when it comes back read-only and nothing replicates to it, then that is
/// told, and what gets the same number later is relayed.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_read_only_server_has_lost_of_its_own_is_told_and_what_comes_instead_is_relayed() {
    let cluster = Cluster::mysql(in_kafka(Stage::of().shards(1)), 0, &[]).await;
    let daemon = cluster.run(&[0], &[]);
    cluster.sql(0, [event(1, "kept", "k")]).await;
    cluster.stage.delivered("kept").await;
    let kept = cluster.ask(0, EXECUTED).await;
    cluster.sql(0, [event(1, "lost", "k")]).await;
    cluster.stage.delivered("lost").await;
    assert_eq!(daemon.terminate().await, Some(0));
    // What a crash leaves where the log is not synchronised.
    let crash = [
        "SET GLOBAL read_only = ON".to_owned(),
        "SET SESSION sql_log_bin = 0".to_owned(),
        "DELETE FROM delivery.`delivery-outbox1` WHERE id = 'lost'".to_owned(),
        "RESET BINARY LOGS AND GTIDS".to_owned(),
        format!("SET GLOBAL gtid_purged = '{kept}'"),
    ];
    cluster.sql(0, crash).await;
    let daemon = cluster.run(&[0], &[]);
    daemon.logs("transactions_lost_by_failover").await;
    // It is given the number of the lost one.
    cluster.sql(0, ["SET GLOBAL read_only = OFF".to_owned(), event(1, "again", "k")]).await;
    cluster.stage.delivered("again").await;
    assert_eq!(daemon.terminate().await, Some(0));
    assert_eq!(ids(&cluster.stage.records().await), ["kept", "lost", "again"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_semi_synchronous_replication_no_acknowledged_commit_is_lost() {
    let settings = &[
        "plugin_load_add=semisync_source.so;semisync_replica.so",
        "loose-rpl_semi_sync_replica_enabled=ON",
        "loose-rpl_semi_sync_source_timeout=600000",
    ];
    let mut cluster = Cluster::mysql(Stage::of(), 1, settings).await;
    // On the primary only: nobody acknowledges what a replica without replicas applies.
    cluster.sql(0, ["SET GLOBAL rpl_semi_sync_source_enabled = ON"]).await;
    let writing = cluster.write(54).await;
    let daemon = cluster.run(&[0, 1], &[]);
    daemon.ready().await;
    writing.more(500).await;
    assert_eq!(cluster.ask(0, "SELECT VARIABLE_VALUE FROM performance_schema.global_status WHERE VARIABLE_NAME = 'Rpl_semi_sync_source_status'").await, "ON");
    cluster.tell(0, "kill");
    cluster.applied(1).await;
    cluster.promote(1).await;
    writing.more(300).await;
    let journal = writing.stop().await;
    cluster.tell(0, "start");
    let committed = journal.committed().count();
    let survived = cluster.history(&journal, None).await.committed().count();
    assert!(survived >= committed, "{survived} of {committed} acknowledged events survive");
    cluster.judge(&journal, Some(0), daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_moves_is_followed() {
    let cluster = Cluster::mysql(Stage::of(), 1, &[]).await;
    let writing = cluster.write(55).await;
    let url = account::url(cluster.front());
    let daemon = cluster.run(&[0], &[("MYSQL__URL", &url), ("MYSQL__ROLE", "primary")]);
    daemon.ready().await;
    writing.more(300).await;
    cluster.switch_over(0, 1).await;
    writing.more(300).await;
    let journal = writing.stop().await;
    let verdict = cluster.judge(&journal, None, daemon).await;
    assert_eq!(verdict.total.duplicates, 0, "{verdict}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_relayed_in_part_is_not_begun_again_on_the_new_primary() {
    let setup =
        Stage::of().shards(1).set("RELAY__TRANSACTION_HOLD_BYTES", "64 KiB").set("RELAY__MAX_UNSAVED_EVENTS", "200");
    let mut cluster = Cluster::mysql(setup, 1, &[]).await;
    let daemon = cluster.run(&[0, 1], &[]);
    daemon.ready().await;
    let mut rows = vec!["SET SESSION cte_max_recursion_depth = 1000000".to_owned(), "START TRANSACTION".to_owned()];
    rows.push(
        "INSERT INTO delivery.`delivery-outbox1` (id, aggregatetype, aggregateid, type, payload) WITH RECURSIVE n AS \
         (SELECT 1 AS n UNION ALL SELECT n + 1 FROM n WHERE n < 60000) SELECT CONCAT('row-', n), 'delivery', CONCAT('k-', n % 7), \
         'Created', JSON_OBJECT('n', n, 'filler', REPEAT('x', 200)) FROM n"
            .to_owned(),
    );
    rows.push("COMMIT".to_owned());
    cluster.sql(0, rows).await;
    cluster.caught_up(1, 0).await;
    until("it has begun", async || daemon.metric("outboxd_events_total") > 200.0).await;
    daemon.kill();
    let saved = cluster.stage.positions();
    cluster.caught_up(1, 0).await;
    cluster.tell(0, "kill");
    cluster.promote(1).await;
    let daemon = cluster.run(&[1, 0], &[]);
    cluster.stage.delivered("row-60000").await;
    assert_eq!(daemon.terminate().await, Some(0));
    let records = cluster.stage.records().await;
    let distinct: std::collections::HashSet<_> = records.iter().map(|record| record.event_id.clone()).collect();
    assert_eq!(distinct.len(), 60_000);
    let twice = records.len() - distinct.len();
    assert!(twice < 10_000, "{twice} twice, after {saved}");
}
