//! One of eight tables cannot deliver for minutes: what the others notice of it, and how it catches up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use tokio::task::JoinHandle;
use tokio::time::interval;

use super::{Bench, Outcome};
use crate::figures::Figure;
use crate::latency::{Measured, Pace, measure};
use crate::outboxd::Daemon;
use crate::stage::{Database, connect, insert};
use crate::topic::{Ends, Expected, check};
use crate::workload::write_row;

/// Those that are measured; one more is blocked.
const OTHERS: usize = 7;

/// Transactions a second and table, of one row each.
const RATE: u32 = 125;

const BYTES: usize = 450;

/// The aggregate type of events to the topic that is not there.
const MISSING: &str = "missing";

/// How long the blocked table may take to catch up.
const PATIENCE: Duration = Duration::from_mins(2);

#[allow(clippy::cast_precision_loss, reason = "bytes far below 2^52")]
pub(crate) async fn run(bench: &Bench) -> Outcome {
    let mut database = Database::start(OTHERS + 1).await;
    let kafka = bench.kafka.address();
    let (topic, prefix) = (bench.kafka.topic().await, bench.kafka.fresh_name("trouble"));
    let (open, missing) = (format!("{prefix}.delivery"), format!("{prefix}.{MISSING}"));
    bench.kafka.create_topic(&open).await;
    let from = database.mark().await;
    let further = [
        ("OUTBOX__0__TABLES", format!("delivery.delivery-outbox{{1..{OTHERS}}}")),
        ("OUTBOX__1__TABLES", format!("delivery.delivery-outbox{}", OTHERS + 1)),
        ("OUTBOX__1__TOPIC", format!("{prefix}.{{aggregatetype}}")),
        // A producer waits for a topic this long, and tries again.
        ("KAFKA__PROPERTIES__TOPIC_METADATA_PROPAGATION_MAX_MS", "600000".to_owned()),
        ("OUTBOX__1__START", format!("gtid={}", from.gtids)),
    ];
    let servers = (&database, &bench.kafka);
    let mut daemon = Daemon::spawn_with(servers, (&from, OTHERS + 1, &topic), (bench.path(), false), &further).await;
    daemon.ready();
    let writer = Writer::of(database.port());
    let pace = Pace {
        tables: OTHERS,
        rate: RATE * u32::try_from(OTHERS).unwrap(),
        rows: 1,
        bytes: BYTES,
        duration: bench.scale.unblocked,
    };
    let at_rest = timed(&mut database, (&kafka, &topic), pace).await;
    writer.to_missing.store(true, Ordering::Relaxed);
    let pace = Pace { duration: bench.scale.blocked, ..pace };
    let in_trouble = timed(&mut database, (&kafka, &topic), pace).await;
    bench.kafka.create_topic(&missing).await;
    let freed = Instant::now();
    let (before, all) = writer.stop().await;
    let (count, ends) = (all - before, Ends::of(&kafka, &missing));
    daemon.running.until("the blocked table catches up", PATIENCE, |_| ends.count() >= count);
    let caught_up = freed.elapsed().as_secs_f64();
    daemon.running.until("it is relayed with the others again", PATIENCE, |daemon| {
        daemon.log().rsplit_once(" table_detached ").is_none_or(|(_, since)| since.contains(" table_attached "))
    });
    let detached = daemon.running.log().contains(" table_detached ");
    let peak = daemon.running.peak() as f64 / 1e6;
    daemon.running.stop();
    check(&kafka, &topic, &at_rest.measured.expected);
    check(&kafka, &topic, &in_trouble.measured.expected);
    let numbers = database.take_numbers(OTHERS, all);
    let moved = numbers.start + before;
    for (topic, numbers) in [(&open, numbers.start..moved), (&missing, moved..numbers.end)] {
        let mut tables = vec![0..0; OTHERS];
        tables.push(numbers);
        let found = check(&kafka, topic, &Expected { tables, once: false });
        assert_eq!(found.duplicates, 0, "without a crash nothing comes twice");
    }
    for topic in [&topic, &open, &missing] {
        bench.kafka.delete(topic).await;
    }
    let figures = figures(bench.scale.blocked, &at_rest, &in_trouble);
    let further = [
        Figure::new(format!("freed: until its {count} events have arrived"), "s", vec![caught_up]),
        Figure::new("peak of memory", "MB", vec![peak]),
    ];
    let detached = if detached { "It was detached meanwhile." } else { "Its queue held all of it." };
    let note = format!(
        "{RATE} commits a second and table, of one row. The blocked table's events go to a topic that is not there, for \
         which its producer waits. {detached} Measured once."
    );
    Outcome { figures: figures.into_iter().chain(further).collect(), plots: Vec::new(), notes: vec![note] }
}

/// What the others noticed.
#[allow(clippy::cast_precision_loss, reason = "microseconds far below 2^52")]
fn figures(blocked: Duration, at_rest: &Timed, in_trouble: &Timed) -> Vec<Figure> {
    let what = format!("one of {} tables blocked for {} s", OTHERS + 1, blocked.as_secs());
    let of = |quantile: f64| {
        let millis = |timed: &Timed| timed.measured.micros.value_at_quantile(quantile) as f64 / 1e3;
        (millis(at_rest), millis(in_trouble))
    };
    let (p50, p99, rate) = (of(0.5), of(0.99), (at_rest.rate(), in_trouble.rate()));
    vec![
        Figure::new("the others before: p50", "ms", vec![p50.0]),
        Figure::new(format!("{what}, the others: p50"), "ms", vec![p50.1]),
        Figure::new("the others before: p99", "ms", vec![p99.0]),
        Figure::new(format!("{what}, the others: p99"), "ms", vec![p99.1]),
        Figure::ratio(format!("{what}: p99 of the others against before"), &[p99.1], &[p99.0]).at_most(1.1),
        Figure::ratio(format!("{what}: throughput of the others against before"), &[rate.1], &[rate.0]).at_least(0.9),
    ]
}

struct Timed {
    measured: Measured,
    taken: Duration,
}

impl Timed {
    /// Events a second, until the last has arrived.
    #[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    fn rate(&self) -> f64 {
        self.measured.expected.count() as f64 / self.taken.as_secs_f64()
    }
}

async fn timed(database: &mut Database, topic: (&str, &str), pace: Pace) -> Timed {
    let begun = Instant::now();
    let measured = measure(database, topic, (pace, false)).await;
    Timed { measured, taken: begun.elapsed() }
}

/// Writes to the table that is to be blocked.
struct Writer {
    /// Whether its events go to the topic that is not there.
    to_missing: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<(u64, u64)>,
}

impl Writer {
    fn of(port: u16) -> Self {
        let (stop, to_missing): (Arc<AtomicBool>, Arc<AtomicBool>) = Default::default();
        let (stopped, turned) = (Arc::clone(&stop), Arc::clone(&to_missing));
        let task = tokio::spawn(async move {
            let (mut conn, mut sql, mut count, mut before) = (connect(port).await, String::new(), 0, 0);
            let mut turns = interval(Duration::from_secs(1) / RATE);
            while !stopped.load(Ordering::Relaxed) {
                turns.tick().await;
                sql.clear();
                insert(OTHERS, &mut sql);
                write_row(OTHERS, count, BYTES, &mut sql);
                if turned.load(Ordering::Relaxed) {
                    sql = sql.replacen("','delivery','", &format!("','{MISSING}','"), 1);
                } else {
                    before += 1;
                }
                conn.query_drop(sql.as_str()).await.unwrap();
                count += 1;
            }
            (before, count)
        });
        Self { to_missing, stop, task }
    }

    /// How many it has written before it turned, and how many in all.
    async fn stop(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}
