//! Reading from replicas, which nobody writes to: positions are kept elsewhere.

use super::cluster::Cluster;
use crate::account;
use crate::order::event;
use crate::stage::{Setup, Stage, until};

/// Positions in Kafka, which stages share.
pub(super) fn in_kafka(setup: Setup) -> Setup {
    let name = format!("positions-{}", fastrand::u64(..));
    let setup = setup.set("POSITIONS__STORE", "kafka").set("POSITIONS__TOPIC", &name);
    setup.set("DELIVERY__TRANSACTIONAL_ID", &name).set("KAFKA__CREATE_TOPICS", "true")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_read_while_its_primary_changes() {
    let cluster = Cluster::mysql(in_kafka(Stage::of()), 2, &[]).await;
    let writing = cluster.write(70).await;
    let daemon = cluster.run(&[1], &[("MYSQL__ROLE", "replica")]);
    daemon.ready().await;
    writing.more(300).await;
    cluster.switch_over(0, 2).await;
    cluster.follow(1, 2).await;
    writing.more(300).await;
    let journal = writing.stop().await;
    let verdict = cluster.judge(&journal, None, daemon).await;
    assert_eq!(verdict.total.duplicates, 0, "{verdict}");
    assert_eq!(cluster.ask(1, "SELECT @@super_read_only").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_replica_that_is_behind_is_read_once_the_first_is_gone() {
    let mut cluster = Cluster::mysql(in_kafka(Stage::of()), 2, &[]).await;
    let writing = cluster.write(71).await;
    let daemon = cluster.run(&[1, 2], &[("MYSQL__ROLE", "replica")]);
    daemon.ready().await;
    writing.more(300).await;
    cluster.sql(2, ["STOP REPLICA SQL_THREAD"]).await;
    writing.more(300).await;
    cluster.caught_up(1, 0).await;
    let journal = writing.stop().await;
    cluster.stage.verdict(&journal).await;
    cluster.tell(1, "kill");
    daemon.logs("server_is_behind").await;
    cluster.sql(2, ["START REPLICA SQL_THREAD"]).await;
    cluster.sql(0, [event(1, "afterwards", "afterwards")]).await;
    cluster.stage.delivered("afterwards").await;
    cluster.sql(0, ["DELETE FROM delivery.`delivery-outbox1` WHERE id = 'afterwards'"]).await;
    assert!(!daemon.log().contains("transactions_lost"), "{}", daemon.log());
    assert_eq!(daemon.terminate().await, Some(0));
    let verdict = cluster.stage.verdict(&journal).await;
    let found = verdict.total;
    assert_eq!((found.missing, found.out_of_order, found.duplicates, found.unexpected), (0, 0, 0, 1), "{verdict}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_of_mariadb_that_is_behind_is_waited_for() {
    let mut cluster = Cluster::mariadb("mariadb-11.8", in_kafka(Stage::of().shards(1)), 2).await;
    let daemon = cluster.run(&[1, 2], &[("MYSQL__ROLE", "replica")]);
    cluster.sql(0, [event(1, "both", "k")]).await;
    cluster.stage.delivered("both").await;
    cluster.caught_up(2, 0).await;
    cluster.sql(2, ["STOP SLAVE SQL_THREAD"]).await;
    cluster.sql(0, [event(1, "first", "k")]).await;
    cluster.stage.delivered("first").await;
    cluster.tell(1, "kill");
    daemon.waits_for("has not got").await;
    cluster.sql(2, ["START SLAVE SQL_THREAD"]).await;
    cluster.sql(0, [event(1, "second", "k")]).await;
    cluster.stage.delivered("second").await;
    assert_eq!(daemon.terminate().await, Some(0));
    let records = cluster.stage.records().await;
    assert_eq!(crate::order::ids(&records), ["both", "first", "second"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_replica_delays_and_its_positions_live_on_another_server() {
    let cluster = Cluster::mysql(Stage::of(), 1, &[]).await;
    let delay = ["STOP REPLICA", "CHANGE REPLICATION SOURCE TO SOURCE_DELAY = 2", "START REPLICA"];
    cluster.caught_up(1, 0).await;
    cluster.sql(1, delay).await;
    let positions = account::url_with_password(cluster.port(0));
    let writing = cluster.write(72).await;
    let daemon = cluster.run(&[1], &[("POSITIONS__URL", &positions)]);
    daemon.ready().await;
    writing.more(300).await;
    let journal = writing.stop().await;
    cluster.judge(&journal, None, daemon).await;
    let saved = cluster.ask(0, "SELECT COUNT(position) FROM outboxd.outboxd_positions").await;
    assert_eq!(saved, "4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_does_not_log_what_it_replicates_is_refused_by_name() {
    let cluster = Cluster::mysql(Stage::of(), 1, &["log_replica_updates=OFF"]).await;
    let mut check = cluster.stage.outboxd(&["check"]);
    check.env("OUTBOXD__MYSQL__URL", account::url(cluster.port(1)));
    check.env("OUTBOXD__POSITIONS__URL", account::url_with_password(cluster.port(0)));
    cluster.caught_up(1, 0).await;
    let told = check.output().unwrap();
    let text = String::from_utf8_lossy(&told.stdout);
    assert_eq!(told.status.code(), Some(78), "{text}");
    assert!(text.contains("start the server with log_replica_updates in its configuration"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_workers_commit_in_any_order_is_refused_until_they_keep_it() {
    let settings = &["replica_parallel_workers=4", "replica_preserve_commit_order=OFF"];
    let cluster = Cluster::mysql(Stage::of(), 1, settings).await;
    cluster.caught_up(1, 0).await;
    let check = |server: usize| {
        let mut check = cluster.stage.outboxd(&["check"]);
        check.env("OUTBOXD__MYSQL__URL", account::url(cluster.port(server)));
        check.env("OUTBOXD__POSITIONS__URL", account::url_with_password(cluster.port(0)));
        let told = check.output().unwrap();
        (told.status.code(), String::from_utf8_lossy(&told.stdout).into_owned())
    };
    let (code, text) = check(0);
    assert_eq!(code, Some(0), "the primary has the settings too, and replicates nothing: {text}");
    let (code, text) = check(1);
    assert_eq!(code, Some(78), "{text}");
    let cure = "STOP REPLICA SQL_THREAD; SET PERSIST replica_preserve_commit_order = ON; START REPLICA SQL_THREAD";
    assert!(text.contains(cure), "{text}");
    cluster.sql(1, cure.split("; ")).await;
    let (code, text) = check(1);
    assert_eq!(code, Some(0), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_daemon_writes_no_more_than_it_is_told_to() {
    let stage = Stage::of().set("RELAY__IDLE_CHECKPOINT_INTERVAL", "2s").up().await;
    let daemon = stage.run();
    stage.sql((1..=4).map(|shard| event(shard, &format!("e{shard}"), "k"))).await;
    for shard in 1..=4 {
        stage.delivered(&format!("e{shard}")).await;
    }
    let saves = async || -> u64 {
        let executed = stage.ask("SELECT @@GLOBAL.gtid_executed").await;
        executed.parse::<outboxd::position::GtidSet>().unwrap().len()
    };
    // The last events are saved, so that what follows is idle progress only.
    until("everything is saved", async || {
        let before = saves().await;
        tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
        saves().await == before
    })
    .await;
    let (began, before) = (std::time::Instant::now(), saves().await);
    tokio::time::sleep(std::time::Duration::from_secs(9)).await;
    let (written, seconds) = (saves().await - before, began.elapsed().as_secs_f64());
    // Its own saves are log that passes, too: they must not make for more of them.
    assert!((4..=4 * 6).contains(&written), "{written} saves of 4 tables in {seconds:.1} s");
    assert_eq!(daemon.terminate().await, Some(0));
}
