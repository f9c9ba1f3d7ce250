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
//! - [`table`]: names of tables and the patterns that select them
//! - [`position`]: where a relay resumes, and the seam of the store that keeps it
//! - [`outbox`]: from a row to an event to a record, pure
//! - [`outlet`]: the seam of delivery
//! - [`relay`]: assembling batches, queues, windows
//! - [`source`]: the seam of the log, and batches of rows

pub mod cli;
pub mod config;
pub mod daemon;
pub mod history;
pub mod kafka;
pub mod mysql;
pub mod outbox;
pub mod outlet;
pub mod position;
pub mod relay;
pub mod source;
pub mod table;
pub mod telemetry;
