//! What a comparison comes to, for people and for programs.

use std::fmt::Write;

use comfy_table::Table;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use jiff::Timestamp;
use serde::Serialize;

use crate::cli::code;
use crate::daemon::verify::Verified;
use crate::terminal::text::harmless;
use crate::verify::{Finding, Kind, TableCounts, TopicCounts};

/// Everything that is said; serialized, it is the JSON form.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    verdict: Outcome,
    tables: Vec<OfTable>,
    topics: Vec<OfTopic>,
    findings: Vec<Shown>,
    /// What could not be looked at.
    incomplete: Vec<String>,
    notes: Vec<String>,
    /// Events that were published now.
    repaired: u64,
    #[serde(skip)]
    tolerates_duplicates: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Clean,
    Differences,
    Incomplete,
}

#[derive(Debug, Serialize)]
struct OfTable {
    table: String,
    #[serde(flatten)]
    counts: TableCounts,
}

#[derive(Debug, Serialize)]
struct OfTopic {
    topic: String,
    #[serde(flatten)]
    counts: TopicCounts,
}

#[derive(Debug, Serialize)]
struct Shown {
    kind: Kind,
    table: Option<String>,
    topic: String,
    id: String,
    aggregate: String,
    partition: Option<i32>,
    offset: Option<i64>,
    time: Option<String>,
}

impl Report {
    /// `tolerates_duplicates`: whether records that came twice are no difference.
    pub(super) fn of(verified: &Verified, tolerates_duplicates: bool) -> Self {
        let tables: Vec<_> = verified.tables().zip(&verified.verdict.tables).collect();
        let table = |number: u16| tables.get(usize::from(number)).map(|((name, _), _)| name.to_string());
        let shown = |(kind, finding): (Kind, &Finding)| Shown {
            kind,
            table: finding.table.and_then(table),
            topic: verified.topics[usize::from(finding.topic)].0.clone(),
            id: text(&finding.id),
            aggregate: text(&finding.aggregate),
            partition: finding.place.map(|(partition, _)| partition),
            offset: finding.place.map(|(_, offset)| offset),
            time: finding
                .millis
                .and_then(|millis| Timestamp::from_millisecond(millis).ok())
                .map(|time| time.to_string()),
        };
        let of_table = |((name, _), counts): &((&crate::table::TableName, bool), &TableCounts)| OfTable {
            table: name.to_string(),
            counts: (*counts).clone(),
        };
        let of_topic = |((topic, is_read), counts): (&(String, bool), &TopicCounts)| {
            is_read.then(|| OfTopic { topic: topic.clone(), counts: counts.clone() })
        };
        let mut report = Self {
            verdict: Outcome::Clean,
            tables: tables.iter().filter(|((_, asked), _)| *asked).map(of_table).collect(),
            topics: verified.topics.iter().zip(&verified.verdict.topics).filter_map(of_topic).collect(),
            findings: verified.verdict.examples.iter().map(shown).collect(),
            incomplete: verified.faults.iter().map(|(table, fault)| format!("{table}: {fault}")).collect(),
            notes: verified.notes.clone(),
            repaired: 0,
            tolerates_duplicates,
        };
        report.verdict = report.outcome();
        report
    }

    fn sum(&self, count: impl Fn(&TableCounts) -> u64) -> u64 {
        self.tables.iter().map(|table| count(&table.counts)).sum()
    }

    fn unexpected(&self) -> u64 {
        self.topics.iter().map(|topic| topic.counts.unexpected).sum()
    }

    /// Missing events, which the log or the table still has.
    pub(super) fn reparable(&self) -> u64 {
        self.sum(|counts| counts.missing)
    }

    /// So many of the missing have been published.
    pub(super) fn repaired(&mut self, events: u64) {
        self.repaired = events;
        self.verdict = self.outcome();
    }

    fn outcome(&self) -> Outcome {
        let duplicates = if self.tolerates_duplicates { 0 } else { self.sum(|counts| counts.duplicates) };
        let differences = self.sum(|counts| counts.missing + counts.out_of_order) + duplicates + self.unexpected();
        if differences > self.repaired {
            Outcome::Differences
        } else if self.incomplete.is_empty() {
            Outcome::Clean
        } else {
            Outcome::Incomplete
        }
    }

    /// What scripts go by.
    pub(super) fn code(&self) -> u8 {
        match self.verdict {
            Outcome::Clean => code::CLEAN,
            Outcome::Differences => code::DIFFERENCES,
            Outcome::Incomplete => code::DATA,
        }
    }

    /// How many of the missing have a later event of their aggregate in Kafka for certain, and how many may have.
    fn overtaken(&self) -> (u64, u64) {
        let perhaps = self.sum(|counts| counts.perhaps_overtaken);
        (self.sum(|counts| counts.overtaken).saturating_sub(perhaps), perhaps)
    }

    /// What publishing means for consumers.
    pub(super) fn warning(&self) -> String {
        match self.overtaken() {
            (0, 0) => "None of them is known to have a later event of its aggregate in Kafka.".to_owned(),
            (late, 0) => {
                format!("{late} of them come after a later event of their aggregate: consumers see them late.")
            }
            (0, perhaps) => format!(
                "{perhaps} of them may come after a later event of their aggregate, for the log no longer tells their \
                 order: consumers may see them late."
            ),
            (late, perhaps) => format!(
                "{late} of them come after a later event of their aggregate, and {perhaps} more may, for the log no \
                 longer tells their order: consumers see them late."
            ),
        }
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out.trim_end().to_owned()
    }

    fn write(&self, out: &mut String) {
        let mut table = Table::new();
        table.load_style(UTF8_HORIZONTAL_ONLY).set_header([
            "table",
            "committed",
            "delivered",
            "in flight",
            "missing",
            "duplicate",
            "out of order",
            "not checked",
        ]);
        for OfTable { table: name, counts } in &self.tables {
            let numbers = [
                counts.committed,
                counts.delivered,
                counts.in_flight,
                counts.missing,
                counts.duplicates,
                counts.out_of_order,
                counts.expired + counts.compacted + counts.unknown,
            ];
            table.add_row([harmless(name).into_owned()].into_iter().chain(numbers.map(|number| number.to_string())));
        }
        line(out, &table.to_string());
        let mut topics = Table::new();
        topics.load_style(UTF8_HORIZONTAL_ONLY).set_header(["topic", "records", "unexpected", "not checked"]);
        for OfTopic { topic, counts } in &self.topics {
            let numbers = [counts.records, counts.unexpected, counts.unknown];
            topics.add_row([topic.clone()].into_iter().chain(numbers.map(|number| number.to_string())));
        }
        line(out, &topics.to_string());
        if !self.findings.is_empty() {
            line(out, &self.examples().to_string());
        }
        self.remarks(out);
        let word = match self.verdict {
            Outcome::Clean => "✓ clean: everything that is committed and due is in Kafka",
            Outcome::Differences => "✗ what is committed and what is in Kafka differ",
            Outcome::Incomplete => "! no difference, but not everything could be looked at",
        };
        line(out, word);
    }

    fn examples(&self) -> Table {
        let mut table = Table::new();
        table.load_style(UTF8_HORIZONTAL_ONLY).set_header(["", "id", "aggregate", "table", "record", "time"]);
        for Shown { kind, table: of, topic, id, aggregate, partition, offset, time } in &self.findings {
            let word = match kind {
                Kind::Missing => "missing",
                Kind::Duplicate => "duplicate",
                Kind::OutOfOrder => "out of order",
                Kind::Unexpected => "unexpected",
            };
            let place = partition.zip(*offset).map(|(partition, offset)| format!("{topic}/{partition}:{offset}"));
            let of = harmless(of.as_deref().unwrap_or_default());
            let time = time.clone().unwrap_or_default();
            table.add_row([word, id, aggregate, &*of, &place.unwrap_or_else(|| topic.clone()), &time]);
        }
        table
    }

    fn remarks(&self, out: &mut String) {
        let mut remark = |count: u64, text: &str| {
            if count > 0 {
                line(out, &format!("  {count} {text}"));
            }
        };
        let (late, perhaps) = self.overtaken();
        remark(late, "missing have a later event of their aggregate in Kafka");
        remark(
            perhaps,
            "missing may have a later event of their aggregate in Kafka: the log no longer tells their order",
        );
        remark(
            self.sum(|counts| counts.missing_beyond_log),
            "missing are in their table alone, for the log no longer has them",
        );
        remark(self.sum(|counts| counts.expired), "not checked: older than the first record that the topic still has");
        remark(
            self.sum(|counts| counts.compacted),
            "not checked: the topic is compacted and has a later record of the key, or may have",
        );
        remark(
            self.sum(|counts| counts.unknown),
            "not checked: in their table alone, and the log could not be read to its end",
        );
        remark(self.sum(|counts| counts.published_again), "published again on request");
        let unknown = self.topics.iter().map(|topic| topic.counts.unknown).sum();
        remark(unknown, "records not checked: their rows may be from before what the log and the tables still have");
        if self.tolerates_duplicates {
            remark(
                self.sum(|counts| counts.duplicates),
                "duplicates, which are no difference with delivery at least once",
            );
        }
        remark(self.repaired, "missing were published now");
        for note in &self.notes {
            line(out, &format!("  {note}"));
        }
        for fault in &self.incomplete {
            line(out, &format!("! not looked at to the end: {fault}"));
        }
    }
}

fn line(out: &mut String, text: &str) {
    // A string takes everything.
    let _ = writeln!(out, "{text}");
}

/// Text as it is, other bytes in hexadecimal.
fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if harmless(text) == text => text.to_owned(),
        _ => bytes.iter().fold("0x".to_owned(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_missing_events_when_asked_whether_to_publish_them_then_no_more_is_said_of_later_ones_than_is_known() {
        let said = |overtaken, perhaps_overtaken| {
            let counts = TableCounts { missing: 9, overtaken, perhaps_overtaken, ..TableCounts::default() };
            let report = Report {
                verdict: Outcome::Differences,
                tables: vec![OfTable { table: "a.b".to_owned(), counts }],
                topics: Vec::new(),
                findings: Vec::new(),
                incomplete: Vec::new(),
                notes: Vec::new(),
                repaired: 0,
                tolerates_duplicates: true,
            };
            let text = report.text();
            let is_told = |word: &str| text.contains(&format!("missing {word} have a later event").replace("  ", " "));
            assert_eq!((is_told(""), is_told("may")), (overtaken > perhaps_overtaken, perhaps_overtaken > 0), "{text}");
            report.warning()
        };
        assert_eq!(said(0, 0), "None of them is known to have a later event of its aggregate in Kafka.");
        assert!(said(2, 0).starts_with("2 of them come after a later event of their aggregate: "));
        assert!(said(2, 2).starts_with("2 of them may come after a later event of their aggregate, "));
        assert!(said(3, 1).starts_with("2 of them come after a later event of their aggregate, and 1 more may, "));
    }
}
