//! `outboxd` relays transactional outbox tables from MySQL's binlog to Kafka.
//!
//! Data flows one way; only acknowledgements come back:
//!
//! ```text
//! MySQL --binlog--> source --> router --> one bounded queue per table --> one relay per table --> outlet --> Kafka
//!                                                                              |
//!                                                             acknowledged prefix --> position store
//! ```
//!
//! The rooms:
//!
//! - [`cli`]: the command line; [`config`]: every key, its layers and its errors
//! - [`daemon`]: composes the rooms, supervises and drains them
//! - [`table`]: names of tables and the patterns that select them
//! - [`position`]: where a relay resumes, and the seam of the store that keeps it
//! - [`outbox`]: from a row to an event to a record, pure
//! - [`source`] and [`outlet`]: the seams of the log and of delivery
//! - [`relay`]: assembling batches, queues, windows, the tail and the workers
//! - [`mysql`]: connections, preflight, the log's stream, decoding, the position store
//! - [`kafka`]: the producer and its outlet
//! - [`credentials`]: certificates, keys and passwords out of files
//! - [`size`]: sizes in text
//! - [`debezium`]: what a connector left behind, to go on from
//! - [`preflight`]: what is asked of the servers before anything is relayed
//! - [`telemetry`]: logging, metrics and spans; [`admin`]: the listener that shows them, and the operator's hand
//! - [`planted`]: bugs that prove that tests would find them; none in a usual build
//! - `testing`: the seams in memory, and their contracts (feature `testing`)
//! - [`verify`]: whether what is committed is in Kafka
//! - [`status`]: what relays are doing, as seen from outside; [`terminal`]: lines redrawn in place
//! - [`history`]: the checker that proves the promises; [`services`]: real servers for it; [`demo`]: all of it, shown

pub mod admin;
pub mod cli;
pub mod config;
pub mod credentials;
pub mod daemon;
pub mod debezium;
pub mod demo;
pub mod history;
pub mod kafka;
pub mod mysql;
pub mod outbox;
pub mod outlet;
pub mod planted;
pub mod position;
pub mod preflight;
pub mod relay;
pub mod services;
pub mod size;
pub mod source;
pub mod status;
pub mod table;
pub mod telemetry;
pub mod terminal;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod verify;
