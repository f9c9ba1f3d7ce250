//! What was delivered, held against the journal. Pure.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use super::fingerprint::Fingerprint;
use super::journal::{Event, Journal, Outcome};
use super::order::{self, Trouble};

/// How many findings of one kind are kept as samples.
pub const SAMPLES: usize = 10;

/// Where a record is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]@{}", self.topic, self.partition, self.offset)
    }
}

/// A record as it was read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// Where it is.
    pub place: Place,
    /// The key, which is the aggregate's id; empty if there is none.
    pub key: Arc<str>,
    /// Header `id`; empty if there is none.
    pub event_id: Arc<str>,
    /// Header `eventType`; empty if there is none.
    pub event_type: Arc<str>,
    /// The value's fingerprint.
    pub payload: Fingerprint,
    /// Member `sequence` of the payload, if it is JSON and has one.
    pub payload_sequence: Option<u64>,
    /// Kafka's timestamp in milliseconds since the Unix epoch.
    pub timestamp_millis: Option<i64>,
}

/// A kind of finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// Committed and not delivered (R4, R6).
    Missing,
    /// Delivered, though its transaction or savepoint was rolled back (R7).
    Ghost,
    /// Delivered, though the journal does not know its event id.
    Unexpected,
    /// Delivered out of the aggregate's order, or apart from the aggregate's other records (R1).
    OutOfOrder,
    /// Key, type or payload are not those that were written.
    Altered,
}

impl Fault {
    /// A stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Ghost => "ghost",
            Self::Unexpected => "unexpected",
            Self::OutOfOrder => "out_of_order",
            Self::Altered => "altered",
        }
    }
}

/// One sample of what is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub fault: Fault,
    /// The aggregate: the journal's, or the record's key if the journal does not know the event.
    pub aggregate: Arc<str>,
    /// The event.
    pub event_id: Arc<str>,
    /// The record; none for what is missing.
    pub place: Option<Place>,
    /// More for people, without payload.
    pub detail: String,
}

/// Figures of one aggregate, or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events committed.
    pub committed: u64,
    /// Committed events that were delivered at least once.
    pub delivered: u64,
    /// Records beyond an event's first one; allowed at least once, counted for exactly once.
    pub duplicates: u64,
    /// Events, see [`Fault::Missing`].
    pub missing: u64,
    /// Records, see [`Fault::Ghost`].
    pub ghosts: u64,
    /// Records, see [`Fault::Unexpected`].
    pub unexpected: u64,
    /// Records, see [`Fault::OutOfOrder`].
    pub out_of_order: u64,
    /// Records, see [`Fault::Altered`].
    pub altered: u64,
}

impl Counts {
    /// Nothing is missing, a ghost, unexpected, out of order or altered.
    pub const fn is_clean(&self) -> bool {
        self.missing + self.ghosts + self.unexpected + self.out_of_order + self.altered == 0
    }

    fn fault(&mut self, fault: Fault) {
        *match fault {
            Fault::Missing => &mut self.missing,
            Fault::Ghost => &mut self.ghosts,
            Fault::Unexpected => &mut self.unexpected,
            Fault::OutOfOrder => &mut self.out_of_order,
            Fault::Altered => &mut self.altered,
        } += 1;
    }

    fn add(&mut self, other: &Self) {
        self.committed += other.committed;
        self.delivered += other.delivered;
        self.duplicates += other.duplicates;
        self.missing += other.missing;
        self.ghosts += other.ghosts;
        self.unexpected += other.unexpected;
        self.out_of_order += other.out_of_order;
        self.altered += other.altered;
    }
}

/// The judgement on one history.
///
/// Order is judged per aggregate, over the records of its committed events, by two rules:
///
/// 1. A **first delivery** is out of order if a later event of the aggregate was delivered before it.
/// 2. A **duplicate** may go back at any time and as far as it likes, but a replay repeats in order: until it has come back to
///    the newest event delivered so far, the record after a duplicate of n is the event after n, or the start of another
///    replay, which is a duplicate of n or of something before n. Anything else is out of order.
///
/// "The event after" counts only events that were delivered at all: one that never was is missing, and nothing else. So
/// 1,2,3,2,3,4 is in order with two duplicates, and in 1,2,3,2,1,3 the last record is out of order.
///
/// All records of an aggregate belong in one partition of one topic; those elsewhere than its first (by topic, partition and
/// offset) are out of order, since no consumer can tell their place.
///
/// Transactions of unknown outcome should be resolved first. Those that are not are counted in
/// [`Verdict::unresolved`]; their events are neither missing nor ghosts, but those that were delivered must be in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Figures of all aggregates together.
    pub total: Counts,
    /// Records read.
    pub records: u64,
    /// Transactions whose outcome is still unknown.
    pub unresolved: u64,
    /// Aggregates whose last record repeats an older event than the newest: a replay is still under way, or was
    /// never finished. No fault in itself, as reading may end at any moment.
    pub unfinished: u64,
    /// Figures of each aggregate.
    pub aggregates: BTreeMap<Arc<str>, Counts>,
    /// Samples of what is wrong, at most [`SAMPLES`] of each kind.
    pub findings: Vec<Finding>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expectation {
    Delivered,
    NotDelivered,
    Unresolved,
}

type Known<'a> = HashMap<&'a str, (Expectation, &'a Event)>;
type Lines<'a> = BTreeMap<&'a Arc<str>, Vec<(Expectation, &'a Event, &'a Delivered)>>;

impl Verdict {
    /// Judges a history. The records may come in any order; within a partition, offsets decide.
    pub fn of(journal: &Journal, delivered: &[Delivered]) -> Self {
        let mut verdict = Self { records: delivered.len() as u64, ..Self::default() };
        verdict.unresolved = journal.unknown().count() as u64;
        let known = known(journal);
        let mut records: Vec<&Delivered> = delivered.iter().collect();
        records.sort_by(|a, b| a.place.cmp(&b.place));

        let mut lines = Lines::new();
        for record in records {
            match known.get(&*record.event_id) {
                None => {
                    let detail = if record.event_id.is_empty() { "no event id" } else { "never written" };
                    verdict.find(Fault::Unexpected, &record.key, &record.event_id, Some(record), detail);
                }
                Some((Expectation::NotDelivered, event)) => {
                    let detail = if event.kept { "transaction rolled back" } else { "savepoint rolled back" };
                    verdict.find(Fault::Ghost, &event.aggregate, &event.id, Some(record), detail);
                }
                Some((expectation, event)) => {
                    verdict.compare(event, record);
                    lines.entry(&event.aggregate).or_default().push((*expectation, event, record));
                }
            }
        }
        for line in lines.values() {
            verdict.walk(line);
        }
        verdict.count_missing(journal, &lines);
        for counts in verdict.aggregates.values() {
            verdict.total.add(counts);
        }
        verdict.findings.sort_by_key(|finding| finding.fault);
        verdict
    }

    /// Nothing is missing, a ghost, unexpected, out of order or altered. Duplicates are allowed.
    pub const fn is_clean(&self) -> bool {
        self.total.is_clean()
    }

    /// The aggregates that are not clean.
    pub fn troubled(&self) -> impl Iterator<Item = (&Arc<str>, &Counts)> {
        self.aggregates.iter().filter(|(_, counts)| !counts.is_clean())
    }

    fn counts(&mut self, aggregate: &Arc<str>) -> &mut Counts {
        self.aggregates.entry(Arc::clone(aggregate)).or_default()
    }

    fn find(&mut self, fault: Fault, aggregate: &Arc<str>, id: &Arc<str>, record: Option<&Delivered>, detail: &str) {
        self.counts(aggregate).fault(fault);
        if self.findings.iter().filter(|finding| finding.fault == fault).count() < SAMPLES {
            self.findings.push(Finding {
                fault,
                aggregate: Arc::clone(aggregate),
                event_id: Arc::clone(id),
                place: record.map(|record| record.place.clone()),
                detail: detail.to_owned(),
            });
        }
    }

    fn compare(&mut self, event: &Event, record: &Delivered) {
        let differing = [
            ("key", event.aggregate != record.key),
            ("type", event.event_type != record.event_type),
            ("payload", event.payload != record.payload),
        ];
        let differing: Vec<&str> = differing.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect();
        if !differing.is_empty() {
            let detail = format!("other than written: {}", differing.join(", "));
            self.find(Fault::Altered, &event.aggregate, &event.id, Some(record), &detail);
        }
    }

    /// Judges the records of one aggregate, which are sorted by place.
    fn walk(&mut self, line: &[(Expectation, &Event, &Delivered)]) {
        let Some((_, _, first)) = line.first() else { return };
        let at_home = |record: &Delivered| same_partition(&record.place, &first.place) == Ordering::Equal;
        let home = line.iter().take_while(|(_, _, record)| at_home(record)).count();
        let sequences: Vec<u64> = line[..home].iter().map(|(_, event, _)| event.sequence).collect();
        let (steps, unfinished) = order::judge(&sequences);
        self.unfinished += u64::from(unfinished);
        let mut seen = HashSet::new();
        for (index, (expectation, event, record)) in line.iter().enumerate() {
            if !seen.insert(&event.id) {
                self.counts(&event.aggregate).duplicates += 1;
            } else if *expectation == Expectation::Delivered {
                self.counts(&event.aggregate).delivered += 1;
            }
            let detail = match steps.get(index).map(|step| step.trouble) {
                Some(None) => continue,
                Some(Some(Trouble::Late)) => format!("number {} after a later one", event.sequence),
                Some(Some(Trouble::Skips)) => format!("number {}: a replay skipped to it", event.sequence),
                None => format!("number {}: apart from {}", event.sequence, first.place),
            };
            self.find(Fault::OutOfOrder, &event.aggregate, &event.id, Some(record), &detail);
        }
    }

    fn count_missing(&mut self, journal: &Journal, lines: &Lines<'_>) {
        let delivered: HashSet<&str> = lines.values().flatten().map(|(_, event, _)| &*event.id).collect();
        for event in journal.committed() {
            self.counts(&event.aggregate).committed += 1;
            if !delivered.contains(&*event.id) {
                let detail = format!("number {} from {}", event.sequence, event.table);
                self.find(Fault::Missing, &event.aggregate, &event.id, None, &detail);
            }
        }
    }
}

fn same_partition(a: &Place, b: &Place) -> Ordering {
    (&a.topic, a.partition).cmp(&(&b.topic, b.partition))
}

fn known(journal: &Journal) -> Known<'_> {
    let mut known = Known::new();
    for transaction in journal.transactions() {
        for event in &transaction.events {
            let expectation = match (event.kept, transaction.outcome) {
                (false, _) | (_, Outcome::RolledBack) => Expectation::NotDelivered,
                (true, Outcome::Committed) => Expectation::Delivered,
                (true, Outcome::Unknown) => Expectation::Unresolved,
            };
            known.insert(&event.id, (expectation, event));
        }
    }
    known
}
