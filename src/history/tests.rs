//! The checker checked: every seeded fault must be found, and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use proptest::prelude::*;

use super::plan::Planner;
use super::{Delivered, Event, Fingerprint, Journal, Outcome, Place, Verdict, shard_of};
use crate::table::TableName;

const PARTITIONS: usize = 3;

/// One log per partition.
type Logs = Vec<Vec<Delivered>>;

/// A seeded history, and its perfect delivery.
fn history(seed: u64) -> (Journal, Logs, Rng) {
    let tables: Arc<[TableName]> = (1..=4).map(|n| TableName::new("d", &format!("outbox-{n}"))).collect();
    let mut rng = Rng::with_seed(seed);
    let mut planners: Vec<_> = (0..2).map(|owner| Planner::new(seed, owner, Arc::clone(&tables))).collect();
    let (mut journal, mut logs) = (Journal::default(), vec![Vec::new(); PARTITIONS]);
    for _ in 0..rng.usize(40..120) {
        let planner = &mut planners[rng.usize(..2)];
        let plan = planner.plan();
        let outcome = if plan.commit { Outcome::Committed } else { Outcome::RolledBack };
        planner.settle(&plan, outcome);
        let transaction = plan.transaction(outcome);
        if outcome == Outcome::Committed {
            for event in transaction.kept() {
                logs[shard_of(&event.aggregate, PARTITIONS)].push(delivered(event));
            }
        }
        journal.record(transaction);
    }
    (journal, logs, rng)
}

fn delivered(event: &Event) -> Delivered {
    Delivered {
        place: Place { topic: "delivery".into(), partition: 0, offset: 0 },
        key: Arc::clone(&event.aggregate),
        event_id: Arc::clone(&event.id),
        event_type: Arc::clone(&event.event_type),
        payload: event.payload,
        payload_sequence: Some(event.sequence),
        timestamp_millis: None,
    }
}

/// Numbers the logs, mixes them, and judges.
fn judge(journal: &Journal, logs: &Logs, rng: &mut Rng) -> Verdict {
    let mut records = Vec::new();
    for (partition, log) in logs.iter().enumerate() {
        for (offset, record) in log.iter().enumerate() {
            let mut record = record.clone();
            record.place.partition = i32::try_from(partition).unwrap();
            record.place.offset = i64::try_from(offset).unwrap();
            records.push(record);
        }
    }
    rng.shuffle(&mut records);
    Verdict::of(journal, &records)
}

/// A random record's partition and index.
fn any(logs: &Logs, rng: &mut Rng) -> (usize, usize) {
    let full: Vec<usize> = (0..logs.len()).filter(|log| !logs[*log].is_empty()).collect();
    let log = full[rng.usize(..full.len())];
    (log, rng.usize(..logs[log].len()))
}

/// Two neighbouring records of one aggregate: partition and indexes.
fn neighbours(logs: &Logs, rng: &mut Rng) -> (usize, usize, usize) {
    let mut pairs = Vec::new();
    for (number, log) in logs.iter().enumerate() {
        let mut last: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, record) in log.iter().enumerate() {
            if let Some(before) = last.insert(&record.key, index) {
                pairs.push((number, before, index));
            }
        }
    }
    pairs[rng.usize(..pairs.len())]
}

/// A ghost: an event that was written and rolled back, of a transaction or of a savepoint.
fn rolled_back(journal: &Journal, rng: &mut Rng) -> Option<Event> {
    let transactions = journal.transactions().iter();
    let ghosts: Vec<_> = transactions
        .flat_map(|transaction| {
            let all = transaction.outcome == Outcome::RolledBack;
            transaction.events.iter().filter(move |event| all || !event.kept)
        })
        .collect();
    (!ghosts.is_empty()).then(|| ghosts[rng.usize(..ghosts.len())].clone())
}

/// `(missing, ghosts, unexpected, out of order, altered, duplicates)`.
fn figures(verdict: &Verdict) -> [u64; 6] {
    let total = &verdict.total;
    [total.missing, total.ghosts, total.unexpected, total.out_of_order, total.altered, total.duplicates]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_perfect_delivery_is_clean(seed: u64) {
        let (journal, logs, mut rng) = history(seed);
        let verdict = judge(&journal, &logs, &mut rng);
        prop_assert!(verdict.is_clean(), "{verdict}");
        prop_assert_eq!(verdict.total.duplicates, 0);
        prop_assert_eq!(verdict.total.committed, journal.committed().count() as u64);
        prop_assert_eq!(verdict.total.delivered, verdict.total.committed);
    }

    #[test]
    fn replays_are_duplicates_only(seed: u64) {
        let (journal, mut logs, mut rng) = history(seed);
        let mut repeated = 0;
        for log in &mut logs {
            // Each run of a relay publishes on from where it resumes; the next resumes anywhere up to its end.
            let (mut resume, mut relayed) = (0, Vec::new());
            for _ in 0..rng.usize(1..5) {
                let end = rng.usize(resume..=log.len());
                relayed.extend_from_slice(&log[resume..end]);
                resume = rng.usize(..=end);
            }
            relayed.extend_from_slice(&log[resume..]);
            repeated += (relayed.len() - log.len()) as u64;
            *log = relayed;
        }
        let verdict = judge(&journal, &logs, &mut rng);
        prop_assert_eq!(figures(&verdict), [0, 0, 0, 0, 0, repeated], "{}", verdict);
        prop_assert_eq!(verdict.unfinished, 0);
    }

    #[test]
    fn a_loss_is_found(seed: u64) {
        let (journal, mut logs, mut rng) = history(seed);
        let (log, index) = any(&logs, &mut rng);
        let lost = logs[log].remove(index);
        let verdict = judge(&journal, &logs, &mut rng);
        prop_assert_eq!(figures(&verdict), [1, 0, 0, 0, 0, 0], "{}", verdict);
        prop_assert_eq!(&verdict.findings[0].event_id, &lost.event_id);
        prop_assert_eq!(verdict.troubled().map(|(id, _)| id).collect::<Vec<_>>(), [&lost.key]);
    }

    #[test]
    fn a_swap_is_found(seed: u64) {
        let (journal, mut logs, mut rng) = history(seed);
        let (log, one, other) = neighbours(&logs, &mut rng);
        logs[log].swap(one, other);
        let verdict = judge(&journal, &logs, &mut rng);
        prop_assert_eq!(figures(&verdict), [0, 0, 0, 1, 0, 0], "{}", verdict);
        prop_assert_eq!(&verdict.findings[0].event_id, &logs[log][other].event_id);
    }

    #[test]
    fn a_swap_within_a_replay_is_found(seed: u64) {
        let (journal, mut logs, mut rng) = history(seed);
        let (log, one, other) = neighbours(&logs, &mut rng);
        let mut again = logs[log].clone();
        again.swap(one, other);
        let length = again.len() as u64;
        logs[log].extend(again);
        let verdict = judge(&journal, &logs, &mut rng);
        prop_assert_eq!(verdict.total.duplicates, length);
        prop_assert!(verdict.total.out_of_order > 0 || verdict.unfinished > 0, "{}", verdict);
    }

    #[test]
    fn a_duplicate_is_found(seed: u64) {
        let (journal, mut logs, mut rng) = history(seed);
        let (log, index) = any(&logs, &mut rng);
        let again = logs[log][index].clone();
        logs[log].insert(index + 1, again);
        let verdict = judge(&journal, &logs, &mut rng);
        prop_assert_eq!(figures(&verdict), [0, 0, 0, 0, 0, 1], "{}", verdict);
    }

    #[test]
    fn a_ghost_is_found(seed: u64) {
        let (journal, mut logs, mut rng) = history(seed);
        let Some(ghost) = rolled_back(&journal, &mut rng) else { return Ok(()) };
        let (log, index) = any(&logs, &mut rng);
        logs[log].insert(index, delivered(&ghost));
        let verdict = judge(&journal, &logs, &mut rng);
        prop_assert_eq!(figures(&verdict), [0, 1, 0, 0, 0, 0], "{}", verdict);
        prop_assert_eq!(&verdict.findings[0].event_id, &ghost.id);
    }

    #[test]
    fn a_stranger_is_found(seed: u64) {
        let (journal, mut logs, mut rng) = history(seed);
        let (log, index) = any(&logs, &mut rng);
        let mut stranger = logs[log][index].clone();
        stranger.event_id = if rng.bool() { "never-written".into() } else { "".into() };
        logs[log].insert(index, stranger);
        let verdict = judge(&journal, &logs, &mut rng);
        prop_assert_eq!(figures(&verdict), [0, 0, 1, 0, 0, 0], "{}", verdict);
    }

    #[test]
    fn an_alteration_is_found(seed: u64) {
        let (journal, mut logs, mut rng) = history(seed);
        let (log, index) = any(&logs, &mut rng);
        let record = &mut logs[log][index];
        match rng.u8(..3) {
            0 => record.key = "another".into(),
            1 => record.event_type = "Another".into(),
            _ => record.payload = Fingerprint::of(Some(b"{}")),
        }
        let verdict = judge(&journal, &logs, &mut rng);
        prop_assert_eq!(figures(&verdict), [0, 0, 0, 0, 1, 0], "{}", verdict);
    }

    #[test]
    fn a_record_in_another_partition_is_found(seed: u64) {
        let (journal, mut logs, mut rng) = history(seed);
        let (log, _, index) = neighbours(&logs, &mut rng);
        let strayed = logs[log].remove(index);
        logs[(log + 1) % PARTITIONS].push(strayed);
        let verdict = judge(&journal, &logs, &mut rng);
        prop_assert!(verdict.total.out_of_order > 0, "{}", verdict);
        prop_assert_eq!((verdict.total.missing, verdict.total.duplicates), (0, 0));
    }

    #[test]
    fn what_is_unresolved_is_neither_missing_nor_a_ghost(seed: u64) {
        let (journal, logs, mut rng) = history(seed);
        let mut doubtful = Journal::default();
        let mut unknown = 0;
        for transaction in journal.transactions() {
            let mut transaction = transaction.clone();
            if rng.u8(..10) == 0 {
                transaction.outcome = Outcome::Unknown;
                unknown += 1;
            }
            doubtful.record(transaction);
        }
        let verdict = judge(&doubtful, &logs, &mut rng);
        prop_assert_eq!(figures(&verdict), [0; 6], "{}", verdict);
        prop_assert_eq!(verdict.unresolved, unknown);
        let found = journal.committed().map(|event| event.id.to_string()).collect();
        doubtful.resolve(&found);
        prop_assert!(judge(&doubtful, &logs, &mut rng).is_clean());
    }
}

#[test]
fn samples_are_bounded_and_reports_hold_every_figure() {
    let (journal, _, _) = history(1);
    let verdict = Verdict::of(&journal, &[]);
    let committed = journal.committed().count() as u64;
    assert_eq!(figures(&verdict), [committed, 0, 0, 0, 0, 0]);
    assert_eq!(verdict.findings.len(), super::verdict::SAMPLES);
    let json = verdict.to_json();
    assert_eq!(json["clean"], false);
    assert_eq!(json["total"]["missing"], committed);
    let text = verdict.to_string();
    for line in ["missing", "from rolled-back transactions", "out of order", "duplicates"] {
        assert!(text.contains(line), "{text}");
    }
}
