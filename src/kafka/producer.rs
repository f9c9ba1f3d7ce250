//! The idempotent producer that the tables share, and one publisher per table.
//!
//! Promise: acks=all and idempotence always; a delivery report reaches the publisher of its table with the number of the
//! batch it belongs to; reports travel in groups, so a record costs no lock of its own on the way back.

use std::collections::BTreeMap;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header as KafkaHeader, Message, OwnedHeaders};
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, NoCustomPartitioner, Producer as _, ProducerContext,
};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientContext, Statistics, config::FromClientConfigAndContext};
use tokio::sync::Notify;
use tracing::{error, warn};

use super::error::classify;
use crate::outbox::Record;
use crate::outlet::{Chunk, DeliveryError, PublishError, Reach, Settled};

/// How long the thread waits for reports in one go while something is in flight.
const POLL: Duration = Duration::from_millis(1);

/// How often librdkafka tells which brokers are connected.
const STATISTICS_MILLIS: &str = "2000";

/// Chunk numbers take the lower bits of what librdkafka carries for us, the table's number the upper ones.
const CHUNK_BITS: u32 = 48;

/// The producer cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kafka: {0}")]
pub struct ProducerError(String);

/// Reports for one table, not yet taken.
#[derive(Debug, Default)]
struct Inbox {
    settled: Mutex<Vec<Settled>>,
    /// The first failure: what is published after it would overtake it.
    failed: OnceLock<DeliveryError>,
    news: Notify,
    /// Bytes published and not settled.
    in_flight: AtomicUsize,
    room: Arc<Notify>,
}

#[derive(Default)]
struct Context {
    inboxes: Mutex<Vec<Arc<Inbox>>>,
    /// Filled by the callbacks of one poll, on the polling thread only: the lock is never contended.
    reports: Mutex<Vec<Report>>,
    reach: Arc<Reach>,
}

/// Records of one table and batch that were settled alike.
struct Report {
    slot: usize,
    settled: Settled,
    bytes: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.reach.set(false);
        }
        warn!(%error, reason, "kafka_error");
    }

    fn stats(&self, statistics: Statistics) {
        // The bootstrap addresses are brokers too until the real ones are known, so one that is up is enough.
        self.reach.set(statistics.brokers.values().any(|broker| broker.state == "UP"));
    }
}

impl ProducerContext<NoCustomPartitioner> for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let (slot, chunk) = (opaque >> CHUNK_BITS, (opaque & ((1 << CHUNK_BITS) - 1)) as Chunk);
        let (message, outcome) = match result {
            Ok(message) => (message, Ok(())),
            Err((error, message)) => {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
                (message, Err(classify(code, message.topic())))
            }
        };
        let bytes = size(message.key().map_or(0, <[u8]>::len), message.payload().map_or(0, <[u8]>::len));
        let mut reports = lock(&self.reports);
        match reports.last_mut() {
            Some(last) if last.slot == slot && last.settled.chunk == chunk && last.settled.outcome == outcome => {
                last.settled.records += 1;
                last.bytes += bytes;
            }
            _ => reports.push(Report { slot, settled: Settled { chunk, records: 1, outcome }, bytes }),
        }
    }
}

/// What a record counts towards the limit of bytes in flight.
fn size(key: usize, value: usize) -> usize {
    key + value + 64
}

impl Context {
    /// Hands the reports of one poll on; returns how many records they are about.
    fn flush(&self) -> usize {
        let reports = mem::take(&mut *lock(&self.reports));
        let inboxes = lock(&self.inboxes);
        let mut all = 0;
        for Report { slot, settled, bytes } in reports {
            all += usize::try_from(settled.records).unwrap_or(usize::MAX);
            let Some(inbox) = inboxes.get(slot) else { continue };
            if let Err(error) = &settled.outcome {
                inbox.failed.get_or_init(|| error.clone());
            }
            lock(&inbox.settled).push(settled);
            inbox.in_flight.fetch_sub(bytes, Ordering::Relaxed);
            inbox.news.notify_one();
            inbox.room.notify_one();
        }
        all
    }
}

struct Shared {
    producer: BaseProducer<Context, NoCustomPartitioner>,
    /// Records published and not reported; the thread sleeps while it is 0.
    waiting: AtomicUsize,
    /// The thread that reads reports, to wake it.
    thread: OnceLock<Thread>,
    stop: AtomicBool,
}

/// The producer. Dropping it ends its thread; what is in flight is given up.
pub struct Producer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Producer {
    /// Connects lazily. `properties` are passed to librdkafka as they are; those that hold the promises are set here and
    /// win over them.
    pub fn new(bootstrap_servers: &str, properties: &BTreeMap<String, String>) -> Result<Self, ProducerError> {
        let mut config = ClientConfig::new();
        config.set("client.id", "outboxd").set("linger.ms", "0").set("compression.type", "lz4");
        for (key, value) in properties {
            config.set(key, value);
        }
        config
            .set("bootstrap.servers", bootstrap_servers)
            .set("acks", "all")
            .set("enable.idempotence", "true")
            // An outage stalls, it does not fail: retries go on until the broker answers.
            .set("message.timeout.ms", "0")
            // The hash of the Java client, so that other producers of the topic agree.
            .set("partitioner", "murmur2_random")
            // Each table has its own limit of bytes in flight; one shared here would let a stuck table fill it for all.
            .set("queue.buffering.max.messages", "0")
            .set("queue.buffering.max.kbytes", "2147483647")
            .set("statistics.interval.ms", STATISTICS_MILLIS);
        let context = Context::default();
        let producer = BaseProducer::from_config_and_context(&config, context)
            .map_err(|error| ProducerError(error.to_string()))?;
        let shared = Arc::new(Shared {
            producer,
            waiting: AtomicUsize::new(0),
            thread: OnceLock::new(),
            stop: AtomicBool::new(false),
        });
        let polled = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("kafka-reports".to_owned())
            .spawn(move || poll(&polled))
            .map_err(|error| ProducerError(format!("cannot start a thread: {error}")))?;
        shared.thread.get_or_init(|| thread.thread().clone());
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Whether a broker is connected.
    pub fn reach(&self) -> Arc<Reach> {
        Arc::clone(&self.shared.producer.context().reach)
    }

    /// A publisher for one more table, with at most `limit` bytes in flight (one record more, if that is larger).
    pub fn publisher(&self, limit: usize) -> Publisher {
        let inbox = Arc::new(Inbox::default());
        let mut inboxes = lock(&self.shared.producer.context().inboxes);
        inboxes.push(Arc::clone(&inbox));
        Publisher { shared: Arc::clone(&self.shared), inbox, slot: inboxes.len() - 1, limit }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.wake();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            error!("kafka_reports_thread_panicked");
        }
    }
}

impl Shared {
    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

fn poll(shared: &Shared) {
    while !shared.stop.load(Ordering::Relaxed) {
        shared.producer.poll(POLL);
        let reported = shared.producer.context().flush();
        if shared.waiting.fetch_sub(reported, Ordering::AcqRel) == reported {
            // Twice a second also when idle: librdkafka reports errors and throttling here.
            std::thread::park_timeout(Duration::from_millis(500));
        }
    }
}

/// One table's way into the producer.
pub struct Publisher {
    shared: Arc<Shared>,
    inbox: Arc<Inbox>,
    slot: usize,
    limit: usize,
}

impl Publisher {
    /// Hands a record to librdkafka, which copies it.
    pub fn publish(&self, record: &Record<'_>, chunk: Chunk) -> Result<(), PublishError> {
        if let Some(error) = self.inbox.failed.get() {
            return Err(PublishError::Refused(error.clone()));
        }
        let bytes = size(record.key.len(), record.value.map_or(0, <[u8]>::len));
        let in_flight = self.inbox.in_flight.load(Ordering::Relaxed);
        if in_flight > 0 && in_flight + bytes > self.limit {
            return Err(PublishError::Full);
        }
        let headers =
            record.headers.iter().fold(OwnedHeaders::new_with_capacity(record.headers.len()), |all, header| {
                all.insert(KafkaHeader { key: header.name, value: header.value })
            });
        let chunk = usize::try_from(chunk).unwrap_or(0) & ((1 << CHUNK_BITS) - 1);
        let mut message: BaseRecord<'_, [u8], [u8], usize> =
            BaseRecord::with_opaque_to(record.topic, self.slot << CHUNK_BITS | chunk)
                .key(record.key)
                .timestamp(record.timestamp_millis)
                .headers(headers);
        message.payload = record.value;
        message.partition = record.partition;
        // Counted first: the report may come before `send` returns.
        self.inbox.in_flight.fetch_add(bytes, Ordering::Relaxed);
        let idle = self.shared.waiting.fetch_add(1, Ordering::AcqRel) == 0;
        match self.shared.producer.send(message) {
            Ok(()) => {
                if idle {
                    self.shared.wake();
                }
                Ok(())
            }
            Err((error, _)) => {
                self.inbox.in_flight.fetch_sub(bytes, Ordering::Relaxed);
                self.shared.waiting.fetch_sub(1, Ordering::AcqRel);
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
                if code == RDKafkaErrorCode::QueueFull {
                    return Err(PublishError::Full);
                }
                Err(PublishError::Refused(classify(code, record.topic)))
            }
        }
    }

    /// Waits until something was settled, or a moment has passed: the producer is shared, another table may make room.
    pub fn room(&self) -> impl Future<Output = ()> + Send + 'static {
        let room = Arc::clone(&self.inbox.room);
        async move {
            let _ = tokio::time::timeout(Duration::from_millis(20), room.notified()).await;
        }
    }

    /// Waits for reports and appends them. Cancel-safe.
    pub async fn settled(&self, into: &mut Vec<Settled>) {
        loop {
            let reports = mem::take(&mut *lock(&self.inbox.settled));
            if !reports.is_empty() {
                into.extend(reports);
                return;
            }
            self.inbox.news.notified().await;
        }
    }
}
