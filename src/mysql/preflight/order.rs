//! Whether a table that is read itself has the order in which its rows were inserted.

use super::facts::{Facts, Table};
use super::{Store, Wanted};
use crate::preflight::{Check, Name, summed_up};

const EXPECTED: &str = "a key that ascends as rows are inserted";

/// About tables that will be read, or that may have to be.
pub(super) fn check(facts: &Facts, wanted: &[Wanted], store: Option<&Store>) -> Vec<Check> {
    let begins = |wanted: &Wanted| wanted.reads_table && !store.is_some_and(|store| store.has(&wanted.table));
    let there = wanted.iter().zip(&facts.tables).filter(|(_, table)| table.read_by.is_some());
    let read = there.filter(|(wanted, _)| begins(wanted) || wanted.recovers);
    let checks = read.map(|(wanted, table)| order(wanted, table).of_table(&table.name)).collect();
    summed_up(Name::KeyOrder, "outbox tables", EXPECTED, checks)
}

fn order(wanted: &Wanted, table: &Table) -> Check {
    let name = table.read_by.as_deref().unwrap_or_default();
    let kind =
        table.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name)).map_or("", |column| &column.kind);
    let check = |found: String| Check::passed(Name::KeyOrder, format!("key of {}", table.name), EXPECTED, found);
    if table.is_numbered {
        return check(format!("{name} {kind} AUTO_INCREMENT"));
    }
    let quoted = table.name.quoted();
    let cure = |what: &str| {
        format!("ALTER TABLE {quoted} ADD COLUMN seq BIGINT UNSIGNED NOT NULL AUTO_INCREMENT UNIQUE {what}")
    };
    if wanted.recovers {
        let found =
            format!("{name} {kind}: on_purged = \"recover_from_table\" cannot tell whether rows are gone, and halts");
        return check(found).warned(cure("(rows that are there are numbered in the order of the primary key)"));
    }
    let base = kind.split(['(', ' ']).next().unwrap_or_default();
    if base.ends_with("int") || ["decimal", "date", "datetime", "timestamp"].contains(&base) {
        return check(format!("{name} {kind}"));
    }
    let found =
        format!("{name} {kind}: the events of an aggregate that are in the table come in this order, whatever it is");
    check(found).warned(cure(
        "before rows are inserted; or leave it if these values ascend (UUIDv7, ULID); or start = \"earliest\" if the log has all \
         rows",
    ))
}
