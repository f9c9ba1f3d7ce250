//! librdkafka alone: the very records that the daemon has published, sent again by nothing but a producer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, NoCustomPartitioner, Producer, ProducerContext};
use serde::{Deserialize, Serialize};

use crate::process::{self, run_part};
use crate::topic::{event, read_all};

/// A run of it.
#[derive(Debug, Clone, Args)]
pub(crate) struct Alone {
    #[arg(long)]
    pub(crate) kafka: String,
    /// The topic with the records.
    #[arg(long)]
    pub(crate) source: String,
    /// Where they go.
    #[arg(long)]
    pub(crate) target: String,
    /// Producers, each with a thread of its own and the records of some tables.
    #[arg(long)]
    pub(crate) producers: usize,
    /// Milliseconds.
    #[arg(long)]
    pub(crate) linger: u32,
}

/// What it took.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Taken {
    pub(crate) events: u64,
    /// From the first record handed over to the last acknowledgement.
    pub(crate) seconds: f64,
    /// Processor seconds of the process meanwhile.
    pub(crate) user: f64,
    pub(crate) system: f64,
}

impl Taken {
    #[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    pub(crate) fn rate(&self) -> f64 {
        self.events as f64 / self.seconds
    }

    /// Microseconds of processor an event.
    #[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    pub(crate) fn cpu_each(&self) -> f64 {
        (self.user + self.system) * 1e6 / self.events as f64
    }
}

/// Runs it in a process of its own.
pub(crate) fn run(alone: &Alone) -> Taken {
    let Alone { kafka, source, target, producers, linger } = alone;
    let line = run_part(&[
        "alone".to_owned(),
        format!("--kafka={kafka}"),
        format!("--source={source}"),
        format!("--target={target}"),
        format!("--producers={producers}"),
        format!("--linger={linger}"),
    ]);
    serde_json::from_str(&line).unwrap()
}

/// A record of the one buffer, by the ends of its parts.
struct Kept {
    begin: usize,
    key: usize,
    id: usize,
    kind: usize,
    value: usize,
    timestamp: i64,
}

/// The records of some tables.
#[derive(Default)]
struct Records {
    bytes: Vec<u8>,
    kept: Vec<Kept>,
}

impl Records {
    fn keep<M: Message>(&mut self, message: &M) {
        let header = |name: &str| {
            let headers = message.headers();
            headers.and_then(|all| all.iter().find(|header| header.key == name)).and_then(|header| header.value)
        };
        let mut add = |part: Option<&[u8]>| {
            self.bytes.extend_from_slice(part.unwrap_or_default());
            self.bytes.len()
        };
        let begin = add(None);
        let (key, id, kind) = (add(message.key()), add(header("id")), add(header("eventType")));
        let (value, timestamp) = (add(message.payload()), message.timestamp().to_millis().unwrap_or(0));
        self.kept.push(Kept { begin, key, id, kind, value, timestamp });
    }
}

struct Counting(Arc<AtomicU64>);

impl ClientContext for Counting {}

impl ProducerContext<NoCustomPartitioner> for Counting {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        assert!(result.is_ok(), "a record is not delivered");
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

type Native = BaseProducer<Counting, NoCustomPartitioner>;

/// The daemon's properties.
pub(crate) fn properties(kafka: &str, linger: u32) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", kafka)
        .set("linger.ms", linger.to_string())
        .set("compression.type", "lz4")
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.messages", "0");
    config
}

/// The part that runs in a process of its own: sends, and prints what it took.
#[allow(clippy::print_stdout, reason = "its parent reads it")]
pub(crate) fn part(alone: &Alone) {
    let mut all: Vec<Records> = (0..alone.producers).map(|_| Records::default()).collect();
    read_all(&alone.kafka, &alone.source, true, |message| {
        if let Some((table, _)) = event(message) {
            all[table % alone.producers].keep(message);
        }
    });
    let events = all.iter().map(|records| records.kept.len() as u64).sum();
    let before = process::cpu(std::process::id());
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for records in &all {
            scope.spawn(|| send(alone, records));
        }
    });
    let (seconds, cpu) = (begin.elapsed().as_secs_f64(), process::cpu(std::process::id()).since(before));
    let taken = Taken { events, seconds, user: cpu.user, system: cpu.system };
    println!("{}", serde_json::to_string(&taken).unwrap());
}

fn send(alone: &Alone, records: &Records) {
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut config = properties(&alone.kafka, alone.linger);
    config.set("queue.buffering.max.kbytes", "65536");
    let producer = Native::from_config_and_context(&config, Counting(Arc::clone(&acknowledged))).unwrap();
    let total = records.kept.len() as u64;
    std::thread::scope(|scope| {
        let polling = scope.spawn(|| {
            while acknowledged.load(Ordering::Relaxed) < total {
                producer.poll(Duration::from_millis(1));
            }
        });
        for record in &records.kept {
            let part = |from: usize, to: usize| &records.bytes[from..to];
            let headers = OwnedHeaders::new_with_capacity(2)
                .insert(Header { key: "id", value: Some(part(record.key, record.id)) })
                .insert(Header { key: "eventType", value: Some(part(record.id, record.kind)) });
            let mut next = BaseRecord::to(&alone.target)
                .key(part(record.begin, record.key))
                .payload(part(record.kind, record.value))
                .timestamp(record.timestamp)
                .headers(headers);
            while let Err((error, back)) = producer.send(next) {
                assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
                std::thread::sleep(Duration::from_millis(1));
                next = back;
            }
        }
        polling.join().unwrap();
    });
    producer.flush(Duration::from_secs(1)).unwrap();
}
