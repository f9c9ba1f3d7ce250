//! The outbox tables and their columns.

use super::binlog::read_columns;
use super::facts::{Column, Facts, Table};
use super::{Wanted, Widest};
use crate::mysql::decode::Charset;
use crate::mysql::migrate::definition;
use crate::preflight::{Check, Name, summed_up};
use crate::table::{TableName, quote};

pub(super) fn check(facts: &Facts, wanted: &[Wanted]) -> Vec<Check> {
    let there = || wanted.iter().zip(&facts.tables).filter(|(_, table)| !table.columns.is_empty());
    let mut checks = summed_up(
        Name::Table,
        "outbox tables",
        "base tables with SELECT granted",
        facts.tables.iter().map(|table| existence(table, facts).of_table(&table.name)).collect(),
    );
    checks.extend(summed_up(
        Name::Engine,
        "outbox tables",
        "a transactional engine",
        there()
            .filter(|(_, table)| table.kind == "BASE TABLE")
            .map(|(_, table)| engine(table, facts).of_table(&table.name))
            .collect(),
    ));
    checks.extend(summed_up(
        Name::Columns,
        "outbox tables",
        "all columns, of types that are relayed",
        there()
            .flat_map(|(wanted, table)| columns(wanted, table).into_iter().map(|check| check.of_table(&table.name)))
            .collect(),
    ));
    checks
}

fn existence(table: &Table, facts: &Facts) -> Check {
    let account = &facts.account;
    let check = |found: String| {
        Check::passed(Name::Table, format!("table {}", table.name), "a base table with SELECT granted", found)
    };
    match &table.refusal {
        Some(refusal) if refusal.is_denied() => check("SELECT denied, or not there".to_owned()).failed(format!(
            "GRANT SELECT ON {} TO {account}; and `outboxd migrate` if it is not there",
            table.name.quoted()
        )),
        Some(refusal) if refusal.is_missing() => check("not there".to_owned()).failed("outboxd migrate"),
        Some(refusal) => check(refusal.message.clone()).failed("see the server's message"),
        None if table.kind != "BASE TABLE" => check(format!("a {}", table.kind.to_lowercase()))
            .failed("name the table behind it under [[outbox]]; only tables are in the log"),
        None => match in_log(table, facts).filter(|spelling| *spelling != table.name) {
            Some(spelling) => check(format!("one that the log calls {spelling}, in another letter case"))
                .failed(format!("[[outbox]] tables = [\"{spelling}\"]; what the log names otherwise is not relayed")),
            None => check("a base table".to_owned()),
        },
    }
}

/// What the log calls a table. A server that does not mind the letter case (`lower_case_table_names`) writes all names
/// in small letters there, those too that it keeps as they were given.
fn in_log(table: &Table, facts: &Facts) -> Option<TableName> {
    let spelling = table.spelling.as_ref()?;
    Some(if facts.variable("lower_case_table_names") == Some("2") {
        TableName::new(&spelling.schema().to_lowercase(), &spelling.table().to_lowercase())
    } else {
        spelling.clone()
    })
}

/// Without transactions an event is in the log although its transaction was rolled back.
fn engine(table: &Table, facts: &Facts) -> Check {
    let transactional = facts.transactional.iter().any(|engine| engine.eq_ignore_ascii_case(&table.engine));
    let setting = format!("engine of {}", table.name);
    Check::passed(Name::Engine, setting, "a transactional engine", &table.engine)
        .or_failed(transactional, format!("ALTER TABLE {} ENGINE = InnoDB", table.name.quoted()))
}

fn columns(wanted: &Wanted, table: &Table) -> Vec<Check> {
    let mut checks = Vec::new();
    for read in &wanted.columns {
        let name = &read.name;
        match table.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name)) {
            Some(column) => checks.extend(column_type(table, column, read.required)),
            None => checks.push(missing(table, name)),
        }
    }
    if checks.is_empty() {
        let names = wanted.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
        let setting = format!("columns of {}", table.name);
        checks.push(Check::passed(Name::Columns, setting, "all columns, of types that are relayed", names));
    }
    checks
}

fn missing(table: &Table, name: &str) -> Check {
    let there = table.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
    let cure = match definition(name) {
        Some(definition) => format!(
            "ALTER TABLE {} ADD COLUMN {} {definition}; or name another under [outbox.columns]",
            table.name.quoted(),
            quote(name)
        ),
        None => "add it, or name another under [outbox.columns]".to_owned(),
    };
    Check::passed(Name::Columns, format!("column {}.{name}", table.name), "is there", format!("only {there}"))
        .failed(cure)
}

/// What is wrong with a column, if anything is.
fn column_type(table: &Table, column: &Column, required: bool) -> Option<Check> {
    let Column { name, kind, nullable, charset, collation, .. } = column;
    let setting = format!("column {}.{name}", table.name);
    let check = |expected: &str, found: &str| Check::passed(Name::Columns, &setting, expected, found);
    let null = if *nullable { "NULL" } else { "NOT NULL" };
    let modify = |to: &str| format!("ALTER TABLE {} MODIFY COLUMN {} {to}", table.name.quoted(), quote(name));
    let base = kind.split(['(', ' ']).next().unwrap_or_default();
    if let Some(charset) = charset
        && collation.and_then(Charset::of).is_none()
    {
        let expected = "a character set that is converted (docs/binlog.md), such as utf8mb4";
        return Some(check(expected, charset).failed(modify(&format!("{kind} CHARACTER SET utf8mb4 {null}"))));
    }
    if ["enum", "set", "inet4", "inet6"].contains(&base) {
        let found = match base {
            "enum" | "set" => format!("{kind}, of which the number is published"),
            _ => format!("{kind}, of which the bytes as stored are published"),
        };
        let cure = modify(&format!("VARCHAR(255) CHARACTER SET utf8mb4 {null}"));
        return Some(check("a type whose text is in the log", &found).warned(cure));
    }
    if *nullable && required {
        let charset = charset.as_ref().map_or_else(String::new, |charset| format!(" CHARACTER SET {charset}"));
        let found = "NULL allowed, and a row with NULL halts the table";
        return Some(check("NOT NULL", found).warned(modify(&format!("{kind}{charset} NOT NULL"))));
    }
    None
}

/// The largest row of each table: every value fits one statement, so the server's packet bounds it too.
pub(super) fn widest(facts: &Facts, wanted: &[Wanted]) -> Vec<Widest> {
    /// Numbers and dates as text.
    const SMALL: u64 = 64;
    let octets = |column: &Column| match column.octets {
        Some(octets) => octets,
        None if column.kind.starts_with("json") => u64::from(u32::MAX),
        None => SMALL,
    };
    let mut all: Vec<Widest> = Vec::new();
    for (table, column) in read_columns(facts, wanted) {
        let bytes = octets(column);
        let shown = || format!("{} {}", column.name, column.kind);
        match all.last_mut().filter(|last| last.table == table.name) {
            Some(last) => {
                if bytes > last.bytes {
                    last.column = shown();
                }
                last.bytes = last.bytes.saturating_add(bytes).min(facts.max_packet());
            }
            None => {
                all.push(Widest { table: table.name.clone(), bytes: bytes.min(facts.max_packet()), column: shown() });
            }
        }
    }
    all
}
