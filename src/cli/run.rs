//! `outboxd run`: relays until it is told to stop.

use tokio::signal::unix::SignalKind;
use tokio_util::sync::CancellationToken;

use super::{code, signals};
use crate::admin::reload::Reloads;
use crate::config::{Loaded, Options};
use crate::daemon::{self, DaemonError, Process};
use crate::telemetry::logging;

pub(super) async fn run(options: Options, loaded: Loaded) -> Result<u8, DaemonError> {
    let (levels, happenings) =
        logging::init(&loaded.config.log).map_err(|error| DaemonError::Configuration(error.to_string()))?;
    let stop = CancellationToken::new();
    let mut signals = signals::heard(&[SignalKind::terminate(), SignalKind::interrupt()])?;
    let mut hangups = signals::heard(&[SignalKind::hangup()])?;
    let reloads = Reloads::channel();
    let asking = reloads.0.clone();
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            // The log tells what became of it.
            let _ = asking.audited("SIGHUP", None).await;
        }
    });
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
    let process = Process { options, loaded, levels, happenings, reloads };
    let summary = Box::pin(daemon::run(process, stop)).await?;
    Ok(if summary.halted > 0 { code::HALTED } else { code::CLEAN })
}
