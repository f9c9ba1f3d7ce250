//! What the daemon tells of itself: logs, recent happenings, metrics, and spans of what it relays.

pub mod happenings;
pub mod logging;
pub mod metrics;
mod repeats;
pub mod settings;
#[cfg(feature = "otel")]
pub mod spans;
