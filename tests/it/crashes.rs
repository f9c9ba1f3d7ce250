//! Killed at a bad moment.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::sleep;

use crate::stage::{Stage, seed, until};

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_moments_it_loses_and_reorders_nothing() {
    let stage = Stage::of().up().await;
    let seed = seed();
    let mut rng = Rng::with_seed(seed);
    let writing = stage.write(seed).await;
    for _ in 0..20 {
        let daemon = stage.run();
        // Some are killed before they have begun, some while they publish.
        sleep(Duration::from_millis(rng.u64(20..900))).await;
        daemon.kill();
    }
    let daemon = stage.run();
    daemon.ready().await;
    writing.more(100).await;
    let journal = writing.stop().await;
    let verdict = stage.judge(&journal, daemon).await;
    assert!(verdict.total.committed > 1000, "there was load: {verdict}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_kafka_is_silent_it_has_saved_nothing_that_is_not_acknowledged() {
    let mut stage = Stage::of().own_kafka().set("RELAY__CHECKPOINT_INTERVAL", "50ms").up().await;
    let writing = stage.write(5).await;
    let daemon = stage.run();
    daemon.ready().await;
    writing.more(200).await;
    stage.kafka().tell("pause").unwrap();
    writing.more(500).await;
    until("saves had the time to go wrong", async || daemon.metric("outboxd_lag_seconds") > 2.0).await;
    daemon.kill();
    // What the broker's socket holds may still arrive; what the dead process held may not.
    stage.kafka().tell("kill").unwrap();
    stage.kafka().tell("start").unwrap();
    let daemon = stage.run();
    let journal = writing.stop().await;
    stage.judge(&journal, daemon).await;
}
