//! Why a demo ends without a verdict.

use std::path::PathBuf;

use crate::history::{ReadError, WriteError};

/// Why a demo ends without a verdict.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// There is nothing to start servers with.
    #[error(
        "{0} is not there; run the demo in the folder of an outboxd checkout (`make demo`), or say where the script is with --services"
    )]
    NoServices(PathBuf),
    /// A server does not start.
    #[error("{name}: {reason}; `scripts/services install {name}` fetches it, `make demo` does so by itself")]
    Server {
        /// Which one.
        name: &'static str,
        /// Why.
        reason: String,
    },
    /// The two servers do not replicate, or the second one is not promoted.
    #[error("the second MySQL: {0}")]
    Standby(String),
    /// Kafka refuses the topic.
    #[error("kafka refuses the topic: {0}")]
    Topic(String),
    /// The daemon ended, or failed to do what it was asked.
    #[error("{0}; the end of its log:\n{1}")]
    Daemon(String, String),
    /// The platform cannot write.
    #[error("the writers failed: {0}")]
    Write(#[from] WriteError),
    /// The topic cannot be read back.
    #[error("the topic cannot be read back: {0}")]
    Read(#[from] ReadError),
    /// The terminal, a file or a process.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Told to stop.
    #[error("interrupted before the verdict; what was started is being stopped")]
    Interrupted,
}
