//! Which columns an outbox table has, and which topic its events go to.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Names of the columns; the defaults are those of Debezium's outbox event router.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Columns {
    /// The event's own id; becomes the header `id`.
    pub id: String,
    /// Kind of aggregate; may be used in the topic template.
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
}

/// A column that becomes a header: `column`, or `column:header` under another name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct HeaderColumn {
    /// The column's name in the table.
    pub column: String,
    /// The header's name.
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
        }
    }
}

/// A text is not a topic name or template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicTemplateError {
    /// A placeholder that is not known, or a brace that is not closed.
    #[error("topic `{0}`: the only placeholder is {{aggregatetype}}")]
    Placeholder(String),
    /// The fixed part cannot be in a topic's name.
    #[error("topic `{0}`: a topic name has 1 to 249 letters, digits, dots, underscores and hyphens")]
    Name(String),
}

/// The name of a topic, possibly with the aggregate's type in it: `outbox.event.{aggregatetype}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicTemplate {
    head: String,
    tail: Option<String>,
}

const PLACEHOLDER: &str = "{aggregatetype}";

impl TopicTemplate {
    /// Reads a topic name or a template with one placeholder.
    pub fn parse(text: &str) -> Result<Self, TopicTemplateError> {
        let (head, tail) = match text.split_once(PLACEHOLDER) {
            Some((head, tail)) => (head, Some(tail)),
            None => (text, None),
        };
        let fixed = format!("{head}{}", tail.unwrap_or_default());
        if fixed.contains(['{', '}']) {
            return Err(TopicTemplateError::Placeholder(text.to_owned()));
        }
        if !(tail.is_some() && fixed.is_empty()
            || is_topic_name(&fixed)
            || tail.is_some() && fixed.chars().all(|c| c == '.'))
        {
            return Err(TopicTemplateError::Name(text.to_owned()));
        }
        Ok(Self { head: head.to_owned(), tail: tail.map(str::to_owned) })
    }

    /// The topic, if it does not depend on the event.
    pub fn fixed(&self) -> Option<&str> {
        self.tail.is_none().then_some(self.head.as_str())
    }

    /// Whether some event may go to the topic of this name.
    pub fn may_be(&self, topic: &str) -> bool {
        let inner = |tail: &String| topic.strip_prefix(&self.head).and_then(|rest| rest.strip_suffix(tail.as_str()));
        self.tail.as_ref().map_or(topic == self.head, |tail| inner(tail).is_some_and(|inner| !inner.is_empty()))
    }

    /// The topic of an event; `None` when the result is no topic name.
    pub fn resolve(&self, aggregatetype: &str) -> Option<Cow<'_, str>> {
        match &self.tail {
            None => Some(Cow::Borrowed(&self.head)),
            Some(tail) => {
                Some(format!("{}{aggregatetype}{tail}", self.head)).filter(|name| is_topic_name(name)).map(Cow::Owned)
            }
        }
    }
}

/// Kafka's own rule (`org.apache.kafka.common.internals.Topic`).
fn is_topic_name(name: &str) -> bool {
    (1..=249).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_takes_the_type_and_nothing_else() {
        let template = TopicTemplate::parse("outbox.event.{aggregatetype}").unwrap();
        assert_eq!(template.fixed(), None);
        assert_eq!(template.resolve("delivery").as_deref(), Some("outbox.event.delivery"));
        assert_eq!(template.resolve("a b"), None);
        assert!(template.may_be("outbox.event.x") && !template.may_be("outbox.event.") && !template.may_be("x"));
        assert_eq!(TopicTemplate::parse("{aggregatetype}").unwrap().resolve("x").as_deref(), Some("x"));
        assert_eq!(TopicTemplate::parse("delivery").unwrap().fixed(), Some("delivery"));
        for bad in ["", "a b", "x.{type}", "x{", "..", "{aggregatetype}{aggregatetype}"] {
            assert!(TopicTemplate::parse(bad).is_err(), "{bad}");
        }
    }
}
