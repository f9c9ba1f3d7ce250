//! Kafka: the producer behind the outlets.

mod error;
mod outlet;
pub mod preflight;
mod producer;
pub mod settings;

pub use outlet::AtLeastOnce;
pub use producer::{Producer, ProducerError, Publisher};
