//! What a comparison comes to.

use std::collections::BTreeMap;

use serde::Serialize;

/// One table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TableCounts {
    /// Events that are committed and asked after.
    pub committed: u64,
    /// Of those, events that are in their topic.
    pub delivered: u64,
    /// Of those, events that are not in their topic and need not be yet.
    pub in_flight: u64,
    /// Of those, events that must be in their topic and are not.
    pub missing: u64,
    /// Of those missing, events whose rows are in the table alone: the log does not reach back to them.
    pub missing_beyond_log: u64,
    /// Of those missing, events of an aggregate of which a later event has arrived, or may have.
    pub overtaken: u64,
    /// Of those overtaken, events whose rows are in the table alone: another one has arrived, and may be a later one.
    pub perhaps_overtaken: u64,
    /// Events that arrived first after a later one of their aggregate.
    pub out_of_order: u64,
    /// Records beyond the first of an event.
    pub duplicates: u64,
    /// Records that say of themselves that they were published again on request.
    pub published_again: u64,
    /// Not in the topic, and not missed: older than the first record of the partition, which has lost its beginning.
    pub expired: u64,
    /// Not in the topic, and not missed: the topic is compacted, and has a later record of the key, or may have.
    pub compacted: u64,
    /// Not in the topic, and only the table has them: the log could not be read to the end, and may have them as not due.
    pub unknown: u64,
}

/// One topic.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TopicCounts {
    /// Records that were read.
    pub records: u64,
    /// Records of no committed event.
    pub unexpected: u64,
    /// Records that no row is known of, for it may be from before the log begins: nothing can be said of them.
    pub unknown: u64,
}

/// What may be wrong with an event or a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Committed, due, and not in the topic.
    Missing,
    /// In the topic more than once.
    Duplicate,
    /// Arrived first after a later event of its aggregate.
    OutOfOrder,
    /// In the topic, and never committed.
    Unexpected,
}

/// An example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Number of the table; `None` where no row is known.
    pub table: Option<u16>,
    /// Number of the topic.
    pub topic: u16,
    /// The event's id.
    pub id: Vec<u8>,
    /// The record's key.
    pub aggregate: Vec<u8>,
    /// Partition and offset of the record.
    pub place: Option<(i32, i64)>,
    /// The record's timestamp, in milliseconds since the Unix epoch.
    pub millis: Option<i64>,
}

/// The first so many of each kind, by time, then by the order in which they were found.
#[derive(Debug)]
pub struct Examples {
    limit: usize,
    found: BTreeMap<(Kind, i64, u64), Finding>,
    counts: BTreeMap<Kind, usize>,
    numbered: u64,
}

impl Examples {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, found: BTreeMap::new(), counts: BTreeMap::new(), numbered: 0 }
    }

    pub(super) fn add(&mut self, kind: Kind, finding: Finding) {
        self.numbered += 1;
        self.found.insert((kind, finding.millis.unwrap_or(i64::MIN), self.numbered), finding);
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        if *count > self.limit {
            *count -= 1;
            let last = self.found.range(..=(kind, i64::MAX, u64::MAX)).next_back().map(|(key, _)| *key);
            last.map(|key| self.found.remove(&key));
        }
    }

    /// Those of all kinds.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, &Finding)> {
        self.found.iter().map(|((kind, ..), finding)| (*kind, finding))
    }
}

/// Everything that was found.
#[derive(Debug)]
pub struct Verdict {
    /// By number of the table.
    pub tables: Vec<TableCounts>,
    /// By number of the topic.
    pub topics: Vec<TopicCounts>,
    /// The first findings of each kind.
    pub examples: Examples,
}

impl Verdict {
    /// The sum over all tables.
    pub fn of_tables(&self, count: impl Fn(&TableCounts) -> u64) -> u64 {
        self.tables.iter().map(count).sum()
    }

    /// Records of no committed event, in all topics.
    pub fn unexpected(&self) -> u64 {
        self.topics.iter().map(|topic| topic.unexpected).sum()
    }
}
