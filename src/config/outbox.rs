//! One `[[outbox]]` block.

use std::fmt;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::outbox::Columns;
use crate::relay::settings::Start;

/// Tables that are relayed alike.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OutboxSettings {
    /// Patterns such as `schema.table{1..4}`, or one alone; required.
    #[serde(deserialize_with = "one_or_many")]
    pub tables: Vec<String>,
    /// A topic's name, or a template such as `outbox.event.{aggregatetype}`; required.
    pub topic: String,
    /// Names of the columns.
    pub columns: Columns,
    /// Where a table without a saved position starts; when not set, the daemon refuses to guess.
    pub start: Option<Start>,
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
