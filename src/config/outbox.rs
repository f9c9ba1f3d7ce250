//! One `[[outbox]]` block.

use std::fmt;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::outbox::{CloudEvents, Columns, PayloadFormat, TopicTemplate, TopicTemplateError};
use crate::relay::settings::{OnPurged, Start};

/// Tables that are relayed alike.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OutboxSettings {
    /// Patterns such as `schema.table{1..4}`, or one alone; required.
    #[serde(deserialize_with = "one_or_many")]
    pub tables: Vec<String>,
    /// A topic's name, or a template with columns such as `outbox.event.{aggregatetype}`; required.
    pub topic: String,
    /// An expression whose named groups the topic is made of, too.
    pub route: Option<Route>,
    /// What payloads are taken for.
    pub payload_format: PayloadFormat,
    /// Whether an empty payload becomes a tombstone, as NULL does.
    pub tombstone_on_empty: bool,
    /// Headers of `CloudEvents` in binary mode.
    pub cloudevents: Option<CloudEvents>,
    /// The writers' rule, which rows are compared with: `crc32(aggregateid) % 4`.
    pub shard: Option<String>,
    /// Names of the columns.
    pub columns: Columns,
    /// Where a table without a saved position starts.
    pub start: Start,
    /// What becomes of a table whose position the log no longer reaches back to.
    pub on_purged: OnPurged,
}

/// A regular expression that takes the value of a column apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Route {
    /// The column.
    pub by: String,
    /// Matches the whole value; its named groups are placeholders in the topic. Required.
    pub regex: String,
}

impl Default for Route {
    fn default() -> Self {
        Self { by: "aggregatetype".to_owned(), regex: String::new() }
    }
}

impl OutboxSettings {
    /// The topic, or what makes it.
    pub fn topic(&self) -> Result<TopicTemplate, TopicTemplateError> {
        let topic = TopicTemplate::parse(&self.topic)?;
        match &self.route {
            Some(Route { by, regex }) => topic.routed(by, regex),
            None => Ok(topic),
        }
    }
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct OneOrMany;

    impl<'de> Visitor<'de> for OneOrMany {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a table pattern or a list of them")
        }

        fn visit_str<E>(self, one: &str) -> Result<Vec<String>, E> {
            Ok(vec![one.to_owned()])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut many: A) -> Result<Vec<String>, A::Error> {
            let mut patterns = Vec::new();
            while let Some(pattern) = many.next_element()? {
                patterns.push(pattern);
            }
            Ok(patterns)
        }
    }

    deserializer.deserialize_any(OneOrMany)
}
