//! Metrics of what went wrong and was dealt with.

use prometheus::{IntCounterVec, Opts, Registry};

use crate::relay::stats::{RETRIES, TableStats};

pub(super) struct Trouble {
    retries: IntCounterVec,
}

impl Trouble {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let retries =
            Opts::new("outboxd_retries_total", "Fresh starts of the relay from its durable position, by what failed");
        let retries = IntCounterVec::new(retries, &["table", "class"])?;
        registry.register(Box::new(retries.clone()))?;
        Ok(Self { retries })
    }

    /// What a table tells of itself, as of now.
    pub(super) fn tell(&self, stats: &TableStats, name: &str) {
        for (class, retries) in RETRIES.into_iter().zip(stats.retries()) {
            let counter = self.retries.with_label_values(&[name, class]);
            counter.inc_by(retries.saturating_sub(counter.get()));
        }
    }
}
