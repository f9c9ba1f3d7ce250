//! Connections: how they are opened and what their errors mean.

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, Error, Opts, OptsBuilder};
use secrecy::ExposeSecret;

use super::settings::read_password;
use super::tls::{TlsMode, TlsSettings};
use super::wire::Wire;
use crate::source::connects;

/// `ER_ACCESS_DENIED_ERROR`.
const ACCESS_DENIED: u16 = 1045;

/// Where and as whom to connect. `Debug` shows no password.
#[derive(Clone)]
pub struct Endpoint {
    opts: Opts,
    connect_timeout: Duration,
    /// Without it, TLS is what the options say.
    tls: Option<TlsSettings>,
    /// Goes before the password of the options.
    password_file: Option<PathBuf>,
    /// As of the connection before.
    encrypted: Arc<Mutex<Option<Encrypted>>>,
}

/// Options with TLS. With them goes the driver's connector, for which it reads all authorities that the system trusts: some
/// 35 ms each time.
struct Encrypted {
    /// Of the files that they were made of.
    digest: [u8; 32],
    opts: Opts,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.to_string())
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.opts.socket() {
            Some(path) => f.write_str(path),
            None => write!(f, "{}:{}", self.opts.ip_or_hostname(), self.opts.tcp_port()),
        }
    }
}

impl Endpoint {
    /// From the driver's options.
    pub fn new(opts: Opts, connect_timeout: Duration) -> Self {
        Self {
            opts: OptsBuilder::from_opts(opts).prefer_socket(false).into(),
            connect_timeout,
            tls: None,
            password_file: None,
            encrypted: Arc::default(),
        }
    }

    /// With TLS as these settings say.
    #[must_use]
    pub fn with_tls(self, tls: TlsSettings) -> Self {
        Self { tls: Some(tls), encrypted: Arc::default(), ..self }
    }

    /// With the password that is in a file whenever a connection is opened.
    #[must_use]
    pub fn with_password_file(self, password_file: Option<PathBuf>) -> Self {
        Self { password_file, ..self }
    }

    /// How much of TLS is asked for, if settings say so; a Unix socket needs none.
    pub(super) fn tls_mode(&self) -> Option<TlsMode> {
        self.tls.as_ref().filter(|_| self.opts.socket().is_none()).map(|tls| tls.mode)
    }

    /// Whether we show the server a certificate of our own.
    pub(super) fn shows_certificate(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.cert.is_some())
    }

    /// Whether what is sent stays within this machine.
    pub(super) fn is_local(&self) -> bool {
        let host = self.opts.ip_or_hostname();
        self.opts.socket().is_some()
            || host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// The driver's options for the next connection.
    fn opts(&self) -> Result<Opts, Error> {
        let opts = match self.tls.as_ref().filter(|_| self.opts.socket().is_none()) {
            Some(tls) => self.encrypted(tls)?,
            None => self.opts.clone(),
        };
        let Some(path) = &self.password_file else { return Ok(opts) };
        let password = read_password(path).map_err(|error| std::io::Error::other(error.to_string()))?;
        Ok(OptsBuilder::from_opts(opts).pass(Some(password.expose_secret())).into())
    }

    /// The options with TLS as the files are now.
    fn encrypted(&self, tls: &TlsSettings) -> Result<Opts, Error> {
        let material = tls.read()?;
        let digest = material.digest();
        let mut before = self.encrypted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = before.as_ref().filter(|before| Some(before.digest) == digest) {
            return Ok(same.opts.clone());
        }
        let opts: Opts = OptsBuilder::from_opts(self.opts.clone()).ssl_opts(material.options()?).into();
        *before = digest.map(|digest| Encrypted { digest, opts: opts.clone() });
        Ok(opts)
    }

    /// Opens a connection.
    pub async fn connect(&self) -> Result<Conn, Error> {
        let opened = self.open().await;
        connects::note(opened.is_ok());
        opened
    }

    /// A login that is denied is tried once more: the driver spoils the server's random bytes of one in 256 for accounts of
    /// `MariaDB` whose plugin signs them (`ed25519`, `parsec`), by taking a last zero for the end of a text.
    async fn open(&self) -> Result<Conn, Error> {
        match self.open_once().await {
            Err(Error::Server(error)) if error.code == ACCESS_DENIED => self.open_once().await,
            outcome => outcome,
        }
    }

    async fn open_once(&self) -> Result<Conn, Error> {
        let opts = self.opts()?;
        match self.patiently(Conn::new(opts.clone())).await? {
            Err(Error::Driver(DriverError::NoClientSslFlagFromServer))
                if self.tls_mode() == Some(TlsMode::Preferred) =>
            {
                let plain = OptsBuilder::from_opts(opts).ssl_opts(None);
                self.patiently(Conn::new(plain)).await?
            }
            outcome => outcome,
        }
    }

    /// Waits for an answer as long as connecting may take: a server whose machine is gone never says so.
    pub async fn patiently<T>(&self, answer: impl Future<Output = T>) -> Result<T, Error> {
        tokio::time::timeout(self.connect_timeout, answer).await.map_err(|_| {
            let reason = format!("{self} did not answer within {}", humantime::format_duration(self.connect_timeout));
            Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, reason).into())
        })
    }

    /// Opens a connection for a binlog.
    pub(super) async fn wire(&self) -> Result<Wire, Error> {
        let opts = self.opts()?;
        let opened = self.patiently(Wire::connect(&opts, self.tls_mode() == Some(TlsMode::Preferred))).await;
        let opened = opened.and_then(|opened| opened);
        connects::note(opened.is_ok());
        opened
    }
}

/// What the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flavor {
    /// `MariaDB`, not MySQL.
    pub mariadb: bool,
    /// Major, minor, patch.
    pub version: (u16, u16, u16),
}

impl Flavor {
    /// Asks the server.
    pub async fn of(conn: &mut Conn) -> Result<Self, Error> {
        let version: Option<String> = conn.query_first("SELECT VERSION()").await?;
        let version = version.unwrap_or_default();
        let mut numbers = version.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
        let mut number = || numbers.next().unwrap_or(0);
        Ok(Self { mariadb: version.contains("MariaDB"), version: (number(), number(), number()) })
    }

    fn is_mysql_from(self, version: (u16, u16, u16)) -> bool {
        !self.mariadb && self.version >= version
    }

    /// The statement that lists the registered replicas.
    pub(super) fn replicas(self) -> &'static str {
        if self.is_mysql_from((8, 0, 22)) { "SHOW REPLICAS" } else { "SHOW SLAVE HOSTS" }
    }

    /// The statement that tells from which servers this one replicates.
    pub(super) fn replica_status(self) -> &'static str {
        if self.mariadb {
            "SHOW ALL SLAVES STATUS"
        } else if self.is_mysql_from((8, 0, 22)) {
            "SHOW REPLICA STATUS"
        } else {
            "SHOW SLAVE STATUS"
        }
    }

    /// The statement that tells what is written to the log.
    pub(super) fn log_status(self) -> &'static str {
        if self.is_mysql_from((8, 2, 0)) { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" }
    }
}
