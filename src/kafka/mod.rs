//! Kafka: the producers behind the outlets, and positions in a topic.

pub mod delivery;
mod error;
mod exactly;
mod outlet;
pub mod preflight;
mod producer;
pub mod settings;
mod store;

pub use exactly::ExactlyOnce;
pub use outlet::AtLeastOnce;
pub use producer::{ProducerError, Producers, Publisher};
pub use store::KafkaStore;
