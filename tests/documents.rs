//! What the documents list is what the code has: every halt stands in docs/operations.md, every metric in docs/metrics.md.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use regex::Regex;

/// The source below a folder, without tests.
fn source(folder: &Path, into: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if !["tests", "testing", "history"].contains(&name) {
                source(&path, into);
            }
        } else if name != "tests.rs" {
            let text = fs::read_to_string(&path).unwrap();
            into.push_str(text.split("#[cfg(test)]\nmod tests {").next().unwrap());
        }
    }
}

/// What the code names by these patterns and the page does not explain in a table.
fn undocumented(patterns: &[&str]) -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    source(&root.join("src"), &mut code);
    let page = fs::read_to_string(root.join("docs/operations.md")).unwrap();
    let first_cells: String =
        page.lines().filter(|line| line.starts_with("| `")).map(|line| line.split(" | ").next().unwrap()).collect();
    let mut names = BTreeSet::new();
    for pattern in patterns {
        let before = names.len();
        names.extend(Regex::new(pattern).unwrap().captures_iter(&code).map(|found| found[1].to_owned()));
        assert!(names.len() > before, "nothing is found by {pattern}: has the code another form now?");
    }
    names.retain(|name| !first_cells.contains(&format!("`{name}`")));
    names
}

#[test]
fn every_halt_has_its_cure() {
    let patterns = [
        r#"(?:Fault|Halt) \{\s*name: "([a-z_]+)""#,
        r#"\bfault\(\s*"([a-z_]+)""#,
        r#"\b(?:halt|park)\(\s*"([a-z_]+)""#,
        r#"StoreError::[^=]+=> "([a-z_]+)""#,
    ];
    assert_eq!(undocumented(&patterns), BTreeSet::new());
}

/// The medians of a section of docs/benchmarks.md, by what they are of.
fn medians(section: &str) -> Vec<(String, String)> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/benchmarks.md")).unwrap();
    let (_, text) = page.split_once(&format!("\n## {section}\n")).unwrap_or_else(|| panic!("no section {section}"));
    let rows = text.split("\n## ").next().unwrap().lines().filter(|line| line.starts_with("| ")).skip(1);
    let cells = rows.map(|line| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>());
    cells.map(|cells| (cells[1].clone(), cells[3].clone())).collect()
}

#[test]
fn the_figures_that_the_readme_shows_are_those_that_were_measured() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let (each, all) = ("Debezium, one connector each", "Debezium, one connector for all");
    let (commit, latency) = ("From commit to consumer, 1,000 single-row commits a second", "tuned for latency");
    for (row, section, of, figure) in [
        (
            "transactions of 100 rows",
            "Catching up: 4 tables, 450 bytes, transactions of 100 rows",
            ["outboxd", each, all],
            "throughput",
        ),
        (
            "single-row transactions",
            "Catching up: 4 tables, 450 bytes, single-row transactions",
            ["outboxd", each, all],
            "throughput",
        ),
        (
            "memory meanwhile",
            "Catching up: 4 tables, 450 bytes, transactions of 100 rows",
            ["outboxd", each, all],
            "peak of memory",
        ),
    ] {
        let line = readme.lines().find(|line| line.starts_with("| ") && line.contains(row)).unwrap();
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let measured = medians(section);
        for (who, cell) in of.iter().zip(&cells[2..]) {
            let name = format!("{who}: {figure}");
            let found = measured.iter().find(|(of, _)| of.starts_with(&name)).unwrap_or_else(|| panic!("no {name}"));
            assert_eq!(*cell, found.1, "{row}, {who}");
        }
    }
    let measured = medians(commit);
    let median =
        |who: &str, of: &str| measured.iter().find(|(name, _)| *name == format!("{who}: {of}")).unwrap().1.clone();
    let line = readme.lines().find(|line| line.starts_with("| ") && line.contains("commit to consumer")).unwrap();
    for who in ["outboxd".to_owned(), format!("{all}, {latency}")] {
        assert!(line.contains(&format!("{} / {}", median(&who, "p50"), median(&who, "p99"))), "{who}: {line}");
    }
}

#[test]
fn every_event_of_the_log_is_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    source(&root.join("src"), &mut code);
    // The last argument, which is what is logged; what is at debug or below is for whoever reads the code.
    let event = Regex::new(r#"(?s)\b(?:info|warn|error)!\([^;]*?"([a-z0-9]+(?:_[a-z0-9]+)*)"\s*,?\s*\)"#).unwrap();
    let mut logged: BTreeSet<_> = event.captures_iter(&code).map(|found| found[1].to_owned()).collect();
    // Only in builds for tests.
    assert!(logged.remove("bug_planted"), "has the code another form now?");
    let page = fs::read_to_string(root.join("docs/operations.md")).unwrap();
    let line = page.lines().find(|line| line.contains("Event names are stable")).unwrap();
    let (_, list) = line.split_once("stable:").unwrap();
    let listed: BTreeSet<_> = list.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect();
    assert_eq!(listed, logged);
}

/// Names of the test functions below a folder, and the paths of its files.
fn tests_below(folder: &Path, names: &mut Vec<String>, files: &mut Vec<String>) {
    let name = Regex::new(r"fn (given_\w+|[a-z]\w+_\w+)").unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests_below(&path, names, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let module = path.with_extension("").to_str().unwrap().replace('/', "::");
            names.extend(name.captures_iter(&text).map(|found| format!("{module}::{}", &found[1])));
            files.push(module);
        }
    }
}

/// In the table, `a::b…` is a test whose name begins like that in a module `a`, `…given_b…` one in the module named last, and
/// a name without dots is a module or a folder.
#[test]
fn every_test_that_a_case_of_the_binlog_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut names, mut files) = (Vec::new(), Vec::new());
    for folder in ["src/mysql", "src/relay", "tests/it", "tests/captured", "src/cli"] {
        tests_below(&root.join(folder), &mut names, &mut files);
    }
    let page = fs::read_to_string(root.join("docs/binlog.md")).unwrap();
    let quoted = Regex::new("`([^`]+)`").unwrap();
    let (mut count, mut missing) = (0, Vec::new());
    let is_head = |line: &str| line.starts_with("| event or case") || line.starts_with("| case |");
    for line in page.lines().filter(|line| line.starts_with("| ") && !is_head(line)) {
        let cell = line.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let mut module = String::new();
        let mut tests = 0;
        for name in quoted.captures_iter(cell).map(|found| found[1].to_owned()) {
            tests += 1;
            let is_function = name.ends_with('…') || name.contains("given_");
            let (before, function) =
                match name.rsplit_once("::").or_else(|| name.split_once("…given_").map(|_| ("…", &name[..]))) {
                    Some((before, function)) if is_function => (before, Some(function.trim_matches('…'))),
                    _ => (name.as_str(), None),
                };
            if before != "…" {
                before.clone_into(&mut module);
            }
            let is_there = match function {
                Some(function) => names.iter().any(|name| {
                    name.contains(&format!("{module}::{function}"))
                        || name.contains(&format!("{module}::tests::{function}"))
                }),
                None => files.iter().any(|file| file.contains(&format!("::{module}"))),
            };
            if !is_there {
                missing.push(name);
            }
        }
        count += tests;
        assert!(tests > 0, "no test is named for: {line}");
    }
    assert!(count > 20 && missing.is_empty(), "{count} are named, and these are not there: {missing:?}");
}

/// With `OUTBOXD_WRITE_DOCS=1`, as `make reference` has it, it is written anew.
#[test]
fn the_table_of_metrics_is_what_the_code_has() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = fs::read_to_string(&path).unwrap();
    let (by_hand, generated) = page.split_once(" -->\n").unwrap();
    let now = outboxd::telemetry::metrics::markdown();
    if std::env::var_os("OUTBOXD_WRITE_DOCS").is_some() {
        fs::write(&path, format!("{by_hand} -->\n{now}")).unwrap();
    } else {
        assert!(generated == now, "docs/metrics.md is stale: make reference");
    }
}
