//! Consumers of given partitions, from given offsets, that leave no trace.

use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;

use super::producer::client;
use super::settings::KafkaSettings;

/// What is fetched ahead of the reader, in KiB.
const FETCHED: &str = "8192";

/// Which records are seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Isolation {
    /// Those of committed transactions, and those outside of transactions.
    Committed,
    /// All.
    Uncommitted,
}

/// A consumer that tells when it is at an end. `group`: the client library asks for it; nothing is committed to it.
pub(super) fn consumer(
    settings: &KafkaSettings,
    group: &str,
    isolation: Isolation,
) -> Result<BaseConsumer, KafkaError> {
    let isolation = match isolation {
        Isolation::Committed => "read_committed",
        Isolation::Uncommitted => "read_uncommitted",
    };
    client(settings)
        .set("group.id", group)
        .set("isolation.level", isolation)
        .set("enable.partition.eof", "true")
        .set("queued.max.messages.kbytes", FETCHED)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .create()
}
