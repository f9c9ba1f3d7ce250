//! Which rows are deleted, and how often somebody looks for them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Cleaning of the outbox tables; off unless `keep` is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CleanupSettings {
    /// How old a row has to be, by its timestamp column, to be deleted once Kafka has acknowledged it.
    #[serde(with = "humantime_serde")]
    pub keep: Option<Duration>,
    /// How often a table is looked through.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
}

impl Default for CleanupSettings {
    fn default() -> Self {
        Self { keep: None, interval: Duration::from_mins(1) }
    }
}
