//! Reading the topic of positions.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::metadata::MetadataTopic;
use rdkafka::{Message, Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::Entry;
use crate::kafka::consumer::{Isolation, consumer};
use crate::kafka::error::{Cure, Verdict, judge};
use crate::kafka::settings::KafkaSettings;
use crate::position::StoreError;
use crate::table::TableName;

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long the cluster may take for one answer.
const ANSWER: Duration = Duration::from_secs(5);

/// How long a glance is.
const GLANCE: Duration = Duration::from_secs(1);

/// How often it is looked whether transactions have ended.
const AGAIN: Duration = Duration::from_millis(10);

/// The group that the client library asks for; nothing is ever committed to it.
const GROUP: &str = "outboxd-positions";

/// Positions are in this partition, whatever others there are.
const PARTITION: i32 = 0;

/// The newest value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    value: Vec<u8>,
    /// When it was written, in milliseconds since the Unix epoch, by the writer's clock.
    pub(super) millis: u64,
}

impl Stored {
    pub(super) fn entry(&self, table: &TableName) -> Result<Entry, StoreError> {
        serde_json::from_slice(&self.value).map_err(|error| {
            StoreError::unreadable(table, format_args!("the record's value is no JSON of an entry: {error}"))
        })
    }
}

/// The newest values by key.
pub(super) type Log = BTreeMap<String, Stored>;

/// What becomes of transactions that are still open where positions are: what they wrote is hidden until they have ended,
/// and so is what comes after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpenOnes {
    /// They are waited for.
    Await,
    /// They are waited for a moment, in which those end that are about to.
    Glance,
}

/// Reads everything that is committed, unless it is given up. Blocks.
pub(super) fn read(
    settings: &KafkaSettings,
    topic: &str,
    open: OpenOnes,
    given_up: &CancellationToken,
) -> Result<Log, StoreError> {
    let deadline = Instant::now() + PATIENCE;
    let is_late = || Instant::now() >= deadline || given_up.is_cancelled();
    let failed = |error: KafkaError| match error.rdkafka_error_code() {
        Some(Code::TopicAuthorizationFailed) => StoreError::Refused(format!(
            "kafka-acls.sh --add --operation Read --operation Write --operation Describe --topic {topic}, for the account"
        )),
        Some(Code::GroupAuthorizationFailed) => {
            StoreError::Refused(format!("kafka-acls.sh --add --operation Read --group {GROUP}, for the account"))
        }
        Some(code)
            if let Verdict::Halt(Cure { name, cure }) = judge(code)
                && name != "topic_missing" =>
        {
            StoreError::Refused(format!("{error}; {cure}"))
        }
        _ => StoreError::Unavailable(error.to_string()),
    };
    let reader = consumer(settings, GROUP, Isolation::Committed).map_err(failed)?;
    // Asked for first, for the questions after it wait for a topic to appear.
    let metadata = reader.fetch_metadata(Some(topic), ANSWER).map_err(failed)?;
    match metadata.topics().iter().find_map(MetadataTopic::error).map(Code::from) {
        None => {}
        Some(Code::UnknownTopicOrPartition) => {
            let missing = format!("topic {topic} is not there; `outboxd check` says how to create it");
            // A broker that has just come back may not know it yet. It was there when the daemon started.
            return Err(match open {
                OpenOnes::Await => StoreError::Unavailable(missing),
                OpenOnes::Glance => StoreError::Refused(missing),
            });
        }
        Some(code) => return Err(failed(KafkaError::MetadataFetch(code))),
    }
    let all = consumer(settings, GROUP, Isolation::Uncommitted).map_err(failed)?;
    let (_, end) = all.fetch_watermarks(topic, PARTITION, ANSWER).map_err(failed)?;
    let glance = Instant::now() + GLANCE;
    // With this isolation, the end is where the oldest open transaction begins.
    let (begin, stable) = loop {
        let (begin, stable) = reader.fetch_watermarks(topic, PARTITION, ANSWER).map_err(failed)?;
        if stable >= end || open == OpenOnes::Glance && Instant::now() >= glance {
            break (begin, stable);
        }
        if is_late() {
            let reason = format!("a transaction of another table has been open in topic {topic} for {PATIENCE:?}");
            return Err(StoreError::Unavailable(reason));
        }
        sleep(AGAIN);
    };
    let mut log = Log::new();
    if begin == stable {
        return Ok(log);
    }
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(topic, PARTITION, Offset::Beginning).map_err(failed)?;
    reader.assign(&partitions).map_err(failed)?;
    while !is_late() {
        match reader.poll(Duration::from_millis(100)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(log),
            Some(Err(error)) => return Err(failed(error)),
            Some(Ok(message)) => {
                let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
                let millis = message.timestamp().to_millis().and_then(|millis| u64::try_from(millis).ok());
                match message.payload() {
                    Some(value) => log.insert(key, Stored { value: value.to_vec(), millis: millis.unwrap_or(0) }),
                    None => log.remove(&key),
                };
                // Where others write all the time there is no end.
                if message.offset() + 1 >= stable {
                    return Ok(log);
                }
            }
        }
    }
    Err(StoreError::Unavailable(format!("reading topic {topic} takes longer than {PATIENCE:?}")))
}
