//! The mapping of one table: which column becomes what, and to which topic.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Columns, Header, Record, TopicTemplate};
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
    /// The aggregate's type does not make a topic name.
    #[error("column `{column}` does not make a topic name in `{template}`")]
    Topic {
        /// The column's name in the table.
        column: String,
        /// The template.
        template: String,
    },
}

const ID: usize = 0;
const AGGREGATE_TYPE: usize = 1;
const AGGREGATE_ID: usize = 2;
const EVENT_TYPE: usize = 3;
const PAYLOAD: usize = 4;

/// How rows of a table become records.
#[derive(Debug, Clone)]
pub struct Mapping {
    columns: Arc<[String]>,
    topic: TopicTemplate,
    template: String,
}

impl Mapping {
    /// The mapping for these columns and this topic; `template` is the topic's text as configured.
    pub fn new(columns: Columns, topic: TopicTemplate, template: &str) -> Self {
        let Columns { id, aggregatetype, aggregateid, event_type, payload } = columns;
        Self {
            columns: [id, aggregatetype, aggregateid, event_type, payload].into(),
            topic,
            template: template.to_owned(),
        }
    }

    /// The columns that rows must deliver, in this order.
    pub fn columns(&self) -> &Arc<[String]> {
        &self.columns
    }

    /// The topic, if it does not depend on the event.
    pub fn fixed_topic(&self) -> Option<&str> {
        self.topic.fixed()
    }

    /// Makes the record of a row and hands it to `with`.
    pub fn with_record<T>(&self, row: Row<'_>, with: impl FnOnce(&Record<'_>) -> T) -> Result<T, MappingError> {
        let need =
            |column: usize| row.get(column).ok_or_else(|| MappingError::Null { column: self.columns[column].clone() });
        let topic = match self.topic.fixed() {
            Some(topic) => Cow::Borrowed(topic),
            None => std::str::from_utf8(need(AGGREGATE_TYPE)?)
                .ok()
                .and_then(|aggregatetype| self.topic.resolve(aggregatetype))
                .ok_or_else(|| MappingError::Topic {
                    column: self.columns[AGGREGATE_TYPE].clone(),
                    template: self.template.clone(),
                })?,
        };
        let headers = [
            Header { name: "id", value: Some(need(ID)?) },
            Header { name: "eventType", value: Some(need(EVENT_TYPE)?) },
        ];
        let record = Record {
            topic: &topic,
            key: need(AGGREGATE_ID)?,
            value: row.get(PAYLOAD),
            timestamp_millis: i64::try_from(row.commit_micros() / 1000).unwrap_or(i64::MAX),
            headers: &headers,
        };
        Ok(with(&record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Position;
    use crate::source::{BatchBuilder, BatchFull};

    fn map(values: [Option<&str>; 5], topic: &str) -> Result<String, MappingError> {
        let mut batch = BatchBuilder::new(5);
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
        let mapping = Mapping::new(Columns::default(), TopicTemplate::parse(topic).unwrap(), topic);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let row = batch.rows().next().unwrap();
        mapping.with_record(row, |record| {
            let headers: Vec<_> =
                record.headers.iter().map(|h| format!("{}={}", h.name, text(h.value.unwrap()))).collect();
            let value = record.value.map_or("null".into(), text);
            format!("{} {} {value} {} {}", record.topic, text(record.key), record.timestamp_millis, headers.join(" "))
        })
    }

    #[test]
    fn a_row_becomes_key_value_headers_and_commit_time() {
        let row = [Some("e1"), Some("order"), Some("🛵-7"), Some("Created"), Some("{}")];
        assert_eq!(map(row, "delivery").unwrap(), "delivery 🛵-7 {} 1700000000123 id=e1 eventType=Created");
        assert_eq!(map(row, "ev.{aggregatetype}").unwrap(), "ev.order 🛵-7 {} 1700000000123 id=e1 eventType=Created");
        let tombstone = [Some("e1"), None, Some("k"), Some("Gone"), None];
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
}
