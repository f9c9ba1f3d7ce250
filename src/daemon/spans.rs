//! The exporter of spans, in builds that have one.

use super::DaemonError;
use crate::config::Config;
#[cfg(feature = "otel")]
pub(super) use crate::telemetry::spans::Exporter;

/// The exporter, if one is configured.
#[cfg(feature = "otel")]
pub(super) fn exporter(config: &Config) -> Result<Option<Exporter>, DaemonError> {
    Exporter::of(&config.otel).map_err(|error| DaemonError::Configuration(format!("otel.endpoint: {error}")))
}

/// None: the configuration is refused that wants one.
#[cfg(not(feature = "otel"))]
#[expect(clippy::unnecessary_wraps, reason = "as with the feature")]
pub(super) fn exporter(_: &Config) -> Result<Option<Exporter>, DaemonError> {
    Ok(None)
}

#[cfg(not(feature = "otel"))]
pub(super) enum Exporter {}

#[cfg(not(feature = "otel"))]
impl Exporter {
    pub(super) fn sink(&self) -> crate::relay::spans::Sink {
        match *self {}
    }

    pub(super) fn end(self) {
        match self {}
    }
}
