//! Tables that tools for online schema changes have beside the one that they change.
//!
//! Promise: no wildcard takes one of them for an outbox: its rows are copies of events that the outbox has or had.

use crate::table::TableName;

/// What gh-ost and pt-online-schema-change put behind a table's name, and an underscore in front of it: the copy, gh-ost's
/// notes, and the table as it was before.
const ENDS: [&str; 5] = ["_gho", "_ghc", "_del", "_new", "_old"];

/// Whether this is what such a tool has made, or left, of one of these tables.
pub(super) fn is_one(table: &TableName, existing: &[TableName]) -> bool {
    let Some(of) = ENDS.iter().find_map(|end| table.table().strip_prefix('_')?.strip_suffix(end)) else { return false };
    // pt-online-schema-change has further underscores where there was one before; gh-ost may note the time.
    let of = of.trim_start_matches('_');
    let timeless = of.rsplit_once('_').filter(|(_, time)| time.bytes().all(|byte| byte.is_ascii_digit()));
    let is_of = |name: &str| name.trim_start_matches('_') == of || timeless.is_some_and(|(of, _)| name == of);
    existing.iter().any(|other| other != table && other.schema() == table.schema() && is_of(other.table()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_schema_changes_leave_behind_is_told_from_tables_of_such_names() {
        let of = |names: &[&str]| names.iter().map(|name| TableName::new("d", name)).collect::<Vec<_>>();
        let existing = of(&["outbox1", "_new", "_orders_new"]);
        let found = |name: &str| is_one(&TableName::new("d", name), &existing);
        for copy in ["_outbox1_gho", "_outbox1_ghc", "_outbox1_del", "_outbox1_new", "__outbox1_old"] {
            assert!(found(copy), "{copy}");
        }
        assert!(found("_outbox1_20261123120000_del"));
        for other in ["outbox1", "outbox1_old", "_outbox2_gho", "_new", "_orders_new", "_outbox1_x_del"] {
            assert!(!found(other), "{other}");
        }
        assert!(!is_one(&TableName::new("e", "_outbox1_gho"), &existing));
    }
}
