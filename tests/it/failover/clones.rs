//! A server with the same log and another uuid, as a copied data directory has it.

use std::fs;

use crate::order::{event, ids};
use crate::stage::{Setup, Stage};

/// The server goes away, and its copy comes up in its place.
fn become_a_copy(stage: &mut Stage) {
    stage.mysql.tell("stop").unwrap();
    fs::remove_file(stage.mysql.dir().join("data/auto.cnf")).unwrap();
    stage.mysql.tell("start").unwrap();
}

async fn relayed_once(setup: Setup) -> Stage {
    let stage = setup.shards(1).partitions(1).up().await;
    let daemon = stage.run();
    stage.sql([event(1, "before", "k")]).await;
    stage.delivered("before").await;
    assert_eq!(daemon.terminate().await, Some(0));
    stage
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_and_an_offset_of_another_server_are_refused_until_told_otherwise() {
    let mut stage = relayed_once(Stage::of().without_gtids()).await;
    let uuid = stage.ask("SELECT @@server_uuid").await;
    assert!(stage.positions().contains(&uuid), "{}", stage.positions());
    become_a_copy(&mut stage);
    stage.sql([event(1, "after", "k")]).await;
    let mut daemon = stage.run();
    assert_eq!(daemon.ended().await, Some(1), "{}", daemon.log());
    assert!(daemon.log().contains("reason=\"other_server\""), "{}", daemon.log());
    let daemon = stage.run_with(&[("MYSQL__ON_NEW_SERVER", "continue")]);
    stage.delivered("after").await;
    assert_eq!(daemon.terminate().await, Some(0));
    let uuid = stage.ask("SELECT @@server_uuid").await;
    assert!(stage.positions().contains(&uuid), "{}", stage.positions());
    // From here on it is the server that the position is of.
    let daemon = stage.run();
    stage.sql([event(1, "last", "k")]).await;
    stage.delivered("last").await;
    assert_eq!(daemon.terminate().await, Some(0));
    assert_eq!(ids(&stage.records().await), ["before", "after", "last"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_and_an_offset_of_another_server_are_refused_while_running_too() {
    let mut stage = Stage::of().without_gtids().shards(1).partitions(1).up().await;
    let mut daemon = stage.run();
    stage.sql([event(1, "before", "k")]).await;
    stage.delivered("before").await;
    become_a_copy(&mut stage);
    assert_eq!(daemon.ended().await, Some(1), "{}", daemon.log());
    assert!(daemon.log().contains("reason=\"other_server\""), "{}", daemon.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_gtids_a_copy_is_the_same_server() {
    let mut stage = relayed_once(Stage::of()).await;
    become_a_copy(&mut stage);
    let daemon = stage.run();
    stage.sql([event(1, "after", "k")]).await;
    stage.delivered("after").await;
    become_a_copy(&mut stage);
    stage.sql([event(1, "last", "k")]).await;
    stage.delivered("last").await;
    daemon.logs("server_changed").await;
    assert_eq!(daemon.terminate().await, Some(0));
    assert_eq!(ids(&stage.records().await), ["before", "after", "last"]);
}

const UP: [&str; 3] = ["OFF_PERMISSIVE", "ON_PERMISSIVE", "ON"];

#[tokio::test(flavor = "multi_thread")]
async fn gtids_are_turned_on_and_off_under_a_running_daemon() {
    let stage = Stage::of().without_gtids().shards(1).partitions(1).up().await;
    let daemon = stage.run();
    let mut expected = Vec::new();
    stage.sql(["SET GLOBAL enforce_gtid_consistency = ON"]).await;
    let there_and_back = UP.iter().chain(UP.iter().rev().skip(1));
    for (n, mode) in there_and_back.enumerate() {
        let id = format!("{n}-{mode}");
        stage.sql([format!("SET GLOBAL gtid_mode = {mode}"), event(1, &id, "k")]).await;
        stage.delivered(&id).await;
        expected.push(id);
    }
    assert_eq!(daemon.terminate().await, Some(0));
    assert!(stage.positions().contains("file="), "the kind stays: {}", stage.positions());
    // With ON, the server does not send what was written without: that is told by name, and nothing is passed over.
    stage.sql([event(1, "away", "k")]).await;
    stage.sql(UP.map(|mode| format!("SET GLOBAL gtid_mode = {mode}"))).await;
    let mut daemon = stage.run();
    assert_eq!(daemon.ended().await, Some(1));
    assert!(daemon.log().contains("reason=\"gtid_mode\""), "{}", daemon.log());
    stage.sql(["SET GLOBAL gtid_mode = ON_PERMISSIVE"]).await;
    let daemon = stage.run();
    stage.delivered("away").await;
    stage.sql(["SET GLOBAL gtid_mode = ON".to_owned(), event(1, "last", "k")]).await;
    stage.delivered("last").await;
    expected.extend(["away".to_owned(), "last".to_owned()]);
    assert_eq!(daemon.terminate().await, Some(0));
    let daemon = stage.run();
    daemon.ready().await;
    assert_eq!(daemon.terminate().await, Some(0));
    assert_eq!(ids(&stage.records().await), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_without_gtid_after_a_set_of_them_halts_by_name() {
    let stage = Stage::of().shards(1).up().await;
    let mut daemon = stage.run();
    stage.sql([event(1, "with", "k")]).await;
    stage.delivered("with").await;
    stage.sql(["SET GLOBAL gtid_mode = ON_PERMISSIVE", "SET GLOBAL gtid_mode = OFF_PERMISSIVE"]).await;
    stage.sql([event(1, "without", "k")]).await;
    assert_eq!(daemon.ended().await, Some(1));
    assert!(daemon.log().contains("reason=\"anonymous_transaction\""), "{}", daemon.log());
}
