//! TLS to the servers: how much of it is asked for, and with which certificates.
//!
//! Promise: a connection is never less safe than `mode` says. What contradicts itself, or cannot be used, is told by the
//! key it stands under. Files are read for every connection, so renewed certificates need no restart.

use std::fmt;
use std::path::PathBuf;

use mysql_async::{ClientIdentity, SslOpts};
use openssl::pkcs12::Pkcs12;
use openssl::pkey::{PKey, Private};
use openssl::sha::Sha256;
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
    /// What `key` is encrypted with, if it is; goes before `key_password_file`.
    #[serde(serialize_with = "hidden")]
    pub key_password: Option<SecretString>,
    /// A file that holds it.
    pub key_password_file: Option<PathBuf>,
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
        self.read()?.options()
    }

    /// Reads the files.
    pub(super) fn read(&self) -> Result<Material, TlsError> {
        Ok(Material { mode: self.mode, ca: self.authorities()?, identity: self.identity()? })
    }

    fn authorities(&self) -> Result<Option<Vec<u8>>, TlsError> {
        let Some(path) = &self.ca else { return Ok(None) };
        if self.mode < TlsMode::VerifyCa {
            let expected = "mysql.tls.mode = \"verify_ca\" or \"verify_identity\", for others verify nothing";
            return Err(TlsError::new("ca", expected, format!("{:?} with mode {}", path.display(), self.mode)));
        }
        Ok(Some(credentials::authorities("ca", path)?))
    }

    fn identity(&self) -> Result<Option<Identity>, TlsError> {
        if let Some(cert) = self.cert.as_ref().filter(|_| self.mode == TlsMode::Disabled) {
            let expected = "a mysql.tls.mode with TLS";
            return Err(TlsError::new("cert", expected, format!("{:?} with mode disabled", cert.display())));
        }
        let (secret, file) = (self.key_password.as_ref(), self.key_password_file.as_deref());
        let password =
            credentials::given(secret, "key_password_file", file, "a file with the password of mysql.tls.key")?;
        let (cert, key) = (self.cert.as_deref(), self.key.as_deref());
        Ok(credentials::identity("mysql.tls", cert, key, password.as_ref())?)
    }
}

/// What the files of the settings hold.
pub(super) struct Material {
    mode: TlsMode,
    ca: Option<Vec<u8>>,
    identity: Option<Identity>,
}

impl Material {
    /// What a connection is opened with; `None` for one without TLS.
    pub(super) fn options(self) -> Result<Option<SslOpts>, TlsError> {
        let Self { mode, ca, identity } = self;
        if mode == TlsMode::Disabled {
            return Ok(None);
        }
        let unusable = |error| TlsError::new("cert", "a certificate that OpenSSL takes", error);
        let identity = identity.map(|Identity { chain, key }| archive(&chain, &key)).transpose().map_err(unusable)?;
        let identity = identity.map(|archive| ClientIdentity::new(archive.into()).with_password(IN_MEMORY));
        let options = SslOpts::default()
            .with_danger_accept_invalid_certs(mode < TlsMode::VerifyCa)
            .with_danger_skip_domain_validation(mode < TlsMode::VerifyIdentity)
            .with_client_identity(identity);
        Ok(Some(match ca {
            Some(pem) => options.with_root_certs(vec![pem.into()]).with_disable_built_in_roots(true),
            None => options,
        }))
    }

    /// Differs where the files differ. `None` where whom the system trusts counts too, which may change by itself.
    pub(super) fn digest(&self) -> Option<[u8; 32]> {
        if self.mode >= TlsMode::VerifyCa && self.ca.is_none() {
            return None;
        }
        let mut digest = Sha256::new();
        digest.update(self.ca.as_deref().unwrap_or_default());
        // A certificate has one key only.
        for certificate in self.identity.iter().flat_map(|identity| &identity.chain) {
            digest.update(&certificate.to_der().ok()?);
        }
        Some(digest.finish())
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

#[cfg(test)]
mod tests {
    use openssl::x509::X509Builder;

    use super::*;

    fn material(mode: TlsMode, ca: Option<&[u8]>, chain: Vec<X509>) -> Material {
        let key = PKey::generate_ed25519().unwrap();
        let identity = (!chain.is_empty()).then_some(Identity { chain, key });
        Material { mode, ca: ca.map(<[u8]>::to_vec), identity }
    }

    fn certificate() -> X509 {
        let key = PKey::generate_ed25519().unwrap();
        let mut builder = X509Builder::new().unwrap();
        builder.set_pubkey(&key).unwrap();
        builder.sign(&key, openssl::hash::MessageDigest::null()).unwrap();
        builder.build()
    }

    #[test]
    fn given_files_when_they_are_renewed_then_what_was_made_of_them_counts_no_more() {
        let (one, other) = (certificate(), certificate());
        let digest = |mode, ca, chain: &[&X509]| material(mode, ca, chain.iter().copied().cloned().collect()).digest();
        let first = digest(TlsMode::VerifyCa, Some(b"ca"), &[&one]);
        assert!(first.is_some());
        assert_eq!(first, digest(TlsMode::VerifyCa, Some(b"ca"), &[&one]));
        for (ca, chain) in [(&b"new"[..], &[&one][..]), (b"ca", &[&other]), (b"ca", &[&one, &other]), (b"ca", &[])] {
            assert_ne!(first, digest(TlsMode::VerifyCa, Some(ca), chain));
        }
    }

    #[test]
    fn given_the_authorities_of_the_system_when_they_count_then_nothing_is_kept() {
        for (mode, is_kept) in [
            (TlsMode::Preferred, true),
            (TlsMode::Required, true),
            (TlsMode::VerifyCa, false),
            (TlsMode::VerifyIdentity, false),
        ] {
            assert_eq!(material(mode, None, Vec::new()).digest().is_some(), is_kept, "{mode}");
        }
    }
}
