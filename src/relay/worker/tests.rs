use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::*;
use crate::outbox::aside::Unpacked;
use crate::outbox::{self, Columns, OnPoison, TopicTemplate};
use crate::outlet::{DeliveryError, PublishError, Rejection, Wanted};
use crate::position::{PositionStore, StoreError};
use crate::relay::queue::{Sender, bounded};
use crate::source::{BatchBuilder, RowSet};
use crate::table::TableName;
use crate::testing::broker::MemoryBroker;
use crate::testing::log::{Insert, MemoryRows, after};
use crate::testing::outlet::MemoryOutlet;
use crate::testing::store::{MemoryPositions, MemoryStore};

/// Events that may be unsaved, for tests that are about something else.
const UNSAVED: u64 = 100;

fn grace() -> Duration {
    RelaySettings::default().shutdown_grace
}

/// A worker over memory, in virtual time.
struct Bench {
    broker: MemoryBroker,
    positions: MemoryPositions,
    table: TableName,
    stats: Arc<TableStats>,
    queue: Sender,
    stop: CancellationToken,
    running: JoinHandle<Outcome>,
    session: MemoryStore,
    settings: watch::Sender<RelaySettings>,
}

async fn bench(max_unsaved_events: u64, partitions: usize, limit: usize) -> Bench {
    let table = TableName::new("d", "outbox-1");
    let (broker, positions) = (MemoryBroker::new(partitions), MemoryPositions::default());
    let session = positions.session();
    let claim = session.claim(&table).await.unwrap().claim;
    let outlet = MemoryOutlet::new(broker.publisher(limit), session.clone(), claim);
    let (queue, receiver) = bounded(1 << 20);
    let mapping = Mapping::new(Columns::default(), TopicTemplate::parse("t").unwrap());
    let stats = Arc::new(TableStats::new(table.clone()));
    let stop = CancellationToken::new();
    let settings = watch::Sender::new(RelaySettings { max_unsaved_events, ..RelaySettings::default() });
    let worker = Worker::new(mapping, outlet, receiver.into(), settings.subscribe(), Arc::clone(&stats));
    let running = tokio::spawn(worker.run(stop.clone(), stop.clone()));
    Bench { broker, positions, table, stats, queue, stop, running, session, settings }
}

impl Bench {
    /// One batch that reaches the position `number`; the ids are `number.0`, `number.1` and so on, each its own key.
    async fn send(&self, number: u64, rows: usize) {
        let insert = |row: usize| Insert::new(&format!("{number}.{row}"), &row.to_string());
        self.send_rows(number, (0..rows).map(insert).collect()).await;
    }

    /// One batch of these rows.
    async fn send_rows(&self, number: u64, inserts: Vec<Insert>) {
        let mut batch = BatchBuilder::new(5);
        batch.set_commit_micros(now_micros());
        let columns = Mapping::new(Columns::default(), TopicTemplate::parse("t").unwrap()).columns().clone();
        MemoryRows::new(inserts, columns).append_to(&mut batch).unwrap();
        self.give(Item::Batch(batch.take(Arc::new(after(number))))).await;
    }

    async fn give(&self, item: Item) {
        self.queue.send(item).await.unwrap();
    }

    /// Lets everything happen that needs no more than `millis` of time.
    async fn pass(&self, millis: u64) {
        sleep(Duration::from_millis(millis)).await;
    }

    fn saved(&self) -> Option<Position> {
        self.positions.position(&self.table)
    }

    /// The worker ends, and the next one goes on from the durable position. It sets refused events aside, and has what
    /// those before it know of them.
    async fn succeeded(self, on_poison: OnPoison, condemned: &Condemned) -> Self {
        self.stop.cancel();
        self.running.await.unwrap();
        let claimed = self.session.claim(&self.table).await.unwrap();
        let outlet = MemoryOutlet::new(self.broker.publisher(100), self.session.clone(), claimed.claim);
        let (queue, receiver) = bounded(1 << 20);
        let mapping = Mapping::new(Columns::default(), TopicTemplate::parse("t").unwrap());
        let aside = outbox::Aside { on_poison, ..outbox::Aside::default() };
        let mapping = mapping.with_aside(Arc::new(aside));
        let stop = CancellationToken::new();
        let worker = Worker::new(mapping, outlet, receiver.into(), self.settings.subscribe(), Arc::clone(&self.stats));
        let position = Arc::new(claimed.position.unwrap().unwrap_or_else(|| after(0)));
        let worker = worker.resuming(position, claimed.parked, condemned.clone());
        let running = tokio::spawn(worker.run(stop.clone(), stop.clone()));
        Self { queue, stop, running, ..self }
    }

    async fn ended(self) -> Outcome {
        timeout(grace() + Duration::from_millis(10), self.running).await.expect("ends in time").unwrap()
    }
}

fn definite() -> DeliveryError {
    DeliveryError::Definite(Rejection {
        name: "topic_missing",
        topic: "t".into(),
        reason: "gone".into(),
        cure: "create it",
    })
}

fn retriable() -> DeliveryError {
    DeliveryError::retriable("t", "later")
}

#[tokio::test(start_paused = true)]
async fn only_the_acknowledged_prefix_is_saved_whatever_the_order_of_acknowledgements() {
    let bench = bench(UNSAVED, 2, 100).await;
    bench.broker.hold();
    for number in 1..=3 {
        bench.send(number, 2).await;
    }
    bench.pass(1).await;
    // Partition 0 has one row of every batch, partition 1 the other.
    bench.broker.acknowledge(0, 3);
    bench.pass(5_000).await;
    assert_eq!(bench.saved(), None);
    bench.broker.acknowledge(1, 1);
    bench.pass(5_000).await;
    assert_eq!(bench.saved(), Some(after(1)));
    bench.broker.acknowledge(1, 2);
    bench.pass(5_000).await;
    assert_eq!(bench.saved(), Some(after(3)));
    let saves: Vec<_> = bench.positions.saves().into_iter().map(|(_, position)| position).collect();
    assert!(saves.is_sorted(), "R3: {saves:?}");
}

#[tokio::test(start_paused = true)]
async fn positions_are_saved_at_their_interval_and_sooner_when_much_is_unsaved() {
    let bench = bench(10, 1, 100).await;
    bench.send(1, 1).await;
    bench.pass(900).await;
    assert_eq!(bench.saved(), None);
    bench.pass(200).await;
    assert_eq!(bench.saved(), Some(after(1)));
    bench.send(2, 5).await;
    bench.pass(1).await;
    assert_eq!(bench.saved(), Some(after(2)), "half of max_unsaved");
    bench.give(Item::Progress(Arc::new(after(7)))).await;
    bench.pass(50_000).await;
    assert_eq!(bench.saved(), Some(after(2)), "idle progress is saved rarely");
    bench.pass(20_000).await;
    assert_eq!(bench.saved(), Some(after(7)));
}

#[tokio::test(start_paused = true)]
async fn no_batch_begins_while_too_much_is_unsaved() {
    let bench = bench(4, 1, 100).await;
    bench.broker.hold();
    for number in 1..=5 {
        bench.send(number, 3).await;
    }
    bench.pass(5_000).await;
    assert_eq!(bench.broker.pending(0), 6);
    bench.broker.acknowledge(0, 3);
    bench.pass(5_000).await;
    assert_eq!((bench.saved(), bench.broker.pending(0)), (Some(after(1)), 6));
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_the_outlet_is_busy_is_gathered_and_leaves_at_once() {
    let bench = bench(UNSAVED, 1, 100).await;
    bench.broker.hold();
    bench.broker.busy_beyond(5);
    // What is in the queue at the same time is not taken apart.
    for number in 1..=3 {
        bench.send(number, 3).await;
    }
    bench.pass(1_000).await;
    assert_eq!(bench.broker.pending(0), 9);
    for number in 4..=13 {
        bench.send(number, 2).await;
        bench.pass(10).await;
    }
    assert_eq!(bench.broker.pending(0), 9);
    bench.broker.acknowledge(0, 3);
    bench.pass(1_000).await;
    assert_eq!(bench.broker.pending(0), 6);
    bench.broker.acknowledge(0, 1);
    bench.pass(1_000).await;
    assert_eq!(bench.broker.pending(0), 25);
    // With few in flight nothing waits for anything.
    bench.broker.acknowledge(0, 25);
    bench.pass(1_000).await;
    for (number, in_flight) in (14..=18).zip(1..) {
        bench.send(number, 1).await;
        bench.pass(10).await;
        assert_eq!(bench.broker.pending(0), in_flight);
    }
    bench.broker.release();
    bench.stop.cancel();
    assert_eq!((bench.saved(), bench.ended().await), (Some(after(13)), Outcome::Drained));
}

#[tokio::test(start_paused = true)]
async fn limits_that_change_count_at_once() {
    let bench = bench(4, 1, 100).await;
    bench.broker.hold();
    for number in 1..=5 {
        bench.send(number, 3).await;
    }
    bench.pass(5_000).await;
    assert_eq!(bench.broker.pending(0), 6);
    bench.settings.send_modify(|settings| settings.max_unsaved_events = 8);
    bench.pass(1).await;
    assert_eq!(bench.broker.pending(0), 9, "the relay was waiting, and nothing else has happened");
    bench.settings.send_modify(|settings| settings.idle_checkpoint_interval = Duration::from_secs(1));
    bench.broker.release();
    bench.pass(2_000).await;
    bench.give(Item::Progress(Arc::new(after(7)))).await;
    bench.pass(2_000).await;
    assert_eq!(bench.saved(), Some(after(7)));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_fails_for_good_halts_by_name_and_the_position_stays_before_it() {
    let bench = bench(UNSAVED, 1, 100).await;
    bench.broker.hold();
    for number in 1..=3 {
        bench.send(number, 1).await;
    }
    bench.pass(1).await;
    bench.broker.acknowledge(0, 1);
    bench.broker.fail(0, &definite());
    let (positions, table, stats) = (bench.positions.clone(), bench.table.clone(), Arc::clone(&bench.stats));
    let Outcome::Halted(halt) = bench.ended().await else { panic!("it does not halt") };
    assert_eq!(halt.name, "topic_missing");
    assert_eq!(positions.position(&table), Some(after(1)));
    assert_eq!(stats.state(), State::Halted);
    assert_eq!(stats.in_flight.load(Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_refused_when_it_is_published_halts_behind_what_is_in_flight() {
    let bench = bench(UNSAVED, 1, 100).await;
    bench.broker.hold();
    bench.send(1, 2).await;
    bench.pass(1).await;
    bench.broker.refuse(definite());
    bench.send(2, 2).await;
    bench.pass(1).await;
    bench.broker.acknowledge(0, 2);
    let (positions, table) = (bench.positions.clone(), bench.table.clone());
    assert!(matches!(bench.ended().await, Outcome::Halted(_)));
    assert_eq!(positions.position(&table), Some(after(1)));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_fails_for_now_ends_for_a_restart_once_all_is_settled_and_not_a_grace_period_later() {
    let bench = bench(UNSAVED, 2, 100).await;
    bench.broker.hold();
    bench.send(1, 2).await;
    bench.send(2, 2).await;
    bench.pass(1).await;
    bench.broker.acknowledge(0, 1);
    bench.broker.acknowledge(1, 1);
    bench.broker.fail(0, &retriable());
    bench.pass(10).await;
    assert!(!bench.running.is_finished(), "the other partition is still in flight");
    bench.broker.acknowledge(1, 1);
    let began = Instant::now();
    let (positions, table) = (bench.positions.clone(), bench.table.clone());
    assert!(matches!(bench.ended().await, Outcome::Restart(_)));
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    assert_eq!(positions.position(&table), Some(after(1)));
}

#[tokio::test(start_paused = true)]
async fn given_a_spent_outlet_when_noticed_then_all_is_acknowledged_and_saved_before_the_relay_begins_anew() {
    let bench = bench(UNSAVED, 1, 100).await;
    bench.broker.hold();
    bench.send(1, 2).await;
    bench.pass(1).await;
    bench.broker.wear_out();
    bench.send(2, 2).await;
    bench.pass(5_000).await;
    bench.send(3, 2).await;
    bench.pass(60_000).await;
    assert!(!bench.running.is_finished(), "what is on its way is waited for");
    assert_eq!(bench.broker.pending(0), 4, "and nothing follows it");
    bench.broker.release();
    let (broker, positions, table) = (bench.broker.clone(), bench.positions.clone(), bench.table.clone());
    let stats = Arc::clone(&bench.stats);
    assert!(matches!(bench.ended().await, Outcome::Restart(_)));
    assert_eq!(positions.position(&table), Some(after(2)));
    assert_eq!(broker.ids(), ["1.0", "1.1", "2.0", "2.1"]);
    assert_eq!(stats.retries(), [0, 0, 1, 0, 0], "an event was looked for");
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_away_records_go_on_and_the_position_is_saved_later() {
    let bench = bench(UNSAVED, 1, 100).await;
    bench.positions.fail(20);
    for number in 1..=4 {
        bench.send(number, 1).await;
        bench.pass(1_000).await;
    }
    assert_eq!(bench.broker.delivered().len(), 4);
    assert_eq!(bench.saved(), None);
    bench.pass(10_000).await;
    assert_eq!(bench.saved(), Some(after(4)));
    assert!(bench.stats.save_retries.load(Relaxed) >= 15);
}

#[tokio::test(start_paused = true)]
async fn a_table_that_was_taken_over_halts_by_name() {
    let bench = bench(UNSAVED, 1, 100).await;
    bench.positions.sever(&bench.session);
    bench.positions.session().claim(&bench.table).await.unwrap();
    bench.send(1, 1).await;
    let (positions, table) = (bench.positions.clone(), bench.table.clone());
    let Outcome::Halted(halt) = bench.ended().await else { panic!("it does not halt") };
    assert_eq!((halt.name, positions.position(&table)), ("fenced", None));
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_what_is_in_flight_and_saves_it() {
    let bench = bench(UNSAVED, 1, 100).await;
    bench.broker.hold();
    bench.send(1, 3).await;
    bench.pass(1).await;
    bench.stop.cancel();
    bench.pass(10_000).await;
    assert!(!bench.running.is_finished());
    bench.broker.release();
    let (positions, table) = (bench.positions.clone(), bench.table.clone());
    assert_eq!(bench.ended().await, Outcome::Drained);
    assert_eq!(positions.position(&table), Some(after(1)));
}

#[tokio::test(start_paused = true)]
async fn a_stop_gives_up_after_the_grace_period() {
    let bench = bench(UNSAVED, 1, 100).await;
    bench.broker.hold();
    bench.send(1, 3).await;
    bench.send(2, 3).await;
    bench.pass(1).await;
    bench.broker.acknowledge(0, 3);
    bench.stop.cancel();
    let (positions, table, began) = (bench.positions.clone(), bench.table.clone(), Instant::now());
    assert_eq!(bench.ended().await, Outcome::Abandoned { unsaved: 3 });
    assert!(began.elapsed() >= grace());
    assert_eq!(positions.position(&table), Some(after(1)));
}

/// Like an outlet whose room is shared with others: there seems to be room again and again, and there is none.
struct Deceptive(MemoryOutlet<MemoryStore>);

impl Outlet for Deceptive {
    fn publish(&mut self, record: &crate::outbox::Record<'_>, chunk: Chunk) -> Result<(), PublishError> {
        self.0.publish(record, chunk)
    }

    fn room(&self) -> impl Future<Output = ()> + Send + 'static {
        sleep(Duration::from_millis(20))
    }

    async fn settled(&mut self, into: &mut Vec<Settled>) {
        self.0.settled(into).await;
    }

    fn keep(
        &mut self,
        position: &Position,
        parked: Option<&Parked>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + 'static {
        self.0.keep(position, parked)
    }

    fn read(&self, wanted: Wanted) -> impl Future<Output = Result<Vec<Unpacked>, String>> + Send + 'static {
        self.0.read(wanted)
    }

    async fn release(&mut self) -> Result<(), StoreError> {
        self.0.release().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_in_the_middle_of_a_batch_that_finds_no_room_ends_within_two_grace_periods() {
    let bench = bench(UNSAVED, 1, 100).await;
    bench.broker.hold();
    let table = TableName::new("d", "other");
    let claim = bench.session.claim(&table).await.unwrap().claim;
    let outlet = Deceptive(MemoryOutlet::new(bench.broker.publisher(2), bench.session.clone(), claim));
    let (queue, receiver) = bounded(1 << 20);
    let mapping = Mapping::new(Columns::default(), TopicTemplate::parse("t").unwrap());
    let stats = Arc::new(TableStats::new(table));
    let stop = CancellationToken::new();
    let worker = Worker::new(mapping, outlet, receiver.into(), bench.settings.subscribe(), stats);
    let running = tokio::spawn(worker.run(stop.clone(), stop.clone()));
    let bench = Bench { queue, ..bench };
    bench.send(1, 5).await;
    bench.pass(1_000).await;
    stop.cancel();
    let outcome = timeout(2 * grace(), running).await.expect("ends in time").unwrap();
    assert_eq!(outcome, Outcome::Abandoned { unsaved: 2 });
}

#[tokio::test(start_paused = true)]
async fn a_batch_larger_than_the_outlet_takes_leaves_piece_by_piece_in_order() {
    let bench = bench(UNSAVED, 1, 3).await;
    bench.broker.hold();
    bench.send(1, 10).await;
    for _ in 0..10 {
        bench.pass(1).await;
        assert!(bench.broker.pending(0) <= 3);
        bench.broker.acknowledge(0, 1);
    }
    let expected: Vec<_> = (0..10).map(|row| format!("1.{row}")).collect();
    assert_eq!(bench.broker.ids(), expected);
    bench.pass(2_000).await;
    assert_eq!(bench.saved(), Some(after(1)));
    let roomy = self::bench(UNSAVED, 1, 100).await;
    roomy.send(1, 10).await;
    roomy.pass(1).await;
    let bytes = |bench: &Bench| bench.stats.bytes.load(Relaxed);
    assert_eq!(bytes(&bench), bytes(&roomy), "a record that found no room at first counts once");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_waits_in_the_queue_is_late_although_all_that_was_published_is_acknowledged() {
    let bench = bench(3, 1, 100).await;
    let waits = || bench.stats.oldest_micros.load(Relaxed) > 0;
    let delivered = || bench.stats.delivery.cumulated().last().unwrap().1;
    bench.positions.fail(20);
    bench.send(1, 3).await;
    bench.send(2, 1).await;
    bench.pass(2_000).await;
    assert_eq!((bench.stats.in_flight.load(Relaxed), delivered(), waits()), (0, 3, true));
    bench.pass(20_000).await;
    assert_eq!((bench.saved(), delivered(), waits()), (Some(after(2)), 4, false));
    assert!(bench.stats.checkpoints.cumulated().last().unwrap().1 >= 2);
}

#[tokio::test(start_paused = true)]
async fn an_update_is_counted_and_ignored() {
    let watched = bench(UNSAVED, 1, 100).await;
    watched.give(Item::Updates(3)).await;
    watched.send(1, 1).await;
    watched.pass(2_000).await;
    assert_eq!((watched.stats.updates.load(Relaxed), watched.saved()), (3, Some(after(1))));
}

#[tokio::test(start_paused = true)]
async fn when_the_tail_has_ended_what_is_in_flight_is_saved_and_the_worker_waits_for_the_stop() {
    let Bench { broker, positions, table, queue, stop, running, .. } = {
        let bench = bench(UNSAVED, 1, 100).await;
        bench.broker.hold();
        bench.send(1, 1).await;
        bench
    };
    drop(queue);
    sleep(Duration::from_millis(1)).await;
    broker.release();
    sleep(Duration::from_millis(100)).await;
    assert_eq!(positions.position(&table), Some(after(1)));
    assert!(!running.is_finished());
    stop.cancel();
    assert_eq!(running.await.unwrap(), Outcome::Drained);
}

/// Given a refused event, when relays start again, then it is known until it is durable that it is set aside; and when it
/// is inserted anew, its cause cured, then it is delivered.
#[tokio::test(start_paused = true)]
async fn a_refused_event_is_known_no_longer_than_until_its_place_aside_is_durable() {
    for on_poison in [OnPoison::DeadLetter, OnPoison::Park] {
        let condemned = Condemned::default();
        let bench = bench(UNSAVED, 1, 100).await.succeeded(on_poison, &condemned).await;
        bench.broker.poison("t", "1.0", true);
        bench.send(1, 2).await;
        bench.pass(100).await;
        assert!(bench.running.is_finished() && !condemned.is_empty(), "it is refused");

        let bench = bench.succeeded(on_poison, &condemned).await;
        bench.broker.hold();
        bench.send(1, 2).await;
        bench.pass(10).await;
        assert_eq!(bench.broker.pending(0), 2, "it is set aside, and the other one follows");
        assert!(bench.broker.fail(0, &retriable()));
        bench.pass(100).await;
        assert!(bench.running.is_finished() && !condemned.is_empty(), "nothing of it has arrived");

        bench.broker.release();
        let bench = bench.succeeded(on_poison, &condemned).await;
        bench.send(1, 2).await;
        bench.pass(10).await;
        assert_eq!((bench.broker.ids().len(), condemned.is_empty()), (2, false), "a crash would bring it again");
        bench.pass(5_000).await;
        assert_eq!((bench.saved(), condemned.is_empty()), (Some(after(1)), true));

        bench.broker.poison("t", "1.0", false);
        bench.send_rows(2, vec![Insert::new("1.0", "0")]).await;
        bench.pass(5_000).await;
        let delivered: Vec<_> = bench.broker.delivered().into_iter().map(|record| (record.topic, record.id)).collect();
        // What is parked stays so until somebody releases it, and what follows of its aggregate with it.
        let (aside, anew) = if on_poison == OnPoison::Park {
            ("outboxd.parked.t", "outboxd.parked.t")
        } else {
            ("outboxd.dead.t", "t")
        };
        let expected = [(aside, "1.0"), ("t", "1.1"), (anew, "1.0")];
        assert_eq!(delivered, expected.map(|(topic, id)| (topic.to_owned(), id.to_owned())));
    }
}

/// Given a fault of the log, when not everything before its transaction is saved, then no place is told to go on from, for
/// that would skip events.
#[tokio::test(start_paused = true)]
async fn a_fault_tells_the_place_behind_its_transaction_only_once_everything_before_it_is_saved() {
    for (is_held, told) in [(false, format!("--to '{}'", after(2))), (true, "first outboxd retry".to_owned())] {
        let bench = bench(UNSAVED, 1, 100).await;
        if is_held {
            bench.broker.hold();
        }
        bench.send(1, 1).await;
        let fault = Fault { name: "statement_format", detail: "so it is".to_owned(), at: "there".to_owned() };
        bench.give(Item::Fault { fault, behind: Some(Arc::new(after(2))) }).await;
        let Outcome::Halted(halt) = bench.ended().await else { panic!("it halts") };
        assert_eq!((halt.name, halt.detail.contains(&told)), ("statement_format", true), "{halt}");
    }
}
