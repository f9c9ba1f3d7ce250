//! One table's producer: librdkafka's, the thread that serves it, and the way in.
//!
//! Promise: acks=all and idempotence always; every record is reported once, under the number of its batch; reports travel
//! in groups. After a record that failed no later one of the table arrives, whatever was on its way already (R1). A
//! table's producer is its own: when one has broken, no other table notices (R8), and the relay that starts again makes
//! a new one.

mod bell;
mod bootstrap;
mod care;
mod inbox;
mod lanes;
mod opening;
mod serve;
mod statistics;
mod transaction;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::message::{Header as KafkaHeader, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, NoCustomPartitioner, Producer as _};
use rdkafka::types::RDKafkaErrorCode;
use tracing::warn;

use self::bootstrap::Bootstrap;
use self::care::Careful;
use self::inbox::{Context, Inbox};
use self::lanes::Lanes;
pub(super) use self::opening::hashed;
pub(super) use self::transaction::{Broken, PositionRecord};
use super::error::classify;
use super::security::{self, OAuth, SecurityError};
use super::settings::KafkaSettings;
use crate::kafka::aside;
use crate::outbox::Record;
use crate::outbox::aside::Unpacked;
use crate::outlet::{Chunk, DeliveryError, Limit, Publish, PublishError, Reach, Settled, Wanted};
use crate::planted::{self, Bug};

/// How often librdkafka tells which brokers are connected, and what waits: the first so many clients, and those beyond. Each
/// time costs some 100 microseconds, which with many tables is most of what an idle daemon takes.
const STATISTICS_MILLIS: [&str; 2] = ["5000", "10000"];
const OFTEN: usize = 8;

/// How soon a broker is tried again. Half of the first is also how long the client library waits between the connection to
/// a bootstrap server and that to the first broker it learns of, so with the library's 100 ms every client would begin 50 ms
/// later. With its 10 s of the second, tables would stand still for that long after an outage is over.
const RECONNECT: [(&str, &str); 2] = [("reconnect.backoff.ms", "20"), ("reconnect.backoff.max.ms", "1000")];

type Native = BaseProducer<Context, NoCustomPartitioner>;

/// The producer cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kafka: {0}")]
pub struct ProducerError(String);

/// What librdkafka carries for us with a record and gives back with its report: the batch's number, what the record
/// counts towards the limit of bytes in flight, and whether it names its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tag(usize);

impl Tag {
    /// The uppermost bit.
    const NAMES_PARTITION: usize = !(usize::MAX >> 1);
    const CHUNK_BITS: u32 = 39;
    const CHUNKS: usize = (1 << Self::CHUNK_BITS) - 1;
    /// Bytes are counted in units of so many, rounded up.
    const UNIT: usize = 64;
    /// The record that makes a position durable; it belongs to no batch.
    const POSITION: Self = Self(Self::CHUNKS);

    fn new(chunk: Chunk, bytes: usize) -> Self {
        let units = bytes.div_ceil(Self::UNIT).min(!Self::NAMES_PARTITION >> Self::CHUNK_BITS);
        Self(units << Self::CHUNK_BITS | usize::try_from(chunk).unwrap_or(0) & Self::CHUNKS)
    }

    fn chunk(self) -> Chunk {
        (self.0 & Self::CHUNKS) as Chunk
    }

    fn bytes(self) -> usize {
        ((self.0 & !Self::NAMES_PARTITION) >> Self::CHUNK_BITS) * Self::UNIT
    }

    /// Of a record that goes to a partition of this number, if there is one.
    fn naming(self, partition: Option<i32>) -> Self {
        if partition.is_some() { Self(self.0 | Self::NAMES_PARTITION) } else { self }
    }

    fn names_partition(self) -> bool {
        self.0 & Self::NAMES_PARTITION != 0
    }
}

/// What librdkafka takes for a record, and for each header, beside their bytes, roughly: 2.12.1, on a machine of 64 bits.
const RECORD: usize = 256;
const HEADER: usize = 64;

/// What a record takes in memory until it is settled.
fn size(record: &Record<'_>) -> usize {
    let headers = record.headers.iter().map(|header| HEADER + header.name.len() + header.value.map_or(0, <[u8]>::len));
    RECORD + record.key.len() + record.value.map_or(0, <[u8]>::len) + headers.sum::<usize>()
}

/// What the properties of the configuration come to; those that hold the promises win over them.
pub(super) fn client(settings: &KafkaSettings) -> Result<ClientConfig, SecurityError> {
    let mut config = ClientConfig::new();
    config.set("client.id", "outboxd");
    config.extend(settings.properties.iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
    if RECONNECT.iter().all(|(name, _)| config.get(name).is_none()) {
        config.extend(RECONNECT.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
    for (name, value) in security::properties(settings)? {
        config.set(name, value);
    }
    config.set("bootstrap.servers", &settings.bootstrap_servers);
    Ok(config)
}

fn config(settings: &KafkaSettings) -> Result<ClientConfig, ProducerError> {
    let mut config = client(settings).map_err(|error| ProducerError(error.to_string()))?;
    for (name, value) in [("linger.ms", "0"), ("compression.type", "lz4")] {
        if config.get(name).is_none() {
            config.set(name, value);
        }
    }
    config
        .set("acks", "all")
        .set("enable.idempotence", if planted::is(Bug::RetryReorders) { "false" } else { "true" })
        // The hash of the Java client, so that other producers of the topic agree.
        .set("partitioner", "murmur2_random")
        // Each table has its own limit of bytes in flight.
        .set("queue.buffering.max.messages", "0")
        .set("queue.buffering.max.kbytes", "2147483647");
    Ok(config)
}

/// Makes the producers of the tables.
#[derive(Debug, Clone)]
pub struct Producers {
    settings: Arc<KafkaSettings>,
    reach: Arc<Reach>,
    careful: Careful,
}

impl Producers {
    /// Connects to nothing yet.
    pub fn new(settings: &KafkaSettings) -> Self {
        Self { settings: Arc::new(settings.clone()), reach: Arc::default(), careful: Careful::default() }
    }

    /// Whether a broker is connected, by the latest word of any of the producers.
    pub fn reach(&self) -> Arc<Reach> {
        Arc::clone(&self.reach)
    }

    /// A producer for the table of this name, with at most `limit` in flight (one record more, if that is larger).
    pub fn publisher(&self, name: &str, limit: Limit) -> Result<Publisher, ProducerError> {
        let mut config = config(&self.settings)?;
        config
            // An outage stalls, it does not fail: retries go on until the broker answers.
            .set("message.timeout.ms", "0")
            // A refused batch ends the producer, before it sends what comes after under new numbers.
            .set("enable.gapless.guarantee", if planted::is(Bug::RetryReorders) { "false" } else { "true" });
        self.make(vec![config], name, limit, false)
    }

    /// A producer for the transactions of the table of this name, which these ids carry in turn.
    pub(super) fn transactional(
        &self,
        name: &str,
        ids: &[String],
        timeout: Duration,
    ) -> Result<Publisher, ProducerError> {
        let config = |id: &String| {
            let mut config = config(&self.settings)?;
            config.set("transactional.id", id).set("transaction.timeout.ms", timeout.as_millis().to_string());
            Ok(config)
        };
        let configs = ids.iter().map(config).collect::<Result<_, ProducerError>>()?;
        self.make(configs, name, Limit::new(usize::MAX), true)
    }

    /// With one of librdkafka's producers for each of `configs`.
    fn make(
        &self,
        mut configs: Vec<ClientConfig>,
        name: &str,
        limit: Limit,
        transactional: bool,
    ) -> Result<Publisher, ProducerError> {
        let inbox = Arc::new(Inbox::new(name, transactional));
        if self.careful.of(name).is_alone() {
            warn!(table = name, "records_sent_alone");
        }
        let lane = |config: &mut ClientConfig| {
            let care = self.careful.of(name);
            if care.is_alone() {
                config.set("batch.num.messages", "1");
            }
            let [often, seldom] = STATISTICS_MILLIS;
            config.set("statistics.interval.ms", if self.reach.clients() < OFTEN { often } else { seldom });
            let (inbox, reach) = (Arc::clone(&inbox), Arc::clone(&self.reach));
            let context = Context::new(inbox, transactional, reach, OAuth::of(&self.settings)).with_care(care);
            lanes::Lane::new(config, context)
        };
        let lanes = configs.iter_mut().map(lane).collect::<Result<_, _>>()?;
        Publisher::new(Lanes::new(lanes), inbox, limit, Arc::clone(&self.settings))
    }
}

struct Shared {
    lanes: Lanes,
    bootstrap: Bootstrap,
    inbox: Arc<Inbox>,
    /// Records sent and not reported.
    waiting: AtomicUsize,
    orders: Mutex<Vec<transaction::Order>>,
    stop: AtomicBool,
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn send(&self, message: BaseRecord<'_, [u8], [u8], usize>) -> Result<(), RDKafkaErrorCode> {
        // Counted first: the report may come before `send` returns.
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let sent = self.lanes.native().send(message);
        if let Err((error, _)) = sent {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            return Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown));
        }
        Ok(())
    }
}

/// One table's way into its producer. Dropping it ends the producer; what is in flight is given up.
pub struct Publisher {
    shared: Arc<Shared>,
    limit: Limit,
    settings: Arc<KafkaSettings>,
}

impl Publisher {
    fn new(lanes: Lanes, inbox: Arc<Inbox>, limit: Limit, settings: Arc<KafkaSettings>) -> Result<Self, ProducerError> {
        let bootstrap = Bootstrap::of(&settings.bootstrap_servers)
            .ok_or_else(|| ProducerError("there is a NUL in the bootstrap servers".to_owned()))?;
        let shared = Arc::new(Shared {
            lanes,
            bootstrap,
            inbox,
            waiting: AtomicUsize::new(0),
            orders: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let served = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("kafka-producer".to_owned())
            .spawn(move || serve::serve(&served))
            .map_err(|error| ProducerError(format!("cannot start a thread: {error}")))?;
        Ok(Self { shared, limit, settings })
    }

    /// Hands a record to librdkafka, which copies it, with at most `limit` bytes in flight.
    pub(super) fn publish_within(&self, record: &Record<'_>, chunk: Chunk, limit: usize) -> Result<(), PublishError> {
        let tag = Tag::new(chunk, size(record)).naming(record.partition);
        let inbox = &self.shared.inbox;
        inbox.enter(tag, limit)?;
        let openings = self.shared.lanes.native().context().openings.as_ref();
        if openings.is_some_and(|openings| !openings.admit(record.topic, record.key, record.partition)) {
            inbox.leave(tag);
            return Err(PublishError::Full);
        }
        let headers =
            record.headers.iter().fold(OwnedHeaders::new_with_capacity(record.headers.len()), |all, header| {
                all.insert(KafkaHeader { key: header.name, value: header.value })
            });
        let mut message: BaseRecord<'_, [u8], [u8], usize> = BaseRecord::with_opaque_to(record.topic, tag.0)
            .key(record.key)
            .timestamp(record.timestamp_millis)
            .headers(headers);
        message.payload = record.value;
        message.partition = record.partition;
        self.shared.send(message).map_err(|code| {
            inbox.leave(tag);
            if let Some(openings) = openings {
                openings.withdraw(record.topic, record.key, record.partition);
            }
            if code == RDKafkaErrorCode::QueueFull {
                return PublishError::Full;
            }
            let error = classify(code, record.topic);
            // In a transaction, what went before it is given up with it; but others can be delivered without this one.
            if !matches!(error, DeliveryError::Poison { .. }) {
                inbox.fail(&error);
            }
            PublishError::Refused(error)
        })
    }
}

impl Publish for Publisher {
    fn publish(&self, record: &Record<'_>, chunk: Chunk) -> Result<(), PublishError> {
        self.publish_within(record, chunk, self.limit.bytes())
    }

    /// Waits until something was settled, or a moment has passed.
    fn room(&self) -> impl Future<Output = ()> + Send + 'static {
        let room = Arc::clone(&self.shared.inbox.room);
        async move {
            let _ = tokio::time::timeout(Duration::from_millis(20), room.notified()).await;
        }
    }

    fn in_flight_bytes(&self) -> u64 {
        self.shared.inbox.in_flight_bytes() as u64
    }

    fn is_busy(&self) -> bool {
        self.shared.inbox.is_busy()
    }

    fn is_spent(&self) -> bool {
        self.shared.lanes.all().iter().any(|lane| lane.native.context().is_spent())
    }

    fn read(&self, wanted: Wanted) -> impl Future<Output = Result<Vec<Unpacked>, String>> + Send + 'static {
        aside::read(Arc::clone(&self.settings), wanted)
    }

    async fn settled(&self, into: &mut Vec<Settled>) {
        self.shared.inbox.settled(into).await;
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.lanes.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::settings::Properties;
    use crate::outbox::Header;

    #[test]
    fn given_one_property_of_reconnects_when_configured_then_the_other_is_the_librarys() {
        let of = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
            let settings = KafkaSettings { properties: pairs.collect::<Properties>(), ..KafkaSettings::default() };
            let config = client(&settings).unwrap();
            RECONNECT.map(|(name, _)| config.get(name).map(ToOwned::to_owned))
        };
        assert_eq!(of(&[]), RECONNECT.map(|(_, value)| Some(value.to_owned())));
        // One below ours of the other would be refused.
        assert_eq!(of(&[("reconnect.backoff.ms", "2000")]), [Some("2000".to_owned()), None]);
        assert_eq!(of(&[("reconnect.backoff.max.ms", "10")]), [None, Some("10".to_owned())]);
    }

    #[test]
    fn a_tag_carries_the_batch_and_no_less_than_the_bytes() {
        for (chunk, bytes) in [(0, 1), (7, 64), (1 << 38, 1_000_001), (3, 1 << 29)] {
            let tag = Tag::new(chunk, bytes);
            assert_eq!(tag.chunk(), chunk);
            assert!((bytes..bytes + Tag::UNIT).contains(&tag.bytes()), "{bytes}");
        }
        assert_eq!(Tag::POSITION.bytes(), 0);
    }

    #[test]
    fn headers_count_towards_the_bytes_in_flight() {
        let headers = [Header { name: "id", value: Some(b"12345678") }, Header { name: "none", value: None }];
        let with =
            |headers| Record { topic: "t", key: b"key", partition: None, value: None, timestamp_millis: 0, headers };
        assert_eq!(size(&with(&headers)), size(&with(&[])) + 14 + 2 * HEADER);
    }
}
