use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytesize::ByteSize;
use tokio::time::Instant;

use super::stage::{Process, Stage, pass};
use super::*;
use crate::outbox::{Columns, OnPoison, TopicTemplate};
use crate::outlet::{DeliveryError, Rejection};
use crate::position::{Aggregate, Pause};
use crate::relay::control::{Answer, Order, Refusal};
use crate::relay::replay::Plan;
use crate::relay::stats::State;
use crate::source::{Fault, SourceError};
use crate::testing::log::{Insert, Step, after};

fn retriable() -> DeliveryError {
    DeliveryError::retriable("t", "later")
}

fn definite() -> DeliveryError {
    DeliveryError::Definite(Rejection {
        name: "topic_missing",
        topic: "t".into(),
        reason: "gone".into(),
        cure: "create it",
    })
}

fn transient() -> SourceError {
    SourceError::Transient("away".to_owned())
}

#[tokio::test(start_paused = true)]
async fn every_table_gets_its_rows_and_a_clean_stop_saves_everything() {
    let stage = Stage::new(2, 1);
    let process = stage.run();
    stage.log.insert(&stage.tables[0], "0/1", "k");
    stage.log.insert(&stage.tables[1], "1/1", "k");
    pass(100).await;
    process.stop.cancel();
    assert_eq!(process.running.await.unwrap().unwrap(), Summary { halted: 0 });
    assert_eq!((stage.arrived(0), stage.arrived(1)), (vec!["0/1".to_owned()], vec!["1/1".to_owned()]));
    assert_eq!(stage.saved(1), Some(after(2)));
    assert!(stage.saved(0) >= Some(after(1)));
    let again = stage.run();
    pass(5_000).await;
    again.stop.cancel();
    assert_eq!(again.running.await.unwrap().unwrap(), Summary { halted: 0 });
    assert_eq!(stage.broker.delivered().len(), 2, "a restart with nothing to do publishes nothing");
}

#[tokio::test(start_paused = true)]
async fn one_table_halts_by_name_and_the_other_goes_on() {
    let stage = Stage::new(2, 1);
    let process = stage.run();
    stage.log.insert(&stage.tables[0], "0/1", "k");
    let bad = vec![Insert::new("0/2", "k"), Insert::new("", "k")];
    stage.log.commit(vec![Step::Insert(stage.tables[0].clone(), bad)]);
    stage.log.insert(&stage.tables[0], "0/3", "k");
    stage.log.insert(&stage.tables[1], "1/4", "k");
    pass(5_000).await;
    assert_eq!(process.stats[0].state(), State::Halted);
    assert!(process.stats[0].reason().unwrap().starts_with("undecodable_value"));
    assert_eq!((stage.arrived(0), stage.saved(0)), (vec!["0/1".to_owned()], Some(after(1))));
    stage.log.insert(&stage.tables[1], "1/5", "k");
    pass(5_000).await;
    assert_eq!((stage.arrived(1).len(), stage.saved(1)), (2, Some(after(5))));
    process.stop.cancel();
    assert_eq!(process.running.await.unwrap().unwrap(), Summary { halted: 1 });
}

#[tokio::test(start_paused = true)]
async fn failures_that_pass_repeat_from_the_durable_position_in_order() {
    let stage = Stage::new(1, 1);
    stage.broker.hold();
    let process = stage.run();
    for n in 1..=6 {
        stage.log.insert(&stage.tables[0], &format!("0/{n}"), "k");
    }
    pass(10).await;
    stage.broker.acknowledge(0, 2);
    stage.broker.fail(0, &retriable());
    pass(1_000).await;
    stage.broker.release();
    pass(1_000).await;
    let mut distinct = stage.arrived(0);
    assert!(distinct.len() <= 8, "what was acknowledged and not saved is repeated at most: {distinct:?}");
    distinct.dedup();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct, ["0/1", "0/2", "0/3", "0/4", "0/5", "0/6"]);
    assert_eq!(stage.broker.handed()[1].last().map(String::as_str), Some("0/6"));
    assert_eq!(process.stats[0].state(), State::Running);
}

fn joining(stage: &Stage, process: &mut Process, table: &TableName) -> Supervised {
    let (control, orders) = process.control.with([table]);
    let stats = Arc::new(TableStats::new(table.clone()));
    process.control = control;
    process.stats.push(Arc::clone(&stats));
    Supervised { table: stage.table(table), stats, orders: orders.into_iter().next().unwrap(), unfit: None }
}

#[tokio::test(start_paused = true)]
async fn a_table_that_joins_is_relayed_from_its_position_and_one_that_leaves_is_free_with_everything_saved() {
    let mut stage = Stage::new(1, 1);
    let mut process = stage.run();
    let other = TableName::new("d", "outbox-2");
    stage.log.insert(&stage.tables[0], "0/1", "k");
    stage.log.insert(&other, "1/2", "k");
    pass(1_000).await;
    assert_eq!((stage.arrived(0).len(), stage.arrived(1).len()), (1, 0));
    let joined = joining(&stage, &mut process, &other);
    process.joins.send(joined).await.unwrap();
    stage.tables.push(other.clone());
    pass(1_000).await;
    stage.log.insert(&other, "1/3", "k");
    pass(1_000).await;
    assert_eq!(stage.arrived(1), ["1/2", "1/3"], "from the oldest log, as its start says");
    // It leaves while records are on their way.
    stage.broker.hold();
    stage.log.insert(&other, "1/4", "k");
    pass(10).await;
    let control = process.control.clone();
    let leaving = tokio::spawn({
        let other = other.clone();
        async move { control.order(&other, Order::Leave).await }
    });
    pass(10).await;
    assert!(!leaving.is_finished(), "it is drained first");
    stage.broker.release();
    let done = leaving.await.unwrap().unwrap();
    assert_eq!((done.before.as_str(), done.after.as_str()), ("running", "left"));
    assert_eq!((stage.saved(1), process.stats[1].state()), (Some(after(4)), State::Stopped));
    stage.log.insert(&other, "1/5", "k");
    stage.log.insert(&stage.tables[0], "0/6", "k");
    pass(1_000).await;
    assert_eq!((stage.arrived(0).len(), stage.arrived(1).len()), (2, 3));
    let elsewhere = stage.positions.session();
    elsewhere.claim(&other).await.expect("another daemon can have it");
    process.stop.cancel();
    assert_eq!(process.running.await.unwrap().unwrap(), Summary { halted: 0 });
}

#[tokio::test(start_paused = true)]
async fn a_table_that_is_renewed_goes_on_from_its_position_as_it_is_told_now() {
    let stage = Stage::new(2, 1);
    let process = stage.run();
    stage.log.insert(&stage.tables[0], "0/1", "k");
    pass(1_000).await;
    let renewed = |topic: &str, columns: Columns| {
        let mapping = Mapping::new(columns, TopicTemplate::parse(topic).unwrap());
        let columns = Arc::clone(mapping.columns());
        let table = stage.table(&stage.tables[0]);
        let subscription = Subscription { columns, ..table.subscription };
        Order::Renew(Box::new(Table { subscription, mapping, ..table }))
    };
    // A column more, which the reader has to learn of.
    let columns = Columns { key: Some("type".to_owned()), ..Columns::default() };
    process.control.order(&stage.tables[0], renewed("other", columns)).await.unwrap();
    stage.log.insert(&stage.tables[0], "0/2", "k");
    stage.log.insert(&stage.tables[1], "1/3", "k");
    pass(1_000).await;
    let topics: Vec<_> = stage.broker.delivered().into_iter().map(|record| (record.id, record.topic)).collect();
    let expected = [("0/1", "t"), ("0/2", "other"), ("1/3", "t")].map(|(id, topic)| (id.to_owned(), topic.to_owned()));
    assert_eq!(topics, expected);
    // While it is paused it stays so; halted, it is tried again.
    process.control.order(&stage.tables[0], pause()).await.unwrap();
    let done = process.control.order(&stage.tables[0], renewed("third", Columns::default())).await.unwrap();
    assert_eq!((done.before.as_str(), done.after.as_str()), ("paused", "paused"));
    stage.log.insert(&stage.tables[0], "0/4", "k");
    pass(1_000).await;
    process.control.order(&stage.tables[0], Order::Resume).await.unwrap();
    pass(1_000).await;
    assert_eq!(stage.broker.delivered().last().unwrap().topic, "third");
    stage.broker.refuse(definite());
    stage.log.insert(&stage.tables[0], "0/5", "k");
    pass(1_000).await;
    assert_eq!(process.stats[0].state(), State::Halted);
    let done = process.control.order(&stage.tables[0], renewed("fourth", Columns::default())).await.unwrap();
    assert_eq!((done.before.as_str(), done.after.as_str()), ("halted", "starting"));
    pass(1_000).await;
    assert_eq!(
        (process.stats[0].state(), stage.broker.delivered().last().unwrap().topic.as_str()),
        (State::Running, "fourth")
    );
}

#[tokio::test(start_paused = true)]
async fn relays_keep_to_limits_that_change() {
    let mut stage = Stage::new(1, 1);
    stage.settings.max_unsaved_events = 4;
    stage.broker.hold();
    let process = stage.run();
    for n in 1..=10 {
        stage.log.insert(&stage.tables[0], &format!("0/{n}"), "k");
        pass(10).await;
    }
    assert_eq!(stage.broker.pending(0), 4);
    process.settings.send_modify(|settings| settings.max_unsaved_events = 8);
    pass(100).await;
    assert_eq!(stage.broker.pending(0), 8);
}

#[tokio::test(start_paused = true)]
async fn a_halted_table_leaves_and_the_last_one_that_runs_ends_the_process() {
    let mut stage = Stage::new(2, 1);
    stage.unfit.push(0);
    let process = stage.run();
    pass(1_000).await;
    assert_eq!(process.stats[0].state(), State::Halted);
    process.control.order(&stage.tables[0], Order::Leave).await.unwrap();
    pass(1_000).await;
    assert!(!process.running.is_finished(), "the other one is relayed");
    process.control.order(&stage.tables[1], Order::Leave).await.unwrap();
    assert_eq!(process.running.await.unwrap().unwrap(), Summary { halted: 0 });
}

#[tokio::test(start_paused = true)]
async fn a_new_table_that_cannot_be_read_yet_holds_no_other_up_at_the_start() {
    let mut stage = Stage::new(2, 1);
    stage.start = Start::Snapshot;
    stage.log.withhold_rows(&stage.tables[1], Some(transient()));
    let process = stage.run();
    insert(&stage, 0, 1..=2);
    pass(5_000).await;
    assert_eq!((stage.arrived(0), process.stats[0].state()), (ids(0, 1..=2), State::Running));
    let waiting = &process.stats[1];
    assert_eq!((waiting.state(), waiting.reason().unwrap().as_str()), (State::Starting, "waits for the binlog: away"));
    insert(&stage, 1, 1..=2);
    stage.log.withhold_rows(&stage.tables[1], None);
    pass(60_000).await;
    assert_eq!((stage.arrived(1), waiting.state()), (ids(1, 1..=2), State::Running));
    assert_eq!(stage.log.streams(), 1, "it has come to the shared reader");
    process.stop.cancel();
    assert_eq!(process.running.await.unwrap().unwrap(), Summary { halted: 0 });
}

#[tokio::test(start_paused = true)]
async fn a_table_whose_start_is_purged_halts_alone() {
    let mut stage = Stage::new(1, 1);
    let mut process = stage.run();
    insert(&stage, 0, 1..=8);
    pass(5_000).await;
    process.kill(&stage, |_| 0).await;
    stage.log.purge(5);
    stage.tables.push(TableName::new("d", "outbox-2"));
    stage.start = Start::At(Box::new(after(2)));
    let process = stage.run();
    insert(&stage, 0, 9..=9);
    pass(5_000).await;
    assert_eq!((process.stats[0].state(), process.stats[1].state()), (State::Running, State::Halted));
    assert!(process.stats[1].reason().unwrap().starts_with("position_purged"));
    assert_eq!(stage.arrived(0).last().unwrap(), "0/9");
    assert_eq!(stage.saved(1), None, "a place that is no good is not made durable");
}

#[tokio::test(start_paused = true)]
async fn a_table_that_may_not_learn_where_to_start_halts_alone_and_can_be_retried() {
    let stage = Stage::new(1, 1);
    let mut process = stage.run();
    pass(10).await;
    let (name, other) = ("access_denied", TableName::new("d", "outbox-2"));
    let fault = Fault { name, detail: "the password is another".to_owned(), at: "the start".to_owned() };
    stage.log.withhold_ends(Some(SourceError::Definite(fault)));
    let supervised = joining(&stage, &mut process, &other);
    process.joins.send(supervised).await.unwrap();
    insert(&stage, 0, 1..=1);
    pass(5_000).await;
    assert_eq!((process.stats[1].state(), stage.arrived(0)), (State::Halted, ids(0, 1..=1)));
    stage.log.withhold_ends(None);
    process.control.order(&other, Order::Retry).await.unwrap();
    stage.log.insert(&other, "1/1", "k");
    pass(1_000).await;
    assert_eq!((process.stats[1].state(), stage.arrived(1)), (State::Running, ids(1, 1..=1)));
}

#[tokio::test(start_paused = true)]
async fn a_table_that_waits_for_the_position_store_says_so_and_the_reader_of_the_others_stays_connected() {
    let stage = Stage::new(2, 1);
    let process = stage.run();
    insert(&stage, 1, 1..=1);
    pass(100).await;
    stage.broker.hold();
    insert(&stage, 0, 1..=1);
    pass(10).await;
    stage.positions.fail(u64::MAX);
    assert!(stage.broker.fail(0, &retriable()));
    stage.broker.release();
    pass(2_000).await;
    assert_eq!(process.stats[0].state(), State::Starting);
    assert_eq!(process.stats[0].reason().unwrap(), "waits for the position store: on command");
    assert!(process.tail.connected.load(Relaxed), "the other table is read for");
    stage.positions.fail(0);
    pass(60_000).await;
    assert_eq!((stage.arrived(0), process.stats[0].reason()), (ids(0, 1..=1), None));
    assert_eq!((process.stats[0].state(), process.stats[1].state()), (State::Running, State::Running));
}

#[tokio::test(start_paused = true)]
async fn a_table_that_starts_again_and_again_holds_no_other_up() {
    let mut stage = Stage::new(2, 2);
    stage.settings.retry_initial = Duration::from_secs(20);
    stage.broker.hold();
    let _process = stage.run();
    // The keys go to different partitions.
    stage.log.insert(&stage.tables[0], "0/1", "a");
    stage.log.insert(&stage.tables[1], "1/2", "b");
    pass(10).await;
    let failing = (0..2).find(|&partition| stage.broker.fail(partition, &retriable())).unwrap();
    stage.broker.release();
    pass(10).await;
    let other = 1 - failing;
    let (failed, fine) = if stage.arrived(0).is_empty() { (0, 1) } else { (1, 0) };
    stage.log.insert(&stage.tables[fine], &format!("{fine}/3"), if other == 0 { "b" } else { "a" });
    pass(2_000).await;
    assert_eq!((stage.arrived(fine).len(), stage.arrived(failed).len()), (2, 0));
    pass(20_000).await;
    assert_eq!(stage.arrived(failed).len(), 1);
}

/// Given a table that was relayed for long, when its records fail again and again, then it starts again after waits
/// that grow; and from a short one on after it was relayed for long again.
#[tokio::test(start_paused = true)]
async fn waits_between_starts_grow_until_an_attempt_lasts() {
    let stage = Stage::new(1, 1);
    let process = stage.run();
    let starts = || stage.outlets.lock().unwrap().len();
    pass(60_000).await;
    (0..8).for_each(|_| stage.broker.refuse(retriable()));
    insert(&stage, 0, 1..=1);
    pass(2_000).await;
    assert!(starts() < 8 && stage.arrived(0).is_empty(), "{} starts in two seconds", starts());
    pass(120_000).await;
    assert_eq!((starts(), stage.arrived(0)), (9, ids(0, 1..=1)));
    stage.broker.refuse(retriable());
    insert(&stage, 0, 2..=2);
    pass(1_000).await;
    assert_eq!((starts(), stage.arrived(0)), (10, ids(0, 1..=2)), "the first wait is short again");
    pass(60_000).await;
    stage.broker.fail_topic("t");
    insert(&stage, 0, 3..=3);
    pass(600_000).await;
    assert!(starts() < 10 + 40, "{} starts in ten minutes", starts() - 10);
    assert_eq!(process.stats[0].state(), State::Starting);
}

#[tokio::test(start_paused = true)]
async fn a_table_that_starts_now_loses_nothing_when_it_starts_again_before_its_first_save() {
    let mut stage = Stage::new(1, 1);
    stage.start = Start::Now;
    stage.log.insert(&stage.tables[0], "0/old", "k");
    stage.broker.hold();
    let mut process = stage.run();
    pass(10).await;
    stage.log.insert(&stage.tables[0], "0/1", "k");
    pass(10).await;
    process.kill(&stage, |_| 0).await;
    stage.log.insert(&stage.tables[0], "0/2", "k");
    stage.broker.release();
    let _process = stage.run();
    pass(1_000).await;
    assert_eq!(stage.arrived(0), ["0/1", "0/2"]);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_publishes_what_is_in_the_table_and_goes_on_with_the_log() {
    let mut stage = Stage::new(2, 1);
    stage.start = Start::Snapshot;
    for n in 1..=5 {
        stage.log.insert(&stage.tables[0], &format!("0/{n}"), "k");
    }
    stage.log.commit(vec![Step::Delete(stage.tables[0].clone(), vec!["0/2".to_owned()])]);
    stage.log.purge(6);
    let process = stage.run();
    pass(1_000).await;
    assert_eq!(stage.arrived(0), ["0/1", "0/3", "0/4", "0/5"]);
    stage.log.insert(&stage.tables[0], "0/0", "k");
    stage.log.insert(&stage.tables[1], "1/1", "k");
    pass(1_000).await;
    assert_eq!((stage.arrived(0).len(), stage.arrived(1).len()), (5, 1));
    assert_eq!(process.stats[0].state(), State::Running);
    process.stop.cancel();
    assert_eq!(process.running.await.unwrap().unwrap(), Summary { halted: 0 });
    assert_eq!(stage.saved(0), Some(after(8)));
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_is_killed_goes_on_where_it_was_and_relays_what_was_deleted_meanwhile() {
    let mut stage = Stage::new(1, 1);
    stage.start = Start::Snapshot;
    stage.settings.batch_bytes = ByteSize(1);
    for n in 1..=6 {
        stage.log.insert(&stage.tables[0], &format!("0/{n}"), "k");
    }
    stage.log.purge(6);
    stage.broker.hold();
    let mut process = stage.run();
    pass(10).await;
    stage.broker.acknowledge(0, 3);
    pass(1_500).await;
    let saved = stage.saved(0).unwrap();
    assert_eq!(saved.to_string().split(" scan ").nth(1), Some("3 after 0%2f3 until 0%2f6"));
    process.kill(&stage, |_| 0).await;
    let gone = ["0/1", "0/4", "0/6"].map(str::to_owned).to_vec();
    stage.log.commit(vec![Step::Delete(stage.tables[0].clone(), gone)]);
    stage.log.insert(&stage.tables[0], "0/55", "k");
    stage.broker.release();
    let _process = stage.run();
    pass(3_000).await;
    assert_eq!(stage.arrived(0), ["0/1", "0/2", "0/3", "0/4", "0/6", "0/5", "0/55"]);
    assert!(stage.saved(0).unwrap().scan.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_purged_position_halts_every_table_by_name() {
    let stage = Stage::new(2, 1);
    let mut process = stage.run();
    pass(10).await;
    process.kill(&stage, |_| 0).await;
    stage.log.insert(&stage.tables[0], "0/1", "k");
    stage.log.purge(1);
    let process = stage.run();
    let stats = process.stats.clone();
    assert_eq!(process.running.await.unwrap().unwrap(), Summary { halted: 2 });
    assert!(stats.iter().all(|stats| stats.reason().unwrap().starts_with("position_purged")));
}

/// Given rows that were inserted while nobody relayed, and then the log purged, when the table is to be recovered, then what
/// it has comes, what the log shows being deleted too, and then the log; and what was relayed comes twice at most.
#[tokio::test(start_paused = true)]
async fn a_purged_table_goes_on_with_its_rows_and_what_the_log_has() {
    let mut stage = Stage::new(2, 1);
    stage.on_purged = OnPurged::RecoverFromTable;
    let mut process = stage.run();
    stage.log.insert(&stage.tables[0], "0/1", "k");
    pass(2_000).await;
    process.kill(&stage, |_| 0).await;
    for id in ["0/2", "0/3"] {
        stage.log.insert(&stage.tables[0], id, "k");
    }
    stage.log.purge(3);
    stage.log.commit(vec![Step::Delete(stage.tables[0].clone(), vec!["0/2".to_owned()])]);
    stage.log.insert(&stage.tables[0], "0/4", "k");
    let process = stage.run();
    pass(3_000).await;
    assert_eq!(stage.arrived(0), ["0/1", "0/2", "0/1", "0/3", "0/4"]);
    assert!(process.stats.iter().all(|stats| stats.state() == State::Running));
    let recoveries = process.stats.iter().map(|stats| stats.recoveries.load(Relaxed));
    assert_eq!(recoveries.collect::<Vec<_>>(), [1, 1]);
    assert!(stage.saved(0).unwrap().scan.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_table_whose_log_is_purged_while_it_cannot_be_read_goes_on_by_itself() {
    let mut stage = Stage::new(2, 1);
    stage.on_purged = OnPurged::RecoverFromTable;
    let process = stage.run();
    stage.log.insert(&stage.tables[0], "0/1", "k");
    pass(2_000).await;
    stage.log.refuse((0..40).map(|_| SourceError::Transient("the server is away".to_owned())));
    stage.log.disconnect();
    stage.log.insert(&stage.tables[0], "0/2", "k");
    stage.log.purge(2);
    pass(1_200_000).await;
    assert_eq!(stage.arrived(0), ["0/1", "0/1", "0/2"]);
    assert!(process.stats.iter().all(|stats| stats.state() == State::Running));
}

#[tokio::test(start_paused = true)]
async fn a_purged_table_that_lacks_rows_halts_and_names_what_is_lost() {
    let mut stage = Stage::new(2, 1);
    stage.on_purged = OnPurged::RecoverFromTable;
    let mut process = stage.run();
    stage.log.insert(&stage.tables[0], "0/1", "k");
    pass(2_000).await;
    process.kill(&stage, |_| 0).await;
    stage.log.insert(&stage.tables[0], "0/2", "k");
    stage.log.commit(vec![Step::Delete(stage.tables[0].clone(), vec!["0/2".to_owned()])]);
    stage.log.purge(3);
    let process = stage.run();
    pass(3_000).await;
    let reason = process.stats[0].reason().unwrap();
    assert!(reason.starts_with("purged_rows_gone") && reason.contains(":2-3"), "{reason}");
    assert_eq!(process.stats[1].state(), State::Running);
}

/// Given a table that is to recover while others are read, when it has to wait for its turn, then it says so and takes
/// orders.
#[tokio::test(start_paused = true)]
async fn a_purged_table_that_waits_for_its_turn_takes_orders() {
    let mut stage = stuck(2);
    stage.on_purged = OnPurged::RecoverFromTable;
    stage.settings.snapshot_readers = 1;
    let mut process = stage.run();
    pass(100).await;
    order(&process, 1, pause()).await.unwrap();
    process.kill(&stage, |_| 0).await;
    insert(&stage, 0, 11..=60);
    insert(&stage, 1, 11..=13);
    stage.log.purge(53);
    let process = stage.run();
    pass(1_000).await;
    assert_eq!((process.stats[0].state(), process.stats[1].state()), (State::Snapshot, State::Paused));
    order(&process, 1, Order::Resume).await.unwrap();
    pass(1_000).await;
    assert_eq!(process.stats[1].state(), State::Starting);
    assert!(process.stats[1].reason().unwrap().starts_with("the log is purged, waits for its turn"));
    let begun = Instant::now();
    assert!(matches!(order(&process, 1, pause()).await, Err(Refusal::Halted { .. })));
    assert_eq!(order(&process, 1, Order::Leave).await.unwrap().after, "left");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    stage.broker.block("0/", false);
    pass(5_000).await;
    assert_eq!((stage.arrived(0), stage.arrived(1).len()), (ids(0, 11..=60), 0), "the other goes on");
}

/// Given as many tables that take nothing as may be read at the same time, when another one has its first start, then it
/// is read all the same; what they have not taken comes once, in order, as soon as they take it.
#[tokio::test(start_paused = true)]
async fn tables_that_take_nothing_hold_no_other_first_start_up() {
    let mut stage = stuck(3);
    stage.broker.block("1/", true);
    stage.start = Start::Snapshot;
    stage.settings.snapshot_readers = 2;
    stage.settings.shutdown_grace = Duration::from_secs(5);
    (0..3).for_each(|table| insert(&stage, table, 11..=60));
    let process = stage.run();
    pass(5_000).await;
    let says = |table: usize, what: &str| process.stats[table].reason().is_some_and(|reason| reason.starts_with(what));
    assert!(says(2, "it waits for its turn to be read") && stage.arrived(2).is_empty(), "the others have the turns");
    pass(10_000).await;
    assert_eq!((stage.arrived(2), process.stats[2].state()), (ids(2, 11..=60), State::Running));
    for table in 0..2 {
        assert!(says(table, "its queue stayed full") && process.stats[table].state() == State::Snapshot);
    }
    // While it waits, it is as ready for an order as any other.
    order(&process, 1, pause()).await.unwrap();
    assert_eq!(process.stats[1].state(), State::Paused);
    order(&process, 1, Order::Resume).await.unwrap();
    pass(60_000).await;
    (0..2).for_each(|table| stage.broker.block(&format!("{table}/"), false));
    insert(&stage, 0, 61..=62);
    pass(60_000).await;
    assert_eq!((stage.arrived(0), stage.arrived(1)), (ids(0, 11..=62), ids(1, 11..=60)));
    assert!(process.stats.iter().all(|stats| stats.state() == State::Running) && stage.log.streams() == 1);
    process.stop.cancel();
    assert_eq!(process.running.await.unwrap().unwrap(), Summary { halted: 0 });
    assert!((0..3).all(|table| stage.saved(table).unwrap().scan.is_none()));
}

/// Given tables that are to recover when their log is purged, when the server says that it does not have the log and yet has
/// lost nothing of it, then they halt by the server's word, once.
#[tokio::test(start_paused = true)]
async fn what_a_table_cannot_cure_halts_it_and_is_not_tried_without_end() {
    let mut stage = Stage::new(2, 1);
    stage.on_purged = OnPurged::RecoverFromTable;
    let (name, detail, at) = ("log_not_available", "on command".to_owned(), "here".to_owned());
    stage.log.refuse([SourceError::Definite(Fault { name, detail, at })]);
    let process = stage.run();
    let stats = process.stats.clone();
    assert_eq!(process.running.await.unwrap().unwrap(), Summary { halted: 2 });
    assert!(stats.iter().all(|stats| stats.reason().unwrap().starts_with("log_not_available")));
}

#[tokio::test(start_paused = true)]
async fn a_second_daemon_halts_and_the_first_goes_on() {
    let stage = Stage::new(2, 1);
    let first = stage.run();
    pass(10).await;
    let second = stage.run();
    let stats = second.stats.clone();
    assert_eq!(second.running.await.unwrap().unwrap(), Summary { halted: 2 });
    assert!(stats[0].reason().unwrap().starts_with("not_claimed"));
    stage.log.insert(&stage.tables[0], "0/1", "k");
    pass(100).await;
    assert_eq!(stage.arrived(0).len(), 1);
    assert!(!first.running.is_finished());
}

/// Given an owner whose host has vanished, when its claims last for half a minute, then the next process has waited for them,
/// and relays.
#[tokio::test(start_paused = true)]
async fn an_heir_waits_until_the_claims_of_a_host_that_vanished_are_given_up() {
    let stage = Stage::new(2, 1);
    let vanished = stage.run();
    pass(10).await;
    vanished.running.abort();
    let heir = stage.run();
    pass(30_000).await;
    assert!(heir.stats[0].reason().unwrap().starts_with("waits until"), "{:?}", heir.stats[0].reason());
    stage.positions.sever(&vanished.session);
    insert(&stage, 0, 1..=1);
    pass(1_000).await;
    assert_eq!((stage.arrived(0), heir.stats[0].state()), (ids(0, 1..=1), State::Running));
    assert!(!heir.running.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_heard_while_the_servers_are_away() {
    let stage = Stage::new(2, 1);
    stage.positions.fail(u64::MAX);
    let process = stage.run();
    pass(60_000).await;
    process.stop.cancel();
    assert_eq!(process.running.await.unwrap().unwrap(), Summary { halted: 0 });
    stage.positions.fail(0);
    stage.log.refuse(std::iter::repeat_n(transient(), 10_000));
    let process = stage.run();
    pass(60_000).await;
    process.stop.cancel();
    assert_eq!(process.running.await.unwrap().unwrap(), Summary { halted: 0 });
}

#[tokio::test(start_paused = true)]
async fn a_definite_failure_is_the_last_of_its_table_only() {
    let stage = Stage::new(2, 1);
    let process = stage.run();
    pass(10).await;
    stage.broker.refuse(definite());
    stage.log.insert(&stage.tables[1], "1/1", "k");
    pass(10).await;
    stage.log.insert(&stage.tables[0], "0/2", "k");
    pass(5_000).await;
    assert_eq!((process.stats[0].state(), process.stats[1].state()), (State::Running, State::Halted));
    assert_eq!((stage.arrived(0).len(), stage.arrived(1).len()), (1, 0));
}

/// Two tables and small queues, and the first one takes nothing.
fn stuck(tables: usize) -> Stage {
    let mut stage = Stage::new(tables, 1);
    stage.settings.queue_bytes = ByteSize::kib(4);
    stage.settings.batch_bytes = ByteSize(200);
    stage.broker.block("0/", true);
    stage
}

fn ids(table: usize, numbers: std::ops::RangeInclusive<u32>) -> Vec<String> {
    numbers.map(|number| format!("{table}/{number}")).collect()
}

fn insert(stage: &Stage, table: usize, numbers: std::ops::RangeInclusive<u32>) {
    for id in ids(table, numbers) {
        stage.log.insert(&stage.tables[table], &id, "k");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stuck_table_is_detached_and_comes_back_when_it_takes_records_again() {
    let stage = stuck(2);
    let process = stage.run();
    insert(&stage, 0, 1..=50);
    insert(&stage, 1, 1..=50);
    pass(400).await;
    assert_eq!(stage.arrived(1), ids(1, 1..=50), "the other waits for it");
    let stats = &process.stats[0];
    assert_eq!((stats.state(), process.stats[1].state()), (State::Detached, State::Running));
    assert!(stats.reason().unwrap().starts_with("its queue was full"));
    assert!(stats.detached_seconds(stats.detached_micros.load(Relaxed) + 2_000_000) >= 2.0);
    pass(600_000).await;
    assert_eq!((stage.log.streams(), stage.log.opened(), stats.detaches.load(Relaxed)), (1, 1, 1), "it reads nothing");
    insert(&stage, 0, 51..=60);
    stage.broker.block("0/", false);
    pass(100).await;
    insert(&stage, 0, 61..=70);
    pass(100).await;
    assert_eq!(stage.arrived(0), ids(0, 1..=70));
    assert_eq!((stats.state(), stats.reason(), stats.detached_micros.load(Relaxed)), (State::Running, None, 0));
    assert_eq!(stage.log.streams(), 1, "the tail feeds both again");
}

#[tokio::test(start_paused = true)]
async fn the_only_table_comes_back_without_a_reader_of_its_own() {
    let stage = stuck(1);
    let process = stage.run();
    insert(&stage, 0, 1..=50);
    pass(60_000).await;
    assert_eq!((process.stats[0].state(), stage.log.streams()), (State::Detached, 0));
    assert!(process.tail.idle.load(Relaxed));
    stage.broker.block("0/", false);
    pass(100).await;
    assert_eq!((stage.arrived(0), stage.log.opened()), (ids(0, 1..=50), 2));
    assert_eq!((process.stats[0].state(), process.tail.idle.load(Relaxed)), (State::Running, false));
}

#[tokio::test(start_paused = true)]
async fn a_table_detached_within_a_transaction_comes_back_within_it() {
    let mut stage = stuck(2);
    stage.settings.transaction_hold_bytes = ByteSize(1);
    let process = stage.run();
    insert(&stage, 1, 1..=1);
    let step = |id: &String| Step::Insert(stage.tables[0].clone(), vec![Insert::new(id, "k")]);
    stage.log.commit(ids(0, 1..=50).iter().map(step).collect());
    insert(&stage, 1, 2..=2);
    pass(1_000).await;
    assert_eq!((process.stats[0].state(), stage.arrived(1).len()), (State::Detached, 2));
    stage.broker.block("0/", false);
    pass(1_000).await;
    assert_eq!((process.stats[0].state(), stage.arrived(0)), (State::Running, ids(0, 1..=50)));
}

#[tokio::test(start_paused = true)]
async fn no_more_tables_catch_up_at_a_time_than_may() {
    let mut stage = stuck(5);
    stage.settings.catch_up_readers = 2;
    stage.in_flight = 2;
    (1..4).for_each(|table| stage.broker.block(&format!("{table}/"), true));
    stage.distances.near = 0;
    let process = stage.run();
    (0..5).for_each(|table| insert(&stage, table, 1..=50));
    pass(60_000).await;
    assert_eq!(process.stats.iter().filter(|stats| stats.state() == State::Detached).count(), 4);
    stage.broker.hold();
    (0..4).for_each(|table| stage.broker.block(&format!("{table}/"), false));
    let (mut most, mut waited) = (0, false);
    while stage.broker.ids().len() < 250 {
        stage.broker.acknowledge(0, 1);
        pass(1).await;
        most = most.max(stage.log.streams());
        waited |= process.stats.iter().any(|stats| stats.reason().is_some_and(|reason| reason.contains("its turn")));
    }
    assert!(most == 3 && waited, "{most} streams");
    stage.broker.release();
    pass(1_000).await;
    assert!(process.stats.iter().all(|stats| stats.state() == State::Running) && stage.log.streams() == 1);
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_starts_again_comes_back_to_the_tail() {
    let stage = Stage::new(2, 1);
    let process = stage.run();
    insert(&stage, 1, 1..=3);
    pass(10).await;
    stage.broker.refuse(retriable());
    insert(&stage, 0, 1..=5);
    insert(&stage, 1, 4..=5);
    pass(5_000).await;
    assert_eq!((stage.arrived(0), stage.log.streams()), (ids(0, 1..=5), 1));
    assert!(process.stats.iter().all(|stats| stats.state() == State::Running));
}

#[tokio::test(start_paused = true)]
async fn a_table_far_behind_at_the_start_holds_no_other_up() {
    let mut stage = stuck(2);
    stage.distances.together = 10 * 1024;
    let process = stage.run();
    insert(&stage, 0, 1..=50);
    insert(&stage, 1, 1..=50);
    pass(5_000).await;
    process.stop.cancel();
    pass(60_000).await;
    let fresh = stage.run();
    insert(&stage, 1, 51..=51);
    pass(1).await;
    assert_eq!(stage.arrived(1).last().unwrap(), "1/51");
    assert_eq!(fresh.stats[0].state(), State::CatchingUp);
    pass(60_000).await;
    assert_eq!(fresh.stats[0].state(), State::Detached, "a catch-up reader whose queue is full ends too");
    stage.broker.block("0/", false);
    pass(1_000).await;
    assert_eq!((stage.arrived(0), fresh.stats[0].state()), (ids(0, 1..=50), State::Running));
}

#[tokio::test(start_paused = true)]
async fn a_table_that_comes_back_while_a_transaction_is_prepared_gets_its_rows_once() {
    let stage = stuck(2);
    let process = stage.run();
    insert(&stage, 0, 1..=50);
    pass(1_000).await;
    assert_eq!(process.stats[0].state(), State::Detached);
    let rows =
        |table: usize| Step::Insert(stage.tables[table].clone(), vec![Insert::new(&format!("{table}/prepared"), "k")]);
    stage.log.commit(vec![rows(0), rows(1), Step::Prepare("x".to_owned())]);
    insert(&stage, 1, 1..=2);
    insert(&stage, 0, 51..=52);
    pass(1_000).await;
    stage.broker.block("0/", false);
    pass(1_000).await;
    assert_eq!((process.stats[0].state(), stage.arrived(0)), (State::Running, ids(0, 1..=52)));
    stage.log.commit(vec![Step::Settle("x".to_owned(), true)]);
    pass(1_000).await;
    assert_eq!(stage.arrived(0).last().unwrap(), "0/prepared");
    assert_eq!(stage.arrived(1), ["1/1", "1/2", "1/prepared"]);
    assert_eq!(stage.arrived(0).len(), 53);
}

fn pause() -> Order {
    let at = "2026-11-21T10:30:00Z".parse().unwrap();
    Order::Pause(Pause { by: "ann".to_owned(), at, reason: Some("topic moves".to_owned()) })
}

async fn order(process: &Process, table: usize, order: Order) -> Answer {
    process.control.order(&process.stats[table].table, order).await
}

#[tokio::test(start_paused = true)]
async fn a_paused_table_reads_nothing_stays_so_over_a_crash_and_goes_on_where_it_stood() {
    for transactional in [false, true] {
        let mut stage = Stage::new(2, 1);
        stage.transactional = transactional;
        let mut process = stage.run();
        insert(&stage, 0, 1..=3);
        pass(100).await;
        let done = order(&process, 0, pause()).await.unwrap();
        assert_eq!((done.before.as_str(), done.after.as_str()), ("running", "paused"));
        assert_eq!((process.stats[0].state(), stage.saved(0)), (State::Paused, Some(after(3))));
        assert_eq!(process.stats[0].reason().unwrap(), "by ann at 2026-11-21T10:30:00Z: topic moves");
        insert(&stage, 0, 4..=6);
        insert(&stage, 1, 1..=2);
        pass(60_000).await;
        assert_eq!((stage.arrived(0).len(), stage.arrived(1).len(), stage.saved(0)), (3, 2, Some(after(3))));
        process.kill(&stage, |_| 0).await;
        let again = stage.run();
        pass(60_000).await;
        assert_eq!((again.stats[0].state(), stage.arrived(0).len()), (State::Paused, 3));
        assert!(order(&again, 0, pause()).await.is_ok(), "once more changes nothing");
        let done = order(&again, 0, Order::Resume).await.unwrap();
        assert_eq!((done.before.as_str(), done.after.as_str()), ("paused", "starting"));
        insert(&stage, 1, 3..=3);
        pass(1_000).await;
        assert_eq!((stage.arrived(0), stage.arrived(1)), (ids(0, 1..=6), ids(1, 1..=3)));
        assert_eq!((again.stats[0].state(), stage.log.streams()), (State::Running, 1));
        assert_eq!(order(&again, 0, Order::Resume).await, Err(Refusal::NotPaused(stage.tables[0].clone())));
        again.stop.cancel();
        assert_eq!(again.running.await.unwrap().unwrap(), Summary { halted: 0 });
    }
}

#[tokio::test(start_paused = true)]
async fn a_paused_table_keeps_its_claim_and_a_stop_gives_it_up() {
    let stage = Stage::new(1, 1);
    let first = stage.run();
    pass(10).await;
    order(&first, 0, pause()).await.unwrap();
    let second = stage.run();
    assert_eq!(second.running.await.unwrap().unwrap(), Summary { halted: 1 }, "it is owned");
    first.stop.cancel();
    assert_eq!(first.running.await.unwrap().unwrap(), Summary { halted: 0 });
    let third = stage.run();
    pass(100).await;
    assert_eq!(third.stats[0].state(), State::Paused);
}

/// Given a paused table whose claim has broken, when its position is moved or it is resumed, then it is claimed anew, and
/// is paused still, or goes on.
#[tokio::test(start_paused = true)]
async fn an_order_for_a_paused_table_whose_claim_has_broken_claims_it_anew() {
    let stage = Stage::new(2, 1);
    let mut process = stage.run();
    insert(&stage, 0, 1..=4);
    pass(100).await;
    order(&process, 0, pause()).await.unwrap();
    let paused = process.stats[0].reason();
    stage.positions.break_claim(&stage.tables[0]);
    let done = order(&process, 0, Order::Set(after(2))).await.unwrap();
    assert_eq!((done.before, done.after), (after(4).to_string(), after(2).to_string()));
    pass(10).await;
    assert_eq!((process.stats[0].state(), process.stats[0].reason()), (State::Paused, paused));
    stage.positions.break_claim(&stage.tables[0]);
    order(&process, 0, Order::Resume).await.unwrap();
    pass(1_000).await;
    assert_eq!((stage.arrived(0).len(), process.stats[0].state()), (6, State::Running), "it repeats two");

    // A resume that has been made durable, and whose answer was lost, is undone with the next move.
    order(&process, 0, pause()).await.unwrap();
    let claim = process.session.claim(&stage.tables[0]).await.unwrap().claim;
    process.session.pause(&claim, None).await.unwrap();
    stage.positions.break_claim(&stage.tables[0]);
    order(&process, 0, Order::Set(after(3))).await.unwrap();
    process.kill(&stage, |_| 0).await;
    let again = stage.run();
    pass(5_000).await;
    assert_eq!((again.stats[0].state(), stage.saved(0)), (State::Paused, Some(after(3))));
}

#[tokio::test(start_paused = true)]
async fn an_order_for_a_paused_table_waits_a_while_for_the_position_store_and_a_stop_is_heard_meanwhile() {
    let stage = Stage::new(1, 1);
    let process = stage.run();
    insert(&stage, 0, 1..=2);
    pass(100).await;
    order(&process, 0, pause()).await.unwrap();
    let paused = process.stats[0].reason();
    stage.positions.fail(u64::MAX);
    let begun = Instant::now();
    let refused = order(&process, 0, Order::Resume).await.unwrap_err();
    assert_eq!(refused.name(), "position_store");
    assert!(begun.elapsed() < Duration::from_mins(1), "whoever asks hears it: {:?}", begun.elapsed());
    assert_eq!((process.stats[0].state(), process.stats[0].reason()), (State::Paused, paused));
    stage.positions.fail(4);
    order(&process, 0, Order::Resume).await.unwrap();
    insert(&stage, 0, 3..=3);
    pass(1_000).await;
    assert_eq!((stage.arrived(0), process.stats[0].state()), (ids(0, 1..=3), State::Running));
    order(&process, 0, pause()).await.unwrap();
    stage.positions.fail(u64::MAX);
    let (control, table) = (process.control.clone(), stage.tables[0].clone());
    let waiting = tokio::spawn(async move { control.order(&table, Order::Resume).await });
    pass(1_000).await;
    process.stop.cancel();
    pass(100).await;
    assert!(process.running.is_finished() && waiting.is_finished(), "nobody waits for the store any more");
    assert_eq!(process.running.await.unwrap().unwrap(), Summary { halted: 0 });
    assert_eq!(waiting.await.unwrap(), Err(Refusal::Stopping));
}

/// Given a table that has halted because an event is not even taken as a dead letter, when its position is set behind it
/// and the event is inserted anew, its cause cured, then it is delivered.
#[tokio::test(start_paused = true)]
async fn what_was_refused_is_tried_again_where_a_position_was_moved() {
    let mut stage = Stage::new(2, 1);
    stage.aside.on_poison = OnPoison::DeadLetter;
    let refuse = |refused| {
        for topic in ["t", "outboxd.dead.t"] {
            stage.broker.poison(topic, "0/2", refused);
        }
    };
    refuse(true);
    let process = stage.run();
    insert(&stage, 0, 1..=3);
    pass(5_000).await;
    assert_eq!((process.stats[0].state(), stage.arrived(0).last().unwrap().as_str()), (State::Halted, "0/1"));
    order(&process, 0, Order::Set(after(2))).await.unwrap();
    refuse(false);
    order(&process, 0, Order::Retry).await.unwrap();
    insert(&stage, 0, 2..=2);
    pass(5_000).await;
    assert!(stage.delivered(0).ends_with(&["0/3", "0/2"].map(str::to_owned)), "{:?}", stage.delivered(0));
    assert_eq!(stage.delivered(0), stage.arrived(0), "none is a dead letter");
}

#[tokio::test(start_paused = true)]
async fn a_stuck_table_can_be_paused_and_a_table_that_waits_for_the_store_is_paused_when_it_is_back() {
    let mut stage = stuck(2);
    stage.settings.shutdown_grace = Duration::from_secs(5);
    let process = stage.run();
    insert(&stage, 0, 1..=50);
    insert(&stage, 1, 1..=50);
    pass(1_000).await;
    order(&process, 0, pause()).await.unwrap();
    assert_eq!((process.stats[0].state(), stage.arrived(1).len()), (State::Paused, 50));
    stage.broker.block("0/", false);
    stage.positions.fail(20);
    order(&process, 1, pause()).await.unwrap();
    assert_eq!(process.stats[1].state(), State::Paused);
    assert!(!process.running.is_finished(), "a daemon whose tables are all paused goes on");
    order(&process, 0, Order::Resume).await.unwrap();
    pass(1_000).await;
    assert_eq!((stage.arrived(0), process.stats[1].state()), (ids(0, 1..=50), State::Paused));
}

#[tokio::test(start_paused = true)]
async fn a_halted_table_is_retried_without_another_noticing() {
    let stage = Stage::new(2, 1);
    let process = stage.run();
    pass(10).await;
    stage.broker.refuse(definite());
    insert(&stage, 0, 1..=3);
    pass(1_000).await;
    assert_eq!(process.stats[0].state(), State::Halted);
    assert!(matches!(order(&process, 1, Order::Retry).await, Err(Refusal::NotHalted { .. })));
    assert!(matches!(order(&process, 0, pause()).await, Err(Refusal::Halted { .. })));
    stage.fits.store(false, Relaxed);
    assert!(matches!(order(&process, 0, Order::Retry).await, Err(Refusal::Unfit { .. })));
    stage.fits.store(true, Relaxed);
    order(&process, 0, Order::Retry).await.unwrap();
    insert(&stage, 1, 1..=3);
    pass(1_000).await;
    assert_eq!((stage.arrived(0), stage.arrived(1)), (ids(0, 1..=3), ids(1, 1..=3)));
    assert_eq!((process.stats[0].state(), process.stats[0].reason()), (State::Running, None));
    process.stop.cancel();
    assert_eq!(process.running.await.unwrap().unwrap(), Summary { halted: 0 });
}

#[tokio::test(start_paused = true)]
async fn a_table_that_failed_its_checks_can_be_retried_too_and_the_daemon_ends_when_all_have_halted() {
    let mut stage = Stage::new(2, 1);
    stage.unfit = vec![0, 1];
    let process = stage.run();
    assert_eq!(process.running.await.unwrap().unwrap(), Summary { halted: 2 });
    assert!(process.stats[0].reason().unwrap().starts_with("preflight: not yet"));
    stage.unfit = vec![0];
    let process = stage.run();
    pass(100).await;
    insert(&stage, 0, 1..=1);
    order(&process, 0, Order::Retry).await.unwrap();
    pass(1_000).await;
    assert_eq!((stage.arrived(0), process.stats[0].state()), (ids(0, 1..=1), State::Running));
    assert!(!process.running.is_finished());
    assert!(matches!(order(&process, 0, Order::Retry).await, Err(Refusal::NotHalted { .. })));
}

/// R8: given a table whose stored position is not readable, when a daemon starts, then that one halts by name and the other
/// is relayed; and once an operator has set another position, a retry has it relayed too.
#[tokio::test(start_paused = true)]
async fn a_table_whose_position_is_not_readable_halts_alone_until_another_is_set() {
    let stage = Stage::new(2, 1);
    insert(&stage, 0, 1..=2);
    insert(&stage, 1, 1..=1);
    stage.positions.garble(&stage.tables[0]);
    let process = stage.run();
    pass(1_000).await;
    let reason = process.stats[0].reason().unwrap();
    assert!(reason.starts_with("position_unreadable"), "{reason}");
    assert_eq!((stage.arrived(0), stage.arrived(1)), (Vec::new(), ids(1, 1..=1)));
    let done = order(&process, 0, Order::Set(after(1))).await.unwrap();
    assert!(done.before.contains("not readable"), "{done:?}");
    order(&process, 0, Order::Retry).await.unwrap();
    pass(1_000).await;
    assert_eq!((stage.arrived(0), process.stats[0].state()), (ids(0, 2..=2), State::Running));
}

#[tokio::test(start_paused = true)]
async fn a_position_is_set_back_or_forward_whatever_the_table_does_and_nowhere_else() {
    let stage = Stage::new(2, 1);
    let process = stage.run();
    insert(&stage, 0, 1..=4);
    pass(100).await;
    let done = order(&process, 0, Order::Set(after(2))).await.unwrap();
    assert_eq!((done.before, done.after), (after(4).to_string(), after(2).to_string()));
    pass(1_000).await;
    assert_eq!((stage.arrived(0).len(), process.stats[0].state()), (6, State::Running), "it repeats two");
    for nowhere in [after(99), "file=b.000001:4".parse().unwrap()] {
        assert!(matches!(order(&process, 0, Order::Set(nowhere)).await, Err(Refusal::Misplaced { .. })));
    }
    order(&process, 0, pause()).await.unwrap();
    insert(&stage, 0, 5..=6);
    order(&process, 0, Order::Set(after(5))).await.unwrap();
    assert_eq!((process.stats[0].state(), process.stats[0].position().as_deref()), (State::Paused, Some(&after(5))));
    order(&process, 0, Order::Resume).await.unwrap();
    pass(1_000).await;
    assert_eq!(stage.arrived(0).split_off(6), ["0/6"], "it skips one");
    stage.broker.refuse(definite());
    insert(&stage, 0, 7..=8);
    pass(1_000).await;
    assert_eq!(process.stats[0].state(), State::Halted);
    order(&process, 0, Order::Set(after(7))).await.unwrap();
    order(&process, 0, Order::Retry).await.unwrap();
    pass(1_000).await;
    assert_eq!(stage.arrived(0).split_off(7), ["0/8"]);
}

#[tokio::test(start_paused = true)]
async fn a_position_is_forgotten_whatever_the_table_does_and_it_begins_anew() {
    let stage = Stage::new(2, 1);
    let process = stage.run();
    insert(&stage, 0, 1..=2);
    pass(100).await;
    let done = order(&process, 0, Order::Forget).await.unwrap();
    assert_eq!((done.before, done.after), (after(2).to_string(), "none".to_owned()));
    pass(1_000).await;
    assert_eq!((stage.arrived(0).len(), process.stats[0].state()), (4, State::Running), "from the beginning");
    order(&process, 0, pause()).await.unwrap();
    order(&process, 0, Order::Forget).await.unwrap();
    assert_eq!((process.stats[0].state(), process.stats[0].position()), (State::Paused, None));
    order(&process, 0, Order::Resume).await.unwrap();
    pass(1_000).await;
    assert_eq!(stage.arrived(0).len(), 6);
    stage.broker.refuse(definite());
    insert(&stage, 0, 3..=3);
    pass(1_000).await;
    assert_eq!(process.stats[0].state(), State::Halted);
    order(&process, 0, Order::Forget).await.unwrap();
    order(&process, 0, Order::Retry).await.unwrap();
    pass(1_000).await;
    assert_eq!(stage.arrived(0).split_off(6), ["0/1", "0/2", "0/3"]);
    assert_eq!(stage.arrived(1), Vec::<String>::new());
}

fn plan(from: u64, to: Option<u64>, rate: u32) -> Plan {
    let (ids, aggregates) = (BTreeSet::new(), BTreeSet::new());
    let rate = std::num::NonZero::new(rate).unwrap();
    Plan { run: "run-1".into(), from: after(from), to: to.map(after), ids, aggregates, rate }
}

async fn ended(process: &Process, table: usize) -> Result<(), String> {
    for _ in 0..10_000 {
        if let Some(ended) = process.stats[table].replay().and_then(|replay| replay.ended()) {
            return ended;
        }
        pass(10).await;
    }
    panic!("the replay does not end")
}

#[tokio::test(start_paused = true)]
async fn a_replay_goes_through_the_relay_in_order_and_moves_no_position() {
    for transactional in [false, true] {
        let mut stage = Stage::new(2, 1);
        stage.transactional = transactional;
        let process = stage.run();
        insert(&stage, 0, 1..=6);
        insert(&stage, 1, 1..=2);
        pass(2_000).await;
        let done = order(&process, 0, Order::Replay(Box::new(plan(2, Some(4), 1000)))).await.unwrap();
        assert_eq!((done.before, done.after), (after(2).to_string(), after(4).to_string()));
        assert_eq!(ended(&process, 0).await, Ok(()));
        insert(&stage, 0, 7..=7);
        pass(2_000).await;
        let expected = [ids(0, 1..=6), ids(0, 3..=4), ids(0, 7..=7)].concat();
        assert_eq!((stage.arrived(0), stage.arrived(1).len()), (expected, 2));
        let replay = process.stats[0].replay().unwrap();
        assert_eq!((replay.published.load(Relaxed), stage.saved(0)), (2, Some(after(9))));
        // Given no end, or one beyond what is published, then it ends there; given one aggregate or event, it is that.
        let some = Plan { ids: [b"0/5".to_vec()].into(), ..plan(0, None, 1000) };
        order(&process, 0, Order::Replay(Box::new(some))).await.unwrap();
        assert_eq!(ended(&process, 0).await, Ok(()));
        assert_eq!(stage.arrived(0).last().unwrap(), "0/5");
        let none = Plan { aggregates: [b"other".to_vec()].into(), ..plan(0, None, 1000) };
        order(&process, 0, Order::Replay(Box::new(none))).await.unwrap();
        assert_eq!((ended(&process, 0).await, stage.arrived(0).len()), (Ok(()), 10));
        assert!(matches!(
            order(&process, 0, Order::Replay(Box::new(plan(9, None, 1)))).await,
            Err(Refusal::NoReplay { .. })
        ));
        process.stop.cancel();
        assert_eq!(process.running.await.unwrap().unwrap(), Summary { halted: 0 });
    }
}

#[tokio::test(start_paused = true)]
async fn a_replay_keeps_to_its_rate_lets_others_through_and_ends_with_a_pause() {
    let stage = Stage::new(2, 1);
    let process = stage.run();
    insert(&stage, 0, 1..=200);
    pass(2_000).await;
    let begun = Instant::now();
    order(&process, 0, Order::Replay(Box::new(plan(0, None, 10)))).await.unwrap();
    assert!(matches!(
        order(&process, 0, Order::Replay(Box::new(plan(0, None, 10)))).await,
        Err(Refusal::NoReplay { .. })
    ));
    assert_eq!(ended(&process, 0).await, Ok(()));
    assert_eq!(begun.elapsed().as_secs(), 19, "the first goes at once");
    assert_eq!(stage.arrived(0).len(), 400);
    stage.broker.hold();
    order(&process, 0, Order::Replay(Box::new(plan(0, None, 10)))).await.unwrap();
    pass(1_000).await;
    assert!(process.stats[0].replay().unwrap().ended().is_none(), "what is not acknowledged is not done");
    stage.broker.release();
    order(&process, 0, pause()).await.unwrap();
    let _ = ended(&process, 0).await;
    assert!(matches!(
        order(&process, 0, Order::Replay(Box::new(plan(0, None, 10)))).await,
        Err(Refusal::NoReplay { .. })
    ));
    order(&process, 0, Order::Resume).await.unwrap();
    insert(&stage, 0, 201..=201);
    pass(5_000).await;
    assert_eq!((process.stats[0].state(), stage.arrived(0).last().unwrap().as_str()), (State::Running, "0/201"));
    stage.log.purge(100);
    order(&process, 0, Order::Replay(Box::new(plan(0, None, 10)))).await.unwrap();
    assert!(ended(&process, 0).await.is_err(), "the log does not have it any more");
    assert_eq!(process.stats[0].state(), State::Running);
}

/// Given records that the brokers do not acknowledge, when a pause ends a replay,
/// then the place it names leaves none of them out, and from there it comes to its end.
#[tokio::test(start_paused = true)]
async fn a_replay_that_is_broken_off_names_the_place_up_to_which_all_is_acknowledged() {
    // The first of them is a transaction of its own, which is committed; the next is not.
    for (transactional, reached) in [(false, 20), (true, 1)] {
        let mut stage = Stage::new(1, 1);
        stage.transactional = transactional;
        let process = stage.run();
        insert(&stage, 0, 1..=50);
        pass(2_000).await;
        stage.broker.hold();
        order(&process, 0, Order::Replay(Box::new(plan(0, None, 1000)))).await.unwrap();
        pass(1_000).await;
        let replay = process.stats[0].replay().unwrap();
        assert_eq!((replay.at(), replay.ended()), (after(0), None), "nothing is acknowledged");
        stage.broker.acknowledge(0, 20);
        pass(10).await;
        order(&process, 0, pause()).await.unwrap();
        assert!(ended(&process, 0).await.is_err());
        assert_eq!(replay.at(), after(reached));
        assert_eq!(stage.arrived(0).len() as u64, 50 + reached, "and that has arrived");
        stage.broker.release();
        order(&process, 0, Order::Resume).await.unwrap();
        pass(2_000).await;
        order(&process, 0, Order::Replay(Box::new(plan(reached, None, 1000)))).await.unwrap();
        assert_eq!(ended(&process, 0).await, Ok(()));
        let replay = process.stats[0].replay().unwrap();
        assert_eq!(replay.at(), replay.to);
    }
}

/// Given a replay whose records keep the client busy, when an event is committed, then it does not wait for the replay.
#[tokio::test(start_paused = true)]
async fn an_event_does_not_wait_for_a_replay_that_keeps_the_client_busy() {
    let stage = Stage::new(1, 1);
    let process = stage.run();
    insert(&stage, 0, 1..=50);
    pass(2_000).await;
    stage.broker.hold();
    stage.broker.busy_beyond(5);
    order(&process, 0, Order::Replay(Box::new(plan(0, None, 1000)))).await.unwrap();
    pass(1_000).await;
    assert!(stage.broker.pending(0) > 5, "it is busy");
    insert(&stage, 0, 51..=51);
    pass(100).await;
    assert!(stage.broker.handed().concat().contains(&"0/51".to_owned()));
}

/// A stage whose topic refuses the event `0/2`, and a daemon that has met it between others.
async fn poisoned(on_poison: OnPoison, transactional: bool) -> (Stage, Process) {
    let mut stage = Stage::new(1, 1);
    stage.aside.on_poison = on_poison;
    stage.transactional = transactional;
    stage.broker.poison("t", "0/2", true);
    let process = stage.run();
    for (id, key) in [("0/1", "k"), ("0/2", "k"), ("0/3", "other"), ("0/4", "k")] {
        stage.log.insert(&stage.tables[0], id, key);
    }
    pass(5_000).await;
    (stage, process)
}

async fn release(stage: &Stage, process: &Process, key: &str) -> Answer {
    let order = Order::Release(Aggregate::new(key.as_bytes()));
    process.control.order(&stage.tables[0], order).await
}

#[tokio::test(start_paused = true)]
async fn a_parked_aggregate_stays_parked_over_a_crash_and_is_put_back_in_order() {
    for transactional in [false, true] {
        let (stage, mut process) = poisoned(OnPoison::Park, transactional).await;
        let first = |stage: &Stage| {
            let mut seen = std::collections::HashSet::new();
            stage.delivered(0).into_iter().filter(|id| seen.insert(id.clone())).collect::<Vec<_>>()
        };
        assert_eq!(first(&stage), ["0/1", "0/3"]);
        process.kill(&stage, |_| 0).await;
        let process = stage.run();
        stage.log.insert(&stage.tables[0], "0/5", "k");
        stage.log.insert(&stage.tables[0], "0/6", "other");
        pass(5_000).await;
        assert_eq!(first(&stage), ["0/1", "0/3", "0/6"]);
        let parked = process.stats[0].parked();
        let parking = parked.get(b"k").unwrap();
        assert_eq!((parking.events, parking.run.as_str()), (3, "0/2"));
        assert!(parking.reason.starts_with("record_too_large: "), "{}", parking.reason);

        // Still poison: it is refused, and nothing of it leaves.
        let refused = release(&stage, &process, "k").await.unwrap_err();
        assert!(refused.to_string().contains("record_too_large"), "{refused}");
        pass(5_000).await;
        assert_eq!((first(&stage).len(), process.stats[0].parked().len()), (3, 1));
        assert_eq!(process.stats[0].state(), State::Running);

        stage.broker.poison("t", "0/2", false);
        assert_eq!(release(&stage, &process, "k").await.unwrap().after, "released: 3 events");
        stage.log.insert(&stage.tables[0], "0/7", "k");
        pass(5_000).await;
        assert_eq!(first(&stage), ["0/1", "0/3", "0/6", "0/2", "0/4", "0/5", "0/7"]);
        assert!(process.stats[0].parked().is_empty() && stage.positions.parked(&stage.tables[0]).is_empty());
        assert!(!transactional || stage.delivered(0).len() == 7, "{:?}", stage.delivered(0));
        let refused = release(&stage, &process, "k").await.unwrap_err();
        assert!(refused.to_string().contains("it is not parked"), "{refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_alone_and_leaves_a_hole() {
    for transactional in [false, true] {
        let (stage, process) = poisoned(OnPoison::DeadLetter, transactional).await;
        let mut delivered = stage.delivered(0);
        delivered.dedup();
        assert!(delivered.ends_with(&["0/1", "0/3", "0/4"].map(str::to_owned)), "{delivered:?}");
        let letters: Vec<_> =
            stage.broker.delivered().into_iter().filter(|record| record.topic == "outboxd.dead.t").collect();
        assert_eq!(letters.len(), 1);
        assert_eq!((letters[0].id.as_str(), letters[0].content.text("outboxd-order-hole")), ("0/2", Some("1")));
        assert_eq!(process.stats[0].dead_letters.load(Relaxed), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn more_than_may_be_parked_halts_by_name_and_what_is_parked_stays_so_under_another_policy() {
    let (mut stage, mut process) = poisoned(OnPoison::Park, false).await;
    process.kill(&stage, |_| 0).await;
    stage.aside.on_poison = OnPoison::Halt;
    stage.aside.events = 3;
    let process = stage.run();
    stage.log.insert(&stage.tables[0], "0/5", "k");
    pass(5_000).await;
    assert_eq!((process.stats[0].state(), process.stats[0].parked().events()), (State::Running, 3));
    stage.log.insert(&stage.tables[0], "0/6", "k");
    pass(5_000).await;
    assert_eq!(process.stats[0].state(), State::Halted);
    assert!(process.stats[0].reason().unwrap().starts_with("parked_limit: delivery.parked_events is 3"));
}
