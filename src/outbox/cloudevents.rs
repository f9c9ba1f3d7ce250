//! `CloudEvents` 1.0 in binary mode: attributes as headers (`CloudEvents` Kafka protocol binding 1.0.2, section 3.2).

use std::io::Write;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::Header;

/// What the headers say that no row does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CloudEvents {
    /// `source`: which system the events come from, as a URI reference; required.
    pub source: String,
    /// `datacontenttype`: what payloads are.
    pub content_type: String,
}

impl Default for CloudEvents {
    fn default() -> Self {
        Self { source: String::new(), content_type: "application/json".to_owned() }
    }
}

/// What an event says of itself.
pub(super) struct Attributes<'a> {
    pub(super) id: &'a [u8],
    pub(super) event_type: &'a [u8],
    pub(super) subject: &'a [u8],
}

/// Room for a time: `2023-11-14T22:13:20.123456Z`.
pub(super) type Time = SmallVec<[u8; 32]>;

/// Names of the headers that events have then.
pub(super) const NAMES: [&str; 7] =
    ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_subject", "ce_time", "content-type"];

impl CloudEvents {
    /// The headers of an event; `time` is when it happened.
    pub(super) fn headers<'a>(&'a self, event: &Attributes<'a>, time: &'a Time) -> [Header<'a>; 7] {
        let values = [
            b"1.0".as_slice(),
            event.id,
            self.source.as_bytes(),
            event.event_type,
            event.subject,
            time,
            self.content_type.as_bytes(),
        ];
        std::array::from_fn(|at| Header { name: NAMES[at], value: Some(values[at]) })
    }
}

/// Microseconds since the Unix epoch, as RFC 3339 has them.
pub(super) fn time(micros: i64) -> Time {
    let mut text = Time::new();
    // Writing to memory does not fail; a commit is no later than the year 9999.
    let _ = write!(text, "{}", Timestamp::from_microsecond(micros).unwrap_or_default());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_the_attributes_of_the_standard() {
        let settings = CloudEvents { source: "/delivery".to_owned(), ..CloudEvents::default() };
        let time = time(1_700_000_000_123_456);
        let event = Attributes { id: b"e1", event_type: b"Created", subject: b"7" };
        let headers = settings.headers(&event, &time);
        let text = |header: &Header<'_>| format!("{}={}", header.name, String::from_utf8_lossy(header.value.unwrap()));
        assert_eq!(
            headers.iter().map(text).collect::<Vec<_>>().join(" "),
            "ce_specversion=1.0 ce_id=e1 ce_source=/delivery ce_type=Created ce_subject=7 \
             ce_time=2023-11-14T22:13:20.123456Z content-type=application/json"
        );
    }
}
