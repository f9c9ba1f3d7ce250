//! Where a running daemon answers, as arguments and the configuration say it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::unusable;
use crate::admin::settings::AdminSettings;
use crate::config::ConfigErrors;
use crate::credentials::FileError;
use crate::daemon::DaemonError;
use crate::status::client::Client;
use crate::status::trust::Trust;

/// Where the daemon answers, and how it is known.
#[derive(Args)]
pub(super) struct Whereabouts {
    /// Where the daemon answers; https:// in front where it has a certificate [default: admin.listen of the configuration]
    #[arg(long, alias = "admin", value_name = "HOST:PORT")]
    address: Option<String>,
    /// Authorities, PEM, that the daemon's certificate has to be of [default: the system's]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Our own certificate, PEM, for a daemon that asks for one
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_cert: Option<PathBuf>,
    /// The private key of --client-cert, PEM
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    client_key: Option<PathBuf>,
}

impl Whereabouts {
    /// A client for it, whose answers may each take so long.
    pub(super) fn client(
        &self,
        configured: Result<&AdminSettings, &ConfigErrors>,
        patience: Duration,
    ) -> Result<Client, DaemonError> {
        let mut trust =
            Trust { ca: self.ca.clone(), cert: self.client_cert.clone(), key: self.client_key.clone(), whoever: false };
        let address = match (&self.address, configured) {
            (Some(address), _) if self.ca.is_some() && !address.contains("://") => format!("https://{address}"),
            (Some(address), _) => address.clone(),
            (None, Ok(admin)) => {
                let listen = Client::address_of(admin.listen);
                if admin.tls.cert.is_some() {
                    // Its certificate is for the name that others know it by; on this machine there is only one listener
                    // at that address.
                    trust.whoever = trust.ca.is_none() && listen.ip().is_loopback();
                    format!("https://{listen}")
                } else {
                    listen.to_string()
                }
            }
            (None, Err(errors)) => return Err(unusable(errors)),
        };
        let wrong = |error: FileError| {
            let key = if error.key == "ca" { "ca" } else { &format!("client-{}", error.key) };
            DaemonError::Configuration(format!("--{key}: expected {}, found {}", error.expected, error.found))
        };
        Client::secured(&address, &trust, patience).map_err(wrong)
    }
}
