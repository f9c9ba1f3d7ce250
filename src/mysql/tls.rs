//! TLS to the servers: how much of it is asked for, and with which certificates.
//!
//! Promise: a connection is never less safe than `mode` says. What contradicts itself, or cannot be used, is told by the
//! key it stands under. Files are read for every connection, so renewed certificates need no restart.

use std::fmt;
use std::path::PathBuf;

use mysql_async::{ClientIdentity, SslOpts};
use openssl::pkcs12::Pkcs12;
use openssl::pkey::{PKey, Private};
use openssl::stack::Stack;
use openssl::x509::X509;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::settings::hidden;
use crate::credentials::{self, FileError, Identity};

/// How much of TLS a connection must have. What comes later asks for more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TlsMode {
    /// None.
    Disabled,
    /// Encrypted if the server offers it, whoever the server is.
    #[default]
    Preferred,
    /// Encrypted, whoever the server is.
    Required,
    /// Encrypted, with a certificate of an authority that is trusted.
    VerifyCa,
    /// Encrypted, with such a certificate for the name that is connected to.
    VerifyIdentity,
}

impl fmt::Display for TlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disabled => "disabled",
            Self::Preferred => "preferred",
            Self::Required => "required",
            Self::VerifyCa => "verify_ca",
            Self::VerifyIdentity => "verify_identity",
        })
    }
}

/// TLS to the servers of the log and of the positions.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TlsSettings {
    /// How much of it is asked for.
    pub mode: TlsMode,
    /// The authorities that are trusted, PEM; the system's when not set.
    pub ca: Option<PathBuf>,
    /// Our own certificate, PEM, with those between it and its authority behind it.
    pub cert: Option<PathBuf>,
    /// The private key of `cert`, PEM.
    pub key: Option<PathBuf>,
    /// What `key` is encrypted with, if it is.
    #[serde(serialize_with = "hidden")]
    pub key_password: Option<SecretString>,
}

/// A key of [`TlsSettings`] that cannot be used. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("mysql.tls.{key}: expected {expected}, found {found}")]
pub struct TlsError {
    /// The key, below `mysql.tls`.
    pub key: &'static str,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
}

impl TlsError {
    fn new(key: &'static str, expected: impl Into<String>, found: impl fmt::Display) -> Self {
        Self { key, expected: expected.into(), found: found.to_string() }
    }
}

impl From<FileError> for TlsError {
    fn from(FileError { key, expected, found }: FileError) -> Self {
        Self { key, expected, found }
    }
}

impl From<TlsError> for mysql_async::Error {
    fn from(error: TlsError) -> Self {
        Self::Io(std::io::Error::new(std::io::ErrorKind::InvalidInput, error).into())
    }
}

impl TlsSettings {
    /// What a connection is opened with; `None` for one without TLS.
    pub fn options(&self) -> Result<Option<SslOpts>, TlsError> {
        let (mode, ca) = (self.mode, self.authorities()?);
        let identity = self.identity()?;
        if mode == TlsMode::Disabled {
            return Ok(None);
        }
        let options = SslOpts::default()
            .with_danger_accept_invalid_certs(mode < TlsMode::VerifyCa)
            .with_danger_skip_domain_validation(mode < TlsMode::VerifyIdentity)
            .with_client_identity(identity);
        Ok(Some(match ca {
            Some(pem) => options.with_root_certs(vec![pem.into()]).with_disable_built_in_roots(true),
            None => options,
        }))
    }

    fn authorities(&self) -> Result<Option<Vec<u8>>, TlsError> {
        let Some(path) = &self.ca else { return Ok(None) };
        if self.mode < TlsMode::VerifyCa {
            let expected = "mysql.tls.mode = \"verify_ca\" or \"verify_identity\", for others verify nothing";
            return Err(TlsError::new("ca", expected, format!("{:?} with mode {}", path.display(), self.mode)));
        }
        Ok(Some(credentials::authorities("ca", path)?))
    }

    fn identity(&self) -> Result<Option<ClientIdentity>, TlsError> {
        if let Some(cert) = self.cert.as_ref().filter(|_| self.mode == TlsMode::Disabled) {
            let expected = "a mysql.tls.mode with TLS";
            return Err(TlsError::new("cert", expected, format!("{:?} with mode disabled", cert.display())));
        }
        let (cert, key) = (self.cert.as_deref(), self.key.as_deref());
        let found = credentials::identity("mysql.tls", cert, key, self.key_password.as_ref())?;
        let Some(Identity { chain, key }) = found else { return Ok(None) };
        let archive =
            archive(&chain, &key).map_err(|error| TlsError::new("cert", "a certificate that OpenSSL takes", error))?;
        Ok(Some(ClientIdentity::new(archive.into()).with_password(IN_MEMORY)))
    }
}

/// The password of an archive that never leaves this process.
const IN_MEMORY: &str = "outboxd";

/// The form in which the TLS library takes a certificate together with its key.
fn archive(chain: &[X509], key: &PKey<Private>) -> Result<Vec<u8>, openssl::error::ErrorStack> {
    let mut between = Stack::new()?;
    for certificate in chain.iter().skip(1) {
        between.push(certificate.clone())?;
    }
    let mut archive = Pkcs12::builder();
    archive.name(IN_MEMORY).pkey(key).ca(between).key_iter(1).mac_iter(1);
    if let Some(certificate) = chain.first() {
        archive.cert(certificate);
    }
    archive.build2(IN_MEMORY)?.to_der()
}
