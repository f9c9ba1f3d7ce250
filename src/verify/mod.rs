//! Reconciliation: whether everything that is committed is in Kafka, once, in order, and nothing else.
//!
//! Promise: what is called missing was committed, must be published by now, and is not in its topic; what is called
//! unexpected is in a topic and was never committed. Where neither can be known, because a log, a table or a topic no
//! longer reaches back that far, it is counted as not checked, never guessed. Memory is bounded, whatever there is.
//!
//! ```text
//! table rows ----+
//! log rows ------+--> sightings, sorted by event --> one verdict an event --> sorted by aggregate --> order, what is missing
//! topic records -+         (temporary file)                                   (temporary file)
//! ```
//!
//! The four are asked in such an order that no difference is one of time only: the durable positions first, then the ends
//! of the topics, so that what is covered is in front of them; then the rows of the tables, and last the end of the log,
//! so that it has all that was seen before.

mod committed;
mod compare;
mod entry;
mod sort;
mod verdict;

pub use committed::{LogReader, Reading, Rows};
pub use compare::{CLOCKS, Comparison, Judgement, Missing, Scope, TopicScope};
pub use entry::{Committed, Delivered, Duty, Event, Turn};
pub use sort::Room;
pub use verdict::{Examples, Finding, Kind, TableCounts, TopicCounts, Verdict};
