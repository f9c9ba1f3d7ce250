//! What the daemon tells of itself: logs, metrics, health.

pub mod logging;
pub mod settings;
