//! What one `[[outbox]]` block says, and all of them together.

use std::collections::{BTreeMap, BTreeSet};

use super::Problems;
use crate::config::OutboxSettings;
use crate::config::error::ErrorKind;
use crate::outbox::{Columns, HeaderColumn, ShardRule, TAKEN_HEADERS, TopicTemplate};
use crate::table::{TableName, TablePattern};

/// Every `[[outbox]]` block, and no table in two of them.
pub(super) fn outboxes(blocks: &[OutboxSettings], problems: &mut Problems) {
    if blocks.is_empty() {
        let expected = "at least one [[outbox]] with tables and topic, in the file or as OUTBOXD__OUTBOX__0__TABLES";
        problems.add(ErrorKind::Missing, &["outbox"], expected, "none");
    }
    let mut taken = Taken::default();
    for (index, block) in blocks.iter().enumerate() {
        let at = index.to_string();
        let path = |key| ["outbox", &at, key];
        if block.tables.is_empty() {
            problems.missing(&path("tables"), "tables such as schema.table{1..4}");
        }
        for (entry, pattern) in block.tables.iter().enumerate() {
            let entry = entry.to_string();
            let path = ["outbox", &at, "tables", &entry];
            match TablePattern::parse(pattern) {
                Ok(parsed) => taken.take(index, pattern, parsed, &path, problems),
                Err(error) => problems.invalid(&path, format!("a table pattern ({error})"), format!("{pattern:?}")),
            }
        }
        if block.topic.is_empty() {
            problems.missing(&path("topic"), "the name of a topic");
        } else {
            topic(block, &at, problems);
        }
        if let Some(cloud_events) = &block.cloudevents {
            let path = ["outbox", &at, "cloudevents", "source"];
            problems.hold(!cloud_events.source.is_empty(), &path, "where events come from, such as /delivery", "\"\"");
        }
        if let Some(Err(error)) = block.shard.as_deref().map(ShardRule::parse) {
            let expected = "a rule such as crc32(aggregateid) % 4, with crc32, murmur2, fnv or nothing but the column";
            problems.invalid(&path("shard"), expected, error);
        }
        columns(&block.columns, &at, problems);
    }
}

fn topic(block: &OutboxSettings, at: &str, problems: &mut Problems) {
    let found = || format!("{:?}", block.topic);
    if let Err(error) = TopicTemplate::parse(&block.topic) {
        problems.invalid(&["outbox", at, "topic"], format!("a topic or template ({error})"), found());
    } else if let Err(error) = block.topic() {
        let regex = block.route.as_ref().map(|route| format!("{:?}", route.regex)).unwrap_or_default();
        let expected = "an expression with named groups that the topic has as placeholders";
        problems.invalid(&["outbox", at, "route", "regex"], format!("{expected} ({error})"), regex);
    }
}

fn columns(columns: &Columns, at: &str, problems: &mut Problems) {
    for (key, name) in [
        ("id", &columns.id),
        ("aggregatetype", &columns.aggregatetype),
        ("aggregateid", &columns.aggregateid),
        ("type", &columns.event_type),
        ("payload", &columns.payload),
    ] {
        problems.hold(!name.is_empty(), &["outbox", at, "columns", key], "the name of a column", "\"\"");
    }
    for (key, name) in [
        ("key", &columns.key),
        ("partition", &columns.partition),
        ("timestamp", &columns.timestamp),
        ("header_object", &columns.header_object),
    ] {
        let named = name.as_ref().is_none_or(|name| !name.is_empty());
        problems.hold(named, &["outbox", at, "columns", key], "the name of a column", "\"\"");
    }
    for (key, kind, entries, taken) in [
        ("headers", "header", &columns.headers, &TAKEN_HEADERS[..]),
        ("envelope", "member", &columns.envelope, &["payload"]),
    ] {
        let mut taken: BTreeSet<&str> = taken.iter().copied().collect();
        for (entry, HeaderColumn { column, header }) in entries.iter().enumerate() {
            let path = ["outbox", at, "columns", key, &entry.to_string()];
            let named = !column.is_empty() && !header.is_empty();
            problems.hold(named, &path, format!("a column, or column:{kind}"), format!("\"{column}:{header}\""));
            let free = taken.insert(header);
            problems.hold(free, &path, format!("a {kind}'s name that is not taken"), format!("{header:?}"));
        }
    }
}

/// Which block has which tables already.
#[derive(Default)]
struct Taken {
    names: BTreeMap<TableName, usize>,
    wildcards: Vec<(usize, String, TablePattern)>,
}

impl Taken {
    /// Takes a pattern's tables for a block; one problem for each other block that has one of them.
    fn take(&mut self, block: usize, text: &str, pattern: TablePattern, path: &[&str], problems: &mut Problems) {
        let mut clashes: BTreeMap<usize, String> = BTreeMap::new();
        if let TablePattern::Names(names) = &pattern {
            for name in names {
                let named = *self.names.entry(name.clone()).or_insert(block);
                let wild = self.wildcards.iter().filter(|(_, _, wildcard)| wildcard.matches(name)).map(|(by, ..)| *by);
                for other in wild.chain([named]).filter(|other| *other != block) {
                    clashes.entry(other).or_insert_with(|| name.to_string());
                }
            }
        } else {
            for (name, other) in self.names.iter().filter(|(name, other)| **other != block && pattern.matches(name)) {
                clashes.entry(*other).or_insert_with(|| name.to_string());
            }
            for (other, same, _) in self.wildcards.iter().filter(|(other, same, _)| *other != block && same == text) {
                clashes.entry(*other).or_insert_with(|| same.clone());
            }
            self.wildcards.push((block, text.to_owned(), pattern));
        }
        for (other, table) in clashes {
            problems.invalid(path, "a table in one [[outbox]] only", format!("{table}, which outbox.{other} has too"));
        }
    }
}
