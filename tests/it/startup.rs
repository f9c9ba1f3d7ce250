//! How it starts: before its servers, and without a position.

use crate::order::{event, ids};
use crate::stage::{Setup, Stage, until};

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_for_mysql_and_kafka_and_says_so() {
    let mut stage = Stage::of().own_kafka().shards(2).up().await;
    stage.mysql.tell("stop").unwrap();
    stage.kafka().tell("stop").unwrap();
    let daemon = stage.run();
    daemon.logs("waiting_for_server").await;
    daemon.waits_for("waiting for mysql 127.0.0.1").await;
    stage.mysql.tell("start").unwrap();
    daemon.waits_for("waiting for kafka").await;
    stage.kafka().tell("start").unwrap();
    daemon.ready().await;
    stage.sql([event(1, "first", "k")]).await;
    stage.delivered("first").await;
    daemon.logs("position_saved").await;
    assert_eq!(daemon.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_can_be_stopped_while_it_waits() {
    let mut stage = Stage::of().shards(1).up().await;
    stage.mysql.tell("pause").unwrap();
    let daemon = stage.run_with(&[("MYSQL__CONNECT_TIMEOUT", "1s")]);
    daemon.waits_for("did not answer within 1s").await;
    assert_eq!(daemon.terminate().await, Some(0));
    stage.mysql.tell("stop").unwrap_err();
    stage.mysql.tell("kill").unwrap();
    let daemon = stage.run();
    daemon.logs("waiting_for_server").await;
    assert_eq!(daemon.terminate().await, Some(0));
}

/// Rows before the first start, and after it.
async fn first_starts(setup: Setup) {
    let stage = setup.shards(1).partitions(1).set("OUTBOX__0__START", "now").up().await;
    stage.sql([event(1, "before", "k"), "FLUSH BINARY LOGS".into()]).await;
    // The place is durable before anything is read: a crash does not make a later "now" of it.
    let daemon = stage.run();
    daemon.ready().await;
    daemon.kill();
    stage.sql([event(1, "between", "k")]).await;
    let daemon = stage.run();
    stage.delivered("between").await;
    assert_eq!(daemon.terminate().await, Some(0));
    assert_eq!(ids(&stage.records().await), ["between"]);
    // From the very beginning again, as a table that has never been relayed.
    stage.sql(["DELETE FROM outboxd.outboxd_positions"]).await;
    let daemon = stage.run_with(&[("OUTBOX__0__START", "earliest")]);
    stage.delivered("before").await;
    assert_eq!(daemon.terminate().await, Some(0));
    // Not told: with the rows that are in the table.
    stage.sql(["DELETE FROM outboxd.outboxd_positions"]).await;
    let mut command = stage.outboxd(&["run"]);
    command.env_remove("OUTBOXD__OUTBOX__0__START");
    let daemon = crate::daemon::Daemon::spawn(&command);
    daemon.ready().await;
    stage.sql([event(1, "last", "k")]).await;
    stage.delivered("last").await;
    assert_eq!(daemon.terminate().await, Some(0));
    assert_eq!(ids(&stage.records().await), ["between", "before", "between", "before", "between", "last"]);
    // That serves where the log has lost its beginning, too.
    stage.purge().await;
    stage.sql(["DELETE FROM outboxd.outboxd_positions"]).await;
    let daemon = crate::daemon::Daemon::spawn(&command);
    until("the rows come once more", async || ids(&stage.records().await).ends_with(&["before", "between", "last"]))
        .await;
    assert_eq!(daemon.terminate().await, Some(0));
    stage.sql(["DELETE FROM outboxd.outboxd_positions"]).await;
    // Told to begin with what there is.
    let daemon = stage.run_with(&[("OUTBOX__0__START", "earliest")]);
    stage.sql([event(1, "later", "k")]).await;
    stage.delivered("later").await;
    assert_eq!(daemon.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_begins_where_it_is_told_to_with_gtids() {
    first_starts(Stage::of()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_begins_where_it_is_told_to_without_gtids() {
    first_starts(Stage::of().without_gtids()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_begins_where_it_is_told_to_on_mariadb_10_11() {
    first_starts(Stage::of().server("mariadb-10.11")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_begins_where_it_is_told_to_on_mariadb_11_8() {
    first_starts(Stage::of().server("mariadb-11.8")).await;
}
