//! HTTPS on the admin listener, and certificates of those who ask.
//!
//! Promise: where a certificate is set, nothing is said in the clear. Files are read for every connection, so renewed ones need
//! no restart; while they cannot be used, those that could be used last serve on, and the log says so.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::ssl::{
    AlpnError, SslAcceptor, SslMethod, SslOptions, SslRef, SslSessionCacheMode, SslVerifyMode, SslVersion,
    select_next_proto,
};
use openssl::stack::Stack;
use openssl::x509::store::X509StoreBuilder;
use openssl::x509::{X509, X509NameEntryRef, X509NameRef};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::credentials::{self, FileError, Identity};

/// HTTPS, where a certificate is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TlsSettings {
    /// The listener's certificate, PEM, with those between it and its authority behind it; the listener speaks HTTPS with one.
    pub cert: Option<PathBuf>,
    /// The private key of `cert`, PEM.
    pub key: Option<PathBuf>,
    /// A file with the password of `key`, if it is encrypted.
    pub key_password_file: Option<PathBuf>,
    /// Authorities, PEM; whoever shows a certificate of theirs may change something, without a token.
    pub client_ca: Option<PathBuf>,
}

impl TlsSettings {
    /// What connections are taken with, out of the files as they are now; `None` for plain HTTP.
    pub fn acceptor(&self) -> Result<Option<SslAcceptor>, FileError> {
        let (cert, key) = (self.cert.as_deref(), self.key.as_deref());
        let password = self.key_password_file.as_deref();
        let expected = "a file with the password of admin.tls.key";
        let password = credentials::given(None, "key_password_file", password, expected)?;
        let Some(identity) = credentials::identity("admin.tls", cert, key, password.as_ref())? else {
            return match &self.client_ca {
                Some(path) => {
                    Err(FileError::new("client_ca", "admin.tls.cert and admin.tls.key beside it", path.display()))
                }
                None => Ok(None),
            };
        };
        let authorities = match &self.client_ca {
            Some(path) => X509::stack_from_pem(&credentials::authorities("client_ca", path)?).unwrap_or_default(),
            None => Vec::new(),
        };
        let taken = accepts(&identity, authorities);
        taken.map(Some).map_err(|error| FileError::new("cert", "certificates that OpenSSL takes", error))
    }
}

fn accepts(identity: &Identity, authorities: Vec<X509>) -> Result<SslAcceptor, ErrorStack> {
    let mut builder = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server())?;
    builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    builder.set_private_key(&identity.key)?;
    for (place, certificate) in identity.chain.iter().enumerate() {
        if place == 0 {
            builder.set_certificate(certificate)?;
        } else {
            builder.add_extra_chain_cert(certificate.clone())?;
        }
    }
    // Who comes again shows its certificate again.
    builder.set_session_cache_mode(SslSessionCacheMode::OFF);
    builder.set_options(SslOptions::NO_TICKET);
    builder.set_alpn_select_callback(|_, offered| select_next_proto(b"\x08http/1.1", offered).ok_or(AlpnError::NOACK));
    if !authorities.is_empty() {
        let (mut store, mut names) = (X509StoreBuilder::new()?, Stack::new()?);
        for authority in authorities {
            names.push(authority.subject_name().to_owned()?)?;
            store.add_cert(authority)?;
        }
        builder.set_verify_cert_store(store.build())?;
        builder.set_client_ca_list(names);
        // Without one, reading is open as it is without TLS; a false one ends the connection.
        builder.set_verify(SslVerifyMode::PEER);
    }
    Ok(builder.build())
}

/// Whose certificate was shown and found to be of an authority that is trusted: its common name, or else all of its names.
pub(super) fn shown(ssl: &SslRef) -> Option<String> {
    let certificate = ssl.peer_certificate()?;
    Some(name_of(certificate.subject_name()))
}

fn name_of(subject: &X509NameRef) -> String {
    let text = |entry: &X509NameEntryRef| entry.data().to_string().unwrap_or_default();
    let common = subject.entries_by_nid(Nid::COMMONNAME).map(text).next();
    common.filter(|name| !name.is_empty()).unwrap_or_else(|| {
        let part = |entry| format!("{}={}", X509NameEntryRef::object(entry), text(entry));
        subject.entries().map(part).collect::<Vec<_>>().join(",")
    })
}

/// Acceptors of the files as they are, and of those that could be used last.
pub(super) struct Renewing {
    settings: TlsSettings,
    last: Mutex<SslAcceptor>,
}

impl Renewing {
    /// `None` for plain HTTP.
    pub(super) fn new(settings: TlsSettings) -> Result<Option<Self>, FileError> {
        Ok(settings.acceptor()?.map(|acceptor| Self { settings, last: Mutex::new(acceptor) }))
    }

    /// For the next connection. Blocks for as long as files take.
    pub(super) fn now(&self) -> SslAcceptor {
        let read = self.settings.acceptor();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(Some(acceptor)) => *last = acceptor,
            Ok(None) => {}
            Err(error) => {
                let FileError { key, expected, found } = error;
                warn!(key = %format_args!("admin.tls.{key}"), expected, found, "admin_tls_not_renewed");
            }
        }
        last.clone()
    }
}
