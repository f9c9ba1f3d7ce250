//! TLS to the servers: how much of it is asked for, and with which certificates.
//!
//! Promise: a connection is never less safe than `mode` says. What contradicts itself, or cannot be used, is told by the
//! key it stands under. Files are read for every connection, so renewed certificates need no restart.

use std::fmt;
use std::path::{Path, PathBuf};

use mysql_async::{ClientIdentity, SslOpts};
use native_tls::Certificate;
use openssl::pkcs12::Pkcs12;
use openssl::pkey::{PKey, Private};
use openssl::stack::Stack;
use openssl::x509::X509;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::settings::hidden;

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
        let expected = "a file of certificates, PEM";
        let pem = read("ca", path, expected)?;
        match Certificate::stack_from_pem(&pem) {
            Ok(certificates) if !certificates.is_empty() => Ok(Some(pem)),
            _ => Err(TlsError::new("ca", expected, format!("none in {}", path.display()))),
        }
    }

    fn identity(&self) -> Result<Option<ClientIdentity>, TlsError> {
        let (cert, key) = match (&self.cert, &self.key) {
            (None, None) => return Ok(None),
            (Some(cert), Some(key)) => (cert, key),
            (Some(_), None) => return Err(TlsError::new("key", "the file with the key of mysql.tls.cert", "nothing")),
            (None, Some(_)) => return Err(TlsError::new("cert", "the certificate of mysql.tls.key", "nothing")),
        };
        if self.mode == TlsMode::Disabled {
            let expected = "a mysql.tls.mode with TLS";
            return Err(TlsError::new("cert", expected, format!("{:?} with mode disabled", cert.display())));
        }
        let expected = "a certificate, PEM";
        let chain = X509::stack_from_pem(&read("cert", cert, expected)?).unwrap_or_default();
        let Some((certificate, between)) = chain.split_first() else {
            return Err(TlsError::new("cert", expected, format!("none in {}", cert.display())));
        };
        let private = self.private_key(key)?;
        if !certificate.public_key().is_ok_and(|public| public.public_eq(&private)) {
            let expected = format!("the key of the certificate in {}", cert.display());
            return Err(TlsError::new("key", expected, format!("another key in {}", key.display())));
        }
        let archive = archive(certificate, between, &private)
            .map_err(|error| TlsError::new("cert", "a certificate that OpenSSL takes", error))?;
        Ok(Some(ClientIdentity::new(archive.into()).with_password(IN_MEMORY)))
    }

    fn private_key(&self, path: &Path) -> Result<PKey<Private>, TlsError> {
        let pem = read("key", path, "a private key, PEM")?;
        let password = self.key_password.as_ref().map_or("", ExposeSecret::expose_secret);
        // With a password given, OpenSSL asks nobody for it.
        PKey::private_key_from_pem_passphrase(&pem, password.as_bytes()).map_err(|_| {
            let is_encrypted = String::from_utf8_lossy(&pem).contains("ENCRYPTED");
            let found = path.display();
            match (is_encrypted, self.key_password.is_some()) {
                (true, false) => TlsError::new("key_password", format!("the password of {found}"), "nothing"),
                (true, true) => TlsError::new("key_password", format!("the password of {found}"), "another one"),
                (false, _) => TlsError::new("key", "a private key, PEM", format!("none in {found}")),
            }
        })
    }
}

/// The password of an archive that never leaves this process.
const IN_MEMORY: &str = "outboxd";

/// The form in which the TLS library takes a certificate together with its key.
fn archive(cert: &X509, between: &[X509], key: &PKey<Private>) -> Result<Vec<u8>, openssl::error::ErrorStack> {
    let mut chain = Stack::new()?;
    for certificate in between {
        chain.push(certificate.clone())?;
    }
    let mut archive = Pkcs12::builder();
    archive.name(IN_MEMORY).pkey(key).cert(cert).ca(chain).key_iter(1).mac_iter(1);
    archive.build2(IN_MEMORY)?.to_der()
}

fn read(key: &'static str, path: &Path, expected: &str) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| TlsError::new(key, expected, format!("{}: {error}", path.display())))
}
