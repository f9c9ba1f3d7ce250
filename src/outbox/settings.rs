//! Which columns an outbox table has, and what becomes of each.

use serde::{Deserialize, Serialize};

use super::record::{REPAIR_HEADER, REPLAY_HEADER, SNAPSHOT_HEADER};

/// Names of the columns; the defaults are those of Debezium's outbox event router.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Columns {
    /// The event's own id; becomes the header `id`.
    pub id: String,
    /// Kind of aggregate; `{aggregatetype}` in the topic.
    pub aggregatetype: String,
    /// The aggregate's id; becomes the record's key.
    pub aggregateid: String,
    /// Kind of event; becomes the header `eventType`.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Becomes the record's value.
    pub payload: String,
    /// Becomes the record's key, instead of the aggregate's id.
    pub key: Option<String>,
    /// Number of the record's partition, instead of the key's hash; NULL leaves it to the key.
    pub partition: Option<String>,
    /// The record's timestamp, instead of the commit time: milliseconds since the Unix epoch, or a date and time in UTC;
    /// NULL leaves it to the commit time.
    pub timestamp: Option<String>,
    /// Further columns that become headers.
    pub headers: Vec<HeaderColumn>,
    /// A column with a JSON object whose members become headers; NULL has none.
    pub header_object: Option<String>,
    /// Further columns that become members of the value beside `payload`; without any, the payload is the value.
    pub envelope: Vec<HeaderColumn>,
}

/// A column that becomes a header, or a member of an envelope: `column`, or `column:header` under another name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct HeaderColumn {
    /// The column's name in the table.
    pub column: String,
    /// The header's name, or the member's.
    pub header: String,
}

impl From<String> for HeaderColumn {
    fn from(text: String) -> Self {
        match text.split_once(':') {
            Some((column, header)) => Self { column: column.to_owned(), header: header.to_owned() },
            None => Self { column: text.clone(), header: text },
        }
    }
}

impl From<HeaderColumn> for String {
    fn from(HeaderColumn { column, header }: HeaderColumn) -> Self {
        if column == header { column } else { format!("{column}:{header}") }
    }
}

/// Headers that every record has; no column may take their names.
pub const STANDARD_HEADERS: [&str; 2] = ["id", "eventType"];

/// Headers that nothing else may be placed in.
pub const TAKEN_HEADERS: [&str; 5] = ["id", "eventType", REPLAY_HEADER, REPAIR_HEADER, SNAPSHOT_HEADER];

impl Columns {
    /// The column of this name: one of the five that every outbox has, by what it is for, or any other by its own.
    pub(super) fn named(&self, name: &str) -> String {
        match name {
            "id" => &self.id,
            "aggregatetype" => &self.aggregatetype,
            "aggregateid" => &self.aggregateid,
            "type" => &self.event_type,
            "payload" => &self.payload,
            other => return other.to_owned(),
        }
        .clone()
    }
}

impl Default for Columns {
    fn default() -> Self {
        Self {
            id: "id".into(),
            aggregatetype: "aggregatetype".into(),
            aggregateid: "aggregateid".into(),
            event_type: "type".into(),
            payload: "payload".into(),
            key: None,
            partition: None,
            timestamp: None,
            headers: Vec::new(),
            header_object: None,
            envelope: Vec::new(),
        }
    }
}
