//! `outboxd run`: relays until it is told to stop.

use tokio_util::sync::CancellationToken;

use super::code;
use crate::config::Loaded;
use crate::daemon::{self, DaemonError};
use crate::telemetry::logging;

pub(super) async fn run(loaded: Loaded) -> Result<u8, DaemonError> {
    logging::init(&loaded.config.log).map_err(|error| DaemonError::Configuration(error.to_string()))?;
    let stop = CancellationToken::new();
    let mut signals = signals().map_err(|error| DaemonError::Internal(error.to_string()))?;
    let stopping = stop.clone();
    tokio::spawn(async move {
        signals.recv().await;
        tracing::info!("stopping");
        stopping.cancel();
        signals.recv().await;
        // What is in flight is published again after the restart.
        std::process::exit(code::INTERNAL.into());
    });
    let summary = daemon::run(loaded.config, stop).await?;
    Ok(if summary.halted > 0 { code::HALTED } else { code::CLEAN })
}

/// SIGTERM and SIGINT.
fn signals() -> std::io::Result<tokio::sync::mpsc::UnboundedReceiver<()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let (mut signal, sender) = (signal(kind)?, sender.clone());
        tokio::spawn(async move { while signal.recv().await.is_some() && sender.send(()).is_ok() {} });
    }
    Ok(receiver)
}
