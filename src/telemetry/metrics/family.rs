//! One metric: its name, what it says, and how its value is found.

use prometheus::proto::{Bucket, Counter, Gauge, Histogram as Told, LabelPair, Metric, MetricFamily, MetricType};

use crate::relay::stats::histogram::Histogram;

/// One metric of whatever is an `S`.
pub(super) struct Family<S> {
    pub(super) name: &'static str,
    /// For people, also in docs/metrics.md: no full stop.
    pub(super) help: &'static str,
    pub(super) of: Of<S>,
}

/// How the value is found.
pub(super) enum Of<S> {
    /// What was counted since the process started.
    Count(fn(&S) -> u64),
    /// The same, by a label's values.
    CountBy(&'static str, fn(&S) -> Vec<(&'static str, u64)>),
    /// How much there is now.
    Level(fn(&S) -> u64),
    /// The same, by a label's values.
    LevelBy(&'static str, fn(&S) -> Vec<(&'static str, u64)>),
    /// Seconds, as of the time that is given in microseconds since the Unix epoch.
    Seconds(fn(&S, u64) -> f64),
    /// What is not always known.
    Known(fn(&S) -> Option<f64>),
    /// Durations.
    Times(fn(&S) -> &Histogram),
}

/// How many, as Prometheus counts.
#[allow(clippy::cast_precision_loss, reason = "exact up to 2^53")]
pub(super) fn real(value: u64) -> f64 {
    value as f64
}

impl<S> Family<S> {
    /// The name of its type, and its label besides the table's.
    pub(super) fn kind(&self) -> (&'static str, Option<&'static str>) {
        match self.of {
            Of::Count(_) => ("counter", None),
            Of::CountBy(label, _) => ("counter", Some(label)),
            Of::Level(_) | Of::Seconds(_) | Of::Known(_) => ("gauge", None),
            Of::LevelBy(label, _) => ("gauge", Some(label)),
            Of::Times(_) => ("histogram", None),
        }
    }

    /// What it is of each of these, which are labelled by their tables if they are tables.
    pub(super) fn tell(&self, all: &[(Option<String>, &S)], now_micros: u64) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(match self.of {
            Of::Count(_) | Of::CountBy(..) => MetricType::COUNTER,
            Of::Level(_) | Of::LevelBy(..) | Of::Seconds(_) | Of::Known(_) => MetricType::GAUGE,
            Of::Times(_) => MetricType::HISTOGRAM,
        });
        for (table, one) in all {
            let labels = |further: Option<(&str, &str)>| {
                let table = table.as_deref().map(|table| ("table", table));
                table.into_iter().chain(further).map(|(name, value)| label(name, value)).collect::<Vec<_>>()
            };
            let metrics = family.mut_metric();
            match self.of {
                Of::Count(count) => metrics.push(counter(labels(None), count(one))),
                Of::CountBy(name, counts) => {
                    metrics.extend(counts(one).into_iter().map(|(by, count)| counter(labels(Some((name, by))), count)));
                }
                Of::Level(level) => metrics.push(gauge(labels(None), real(level(one)))),
                Of::LevelBy(name, levels) => {
                    let levels = levels(one).into_iter();
                    metrics.extend(levels.map(|(by, level)| gauge(labels(Some((name, by))), real(level))));
                }
                Of::Seconds(seconds) => metrics.push(gauge(labels(None), seconds(one, now_micros))),
                Of::Known(known) => metrics.extend(known(one).map(|value| gauge(labels(None), value))),
                Of::Times(times) => metrics.push(histogram(labels(None), times(one))),
            }
        }
        family
    }
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value.to_owned());
    label
}

fn counter(labels: Vec<LabelPair>, value: u64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(real(value));
    let mut metric = Metric::from_label(labels);
    metric.set_counter(counter);
    metric
}

fn gauge(labels: Vec<LabelPair>, value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::from_label(labels);
    metric.set_gauge(gauge);
    metric
}

fn histogram(labels: Vec<LabelPair>, times: &Histogram) -> Metric {
    let mut told = Told::default();
    let mut buckets = Vec::new();
    for (bound, below) in times.cumulated() {
        told.set_sample_count(below);
        // The last one, without a bound, is the encoder's.
        if let Some(micros) = bound {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(real(micros) / 1e6);
            bucket.set_cumulative_count(below);
            buckets.push(bucket);
        }
    }
    told.set_bucket(buckets);
    told.set_sample_sum(real(times.sum_micros()) / 1e6);
    let mut metric = Metric::from_label(labels);
    metric.set_histogram(told);
    metric
}
