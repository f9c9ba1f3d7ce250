//! Whether a long backlog is worked off as fast at its end as at its beginning, in the same memory.

use super::{Bench, Loaded, Outcome};
use crate::figures::{Figure, Kind, Plot, Series};
use crate::workload::Workload;

/// A day at 1,000 events a second.
const DAY: f64 = 86_400_000.0;

#[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub(crate) async fn run(bench: &Bench) -> Outcome {
    let loaded = Loaded::new(Workload::of(bench.scale.backlog)).await;
    let (drain, topic, _) = loaded.drain(bench, false, false).await;
    bench.kafka.delete(&topic).await;
    let tenth = |place: u32| drain.rate_between(f64::from(place) / 10.0, f64::from(place + 1) / 10.0);
    let (early, late) = (drain.rate_between(0.1, 0.5), drain.rate_between(0.5, 1.0));
    let half = drain.points.iter().partition::<Vec<_>, _>(|point| point.events < loaded.workload.events as f64 / 2.0);
    let peak = |points: &[&crate::drain::Point]| points.iter().map(|point| point.memory).fold(0.0, f64::max);
    let figures = vec![
        Figure::new("throughput", "k/s", (0..10).map(|place| tenth(place) / 1e3).collect()),
        Figure::new("second half against the first: throughput", "×", vec![late / early]).at_least(0.9),
        Figure::new("second half against the first: memory", "×", vec![peak(&half.1) / peak(&half.0)]).at_most(1.1),
        Figure::new("peak of memory", "MB", vec![drain.peak / 1e6]).at_most(64.0),
        Figure::new(
            "a day at 1,000 events a second, by extrapolation",
            "min",
            vec![DAY / drain.rate_between(0.1, 1.0) / 60.0],
        ),
    ];
    let plot = Plot {
        name: "backlog".to_owned(),
        title: format!("Memory while {} events are worked off", loaded.workload.events),
        x: "seconds since the process was started".to_owned(),
        y: "MiB".to_owned(),
        kind: Kind::Curves,
        series: vec![Series::new("outboxd", drain.memory())],
    };
    let notes = vec!["The least and the most throughput are those of a tenth of the events.".to_owned()];
    Outcome { figures, plots: vec![plot], notes }
}
