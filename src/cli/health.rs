//! `outboxd health`: whether the running daemon is well, as an exit code, for supervisors that run a command.
//!
//! Promise: 0 only when the daemon itself said so. It needs nothing but this binary, so an image needs no shell and no curl.
//! Of the configuration it needs `[admin]` alone: a mistake elsewhere in the file says nothing about a daemon that runs.

use std::time::Duration;

use clap::{ArgAction, Args};

use super::whereabouts::Whereabouts;
use super::{code, say, show};
use crate::admin::settings::AdminSettings;
use crate::config::ConfigErrors;
use crate::daemon::DaemonError;

#[derive(Args)]
pub(super) struct HealthArguments {
    /// Only whether the process answers, not whether it is ready to relay: what a restart would cure
    #[arg(long, action = ArgAction::SetTrue)]
    live: bool,
    #[command(flatten)]
    whereabouts: Whereabouts,
    /// How long it may take
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// Asks once. Exits with 1 where the answer is no, or there is none.
pub(super) async fn health(
    arguments: HealthArguments,
    admin: Result<AdminSettings, ConfigErrors>,
) -> Result<u8, DaemonError> {
    let HealthArguments { live, whereabouts, timeout } = arguments;
    let daemon = whereabouts.client(admin.as_ref(), timeout)?;
    let answer = if live { daemon.live().await } else { daemon.ready().await };
    match answer {
        Ok(()) => {
            show(&if live { "live" } else { "ready" });
            Ok(code::CLEAN)
        }
        Err(silent) => {
            say(&silent.to_string());
            Ok(code::UNHEALTHY)
        }
    }
}
