//! Exactly once, as a reader of committed records sees it.

use std::time::Duration;

use fastrand::Rng;
use outboxd::history::{Journal, Verdict};
use tokio::time::{sleep, timeout};

use crate::daemon::Daemon;
use crate::stage::{Setup, Stage, seed, until};

pub(crate) fn exactly_once(setup: Setup) -> Setup {
    // Stages share a Kafka.
    let topic = format!("positions-{}", fastrand::u64(..));
    let setup = setup.set("DELIVERY__GUARANTEE", "exactly_once").set("POSITIONS__TOPIC", &topic);
    setup.set("DELIVERY__TRANSACTIONAL_ID", &topic)
}

/// The daemon creates the topic of positions.
pub(crate) async fn up(setup: Setup) -> Stage {
    exactly_once(setup).set("KAFKA__CREATE_TOPICS", "true").up().await
}

/// Everything arrives once, the daemon stops clean, and the history has no fault.
async fn judge(stage: &Stage, journal: &Journal, daemon: Daemon) -> Verdict {
    let verdict = stage.judge(journal, daemon).await;
    assert_eq!(verdict.total.duplicates, 0, "{verdict}");
    verdict
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_moments_every_event_is_seen_once() {
    let stage = up(Stage::of()).await;
    let seed = seed();
    let mut rng = Rng::with_seed(seed);
    let writing = stage.write(seed).await;
    for _ in 0..20 {
        let daemon = stage.run();
        // Some are killed before they have begun, most while they publish.
        if rng.u32(0..4) > 0 {
            daemon.logs("table_claimed").await;
        }
        sleep(Duration::from_millis(rng.u64(20..900))).await;
        daemon.kill();
    }
    let daemon = stage.run();
    writing.more(100).await;
    let journal = writing.stop().await;
    let verdict = judge(&stage, &journal, daemon).await;
    assert!(verdict.total.committed > 1000, "there was load: {verdict}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_leaves_nothing_open_and_nothing_twice() {
    let stage = up(Stage::of()).await;
    let writing = stage.write(31).await;
    for _ in 0..4 {
        let daemon = stage.run();
        writing.more(300).await;
        assert_eq!(daemon.terminate().await, Some(0));
    }
    let daemon = stage.run();
    let journal = writing.stop().await;
    let verdict = judge(&stage, &journal, daemon).await;
    let positions = stage.positions();
    assert_eq!(positions.matches(" gtid=").count(), 4, "{positions}");
    let idle = stage.run();
    idle.ready().await;
    assert_eq!(idle.terminate().await, Some(0));
    assert_eq!(stage.verdict(&journal).await.records, verdict.records);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_is_fenced_by_name_and_leaves_no_trace() {
    let stage = up(Stage::of()).await;
    let writing = stage.write(32).await;
    let mut zombie = stage.run();
    zombie.ready().await;
    writing.more(200).await;
    zombie.signal("STOP");
    let heir = stage.run();
    heir.ready().await;
    writing.more(300).await;
    zombie.signal("CONT");
    let woken = tokio::time::Instant::now();
    assert_eq!(zombie.ended().await, Some(1), "the zombie halts");
    assert!(woken.elapsed() < Duration::from_secs(15), "also while the heir writes positions all the time");
    assert_eq!(zombie.log().matches("reason=\"fenced\"").count(), 4, "every relay by name: {}", zombie.log());
    writing.more(100).await;
    let journal = writing.stop().await;
    judge(&stage, &journal, heir).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_and_mysql_go_away_and_come_back_and_every_event_is_seen_once() {
    let mut stage = up(Stage::of().own_kafka()).await;
    let writing = stage.write(33).await;
    let daemon = stage.run();
    writing.more(300).await;
    for _ in 0..2 {
        stage.kafka().tell("kill").unwrap();
        writing.more(200).await;
        stage.kafka().tell("start").unwrap();
        writing.more(200).await;
    }
    stage.mysql.tell("kill").unwrap();
    stage.mysql.tell("start").unwrap();
    writing.more(300).await;
    let journal = writing.stop().await;
    judge(&stage, &journal, daemon).await;
}

/// That some have ended so.
fn transactions(daemon: &Daemon, outcome: &str) -> bool {
    let Some((_, page)) = daemon.page("/metrics") else { return false };
    let mut lines = page.lines().filter(|line| line.starts_with("outboxd_kafka_transactions_total{"));
    lines.any(|line| line.contains(outcome) && !line.ends_with(" 0"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_has_timed_out_is_done_again() {
    let mut stage = up(Stage::of().own_kafka().set("DELIVERY__TRANSACTION_TIMEOUT", "1s")).await;
    let writing = stage.write(34).await;
    let daemon = stage.run();
    until("a transaction is committed", async || transactions(&daemon, "committed")).await;
    // A pause that finds every table waiting for the answer to its commit times nothing out.
    for _ in 0..40 {
        stage.kafka().tell("pause").unwrap();
        let restarts = timeout(Duration::from_secs(4), daemon.logs("relay_restarts")).await;
        stage.kafka().tell("resume").unwrap();
        if restarts.is_ok() {
            break;
        }
        writing.more(50).await;
    }
    assert!(daemon.log().contains("relay_restarts"));
    until("a transaction is aborted", async || transactions(&daemon, "aborted")).await;
    writing.more(300).await;
    let journal = writing.stop().await;
    judge(&stage, &journal, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_move_to_kafka_and_back_and_no_event_is_lost_or_doubled() {
    // Stages share a Kafka.
    let topic = format!("positions-{}", fastrand::u64(..));
    let setup = Stage::of().set("KAFKA__CREATE_TOPICS", "true").set("POSITIONS__TOPIC", &topic);
    let stage = setup.set("DELIVERY__TRANSACTIONAL_ID", &topic).up().await;
    let once = [("DELIVERY__GUARANTEE", "exactly_once")];
    let migrate = |to: &str| {
        let output = stage.outboxd(&["position", "migrate", "--to", to]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    // The topic of positions has to be there to move into it.
    assert_eq!(stage.run_with(&[("OUTBOX__0__TABLES", "delivery.absent"), once[0]]).ended().await, Some(78));
    let writing = stage.write(35).await;
    for _ in 0..2 {
        let daemon = stage.run();
        daemon.ready().await;
        writing.more(300).await;
        assert_eq!(daemon.terminate().await, Some(0));

        assert_eq!(stage.run_with(&once).ended().await, Some(78), "the positions are not there");
        let moved = migrate("kafka");
        assert!(moved.ends_with("4 moved to kafka\n"), "{moved}");
        assert!(migrate("kafka").ends_with("0 moved to kafka\n"), "a second time changes nothing");
        let daemon = stage.run_with(&once);
        daemon.ready().await;
        writing.more(300).await;
        assert_eq!(daemon.terminate().await, Some(0));

        assert_eq!(stage.run().ended().await, Some(78), "the positions are not there any more");
        assert!(migrate("mysql").ends_with("4 moved to mysql\n"));
    }
    // At least once with positions in the topic.
    migrate("kafka");
    let daemon = stage.run_with(&[("POSITIONS__STORE", "kafka")]);
    daemon.ready().await;
    writing.more(300).await;
    let journal = writing.stop().await;
    judge(&stage, &journal, daemon).await;
}
