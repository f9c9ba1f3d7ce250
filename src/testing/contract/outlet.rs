//! What an outlet promises.

use std::collections::BTreeMap;

use futures::FutureExt;
use futures::future::join;

use crate::outbox::{Header, Record};
use crate::outlet::{Chunk, Outlet, PublishError, Settled};
use crate::position::{PositionStore, StoreError};
use crate::table::TableName;
use crate::testing::log::after;

/// An empty topic and a store, and outlets to them.
pub trait Bench: Sync {
    /// The outlet.
    type Outlet: Outlet;
    /// The store that the outlet saves to.
    type Store: PositionStore;
    /// Whether a claim takes the table over from a live owner, instead of being refused.
    const TAKES_OVER: bool = false;
    /// An outlet of a table that is claimed for it. It takes fewer than a thousand records of 1 kB
    /// at a time.
    fn outlet(&self, table: &TableName) -> impl Future<Output = Self::Outlet>;
    /// Another process's way to the store.
    fn store(&self) -> impl Future<Output = Self::Store>;
    /// A topic whose records all fail after they were taken.
    fn failing(&self) -> impl Future<Output = String>;
    /// The topic to publish to.
    fn topic(&self) -> &str;
    /// Every record of the topic with a header `id` that begins with `prefix`, as key and id, by partition in order.
    fn delivered(&self, prefix: &str, expected: usize) -> impl Future<Output = Vec<(String, String)>>;
}

/// Every check, each with ids of its own.
pub async fn keep<B: Bench>(bench: &B) {
    records_arrive_once_and_in_order(bench).await;
    waiting_may_be_given_up(bench).await;
    after_a_failure_no_record_is_taken(bench).await;
    a_save_is_durable_and_a_release_frees_the_table(bench).await;
    if B::Outlet::ATOMIC {
        what_is_not_saved_is_not_seen(bench).await;
        a_save_settles_what_was_published_before_it(bench).await;
    }
}

struct Run<B: Bench> {
    topic: String,
    outlet: B::Outlet,
    settled: Vec<Settled>,
}

impl<B: Bench> Run<B> {
    /// Tries to publish one record.
    fn attempt(&mut self, id: &str, key: &str, chunk: Chunk) -> Result<(), PublishError> {
        let value = [b'x'; 1000];
        let record = Record {
            topic: &self.topic,
            key: key.as_bytes(),
            partition: None,
            value: Some(&value),
            timestamp_millis: 1_700_000_000_000,
            headers: &[Header { name: "id", value: Some(id.as_bytes()) }],
        };
        self.outlet.publish(&record, chunk)
    }

    /// Publishes one record; says whether the outlet was full at first.
    async fn publish(&mut self, id: &str, key: &str, chunk: Chunk) -> bool {
        let mut full = false;
        loop {
            match self.attempt(id, key, chunk) {
                Ok(()) => return full,
                Err(PublishError::Full) => {
                    full = true;
                    self.outlet.room().await;
                }
                Err(PublishError::Refused(error)) => panic!("{error}"),
            }
        }
    }

    /// An atomic outlet settles what is saved.
    async fn save_if_atomic(&mut self) {
        if B::Outlet::ATOMIC {
            self.outlet.save(&after(1)).await.unwrap();
        }
    }

    /// Records settled so far, by chunk.
    fn by_chunk(&self) -> BTreeMap<Chunk, u64> {
        self.settled.iter().fold(BTreeMap::new(), |mut all, settled| {
            assert_eq!(settled.outcome, Ok(()));
            *all.entry(settled.chunk).or_default() += settled.records;
            all
        })
    }
}

async fn run<B: Bench>(bench: &B, table: &str) -> Run<B> {
    let outlet = bench.outlet(&TableName::new("contract", table)).await;
    Run { topic: bench.topic().to_owned(), outlet, settled: Vec::new() }
}

/// Given more records than the outlet takes at a time, when all are published, then it says that it is full, every record
/// is settled once under its chunk, and each arrives once, in the order of its key.
pub async fn records_arrive_once_and_in_order(bench: &impl Bench) {
    let mut run = run(bench, "in-order").await;
    let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut full = false;
    for n in 0..3000_u64 {
        let (id, key) = (format!("in-order {n:04}"), format!("key {}", n % 17));
        full |= run.publish(&id, &key, n / 100).await;
        expected.entry(key).or_default().push(id);
    }
    assert!(full, "the outlet has no limit");
    run.save_if_atomic().await;
    while run.by_chunk().values().sum::<u64>() < 3000 {
        run.outlet.settled(&mut run.settled).await;
    }
    assert_eq!(run.by_chunk(), (0..30).map(|chunk| (chunk, 100)).collect());
    let mut delivered: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, id) in bench.delivered("in-order", 3000).await {
        delivered.entry(key).or_default().push(id);
    }
    assert_eq!(delivered, expected);
}

/// Given someone who waits and gives up again and again, then no acknowledgement is lost.
pub async fn waiting_may_be_given_up(bench: &impl Bench) {
    let mut run = run(bench, "given-up").await;
    for n in 0..200_u64 {
        run.publish(&format!("given-up {n}"), "k", n).await;
        let _ = run.outlet.settled(&mut run.settled).now_or_never();
        let _ = run.outlet.room().now_or_never();
    }
    run.save_if_atomic().await;
    while run.by_chunk().len() < 200 {
        run.outlet.settled(&mut run.settled).await;
    }
    assert!(run.by_chunk().values().all(|&records| records == 1));
}

/// R1: given a record that failed, when another is published, then it is refused, for it would overtake the first.
pub async fn after_a_failure_no_record_is_taken(bench: &impl Bench) {
    let mut run = run(bench, "failing").await;
    run.topic = bench.failing().await;
    run.publish("failing 1", "k", 0).await;
    run.outlet.settled(&mut run.settled).await;
    let failure = run.settled[0].outcome.clone().unwrap_err();
    assert_eq!(run.attempt("failing 2", "k", 1), Err(PublishError::Refused(failure)));
}

/// Given a save under way, when records are published beside it, then both come through; a release frees the table.
pub async fn a_save_is_durable_and_a_release_frees_the_table<B: Bench>(bench: &B) {
    let mut run = run(bench, "saved").await;
    let table = TableName::new("contract", "saved");
    let save = run.outlet.save(&after(4));
    let ((), saved) = join(async { _ = run.publish("saved 1", "k", 0).await }, save).await;
    saved.unwrap();
    let error = run.outlet.save(&after(3)).await.unwrap_err();
    assert!(matches!(error, StoreError::Backwards { .. }), "{error}");
    let store = bench.store().await;
    if !B::TAKES_OVER {
        assert!(matches!(store.claim(&table).await, Err(StoreError::Owned { .. })));
    }
    run.outlet.release().await.unwrap();
    assert_eq!(store.claim(&table).await.unwrap().position, Ok(Some(after(4))));
}

/// Given records that were published and not saved, when the outlet is released, then nobody has seen them, and what the
/// next owner of the table publishes and saves is all there is.
pub async fn what_is_not_saved_is_not_seen(bench: &impl Bench) {
    let mut first = run(bench, "unseen").await;
    first.publish("unseen 1", "k", 0).await;
    first.outlet.release().await.unwrap();
    drop(first);
    let mut second = run(bench, "unseen").await;
    second.publish("unseen 2", "k", 0).await;
    second.outlet.save(&after(1)).await.unwrap();
    assert_eq!(bench.delivered("unseen", 1).await, [("k".to_owned(), "unseen 2".to_owned())]);
}

/// Given records before and after a save, when it returns, then those before it are settled, and no other.
pub async fn a_save_settles_what_was_published_before_it(bench: &impl Bench) {
    let mut run = run(bench, "settled").await;
    run.publish("settled 1", "k", 0).await;
    run.publish("settled 2", "k", 1).await;
    let save = run.outlet.save(&after(1));
    let ((), saved) = join(async { _ = run.publish("settled 3", "k", 2).await }, save).await;
    saved.unwrap();
    run.outlet.settled(&mut run.settled).now_or_never().expect("a save settles before it returns");
    assert_eq!(run.by_chunk(), [(0, 1), (1, 1)].into());
    run.outlet.save(&after(2)).await.unwrap();
    run.outlet.settled(&mut run.settled).now_or_never().expect("a save settles before it returns");
    assert_eq!(run.by_chunk(), [(0, 1), (1, 1), (2, 1)].into());
}
