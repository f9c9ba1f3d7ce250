//! Whom a client takes for the daemon, and as whom it comes.

use std::path::PathBuf;

use openssl::x509::X509;
use ureq::tls::{Certificate, ClientCert, PrivateKey, TlsConfig, TlsProvider};

use crate::credentials::{self, FileError};

/// Whom a client takes for the daemon over HTTPS, and as whom it comes.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// Authorities, PEM, that the daemon's certificate has to be of; the system's when not set.
    pub ca: Option<PathBuf>,
    /// Our own certificate, PEM.
    pub cert: Option<PathBuf>,
    /// The private key of `cert`, PEM.
    pub key: Option<PathBuf>,
    /// Whether whoever answers is taken for the daemon, as without TLS.
    pub whoever: bool,
}

impl Trust {
    /// As the HTTP client is told, after a look at every file; keys of errors are `ca`, `cert` and `key`.
    pub(super) fn config(&self) -> Result<TlsConfig, FileError> {
        let roots = credentials::roots("ca", self.ca.as_deref())?;
        let identity = credentials::identity("client", self.cert.as_deref(), self.key.as_deref(), None)?;
        let identity = match identity {
            None => None,
            Some(identity) => {
                let unfit = |error: &dyn std::fmt::Display| FileError::new("key", "a key that TLS can use", error);
                let pem = identity.key.private_key_to_pem_pkcs8().map_err(|error| unfit(&error))?;
                let key = PrivateKey::from_pem(&zeroize::Zeroizing::new(pem)).map_err(|error| unfit(&error))?;
                Some(ClientCert::new_with_certs(&certificates(&identity.chain)?, key))
            }
        };
        let config = TlsConfig::builder().provider(TlsProvider::NativeTls).root_certs(roots).client_cert(identity);
        Ok(config.disable_verification(self.whoever).build())
    }
}

fn certificates(all: &[X509]) -> Result<Vec<Certificate<'static>>, FileError> {
    let der = |certificate: &X509| Ok(Certificate::from_der(&certificate.to_der()?).to_owned());
    let all: Result<_, openssl::error::ErrorStack> = all.iter().map(der).collect();
    all.map_err(|error| FileError::new("cert", "certificates that OpenSSL takes", error))
}
