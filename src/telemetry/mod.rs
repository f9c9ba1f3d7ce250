//! What the daemon tells of itself: logs, metrics, health.

pub mod admin;
pub mod logging;
pub mod metrics;
pub mod settings;
