//! What the service manager is told (systemd's `Type=notify`); nothing where there is none.
//!
//! Promise: ready means that the servers have answered and every table is being claimed; while the daemon waits for a
//! server it asks for more time and says why, so that a slow database does not look like a hung start.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// How much longer a start may take after each sign of life, in microseconds: more than the longest look at the servers
/// and the longest wait between two looks.
const PATIENCE_MICROS: u32 = 180_000_000;

/// The daemon waits for a server.
pub(super) fn waiting(why: &str) {
    // A status is one line.
    let why = why.replace('\n', " ");
    tell(&[NotifyState::Status(&why), NotifyState::ExtendTimeoutUsec(PATIENCE_MICROS)]);
}

/// The configuration is read again.
pub(super) fn reloading() {
    let since = NotifyState::monotonic_usec_now().map(|now| vec![NotifyState::Reloading, now]);
    tell(&since.unwrap_or_else(|_| vec![NotifyState::Reloading]));
}

/// The relays begin.
pub(super) fn ready(tables: usize) {
    tell(&[NotifyState::Ready, NotifyState::Status(&format!("relaying {tables} tables"))]);
}

/// Tells of the stop when it comes, and that the runtime is alive, twice within each of the manager's periods, for as long
/// as it is polled.
pub(super) async fn accompany(stop: CancellationToken) {
    let stopping = async {
        stop.cancelled().await;
        tell(&[NotifyState::Stopping, NotifyState::Status("waiting for acknowledgements")]);
    };
    tokio::join!(stopping, alive());
}

async fn alive() {
    let Some(period) = sd_notify::watchdog_enabled() else { return };
    let mut ticks = interval((period / 2).max(Duration::from_millis(1)));
    loop {
        ticks.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    // Does nothing where no manager asks for it.
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "service_manager_not_told");
    }
}
