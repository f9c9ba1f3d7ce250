//! Signals that end a command.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::daemon::DaemonError;

/// Each of these signals from now on, in place of what the system would do.
pub(super) fn heard(kinds: &[SignalKind]) -> Result<UnboundedReceiver<()>, DaemonError> {
    let (sender, receiver) = unbounded_channel();
    for kind in kinds {
        let signal = signal(*kind).map_err(|error| DaemonError::Internal(error.to_string()));
        let (mut signal, sender) = (signal?, sender.clone());
        tokio::spawn(async move { while signal.recv().await.is_some() && sender.send(()).is_ok() {} });
    }
    Ok(receiver)
}
