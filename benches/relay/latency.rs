//! From a commit to a consumer, at a steady rate of single-row transactions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mysql_async::prelude::Queryable;
use rdkafka::consumer::Consumer;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use crate::stage::{Database, connect, insert};
use crate::topic::{Expected, event, reader};
use crate::workload::write_row;

/// A stretch of writing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) tables: usize,
    /// Transactions a second, of all tables together.
    pub(crate) rate: u32,
    /// Rows of a transaction.
    pub(crate) rows: u64,
    pub(crate) bytes: usize,
    pub(crate) duration: Duration,
}

impl Pace {
    fn transactions_each(&self) -> u64 {
        u64::from(self.rate) * self.duration.as_secs() / self.tables as u64
    }
}

/// When each event was committed, and when it arrived, in nanoseconds since the beginning; 0 while it was not.
struct Times {
    begin: Instant,
    numbers: Vec<std::ops::Range<u64>>,
    committed: Vec<Vec<AtomicU64>>,
    arrived: Vec<Vec<AtomicU64>>,
    missing: AtomicU64,
    stop: AtomicBool,
}

impl Times {
    fn now(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    fn arrive(&self, table: usize, number: u64) {
        let Some(numbers) = self.numbers.get(table).filter(|numbers| numbers.contains(&number)) else { return };
        let place = usize::try_from(number - numbers.start).unwrap();
        let before = self.arrived[table][place].compare_exchange(0, self.now(), Ordering::Relaxed, Ordering::Relaxed);
        if before.is_ok() {
            self.missing.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Microseconds from commit to consumer, without the first third: programs that compile while they run are warm by then.
pub(crate) struct Measured {
    pub(crate) micros: Histogram<u64>,
    pub(crate) expected: Expected,
}

/// Writes, and reads a topic meanwhile. A commit counts from when its writer is told of it; what a consumer has before
/// that has taken no time.
pub(crate) async fn measure(
    database: &mut Database,
    (kafka, topic): (&str, &str),
    (pace, committed): (Pace, bool),
) -> Measured {
    let each = pace.transactions_each() * pace.rows;
    let numbers: Vec<_> = (0..pace.tables).map(|table| database.take_numbers(table, each)).collect();
    let slots = || (0..pace.tables).map(|_| (0..each).map(|_| AtomicU64::new(0)).collect()).collect();
    let times = Arc::new(Times {
        begin: Instant::now(),
        numbers: numbers.clone(),
        committed: slots(),
        arrived: slots(),
        missing: AtomicU64::new(each * pace.tables as u64),
        stop: AtomicBool::new(false),
    });
    let consumer = reader(kafka, topic, committed);
    let reading = std::thread::spawn({
        let times = Arc::clone(&times);
        move || {
            let mut deadline = None;
            while times.missing.load(Ordering::Relaxed) > 0 {
                let polled = consumer.poll(Duration::from_millis(100));
                if let Some((table, number)) = polled.and_then(|message| event(&message.ok()?)) {
                    times.arrive(table, number);
                }
                if times.stop.load(Ordering::Relaxed) {
                    let deadline = deadline.get_or_insert_with(|| Instant::now() + Duration::from_mins(1));
                    assert!(
                        Instant::now() < *deadline,
                        "{} events do not arrive",
                        times.missing.load(Ordering::Relaxed)
                    );
                }
            }
            consumer.unassign().unwrap();
        }
    });
    let port = database.port();
    let mut writers = JoinSet::new();
    let writers_count = pace.tables.min(4);
    let begin = tokio::time::Instant::now() + Duration::from_millis(100);
    for writer in 0..writers_count {
        writers.spawn(write(port, pace, (writer, writers_count), begin, Arc::clone(&times)));
    }
    writers.join_all().await;
    times.stop.store(true, Ordering::Relaxed);
    tokio::task::spawn_blocking(move || reading.join()).await.unwrap().unwrap();
    let mut micros = Histogram::new(3).unwrap();
    for (committed, arrived) in times.committed.iter().zip(&times.arrived) {
        for (committed, arrived) in committed.iter().zip(arrived).skip(committed.len() / 3) {
            let taken = arrived.load(Ordering::Relaxed).saturating_sub(committed.load(Ordering::Relaxed));
            micros.record(taken / 1000).unwrap();
        }
    }
    Measured { micros, expected: Expected { tables: numbers, once: committed } }
}

/// Writes for the tables of one writer, one transaction at each of its moments.
async fn write(
    port: u16,
    pace: Pace,
    (writer, writers): (usize, usize),
    begin: tokio::time::Instant,
    times: Arc<Times>,
) {
    let mut conn = connect(port).await;
    let tables: Vec<usize> = (writer..pace.tables).step_by(writers).collect();
    let mut sql = String::new();
    let between = Duration::from_secs(1) * u32::try_from(writers).unwrap() / pace.rate;
    let total = pace.transactions_each() * tables.len() as u64;
    // Writers take turns.
    let begin = begin + between * u32::try_from(writer).unwrap() / u32::try_from(writers).unwrap();
    for turn in 0..total {
        let table = tables[usize::try_from(turn).unwrap() % tables.len()];
        let first = turn / tables.len() as u64 * pace.rows;
        sql.clear();
        insert(table, &mut sql);
        for row in first..first + pace.rows {
            write_row(table, times.numbers[table].start + row, pace.bytes, &mut sql);
            sql.push(',');
        }
        sql.pop();
        sleep_until(begin + between * u32::try_from(turn).unwrap()).await;
        conn.query_drop(sql.as_str()).await.unwrap();
        let now = times.now();
        for row in first..first + pace.rows {
            times.committed[table][usize::try_from(row).unwrap()].store(now, Ordering::Relaxed);
        }
    }
    conn.disconnect().await.unwrap();
}
