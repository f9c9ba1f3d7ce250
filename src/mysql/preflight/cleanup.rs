//! Whether old rows of the outbox tables can be deleted. What cannot be is kept, and relayed all the same.

use super::facts::{Facts, Table};
use super::{Cleaned, Wanted};
use crate::mysql::cleanup::is_time;
use crate::mysql::cleanup::settings::By;
use crate::preflight::{Check, Name, summed_up};
use crate::table::quote;

pub(super) fn check(facts: &Facts, wanted: &[Wanted]) -> Vec<Check> {
    let there = wanted.iter().zip(&facts.tables).filter(|(_, table)| !table.columns.is_empty());
    let cleaned = there.filter_map(|(wanted, table)| Some((wanted.cleaned.as_ref()?, table)));
    let checks = cleaned.map(|(cleaned, table)| cleaning(facts, table, cleaned).of_table(&table.name)).collect();
    summed_up(Name::Cleanup, "outbox tables", EXPECTED, checks)
}

const EXPECTED: &str = "old rows can be found and deleted";

fn cleaning(facts: &Facts, table: &Table, Cleaned { column, by }: &Cleaned) -> Check {
    let check =
        |found: &str| Check::passed(Name::Cleanup, format!("cleaning of {}", table.name), EXPECTED, found.to_owned());
    let name = table.name.quoted();
    if facts.variable("read_only").is_some_and(|is| !matches!(is, "OFF" | "0")) {
        let cure = "name the server that is written to in mysql.url, or leave cleanup.keep out";
        return check("the server is read-only").warned(cure);
    }
    if !table.has_primary_key {
        return check("no primary key").warned(format!("ALTER TABLE {name} ADD PRIMARY KEY"));
    }
    let is_same = |other: &str| other.eq_ignore_ascii_case(column);
    if let Some(kind) = table.columns.iter().find(|other| is_same(&other.name)).map(|column| &column.kind)
        && !is_time(kind.split(['(', ' ']).next().unwrap_or_default())
    {
        let cure = format!("ALTER TABLE {name} MODIFY COLUMN {} TIMESTAMP(3) NOT NULL", quote(column));
        return check(&format!("{column} {kind}, which is no date and time, and no whole number")).warned(cure);
    }
    if *by == By::Partitions {
        let cure =
            "ALTER TABLE … PARTITION BY RANGE, by the time or by a number that grows with it; or cleanup.by = \"rows\"";
        return check(&format!("{} partitions by range", table.ranges)).or_warned(table.ranges > 0, cure);
    }
    match &table.undeletable {
        Some(refusal) if refusal.is_denied() => {
            check("DELETE denied").warned(format!("GRANT DELETE ON {name} TO {}", facts.account))
        }
        Some(refusal) => check(&refusal.message).warned("see the server's message"),
        None if !table.indexed.iter().any(|first| is_same(first)) => check(&format!(
            "no index on {column}: each look reads the whole table"
        ))
        .warned(format!("CREATE INDEX {} ON {name} ({})", quote(column), quote(column))),
        None => check("DELETE granted, with an index on the time"),
    }
}
