//! Clean stops, hasty stops, exit codes.

use crate::stage::{Stage, free_port, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_under_load_leaves_no_duplicate() {
    let stage = Stage::of().up().await;
    let writing = stage.write(2).await;
    for _ in 0..5 {
        let daemon = stage.run();
        writing.more(300).await;
        assert_eq!(daemon.terminate().await, Some(0));
    }
    let daemon = stage.run();
    let journal = writing.stop().await;
    let verdict = stage.judge(&journal, daemon).await;
    assert_eq!(verdict.total.duplicates, 0, "{verdict}");
    // With nothing to do, a restart publishes nothing.
    let idle = stage.run();
    idle.ready().await;
    assert_eq!(idle.terminate().await, Some(0));
    assert_eq!(stage.verdict(&journal).await.records, verdict.records);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_leaves_at_once() {
    let mut stage = Stage::of().own_kafka().set("RELAY__SHUTDOWN_GRACE", "50s").up().await;
    let writing = stage.write(3).await;
    let mut daemon = stage.run();
    daemon.ready().await;
    writing.more(200).await;
    stage.kafka().tell("pause").unwrap();
    writing.more(200).await;
    until("records wait for Kafka", async || daemon.metric("outboxd_in_flight_events") > 0.0).await;
    daemon.signal("TERM");
    daemon.logs("stopping").await;
    let began = tokio::time::Instant::now();
    daemon.signal("INT");
    assert_eq!(daemon.ended().await, Some(70));
    assert!(began.elapsed().as_secs() < 5);
    stage.kafka().tell("resume").unwrap();
    let daemon = stage.run();
    let journal = writing.stop().await;
    stage.judge(&journal, daemon).await;
}

/// Given a paused table, whose claim only MySQL can take back, when the daemon is stopped while MySQL hangs, then it
/// ends all the same, and its exit code tells this from a clean stop.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_is_given_up_is_no_clean_one() {
    let setup = Stage::of().set("RELAY__SHUTDOWN_GRACE", "1s").set("MYSQL__CONNECT_TIMEOUT", "50s");
    let mut stage = setup.up().await;
    let listen = format!("127.0.0.1:{}", free_port());
    let mut daemon = stage.run_with(&[("ADMIN__LISTEN", &listen)]);
    daemon.ready().await;
    let mut pause = stage.outboxd(&["pause", "delivery.delivery-outbox1"]);
    let paused = pause.env("OUTBOXD__ADMIN__LISTEN", &listen).output().unwrap();
    assert!(paused.status.success(), "{paused:?}");
    stage.mysql.tell("pause").unwrap();
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await, Some(70));
    assert!(daemon.log().contains("stop_overdue"), "{}", daemon.log());
    stage.mysql.tell("resume").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_tell_what_is_wrong() {
    let stage = Stage::of().up().await;
    let code = async |keys: &[(&str, &str)]| stage.run_with(keys).ended().await;
    assert_eq!(code(&[("RELAY__QUEUE_BYTES", "many")]).await, Some(64), "configuration");
    assert_eq!(code(&[("OUTBOX__0__TABLES", "delivery.nothing*")]).await, Some(64), "no table selected");
    assert_eq!(code(&[("MYSQL__PASSWORD", "wrong")]).await, Some(69), "the server refuses");
    assert_eq!(code(&[("OUTBOX__0__TABLES", "delivery.absent")]).await, Some(78), "preflight: no such table");
    assert_eq!(code(&[("OUTBOX__0__TOPIC", "absent")]).await, Some(78), "preflight: no such topic");
}
