//! Reading the topic in which Kafka Connect keeps its connectors' offsets.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset, TopicPartitionList};

use super::consumer::{Isolation, consumer};
use super::settings::KafkaSettings;

/// The group that the client library asks for.
const GROUP: &str = "outboxd-import";

/// How long the cluster may take for one answer.
const ANSWER: Duration = Duration::from_secs(10);

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// Key and value of a record; a deleted key has no value.
pub type KeyedValue = (Vec<u8>, Option<Vec<u8>>);

/// Why a topic cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The cluster refuses, or does not answer.
    #[error("topic {topic}: {reason}")]
    Kafka {
        /// The topic.
        topic: String,
        /// What the client library says.
        reason: String,
    },
    /// It took too long.
    #[error("topic {topic} could not be read to its end within {}", humantime::format_duration(PATIENCE))]
    Slow {
        /// The topic.
        topic: String,
    },
}

/// Every record of a topic that is committed now, key and value; those of one key in their order. Blocks.
pub fn read(settings: &KafkaSettings, topic: &str) -> Result<Vec<KeyedValue>, ReadError> {
    let failed = |error: KafkaError| ReadError::Kafka { topic: topic.to_owned(), reason: error.to_string() };
    let consumer = consumer(settings, GROUP, Isolation::Committed).map_err(failed)?;
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER).map_err(failed)?;
    let mut partitions = TopicPartitionList::new();
    for found in metadata.topics() {
        if let Some(error) = found.error() {
            return Err(failed(KafkaError::MetadataFetch(error.into())));
        }
        for partition in found.partitions() {
            partitions.add_partition_offset(topic, partition.id(), Offset::Beginning).map_err(failed)?;
        }
    }
    consumer.assign(&partitions).map_err(failed)?;
    let (mut records, mut open) = (Vec::new(), partitions.count());
    let deadline = Instant::now() + PATIENCE;
    while open > 0 {
        if Instant::now() >= deadline {
            return Err(ReadError::Slow { topic: topic.to_owned() });
        }
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(error)) => return Err(failed(error)),
            Some(Ok(record)) => {
                records.extend(record.key().map(|key| (key.to_vec(), record.payload().map(<[u8]>::to_vec))));
            }
        }
    }
    Ok(records)
}
