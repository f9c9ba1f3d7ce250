//! How connections to Kafka are kept safe: TLS, and the login.
//!
//! Promise: a connection is never less safe than the settings say. What contradicts itself, or cannot be used, is told by
//! the key it stands under. Files are read whenever a client is made, and a table's is made anew with its relay, which
//! starts again when they change.

mod oauth;
mod sasl;
mod tls;

use std::fmt;
use std::path::PathBuf;

use super::settings::KafkaSettings;
use crate::credentials::FileError;

pub(super) use self::oauth::{OAuth, hand_token};
pub use self::sasl::{Mechanism, SaslSettings};
pub use self::tls::{TlsMode, TlsSettings};

/// A key of `[kafka.tls]` or `[kafka.sasl]` that cannot be used. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kafka.{section}.{key}: expected {expected}, found {found}")]
pub struct SecurityError {
    /// `tls` or `sasl`.
    pub section: &'static str,
    /// The key below it.
    pub key: &'static str,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
}

impl SecurityError {
    fn new(section: &'static str, error: FileError) -> Self {
        let FileError { key, expected, found } = error;
        Self { section, key, expected, found }
    }
}

/// Properties of librdkafka.
pub type Properties = Vec<(&'static str, String)>;

/// What librdkafka is told for these settings; nothing while they ask for neither TLS nor a login.
pub fn properties(settings: &KafkaSettings) -> Result<Properties, SecurityError> {
    let KafkaSettings { tls, sasl, .. } = settings;
    let mut properties = tls.properties()?;
    properties.extend(sasl.properties()?);
    if tls.mode != TlsMode::Disabled || sasl.mechanism.is_some() {
        properties.push(("security.protocol", protocol(tls.mode != TlsMode::Disabled, sasl.mechanism.is_some())));
    }
    Ok(properties)
}

/// The files that clients are made with.
pub fn files(settings: &KafkaSettings) -> Vec<PathBuf> {
    let KafkaSettings { tls, sasl, .. } = settings;
    let all = [&tls.ca, &tls.cert, &tls.key, &tls.key_password_file];
    let of_login = [&sasl.password_file, &sasl.token_ca, &sasl.client_secret_file];
    all.into_iter().chain(of_login).flatten().cloned().collect()
}

fn protocol(tls: bool, login: bool) -> String {
    match (tls, login) {
        (false, false) => "plaintext",
        (true, false) => "ssl",
        (false, true) => "sasl_plaintext",
        (true, true) => "sasl_ssl",
    }
    .to_owned()
}

/// Why a property may not stand among the properties: a key of its own says the same.
pub fn taken(settings: &KafkaSettings, name: &str) -> Option<&'static str> {
    let KafkaSettings { tls, sasl, .. } = settings;
    match name {
        "security.protocol" if tls.mode != TlsMode::Disabled || sasl.mechanism.is_some() => {
            Some("kafka.tls.mode and kafka.sasl.mechanism say it")
        }
        "ssl.ca.location"
        | "ssl.certificate.location"
        | "ssl.key.location"
        | "ssl.key.password"
        | "ssl.endpoint.identification.algorithm"
        | "enable.ssl.certificate.verification"
            if tls.mode != TlsMode::Disabled =>
        {
            Some("[kafka.tls] has a key for it")
        }
        "sasl.mechanism" | "sasl.mechanisms" | "sasl.username" | "sasl.password" if sasl.mechanism.is_some() => {
            Some("[kafka.sasl] has a key for it")
        }
        "sasl.oauthbearer.method" | "enable.sasl.oauthbearer.unsecure.jwt" => {
            Some("tokens are fetched by the daemon: kafka.sasl.mechanism = \"oauthbearer\" and kafka.sasl.token_url")
        }
        _ => None,
    }
}

/// What of it is in force, whether it comes from keys of their own or from properties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InForce {
    pub(super) tls: TlsMode,
    /// The mechanism as Kafka calls it.
    pub(super) mechanism: Option<String>,
}

impl InForce {
    pub(super) fn of(settings: &KafkaSettings) -> Self {
        let property = |name: &str| settings.properties.get(name).map(str::to_ascii_lowercase).unwrap_or_default();
        let KafkaSettings { tls, sasl, .. } = settings;
        let protocol = property("security.protocol");
        let tls = match tls.mode {
            TlsMode::Disabled if !protocol.ends_with("ssl") => TlsMode::Disabled,
            TlsMode::Disabled if property("enable.ssl.certificate.verification") == "false" => TlsMode::Required,
            TlsMode::Disabled if property("ssl.endpoint.identification.algorithm") == "none" => TlsMode::VerifyCa,
            TlsMode::Disabled => TlsMode::VerifyIdentity,
            mode => mode,
        };
        let named = ["sasl.mechanism", "sasl.mechanisms"].map(property).into_iter().find(|name| !name.is_empty());
        let by_property = || protocol.starts_with("sasl").then(|| named.unwrap_or_default().to_uppercase());
        let mechanism = sasl.mechanism.map(|mechanism| mechanism.name().to_owned()).or_else(by_property);
        Self { tls, mechanism }
    }

    /// Whether connections are encrypted.
    pub(super) fn is_encrypted(&self) -> bool {
        self.tls != TlsMode::Disabled
    }
}

impl fmt::Display for InForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mechanism = self.mechanism.as_deref().unwrap_or("no login");
        write!(f, "{}, {mechanism}", if self.is_encrypted() { "TLS" } else { "no encryption" })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use secrecy::SecretString;

    use super::*;

    fn of(tls: TlsMode, mechanism: Option<Mechanism>) -> KafkaSettings {
        let sasl = SaslSettings {
            mechanism,
            username: Some("relay".to_owned()),
            password: Some(SecretString::from("hunter2")),
            ..SaslSettings::default()
        };
        let sasl = if mechanism.is_some() { sasl } else { SaslSettings::default() };
        KafkaSettings { tls: TlsSettings { mode: tls, ..TlsSettings::default() }, sasl, ..KafkaSettings::default() }
    }

    #[test]
    fn given_keys_of_tls_and_login_when_told_to_librdkafka_then_by_its_names() {
        let told = |settings: &KafkaSettings| properties(settings).unwrap().into_iter().collect::<BTreeMap<_, _>>();
        assert!(told(&of(TlsMode::Disabled, None)).is_empty());
        let safe = told(&of(TlsMode::VerifyIdentity, Some(Mechanism::ScramSha512)));
        assert_eq!(safe["security.protocol"], "sasl_ssl");
        assert_eq!(safe["sasl.mechanisms"], "SCRAM-SHA-512");
        assert_eq!(safe["sasl.password"], "hunter2");
        assert_eq!(safe["ssl.endpoint.identification.algorithm"], "https");
        let anyone = told(&of(TlsMode::Required, None));
        assert_eq!(anyone["enable.ssl.certificate.verification"], "false");
        assert_eq!(told(&of(TlsMode::Disabled, Some(Mechanism::Plain)))["security.protocol"], "sasl_plaintext");
    }

    #[test]
    fn given_what_contradicts_itself_when_told_then_the_key_is_named() {
        let named = |settings: &KafkaSettings| {
            let error = properties(settings).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
            (error.section, error.key)
        };
        let mut settings = of(TlsMode::Disabled, None);
        settings.tls.ca = Some("ca.pem".into());
        assert_eq!(named(&settings), ("tls", "ca"));
        let mut settings = of(TlsMode::VerifyCa, None);
        settings.tls.ca = Some("/absent/ca.pem".into());
        assert_eq!(named(&settings), ("tls", "ca"));
        settings = of(TlsMode::Required, None);
        settings.tls.cert = Some("/absent/cert.pem".into());
        assert_eq!(named(&settings), ("tls", "key"));
        settings = of(TlsMode::Disabled, Some(Mechanism::Plain));
        settings.sasl.username = None;
        assert_eq!(named(&settings), ("sasl", "username"));
        settings.sasl = SaslSettings { password: None, username: Some("relay".to_owned()), ..settings.sasl };
        assert_eq!(named(&settings), ("sasl", "password"));
        settings.sasl.password_file = Some("/absent/password".into());
        assert_eq!(named(&settings), ("sasl", "password_file"));
        settings.sasl = SaslSettings { username: Some("relay".to_owned()), ..SaslSettings::default() };
        assert_eq!(named(&settings), ("sasl", "mechanism"));
        settings.sasl = SaslSettings { mechanism: Some(Mechanism::Oauthbearer), ..SaslSettings::default() };
        assert_eq!(named(&settings), ("sasl", "token_url"));
        settings.sasl.token_url = Some("ftp://tokens".to_owned());
        assert_eq!(named(&settings), ("sasl", "token_url"));
        settings.sasl.token_url = Some("http://tokens.example/token".to_owned());
        assert_eq!(named(&settings), ("sasl", "token_url"), "a secret in the clear");
        settings.sasl.token_url = Some("https://id:hunter2@tokens.example/token".to_owned());
        assert_eq!(named(&settings), ("sasl", "token_url"), "a secret that would be shown");
        settings.sasl.token_url = Some("https://tokens.example/token".to_owned());
        assert_eq!(named(&settings), ("sasl", "client_id"));
    }

    #[test]
    fn given_properties_of_librdkafka_when_keys_of_their_own_are_used_then_they_are_taken() {
        let settings = of(TlsMode::VerifyCa, Some(Mechanism::Plain));
        for name in ["security.protocol", "ssl.ca.location", "sasl.password", "sasl.mechanism"] {
            assert!(taken(&settings, name).is_some(), "{name}");
            assert!(taken(&KafkaSettings::default(), name).is_none(), "{name}");
        }
        assert!(taken(&settings, "ssl.cipher.suites").is_none());
    }

    #[test]
    fn given_properties_alone_when_asked_what_is_in_force_then_they_count() {
        let by = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            InForce::of(&KafkaSettings { properties: pairs.collect(), ..KafkaSettings::default() })
        };
        assert_eq!(by(&[]), InForce { tls: TlsMode::Disabled, mechanism: None });
        assert_eq!(by(&[("security.protocol", "SSL")]).tls, TlsMode::VerifyIdentity);
        let login = by(&[("security.protocol", "sasl_ssl"), ("sasl.mechanism", "plain")]);
        assert_eq!(login.mechanism.as_deref(), Some("PLAIN"));
        assert_eq!(login.to_string(), "TLS, PLAIN");
    }
}
