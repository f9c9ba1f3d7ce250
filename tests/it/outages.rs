//! Servers that go away and come back.

use tokio_util::sync::CancellationToken;

use crate::stage::{Stage, committed, write};

#[tokio::test(flavor = "multi_thread")]
async fn mysql_and_kafka_go_away_and_come_back_and_nothing_is_lost() {
    let mut stage = Stage::set().await;
    let stop = CancellationToken::new();
    let writing = write(&stage, 3, &stop);
    let daemon = stage.run();
    committed(&stage, 300).await;
    stage.kafka.tell("kill").unwrap();
    committed(&stage, 600).await;
    stage.kafka.tell("start").unwrap();
    committed(&stage, 900).await;
    stage.mysql.tell("kill").unwrap();
    stage.mysql.tell("start").unwrap();
    committed(&stage, 1200).await;
    stop.cancel();
    let journal = writing.await.unwrap();
    let verdict = stage.verdict(&journal).await;
    assert!(verdict.is_clean() && verdict.unresolved == 0, "{verdict}");
    assert_eq!(daemon.terminate(), Some(0));
}
