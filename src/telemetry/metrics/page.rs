//! The table of all metrics, for people.

use std::fmt::Write as _;

use super::family::Family;
use super::process::PROCESS;
use super::tables::TABLES;

/// What the operating system tells of the process, by the usual names.
const SYSTEM: [(&str, &str, &str); 7] = [
    ("process_cpu_seconds_total", "counter", "Time of processors that was used"),
    ("process_resident_memory_bytes", "gauge", "Memory that is held"),
    ("process_virtual_memory_bytes", "gauge", "Addresses that are in use"),
    ("process_open_fds", "gauge", "Open files and connections"),
    ("process_max_fds", "gauge", "How many there may be"),
    ("process_threads", "gauge", "Threads"),
    ("process_start_time_seconds", "gauge", "When it started, since the Unix epoch"),
];

/// Every metric in tables of Markdown.
pub fn markdown() -> String {
    let mut page = String::new();
    section(&mut page, "Of each table", "The label `table` is the name with the schema, `delivery.delivery-outbox3`.");
    rows(&mut page, TABLES, Some("table"));
    section(
        &mut page,
        "Of the process",
        "There is one reader of the binlog, which the tables share, and a producer for each table.",
    );
    rows(&mut page, PROCESS, None);
    section(&mut page, "Of the process, by the operating system", "Linux only.");
    for (name, kind, help) in SYSTEM {
        let _ = writeln!(page, "| `{name}` | {kind} | | {help} |");
    }
    page
}

fn section(page: &mut String, title: &str, first: &str) {
    let _ = write!(page, "\n## {title}\n\n{first}\n\n| metric | type | labels | what it says |\n|---|---|---|---|\n");
}

fn rows<S>(page: &mut String, families: &[Family<S>], table: Option<&str>) {
    for family in families {
        let (kind, label) = family.kind();
        let labels: Vec<_> = table.into_iter().chain(label).map(|label| format!("`{label}`")).collect();
        let Family { name, help, .. } = family;
        let _ = writeln!(page, "| `{name}` | {kind} | {} | {help} |", labels.join(", "));
    }
}
