//! Kafka: the producers behind the outlets, positions in a topic, and topics read back.

mod aside;
mod consumer;
pub mod delivery;
mod error;
mod exactly;
pub mod offsets;
pub mod preflight;
mod producer;
pub mod readback;
pub mod security;
pub mod settings;
mod store;

pub use exactly::ExactlyOnce;
pub use producer::{ProducerError, Producers, Publisher};
pub use store::KafkaStore;

/// At least once through a table's own idempotent producer.
pub type AtLeastOnce<S> = crate::outlet::AtLeastOnce<producer::Publisher, S>;

/// The version of librdkafka that is linked.
pub fn library_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}
