//! Servers that go away and come back.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;

use crate::exactly_once;
use crate::stage::{Stage, until};

#[tokio::test(flavor = "multi_thread")]
async fn kafka_is_away_for_half_a_minute_and_nothing_is_lost() {
    let mut stage = Stage::of().own_kafka().up().await;
    let writing = stage.write(10).await;
    let daemon = stage.run();
    daemon.ready().await;
    writing.more(300).await;
    stage.kafka().tell("kill").unwrap();
    sleep(Duration::from_secs(30)).await;
    assert!(daemon.metric("outboxd_lag_seconds") > 20.0, "the outage shows in the lag");
    let log = daemon.log();
    let clients: Vec<_> = log.lines().filter(|line| line.contains("kafka_error")).collect();
    let names_table = |line: &&str| line.contains("producer") && line.contains("delivery.delivery-outbox");
    assert!(!clients.is_empty() && clients.iter().all(names_table), "{log}");
    stage.kafka().tell("start").unwrap();
    writing.more(300).await;
    let journal = writing.stop().await;
    stage.judge(&journal, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_freezes_and_thaws_and_nothing_is_lost() {
    let mut stage = Stage::of().own_kafka().up().await;
    let writing = stage.write(11).await;
    let daemon = stage.run();
    daemon.ready().await;
    writing.more(300).await;
    stage.kafka().tell("pause").unwrap();
    writing.more(1000).await;
    stage.kafka().tell("resume").unwrap();
    writing.more(300).await;
    let journal = writing.stop().await;
    stage.judge(&journal, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_restarts_clean_and_by_force_and_nothing_is_lost() {
    let mut stage = Stage::of().up().await;
    let writing = stage.write(12).await;
    let daemon = stage.run();
    for end in ["kill", "stop"] {
        writing.more(300).await;
        stage.mysql.tell(end).unwrap();
        daemon.waits_for("").await;
        stage.mysql.tell("start").unwrap();
    }
    writing.more(300).await;
    let journal = writing.stop().await;
    stage.judge(&journal, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_servers_go_away_at_once_and_nothing_is_lost() {
    let mut stage = Stage::of().own_kafka().up().await;
    let writing = stage.write(13).await;
    let daemon = stage.run();
    daemon.ready().await;
    writing.more(300).await;
    stage.kafka().tell("kill").unwrap();
    stage.mysql.tell("kill").unwrap();
    daemon.waits_for("").await;
    stage.mysql.tell("start").unwrap();
    writing.more(300).await;
    stage.kafka().tell("start").unwrap();
    writing.more(300).await;
    let journal = writing.stop().await;
    stage.judge(&journal, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_mysql_is_noticed_by_its_silence() {
    let setup = Stage::of().set("MYSQL__HEARTBEAT", "200ms").set("MYSQL__SILENCE_DEADLINE", "1s");
    let mut stage = setup.set("MYSQL__CONNECT_TIMEOUT", "1s").up().await;
    let writing = stage.write(14).await;
    let daemon = stage.run();
    daemon.ready().await;
    writing.more(300).await;
    stage.mysql.tell("pause").unwrap();
    daemon.logs("nothing heard from the server for 1s").await;
    daemon.waits_for("").await;
    stage.mysql.tell("resume").unwrap();
    daemon.ready().await;
    writing.more(300).await;
    let journal = writing.stop().await;
    stage.judge(&journal, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stops_within_its_grace_although_mysql_is_frozen() {
    let setup = Stage::of().set("MYSQL__HEARTBEAT", "200ms").set("MYSQL__SILENCE_DEADLINE", "1s");
    let mut stage = setup.set("RELAY__SHUTDOWN_GRACE", "2s").up().await;
    let writing = stage.write(15).await;
    let mut daemon = stage.run();
    daemon.ready().await;
    writing.more(300).await;
    stage.mysql.tell("pause").unwrap();
    let began = tokio::time::Instant::now();
    daemon.signal("TERM");
    daemon.ended().await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    stage.mysql.tell("resume").unwrap();
    let daemon = stage.run();
    let journal = writing.stop().await;
    stage.judge(&journal, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_connections_are_killed_and_nothing_is_lost() {
    let stage = Stage::of().up().await;
    let writing = stage.write(16).await;
    let daemon = stage.run();
    daemon.ready().await;
    for _ in 0..5 {
        writing.more(100).await;
        stage.kill_owner().await;
        stage.kill_readers().await;
        daemon.ready().await;
    }
    until("it has connected again", async || daemon.metric("outboxd_tail_reconnects") >= 3.0).await;
    let journal = writing.stop().await;
    stage.judge(&journal, daemon).await;
}

/// Writes until the disk takes no more.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for piece in [&[0; 8 << 10][..], &[0; 1 << 10], &[0]] {
        while file.write_all(piece).is_ok() {}
    }
}

/// The disk that has the binlog, the outbox tables and the positions. A server waits for room, refuses, or ends by itself
/// (MySQL's `binlog_error_action`).
async fn the_disk_is_full(server: &'static str, disk: u32, seed: u64) {
    let mut stage = Stage::of().server(server).disk(disk).up().await;
    let writing = stage.write(seed).await;
    let daemon = stage.run();
    daemon.ready().await;
    writing.more(300).await;
    let filler = stage.mysql.dir().join("filler");
    fill(&filler);
    let log = stage.mysql.dir().join("log");
    until("the server tells of its disk", async || {
        let told = fs::read_to_string(&log).unwrap_or_default();
        ["No space left", "is full", "error 28", "errno: 28", "Disk is full"].iter().any(|words| told.contains(words))
    })
    .await;
    // It looks again after a minute; what is left of that is waited for afterwards.
    sleep(Duration::from_secs(15)).await;
    assert!(!daemon.log().contains("relay_halted"), "{}", daemon.log());
    fs::remove_file(&filler).unwrap();
    // One that has waited goes on; "running already" says so.
    let _ = stage.mysql.tell("start");
    writing.more(300).await;
    let journal = writing.stop().await;
    stage.judge(&journal, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_of_mysql_is_full_for_a_while_and_nothing_is_lost() {
    the_disk_is_full("mysql-9.7", 280, 91).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_of_mariadb_is_full_for_a_while_and_nothing_is_lost() {
    the_disk_is_full("mariadb-10.11", 200, 92).await;
}

/// A broker that sleeps longer than its session is fenced when it wakes up, and says for a moment that the cluster has none;
/// the client library then forgets the last one.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_is_fenced_again_and_again_and_every_table_goes_on() {
    is_fenced(Stage::of().own_kafka().up().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_is_fenced_again_and_again_and_every_table_goes_on_exactly_once() {
    is_fenced(exactly_once::up(Stage::of().own_kafka()).await).await;
}

async fn is_fenced(mut stage: Stage) {
    let writing = stage.write(93).await;
    let daemon = stage.run();
    daemon.ready().await;
    for _ in 0..4 {
        writing.more(200).await;
        stage.kafka().tell("pause").unwrap();
        sleep(Duration::from_secs(4)).await;
        stage.kafka().tell("resume").unwrap();
        until("every table goes on", async || daemon.metric("outboxd_lag_seconds") < 1.0).await;
    }
    let journal = writing.stop().await;
    stage.judge(&journal, daemon).await;
}
