//! What the daemon tells of itself: logs and metrics.

pub mod logging;
pub mod metrics;
pub mod settings;
