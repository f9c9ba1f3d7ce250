//! Two daemons for one table.

use tokio_util::sync::CancellationToken;

use crate::stage::{Stage, committed, write};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_for_the_same_tables_is_refused() {
    let stage = Stage::set().await;
    let stop = CancellationToken::new();
    let writing = write(&stage, 4, &stop);
    let first = stage.run();
    committed(&stage, 200).await;
    stop.cancel();
    let journal = writing.await.unwrap();
    stage.verdict(&journal).await;
    let second = stage.outboxd(&["run"]).status().unwrap();
    assert_eq!(second.code(), Some(1), "every relay of the second halts by name");
    assert_eq!(first.terminate(), Some(0));
}
