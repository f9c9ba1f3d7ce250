//! What a Debezium connector left behind: the offsets that Kafka Connect keeps for it.
//!
//! Promise: the position taken out of an offset is at or before the first event that the connector has not published, so
//! starting there loses nothing. Debezium's offset is where the transaction of its last event begins, and how many of its
//! events were sent; those are sent again.

pub mod java;
mod offset;

pub use offset::{Entry, OffsetError, Offsets};
