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
    /// What is deleted at once.
    pub by: By,
}

/// How old rows are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// Some at a time, by their primary keys.
    #[default]
    Rows,
    /// Together with all others of their partition, once all of these are old.
    Partitions,
}

impl Default for CleanupSettings {
    fn default() -> Self {
        Self { keep: None, interval: Duration::from_mins(1), by: By::Rows }
    }
}
