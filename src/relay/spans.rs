//! Spans of traced events, from commit to acknowledgement.
//!
//! Promise: an event whose writer was traced and sampled (W3C `traceparent` among its headers) ends in one span, handed on
//! when Kafka has acknowledged it; no other event costs more than a look at its headers, and none at all where nobody asks.
//! Spans of records that are published again after a restart begin anew; those that were under way are not handed on.

use std::collections::VecDeque;
use std::sync::Arc;

use super::stats::now_micros;
use crate::outbox::Record;
use crate::outlet::Chunk;
use crate::position::Position;
use crate::table::TableName;

/// The header that names the writer's span.
const PARENT: &str = "traceparent";

/// The header with what else its tracing system knows.
const STATE: &str = "tracestate";

/// An event on its way. Times are in microseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The writer's span, as W3C's `traceparent` has it.
    pub parent: String,
    /// `tracestate`, if the event has one.
    pub state: Option<String>,
    /// The table it is from.
    pub table: TableName,
    /// The topic it goes to.
    pub topic: String,
    /// The place that its table has reached once it and what was read with it are acknowledged, if that is known.
    pub position: Option<Arc<Position>>,
    /// The event's id.
    pub event: String,
    /// When it was committed.
    pub begun_micros: u64,
}

/// Takes spans that are complete, and when they were; not to wait for anything.
pub type Sink = Arc<dyn Fn(Span, u64) + Send + Sync>;

/// The spans of one worker.
#[derive(Default)]
pub(super) struct Spans {
    sink: Option<Sink>,
    open: VecDeque<(Chunk, Span)>,
}

impl Spans {
    pub(super) fn to(sink: Option<Sink>) -> Self {
        Self { sink, open: VecDeque::new() }
    }

    /// The span of a record that is about to be published, if it is wanted.
    pub(super) fn of<'e>(
        &self,
        record: &Record<'_>,
        (table, position): (&TableName, impl FnOnce() -> Option<Arc<Position>>),
        event: impl FnOnce() -> &'e [u8],
        begun_micros: u64,
    ) -> Option<Span> {
        self.sink.as_ref()?;
        let header = |name: &str| {
            let header = record.headers.iter().find(|header| header.name == name)?;
            str::from_utf8(header.value?).ok()
        };
        let parent = header(PARENT).filter(|parent| is_sampled(parent))?;
        Some(Span {
            parent: parent.to_owned(),
            state: header(STATE).map(ToOwned::to_owned),
            table: table.clone(),
            topic: record.topic.to_owned(),
            position: position(),
            event: String::from_utf8_lossy(event()).into_owned(),
            begun_micros,
        })
    }

    /// It is published with this batch.
    pub(super) fn begin(&mut self, chunk: Chunk, span: Span) {
        self.open.push_back((chunk, span));
    }

    /// Everything before this batch is acknowledged.
    pub(super) fn end(&mut self, first: Chunk) {
        let Some(sink) = &self.sink else { return };
        while let Some((_, span)) = self.open.pop_front_if(|(chunk, _)| *chunk < first) {
            sink(span, now_micros());
        }
    }
}

/// Whether a `traceparent` says that its trace is recorded: `VERSION-TRACE-SPAN-FLAGS`, the lowest bit of the flags.
fn is_sampled(parent: &str) -> bool {
    let flags = parent.split('-').nth(3).and_then(|flags| u8::from_str_radix(flags, 16).ok());
    flags.is_some_and(|flags| flags & 1 == 1)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::outbox::Header;

    #[test]
    fn given_a_parent_when_its_flags_are_read_then_only_a_recorded_trace_is_sampled() {
        let of = |flags: &str| is_sampled(&format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7{flags}"));
        assert!(of("-01") && of("-03"));
        assert!(!of("-00") && !of("-02") && !of("") && !of("-zz"));
        assert!(!is_sampled("") && !is_sampled("nothing of the kind"));
    }

    #[test]
    fn given_published_events_when_batches_are_acknowledged_then_the_spans_of_these_are_handed_on() {
        let ended: Arc<Mutex<Vec<String>>> = Arc::default();
        let taken = Arc::clone(&ended);
        let mut spans = Spans::to(Some(Arc::new(move |span, _| taken.lock().unwrap().push(span.event))));
        let parent = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".as_slice();
        let headers = [Header { name: PARENT, value: Some(parent) }];
        let record =
            Record { topic: "t", key: b"k", partition: None, value: None, timestamp_millis: 0, headers: &headers };
        let table = TableName::new("d", "o");
        for (chunk, event) in [(0, "a"), (0, "b"), (2, "c")] {
            let span = spans.of(&record, (&table, || None), || event.as_bytes(), 7).unwrap();
            spans.begin(chunk, span);
        }
        for (first, expected) in [(0, ""), (1, "ab"), (2, "ab"), (3, "abc")] {
            spans.end(first);
            assert_eq!(ended.lock().unwrap().concat(), expected);
        }
        assert_eq!(spans.of(&Record { headers: &[], ..record }, (&table, || None), || b"", 7), None);
        assert_eq!(Spans::default().of(&record, (&table, || None), || b"", 7), None, "nobody asks");
    }
}
