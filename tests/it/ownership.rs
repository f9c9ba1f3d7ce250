//! Two daemons for one table.

use mysql_async::prelude::Queryable;

use crate::stage::{PATIENCE, Stage, until_within};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_for_the_same_tables_is_refused_until_the_first_is_gone() {
    let stage = Stage::of().up().await;
    let writing = stage.write(20).await;
    let first = stage.run();
    first.ready().await;
    let mut second = stage.run();
    until_within(2 * PATIENCE, "the second ends", async || second.is_ready().is_none()).await;
    assert_eq!(second.ended().await, Some(1), "every relay of the second halts");
    assert_eq!(second.log().matches("not_claimed").count(), 4, "and by name");
    writing.more(200).await;
    first.kill();
    let third = stage.run();
    third.ready().await;
    let journal = writing.stop().await;
    stage.judge(&journal, third).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_sleeps_while_another_takes_over_is_refused_when_it_wakes_up() {
    let stage = Stage::of().up().await;
    let writing = stage.write(21).await;
    let mut sleeper = stage.run();
    sleeper.ready().await;
    writing.more(200).await;
    sleeper.signal("STOP");
    // As a server does that loses the connection to a host that is cut off.
    stage.kill_owner().await;
    let heir = stage.run();
    heir.ready().await;
    writing.more(200).await;
    sleeper.signal("CONT");
    assert_eq!(sleeper.ended().await, Some(1), "the sleeper halts");
    assert!(sleeper.log().contains("owned_elsewhere"));
    let journal = writing.stop().await;
    // What it had read before it was put to sleep may leave when it wakes up, after what came later.
    let verdict = stage.verdict(&journal).await;
    assert_eq!((verdict.total.missing, verdict.total.ghosts), (0, 0), "{verdict}");
    assert_eq!(heir.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_cannot_save_although_its_heir_is_gone() {
    let stage = Stage::of().up().await;
    let writing = stage.write(22).await;
    let mut zombie = stage.run();
    zombie.ready().await;
    writing.more(200).await;
    zombie.signal("STOP");
    stage.kill_owner().await;
    let heir = stage.run();
    heir.ready().await;
    writing.more(200).await;
    assert_eq!(heir.terminate().await, Some(0));
    let saved = stage.positions();
    zombie.signal("CONT");
    assert_eq!(zombie.ended().await, Some(1), "the zombie halts");
    assert!(zombie.log().contains("fenced"));
    assert_eq!(stage.positions(), saved, "it has moved nothing");
    let last = stage.run();
    let journal = writing.stop().await;
    let verdict = stage.verdict(&journal).await;
    assert_eq!((verdict.total.missing, verdict.total.ghosts), (0, 0), "{verdict}");
    assert_eq!(last.terminate().await, Some(0));
}

/// Given somebody who has locked the rows of the position table, when saves fail for it, then the daemon keeps its connection, and
/// with it the locks of its tables, and saves once the rows are free.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_row_of_the_position_table_gives_no_claim_away() {
    let stage = Stage::of().shards(2).up().await;
    let daemon = stage.run();
    daemon.ready().await;
    let owner = stage.owner().await;
    let mut somebody = stage.connect().await;
    somebody.query_drop("START TRANSACTION").await.unwrap();
    somebody.query_drop("SELECT * FROM outboxd.outboxd_positions FOR UPDATE").await.unwrap();
    let writing = stage.write(23).await;
    writing.more(100).await;
    daemon.logs("save_failed_will_retry").await;
    assert_eq!(stage.owner().await, owner);
    somebody.query_drop("ROLLBACK").await.unwrap();
    daemon.logs("position_saved").await;
    assert_eq!(stage.owner().await, owner);
    let journal = writing.stop().await;
    stage.judge(&journal, daemon).await;
}
