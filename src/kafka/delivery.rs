//! How firmly records are delivered.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The guarantee, and the transactions that carry the stronger one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeliverySettings {
    /// Which guarantee.
    pub guarantee: Guarantee,
    /// A transaction is committed as soon as nothing more waits for it, and after this long in any case.
    #[serde(with = "humantime_serde")]
    pub commit_interval: Duration,
    /// A transaction is committed when it has so many events, in any case.
    pub commit_events: u64,
    /// Transactional ids are this, a hyphen, and the table's name. Daemons that relay different servers into one cluster
    /// need different ones.
    pub transactional_id: String,
    /// After how long the cluster gives a transaction up whose producer is gone; the property `transaction.timeout.ms`.
    #[serde(with = "humantime_serde")]
    pub transaction_timeout: Duration,
}

impl Default for DeliverySettings {
    fn default() -> Self {
        Self {
            guarantee: Guarantee::AtLeastOnce,
            commit_interval: Duration::from_millis(100),
            commit_events: 10_000,
            transactional_id: "outboxd".to_owned(),
            transaction_timeout: Duration::from_mins(1),
        }
    }
}

/// What a consumer may count on after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guarantee {
    /// Nothing is lost; what was in flight may come twice.
    #[default]
    AtLeastOnce,
    /// A consumer that reads committed records only sees each event once.
    ExactlyOnce,
}
