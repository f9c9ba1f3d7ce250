//! Which topic an event goes to.

use std::fmt;

use regex::Regex;
use smallvec::SmallVec;

/// A text is not a topic name or template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicTemplateError {
    /// A brace that is not closed or not opened, or a placeholder without name.
    #[error("topic `{0}`: a placeholder is the name of a column in braces, such as {{aggregatetype}}")]
    Placeholder(String),
    /// The fixed part cannot be in a topic's name.
    #[error("topic `{0}`: a topic name has 1 to 249 letters, digits, dots, underscores and hyphens")]
    Name(String),
    /// Not a regular expression.
    #[error("`{expression}` is not a regular expression: {reason}")]
    Expression {
        /// The text.
        expression: String,
        /// Why.
        reason: String,
    },
    /// The expression is for nothing.
    #[error("topic `{0}` has no placeholder that is a named group of the route's expression, such as (?<name>.*)")]
    NoGroup(String),
}

/// A part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// As it stands.
    Text(String),
    /// The value of a column, or what a group of the expression has matched.
    Place(String),
}

/// An expression that takes the value of a column apart.
#[derive(Debug, Clone)]
pub(super) struct Route {
    /// The column's name.
    pub(super) by: String,
    /// Matches the whole value.
    pub(super) expression: Regex,
}

impl PartialEq for Route {
    fn eq(&self, other: &Self) -> bool {
        (&self.by, self.expression.as_str()) == (&other.by, other.expression.as_str())
    }
}

impl Eq for Route {}

/// The name of a topic, possibly with values of columns in it: `outbox.event.{aggregatetype}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicTemplate {
    text: String,
    parts: Vec<Part>,
    route: Option<Route>,
}

/// Room for a topic's name: none that Kafka takes is longer.
pub(super) type TopicName = SmallVec<[u8; 256]>;

impl fmt::Display for TopicTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TopicTemplate {
    /// Reads a topic's name, or a template with columns in braces.
    pub fn parse(text: &str) -> Result<Self, TopicTemplateError> {
        let placeholder = || TopicTemplateError::Placeholder(text.to_owned());
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((fixed, place)) = rest.split_once('{') {
            let (place, behind) = place.split_once('}').ok_or_else(placeholder)?;
            if place.is_empty() || place.contains('{') {
                return Err(placeholder());
            }
            parts.extend((!fixed.is_empty()).then(|| Part::Text(fixed.to_owned())));
            parts.push(Part::Place(place.to_owned()));
            rest = behind;
        }
        parts.extend((!rest.is_empty()).then(|| Part::Text(rest.to_owned())));
        let fixed = || parts.iter().filter_map(|part| if let Part::Text(text) = part { Some(text) } else { None });
        if fixed().any(|text| text.contains('}')) {
            return Err(placeholder());
        }
        let all: String = fixed().map(String::as_str).collect();
        let has_place = parts.iter().any(|part| matches!(part, Part::Place(_)));
        if !(is_topic_name(all.as_bytes()) || has_place && all.bytes().all(|byte| byte == b'.')) {
            return Err(TopicTemplateError::Name(text.to_owned()));
        }
        Ok(Self { text: text.to_owned(), parts, route: None })
    }

    /// With an expression that matches the whole value of a column; its named groups are placeholders too.
    pub fn routed(mut self, by: &str, expression: &str) -> Result<Self, TopicTemplateError> {
        let regex = Regex::new(&format!("^(?:{expression})$")).map_err(|error| TopicTemplateError::Expression {
            expression: expression.to_owned(),
            // The last line says what, those before it draw where.
            reason: error.to_string().lines().last().unwrap_or_default().trim().to_owned(),
        })?;
        self.route = Some(Route { by: by.to_owned(), expression: regex });
        let is_group = |part: &Part| matches!(part, Part::Place(name) if self.has_group(name));
        if !self.parts.iter().any(is_group) {
            return Err(TopicTemplateError::NoGroup(self.text));
        }
        Ok(self)
    }

    /// The topic, if it does not depend on the event.
    pub fn fixed(&self) -> Option<&str> {
        matches!(self.parts.as_slice(), [Part::Text(_)]).then_some(self.text.as_str())
    }

    /// Whether some event may go to the topic of this name.
    pub fn may_be(&self, topic: &str) -> bool {
        fits(&self.parts, topic)
    }

    /// Whether the route's expression has a group of this name.
    pub(super) fn has_group(&self, name: &str) -> bool {
        let groups = |route: &Route| route.expression.capture_names().flatten().any(|group| group == name);
        self.route.as_ref().is_some_and(groups)
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    pub(super) fn route(&self) -> Option<&Route> {
        self.route.as_ref()
    }
}

/// Whether a name is made of these parts; a placeholder stands for one byte or more.
fn fits(parts: &[Part], name: &str) -> bool {
    match parts.split_first() {
        None => name.is_empty(),
        Some((Part::Text(text), parts)) => name.strip_prefix(text.as_str()).is_some_and(|rest| fits(parts, rest)),
        Some((Part::Place(_), parts)) => {
            (1..=name.len()).any(|at| name.get(at..).is_some_and(|rest| fits(parts, rest)))
        }
    }
}

/// Kafka's own rule (`org.apache.kafka.common.internals.Topic`).
pub(super) fn is_topic_name(name: &[u8]) -> bool {
    (1..=249).contains(&name.len()) && name != b"." && name != b".." && name.iter().copied().all(is_topic_byte)
}

pub(super) fn is_topic_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_has_columns_in_braces() {
        let template = |text: &str| TopicTemplate::parse(text).unwrap();
        assert_eq!(template("outbox.event.{aggregatetype}").fixed(), None);
        assert_eq!(template("delivery").fixed(), Some("delivery"));
        let event = template("outbox.event.{aggregatetype}");
        assert!(event.may_be("outbox.event.x") && !event.may_be("outbox.event.") && !event.may_be("x"));
        let two = template("{tenant}.{type}-v1");
        assert!(two.may_be("acme.x.y-v1") && !two.may_be("acme-v1") && !two.may_be(".x-v1") && !two.may_be("a.x-v2"));
        for bad in ["", "a b", "x{", "x}", "..", "x.{}", "{a", "{{a}}", "x.{a}/y"] {
            assert!(TopicTemplate::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_route_needs_an_expression_and_a_place_for_what_it_matches() {
        let template = || TopicTemplate::parse("outbox.{context}").unwrap();
        assert!(template().routed("aggregatetype", r"(?<context>[a-z]+)\..*").is_ok());
        let bad = |expression| template().routed("aggregatetype", expression).unwrap_err().to_string();
        assert!(bad("(?<context>").contains("is not a regular expression"), "{}", bad("(?<context>"));
        assert!(bad("(?<other>.*)").contains("no placeholder"), "{}", bad("(?<other>.*)"));
    }
}
