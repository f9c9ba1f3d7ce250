//! The login at the brokers.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::{Properties, SecurityError};
use crate::credentials::{self, FileError};
use crate::kafka::settings::hidden;

/// How the login is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mechanism {
    /// Name and password as they are: over TLS only.
    Plain,
    /// A proof of the password.
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    /// A proof of the password.
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
    /// A token of an OAuth 2.0 server, by client credentials.
    Oauthbearer,
}

impl Mechanism {
    /// Kafka's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::Oauthbearer => "OAUTHBEARER",
        }
    }
}

/// Who logs in, and how.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SaslSettings {
    /// How; no login when not set.
    pub mechanism: Option<Mechanism>,
    /// The user of `plain` and `scram-sha-…`.
    pub username: Option<String>,
    /// The user's password; goes before `password_file`.
    #[serde(serialize_with = "hidden")]
    pub password: Option<SecretString>,
    /// A file with the password; one line end after it is ignored.
    pub password_file: Option<PathBuf>,
    /// Where `oauthbearer` gets its tokens: the token endpoint of the OAuth 2.0 server.
    pub token_url: Option<String>,
    /// The authorities that the token endpoint's certificate may be of, PEM; the system's when not set.
    pub token_ca: Option<PathBuf>,
    /// The client's id at that server.
    pub client_id: Option<String>,
    /// Its secret; goes before `client_secret_file`.
    #[serde(serialize_with = "hidden")]
    pub client_secret: Option<SecretString>,
    /// A file with the secret.
    pub client_secret_file: Option<PathBuf>,
    /// The scope to ask for.
    pub scope: Option<String>,
}

impl SaslSettings {
    /// What librdkafka is told. Tokens it asks for.
    pub(super) fn properties(&self) -> Result<Properties, SecurityError> {
        self.told().map_err(|error| SecurityError::new("sasl", error))
    }

    fn told(&self) -> Result<Properties, FileError> {
        let Some(mechanism) = self.mechanism else {
            let some = [
                ("username", self.username.is_some()),
                ("password", self.password.is_some() || self.password_file.is_some()),
                ("token_url", self.token_url.is_some()),
            ];
            return match some.into_iter().find(|(_, is_set)| *is_set) {
                Some((key, _)) => {
                    let expected = "\"plain\", \"scram-sha-256\", \"scram-sha-512\" or \"oauthbearer\"";
                    Err(FileError::new("mechanism", expected, format!("nothing, and kafka.sasl.{key}")))
                }
                None => Ok(Vec::new()),
            };
        };
        let mut properties = vec![("sasl.mechanisms", mechanism.name().to_owned())];
        if mechanism == Mechanism::Oauthbearer {
            self.endpoint()?;
            self.client()?;
            return Ok(properties);
        }
        let username = self.username.clone().filter(|name| !name.is_empty());
        let username = username.ok_or_else(|| FileError::new("username", "who logs in", "nothing"))?;
        let password = secret("password", self.password.as_ref(), self.password_file.as_deref())?;
        properties.push(("sasl.username", username));
        properties.push(("sasl.password", password.expose_secret().to_owned()));
        Ok(properties)
    }

    /// Where tokens are; a secret goes over TLS, or stays on this machine.
    pub(super) fn endpoint(&self) -> Result<&str, FileError> {
        let expected = "the token endpoint, such as https://tokens.example.com/oauth2/token";
        let url = self.token_url.as_deref().ok_or_else(|| FileError::new("token_url", expected, "nothing"))?;
        let parsed = url.parse::<ureq::http::Uri>().ok();
        if parsed.as_ref().and_then(ureq::http::Uri::authority).is_some_and(|host| host.as_str().contains('@')) {
            let found = "a URL with a login; kafka.sasl.client_id and client_secret are for that";
            return Err(FileError::new("token_url", expected, found));
        }
        let host = parsed.as_ref().and_then(ureq::http::Uri::host).unwrap_or_default();
        let scheme = parsed.as_ref().and_then(ureq::http::Uri::scheme_str).unwrap_or_default();
        let is_local = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
        match scheme {
            "https" if !host.is_empty() => {}
            "http" if is_local => {}
            "http" => return Err(FileError::new("token_url", "https, for the secret goes there", format!("{url:?}"))),
            _ => return Err(FileError::new("token_url", expected, format!("{url:?}"))),
        }
        if let Some(path) = &self.token_ca {
            credentials::authorities("token_ca", path)?;
        }
        Ok(url)
    }

    /// The client's id and secret.
    pub(super) fn client(&self) -> Result<(&str, SecretString), FileError> {
        let id = self.client_id.as_deref().filter(|id| !id.is_empty());
        let id = id.ok_or_else(|| FileError::new("client_id", "the client's id at kafka.sasl.token_url", "nothing"))?;
        let secret = secret("client_secret", self.client_secret.as_ref(), self.client_secret_file.as_deref())?;
        Ok((id, secret))
    }
}

/// A secret that is given as it is, or in a file.
fn secret(key: &'static str, given: Option<&SecretString>, file: Option<&Path>) -> Result<SecretString, FileError> {
    let is_password = key == "password";
    let in_file = if is_password { "password_file" } else { "client_secret_file" };
    let secret = credentials::given(given, in_file, file, "a file with the secret")?;
    secret.ok_or_else(|| FileError::new(key, format!("it, or kafka.sasl.{in_file}"), "nothing"))
}
