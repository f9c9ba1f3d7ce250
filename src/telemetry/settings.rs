//! How the daemon logs, and where it sends spans.

use serde::{Deserialize, Serialize};

/// The log on standard error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogSettings {
    /// For people or for machines.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives such as `info,outboxd::relay=debug`.
    pub level: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".into() }
    }
}

/// The form of the log's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One readable line each.
    #[default]
    Text,
    /// One JSON object each.
    Json,
}

/// Spans of traced events, from commit to acknowledgement; off unless `endpoint` is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OtelSettings {
    /// The collector, which speaks OTLP over HTTP: `http://collector:4318`.
    pub endpoint: Option<String>,
    /// The name of the service that spans are of.
    pub service: String,
}

impl Default for OtelSettings {
    fn default() -> Self {
        Self { endpoint: None, service: "outboxd".to_owned() }
    }
}
