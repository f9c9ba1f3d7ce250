//! Events that are set aside: the records that carry their rows to another topic, and back.
//!
//! Promise: the row travels whole, whatever it was that could not be delivered: the payload as the value, in as many
//! records as it takes, every other column as a header. What is read back is complete, in order, or an error.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::topic::{TopicTemplateError, is_topic_byte, is_topic_name};
use super::{Header, Mapping, Record, STANDARD_HEADERS};
use crate::source::{Batch, BatchBuilder, BatchFull, Row};
use crate::table::TableName;

/// What becomes of an event that cannot be delivered while others can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnPoison {
    /// Its table halts.
    #[default]
    Halt,
    /// It and all later events of its aggregate go to a parking topic, until they are released.
    Park,
    /// It alone goes to a topic of dead letters: the aggregate's order has a hole.
    DeadLetter,
}

/// The topic that events are set aside in; `{topic}` is the one that they would have gone to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsideTopic {
    before: String,
    /// What follows the other topic's name, if that is in it.
    after: Option<String>,
}

/// Topics' names are no longer.
const LONGEST: usize = 249;

impl AsideTopic {
    /// Reads a name or a template.
    pub fn parse(text: &str) -> Result<Self, TopicTemplateError> {
        let (before, after) = match text.split_once("{topic}") {
            Some((before, after)) => (before.to_owned(), Some(after.to_owned())),
            None => (text.to_owned(), None),
        };
        let example = format!("{before}{}", after.as_deref().map(|after| format!("t{after}")).unwrap_or_default());
        if text.contains('{') && after.is_none() || !is_topic_name(example.as_bytes()) {
            return Err(TopicTemplateError::Name(text.to_owned()));
        }
        Ok(Self { before, after })
    }

    /// The topic for events of another one. What no name can have becomes `_`, and what is too long is cut.
    pub fn of(&self, topic: &str) -> String {
        let Some(after) = &self.after else { return self.before.clone() };
        let room = LONGEST.saturating_sub(self.before.len() + after.len());
        let fit = |byte: u8| if is_topic_byte(byte) { char::from(byte) } else { '_' };
        let name = topic.bytes().take(room).map(fit);
        self.before.chars().chain(name).chain(after.chars()).collect()
    }
}

impl fmt::Display for AsideTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = self.after.as_ref();
        write!(f, "{}{}", self.before, after.map(|after| format!("{{topic}}{after}")).unwrap_or_default())
    }
}

/// What is done with events that cannot be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aside {
    /// With those that come.
    pub on_poison: OnPoison,
    /// Where parked ones go.
    pub parking: AsideTopic,
    /// Where dead letters go.
    pub dead_letters: AsideTopic,
    /// Aggregates of a table that may be parked.
    pub aggregates: u64,
    /// Events of a table that may be.
    pub events: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Default for Aside {
    /// Halts, and goes on parking what is parked already.
    fn default() -> Self {
        let under = |before: &str| AsideTopic { before: before.to_owned(), after: Some(String::new()) };
        Self {
            on_poison: OnPoison::Halt,
            parking: under("outboxd.parked."),
            dead_letters: under("outboxd.dead."),
            aggregates: 100,
            events: 10_000,
            bytes: 64 << 20,
        }
    }
}

/// Whether the record is a parked event or a dead letter; the first header's value is `parked` or `dead_letter`.
const ASIDE: &str = "outboxd-aside";
/// Why it was not delivered.
const REASON: &str = "outboxd-reason";
/// The table that it is from.
pub const TABLE: &str = "outboxd-table";
/// The position of the batch that it came in.
const POSITION: &str = "outboxd-position";
/// The topic that it would have gone to; none if that cannot be told.
const TOPIC: &str = "outboxd-topic";
/// When it was committed, in microseconds since the Unix epoch.
const COMMITTED: &str = "outboxd-committed";
/// Says of a dead letter that its aggregate's later events were delivered.
const HOLE: &str = "outboxd-order-hole";
/// The time that the aggregate was parked: the id of its first event.
pub const RUN: &str = "outboxd-run";
/// The event's number among those of the run, from 0.
const NUMBER: &str = "outboxd-number";
/// Which part of the payload the value is, from 0, and of how many: `0/1`.
const PART: &str = "outboxd-part";
/// Begins the names of headers with columns.
const COLUMN: &str = "outboxd-column-";

/// Bytes of a payload in one record; brokers take 1 MiB if nobody says otherwise.
const PART_BYTES: usize = 512 << 10;

/// An event's place among what is parked of its aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The time that the aggregate was parked.
    pub run: &'a str,
    /// From 0.
    pub number: u64,
}

/// What is said of an event that is set aside.
#[derive(Debug, Clone, Copy)]
pub struct Label<'a> {
    /// Where it is from.
    pub table: &'a TableName,
    /// The position of its batch.
    pub position: &'a str,
    /// Why it was not delivered.
    pub reason: &'a str,
    /// Its place, if it is parked; a dead letter has none.
    pub place: Option<Place<'a>>,
}

/// A row's way aside.
pub struct Parcel<'a> {
    topic: String,
    key: &'a [u8],
    payload: Option<&'a [u8]>,
    timestamp_millis: i64,
    headers: Vec<(String, Option<Vec<u8>>)>,
    standard: [Option<&'a [u8]>; 2],
}

impl<'a> Parcel<'a> {
    /// Packs a row.
    pub fn new(mapping: &Mapping, row: Row<'a>, label: &Label<'_>) -> Self {
        let aside = mapping.aside();
        let template = if label.place.is_some() { &aside.parking } else { &aside.dead_letters };
        let wanted = mapping.topic_of(row);
        let topic = template.of(wanted.as_deref().unwrap_or(&label.table.to_string()));
        let text = |name: &str, value: &str| (name.to_owned(), Some(value.as_bytes().to_vec()));
        let mut headers = vec![
            text(ASIDE, if label.place.is_some() { "parked" } else { "dead_letter" }),
            text(REASON, label.reason),
            text(TABLE, &label.table.to_string()),
            text(POSITION, label.position),
            (TOPIC.to_owned(), wanted.map(String::into_bytes)),
            text(COMMITTED, &row.commit_micros().to_string()),
        ];
        match label.place {
            Some(Place { run, number }) => headers.extend([text(RUN, run), text(NUMBER, &number.to_string())]),
            None => headers.push(text(HOLE, "1")),
        }
        for (place, name) in mapping.columns().iter().enumerate().filter(|(place, _)| *place != mapping.payload()) {
            headers.push((format!("{COLUMN}{name}"), row.get(place).map(<[u8]>::to_vec)));
        }
        let committed = i64::try_from(row.commit_micros() / 1000).unwrap_or(i64::MAX);
        Self {
            topic,
            key: mapping.key(row).unwrap_or_default(),
            payload: row.get(mapping.payload()),
            timestamp_millis: committed,
            headers,
            standard: [mapping.id(row), mapping.event_type(row)],
        }
    }

    /// Where it goes.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// In so many records.
    pub fn parts(&self) -> usize {
        self.payload.map_or(1, |payload| payload.len().div_ceil(PART_BYTES).max(1))
    }

    /// What it counts towards limits.
    pub fn bytes(&self) -> u64 {
        let headers: usize =
            self.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len)).sum();
        (self.key.len() + self.payload.map_or(0, <[u8]>::len) + headers) as u64
    }

    /// Hands the record of one part to `with`.
    pub fn with_part<T>(&self, part: usize, with: impl FnOnce(&Record<'_>) -> T) -> T {
        let of = format!("{part}/{}", self.parts());
        let mut headers: SmallVec<[Header<'_>; 16]> = SmallVec::new();
        headers.extend(STANDARD_HEADERS.into_iter().zip(self.standard).map(|(name, value)| Header { name, value }));
        headers.extend(self.headers.iter().map(|(name, value)| Header { name, value: value.as_deref() }));
        headers.push(Header { name: PART, value: Some(of.as_bytes()) });
        with(&Record {
            topic: &self.topic,
            key: self.key,
            partition: None,
            value: self.payload.map(|payload| payload.chunks(PART_BYTES).nth(part).unwrap_or_default()),
            timestamp_millis: self.timestamp_millis,
            headers: &headers,
        })
    }
}

/// A record that was read back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Value.
    pub value: Option<Vec<u8>>,
    /// Headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Unpacked {
    /// A header's value, as text.
    pub fn text(&self, name: &str) -> Option<&str> {
        let value = self.headers.iter().find(|(header, _)| header == name)?.1.as_deref()?;
        std::str::from_utf8(value).ok()
    }

    fn number(&self) -> Option<u64> {
        self.text(NUMBER)?.parse().ok()
    }

    /// Which part, and of how many.
    fn part(&self) -> Option<(usize, usize)> {
        let (part, of) = self.text(PART)?.split_once('/')?;
        Some((part.parse().ok()?, of.parse().ok()?))
    }
}

/// Puts the events with these numbers together from the records of their run, in their order: each once, however often it is
/// there. Those of a partition are in the order in which they arrived. The rows have the columns of `mapping`.
pub fn unpack(
    mapping: &Mapping,
    mut records: Vec<Unpacked>,
    numbers: std::ops::Range<u64>,
) -> Result<Option<Batch>, String> {
    // Topics and partitions are read one after the other; what a later run has was committed later.
    records.sort_by_key(|record| record.text(COMMITTED).and_then(|micros| micros.parse::<u64>().ok()));
    let mut events: BTreeMap<u64, BTreeMap<usize, Unpacked>> = BTreeMap::new();
    for record in records {
        let (Some(number), Some((part, of))) = (record.number(), record.part()) else { continue };
        if !numbers.contains(&number) {
            continue;
        }
        // The same event may have begun a run before, with others behind it, that was released or never saved: the last ones
        // count. Those that came twice within a run are the same.
        let parts = events.entry(number).or_default();
        parts.retain(|_, earlier| earlier.part().is_some_and(|(_, all)| all == of));
        parts.insert(part, record);
    }
    let mut batch = BatchBuilder::new(mapping.columns().len());
    for number in numbers {
        let gone = || format!("event {number} of those that are parked is not, or not wholly, in its topic any more");
        let parts = events.remove(&number).ok_or_else(gone)?;
        let first = parts.get(&0).ok_or_else(gone)?;
        if first.part().is_none_or(|(_, of)| of != parts.len()) {
            return Err(gone());
        }
        row(mapping, &mut batch, first, parts.values()).map_err(|why| format!("event {number}: {why}"))?;
    }
    Ok((!batch.is_empty()).then(|| batch.take(Arc::default())))
}

fn row<'r>(
    mapping: &Mapping,
    batch: &mut BatchBuilder,
    first: &Unpacked,
    parts: impl Iterator<Item = &'r Unpacked>,
) -> Result<(), String> {
    let committed = first.text(COMMITTED).and_then(|text| text.parse().ok());
    batch.set_commit_micros(committed.ok_or_else(|| format!("it has no header {COMMITTED}"))?);
    let mut row = batch.row();
    let full = |error: BatchFull| error.to_string();
    for (place, name) in mapping.columns().iter().enumerate().filter(|(place, _)| *place != mapping.payload()) {
        let header = |(header, _): &&(String, _)| header.strip_prefix(COLUMN) == Some(name);
        let (_, value) = first
            .headers
            .iter()
            .find(header)
            .ok_or_else(|| format!("column `{name}` was not configured when it was parked"))?;
        if let Some(value) = value {
            let write = |out: &mut Vec<u8>| {
                out.extend_from_slice(value);
                Ok(())
            };
            row.set(place, write).map_err(full)?;
        }
    }
    if first.value.is_some() {
        let write = |out: &mut Vec<u8>| {
            parts.filter_map(|part| part.value.as_deref()).for_each(|value| out.extend_from_slice(value));
            Ok(())
        };
        row.set(mapping.payload(), write).map_err(full)?;
    }
    row.finish();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::{Columns, TopicTemplate};
    use crate::position::Position;

    fn mapping() -> Mapping {
        Mapping::new(Columns::default(), TopicTemplate::parse("to-{aggregatetype}").unwrap())
    }

    fn batch(rows: &[[Option<&[u8]>; 5]]) -> Batch {
        committed(1_700_000_000_123_456, rows)
    }

    /// One row each microsecond, from then on.
    fn committed(first: u64, rows: &[[Option<&[u8]>; 5]]) -> Batch {
        let mut batch = BatchBuilder::new(5);
        for (row, micros) in rows.iter().zip(first..) {
            batch.set_commit_micros(micros);
            let mut writer = batch.row();
            for (column, value) in row.iter().enumerate() {
                if let Some(value) = value {
                    let write = |out: &mut Vec<u8>| {
                        out.extend_from_slice(value);
                        Ok::<_, BatchFull>(())
                    };
                    writer.set(column, write).unwrap();
                }
            }
            writer.finish();
        }
        batch.take(Arc::new(Position::default()))
    }

    fn pack(batch: &Batch, first: u64) -> Vec<(String, Unpacked)> {
        let (table, mapping) = (TableName::new("d", "o 1"), mapping());
        let mut packed = Vec::new();
        for (number, row) in (first..).zip(batch.rows()) {
            let place = Some(Place { run: "r", number });
            let parcel = Parcel::new(&mapping, row, &Label { table: &table, position: "p", reason: "why", place });
            for part in 0..parcel.parts() {
                packed.push(parcel.with_part(part, |record| {
                    let headers = record.headers.iter().map(|h| (h.name.to_owned(), h.value.map(<[u8]>::to_vec)));
                    let value = record.value.map(<[u8]>::to_vec);
                    (record.topic.to_owned(), Unpacked { value, headers: headers.collect() })
                }));
            }
        }
        packed
    }

    /// An event of the aggregate `k`.
    fn event<'a>(id: &'a [u8], payload: &'a [u8]) -> [Option<&'a [u8]>; 5] {
        [Some(id), Some(b"a"), Some(b"k"), Some(b"T"), Some(payload)]
    }

    #[test]
    fn rows_of_any_kind_come_back_as_they_were() {
        let large = vec![7; PART_BYTES * 2 + 1];
        let rows: Vec<[Option<&[u8]>; 5]> = vec![
            [Some(b"1"), Some(b"a"), Some(b"k"), Some(b"T"), Some(&large)],
            [None, None, None, None, None],
            [Some(b"2"), Some(b"no topic"), Some(b"\xff"), Some(b"T"), Some(b"")],
        ];
        let packed = pack(&batch(&rows), 4);
        let topics: Vec<_> = packed.iter().map(|(topic, _)| topic.as_str()).collect();
        let table = "outboxd.parked.d.o_1";
        assert_eq!(topics, ["outboxd.parked.to-a", "outboxd.parked.to-a", "outboxd.parked.to-a", table, table]);
        let mut records: Vec<_> = packed.into_iter().map(|(_, record)| record).collect();
        // In another order, and some of them twice.
        records.reverse();
        records.push(records[0].clone());
        let unpacked = unpack(&mapping(), records.clone(), 4..7).unwrap().unwrap();
        let found: Vec<[Option<&[u8]>; 5]> = unpacked.rows().map(|row| [0, 1, 2, 3, 4].map(|c| row.get(c))).collect();
        assert_eq!(found, rows);
        let times: Vec<_> = unpacked.rows().map(|row| row.commit_micros() % 10).collect();
        assert_eq!(times, [6, 7, 8]);
        assert_eq!(unpack(&mapping(), records.clone(), 6..7).unwrap().unwrap().len(), 1);
        assert!(unpack(&mapping(), Vec::new(), 3..3).unwrap().is_none());
        for numbers in [3..7, 4..8] {
            assert!(unpack(&mapping(), records.clone(), numbers).unwrap_err().contains("not wholly"));
        }
        records.retain(|record| record.text(PART) != Some("1/3"));
        assert!(unpack(&mapping(), records, 4..7).unwrap_err().contains("event 4"));
    }

    #[test]
    fn given_an_event_that_began_a_run_before_when_unpacked_then_what_was_parked_behind_it_last_counts() {
        let (long, longer) = (vec![3; PART_BYTES + 1], vec![4; PART_BYTES * 2 + 1]);
        let before =
            [event(b"1", b"x"), event(b"2", &longer), event(b"3", b"x"), event(b"4", &long), event(b"5", b"x")];
        let last = [event(b"1", b"x"), event(b"6", b"y"), event(b"7", &long), event(b"8", &longer), event(b"9", b"z")];
        let packed = |first, rows: &[[Option<&[u8]>; 5]]| {
            pack(&committed(first, rows), 0).into_iter().map(|(_, record)| record).collect::<Vec<_>>()
        };
        // Some are in a topic that is read first. The batch was sent again after a crash, and not wholly before the next one.
        let mut records = packed(100, &last);
        records.extend(packed(10, &before));
        records.extend(packed(100, &last[..3]));
        records.extend(packed(100, &last));
        records.truncate(records.len() - 1);
        let unpacked = unpack(&mapping(), records.clone(), 0..5).unwrap().unwrap();
        let found: Vec<[Option<&[u8]>; 5]> = unpacked.rows().map(|row| [0, 1, 2, 3, 4].map(|c| row.get(c))).collect();
        assert_eq!(found, last);
        let rest = unpack(&mapping(), records, 2..4).unwrap().unwrap();
        assert_eq!(rest.rows().map(|row| row.get(0)).collect::<Vec<_>>(), [Some(&b"7"[..]), Some(&b"8"[..])]);
    }

    #[test]
    fn a_topic_is_made_of_any_name() {
        let parked = AsideTopic::parse("outboxd.parked.{topic}").unwrap();
        assert_eq!(parked.of("a b/c"), "outboxd.parked.a_b_c");
        assert_eq!(parked.of(&"x".repeat(300)).len(), LONGEST);
        assert_eq!(AsideTopic::parse("all").unwrap().of("a"), "all");
        assert_eq!(AsideTopic::parse("{topic}-dlq").unwrap().of("a"), "a-dlq");
        for wrong in ["", "a b", "{table}", "{topic", "x{topic}{topic}"] {
            assert!(AsideTopic::parse(wrong).is_err(), "{wrong}");
        }
    }
}
