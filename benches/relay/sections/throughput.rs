//! Working off what is there.

use super::race::{Race, race};
use super::{Bench, Loaded, Outcome};
use crate::drain::Drain;
use crate::figures::{Figure, Kind, Plot, Series};
use crate::workload::Workload;

/// The bars of a comparison.
struct Bars {
    /// Steady throughput against one connector for each table, and against one for all.
    each: f64,
    one: f64,
    /// The same from the start of the process to the last event.
    whole: Option<(f64, f64)>,
    /// Microseconds of processor beyond librdkafka alone.
    own: f64,
}

fn all(drains: &[Drain], value: impl Fn(&Drain) -> f64) -> Vec<f64> {
    drains.iter().map(value).collect()
}

fn figures(race: &Race, bars: &Bars) -> Vec<Figure> {
    let steady = all(&race.outboxd, Drain::steady);
    let cpu = all(&race.outboxd, |drain| drain.cpu_each().total());
    let own = cpu.iter().zip(&race.alone_cpu).map(|(cpu, alone)| cpu - alone).collect();
    let peak = |drains: &[Drain]| all(drains, |drain| drain.peak / 1e6);
    let mut figures = vec![
        Figure::new("outboxd: throughput", "k/s", steady.iter().map(|rate| rate / 1e3).collect()),
        Figure::new("librdkafka alone: throughput", "k/s", race.alone_rate.iter().map(|rate| rate / 1e3).collect()),
        Figure::ratio("outboxd against librdkafka alone", &steady, &race.alone_rate).at_least(0.85),
        Figure::new("outboxd: CPU of an event, from the start", "µs", cpu),
        Figure::new("librdkafka alone: CPU of an event", "µs", race.alone_cpu.clone()),
        Figure::new("outboxd: CPU of an event beyond librdkafka alone", "µs", own).at_most(bars.own),
        Figure::new("outboxd: peak of memory, 4 tables", "MB", peak(&race.outboxd)).at_most(64.0),
    ];
    let layouts = [("one connector each", &race.each, bars.each), ("one connector for all", &race.one, bars.one)];
    for (place, (layout, drains, bar)) in layouts.into_iter().enumerate().filter(|(_, layout)| !layout.1.is_empty()) {
        let theirs = all(drains, Drain::steady);
        figures.push(Figure::new(
            format!("Debezium, {layout}: throughput"),
            "k/s",
            theirs.iter().map(|rate| rate / 1e3).collect(),
        ));
        figures.push(Figure::ratio(format!("outboxd against Debezium, {layout}"), &steady, &theirs).at_least(bar));
        let (ours, theirs) = (all(&race.outboxd, Drain::whole), all(drains, Drain::whole));
        let whole = Figure::ratio(format!("the same, from process start to the last event, {layout}"), &theirs, &ours);
        let bar = bars.whole.map(|bars| if place == 0 { bars.0 } else { bars.1 });
        figures.push(if let Some(bar) = bar { whole.at_least(bar) } else { whole });
        let cpu = all(drains, |drain| drain.cpu_each().total());
        figures.push(Figure::new(format!("Debezium, {layout}: CPU of an event, from the start"), "µs", cpu));
        let cpu = all(drains, Drain::steady_cpu_each);
        figures.push(Figure::new(format!("Debezium, {layout}: CPU of an event, second half"), "µs", cpu));
        figures.push(Figure::new(format!("Debezium, {layout}: peak of memory"), "MB", peak(drains)));
        figures.push(Figure::new(format!("Debezium, {layout}: start to first event"), "s", all(drains, Drain::first)));
    }
    figures
}

fn plots(race: &Race, suffix: &str, of: &str) -> Vec<Plot> {
    let last = [
        ("outboxd", race.outboxd.last()),
        ("Debezium, one connector each", race.each.last()),
        ("Debezium, one connector for all", race.one.last()),
    ];
    let last: Vec<_> = last.into_iter().filter_map(|(name, drain)| Some((name, drain?))).collect();
    let plot = |name: &str, title: &str, x: &str, y: &str, kind, series| Plot {
        name: format!("{name}{suffix}"),
        title: format!("{title}, {of}"),
        x: x.to_owned(),
        y: y.to_owned(),
        kind,
        series,
    };
    let series = |points: fn(&Drain) -> Vec<(f64, f64)>| {
        last.iter().map(|(name, drain)| Series::new(*name, points(drain))).collect::<Vec<_>>()
    };
    let bars = |value: fn(&Drain) -> f64| {
        let values = last.iter().enumerate();
        values.map(|(place, (_, drain))| (f64::from(u32::try_from(place).unwrap()), value(drain))).collect()
    };
    let mut user = Series::new("in the program", bars(|drain| drain.cpu_each().user));
    user.labels = last.iter().map(|(name, _)| (*name).to_owned()).collect();
    let system = Series::new("in the kernel", bars(|drain| drain.cpu_each().system));
    let seconds = "seconds since the process was started";
    vec![
        plot("throughput", "Throughput", seconds, "events a second", Kind::Curves, series(Drain::throughput)),
        plot("memory", "Memory", seconds, "MiB", Kind::Curves, series(Drain::memory)),
        plot("cpu", "CPU of an event, from the start", "", "µs", Kind::Stacked, vec![user, system]),
    ]
}

pub(crate) async fn batches(bench: &Bench) -> Outcome {
    let race = race(bench, Workload::of(bench.scale.events), bench.scale.debezium.layouts(true)).await;
    let bars = Bars { each: 6.5, one: 5.0, whole: Some((10.0, 8.0)), own: 1.0 };
    Outcome { figures: figures(&race, &bars), plots: plots(&race, "", "transactions of 100 rows"), notes: race.notes }
}

pub(crate) async fn singles(bench: &Bench) -> Outcome {
    let workload = Workload { rows: 1, ..Workload::of(bench.scale.single) };
    let race = race(bench, workload, bench.scale.debezium.layouts(false)).await;
    let bars = Bars { each: 10.0, one: 5.0, whole: None, own: 2.2 };
    let plots = plots(&race, "-single-row", "single-row transactions");
    Outcome { figures: figures(&race, &bars), plots, notes: race.notes }
}

/// Without Debezium. What an event costs for itself and for each kilobyte of it is what docs/sizing.md reckons with; a size
/// that is no part of that shows how near it comes.
pub(crate) async fn sizes(bench: &Bench) -> Outcome {
    let mut outcome = Outcome::default();
    let mut costs: Vec<(f64, Vec<f64>)> = Vec::new();
    for (bytes, rows, name) in [
        (100, 100, "100 bytes"),
        (4_096, 100, "4 KB"),
        (65_536, 100, "64 KB"),
        (450, 500, "450 bytes, transactions of 500 rows"),
    ] {
        let events = (bench.scale.payload / bytes).min(bench.scale.events) / 400 * 400;
        let workload = Workload { bytes: usize::try_from(bytes).unwrap(), rows, ..Workload::of(events.max(400)) };
        let race = race(bench, workload, &[]).await;
        let steady = all(&race.outboxd, Drain::steady);
        let cpu = all(&race.outboxd, |drain| drain.cpu_each().total());
        costs.push((race.value / 1e3, cpu.clone()));
        outcome.figures.extend([
            Figure::new(format!("{name}: throughput"), "k/s", steady.iter().map(|rate| rate / 1e3).collect()),
            Figure::ratio(format!("{name}: against librdkafka alone"), &steady, &race.alone_rate),
            Figure::new(format!("{name}: CPU of an event, from the start"), "µs", cpu),
            Figure::new(format!("{name}: CPU of an event, librdkafka alone"), "µs", race.alone_cpu),
            Figure::new(format!("{name}: peak of memory"), "MB", all(&race.outboxd, |drain| drain.peak / 1e6)),
        ]);
        outcome.notes.extend(race.notes.into_iter().map(|note| format!("{name}: {note}")));
    }
    outcome.figures.extend(reckoned(&costs));
    outcome
}

/// From the CPU of events of several lengths (in kilobytes), run by run: what the smallest and the largest make of an event
/// and of a kilobyte, and how near that comes to the last.
fn reckoned(costs: &[(f64, Vec<f64>)]) -> Vec<Figure> {
    let [(small, least), .., (large, most), (length, measured)] = costs else { return Vec::new() };
    let kilobyte: Vec<_> = least.iter().zip(most).map(|(least, most)| (most - least) / (large - small)).collect();
    let event: Vec<_> = least.iter().zip(&kilobyte).map(|(least, kilobyte)| least - kilobyte * small).collect();
    let formula: Vec<_> = event.iter().zip(&kilobyte).map(|(event, kilobyte)| event + kilobyte * length).collect();
    vec![
        Figure::new("CPU of an event for itself", "µs", event),
        Figure::new("CPU of each kilobyte of an event", "µs", kilobyte),
        Figure::ratio("450 bytes: measured against the formula", measured, &formula).at_most(1.25),
    ]
}

pub(crate) async fn exactly_once(bench: &Bench) -> Outcome {
    let loaded = Loaded::new(Workload::of(bench.scale.events)).await;
    loaded.warm_up(bench, false).await;
    loaded.warm_up(bench, true).await;
    let (mut least, mut exactly) = (Vec::new(), Vec::new());
    for _ in 0..bench.scale.runs {
        for (exactly_once, drains) in [(false, &mut least), (true, &mut exactly)] {
            let (drain, topic, _) = loaded.drain(bench, exactly_once, true).await;
            bench.kafka.delete(&topic).await;
            drains.push(drain);
        }
    }
    let (at_least, exact) = (all(&least, Drain::steady), all(&exactly, Drain::steady));
    let figures = vec![
        Figure::new("at least once: throughput", "k/s", at_least.iter().map(|rate| rate / 1e3).collect()),
        Figure::new("exactly once: throughput", "k/s", exact.iter().map(|rate| rate / 1e3).collect()),
        Figure::ratio("exactly once against at least once", &exact, &at_least).at_least(0.9),
        Figure::new("exactly once: peak of memory", "MB", all(&exactly, |drain| drain.peak / 1e6)),
    ];
    Outcome { figures, ..Outcome::default() }
}
