//! The pure parts; the whole is played by the tests on real servers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::relay::{arguments, tail};
use super::script::{conclusion, is_clean};
use super::show::{clock, summary};
use super::standby::with_lost;
use crate::history::{Counts, Delivered, Event, Fingerprint, Journal, Outcome, Place, Transaction, Verdict};
use crate::status::Line;
use crate::table::TableName;

fn line(state: &str, rate: Option<f64>, lag: Option<f64>) -> Line {
    Line {
        table: TableName::new("d", "t"),
        state: state.to_owned(),
        reason: None,
        events: Some(1500),
        events_per_second: rate,
        lag_seconds: lag,
        behind: None,
        in_flight: None,
        position: None,
        saved: None,
    }
}

#[test]
fn a_plain_line_sums_up_all_tables() {
    let running = [line("running", Some(10.0), Some(0.5)), line("running", Some(20.4), Some(0.0))];
    assert_eq!(summary(&running), "2 running; 3,000 events acknowledged, 30 a second; lag 500 ms");
    let killed = [line("killed", None, None), line("killed", None, None)];
    assert_eq!(summary(&killed), "2 killed; 3,000 events acknowledged");
    let mixed = [line("running", Some(1.0), None), line("halted", None, None)];
    assert_eq!(summary(&mixed), "1 running, 1 halted; 3,000 events acknowledged");
    assert_eq!(clock(Duration::from_millis(65_900)), "01:05");
}

#[test]
fn duplicates_are_allowed_and_nothing_else() {
    let of = |total| Verdict { total, ..Verdict::default() };
    let duplicates = of(Counts { duplicates: 3, ..Counts::default() });
    assert!(is_clean(&duplicates));
    assert!(conclusion(&duplicates).contains("Duplicates are allowed: delivery is at least once"));
    assert!(!conclusion(&Verdict::default()).contains("uplicates"));
    for wrong in [
        of(Counts { missing: 1, ..Counts::default() }),
        of(Counts { ghosts: 1, ..Counts::default() }),
        of(Counts { out_of_order: 1, ..Counts::default() }),
        of(Counts { altered: 1, ..Counts::default() }),
        of(Counts { unexpected: 1, ..Counts::default() }),
        Verdict { unresolved: 1, ..Verdict::default() },
        Verdict { unfinished: 1, ..Verdict::default() },
    ] {
        assert!(!is_clean(&wrong), "{wrong}");
        assert!(conclusion(&wrong).starts_with("NOT as promised"));
    }
}

#[test]
fn the_end_of_a_log_is_its_last_lines() {
    assert_eq!(tail("a\nb\nc\n", 2), "b\nc");
    assert_eq!(tail("a", 2), "a");
}

#[test]
fn the_daemon_is_told_what_the_demo_was_told() {
    assert_eq!(arguments(None, &[]), ["--config", "/dev/null"]);
    let sets = ["log.level=debug".to_owned()];
    assert_eq!(arguments(Some(Path::new("o.toml")), &sets), ["--config", "o.toml", "--set", "log.level=debug"]);
}

/// A transaction of one event.
fn transaction(id: u64, outcome: Outcome, unanswered: bool) -> Transaction {
    let event = Event {
        id: format!("event-{id}").into(),
        table: TableName::new("d", "t"),
        aggregate: "a".into(),
        sequence: id,
        event_type: "Created".into(),
        payload: Fingerprint::of(None),
        kept: true,
    };
    Transaction { id, events: vec![event], outcome, unanswered }
}

#[test]
fn what_was_delivered_and_died_unanswered_with_the_primary_is_no_ghost_and_all_else_is() {
    let mut journal = Journal::default();
    journal.record(transaction(1, Outcome::RolledBack, true));
    journal.record(transaction(2, Outcome::RolledBack, true));
    journal.record(transaction(3, Outcome::RolledBack, false));
    let of = |index: usize| {
        let event = &journal.transactions()[index].events[0];
        Delivered {
            place: Place { topic: "delivery".into(), partition: 0, offset: 0 },
            key: Arc::clone(&event.aggregate),
            event_id: Arc::clone(&event.id),
            event_type: Arc::clone(&event.event_type),
            payload: event.payload,
            payload_sequence: None,
            timestamp_millis: None,
        }
    };
    let (history, lost) = with_lost(&journal, &[of(0), of(2)]);
    let outcomes: Vec<_> = history.transactions().iter().map(|transaction| transaction.outcome).collect();
    assert_eq!((outcomes, lost), (vec![Outcome::Committed, Outcome::RolledBack, Outcome::RolledBack], 1));
}
