//! Killed at a bad moment.

use tokio_util::sync::CancellationToken;

use crate::stage::{Stage, committed, write};

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_it_loses_and_reorders_nothing() {
    let stage = Stage::set().await;
    let stop = CancellationToken::new();
    let writing = write(&stage, 1, &stop);
    for kills in 1..=5 {
        let daemon = stage.run();
        committed(&stage, kills * 500).await;
        daemon.kill();
    }
    let daemon = stage.run();
    stop.cancel();
    let journal = writing.await.unwrap();
    let verdict = stage.verdict(&journal).await;
    assert!(verdict.is_clean() && verdict.unresolved == 0, "{verdict}");
    assert_eq!(daemon.terminate(), Some(0));
}
