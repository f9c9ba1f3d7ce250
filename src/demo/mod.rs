//! The demo: a delivery platform on real servers, its events relayed by a real daemon. On the way the daemon is killed, or
//! the database under it.
//!
//! Promise: what the verdict says was read back from Kafka and held against the writers' own journal; whatever ends the
//! demo, servers, daemon and folder end with it.
//!
//! ```text
//! stage: MySQL, Kafka, topic, tables     relay: `outboxd run`, a child process
//!    ^                                       ^
//!    +------------- script ------------------+      show: one live table, or plain lines
//! ```
//!
//! For a failover a second MySQL replicates from the first, semi-synchronously: what a writer was told is committed is on
//! both when the first is killed.

mod error;
mod keep;
mod load;
mod relay;
mod script;
mod show;
mod stage;
mod standby;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

pub use self::error::DemoError;
pub use self::load::write;
pub use self::relay::arguments;
pub use self::script::run;

/// What to play.
#[derive(Debug, Clone)]
pub struct DemoSettings {
    /// The script that holds servers.
    pub services: PathBuf,
    /// How long writers write.
    pub duration: Duration,
    /// Transactions per second.
    pub rate: std::num::NonZeroU32,
    /// Whether the primary of two MySQL is killed, instead of the relay.
    pub failover: bool,
    /// Whether the servers stay up at the end, until told to stop.
    pub keep: bool,
    /// What the daemon's command line begins with: its configuration file and its `--set`s.
    pub daemon_arguments: Vec<std::ffi::OsString>,
}
