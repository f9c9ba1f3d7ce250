//! The way past a transaction that halts its table whenever it is read.
//!
//! Promise: whoever does what the halt says skips that transaction and nothing else: the place behind it is told once
//! everything before it is saved.

use super::Halt;
use crate::position::Position;
use crate::source::Fault;
use crate::table::TableName;

/// Faults of what a transaction is in the log. A setting helps what comes after it; this one halts the table again.
const LASTING: [&str; 10] = [
    "column_not_in_row_image",
    "damaged_event",
    "incident",
    "missing_column",
    "statement_format",
    "table_definition_changed",
    "undecodable_row",
    "undone_after_release",
    "unknown_event",
    "unknown_savepoint",
];

const SECTION: &str = "see “past a transaction” in docs/operations.md";

/// The halt of a table that stands at `stands`, for a fault of the transaction that `behind` is right behind.
pub(super) fn halt(
    fault: Fault,
    table: &TableName,
    stands: Option<&Position>,
    behind: Option<&Position>,
    is_saved: bool,
) -> Halt {
    let is_lasting = LASTING.contains(&fault.name);
    let mut halt = Halt::from(fault);
    if is_lasting {
        let way = way(table, stands, behind, is_saved);
        halt.detail = format!("{}; to go past this transaction, {way}", halt.detail);
    }
    if behind.is_some() && halt.name == "damaged_event" {
        // By GTIDs, it reads what the position covers all the same, if that is in a file with what it does not cover.
        halt.detail = format!("{}; if the server itself cannot read over it, {SECTION}", halt.detail);
    }
    halt
}

fn way(table: &TableName, stands: Option<&Position>, behind: Option<&Position>, is_saved: bool) -> String {
    let Some(behind) = behind else { return SECTION.to_owned() };
    if !is_saved {
        return format!("first outboxd retry {table}, for not everything before it is saved yet");
    }
    // Another table may stand further back, and the log was read from there.
    let behind = stands.map_or_else(|| behind.clone(), |stands| stands.on_to(behind));
    format!(
        "publish by hand what is missing of it, then outboxd position set {table} --to '{behind}', and outboxd retry \
         {table} (or start the daemon, if it has ended)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const B: &str = "4e11fa47-71ca-11e1-9e33-c80aa9429562";

    /// What is told of a fault with this name.
    fn told(name: &'static str, stands: &str, behind: Option<&str>, is_saved: bool) -> String {
        let [stands, behind] = [Some(stands), behind].map(|text| text.map(|text| text.parse::<Position>().unwrap()));
        let fault = Fault { name, detail: "so it is".to_owned(), at: format!("{A}:5 (b.000001:250)") };
        let halt = halt(fault, &TableName::new("d", "t-1"), stands.as_ref(), behind.as_ref(), is_saved);
        assert_eq!(halt.name, name);
        halt.detail
    }

    #[test]
    fn a_fault_that_stays_in_the_log_ends_with_the_way_past_its_transaction() {
        let behind = format!("gtid={A}:1-5");
        let way = format!(
            "at {A}:5 (b.000001:250): so it is; to go past this transaction, publish by hand what is missing of it, \
             then outboxd position set d.t-1 --to '{behind}', and outboxd retry d.t-1 (or start the daemon, if it has \
             ended)"
        );
        assert_eq!(told("statement_format", &format!("gtid={A}:1-3"), Some(&behind), true), way);
        let prepared = "domains=0-1-26 without 0-1-10 after 0-1-9";
        let stands = "domains=0-1-25 without 0-1-10 after 0-1-9";
        assert!(told("undecodable_row", stands, Some(prepared), true).contains(&format!("--to '{prepared}',")));
        let place = format!("file=b.000001:300@{A}");
        let stands = format!("file=b.000001:200@{A} +2 of b.000001:240");
        assert!(told("missing_column", &stands, Some(&place), true).contains(&format!("--to '{place}',")));
    }

    #[test]
    fn a_table_that_is_ahead_of_another_that_the_log_is_read_for_repeats_nothing() {
        let told = told("statement_format", &format!("gtid={A}:1-9"), Some(&format!("gtid={A}:1-7,{B}:1")), true);
        assert!(told.contains(&format!("--to 'gtid={A}:1-9,{B}:1',")), "{told}");
    }

    #[test]
    fn no_place_is_told_that_is_not_known_or_would_skip_more_and_none_where_something_else_cures() {
        let behind = format!("gtid={A}:1-5");
        let stands = format!("gtid={A}:1-3");
        assert!(told("damaged_event", &stands, Some(&behind), false).contains("first outboxd retry d.t-1"));
        for told in [told("damaged_event", &stands, Some(&behind), false), told("damaged_event", &stands, None, true)] {
            assert!(told.contains("to go past this transaction, ") && !told.contains("position set"), "{told}");
        }
        assert!(told("damaged_event", &stands, Some(&behind), true).contains("; if the server itself cannot read"));
        for name in ["position_mismatch", "update_on_outbox", "xa_outgrew_hold", "position_purged"] {
            assert!(told(name, &stands, Some(&behind), true).ends_with(": so it is"), "{name}");
        }
    }
}
