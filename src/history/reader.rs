//! Topics, read back.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::select_all;
use rdkafka::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::metadata::MetadataPartition;
use rdkafka::{Offset, TopicPartitionList};
use tokio::time::{Instant, timeout_at};

use super::fingerprint::Fingerprint;
use super::verdict::{Delivered, Place};

/// How long the brokers may take to describe a topic.
const METADATA: Duration = Duration::from_secs(10);

/// Which records a reader sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// All, those of open and aborted transactions too.
    ReadUncommitted,
    /// Only those of committed transactions, and those outside of transactions.
    ReadCommitted,
}

impl Isolation {
    const fn name(self) -> &'static str {
        match self {
            Self::ReadUncommitted => "read_uncommitted",
            Self::ReadCommitted => "read_committed",
        }
    }
}

/// What to read.
#[derive(Debug, Clone)]
pub struct ReaderSettings {
    /// Where Kafka is.
    pub bootstrap_servers: String,
    /// The topics, all of their partitions.
    pub topics: Vec<String>,
    /// Which records to see.
    pub isolation: Isolation,
}

/// Why reading came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Kafka says no.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// There is no such topic.
    #[error("topic {0} does not exist")]
    NoTopic(String),
    /// The end was not reached in time.
    #[error("the end of topic {topic} was not reached in time; the last trouble: {trouble}")]
    Deadline {
        /// The topic.
        topic: String,
        /// What went wrong last.
        trouble: String,
    },
    /// A task ended unexpectedly.
    #[error("the reading task ended unexpectedly: {0}")]
    Task(String),
}

/// What was read so far.
#[derive(Debug, Default)]
pub struct Seen {
    records: Vec<Delivered>,
    ids: HashSet<Arc<str>>,
}

impl Seen {
    /// The records; those of one partition are in order.
    pub fn records(&self) -> &[Delivered] {
        &self.records
    }

    /// Whether an event was read.
    pub fn contains(&self, event_id: &str) -> bool {
        self.ids.contains(event_id)
    }
}

/// One topic. Each has a consumer of its own, because the end of a partition is told without the topic's name.
struct Source {
    topic: Arc<str>,
    consumer: Arc<StreamConsumer>,
    next: HashMap<i32, i64>,
}

/// Reads topics from their beginning on, and keeps what it read.
pub struct Reader {
    sources: Vec<Source>,
    seen: Seen,
}

impl Reader {
    /// A reader at the beginning of its topics. Joins no group and commits no offsets.
    pub fn new(settings: &ReaderSettings) -> Result<Self, ReadError> {
        let mut sources = Vec::new();
        for topic in &settings.topics {
            let consumer: StreamConsumer = ClientConfig::new()
                .set("bootstrap.servers", &settings.bootstrap_servers)
                .set("group.id", "outboxd-history")
                .set("enable.auto.commit", "false")
                .set("enable.auto.offset.store", "false")
                .set("enable.partition.eof", "true")
                .set("auto.offset.reset", "earliest")
                .set("allow.auto.create.topics", "false")
                .set("isolation.level", settings.isolation.name())
                .set("fetch.wait.max.ms", "50")
                .create()?;
            sources.push(Source { topic: topic.as_str().into(), consumer: Arc::new(consumer), next: HashMap::new() });
        }
        Ok(Self { sources, seen: Seen::default() })
    }

    /// What was read so far.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Everything that was read.
    pub fn into_records(self) -> Vec<Delivered> {
        self.seen.records
    }

    /// Goes on reading until every partition was read up to where it ended when, or after, this call began.
    pub async fn read_to_end(&mut self, deadline: Instant) -> Result<(), ReadError> {
        for source in &mut self.sources {
            // Assigned anew, so that no end that was announced before is taken for the present one.
            let mut open: HashSet<i32> = source.assign(deadline).await?;
            let mut trouble = "none".to_owned();
            while !open.is_empty() {
                match timeout_at(deadline, source.consumer.recv()).await {
                    Ok(Ok(message)) => take(&message, &source.topic, &mut source.next, &mut self.seen),
                    Ok(Err(KafkaError::PartitionEOF(partition))) => {
                        open.remove(&partition);
                    }
                    Ok(Err(error)) => trouble = error.to_string(),
                    Err(_) => return Err(ReadError::Deadline { topic: source.topic.to_string(), trouble }),
                }
            }
        }
        Ok(())
    }

    /// Goes on reading until the condition holds, which is asked before the first and after each record. Gives whether it
    /// held before the deadline. Brokers that are away are waited for.
    pub async fn read_until(
        &mut self,
        deadline: Instant,
        mut condition: impl FnMut(&Seen) -> bool,
    ) -> Result<bool, ReadError> {
        for source in &mut self.sources {
            source.assign(deadline).await?;
        }
        let consumers: Vec<_> = self.sources.iter().map(|source| Arc::clone(&source.consumer)).collect();
        let streams = consumers.iter().enumerate();
        let mut messages =
            select_all(streams.map(|(index, consumer)| consumer.stream().map(move |next| (index, next))));
        while !condition(&self.seen) {
            match timeout_at(deadline, messages.next()).await {
                Ok(Some((index, Ok(message)))) => {
                    let source = &mut self.sources[index];
                    take(&message, &source.topic, &mut source.next, &mut self.seen);
                }
                Ok(Some((_, Err(KafkaError::PartitionEOF(_))))) => {}
                Ok(Some((_, Err(error)))) => tracing::debug!(%error, "reader waits"),
                Ok(None) | Err(_) => return Ok(condition(&self.seen)),
            }
        }
        Ok(true)
    }
}

impl Source {
    /// Assigns all partitions there are from the next record on, and gives them.
    async fn assign(&mut self, deadline: Instant) -> Result<HashSet<i32>, ReadError> {
        let partitions = loop {
            match self.partitions().await {
                Ok(partitions) => break partitions,
                Err(error) if Instant::now() + METADATA / 50 >= deadline => return Err(error),
                Err(error) => tracing::debug!(%error, "reader waits for its topic"),
            }
            tokio::time::sleep(METADATA / 50).await;
        };
        let mut list = TopicPartitionList::new();
        for partition in &partitions {
            let offset = self.next.get(partition).map_or(Offset::Beginning, |next| Offset::Offset(*next));
            list.add_partition_offset(&self.topic, *partition, offset)?;
        }
        self.consumer.assign(&list)?;
        Ok(partitions)
    }

    async fn partitions(&self) -> Result<HashSet<i32>, ReadError> {
        let (consumer, topic) = (Arc::clone(&self.consumer), Arc::clone(&self.topic));
        let asked = tokio::task::spawn_blocking(move || {
            let metadata = consumer.fetch_metadata(Some(&topic), METADATA)?;
            let described = metadata.topics().iter().find(|described| described.name() == &*topic);
            let partitions =
                described.map(|described| described.partitions().iter().map(MetadataPartition::id).collect());
            partitions.filter(|ids: &HashSet<i32>| !ids.is_empty()).ok_or_else(|| ReadError::NoTopic(topic.to_string()))
        });
        asked.await.map_err(|error| ReadError::Task(error.to_string()))?
    }
}

/// Keeps one record; one that was read before is left out.
fn take(message: &BorrowedMessage<'_>, topic: &Arc<str>, next: &mut HashMap<i32, i64>, seen: &mut Seen) {
    let (partition, offset) = (message.partition(), message.offset());
    let expected = next.entry(partition).or_insert(0);
    if offset < *expected {
        return;
    }
    *expected = offset + 1;
    let header = |name: &str| {
        let found = message.headers().and_then(|headers| headers.iter().find(|header| header.key == name));
        text(found.and_then(|header| header.value))
    };
    let sequence = |bytes| serde_json::from_slice::<Numbered>(bytes).ok().and_then(|payload| payload.sequence);
    let record = Delivered {
        place: Place { topic: Arc::clone(topic), partition, offset },
        key: text(message.key()),
        event_id: header("id"),
        event_type: header("eventType"),
        payload: Fingerprint::of(message.payload()),
        payload_sequence: message.payload().and_then(sequence),
        timestamp_millis: message.timestamp().to_millis(),
    };
    if !record.event_id.is_empty() {
        seen.ids.insert(Arc::clone(&record.event_id));
    }
    seen.records.push(record);
}

/// The only member of a payload that is looked at.
#[derive(serde::Deserialize)]
struct Numbered {
    sequence: Option<u64>,
}

fn text(bytes: Option<&[u8]>) -> Arc<str> {
    bytes.map(String::from_utf8_lossy).unwrap_or_default().into()
}
