//! How firmly records are delivered.

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::outbox::aside::{Aside, AsideTopic, OnPoison};

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
    /// Transactional ids are this, a hyphen or a plus, and the table's name: two for each table, in turn. Daemons that relay different servers into one cluster
    /// need different ones.
    pub transactional_id: String,
    /// After how long the cluster gives a transaction up whose producer is gone; the property `transaction.timeout.ms`.
    #[serde(with = "humantime_serde")]
    pub transaction_timeout: Duration,
    /// What becomes of an event that cannot be delivered while others can.
    pub on_poison: OnPoison,
    /// Where parked events go; `{topic}` is where they would have gone.
    pub parking_topic: String,
    /// Where dead letters go; `{topic}` is where they would have gone.
    pub dead_letter_topic: String,
    /// Aggregates of a table that may be parked at a time; with more of them the table halts.
    pub parked_aggregates: u64,
    /// Events of a table that may be.
    pub parked_events: u64,
    /// How large they may be together. A release holds those of one aggregate in memory.
    #[serde(with = "crate::size")]
    pub parked_bytes: ByteSize,
}

impl DeliverySettings {
    /// What is done with events that cannot be delivered; or the key that is wrong, and its value.
    pub fn aside(&self) -> Result<Aside, (&'static str, &str)> {
        let topic = |key, text| AsideTopic::parse(text).map_err(move |_| (key, text));
        Ok(Aside {
            on_poison: self.on_poison,
            parking: topic("parking_topic", self.parking_topic.as_str())?,
            dead_letters: topic("dead_letter_topic", self.dead_letter_topic.as_str())?,
            aggregates: self.parked_aggregates,
            events: self.parked_events,
            bytes: self.parked_bytes.as_u64(),
        })
    }
}

impl Default for DeliverySettings {
    fn default() -> Self {
        Self {
            guarantee: Guarantee::AtLeastOnce,
            commit_interval: Duration::from_millis(100),
            commit_events: 10_000,
            transactional_id: "outboxd".to_owned(),
            transaction_timeout: Duration::from_mins(1),
            on_poison: OnPoison::Halt,
            parking_topic: "outboxd.parked.{topic}".to_owned(),
            dead_letter_topic: "outboxd.dead.{topic}".to_owned(),
            parked_aggregates: 100,
            parked_events: 10_000,
            parked_bytes: ByteSize::mib(64),
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
