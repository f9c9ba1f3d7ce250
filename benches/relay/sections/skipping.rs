//! A log of which 99 % are other tables' rows.

use mysql_async::prelude::Queryable;

use super::{Bench, Outcome};
use crate::drain::watch;
use crate::figures::Figure;
use crate::outboxd::Daemon;
use crate::raw;
use crate::stage::{Database, insert};
use crate::topic::{Ends, Expected, check};
use crate::workload::write_row;

/// Rows of a transaction.
const ROWS: u64 = 100;

/// About how long an event's payload is.
const BYTES: usize = 450;

#[allow(clippy::cast_precision_loss, reason = "bytes far below 2^52")]
pub(crate) async fn run(bench: &Bench) -> Outcome {
    let mut database = Database::start(1).await;
    database.run("CREATE TABLE `delivery`.`delivery-other` LIKE `delivery`.`delivery-outbox1`").await;
    let from = database.mark().await;
    let blocks = write(&mut database, bench.scale.skipped).await;
    let bytes = database.log_bytes(&from).await as f64;
    let expected =
        Expected { tables: std::iter::once(from.written[0]..from.written[0] + blocks * ROWS).collect(), once: false };
    let (mut skipped, mut read, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    let kafka = bench.kafka.address();
    for _ in 0..bench.scale.runs {
        let topic = bench.kafka.topic().await;
        let mut daemon = Daemon::spawn((&database, &bench.kafka), (&from, 1, &topic), (bench.path(), false)).await;
        let ends = Ends::of(&kafka, &topic);
        let drain = watch(&mut daemon.running, expected.count(), || ends.count());
        daemon.running.stop();
        check(&kafka, &topic, &expected);
        bench.kafka.delete(&topic).await;
        skipped.push(bytes / 1e6 / (drain.whole() - drain.first()).max(1e-3));
        cpu.push(drain.cpu_each().total() * expected.count() as f64 / (bytes / 1e3));
        let port = database.port();
        let (all, seconds) = tokio::task::spawn_blocking({
            let from = from.clone();
            move || raw::read(port, &from)
        })
        .await
        .unwrap();
        read.push(all as f64 / 1e6 / seconds);
    }
    let figures = vec![
        Figure::new("outboxd: the log it reads", "MB/s", skipped.clone()).at_least(1000.0),
        Figure::new("reading the log and nothing else", "MB/s", read.clone()),
        Figure::ratio("outboxd against reading and nothing else", &skipped, &read).at_least(0.6),
        Figure::new("outboxd: CPU of a kilobyte of the log", "µs", cpu),
    ];
    let notes =
        vec![format!("The log has {:.0} MB; time counts from the first event that arrives to the last.", bytes / 1e6)];
    Outcome { figures, plots: Vec::new(), notes }
}

/// Blocks of a transaction of outbox rows and 99 of other rows, and one transaction of outbox rows at the end. Gives how
/// many of outbox rows there are.
async fn write(database: &mut Database, bytes: u64) -> u64 {
    let transaction = ROWS * (BYTES as u64 + 130);
    let blocks = (bytes / (transaction * 100)).max(1);
    let mut conn = database.connect().await;
    let (mut sql, mut other) = (String::new(), 0);
    for block in 0..=blocks {
        sql.clear();
        insert(0, &mut sql);
        for number in database.take_numbers(0, ROWS) {
            write_row(0, number, BYTES, &mut sql);
            sql.push(',');
        }
        sql.pop();
        conn.query_drop(sql.as_str()).await.unwrap();
        for _ in 0..if block == blocks { 0 } else { 99 } {
            sql.clear();
            sql.push_str(
                "INSERT INTO `delivery`.`delivery-other` (id, aggregatetype, aggregateid, type, payload) VALUES ",
            );
            for _ in 0..ROWS {
                write_row(1, other, BYTES, &mut sql);
                sql.push(',');
                other += 1;
            }
            sql.pop();
            conn.query_drop(sql.as_str()).await.unwrap();
        }
    }
    conn.disconnect().await.unwrap();
    blocks + 1
}
