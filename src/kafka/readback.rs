//! Topics, read back: every committed record from a place on, up to where the topic ended at first.
//!
//! Promise: nothing between the two is left out. What a topic has lost is told, by partition.

use std::collections::BTreeMap;
use std::io;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::{Message, Offset, TopicPartitionList};
use tokio::task::{JoinError, spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::consumer::{Consumer, Isolation, consumer};
use super::preflight::{Described, describe};
use super::producer::hashed;
use super::settings::KafkaSettings;
use crate::outbox::{AGAIN_HEADERS, SNAPSHOT_HEADER, STANDARD_HEADERS, TopicTemplate};

/// How long the cluster may take for one answer.
const ANSWER: Duration = Duration::from_secs(10);

/// How long nothing may come, and how long open transactions in front of the end are waited for.
const PATIENCE: Duration = Duration::from_mins(2);

/// How often it is looked whether transactions have ended.
const AGAIN: Duration = Duration::from_millis(50);

/// The group that the client library asks for.
const GROUP: &str = "outboxd-verify";

/// Why a topic cannot be read back.
#[derive(Debug, thiserror::Error)]
pub enum ReadbackError {
    /// The cluster does not answer, or refuses.
    #[error("kafka: {0}")]
    Kafka(String),
    /// Retention was faster than the reading.
    #[error("kafka: topic {0} lost records while they were read; read it again")]
    Expired(String),
    /// What takes the records in cannot.
    #[error(transparent)]
    Taking(#[from] io::Error),
}

impl From<KafkaError> for ReadbackError {
    fn from(error: KafkaError) -> Self {
        match error.rdkafka_error_code() {
            Some(Code::TopicAuthorizationFailed) => {
                Self::Kafka(format!("{error}; grant READ and DESCRIBE on the topics"))
            }
            Some(Code::GroupAuthorizationFailed) => Self::Kafka(format!("{error}; grant READ on group {GROUP}")),
            _ => Self::Kafka(error.to_string()),
        }
    }
}

/// A topic, from where it begins to where it ends.
#[derive(Debug, Clone)]
pub struct Extent {
    /// Its name.
    pub topic: String,
    /// First and last offset of each partition; the last one is the next record's.
    pub partitions: Vec<(i64, i64)>,
    /// Older records of a key may be gone.
    pub compacted: bool,
    /// Timestamps are those of the broker, not those of the records.
    pub has_append_times: bool,
}

impl Extent {
    /// The partition that a key's records go to.
    pub fn partition_of(&self, key: &[u8]) -> Option<i32> {
        i32::try_from(hashed(key, self.partitions.len())).ok()
    }

    /// Offsets in front of the end; there may be fewer records.
    pub fn len(&self) -> u64 {
        self.partitions.iter().map(|(begin, end)| end.saturating_sub(*begin).unsigned_abs()).sum()
    }

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One record.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Timestamp in milliseconds since the Unix epoch.
    pub millis: i64,
    /// Key; empty if there is none.
    pub key: &'a [u8],
    /// The event's id; empty if there is none.
    pub id: &'a [u8],
    /// Whether it says of itself that it was published out of its turn.
    pub again: bool,
    /// Whether it says of itself that its row was read in the table.
    pub scanned: bool,
}

/// The extents, as of now, of the topics that are there.
pub async fn extents(settings: &KafkaSettings, wanted: &[TopicTemplate]) -> Result<Vec<Extent>, ReadbackError> {
    let described = describe(settings, wanted).await.map_err(|error| ReadbackError::Kafka(error.reason))?;
    let settings = settings.clone();
    let asked = spawn_blocking(move || {
        // Everything that is acknowledged is in front of this end, also behind transactions that are open.
        let reader = consumer(&settings, GROUP, Isolation::Uncommitted)?;
        described.into_iter().map(|topic| extent(&reader, topic)).collect()
    });
    asked.await.unwrap_or_else(|error| Err(ReadbackError::Kafka(error.to_string())))
}

fn extent(reader: &Consumer, Described { name, partitions, settings }: Described) -> Result<Extent, ReadbackError> {
    let count = i32::try_from(partitions).unwrap_or(i32::MAX);
    let ends = (0..count).map(|partition| reader.fetch_watermarks(&name, partition, ANSWER));
    let partitions = ends.collect::<Result<_, _>>()?;
    let is = |key: &str, value: &str| {
        settings.as_ref().and_then(|all| all.get(key)).is_some_and(|found| found.contains(value))
    };
    let (compacted, has_append_times) =
        (is("cleanup.policy", "compact"), is("message.timestamp.type", "LogAppendTime"));
    Ok(Extent { topic: name, partitions, compacted, has_append_times })
}

/// Does what blocks on a thread of its own, which is told when nobody waits for the outcome any more: the process does not end
/// before the thread does.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce(&CancellationToken) -> T + Send + 'static,
) -> Result<T, JoinError> {
    let given_up = CancellationToken::new();
    let _guard = given_up.clone().drop_guard();
    spawn_blocking(move || work(&given_up)).await
}

/// Reads a topic up to its end, from `since` in milliseconds since the Unix epoch, or from its beginning. Gives, for each
/// partition that has lost what would have come before, the timestamp of the first record that was there in its turn;
/// `i64::MAX` where there was none. Each partition's records come in their order. Blocks until all is read, or given up.
pub fn read(
    settings: &KafkaSettings,
    extent: &Extent,
    since: Option<i64>,
    given_up: &CancellationToken,
    mut each: impl FnMut(&Seen<'_>, &BorrowedMessage<'_>) -> io::Result<()>,
) -> Result<Vec<Option<i64>>, ReadbackError> {
    let consumer = consumer(settings, GROUP, Isolation::Committed)?;
    let mut reading = Reading::open(&consumer, extent, since, given_up)?;
    let mut heard = Instant::now();
    while !reading.left.is_empty() {
        if given_up.is_cancelled() {
            return Err(ReadbackError::Kafka(format!("topic {}: given up", extent.topic)));
        }
        match consumer.poll(Duration::from_millis(100)) {
            None if heard.elapsed() >= PATIENCE => {
                return Err(ReadbackError::Kafka(format!("topic {}: nothing came for {PATIENCE:?}", extent.topic)));
            }
            None => continue,
            Some(Ok(message)) => {
                if reading.take(&message, &mut each)? {
                    let mut done = TopicPartitionList::new();
                    done.add_partition(&extent.topic, message.partition());
                    consumer.pause(&done)?;
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                reading.left.remove(&partition);
            }
            Some(Err(error)) => match error.rdkafka_error_code() {
                Some(Code::OffsetOutOfRange | Code::AutoOffsetReset) => {
                    return Err(ReadbackError::Expired(extent.topic.clone()));
                }
                Some(Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed) => return Err(error.into()),
                // Brokers come back.
                _ => continue,
            },
        }
        heard = Instant::now();
    }
    Ok(reading.horizons)
}

struct Reading {
    /// Where each partition ends that is not read yet.
    left: BTreeMap<i32, i64>,
    horizons: Vec<Option<i64>>,
}

impl Reading {
    fn open(
        consumer: &Consumer,
        extent: &Extent,
        since: Option<i64>,
        given_up: &CancellationToken,
    ) -> Result<Self, ReadbackError> {
        let (mut left, mut horizons) = (BTreeMap::new(), Vec::new());
        let mut list = TopicPartitionList::new();
        let starts = starts(consumer, extent, since)?;
        for ((partition, &(begin, end)), start) in (0..).zip(&extent.partitions).zip(starts) {
            horizons.push((begin > 0 && start == begin).then_some(i64::MAX));
            if start < end {
                left.insert(partition, end);
                list.add_partition_offset(&extent.topic, partition, Offset::Offset(start))?;
            }
        }
        await_open_transactions(consumer, extent, &left, given_up)?;
        consumer.assign(&list)?;
        Ok(Self { left, horizons })
    }

    /// Takes a record in; gives whether it ends its partition.
    fn take<M: Message>(
        &mut self,
        message: &M,
        each: &mut impl FnMut(&Seen<'_>, &M) -> io::Result<()>,
    ) -> io::Result<bool> {
        let (partition, offset) = (message.partition(), message.offset());
        let Some(end) = self.left.get(&partition).copied() else { return Ok(false) };
        if offset < end {
            let millis = message.timestamp().to_millis().unwrap_or_default();
            let headers = || message.headers().into_iter().flat_map(Headers::iter);
            let again = headers().any(|header| AGAIN_HEADERS.contains(&header.key));
            let horizon = usize::try_from(partition).ok().and_then(|partition| self.horizons.get_mut(partition));
            // What was published out of its turn has a time of long ago: what was lost in front of it may be newer.
            if let Some(Some(horizon)) = horizon
                && *horizon == i64::MAX
                && !again
            {
                *horizon = millis;
            }
            let [id, _] = STANDARD_HEADERS;
            let seen = Seen {
                partition,
                offset,
                millis,
                key: message.key().unwrap_or_default(),
                id: headers().find(|header| header.key == id).and_then(|header| header.value).unwrap_or_default(),
                again,
                scanned: headers().any(|header| header.key == SNAPSHOT_HEADER),
            };
            each(&seen, message)?;
        }
        let ends = offset + 1 >= end;
        if ends {
            self.left.remove(&partition);
        }
        Ok(ends)
    }
}

/// The first offset to read of each partition.
fn starts(consumer: &Consumer, extent: &Extent, since: Option<i64>) -> Result<Vec<i64>, ReadbackError> {
    let Some(since) = since else { return Ok(extent.partitions.iter().map(|(begin, _)| *begin).collect()) };
    let mut times = TopicPartitionList::new();
    for (partition, _) in (0..).zip(&extent.partitions) {
        times.add_partition_offset(&extent.topic, partition, Offset::Offset(since.max(0)))?;
    }
    let found = consumer.offsets_for_times(times, ANSWER)?;
    let start = |(partition, &(begin, end)): (i32, &(i64, i64))| match found
        .find_partition(&extent.topic, partition)
        .map(|found| found.offset())
    {
        Some(Offset::Offset(offset)) => offset.max(begin),
        _ => end,
    };
    Ok((0..).zip(&extent.partitions).map(start).collect())
}

/// What comes behind an open transaction is hidden until it has ended.
fn await_open_transactions(
    consumer: &Consumer,
    extent: &Extent,
    left: &BTreeMap<i32, i64>,
    given_up: &CancellationToken,
) -> Result<(), ReadbackError> {
    let deadline = Instant::now() + PATIENCE;
    for (&partition, &end) in left {
        while !given_up.is_cancelled() && consumer.fetch_watermarks(&extent.topic, partition, ANSWER)?.1 < end {
            if Instant::now() >= deadline {
                let open = format!("a transaction has been open in topic {} for {PATIENCE:?}", extent.topic);
                return Err(ReadbackError::Kafka(open));
            }
            sleep(AGAIN);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use rdkafka::Timestamp;
    use rdkafka::message::{Header, OwnedHeaders, OwnedMessage};

    use super::*;
    use crate::outbox::{REPAIR_HEADER, REPLAY_HEADER};

    /// What is known of a partition that has lost its beginning once these records are read, each with its time and a
    /// header; and how many came again.
    fn horizon(records: &[(i64, &str)]) -> (Option<i64>, u64) {
        let mut reading = Reading { left: BTreeMap::from([(0, 9)]), horizons: vec![Some(i64::MAX)] };
        let mut seen_again = 0;
        for ((millis, name), offset) in records.iter().zip(0..) {
            let headers = OwnedHeaders::new().insert(Header { key: name, value: Some("1") });
            let (topic, time) = ("events".to_owned(), Timestamp::CreateTime(*millis));
            let message = OwnedMessage::new(None, None, topic, time, 0, offset, Some(headers));
            let taken = reading.take(&message, &mut |seen: &Seen<'_>, _: &OwnedMessage| {
                seen_again += u64::from(seen.again);
                Ok(())
            });
            assert!(!taken.unwrap());
        }
        (reading.horizons[0], seen_again)
    }

    #[test]
    fn given_a_broker_that_is_silent_when_nobody_waits_for_what_is_read_then_the_reading_ends_at_once() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let bootstrap_servers = silent.local_addr().unwrap().to_string();
        let settings = KafkaSettings { bootstrap_servers, ..KafkaSettings::default() };
        let (topic, partitions) = ("t".to_owned(), vec![(0, 9); 3]);
        let extent = Extent { topic, partitions, compacted: false, has_append_times: false };
        let (given_up, began) = (CancellationToken::new(), Instant::now());
        given_up.cancel();
        assert!(read(&settings, &extent, None, &given_up, |_, _| Ok(())).is_err());
        assert!(began.elapsed() < ANSWER, "it asks nothing any more: {:?}", began.elapsed());
    }

    #[test]
    fn given_a_lost_beginning_when_read_then_the_first_record_in_its_turn_tells_what_was_lost() {
        assert_eq!(horizon(&[]), (Some(i64::MAX), 0));
        assert_eq!(horizon(&[(500, "id"), (900, "id")]), (Some(500), 0));
        assert_eq!(horizon(&[(500, SNAPSHOT_HEADER), (900, "id")]), (Some(500), 0));
        let again = [(100, REPLAY_HEADER), (200, REPAIR_HEADER), (800, "id"), (900, "id")];
        assert_eq!(horizon(&again), (Some(800), 2), "those have the times of their commits, long ago");
        assert_eq!(horizon(&again[..2]), (Some(i64::MAX), 2), "nothing is there in its turn");
    }
}
