//! `outboxd run`: relays until it is told to stop.

use tokio::signal::unix::SignalKind;
use tokio_util::sync::CancellationToken;

use super::{code, signals};
use crate::config::Loaded;
use crate::daemon::{self, DaemonError};
use crate::telemetry::logging;

pub(super) async fn run(loaded: Loaded) -> Result<u8, DaemonError> {
    logging::init(&loaded.config.log).map_err(|error| DaemonError::Configuration(error.to_string()))?;
    let stop = CancellationToken::new();
    let mut signals = signals::heard(&[SignalKind::terminate(), SignalKind::interrupt()])?;
    let stopping = stop.clone();
    tokio::spawn(async move {
        // Without a signal it is the runtime that ends.
        if signals.recv().await.is_none() {
            return;
        }
        tracing::info!("stopping");
        stopping.cancel();
        if signals.recv().await.is_some() {
            // What is in flight is published again after the restart.
            std::process::exit(code::INTERNAL.into());
        }
    });
    let summary = daemon::run(loaded.config, stop).await?;
    Ok(if summary.halted > 0 { code::HALTED } else { code::CLEAN })
}
