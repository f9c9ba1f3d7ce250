use super::*;

/// Everything known, one topic of two partitions, one table.
fn scope() -> Scope {
    let topic = TopicScope { compacted: false, horizons: vec![None; 2], has_commit_times: true };
    Scope { tables: 1, topics: vec![topic], known_since: i64::MIN, unread: Vec::new(), examples: 3 }
}

fn event<'a>(key: &'a str, id: &'a str) -> Event<'a> {
    Event { topic: 0, key: key.as_bytes(), id: id.as_bytes() }
}

/// What is compared, written short.
struct Case {
    comparison: Comparison,
    rows: u64,
}

impl Case {
    fn new() -> Self {
        Self::within(1 << 20)
    }

    fn within(memory: usize) -> Self {
        Self { comparison: Comparison::new(Room { folder: std::env::temp_dir(), memory }), rows: 0 }
    }

    /// The next row of the log.
    fn row(&mut self, key: &str, id: &str, duty: Duty) -> &mut Self {
        let (order, millis) = (Some(self.rows), Some(1_000 + self.rows.cast_signed()));
        self.rows += 1;
        let row = Committed { event: event(key, id), table: 0, order, duty, millis, partition: Some(0) };
        self.comparison.committed(&row).unwrap();
        self
    }

    fn due(&mut self, key: &str, ids: &[&str]) -> &mut Self {
        ids.iter().fold(self, |case, id| case.row(key, id, Duty::Due))
    }

    /// A row of the table.
    fn kept(&mut self, key: &str, id: &str) -> &mut Self {
        let row = Committed {
            event: event(key, id),
            table: 0,
            order: None,
            duty: Duty::Due,
            millis: None,
            partition: Some(0),
        };
        self.comparison.committed(&row).unwrap();
        self
    }

    fn record(&mut self, key: &str, id: &str, (partition, offset): (i32, i64), turn: Turn) -> &mut Self {
        let record = Delivered { event: event(key, id), partition, offset, millis: 1_000 + offset, turn };
        self.comparison.delivered(&record).unwrap();
        self
    }

    /// Records of partition 0, at offsets from 0.
    fn records(&mut self, key: &str, ids: &[&str]) -> &mut Self {
        ids.iter().zip(0..).fold(self, |case, (id, offset)| case.record(key, id, (0, offset), Turn::Log))
    }

    fn judge(&mut self, scope: &Scope) -> Judgement {
        std::mem::replace(self, Self::new()).comparison.judge(scope, |_| {}).unwrap()
    }

    /// The table's counts; unexpected records; examples.
    fn verdict(&mut self, scope: &Scope) -> (TableCounts, u64, Vec<String>) {
        let verdict = self.judge(scope).verdict;
        let examples =
            verdict.examples.iter().map(|(kind, finding)| format!("{kind:?} {}", String::from_utf8_lossy(&finding.id)));
        (verdict.tables[0].clone(), verdict.unexpected(), examples.collect())
    }
}

#[test]
fn given_every_row_once_and_in_order_when_judged_then_nothing_is_found() {
    let mut case = Case::new();
    case.due("a", &["1", "2", "3"]).due("b", &["1"]).kept("a", "2").kept("old", "0").row("a", "4", Duty::InFlight);
    case.records("a", &["1", "2", "3"]).record("b", "1", (1, 0), Turn::Log).record("old", "0", (1, 1), Turn::Log);
    let (counts, unexpected, examples) = case.verdict(&scope());
    let expected = TableCounts { committed: 6, delivered: 5, in_flight: 1, ..TableCounts::default() };
    assert_eq!((counts, unexpected, examples), (expected, 0, vec![]));
}

#[test]
fn given_each_kind_of_difference_when_judged_then_it_is_told_with_its_event() {
    let mut case = Case::new();
    case.due("a", &["1", "2", "3", "4", "5"]).kept("old", "0");
    case.records("a", &["1", "3", "2", "3", "5", "x"]);
    let judgement = case.judge(&scope());
    let counts = &judgement.verdict.tables[0];
    assert_eq!((counts.committed, counts.delivered, counts.missing, counts.duplicates), (6, 4, 2, 1));
    assert_eq!((counts.out_of_order, counts.overtaken, counts.missing_beyond_log), (1, 1, 1));
    assert_eq!(judgement.verdict.unexpected(), 1);
    let examples: Vec<_> =
        judgement.verdict.examples.iter().map(|(kind, one)| (kind, one.id.clone(), one.place)).collect();
    let id = |text: &str| text.as_bytes().to_vec();
    assert_eq!(
        examples,
        [
            (Kind::Missing, id("0"), None),
            (Kind::Missing, id("4"), None),
            (Kind::Duplicate, id("3"), Some((0, 1))),
            (Kind::OutOfOrder, id("2"), Some((0, 2))),
            (Kind::Unexpected, id("x"), Some((0, 5))),
        ]
    );
    let mut missing = judgement.missing;
    assert_eq!((missing.next().unwrap(), missing.next().unwrap()), (Some((0, 3)), None));
    assert!(matches!(missing.next_beyond_log(), Ok(Some((0, _)))) && missing.next_beyond_log().unwrap().is_none());
}

#[test]
fn given_a_crash_that_repeats_records_when_judged_then_only_the_order_of_first_ones_counts() {
    let mut case = Case::new();
    case.due("a", &["1", "2", "3", "4"]).records("a", &["1", "2", "3", "2", "3", "4"]);
    let (counts, ..) = case.verdict(&scope());
    assert_eq!((counts.duplicates, counts.out_of_order, counts.missing), (2, 0, 0));
}

#[test]
fn given_records_published_again_on_request_when_judged_then_they_are_neither_duplicates_nor_late() {
    let mut case = Case::new();
    case.due("a", &["1", "2", "3"]).records("a", &["2", "3"]);
    case.record("a", "1", (0, 2), Turn::Again).record("a", "3", (0, 3), Turn::Again);
    let (counts, unexpected, examples) = case.verdict(&scope());
    let expected = TableCounts { committed: 3, delivered: 3, published_again: 2, ..TableCounts::default() };
    assert_eq!((counts, unexpected, examples), (expected, 0, vec![]));
}

#[test]
fn given_records_of_a_table_that_was_read_when_judged_then_their_order_is_not() {
    let mut case = Case::new();
    case.due("a", &["1", "2", "3", "4"]);
    for (id, turn) in [("2", Turn::Table), ("1", Turn::Table), ("3", Turn::Log), ("1", Turn::Table), ("4", Turn::Log)] {
        let offset = case.comparison.count().cast_signed();
        case.record("a", id, (0, offset), turn);
    }
    let (counts, ..) = case.verdict(&scope());
    assert_eq!((counts.out_of_order, counts.missing, counts.duplicates), (0, 0, 1));
}

#[test]
fn given_the_same_key_in_another_partition_or_table_when_judged_then_no_order_is_claimed() {
    let mut case = Case::new();
    case.due("a", &["1", "2"]).record("a", "2", (0, 5), Turn::Log).record("a", "1", (1, 0), Turn::Log);
    assert_eq!(case.verdict(&scope()).0.out_of_order, 0);
    case.due("a", &["1"]);
    let other =
        Committed { event: event("a", "2"), table: 1, order: Some(0), duty: Duty::Due, millis: None, partition: None };
    case.comparison.committed(&other).unwrap();
    case.records("a", &["2", "1"]);
    assert_eq!(case.verdict(&Scope { tables: 2, ..scope() }).0.out_of_order, 0);
}

#[test]
fn given_rows_that_are_not_asked_after_when_judged_then_their_records_are_expected_and_nothing_else() {
    let mut case = Case::new();
    case.row("a", "1", Duty::Known).row("a", "2", Duty::Known).due("a", &["3"]).records("a", &["3", "2", "2"]);
    let (counts, unexpected, examples) = case.verdict(&scope());
    let expected = TableCounts { committed: 1, delivered: 1, ..TableCounts::default() };
    assert_eq!((counts, unexpected, examples), (expected, 0, vec![]));
}

#[test]
fn given_a_topic_that_lost_its_beginning_when_judged_then_older_events_are_not_missing() {
    // Rows are from 1000, 1001 and 1002; horizons are moved by what clocks may be apart.
    let with = |horizons: &[Option<i64>]| {
        let mut case = Case::new();
        case.due("a", &["1", "2", "3"]).kept("old", "0");
        let mut scope = scope();
        let cut = |at: &Option<i64>| at.map(|at| if at == i64::MAX { at } else { at - CLOCKS });
        scope.topics[0].horizons = horizons.iter().map(cut).collect();
        let (counts, ..) = case.verdict(&scope);
        (counts.missing, counts.expired)
    };
    assert_eq!(with(&[None, None]), (4, 0));
    assert_eq!(with(&[Some(1_001), None]), (1, 3));
    assert_eq!(with(&[None, Some(1_000)]), (2, 2), "the number of partitions may have been another one");
    assert_eq!(with(&[Some(i64::MAX), None]), (0, 4), "nothing is left of the partition");
    assert_eq!(with(&[None, Some(i64::MAX)]), (4, 0), "nothing is left of another partition");
}

#[test]
fn given_tables_that_share_a_topic_when_it_is_cut_between_their_records_then_what_is_gone_is_expired() {
    let mut case = Case::new();
    // The table that was published first, and is cut off, has the later time.
    let gone = Committed {
        event: event("a", "gone"),
        table: 1,
        order: Some(0),
        duty: Duty::Due,
        millis: Some(1_003),
        partition: Some(0),
    };
    case.comparison.committed(&gone).unwrap();
    case.due("b", &["kept"]).record("b", "kept", (0, 0), Turn::Log);
    let mut scope = Scope { tables: 2, ..scope() };
    scope.topics[0].horizons[0] = Some(1_000);
    let tables = case.judge(&scope).verdict.tables;
    assert_eq!((tables[1].missing, tables[1].expired, tables[0].delivered), (0, 1, 1));
}

#[test]
fn given_a_log_that_was_not_read_to_its_end_when_judged_then_what_only_the_table_has_is_not_missing() {
    let judged = |unread| {
        let mut case = Case::new();
        case.due("a", &["lost"]).kept("a", "unread").kept("a", "there").record("a", "there", (0, 0), Turn::Log);
        let judgement = case.judge(&Scope { unread, ..scope() });
        let counts = judgement.verdict.tables[0].clone();
        let mut missing = judgement.missing;
        let is_repaired = missing.next_beyond_log().unwrap().is_some();
        (counts.committed, counts.delivered, counts.missing, counts.unknown, is_repaired)
    };
    assert_eq!(judged(vec![]), (3, 1, 2, 0, true));
    assert_eq!(judged(vec![0]), (3, 1, 1, 1, false), "what the log told is judged");
}

#[test]
fn given_a_compacted_topic_when_judged_then_only_the_newest_of_a_key_is_missing() {
    let mut scope = scope();
    scope.topics[0].compacted = true;
    let mut case = Case::new();
    case.due("a", &["1", "2"]).due("b", &["3", "4"]).record("a", "2", (0, 7), Turn::Log).record(
        "b",
        "3",
        (0, 8),
        Turn::Log,
    );
    let (counts, _, examples) = case.verdict(&scope);
    assert_eq!((counts.compacted, counts.missing), (1, 1));
    assert_eq!(examples, ["Missing 4"]);
}

#[test]
fn given_rows_that_only_the_table_has_when_one_of_them_arrived_then_the_other_may_be_overtaken() {
    let with = |compacted| {
        let mut scope = scope();
        scope.topics[0].compacted = compacted;
        let mut case = Case::new();
        case.kept("a", "1").kept("a", "2").record("a", "2", (0, 7), Turn::Table).kept("b", "3");
        let counts = case.verdict(&scope).0;
        (counts.compacted, counts.missing, counts.overtaken, counts.perhaps_overtaken)
    };
    assert_eq!(with(true), (1, 1, 0, 0), "of the other aggregate nothing is there");
    assert_eq!(with(false), (0, 2, 1, 1));
}

#[test]
fn given_a_later_event_that_came_out_of_its_turn_when_judged_then_what_is_missing_before_it_is_overtaken() {
    for turn in [Turn::Table, Turn::Again] {
        let mut case = Case::new();
        case.due("a", &["1", "2", "3"]).kept("a", "0").record("a", "2", (0, 7), turn).record("a", "0", (0, 8), turn);
        let (counts, _, examples) = case.verdict(&scope());
        assert_eq!((counts.missing, counts.overtaken, counts.perhaps_overtaken, counts.out_of_order), (2, 1, 0, 0));
        assert_eq!(examples, ["Missing 1", "Missing 3"], "{turn:?}");
        let mut scope = scope();
        scope.topics[0].compacted = true;
        case.due("a", &["1", "2", "3"]).record("a", "2", (0, 7), turn);
        let (counts, _, examples) = case.verdict(&scope);
        assert_eq!((counts.compacted, examples), (1, vec!["Missing 3".to_owned()]), "{turn:?}");
    }
}

#[test]
fn given_a_log_that_lost_its_beginning_when_judged_then_records_from_before_are_not_unexpected() {
    let judged = |known_since, has_commit_times| {
        let mut scope = Scope { known_since, ..scope() };
        scope.topics[0].has_commit_times = has_commit_times;
        let mut case = Case::new();
        case.record("a", "1", (0, 0), Turn::Log).record("a", "2", (0, 1), Turn::Log);
        let verdict = case.judge(&scope).verdict;
        (verdict.topics[0].unexpected, verdict.topics[0].unknown)
    };
    assert_eq!(judged(i64::MIN, false), (2, 0));
    assert_eq!(judged(1_001, true), (1, 1));
    assert_eq!(judged(1_001, false), (0, 2));
    assert_eq!(judged(i64::MAX, true), (0, 2));
}

#[test]
fn given_a_record_whose_time_is_not_that_of_a_commit_when_its_row_is_gone_then_it_is_not_unexpected() {
    let judged = |known_since, turn| {
        let mut case = Case::new();
        case.record("a", "1", (0, 1), turn);
        let verdict = case.judge(&Scope { known_since, ..scope() }).verdict;
        (verdict.topics[0].unexpected, verdict.topics[0].unknown)
    };
    assert_eq!(judged(1_001, Turn::Log), (1, 0));
    for turn in [Turn::Table, Turn::Again] {
        assert_eq!(judged(1_001, turn), (0, 1), "{turn:?}: its row may be older than the log");
        assert_eq!(judged(i64::MIN, turn), (1, 0), "{turn:?}: the log has all rows");
    }
}

#[test]
fn given_many_findings_when_judged_then_the_oldest_are_shown() {
    let mut case = Case::new();
    let ids: Vec<_> = (0..50).rev().map(|number| format!("{number:02}")).collect();
    case.due("a", &ids.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(case.verdict(&scope()).2, ["Missing 49", "Missing 48", "Missing 47"]);
}

/// Given far more than the memory that is allowed, most of it of one aggregate, when judged, then the counts are exact and
/// memory is what was allowed. `OUTBOXD_TEST_EVENTS` plays more of them.
#[test]
fn given_more_events_than_memory_holds_when_judged_then_every_count_is_exact() {
    let events = std::env::var("OUTBOXD_TEST_EVENTS").ok().map_or(200_000, |text| text.parse().unwrap());
    let mut case = Case::within(1 << 20);
    let (mut offset, mut expected) = (0, TableCounts { committed: events, ..TableCounts::default() });
    for number in 0..events {
        // An id does not tell when it was committed.
        let id = format!("{:032x}", u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
        let key = if number % 4 == 0 { format!("aggregate-{number}") } else { "hot".to_owned() };
        case.row(&key, &id, Duty::Due);
        let copies = match number % 1_000 {
            500 => 0,
            501 => 2,
            _ => 1,
        };
        for _ in 0..copies {
            case.record(&key, &id, (0, offset), Turn::Log);
            offset += 1;
        }
        expected.delivered += u64::from(copies > 0);
        expected.duplicates += u64::from(copies > 1);
        expected.missing += u64::from(copies == 0);
    }
    // Of aggregates of a single event.
    expected.overtaken = 0;
    let (counts, unexpected, _) = case.verdict(&scope());
    assert_eq!((counts, unexpected), (expected, 0));
}
