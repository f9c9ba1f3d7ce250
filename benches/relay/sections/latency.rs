//! From commit to consumer: the daemon in both guarantees, a bare loop, and Debezium tuned for it.

use std::process::Command;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::{Bench, Outcome, Rival};
use crate::debezium::{Debezium, Layout, Profile};
use crate::direct::Direct;
use crate::figures::{Figure, Kind, Plot, Series};
use crate::latency::{Pace, measure};
use crate::outboxd::Daemon;
use crate::process::Running;
use crate::stage::Database;
use crate::topic::check;

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Outboxd,
    ExactlyOnce,
    Bare,
    Debezium,
}

impl Who {
    fn name(self) -> &'static str {
        match self {
            Self::Outboxd => "outboxd",
            Self::ExactlyOnce => "outboxd, exactly once, read_committed",
            Self::Bare => "a bare loop",
            Self::Debezium => "Debezium, one connector for all, tuned for latency",
        }
    }
}

/// Milliseconds and microseconds of processor, run by run.
#[derive(Default)]
struct Runs {
    p50: Vec<f64>,
    p99: Vec<f64>,
    cpu: Vec<f64>,
    last: Option<Histogram<u64>>,
}

const TABLES: usize = 4;

pub(crate) async fn run(bench: &Bench) -> Outcome {
    let mut database = Database::start(TABLES).await;
    let mut everyone = vec![Who::Outboxd, Who::Bare, Who::ExactlyOnce];
    let mut debezium = None;
    if bench.scale.debezium == Rival::Everywhere {
        let place = (&mut database, &bench.kafka);
        debezium = Some(Debezium::settle(place, (TABLES, Layout::One), (Profile::TunedForLatency, bench.path())).await);
        everyone.push(Who::Debezium);
    }
    let mut runs: Vec<Runs> = everyone.iter().map(|_| Runs::default()).collect();
    // A little of everything is no figure to rely on, and has no time for it.
    if !bench.scale.warm.is_zero() {
        eprintln!("  a round to warm up");
        for who in &everyone {
            one(bench, &mut database, (*who, debezium.as_ref()), &mut Runs::default()).await;
        }
    }
    for run in 0..bench.scale.runs {
        eprintln!("  run {} of {}", run + 1, bench.scale.runs);
        for (who, runs) in everyone.iter().zip(&mut runs) {
            one(bench, &mut database, (*who, debezium.as_ref()), runs).await;
        }
    }
    Outcome { figures: figures(&everyone, &runs), plots: vec![plot(&everyone, &runs)], notes: Vec::new() }
}

#[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
async fn one(bench: &Bench, database: &mut Database, (who, debezium): (Who, Option<&Debezium>), runs: &mut Runs) {
    let topic = bench.kafka.topic().await;
    let kafka = bench.kafka.address();
    let from = database.mark().await;
    let exactly_once = who == Who::ExactlyOnce;
    let mut running = match who {
        Who::Outboxd | Who::ExactlyOnce => {
            let place = (&*database, &bench.kafka);
            let mut daemon = Daemon::spawn(place, (&from, TABLES, &topic), (bench.path(), exactly_once)).await;
            daemon.ready();
            daemon.running
        }
        Who::Bare => {
            let direct = Direct {
                kafka: kafka.clone(),
                mysql: database.port(),
                gtids: from.gtids.clone(),
                topic: topic.clone(),
                tables: TABLES,
            };
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(direct.arguments());
            Running::spawn(&command, bench.path().join("direct.log"))
        }
        Who::Debezium => debezium.unwrap().spawn(database, &bench.kafka, &topic),
    };
    // What happens with the first event only is over before it is measured: connections, partitions, classes.
    let warm = Pace { tables: TABLES, rate: 100, rows: 1, bytes: 450, duration: Duration::from_secs(1) };
    measure(database, (&kafka, &topic), (warm, exactly_once)).await;
    let before = running.cpu();
    let pace = Pace { rate: 1_000, duration: bench.scale.latency, ..warm };
    let measured = measure(database, (&kafka, &topic), (pace, exactly_once)).await;
    let cpu = running.cpu().since(before).total();
    running.must_run();
    runs.cpu.push(cpu * 1e6 / measured.expected.count() as f64);
    runs.p50.push(measured.micros.value_at_quantile(0.5) as f64 / 1e3);
    runs.p99.push(measured.micros.value_at_quantile(0.99) as f64 / 1e3);
    runs.last = Some(measured.micros);
    // With its end a connector saves how far it has come.
    if who == Who::Bare {
        drop(running);
    } else {
        running.stop();
    }
    check(&kafka, &topic, &measured.expected);
    bench.kafka.delete(&topic).await;
}

fn figures(everyone: &[Who], all: &[Runs]) -> Vec<Figure> {
    let of = |wanted: Who| everyone.iter().zip(all).find(|(who, _)| **who == wanted).map(|(_, runs)| runs);
    let mut figures = Vec::new();
    for (who, runs) in everyone.iter().zip(all) {
        let bars = (*who == Who::ExactlyOnce).then_some((8.0, 25.0));
        for (quantile, values, bar) in
            [("p50", &runs.p50, bars.map(|bars| bars.0)), ("p99", &runs.p99, bars.map(|bars| bars.1))]
        {
            let figure = Figure::new(format!("{}: {quantile}", who.name()), "ms", values.clone());
            figures.push(if let Some(bar) = bar { figure.at_most(bar) } else { figure });
        }
        let cpu = Figure::new(format!("{}: CPU of an event at that rate", who.name()), "µs", runs.cpu.clone());
        figures.push(if *who == Who::Outboxd { cpu.at_most(60.0) } else { cpu });
    }
    if let (Some(ours), Some(bare)) = (of(Who::Outboxd), of(Who::Bare)) {
        figures.push(Figure::ratio("outboxd against a bare loop: p50", &ours.p50, &bare.p50).at_most(1.3));
        figures.push(Figure::ratio("outboxd against a bare loop: p99", &ours.p99, &bare.p99).at_most(1.5));
    }
    figures
}

#[allow(clippy::cast_precision_loss, reason = "microseconds far below 2^52")]
fn plot(everyone: &[Who], all: &[Runs]) -> Plot {
    let curve = |histogram: &Histogram<u64>| {
        let values = histogram.iter_recorded();
        values.map(|value| (value.value_iterated_to().max(1) as f64 / 1e3, value.percentile())).collect()
    };
    let series = everyone.iter().zip(all);
    Plot {
        name: "latency".to_owned(),
        title: "From commit to consumer, 1,000 single-row commits a second".to_owned(),
        x: "milliseconds".to_owned(),
        y: "percent of the events".to_owned(),
        kind: Kind::Logarithmic,
        series: series.filter_map(|(who, runs)| Some(Series::new(who.name(), curve(runs.last.as_ref()?)))).collect(),
    }
}
