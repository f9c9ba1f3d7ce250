//! The same rate over more and more tables, and many tables that catch up at once.

use super::{Bench, Loaded, Outcome};
use crate::drain::Drain;
use crate::figures::{Figure, Kind, Plot, Series};
use crate::latency::{Pace, measure};
use crate::outboxd::Daemon;
use crate::stage::Database;
use crate::topic::check;
use crate::workload::Workload;

/// Transactions a second, of so many rows each.
const RATE: u32 = 500;
const ROWS: u64 = 10;

/// Tables that memory is compared with.
const FEW: usize = 4;

/// So many scrapes of the metrics are timed together, of which Prometheus makes one every fifteen seconds.
const SCRAPES: u32 = 200;
const SCRAPE_EVERY: f64 = 15.0;

pub(crate) async fn run(bench: &Bench) -> Outcome {
    let counts = bench.scale.tables;
    let most = counts.iter().copied().max().unwrap_or(1);
    let mut database = Database::start(most).await;
    let mut used: Vec<Vec<f64>> = counts.iter().map(|_| Vec::new()).collect();
    let mut scraped = Vec::new();
    for run in 0..bench.scale.runs {
        eprintln!("  run {} of {}", run + 1, bench.scale.runs);
        for (tables, used) in counts.iter().zip(&mut used) {
            let (event, scrape) = paced(bench, &mut database, *tables).await;
            used.push(event);
            if *tables == most {
                scraped.push(scrape * 100.0 / SCRAPE_EVERY);
            }
        }
    }
    let mut figures: Vec<_> = counts
        .iter()
        .zip(&used)
        .map(|(tables, used)| {
            Figure::new(format!("{tables} tables: CPU of an event, 5,000 a second"), "µs", used.clone())
        })
        .collect();
    if let [first, .., last] = &used[..] {
        figures.push(Figure::ratio(format!("{most} tables against 1: CPU of an event"), last, first).at_most(1.3));
    }
    let name = format!("{most} tables, a scrape of their metrics every {SCRAPE_EVERY} s: of a core");
    figures.push(Figure::new(name, "%", scraped).at_most(1.0));
    let points = counts
        .iter()
        .zip(&figures)
        .map(|(tables, figure)| (f64::from(u32::try_from(*tables).unwrap()), figure.median()));
    let plot = Plot {
        name: "tables".to_owned(),
        title: "CPU of an event by the number of tables, 5,000 events a second".to_owned(),
        x: "tables".to_owned(),
        y: "µs".to_owned(),
        kind: Kind::Curves,
        series: vec![Series::new("outboxd", points.collect())],
    };
    drop(database);
    let (few, many) = (catching_up(bench, FEW).await, catching_up(bench, most).await);
    let all = |value: fn(&Drain) -> f64| many.iter().map(value).collect::<Vec<_>>();
    let further = f64::from(u32::try_from(most.saturating_sub(FEW).max(1)).unwrap());
    let each = few.iter().zip(&many).map(|(few, many)| (many.peak - few.peak) / 1e6 / further).collect();
    figures.extend([
        Figure::new(format!("{most} tables catch up: peak of memory"), "MB", all(|drain| drain.peak / 1e6))
            .at_most(160.0),
        Figure::new(format!("each table beyond {FEW}: peak of memory"), "MB", each),
        Figure::new(format!("{most} tables catch up: throughput"), "k/s", all(|drain| drain.steady() / 1e3)),
        Figure::new(format!("{most} tables catch up: CPU of an event"), "µs", all(|drain| drain.cpu_each().total())),
    ]);
    Outcome { figures, plots: vec![plot], notes: Vec::new() }
}

/// Of a processor: microseconds an event, and seconds a scrape.
#[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
async fn paced(bench: &Bench, database: &mut Database, tables: usize) -> (f64, f64) {
    let topic = bench.kafka.topic().await;
    let kafka = bench.kafka.address();
    let from = database.mark().await;
    let mut daemon = Daemon::spawn((&*database, &bench.kafka), (&from, tables, &topic), (bench.path(), false)).await;
    daemon.ready();
    let before = daemon.running.cpu();
    let pace = Pace { tables, rate: RATE, rows: ROWS, bytes: 450, duration: bench.scale.pace };
    let measured = measure(database, (&kafka, &topic), (pace, false)).await;
    let used = daemon.running.cpu().since(before).total();
    let (before, count) = (daemon.running.cpu(), daemon.counter());
    (0..SCRAPES).for_each(|_| _ = count());
    let scraping = daemon.running.cpu().since(before).total();
    daemon.running.stop();
    check(&kafka, &topic, &measured.expected);
    bench.kafka.delete(&topic).await;
    (used * 1e6 / measured.expected.count() as f64, scraping / f64::from(SCRAPES))
}

async fn catching_up(bench: &Bench, tables: usize) -> Vec<Drain> {
    let loaded = Loaded::new(Workload { tables, ..Workload::of(bench.scale.events) }).await;
    let mut drains = Vec::new();
    for _ in 0..bench.scale.runs {
        let (drain, topic, _) = loaded.drain(bench, false, false).await;
        bench.kafka.delete(&topic).await;
        drains.push(drain);
    }
    drains
}
