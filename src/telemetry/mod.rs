//! What the daemon tells of itself: logs, metrics, and spans of what it relays.

pub mod logging;
pub mod metrics;
pub mod settings;
#[cfg(feature = "otel")]
pub mod spans;
