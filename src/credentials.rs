//! Certificates, keys and passwords out of files.
//!
//! Promise: what is missing, damaged or does not belong together is told by the key it stands under, and no secret is in
//! what is told.

use std::fmt::Display;
use std::path::Path;

use openssl::pkey::{PKey, Private};
use openssl::x509::X509;
use secrecy::{ExposeSecret, SecretString};
use ureq::tls::{PemItem, RootCerts, parse_pem};
use zeroize::Zeroizing;

/// A file that cannot be used. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: expected {expected}, found {found}")]
pub struct FileError {
    /// The key it stands under, such as `ca`, `cert`, `key` or `key_password`.
    pub key: &'static str,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
}

impl FileError {
    /// What was expected under a key, and what was found.
    pub fn new(key: &'static str, expected: impl Into<String>, found: impl Display) -> Self {
        Self { key, expected: expected.into(), found: found.to_string() }
    }
}

/// A certificate of our own.
#[derive(Debug)]
pub struct Identity {
    /// The certificate, and those between it and its authority behind it.
    pub chain: Vec<X509>,
    /// Its key.
    pub key: PKey<Private>,
}

/// A password's file; one line end after it is ignored.
pub fn secret(path: &Path) -> std::io::Result<SecretString> {
    let text = Zeroizing::new(std::fs::read_to_string(path)?);
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(SecretString::from(line.strip_suffix('\r').unwrap_or(line)))
}

/// A secret that is given as it is, or else in a file, which stands under `key`; `expected` says what is in it.
pub fn given(
    secret: Option<&SecretString>,
    key: &'static str,
    file: Option<&Path>,
    expected: &str,
) -> Result<Option<SecretString>, FileError> {
    match (secret, file) {
        (Some(secret), _) => Ok(Some(secret.clone())),
        (None, Some(path)) => self::secret(path)
            .map(Some)
            .map_err(|error| FileError::new(key, expected, format!("{}: {error}", path.display()))),
        (None, None) => Ok(None),
    }
}

/// A file of at least one certificate, as it is; it stands under `key`.
pub fn authorities(key: &'static str, path: &Path) -> Result<Vec<u8>, FileError> {
    let expected = "a file of certificates, PEM";
    let pem = read(key, path, expected)?;
    match X509::stack_from_pem(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(pem),
        _ => Err(FileError::new(key, expected, format!("none in {}", path.display()))),
    }
}

/// Whom an HTTPS client trusts: the authorities in the file that stands under `key`, or else the system's.
pub fn roots(key: &'static str, path: Option<&Path>) -> Result<RootCerts, FileError> {
    let Some(path) = path else { return Ok(RootCerts::PlatformVerifier) };
    let pem = authorities(key, path)?;
    let certificates = parse_pem(&pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    Ok(RootCerts::from(certificates))
}

/// A certificate and its key, if they are given; `section` is where their keys stand.
pub fn identity(
    section: &str,
    cert: Option<&Path>,
    key: Option<&Path>,
    password: Option<&SecretString>,
) -> Result<Option<Identity>, FileError> {
    let (cert, key) = match (cert, key) {
        (None, None) => return Ok(None),
        (Some(cert), Some(key)) => (cert, key),
        (Some(_), None) => {
            return Err(FileError::new("key", format!("the file with the key of {section}.cert"), "nothing"));
        }
        (None, Some(_)) => {
            return Err(FileError::new("cert", format!("the certificate of {section}.key"), "nothing"));
        }
    };
    let expected = "a certificate, PEM";
    let chain = X509::stack_from_pem(&read("cert", cert, expected)?).unwrap_or_default();
    let Some(certificate) = chain.first() else {
        return Err(FileError::new("cert", expected, format!("none in {}", cert.display())));
    };
    let private = private_key(key, password)?;
    if !certificate.public_key().is_ok_and(|public| public.public_eq(&private)) {
        let expected = format!("the key of the certificate in {}", cert.display());
        return Err(FileError::new("key", expected, format!("another key in {}", key.display())));
    }
    Ok(Some(Identity { chain, key: private }))
}

fn private_key(path: &Path, password: Option<&SecretString>) -> Result<PKey<Private>, FileError> {
    let pem = Zeroizing::new(read("key", path, "a private key, PEM")?);
    let given = password.map_or("", ExposeSecret::expose_secret);
    // With a password given, OpenSSL asks nobody for it.
    PKey::private_key_from_pem_passphrase(&pem, given.as_bytes()).map_err(|_| {
        let is_encrypted = String::from_utf8_lossy(&pem).contains("ENCRYPTED");
        let found = path.display();
        match (is_encrypted, password.is_some()) {
            (true, false) => FileError::new("key_password", format!("the password of {found}"), "nothing"),
            (true, true) => FileError::new("key_password", format!("the password of {found}"), "another one"),
            (false, _) => FileError::new("key", "a private key, PEM", format!("none in {found}")),
        }
    })
}

fn read(key: &'static str, path: &Path, expected: &str) -> Result<Vec<u8>, FileError> {
    std::fs::read(path).map_err(|error| FileError::new(key, expected, format!("{}: {error}", path.display())))
}
