//! What is measured, in parts that each start from servers of their own.

mod backlog;
mod isolation;
mod latency;
mod quiet;
mod race;
mod skipping;
mod tables;
mod throughput;

use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::debezium::Layout;
use crate::drain::{Drain, watch};
use crate::figures::{Figure, Plot};
use crate::outboxd::Daemon;
use crate::stage::{Database, Kafka, Start};
use crate::topic::{Ends, Expected, Found, check};
use crate::workload::Workload;

/// A part that can be run alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Section {
    /// Catching up, 450 bytes, transactions of 100 rows; with Debezium and librdkafka alone.
    Throughput,
    /// The same by single-row transactions.
    SingleRow,
    /// Payloads of 100 bytes, 4 KB and 64 KB, and transactions of 500 rows.
    Sizes,
    /// Exactly once against at least once.
    ExactlyOnce,
    /// From commit to consumer.
    Latency,
    /// From 1 to 64 tables.
    Tables,
    /// One table of eight that cannot deliver.
    Isolation,
    /// A log full of other tables' rows.
    Skipping,
    /// Nothing to do, and the first event after a start.
    Quiet,
    /// A long backlog.
    Backlog,
}

impl Section {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Throughput => "Catching up: 4 tables, 450 bytes, transactions of 100 rows",
            Self::SingleRow => "Catching up: 4 tables, 450 bytes, single-row transactions",
            Self::Sizes => "Other sizes of events and transactions",
            Self::ExactlyOnce => "Exactly once",
            Self::Latency => "From commit to consumer, 1,000 single-row commits a second",
            Self::Tables => "Tables",
            Self::Isolation => "One table in trouble",
            Self::Skipping => "A log of which 99 % are other tables' rows",
            Self::Quiet => "Start and idleness",
            Self::Backlog => "A long backlog",
        }
    }
}

/// Where Debezium takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rival {
    /// Wherever there is a bar.
    Everywhere,
    /// In the first part only, with its best layout.
    Once,
    Nowhere,
}

impl Rival {
    /// Its layouts in the first part, or in another.
    pub(crate) fn layouts(self, first: bool) -> &'static [Layout] {
        match self {
            Self::Everywhere => &[Layout::Each, Layout::One],
            Self::Once if first => &[Layout::One],
            Self::Once | Self::Nowhere => &[],
        }
    }
}

/// How much of everything.
#[derive(Debug, Clone)]
pub(crate) struct Scale {
    /// How long the broker works before throughput is measured. Its virtual machine compiles for as long, which takes up to a
    /// quarter of two cores.
    pub(crate) warm: Duration,
    /// How often each measurement is repeated.
    pub(crate) runs: usize,
    /// Events that are worked off.
    pub(crate) events: u64,
    /// The same, of single-row transactions.
    pub(crate) single: u64,
    /// Bytes of payload of other sizes, at most.
    pub(crate) payload: u64,
    /// Producers and `linger.ms` of librdkafka alone; the best of them counts.
    pub(crate) alone: &'static [(usize, u32)],
    /// How long latency is measured, each time.
    pub(crate) latency: Duration,
    /// Numbers of tables.
    pub(crate) tables: &'static [usize],
    /// How long each number of tables is written to.
    pub(crate) pace: Duration,
    /// How long tables are relayed before one of them is blocked, and how long it is.
    pub(crate) unblocked: Duration,
    pub(crate) blocked: Duration,
    /// Bytes of a log to skip.
    pub(crate) skipped: u64,
    /// How long it is idle.
    pub(crate) idle: Duration,
    /// Events of the backlog.
    pub(crate) backlog: u64,
    /// Where Debezium is compared with.
    pub(crate) debezium: Rival,
}

impl Scale {
    pub(crate) fn full() -> Self {
        Self {
            warm: Duration::from_secs(40),
            runs: 5,
            events: 800_000,
            single: 800_000,
            payload: 600_000_000,
            alone: &[(1, 0), (4, 0), (1, 5)],
            latency: Duration::from_secs(20),
            tables: &[1, 4, 16, 64],
            pace: Duration::from_secs(10),
            unblocked: Duration::from_mins(1),
            blocked: Duration::from_mins(5),
            skipped: 3_000_000_000,
            idle: Duration::from_secs(20),
            backlog: 10_000_000,
            debezium: Rival::Everywhere,
        }
    }

    pub(crate) fn quick() -> Self {
        Self {
            warm: Duration::ZERO,
            runs: 1,
            events: 100_000,
            single: 40_000,
            payload: 20_000_000,
            alone: &[(4, 0)],
            latency: Duration::from_secs(2),
            tables: &[1, 64],
            pace: Duration::from_secs(2),
            unblocked: Duration::from_secs(3),
            blocked: Duration::from_secs(5),
            skipped: 300_000_000,
            idle: Duration::from_secs(3),
            backlog: 200_000,
            debezium: Rival::Once,
        }
    }
}

/// What every section works with.
pub(crate) struct Bench {
    pub(crate) scale: Scale,
    pub(crate) kafka: Kafka,
    pub(crate) folder: tempfile::TempDir,
    /// Whether the broker has seen each guarantee at work for long enough: at least once, exactly once.
    pub(crate) warm: [OnceLock<()>; 2],
}

/// What a section has found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) figures: Vec<Figure>,
    pub(crate) plots: Vec<Plot>,
    /// What else a reader should know.
    pub(crate) notes: Vec<String>,
}

pub(crate) async fn run(section: Section, bench: &Bench) -> Outcome {
    match section {
        Section::Throughput => throughput::batches(bench).await,
        Section::SingleRow => throughput::singles(bench).await,
        Section::Sizes => throughput::sizes(bench).await,
        Section::ExactlyOnce => throughput::exactly_once(bench).await,
        Section::Latency => latency::run(bench).await,
        Section::Tables => tables::run(bench).await,
        Section::Isolation => isolation::run(bench).await,
        Section::Skipping => skipping::run(bench).await,
        Section::Quiet => quiet::run(bench).await,
        Section::Backlog => backlog::run(bench).await,
    }
}

impl Bench {
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// A database with a workload in its log, and the place before it.
pub(crate) struct Loaded {
    pub(crate) database: Database,
    pub(crate) workload: Workload,
    pub(crate) from: Start,
}

impl Loaded {
    pub(crate) async fn new(workload: Workload) -> Self {
        Self::into(Database::start(workload.tables).await, workload).await
    }

    /// Into a database that is there.
    pub(crate) async fn into(mut database: Database, workload: Workload) -> Self {
        let from = database.mark().await;
        database.load(&workload).await;
        Self { database, workload, from }
    }

    pub(crate) fn expected(&self, once: bool) -> Expected {
        let each = self.workload.each();
        let tables = self.from.written.iter().take(self.workload.tables).map(|&from| from..from + each).collect();
        Expected { tables, once }
    }

    /// The same again and again, for as long as the broker takes to get warm, if it is not.
    pub(crate) async fn warm_up(&self, bench: &Bench, exactly_once: bool) {
        if bench.warm[usize::from(exactly_once)].set(()).is_err() {
            return;
        }
        let begun = Instant::now();
        while begun.elapsed() < bench.scale.warm {
            let (_, topic, _) = self.drain(bench, exactly_once, true).await;
            bench.kafka.delete(&topic).await;
        }
    }

    /// The daemon works it off, into a topic that is left; what is in it is checked. What has arrived is counted in the topic,
    /// or by the daemon's metric.
    pub(crate) async fn drain(&self, bench: &Bench, exactly_once: bool, by_metric: bool) -> (Drain, String, Found) {
        let topic = bench.kafka.topic().await;
        let (from, tables) = (&self.from, self.workload.tables);
        let mut daemon =
            Daemon::spawn((&self.database, &bench.kafka), (from, tables, &topic), (bench.path(), exactly_once)).await;
        let expected = self.expected(exactly_once);
        let ends = Ends::of(&bench.kafka.address(), &topic);
        let counter = daemon.counter();
        // The ends of topics count those of transactions too.
        let count = || if by_metric { counter() } else { ends.count() };
        let drain = watch(&mut daemon.running, expected.count(), count);
        daemon.running.stop();
        let found = check(&bench.kafka.address(), &topic, &expected);
        (drain, topic, found)
    }
}
