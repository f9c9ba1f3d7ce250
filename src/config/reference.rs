//! docs/configuration-reference.md: what each key is called, takes, has by default and is for, out of the code and of the shipped
//! file, whose keys and defaults another test compares with the code.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::unknown::{is_hidden, is_open, template};
use super::*;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration-reference.md");
const FILE: &str = include_str!("../../config/outboxd.toml");

const HEAD: &str = "\
# Configuration reference

<!-- Written by `make reference`; a test fails when it is stale. -->

Every key, from the code. [Configuration](configuration.md) says what goes where, and what goes with what; [config/outboxd.toml](../config/outboxd.toml) is
the same as a file to start from. Any key can be set by an environment variable: `OUTBOXD__` and the key in upper case, with `__` for each dot
(`OUTBOXD__MYSQL__TLS__MODE`, `OUTBOXD__OUTBOX__0__TOPIC`); and by `--set KEY=VALUE`.

A *duration* is a text such as `\"10s\"`, `\"500ms\"` or `\"7d\"`; a *size* one such as `\"16 MiB\"`, or a number of bytes. A *change* of a key counts after a
[reload](operations.md#changing-the-configuration), or takes a restart.
";

/// A line of the shipped file, uncommented: a key, or the table that it begins.
enum Line<'f> {
    Table(&'f str),
    Key { name: &'f str, why: Option<&'f str> },
}

fn line(text: &str) -> Option<Line<'_>> {
    let bare = text.strip_prefix("# ").unwrap_or(text);
    if let Some(table) = bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return Some(Line::Table(table.trim_matches(['[', ']'])));
    }
    let (name, value) = bare.split_once(" = ").filter(|(name, _)| !name.contains(' '))?;
    Some(Line::Key { name, why: value.split_once("  # ").map(|(_, why)| why) })
}

/// The value at a key, in this tree; the first element of lists of tables.
fn at<'v>(tree: &'v Value, key: &[&str]) -> Option<&'v Value> {
    key.iter().try_fold(tree, |value, level| match value {
        Value::Array(_, items) => items.first()?.as_dict()?.get(*level),
        value => value.as_dict()?.get(*level),
    })
}

/// What a key takes: what its parser says to something that nothing takes.
fn takes(key: &[&str], why: &str) -> String {
    let path: Vec<&str> = match key {
        ["outbox", rest @ ..] => ["outbox", "0"].into_iter().chain(rest.iter().copied()).collect(),
        key => key.to_vec(),
    };
    let path = path.join(".");
    let known = template();
    let is_list = matches!(at(&known, key), Some(Value::Array(..)));
    let wrong = if is_list { "1" } else { "[[1]]" };
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/config/outboxd.toml");
    let options = Options { file: Some(file.into()), sets: vec![format!("{path}={wrong}")], ..Options::default() };
    let errors = load(&options).err();
    let expected = errors.iter().flat_map(ConfigErrors::iter).find(|error| error.key == path);
    match expected.map_or("", |error| error.expected.as_str()) {
        _ if is_list => "list of texts".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "u16" | "u32" | "u64" | "usize" | "i16" | "i32" => "number".to_owned(),
        text if text.starts_with("a duration") => "duration".to_owned(),
        text if text.starts_with("a size") => "size".to_owned(),
        text if text.starts_with('"') => text.replace(" or ", ", ").replace('"', "`"),
        _ if ["A file", "PEM"].iter().any(|word| why.contains(word)) => "path".to_owned(),
        _ => "text".to_owned(),
    }
}

/// What holds when nobody sets the key.
fn default_of(key: &[&str], why: &str) -> String {
    let defaults = Config { outbox: vec![OutboxSettings::default()], ..Config::default() };
    let defaults = Value::serialize(defaults).unwrap();
    let known = template();
    // A table that is off by default has no values; then it is what one that is begun has.
    let begun = matches!(key, ["outbox", "route" | "cloudevents", _]).then(|| at(&known, key)).flatten();
    match at(&defaults, key).or(begun) {
        _ if why.starts_with("Required.") => "required".to_owned(),
        Some(Value::Empty(..)) | None => "unset".to_owned(),
        Some(value) => format!("`{}`", shown(value)),
    }
}

/// One row of the page.
fn row(table: &str, name: &str, why: &str) -> String {
    let key: Vec<&str> = table.split('.').chain([name]).collect();
    assert!(at(&template(), &key).is_some(), "{key:?} is no key");
    let hidden = if is_hidden(&key) { "; never shown" } else { "" };
    let cells = [
        format!("`{name}`"),
        takes(&key, why) + hidden,
        default_of(&key, why),
        if is_live(&key) { "reload" } else { "restart" }.to_owned(),
        why.trim_start_matches("Required. ").replace('|', "\\|"),
    ];
    format!("| {} |\n", cells.join(" | "))
}

/// The page, of the shipped file's order and words.
fn page() -> String {
    let mut page = HEAD.to_owned();
    let (mut table, mut why, mut rows) = ("", String::new(), 0);
    for text in FILE.lines().skip_while(|text| !text.is_empty()) {
        match line(text) {
            Some(Line::Table(begun)) => {
                table = begun;
                rows = 0;
                let _ = write!(page, "\n## {table}\n");
                let lines = if table == "outbox" {
                    "Tables that are relayed alike; any number of `[[outbox]]` blocks."
                } else {
                    &why
                };
                if !lines.is_empty() {
                    let _ = write!(page, "\n{lines}\n");
                }
                why.clear();
            }
            // What goes on to librdkafka has names of its own.
            Some(Line::Key { .. }) if is_open(&table.split('.').collect::<Vec<_>>()) => why.clear(),
            Some(Line::Key { name, why: beside }) => {
                if rows == 0 {
                    page.push_str("\n| key | takes | default | change | |\n|---|---|---|---|---|\n");
                }
                rows += 1;
                page.push_str(&row(table, name, beside.unwrap_or(&why)));
                why.clear();
            }
            None if text.is_empty() => why.clear(),
            None => {
                let words = text.trim_start_matches(['#', ' ']);
                why = if why.is_empty() { words.to_owned() } else { format!("{why} {words}") };
            }
        }
    }
    page
}

#[test]
fn the_configuration_reference_is_that_of_the_code() {
    let page = page();
    let mut keys = Vec::new();
    unknown::every_key(&template(), &mut Vec::new(), &mut keys);
    for key in keys {
        let last = key.last().unwrap();
        let is_there = page.contains(&format!("| `{last}` |"))
            || page.contains(&format!("## {}\n", key.join(".").replace(".0", "")));
        assert!(is_there || last == "0", "{} is not in the reference", key.join("."));
    }
    let found = fs::read_to_string(Path::new(PAGE)).unwrap_or_default();
    assert!(found == page, "stale: make reference");
}

#[test]
#[ignore = "writes docs/configuration-reference.md anew"]
fn configuration_reference_is_written() {
    fs::write(PAGE, page()).unwrap();
}
