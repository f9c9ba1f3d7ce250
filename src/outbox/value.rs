//! The record's value: the payload as it is, or in an envelope.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// What a payload is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayloadFormat {
    /// Whatever it is.
    #[default]
    AsIs,
    /// JSON, which is looked at.
    Json,
}

/// Why there is no value. Says nothing of what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueError {
    NotJson,
    /// The member of an envelope, by its place.
    NotText(usize),
    PayloadNotText,
}

/// How a value is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) format: PayloadFormat,
    pub(super) tombstone_on_empty: bool,
    /// Names of the members beside `payload`, each with its column's place.
    pub(super) envelope: Vec<(String, usize)>,
}

impl Shape {
    /// The value; `None` is a tombstone. `column` gives what a column has.
    pub(super) fn value<'a>(
        &self,
        payload: Option<&'a [u8]>,
        column: impl Fn(usize) -> Option<&'a [u8]>,
    ) -> Result<Option<Cow<'a, [u8]>>, ValueError> {
        let Some(payload) = payload.filter(|payload| !(self.tombstone_on_empty && payload.is_empty())) else {
            return Ok(None);
        };
        if self.format == PayloadFormat::Json && serde_json::from_slice::<IgnoredAny>(payload).is_err() {
            return Err(ValueError::NotJson);
        }
        if self.envelope.is_empty() {
            return Ok(Some(Cow::Borrowed(payload)));
        }
        let mut value = Vec::with_capacity(payload.len() + 64 * self.envelope.len());
        value.extend_from_slice(b"{\"payload\":");
        match self.format {
            PayloadFormat::Json => value.extend_from_slice(payload),
            PayloadFormat::AsIs => text(Some(payload), &mut value).ok_or(ValueError::PayloadNotText)?,
        }
        for (place, (name, from)) in self.envelope.iter().enumerate() {
            value.push(b',');
            // Writing to a vector does not fail, and a name is text.
            let _ = serde_json::to_writer(&mut value, name);
            value.push(b':');
            text(column(*from), &mut value).ok_or(ValueError::NotText(place))?;
        }
        value.push(b'}');
        Ok(Some(Cow::Owned(value)))
    }
}

/// Appends a JSON string, or null; `None` when it is no UTF-8.
fn text(value: Option<&[u8]>, into: &mut Vec<u8>) -> Option<()> {
    let value = value.map(std::str::from_utf8).transpose().ok()?;
    serde_json::to_writer(into, &value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(shape: &Shape, payload: Option<&[u8]>) -> Result<Option<String>, ValueError> {
        let value = shape.value(payload, |column| [Some(&b"Cr\"eated"[..]), None, Some(b"\xff")][column])?;
        Ok(value.map(|value| String::from_utf8_lossy(&value).into_owned()))
    }

    #[test]
    fn a_payload_is_the_value_unless_it_has_to_be_json_and_is_not() {
        let json = Shape { format: PayloadFormat::Json, ..Shape::default() };
        assert_eq!(value(&Shape::default(), Some(b"{no")), Ok(Some("{no".to_owned())));
        assert_eq!(value(&json, Some(b"{\"a\": [1e3]}")), Ok(Some("{\"a\": [1e3]}".to_owned())));
        assert_eq!(value(&json, Some(b"{no")), Err(ValueError::NotJson));
        assert_eq!(value(&json, None), Ok(None));
    }

    #[test]
    fn an_empty_payload_is_a_tombstone_where_that_is_wanted() {
        let empty = Shape { tombstone_on_empty: true, format: PayloadFormat::Json, ..Shape::default() };
        assert_eq!(value(&empty, Some(b"")), Ok(None));
        assert_eq!(value(&Shape::default(), Some(b"")), Ok(Some(String::new())));
    }

    #[test]
    fn an_envelope_has_the_payload_first_and_columns_as_text() {
        let envelope = vec![("eventType".to_owned(), 0), ("tenant".to_owned(), 1)];
        let text = Shape { envelope, ..Shape::default() };
        let json = Shape { format: PayloadFormat::Json, ..text.clone() };
        assert_eq!(
            value(&json, Some(b"[1]")),
            Ok(Some(r#"{"payload":[1],"eventType":"Cr\"eated","tenant":null}"#.to_owned()))
        );
        assert_eq!(
            value(&text, Some(b"[1]")),
            Ok(Some(r#"{"payload":"[1]","eventType":"Cr\"eated","tenant":null}"#.to_owned()))
        );
        assert_eq!(value(&text, Some(b"\xff")), Err(ValueError::PayloadNotText));
        let bytes = Shape { envelope: vec![("b".to_owned(), 2)], ..Shape::default() };
        assert_eq!(value(&bytes, Some(b"")), Err(ValueError::NotText(0)));
        assert_eq!(value(&bytes, None), Ok(None), "a tombstone has no envelope");
    }
}
