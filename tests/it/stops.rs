//! Clean stops.

use tokio_util::sync::CancellationToken;

use crate::stage::{Stage, committed, free_port, write};

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_under_load_leaves_no_duplicate() {
    let stage = Stage::set().await;
    let stop = CancellationToken::new();
    let writing = write(&stage, 2, &stop);
    for stops in 1..=3 {
        let daemon = stage.run();
        committed(&stage, stops * 500).await;
        assert_eq!(daemon.terminate(), Some(0));
    }
    let daemon = stage.run();
    stop.cancel();
    let journal = writing.await.unwrap();
    let verdict = stage.verdict(&journal).await;
    assert!(verdict.is_clean() && verdict.total.duplicates == 0, "{verdict}");
    assert_eq!(daemon.terminate(), Some(0));
    // With nothing to do, a restart publishes nothing.
    let before = verdict.records;
    let idle = stage.run_on(free_port());
    idle.ready().await;
    assert_eq!(idle.daemon.terminate(), Some(0));
    assert_eq!(stage.verdict(&journal).await.records, before);
}
