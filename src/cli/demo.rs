//! `outboxd demo`: the main job on real servers, with a kill or a failover in the middle and a verdict at the end.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use mysql_async::Opts;
use secrecy::{ExposeSecret, SecretString};
use tokio::signal::unix::SignalKind;
use tokio_util::sync::CancellationToken;

use super::{code, say, show, signals};
use crate::daemon::DaemonError;
use crate::demo::{self, DemoError, DemoSettings};

/// Play a delivery platform on private MySQL and Kafka, kill the relay on the way, and judge what arrived
///
/// Exits with 0 if every committed event arrived, in order, and nothing that was rolled back; with 1 if not, with 69 if a
/// server does not start, and with 130 after Ctrl-C. Whatever ends it, nothing is left behind. With --write-to it is the
/// platform alone: it writes until it is told to stop, and judges nothing.
#[derive(Args)]
pub(super) struct DemoArguments {
    /// How long writers write, in seconds
    #[arg(long, value_name = "N", default_value_t = 30, conflicts_with = "write_to", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Transactions per second
    #[arg(long, value_name = "N", default_value = "200")]
    rate: NonZeroU32,
    /// Kill the primary of two MySQL instead of the relay, and promote its replica
    #[arg(long)]
    failover: bool,
    /// Leave the servers and the relay up at the end until Ctrl-C or Enter, and say how to connect
    #[arg(long)]
    keep: bool,
    /// The script that starts servers
    #[arg(long, value_name = "PATH", default_value = "scripts/services")]
    services: PathBuf,
    /// Only write, to the shards delivery.delivery-outbox{1..4} of this server, until Ctrl-C: load to look at on dashboards
    #[arg(
        long,
        value_name = "URL",
        env = "OUTBOXD_DEMO_WRITE_TO",
        hide_env_values = true,
        conflicts_with_all = ["failover", "keep"]
    )]
    write_to: Option<SecretString>,
}

/// `config` and `sets` are handed on to the daemon.
pub(super) async fn demo(arguments: DemoArguments, config: Option<&Path>, sets: &[String]) -> Result<u8, DaemonError> {
    let DemoArguments { seconds, rate, failover, keep, services, write_to } = arguments;
    let stop = CancellationToken::new();
    let mut signals = signals::heard(&[SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()])?;
    let stopping = stop.clone();
    tokio::spawn(async move {
        signals.recv().await;
        stopping.cancel();
    });
    if let Some(url) = write_to {
        return write(&url, rate, stop).await;
    }
    let duration = Duration::from_secs(seconds);
    let daemon_arguments = demo::arguments(config, sets);
    match demo::run(DemoSettings { services, duration, rate, failover, keep, daemon_arguments }, stop).await {
        Ok(true) => Ok(code::CLEAN),
        Ok(false) => Ok(code::HALTED),
        Err(error @ DemoError::Interrupted) => {
            say(&error.to_string());
            Ok(code::INTERRUPTED)
        }
        Err(error @ (DemoError::NoServices(_) | DemoError::Server { .. } | DemoError::Topic(_))) => {
            Err(DaemonError::Server(error.to_string()))
        }
        Err(error) => Err(DaemonError::Internal(error.to_string())),
    }
}

/// The platform alone. What a URL is wrong in is not said with the URL, which may hold a password.
async fn write(url: &SecretString, rate: NonZeroU32, stop: CancellationToken) -> Result<u8, DaemonError> {
    let server = Opts::from_url(url.expose_secret()).map_err(|error| {
        DaemonError::Configuration(format!("--write-to: expected mysql://USER:PASSWORD@HOST:PORT: {error}"))
    })?;
    show(&format_args!(
        "writes {rate} transactions a second to {}:{}, until Ctrl-C",
        server.ip_or_hostname(),
        server.tcp_port()
    ));
    match demo::write(server, rate, stop).await {
        Ok(events) => {
            show(&format_args!("{events} events are committed"));
            Ok(code::CLEAN)
        }
        Err(error) => Err(DaemonError::Server(error.to_string())),
    }
}
