//! The mapping of one table: which column becomes what, and to which topic.

use std::borrow::Cow;
use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use super::{Columns, Header, Record, STANDARD_HEADERS, TopicTemplate, timestamp};
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
    /// The aggregate's type does not make a topic name.
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

/// How rows of a table become records.
#[derive(Debug, Clone)]
pub struct Mapping {
    columns: Arc<[String]>,
    id: usize,
    aggregatetype: usize,
    event_type: usize,
    payload: usize,
    key: usize,
    partition: Option<usize>,
    timestamp: Option<usize>,
    /// Names and columns of the headers beside the standard ones.
    headers: Arc<[(String, usize)]>,
    topic: TopicTemplate,
    template: String,
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
}

impl Mapping {
    /// The mapping for these columns and this topic; `template` is the topic's text as configured.
    pub fn new(columns: Columns, topic: TopicTemplate, template: &str) -> Self {
        let Columns { id, aggregatetype, aggregateid, event_type, payload, key, partition, timestamp, headers } =
            columns;
        let mut places = Places::default();
        let id = places.of(id);
        let aggregatetype = places.of(aggregatetype);
        let aggregateid = places.of(aggregateid);
        let event_type = places.of(event_type);
        let payload = places.of(payload);
        let key = key.map_or(aggregateid, |key| places.of(key));
        let partition = partition.map(|partition| places.of(partition));
        let timestamp = timestamp.map(|timestamp| places.of(timestamp));
        let headers = headers.into_iter().map(|header| (header.header, places.of(header.column))).collect();
        let columns = places.0.into();
        let template = template.to_owned();
        Self { columns, id, aggregatetype, event_type, payload, key, partition, timestamp, headers, topic, template }
    }

    /// The columns that rows must deliver, in this order.
    pub fn columns(&self) -> &Arc<[String]> {
        &self.columns
    }

    /// Whether rows need a value in this column, which is one of [`Self::columns`] by its place.
    pub fn requires(&self, column: usize) -> bool {
        [self.id, self.event_type, self.key].contains(&column)
            || column == self.aggregatetype && self.topic.fixed().is_none()
    }

    /// The topic, or what makes it.
    pub fn topic(&self) -> &TopicTemplate {
        &self.topic
    }

    /// The topic as configured.
    pub fn template(&self) -> &str {
        &self.template
    }

    /// Makes the record of a row and hands it to `with`.
    pub fn with_record<T>(&self, row: Row<'_>, with: impl FnOnce(&Record<'_>) -> T) -> Result<T, MappingError> {
        let topic = match self.topic.fixed() {
            Some(topic) => Cow::Borrowed(topic),
            None => std::str::from_utf8(self.need(row, self.aggregatetype)?)
                .ok()
                .and_then(|aggregatetype| self.topic.resolve(aggregatetype))
                .ok_or_else(|| MappingError::Topic {
                    column: self.columns[self.aggregatetype].clone(),
                    template: self.template.clone(),
                })?,
        };
        let [id, event_type] = STANDARD_HEADERS;
        let mut headers: SmallVec<[Header<'_>; INLINE_HEADERS]> = smallvec![
            Header { name: id, value: Some(self.need(row, self.id)?) },
            Header { name: event_type, value: Some(self.need(row, self.event_type)?) },
        ];
        headers.extend(self.headers.iter().map(|(name, column)| Header { name, value: row.get(*column) }));
        let committed = i64::try_from(row.commit_micros() / 1000).unwrap_or(i64::MAX);
        let record = Record {
            topic: &topic,
            key: self.need(row, self.key)?,
            partition: self.placed(row, self.partition, "the number of a partition", partition)?,
            value: row.get(self.payload),
            timestamp_millis: self.placed(row, self.timestamp, TIMESTAMP, timestamp::millis)?.unwrap_or(committed),
            headers: &headers,
        };
        Ok(with(&record))
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

fn partition(text: &[u8]) -> Option<i32> {
    std::str::from_utf8(text).ok()?.parse().ok().filter(|&partition| partition >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Position;
    use crate::source::{BatchBuilder, BatchFull};

    fn map(values: [Option<&str>; 5], topic: &str) -> Result<String, MappingError> {
        map_with(Columns::default(), &values, topic)
    }

    fn map_with(columns: Columns, values: &[Option<&str>], topic: &str) -> Result<String, MappingError> {
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
        let batch = batch.take(Arc::new(Position::default()));
        let mapping = Mapping::new(columns, TopicTemplate::parse(topic).unwrap(), topic);
        assert_eq!(mapping.columns().len(), values.len());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let row = batch.rows().next().unwrap();
        mapping.with_record(row, |record| {
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
        let mapping = |topic| Mapping::new(Columns::default(), TopicTemplate::parse(topic).unwrap(), topic);
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
}
