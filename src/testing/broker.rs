//! Kafka in memory: partitions in order, acknowledgements when told, failures on command.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::lock;
use crate::outbox::Record;
use crate::outbox::aside::Unpacked;
use crate::outlet::{Chunk, DeliveryError, Event, Publish, PublishError, Rejection, Settled, Wanted};

/// A record as a consumer would see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// Topic.
    pub topic: String,
    /// Partition: the one that the record asks for, or that of its key.
    pub partition: usize,
    /// Key, as text.
    pub key: String,
    /// The header `id`, as text.
    pub id: String,
    /// Commit time in milliseconds since the Unix epoch.
    pub timestamp_millis: i64,
    /// Value and headers.
    pub content: Unpacked,
}

#[derive(Debug)]
struct Pending {
    publisher: usize,
    chunk: Chunk,
    record: Delivered,
}

#[derive(Debug, Default)]
struct Publisher {
    /// What it has written and not committed; `None` for one without transactions.
    open: Option<Vec<Pending>>,
    /// A commit is under way.
    committing: bool,
    handed: Vec<String>,
    in_flight: usize,
    settled: Vec<Settled>,
    failed: Option<DeliveryError>,
    news: Arc<Notify>,
    room: Arc<Notify>,
    /// A commit waits for it.
    written: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    held: bool,
    refusals: VecDeque<DeliveryError>,
    /// Topics whose records fail.
    failing: BTreeSet<String>,
    /// What ids begin with of which nothing is taken.
    blocked: BTreeSet<String>,
    /// Topics, and ids of events that they never take.
    poison: BTreeSet<(String, String)>,
    /// A publisher with more records in flight is busy.
    busy_beyond: usize,
    /// Publishers with lower numbers are spent.
    fresh: usize,
    partitions: Vec<VecDeque<Pending>>,
    publishers: Vec<Publisher>,
    delivered: Vec<Delivered>,
}

/// The broker. Clones are one. It acknowledges at once, until it is told to hold.
#[derive(Debug, Clone)]
pub struct MemoryBroker {
    state: Arc<Mutex<State>>,
}

impl MemoryBroker {
    /// Topics of so many partitions.
    pub fn new(partitions: usize) -> Self {
        let partitions = (0..partitions.max(1)).map(|_| VecDeque::new()).collect();
        let state = State {
            held: false,
            refusals: VecDeque::new(),
            failing: BTreeSet::new(),
            blocked: BTreeSet::new(),
            poison: BTreeSet::new(),
            busy_beyond: usize::MAX,
            fresh: 0,
            partitions,
            publishers: vec![],
            delivered: vec![],
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// A way in that takes at most `limit` records until some are settled.
    pub fn publisher(&self, limit: usize) -> MemoryPublisher {
        let mut state = lock(&self.state);
        state.publishers.push(Publisher::default());
        MemoryPublisher { broker: self.clone(), number: state.publishers.len() - 1, limit }
    }

    /// The same for transactions: what is acknowledged is seen by nobody until it is committed.
    pub fn transactional(&self, limit: usize) -> MemoryPublisher {
        let publisher = self.publisher(limit);
        lock(&self.state).publishers[publisher.number].open = Some(Vec::new());
        publisher
    }

    /// Publishers are busy from now on while more records are in flight.
    pub fn busy_beyond(&self, records: usize) {
        lock(&self.state).busy_beyond = records;
    }

    /// From now on records wait to be acknowledged on command.
    pub fn hold(&self) {
        lock(&self.state).held = true;
    }

    /// Acknowledges everything that waits, and from now on at once.
    pub fn release(&self) {
        lock(&self.state).held = false;
        for partition in 0..self.partitions() {
            self.acknowledge(partition, usize::MAX);
        }
    }

    /// Number of partitions.
    pub fn partitions(&self) -> usize {
        lock(&self.state).partitions.len()
    }

    /// Acknowledges the oldest `records` of a partition; returns how many there were.
    pub fn acknowledge(&self, partition: usize, records: usize) -> usize {
        let mut state = lock(&self.state);
        let count = records.min(state.partitions[partition].len());
        for _ in 0..count {
            state.acknowledge(partition);
        }
        count
    }

    /// The oldest record of a partition fails, and with it whatever its publisher has behind it there: a broker takes no
    /// record over a gap. Returns whether there was one.
    pub fn fail(&self, partition: usize, error: &DeliveryError) -> bool {
        let mut state = lock(&self.state);
        let Some(publisher) = state.partitions[partition].front().map(|pending| pending.publisher) else {
            return false;
        };
        let queue = std::mem::take(&mut state.partitions[partition]);
        let (failed, kept) = queue.into_iter().partition(|pending| pending.publisher == publisher);
        state.partitions[partition] = kept;
        let failed: VecDeque<Pending> = failed;
        for pending in failed {
            state.settle(pending.publisher, pending.chunk, Err(error.clone()));
        }
        true
    }

    /// The next record is refused when it is published.
    pub fn refuse(&self, error: DeliveryError) {
        lock(&self.state).refusals.push_back(error);
    }

    /// Records of this topic fail for now instead of being acknowledged.
    pub fn fail_topic(&self, topic: &str) {
        lock(&self.state).failing.insert(topic.to_owned());
    }

    /// The topic refuses the event of this id, and no other; or takes it from now on.
    pub fn poison(&self, topic: &str, id: &str, refused: bool) {
        let (mut state, poison) = (lock(&self.state), (topic.to_owned(), id.to_owned()));
        if refused {
            state.poison.insert(poison);
        } else {
            state.poison.remove(&poison);
        }
    }

    /// A new publisher would do better than those that there are.
    pub fn wear_out(&self) {
        let mut state = lock(&self.state);
        state.fresh = state.publishers.len();
    }

    /// Takes no record whose id begins like this, as if its publisher had too many in flight; or takes them again.
    pub fn block(&self, prefix: &str, blocked: bool) {
        let mut state = lock(&self.state);
        if blocked {
            state.blocked.insert(prefix.to_owned());
        } else if state.blocked.remove(prefix) {
            state.publishers.iter().for_each(|publisher| publisher.room.notify_one());
        }
    }

    /// The process with these publishers is gone. `arrived` says how many of the records that it has in flight to a
    /// partition still arrive.
    pub fn crash(&self, publishers: &[usize], mut arrived: impl FnMut(usize) -> usize) {
        let mut state = lock(&self.state);
        for partition in 0..state.partitions.len() {
            let queue = std::mem::take(&mut state.partitions[partition]);
            let (lost, kept): (VecDeque<_>, _) =
                queue.into_iter().partition(|pending| publishers.contains(&pending.publisher));
            state.partitions[partition] = kept;
            let (_, lost): (VecDeque<_>, VecDeque<_>) =
                lost.into_iter().partition(|pending| state.publishers[pending.publisher].open.is_some());
            let arrived = arrived(lost.len());
            state.delivered.extend(lost.into_iter().take(arrived).map(|pending| pending.record));
        }
    }

    /// Records that wait in a partition.
    pub fn pending(&self, partition: usize) -> usize {
        lock(&self.state).partitions[partition].len()
    }

    /// What arrived, in order.
    pub fn delivered(&self) -> Vec<Delivered> {
        lock(&self.state).delivered.clone()
    }

    /// The ids of what arrived, in order.
    pub fn ids(&self) -> Vec<String> {
        lock(&self.state).delivered.iter().map(|record| record.id.clone()).collect()
    }

    /// The ids that each publisher handed over, in order, by the publishers' age.
    pub fn handed(&self) -> Vec<Vec<String>> {
        lock(&self.state).publishers.iter().map(|publisher| publisher.handed.clone()).collect()
    }
}

impl State {
    fn acknowledge(&mut self, partition: usize) {
        let Some(pending) = self.partitions[partition].pop_front() else { return };
        if self.failing.contains(&pending.record.topic) {
            let error = DeliveryError::retriable(&pending.record.topic, "on command");
            return self.settle(pending.publisher, pending.chunk, Err(error));
        }
        if self.poison.contains(&(pending.record.topic.clone(), pending.record.id.clone())) {
            return self.refuse(partition, &pending);
        }
        let publisher = &mut self.publishers[pending.publisher];
        if let Some(open) = &mut publisher.open {
            open.push(pending);
            publisher.in_flight -= 1;
            publisher.written.notify_one();
            publisher.room.notify_one();
            return;
        }
        self.delivered.push(pending.record);
        self.settle(pending.publisher, pending.chunk, Ok(()));
    }

    /// An event is refused, and what its publisher has behind it there fails with it, as over a gap.
    fn refuse(&mut self, partition: usize, pending: &Pending) {
        let Delivered { topic, key, id, .. } = &pending.record;
        let (name, cure, reason) = ("record_too_large", "make it smaller", "on command".to_owned());
        let refusal = Rejection { name, topic: topic.clone(), reason, cure };
        let event = Event { key: key.as_bytes().to_vec(), id: id.as_bytes().to_vec() };
        let error = DeliveryError::Poison { refusal, event: Some(Box::new(event)) };
        self.settle(pending.publisher, pending.chunk, Err(error));
        if self.publishers[pending.publisher].open.is_some() {
            return;
        }
        let queue = std::mem::take(&mut self.partitions[partition]);
        let (behind, kept): (VecDeque<_>, _) =
            queue.into_iter().partition(|other| other.publisher == pending.publisher);
        self.partitions[partition] = kept;
        for other in behind {
            self.settle(other.publisher, other.chunk, Err(DeliveryError::retriable(topic, "over a gap")));
        }
    }

    /// A transaction is given up: all of its records have failed, and none is taken any more.
    fn give_up(&mut self, number: usize, error: &DeliveryError) {
        let publisher = &mut self.publishers[number];
        let mut lost = publisher.open.as_mut().map(std::mem::take).unwrap_or_default();
        for partition in &mut self.partitions {
            let (own, kept) = std::mem::take(partition).into_iter().partition(|pending| pending.publisher == number);
            *partition = kept;
            let own: VecDeque<Pending> = own;
            lost.extend(own);
        }
        let publisher = &mut self.publishers[number];
        (publisher.in_flight, publisher.committing) = (0, false);
        publisher.failed = publisher.failed.take().or_else(|| Some(error.clone()));
        let failed = |pending: Pending| Settled { chunk: pending.chunk, records: 1, outcome: Err(error.clone()) };
        publisher.settled.extend(lost.into_iter().map(failed));
        publisher.written.notify_one();
        publisher.news.notify_one();
        publisher.room.notify_one();
    }

    fn settle(&mut self, publisher: usize, chunk: Chunk, outcome: Result<(), DeliveryError>) {
        if let (Some(_), Err(error)) = (&self.publishers[publisher].open, &outcome) {
            let (error, settled) = (error.clone(), Settled { chunk, records: 1, outcome });
            self.publishers[publisher].settled.push(settled);
            return self.give_up(publisher, &error);
        }
        let publisher = &mut self.publishers[publisher];
        publisher.in_flight -= 1;
        publisher.failed = publisher.failed.take().or_else(|| outcome.clone().err());
        publisher.settled.push(Settled { chunk, records: 1, outcome });
        publisher.news.notify_one();
        publisher.room.notify_one();
    }
}

/// One table's way into the broker.
#[derive(Debug, Clone)]
pub struct MemoryPublisher {
    broker: MemoryBroker,
    number: usize,
    limit: usize,
}

impl MemoryPublisher {
    /// Publishers are numbered from 0 as they are made.
    pub fn number(&self) -> usize {
        self.number
    }

    /// A commit begins: nothing is taken until it has ended.
    pub(super) fn close(&self) {
        lock(&self.broker.state).publishers[self.number].committing = true;
    }

    /// Waits until everything that was taken is written.
    pub(super) async fn written(&self) -> Result<(), DeliveryError> {
        loop {
            let written = {
                let state = lock(&self.broker.state);
                let publisher = &state.publishers[self.number];
                if let Some(error) = &publisher.failed {
                    return Err(error.clone());
                }
                if publisher.in_flight == 0 {
                    return Ok(());
                }
                Arc::clone(&publisher.written)
            };
            written.notified().await;
        }
    }

    /// What is written is seen by everybody from now on.
    pub(super) fn commit(&self) {
        let mut state = lock(&self.broker.state);
        let publisher = &mut state.publishers[self.number];
        publisher.committing = false;
        let open = publisher.open.as_mut().map(std::mem::take).unwrap_or_default();
        let settled = open.iter().map(|pending| Settled { chunk: pending.chunk, records: 1, outcome: Ok(()) });
        publisher.settled.extend(settled);
        publisher.news.notify_one();
        publisher.room.notify_one();
        state.delivered.extend(open.into_iter().map(|pending| pending.record));
    }

    /// The transaction is given up.
    pub(super) fn abort(&self, error: &DeliveryError) {
        lock(&self.broker.state).give_up(self.number, error);
    }
}

impl Publish for MemoryPublisher {
    fn publish(&self, record: &Record<'_>, chunk: Chunk) -> Result<(), PublishError> {
        let mut state = lock(&self.broker.state);
        if let Some(error) = &state.publishers[self.number].failed {
            return Err(PublishError::Refused(error.clone()));
        }
        let publisher = &state.publishers[self.number];
        if publisher.in_flight >= self.limit || publisher.committing {
            return Err(PublishError::Full);
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let id = record.headers.iter().find(|header| header.name == "id").and_then(|header| header.value);
        let id = id.map_or_else(String::new, text);
        if state.blocked.iter().any(|prefix| id.starts_with(prefix)) {
            return Err(PublishError::Full);
        }
        if let Some(error) = state.refusals.pop_front() {
            let alone = matches!(error, DeliveryError::Poison { .. });
            if state.publishers[self.number].open.is_some() && !alone {
                state.give_up(self.number, &error);
            }
            return Err(PublishError::Refused(error));
        }
        let hash = record.key.iter().fold(7_usize, |hash, &byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        let headers = record.headers.iter().map(|header| (header.name, header.value));
        let given = record.partition.and_then(|partition| usize::try_from(partition).ok());
        let partition = given.unwrap_or(hash) % state.partitions.len();
        let record = Delivered {
            topic: record.topic.to_owned(),
            partition,
            key: text(record.key),
            id,
            timestamp_millis: record.timestamp_millis,
            content: Unpacked {
                value: record.value.map(<[u8]>::to_vec),
                headers: headers.map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec))).collect(),
            },
        };
        let publisher = &mut state.publishers[self.number];
        publisher.handed.push(record.id.clone());
        publisher.in_flight += 1;
        state.partitions[partition].push_back(Pending { publisher: self.number, chunk, record });
        if !state.held {
            state.acknowledge(partition);
        }
        Ok(())
    }

    fn is_busy(&self) -> bool {
        let state = lock(&self.broker.state);
        state.publishers[self.number].in_flight > state.busy_beyond
    }

    fn is_spent(&self) -> bool {
        self.number < lock(&self.broker.state).fresh
    }

    fn read(&self, wanted: Wanted) -> impl Future<Output = Result<Vec<Unpacked>, String>> + Send + 'static {
        let matches = |record: &&Delivered| {
            wanted.topics.contains(&record.topic)
                && record.key.as_bytes() == wanted.key
                && wanted.headers.iter().all(|(name, value)| record.content.text(name) == Some(value))
        };
        let state = lock(&self.broker.state);
        let found = state.delivered.iter().filter(matches).map(|record| record.content.clone()).collect();
        std::future::ready(Ok(found))
    }

    fn room(&self) -> impl Future<Output = ()> + Send + 'static {
        let room = Arc::clone(&lock(&self.broker.state).publishers[self.number].room);
        async move { room.notified().await }
    }

    async fn settled(&self, into: &mut Vec<Settled>) {
        loop {
            let news = {
                let mut state = lock(&self.broker.state);
                let publisher = &mut state.publishers[self.number];
                if !publisher.settled.is_empty() {
                    into.append(&mut publisher.settled);
                    return;
                }
                Arc::clone(&publisher.news)
            };
            news.notified().await;
        }
    }
}
