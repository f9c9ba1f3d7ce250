//! The mapping of one table: which column becomes what, and to which topic.

use std::sync::Arc;

use serde_json::{Map, Value};
use smallvec::{SmallVec, smallvec};

use super::aside::{Aside, OnPoison};
use super::cloudevents::{self, Attributes, CloudEvents};
use super::shard::ShardRule;
use super::topic::{Part, TopicName, is_topic_byte, is_topic_name};
use super::value::{PayloadFormat, Shape, ValueError};
use super::{Columns, Header, HeaderColumn, Record, STANDARD_HEADERS, TAKEN_HEADERS, TopicTemplate, timestamp};
use crate::source::Row;

/// A row that cannot become a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// A column that every event needs is NULL.
    #[error("column `{column}` is NULL")]
    Null {
        /// The column's name in the table.
        column: String,
    },
    /// A column that goes to a fixed place does not hold what belongs there.
    #[error("column `{column}` does not hold {expected}")]
    Value {
        /// The column's name in the table.
        column: String,
        /// What belongs there.
        expected: &'static str,
    },
    /// A column's value does not make a topic's name.
    #[error("column `{column}` does not make a topic name in `{template}`")]
    Topic {
        /// The column's name in the table.
        column: String,
        /// The template.
        template: String,
    },
}

/// Headers beyond this many cost an allocation for each event.
const INLINE_HEADERS: usize = 8;

/// A part of the topic's name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    /// By its place.
    Column(usize),
    /// What the group of this name has matched.
    Group(Box<str>),
}

/// How rows of a table become records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    columns: Arc<[String]>,
    id: usize,
    aggregateid: usize,
    event_type: usize,
    payload: usize,
    key: usize,
    partition: Option<usize>,
    timestamp: Option<usize>,
    /// Names and columns of the headers beside the standard ones.
    headers: Arc<[(String, usize)]>,
    header_object: Option<usize>,
    topic: TopicTemplate,
    pieces: Arc<[Piece]>,
    /// The column that the topic's expression takes apart.
    routed_by: usize,
    shape: Shape,
    cloud_events: Option<Arc<CloudEvents>>,
    /// The writers' rule, the column that it is about, and the shard that the table is.
    shard: Option<(ShardRule, usize, u32)>,
    aside: Arc<Aside>,
}

/// Gives every wanted column a place, the same one to those that are wanted twice.
#[derive(Default)]
struct Places(Vec<String>);

impl Places {
    fn of(&mut self, column: String) -> usize {
        let known = self.0.iter().position(|name| name.eq_ignore_ascii_case(&column));
        known.unwrap_or_else(|| {
            self.0.push(column);
            self.0.len() - 1
        })
    }

    /// Columns under names of their own.
    fn named(&mut self, columns: Vec<HeaderColumn>) -> Vec<(String, usize)> {
        columns.into_iter().map(|HeaderColumn { column, header }| (header, self.of(column))).collect()
    }
}

impl Mapping {
    /// The mapping for these columns and this topic, whose payloads are taken as they are.
    pub fn new(columns: Columns, topic: TopicTemplate) -> Self {
        let mut places = Places::default();
        let id = places.of(columns.id.clone());
        places.of(columns.aggregatetype.clone());
        let aggregateid = places.of(columns.aggregateid.clone());
        let event_type = places.of(columns.event_type.clone());
        let payload = places.of(columns.payload.clone());
        let mut optional = |name: &Option<String>| name.clone().map(|name| places.of(name));
        let key = optional(&columns.key).unwrap_or(aggregateid);
        let partition = optional(&columns.partition);
        let timestamp = optional(&columns.timestamp);
        let header_object = optional(&columns.header_object);
        let routed_by = topic.route().map_or(id, |route| places.of(columns.named(&route.by)));
        let pieces = topic.parts().iter().map(|part| match part {
            Part::Text(text) => Piece::Text(text.as_str().into()),
            Part::Place(name) if topic.has_group(name) => Piece::Group(name.as_str().into()),
            Part::Place(name) => Piece::Column(places.of(columns.named(name))),
        });
        let pieces = pieces.collect();
        let headers = places.named(columns.headers).into();
        let shape = Shape { envelope: places.named(columns.envelope), ..Shape::default() };
        Self {
            columns: places.0.into(),
            id,
            aggregateid,
            event_type,
            payload,
            key,
            partition,
            timestamp,
            headers,
            header_object,
            topic,
            pieces,
            routed_by,
            shape,
            cloud_events: None,
            shard: None,
            aside: Arc::default(),
        }
    }

    /// The same, with payloads of this format, and those that are empty made tombstones or not.
    #[must_use]
    pub fn with_payload(mut self, format: PayloadFormat, tombstone_on_empty: bool) -> Self {
        self.shape.format = format;
        self.shape.tombstone_on_empty = tombstone_on_empty;
        self
    }

    /// The same, with the headers of `CloudEvents`.
    #[must_use]
    pub fn with_cloud_events(mut self, settings: CloudEvents) -> Self {
        self.cloud_events = Some(Arc::new(settings));
        self
    }

    /// The same, for a table that is the shard `number`, counted from 0, by the writers' rule. `columns` are those that
    /// the mapping was made with.
    #[must_use]
    pub fn with_shard(mut self, rule: ShardRule, number: u32, columns: &Columns) -> Self {
        let mut places = Places(self.columns.to_vec());
        let column = places.of(columns.named(&rule.column));
        self.columns = places.0.into();
        self.shard = Some((rule, column, number));
        self
    }

    /// The same, with something else done with events that cannot be delivered.
    #[must_use]
    pub fn with_aside(mut self, aside: Arc<Aside>) -> Self {
        self.aside = aside;
        self
    }

    /// What is done with events that cannot be delivered.
    pub fn aside(&self) -> &Aside {
        &self.aside
    }

    /// The topic that events are set aside in, if some may be and it does not depend on the event.
    pub fn aside_topic(&self) -> Option<String> {
        let template = match self.aside.on_poison {
            OnPoison::Halt => return None,
            OnPoison::Park => &self.aside.parking,
            OnPoison::DeadLetter => &self.aside.dead_letters,
        };
        self.topic.fixed().map(|topic| template.of(topic))
    }

    /// The columns that rows must deliver, in this order.
    pub fn columns(&self) -> &Arc<[String]> {
        &self.columns
    }

    /// Whether rows need a value in this column, which is one of [`Self::columns`] by its place.
    pub fn requires(&self, column: usize) -> bool {
        let in_topic = |piece: &Piece| match piece {
            Piece::Text(_) => false,
            Piece::Column(place) => *place == column,
            Piece::Group(_) => self.routed_by == column,
        };
        let in_event = self.cloud_events.is_some() && column == self.aggregateid;
        in_event || [self.id, self.event_type, self.key].contains(&column) || self.pieces.iter().any(in_topic)
    }

    /// Whether this column, which is one of [`Self::columns`] by its place, says what an event is or where it goes; what is
    /// in the others it only carries along.
    pub fn is_telling(&self, column: usize) -> bool {
        self.requires(column) || [self.partition, self.timestamp].contains(&Some(column))
    }

    /// The column with the time of a row, if there is one.
    pub fn timestamp(&self) -> Option<&str> {
        self.timestamp.and_then(|column| self.columns.get(column)).map(String::as_str)
    }

    /// Whether the timestamp of a record is when its row was committed.
    pub fn has_commit_times(&self) -> bool {
        self.timestamp.is_none()
    }

    /// The topic, or what makes it.
    pub fn topic(&self) -> &TopicTemplate {
        &self.topic
    }

    /// Whether a row is in another table than the writers' rule says.
    pub fn is_misrouted(&self, row: Row<'_>) -> bool {
        self.shard.as_ref().is_some_and(|(rule, column, number)| {
            row.get(*column).and_then(|value| rule.shard(value)).is_none_or(|shard| shard != *number)
        })
    }

    /// The place of the payload among the columns.
    pub(super) fn payload(&self) -> usize {
        self.payload
    }

    /// The kind of event.
    pub(super) fn event_type<'a>(&self, row: Row<'a>) -> Option<&'a [u8]> {
        row.get(self.event_type)
    }

    /// The topic of a row, if it has one.
    pub(super) fn topic_of(&self, row: Row<'_>) -> Option<String> {
        let mut name = TopicName::new();
        match self.topic.fixed() {
            Some(topic) => Some(topic.to_owned()),
            None => self.resolve(row, &mut name).ok().map(ToOwned::to_owned),
        }
    }

    /// The event's id, for people to find it by.
    pub fn id<'a>(&self, row: Row<'a>) -> Option<&'a [u8]> {
        row.get(self.id)
    }

    /// The key that the record has.
    pub fn key<'a>(&self, row: Row<'a>) -> Option<&'a [u8]> {
        row.get(self.key)
    }

    /// Makes the record of a row and hands it to `with`. `mark` is a further header, which says how the record came.
    pub fn with_record<T>(
        &self,
        row: Row<'_>,
        mark: Option<Header<'_>>,
        with: impl FnOnce(&Record<'_>) -> T,
    ) -> Result<T, MappingError> {
        let mut name = TopicName::new();
        let topic = match self.topic.fixed() {
            Some(topic) => topic,
            None => self.resolve(row, &mut name)?,
        };
        let value = self.shape.value(row.get(self.payload), |column| row.get(column)).map_err(|e| self.value(e))?;
        let committed = i64::try_from(row.commit_micros()).unwrap_or(i64::MAX);
        let at = self.placed(row, self.timestamp, TIMESTAMP, timestamp::millis)?;
        let [id, event_type] = STANDARD_HEADERS;
        let event =
            Attributes { id: self.need(row, self.id)?, event_type: self.need(row, self.event_type)?, subject: b"" };
        let members = self.placed(row, self.header_object, HEADER_OBJECT, members)?.unwrap_or_default();
        let time;
        let mut headers: SmallVec<[Header<'_>; INLINE_HEADERS]> = smallvec![
            Header { name: id, value: Some(event.id) },
            Header { name: event_type, value: Some(event.event_type) },
        ];
        if let Some(cloud_events) = &self.cloud_events {
            time = cloudevents::time(at.map_or(committed, |millis| millis.saturating_mul(1000)));
            let event = Attributes { subject: self.need(row, self.aggregateid)?, ..event };
            headers.extend(cloud_events.headers(&event, &time));
        }
        headers.extend(self.headers.iter().map(|(name, column)| Header { name, value: row.get(*column) }));
        headers.extend(members.iter().map(|(name, value)| Header { name, value: value.as_deref() }));
        headers.extend(mark);
        let record = Record {
            topic,
            key: self.need(row, self.key)?,
            partition: self.placed(row, self.partition, "the number of a partition", partition)?,
            value: value.as_deref(),
            timestamp_millis: at.unwrap_or(committed / 1000),
            headers: &headers,
        };
        Ok(with(&record))
    }

    /// The topic of a row.
    fn resolve<'a>(&self, row: Row<'_>, name: &'a mut TopicName) -> Result<&'a str, MappingError> {
        let wrong = |column: usize| {
            let (column, template) = (self.columns[column].clone(), self.topic.to_string());
            MappingError::Topic { column, template }
        };
        let matched = match self.topic.route() {
            None => None,
            Some(route) => {
                let value = std::str::from_utf8(self.need(row, self.routed_by)?).ok();
                let matched = value.and_then(|value| route.expression.captures(value));
                Some(matched.ok_or_else(|| wrong(self.routed_by))?)
            }
        };
        let mut last = self.routed_by;
        for piece in &*self.pieces {
            let (value, column) = match piece {
                Piece::Text(text) => (text.as_bytes(), None),
                Piece::Column(column) => (self.need(row, *column)?, Some(*column)),
                Piece::Group(group) => {
                    let group = matched.as_ref().and_then(|matched| matched.name(group));
                    (group.map_or(&[][..], |group| group.as_str().as_bytes()), Some(self.routed_by))
                }
            };
            if let Some(column) = column {
                last = column;
                if value.is_empty() || !value.iter().copied().all(is_topic_byte) {
                    return Err(wrong(column));
                }
            }
            name.extend_from_slice(value);
        }
        let topic = std::str::from_utf8(name).ok().filter(|name| is_topic_name(name.as_bytes()));
        topic.ok_or_else(|| wrong(last))
    }

    fn value(&self, error: ValueError) -> MappingError {
        let (column, expected) = match error {
            ValueError::NotJson => (self.payload, "JSON"),
            ValueError::PayloadNotText => (self.payload, TEXT),
            ValueError::NotText(member) => (self.shape.envelope[member].1, TEXT),
        };
        MappingError::Value { column: self.columns[column].clone(), expected }
    }

    fn need<'a>(&self, row: Row<'a>, column: usize) -> Result<&'a [u8], MappingError> {
        row.get(column).ok_or_else(|| MappingError::Null { column: self.columns[column].clone() })
    }

    /// What a column says, if there is such a column and it is not NULL.
    fn placed<T>(
        &self,
        row: Row<'_>,
        column: Option<usize>,
        expected: &'static str,
        read: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, MappingError> {
        let Some((column, value)) = column.and_then(|column| Some((column, row.get(column)?))) else { return Ok(None) };
        let wrong = || MappingError::Value { column: self.columns[column].clone(), expected };
        read(value).map(Some).ok_or_else(wrong)
    }
}

const TIMESTAMP: &str = "milliseconds since 1970, or a date and time";

const TEXT: &str = "text in UTF-8";

const HEADER_OBJECT: &str = "a JSON object without members `id`, `eventType`, `outboxd-replay`, or empty names";

fn partition(text: &[u8]) -> Option<i32> {
    std::str::from_utf8(text).ok()?.parse().ok().filter(|&partition| partition >= 0)
}

/// The members of a JSON object: strings as they are, null as null, the rest as JSON.
fn members(text: &[u8]) -> Option<Vec<(String, Option<Vec<u8>>)>> {
    let object: Map<String, Value> = serde_json::from_slice(text).ok()?;
    let taken = |name: &String| name.is_empty() || TAKEN_HEADERS.contains(&name.as_str());
    if object.keys().any(taken) {
        return None;
    }
    let value = |value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.into_bytes()),
        other => Some(other.to_string().into_bytes()),
    };
    Some(object.into_iter().map(|(name, member)| (name, value(member))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Position;
    use crate::source::{Batch, BatchBuilder, BatchFull};

    fn batch(values: &[Option<&str>]) -> Batch {
        let mut batch = BatchBuilder::new(values.len());
        batch.set_commit_micros(1_700_000_000_123_456);
        let mut row = batch.row();
        for (column, value) in values.iter().enumerate() {
            if let Some(value) = value {
                row.set::<BatchFull>(column, |out| {
                    out.extend_from_slice(value.as_bytes());
                    Ok(())
                })
                .unwrap();
            }
        }
        row.finish();
        batch.take(Arc::new(Position::default()))
    }

    fn map(values: [Option<&str>; 5], topic: &str) -> Result<String, MappingError> {
        map_with(Columns::default(), &values, topic)
    }

    fn map_with(columns: Columns, values: &[Option<&str>], topic: &str) -> Result<String, MappingError> {
        map_by(&Mapping::new(columns, TopicTemplate::parse(topic).unwrap()), values)
    }

    fn map_by(mapping: &Mapping, values: &[Option<&str>]) -> Result<String, MappingError> {
        assert_eq!(mapping.columns().len(), values.len(), "{:?}", mapping.columns());
        let batch = batch(values);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let row = batch.rows().next().unwrap();
        mapping.with_record(row, None, |record| {
            let headers: Vec<_> =
                record.headers.iter().map(|h| format!("{}={}", h.name, h.value.map_or("null".into(), text))).collect();
            let value = record.value.map_or("null".into(), text);
            let partition = record.partition.map_or(String::new(), |partition| format!("/{partition}"));
            let Record { topic, key, timestamp_millis, .. } = record;
            format!("{topic}{partition} {} {value} {timestamp_millis} {}", text(key), headers.join(" "))
        })
    }

    #[test]
    fn a_row_becomes_key_value_headers_and_commit_time() {
        let row = [Some("e1"), Some("order"), Some("🛵-7"), Some("Created"), Some("{}")];
        assert_eq!(map(row, "delivery").unwrap(), "delivery 🛵-7 {} 1700000000123 id=e1 eventType=Created");
        assert_eq!(map(row, "ev.{aggregatetype}").unwrap(), "ev.order 🛵-7 {} 1700000000123 id=e1 eventType=Created");
        let tombstone = [Some("e1"), None, Some("k"), Some("Gone"), None];
        let mapping = |topic| Mapping::new(Columns::default(), TopicTemplate::parse(topic).unwrap());
        let required = |topic| (0..5).filter(|&column| mapping(topic).requires(column)).collect::<Vec<_>>();
        assert_eq!((required("d"), required("{aggregatetype}")), (vec![0, 2, 3], vec![0, 1, 2, 3]));
        assert_eq!(map(tombstone, "delivery").unwrap(), "delivery k null 1700000000123 id=e1 eventType=Gone");
    }

    #[test]
    fn a_row_that_lacks_something_names_the_column() {
        assert_eq!(
            map([Some("e"), Some("o"), None, Some("T"), Some("{}")], "d"),
            Err(MappingError::Null { column: "aggregateid".into() })
        );
        assert!(matches!(
            map([Some("e"), Some("a b"), Some("k"), Some("T"), Some("{}")], "d.{aggregatetype}"),
            Err(MappingError::Topic { .. })
        ));
    }

    fn placed() -> Columns {
        let header = |text: &str| text.to_owned().into();
        Columns {
            key: Some("routing".into()),
            partition: Some("part".into()),
            timestamp: Some("at".into()),
            headers: vec![header("traceid:traceparent"), header("Type:kind"), header("tenant")],
            ..Columns::default()
        }
    }

    #[test]
    fn further_columns_take_the_places_given_to_them() {
        let row = |part, at, trace| {
            let base = [Some("e"), Some("order"), Some("7"), Some("Created"), Some("{}"), Some("r-7")];
            [&base[..], &[part, at, trace, Some("acme")]].concat()
        };
        assert_eq!(
            map_with(placed(), &row(Some("3"), Some("2023-11-14 22:13:20"), Some("00-ab")), "d").unwrap(),
            "d/3 r-7 {} 1700000000000 id=e eventType=Created traceparent=00-ab kind=Created tenant=acme"
        );
        // NULL leaves partition and timestamp to the key and the commit; a header without value stays one.
        assert_eq!(
            map_with(placed(), &row(None, None, None), "d").unwrap(),
            "d r-7 {} 1700000000123 id=e eventType=Created traceparent=null kind=Created tenant=acme"
        );
        for (part, at, column) in [("-1", "0", "part"), ("x", "0", "part"), ("0", "soon", "at")] {
            let mapped = map_with(placed(), &row(Some(part), Some(at), None), "d");
            assert!(matches!(mapped, Err(MappingError::Value { column: wrong, .. }) if wrong == column));
        }
    }

    #[test]
    fn a_topic_is_made_of_any_columns_and_of_what_an_expression_matches() {
        let row = |tenant| [Some("e"), Some("sales.order"), Some("7"), Some("Created"), Some("{}"), Some(tenant)];
        let mapped = map_with(Columns::default(), &row("acme"), "{tenant}.{type}").unwrap();
        assert!(mapped.starts_with("acme.Created 7 "), "{mapped}");
        let long = "x".repeat(250);
        for bad in ["", "a b", "a/b", "ä", &long] {
            let mapped = map_with(Columns::default(), &row(bad), "{tenant}.{type}");
            assert!(
                matches!(mapped, Err(MappingError::Topic { column, .. }) if ["tenant", "type"].contains(&column.as_str()))
            );
        }
        let topic = TopicTemplate::parse("outbox.{context}").unwrap();
        let routed = Mapping::new(Columns::default(), topic.routed("aggregatetype", r"(?<context>\w+)\.\w+").unwrap());
        let mapped = map_by(&routed, &row("")[..5]).unwrap();
        assert!(mapped.starts_with("outbox.sales 7 "), "{mapped}");
        let whole = [Some("e"), Some("sales.order.x"), Some("7"), Some("Created"), Some("{}")];
        let column = "aggregatetype".to_owned();
        let template = "outbox.{context}".to_owned();
        assert_eq!(
            map_by(&routed, &whole),
            Err(MappingError::Topic { column, template }),
            "the whole value is matched"
        );
        assert_eq!((0..5).filter(|&column| routed.requires(column)).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[test]
    fn members_of_an_object_become_headers() {
        let columns = || Columns { header_object: Some("headers".into()), ..Columns::default() };
        let row = |object| [Some("e"), Some("o"), Some("7"), Some("Created"), Some("{}"), object];
        let object = r#"{"trace": "00-ab", "retry": 3, "none": null, "deep": {"a": [1]}}"#;
        assert_eq!(
            map_with(columns(), &row(Some(object)), "d").unwrap(),
            "d 7 {} 1700000000123 id=e eventType=Created deep={\"a\":[1]} none=null retry=3 trace=00-ab"
        );
        let none = "d 7 {} 1700000000123 id=e eventType=Created";
        assert_eq!(map_with(columns(), &row(None), "d").unwrap(), none);
        for bad in ["", "[]", "{\"id\":1}", "{\"\":1}", "{"] {
            let mapped = map_with(columns(), &row(Some(bad)), "d");
            assert!(matches!(mapped, Err(MappingError::Value { column, .. }) if column == "headers"), "{bad}");
        }
    }

    #[test]
    fn cloud_events_have_their_attributes_beside_the_standard_headers() {
        let settings = CloudEvents { source: "/delivery".into(), content_type: "application/json".into() };
        let topic = || TopicTemplate::parse("d").unwrap();
        let mapping =
            Mapping::new(Columns { key: Some("k".into()), ..Columns::default() }, topic()).with_cloud_events(settings);
        let row = [Some("e"), None, Some("7"), Some("Created"), Some("{}"), Some("r")];
        assert_eq!(
            map_by(&mapping, &row).unwrap(),
            "d r {} 1700000000123 id=e eventType=Created ce_specversion=1.0 ce_id=e ce_source=/delivery ce_type=Created \
             ce_subject=7 ce_time=2023-11-14T22:13:20.123456Z content-type=application/json"
        );
        assert!(mapping.requires(2), "the subject is required beside the key");
    }

    #[test]
    fn a_payload_that_has_to_be_json_and_an_envelope_name_the_column_that_is_wrong() {
        let columns = Columns { envelope: vec!["type:eventType".to_owned().into()], ..Columns::default() };
        let mapping = Mapping::new(columns, TopicTemplate::parse("d").unwrap()).with_payload(PayloadFormat::Json, true);
        let row = |payload| [Some("e"), Some("o"), Some("7"), Some("Created"), Some(payload)];
        let mapped = map_by(&mapping, &row("{\"a\":1}")).unwrap();
        assert!(mapped.starts_with(r#"d 7 {"payload":{"a":1},"eventType":"Created"} "#), "{mapped}");
        assert!(map_by(&mapping, &row("")).unwrap().starts_with("d 7 null "));
        let wrong = MappingError::Value { column: "payload".into(), expected: "JSON" };
        assert_eq!(map_by(&mapping, &row("{a}")), Err(wrong));
    }

    #[test]
    fn a_row_in_another_table_than_the_rule_says_is_misrouted() {
        let columns = Columns::default();
        let rule = ShardRule::parse("crc32(aggregateid) % 4").unwrap();
        let mapping = |shard| {
            let mapping = Mapping::new(columns.clone(), TopicTemplate::parse("d").unwrap());
            mapping.with_shard(rule.clone(), shard, &columns)
        };
        let batch = batch(&[Some("e"), Some("o"), Some("123456789"), Some("Created"), Some("{}")]);
        let row = batch.rows().next().unwrap();
        let misrouted: Vec<_> = (0..4).map(|shard| mapping(shard).is_misrouted(row)).collect();
        assert_eq!(misrouted, [true, true, false, true]);
        assert!(!Mapping::new(columns.clone(), TopicTemplate::parse("d").unwrap()).is_misrouted(row));
    }
}
