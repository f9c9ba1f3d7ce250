//! The history checker: what was committed, what was delivered, and whether the two agree.
//!
//! ```text
//! planner --plans--> writer --transactions--> MySQL ... relay ... Kafka --records--> reader
//!                      |                                                               |
//!                   journal ------------------------> verdict <------------------- delivered
//! ```
//!
//! - [`journal`]: transactions as their writer knows them
//! - [`plan`]: seeded life cycles of deliveries, cut into transactions; pure
//! - [`writer`]: plays the plans against a real server and keeps the journal
//! - [`reader`]: reads topics back
//! - [`verdict`]: judges the promises R1, R4, R6 and R7 per aggregate, and with them what breaking R2 or R3 leads to;
//!   pure
//!
//! Nothing here keeps a payload longer than it takes to send it or to compute its [`Fingerprint`], and none is logged.

mod fingerprint;
pub mod journal;
mod order;
pub mod plan;
pub mod reader;
mod report;
mod schema;
mod session;
#[cfg(test)]
mod tests;
pub mod verdict;
pub mod writer;

pub use fingerprint::{Fingerprint, shard_of};
pub use journal::{Event, Journal, Outcome, Transaction};
pub use reader::{Isolation, ReadError, Reader, ReaderSettings, Seen};
pub use verdict::{Counts, Delivered, Fault, Finding, Place, Verdict};
pub use writer::{Progress, WriteError, Writer, WriterSettings};
