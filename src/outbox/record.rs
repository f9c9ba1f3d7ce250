//! The Kafka message made from an event.

use std::fmt;

/// The header of a record that was published because it was missing; its value is `1`.
pub const REPAIR_HEADER: &str = "outboxd-repair";

/// The header of a record that is published again on an operator's command; its value names the replay.
pub const REPLAY_HEADER: &str = "outboxd-replay";

/// The header of a record whose row was read in the table, not in the log: its time is not that of its commit, and its order is
/// that of the table's key; its value is `1`.
pub const SNAPSHOT_HEADER: &str = "outboxd-snapshot";

/// Headers of records that were published out of their turn because somebody asked for it.
pub const AGAIN_HEADERS: [&str; 2] = [REPAIR_HEADER, REPLAY_HEADER];

/// One header, borrowed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// Name.
    pub name: &'a str,
    /// Value; `None` is a null value.
    pub value: Option<&'a [u8]>,
}

/// A record, borrowed from the batch that its row is in.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Key: the aggregate id. Kafka partitions by it, unless a partition is given.
    pub key: &'a [u8],
    /// Number of the partition, from 0.
    pub partition: Option<i32>,
    /// Value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Commit time, or the time in the configured column, in milliseconds since the Unix epoch.
    pub timestamp_millis: i64,
    /// Headers, in order.
    pub headers: &'a [Header<'a>],
}

impl fmt::Debug for Record<'_> {
    /// Topic and sizes only: payloads and keys never reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value.map_or(0, <[u8]>::len);
        write!(f, "Record(topic {}, key {} bytes, value {value} bytes)", self.topic, self.key.len())
    }
}
