//! What is in a topic: how much, and whether it is what was written.

use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use crate::stage::PARTITIONS;
use crate::workload::parse_id;

const PATIENCE: Duration = Duration::from_mins(1);

fn consumer(kafka: &str, committed: bool) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .set("group.id", "benchmark")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", if committed { "read_committed" } else { "read_uncommitted" })
        .set("fetch.wait.max.ms", "100")
        .set("queued.max.messages.kbytes", "65536")
        .create()
        .unwrap()
}

/// A consumer of every partition from the beginning.
pub(crate) fn reader(kafka: &str, topic: &str, committed: bool) -> BaseConsumer {
    let consumer = consumer(kafka, committed);
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&all).unwrap();
    consumer
}

/// Asks how many records a topic has. Those of transactions count their ends too.
pub(crate) struct Ends {
    consumer: BaseConsumer,
    topic: String,
}

impl Ends {
    pub(crate) fn of(kafka: &str, topic: &str) -> Self {
        Self { consumer: consumer(kafka, false), topic: topic.to_owned() }
    }

    pub(crate) fn count(&self) -> u64 {
        let end = |partition| self.consumer.fetch_watermarks(&self.topic, partition, PATIENCE).unwrap().1;
        (0..PARTITIONS).map(|partition| end(partition).unsigned_abs()).sum()
    }
}

/// The table and the number of a record's event, by its header `id`.
pub(crate) fn event(message: &BorrowedMessage<'_>) -> Option<(usize, u64)> {
    let headers = message.headers()?;
    headers.iter().find(|header| header.key == "id").and_then(|header| parse_id(header.value?))
}

/// Calls `with` for every record until the end of every partition.
pub(crate) fn read_all(kafka: &str, topic: &str, committed: bool, mut with: impl FnMut(&BorrowedMessage<'_>)) {
    let reader = reader(kafka, topic, committed);
    let mut ended = 0;
    let mut heard = Instant::now();
    while ended < PARTITIONS {
        match reader.poll(Duration::from_millis(100)) {
            None => {
                assert!(heard.elapsed() < PATIENCE, "{topic}: nothing comes");
                continue;
            }
            Some(Ok(message)) => with(&message),
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(error)) => panic!("{topic}: {error}"),
        }
        heard = Instant::now();
    }
}

/// What a topic has to hold: of each table the events with these numbers.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    pub(crate) tables: Vec<std::ops::Range<u64>>,
    /// Whether a consumer is promised each of them once.
    pub(crate) once: bool,
}

impl Expected {
    pub(crate) fn count(&self) -> u64 {
        self.tables.iter().map(|numbers| numbers.end - numbers.start).sum()
    }
}

/// What was found.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Found {
    pub(crate) duplicates: u64,
    /// The mean length of a value, in bytes.
    pub(crate) value: f64,
}

/// Reads a topic through: every event has to be there, those of one table in the order of their commits within each
/// partition, duplicates aside. Panics otherwise.
pub(crate) fn check(kafka: &str, topic: &str, expected: &Expected) -> Found {
    let mut seen: Vec<Vec<bool>> = expected
        .tables
        .iter()
        .map(|numbers| vec![false; usize::try_from(numbers.end - numbers.start).unwrap()])
        .collect();
    let mut last = vec![vec![None; seen.len()]; usize::try_from(PARTITIONS).unwrap()];
    let (mut found, mut bytes, mut records) = (Found::default(), 0, 0_u64);
    read_all(kafka, topic, expected.once, |message| {
        let Some((table, number)) = event(message) else { panic!("{topic}: a record without an event's id") };
        // Others than those that are measured, such as those that were to warm up.
        let Some(numbers) = expected.tables.get(table).filter(|numbers| numbers.contains(&number)) else { return };
        let place = &mut seen[table][usize::try_from(number - numbers.start).unwrap()];
        records += 1;
        bytes += message.payload_len();
        if std::mem::replace(place, true) {
            found.duplicates += 1;
            return;
        }
        let last = &mut last[usize::try_from(message.partition()).unwrap()][table];
        assert!(last.is_none_or(|last| last < number), "{topic}: event {number} of table {table} is out of order");
        *last = Some(number);
    });
    let missing = seen.iter().flatten().filter(|seen| !**seen).count();
    assert_eq!(missing, 0, "{topic}: events are missing, of {}", expected.count());
    assert!(!expected.once || found.duplicates == 0, "{topic}: {} duplicates in exactly once", found.duplicates);
    #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
    {
        found.value = bytes as f64 / records.max(1) as f64;
    }
    found
}
