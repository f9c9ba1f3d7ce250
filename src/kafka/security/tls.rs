//! TLS to the brokers: how much of it is asked for, and with which certificates.

use std::fmt;
use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::{Properties, SecurityError};
use crate::credentials::{self, FileError, Identity};
use crate::kafka::settings::hidden;

/// How much of TLS a connection must have. What comes later asks for more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TlsMode {
    /// None.
    #[default]
    Disabled,
    /// Encrypted, whoever the broker is.
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
            Self::Required => "required",
            Self::VerifyCa => "verify_ca",
            Self::VerifyIdentity => "verify_identity",
        })
    }
}

/// TLS to the brokers.
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
    /// A file with that password.
    pub key_password_file: Option<PathBuf>,
}

impl TlsSettings {
    /// What librdkafka is told, after a look at every file.
    pub(super) fn properties(&self) -> Result<Properties, SecurityError> {
        self.told().map_err(|error| SecurityError::new("tls", error))
    }

    /// Our certificate and its key.
    pub(in crate::kafka) fn identity(&self) -> Result<Option<Identity>, FileError> {
        let password = self.password()?;
        credentials::identity("kafka.tls", self.cert.as_deref(), self.key.as_deref(), password.as_ref())
    }

    fn password(&self) -> Result<Option<SecretString>, FileError> {
        let (secret, file) = (self.key_password.as_ref(), self.key_password_file.as_deref());
        credentials::given(secret, "key_password_file", file, "a file with the password of kafka.tls.key")
    }

    fn told(&self) -> Result<Properties, FileError> {
        let mode = self.mode;
        if mode == TlsMode::Disabled {
            let unused = [("ca", &self.ca), ("cert", &self.cert), ("key", &self.key)];
            return match unused.into_iter().find_map(|(key, path)| Some((key, path.as_ref()?))) {
                Some((key, path)) => {
                    let found = format!("{:?} with mode disabled", path.display());
                    Err(FileError::new(key, "a kafka.tls.mode with TLS", found))
                }
                None => Ok(Vec::new()),
            };
        }
        let (verifies, named) = (mode >= TlsMode::VerifyCa, mode == TlsMode::VerifyIdentity);
        let mut properties = vec![
            ("enable.ssl.certificate.verification", verifies.to_string()),
            ("ssl.endpoint.identification.algorithm", if named { "https" } else { "none" }.to_owned()),
        ];
        if let Some(path) = &self.ca {
            if !verifies {
                let expected = "kafka.tls.mode = \"verify_ca\" or \"verify_identity\", for others verify nothing";
                return Err(FileError::new("ca", expected, format!("{:?} with mode {mode}", path.display())));
            }
            credentials::authorities("ca", path)?;
            properties.push(("ssl.ca.location", path.display().to_string()));
        }
        if self.identity()?.is_some() {
            let file = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
            properties.extend(file(&self.cert).map(|path| ("ssl.certificate.location", path)));
            properties.extend(file(&self.key).map(|path| ("ssl.key.location", path)));
            let password = self.password()?;
            properties.extend(password.map(|password| ("ssl.key.password", password.expose_secret().to_owned())));
        }
        Ok(properties)
    }
}
