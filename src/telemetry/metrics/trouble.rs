//! Metrics of what went wrong and was dealt with.

use std::sync::atomic::Ordering::Relaxed;

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

use crate::relay::stats::{RETRIES, TableStats};

pub(super) struct Trouble {
    retries: IntCounterVec,
    parked: IntCounterVec,
    dead_letters: IntCounterVec,
    parked_aggregates: IntGaugeVec,
    parked_events: IntGaugeVec,
}

impl Trouble {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let retries =
            Opts::new("outboxd_retries_total", "Fresh starts of the relay from its durable position, by what failed");
        let retries = IntCounterVec::new(retries, &["table", "class"])?;
        registry.register(Box::new(retries.clone()))?;
        let counter = |name: &str, help: &str| -> Result<IntCounterVec, prometheus::Error> {
            let metric = IntCounterVec::new(Opts::new(name, help), &["table"])?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGaugeVec, prometheus::Error> {
            let metric = IntGaugeVec::new(Opts::new(name, help), &["table"])?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        Ok(Self {
            retries,
            parked: counter("outboxd_parked_events_total", "Events that were parked")?,
            dead_letters: counter(
                "outboxd_dead_letters_total",
                "Events that were set aside alone; each is a hole in the order of its aggregate",
            )?,
            parked_aggregates: gauge("outboxd_parked_aggregates", "Aggregates that are parked now")?,
            parked_events: gauge("outboxd_parked_events", "Events that are parked now")?,
        })
    }

    /// What a table tells of itself, as of now.
    pub(super) fn tell(&self, stats: &TableStats, name: &str) {
        for (class, retries) in RETRIES.into_iter().zip(stats.retries()) {
            let counter = self.retries.with_label_values(&[name, class]);
            counter.inc_by(retries.saturating_sub(counter.get()));
        }
        for (metric, value) in [(&self.parked, &stats.parked_total), (&self.dead_letters, &stats.dead_letters)] {
            let counter = metric.with_label_values(&[name]);
            counter.inc_by(value.load(Relaxed).saturating_sub(counter.get()));
        }
        let parked = stats.parked();
        self.parked_aggregates.with_label_values(&[name]).set(i64::try_from(parked.len()).unwrap_or(i64::MAX));
        self.parked_events.with_label_values(&[name]).set(i64::try_from(parked.events()).unwrap_or(i64::MAX));
    }
}
