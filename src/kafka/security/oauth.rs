//! Tokens of an OAuth 2.0 server, by client credentials.
//!
//! Promise: the client library has a token before it is needed, and a new one before it expires; an answer without a token
//! is told with the server's own words. Neither secret nor token is logged.

use std::error::Error;
use std::ffi::{CString, c_char};
use std::ptr;
use std::time::Duration;

use jiff::Timestamp;
use openssl::base64::encode_block;
use rdkafka::client::{Client, ClientContext, OAuthToken};
use secrecy::ExposeSecret;
use serde::Deserialize;
use ureq::Agent;
use ureq::tls::{TlsConfig, TlsProvider};
use zeroize::Zeroizing;

use super::sasl::{Mechanism, SaslSettings};
use crate::credentials::{self, FileError};
use crate::kafka::settings::KafkaSettings;

/// How long the server may take for a token.
const ANSWER: Duration = Duration::from_secs(10);

/// How long a token is taken for valid whose server does not say it.
const LIFETIME_SECONDS: i64 = 300;

/// Why there is no token. Holds no secret.
#[derive(Debug, thiserror::Error)]
enum TokenError {
    #[error("kafka.sasl.{}: expected {}, found {}", .0.key, .0.expected, .0.found)]
    Settings(FileError),
    #[error("kafka.sasl.token_url {url}: {reason}")]
    Endpoint { url: String, reason: String },
}

impl From<FileError> for TokenError {
    fn from(error: FileError) -> Self {
        Self::Settings(error)
    }
}

/// What the token endpoint answers, whichever way.
#[derive(Deserialize)]
struct Answer {
    access_token: Option<String>,
    expires_in: Option<i64>,
    error: Option<String>,
    error_description: Option<String>,
}

/// Where a client gets its tokens; nothing unless the login is by tokens.
#[derive(Debug, Clone, Default)]
pub(in crate::kafka) struct OAuth(Option<SaslSettings>);

impl OAuth {
    pub(in crate::kafka) fn of(settings: &KafkaSettings) -> Self {
        Self(Some(&settings.sasl).filter(|sasl| sasl.mechanism == Some(Mechanism::Oauthbearer)).cloned())
    }

    /// Whether the login is by tokens.
    pub(in crate::kafka) fn is_used(&self) -> bool {
        self.0.is_some()
    }

    /// Fetches a token. Blocks.
    pub(in crate::kafka) fn token(&self) -> Result<OAuthToken, Box<dyn Error>> {
        let sasl = self.0.as_ref().ok_or("kafka.sasl.mechanism is not oauthbearer")?;
        Ok(fetch(sasl)?)
    }
}

fn fetch(sasl: &SaslSettings) -> Result<OAuthToken, TokenError> {
    let url = sasl.endpoint()?;
    let (id, secret) = sasl.client()?;
    let failed = |reason: String| TokenError::Endpoint { url: url.to_owned(), reason };
    let login = Zeroizing::new(format!("{id}:{}", secret.expose_secret()));
    let basic = Zeroizing::new(format!("Basic {}", *Zeroizing::new(encode_block(login.as_bytes()))));
    let mut form = vec![("grant_type", "client_credentials")];
    form.extend(sasl.scope.as_deref().map(|scope| ("scope", scope)));
    let mut response = agent(sasl)?
        .post(url)
        .header("Authorization", basic.as_str())
        .send_form(form)
        .map_err(|error| failed(error.to_string()))?;
    let status = response.status();
    let answer = response.body_mut().read_json::<Answer>();
    match answer {
        Ok(Answer { access_token: Some(token), expires_in, .. }) if status.is_success() => {
            let lifetime = expires_in.unwrap_or(LIFETIME_SECONDS).saturating_mul(1000);
            let lifetime_ms = Timestamp::now().as_millisecond().saturating_add(lifetime);
            Ok(OAuthToken { token, principal_name: id.to_owned(), lifetime_ms })
        }
        Ok(Answer { error: Some(error), error_description, .. }) => {
            let description = error_description.map(|text| format!(": {text}")).unwrap_or_default();
            Err(failed(format!("answers {status} with {error}{description}")))
        }
        _ => Err(failed(format!("answers {status} without a token"))),
    }
}

fn agent(sasl: &SaslSettings) -> Result<Agent, TokenError> {
    let roots = credentials::roots("token_ca", sasl.token_ca.as_deref())?;
    let tls = TlsConfig::builder().provider(TlsProvider::NativeTls).root_certs(roots).build();
    let config = Agent::config_builder().tls_config(tls).timeout_global(Some(ANSWER)).http_status_as_error(false);
    Ok(config.build().into())
}

/// Gives a token to a client that asks for none: nobody hears what an admin client asks for.
#[allow(unsafe_code, reason = "the bindings have no safe function for it")]
pub(in crate::kafka) fn hand_token<C: ClientContext>(client: &Client<C>, token: &OAuthToken) -> Result<(), String> {
    let null = |_| "the token has a null byte in it".to_owned();
    let value = CString::new(token.token.as_str()).map_err(null)?;
    let principal = CString::new(token.principal_name.as_str()).map_err(null)?;
    let mut text: [c_char; 256] = [0; 256];
    // SAFETY: the client outlives the call, the texts end with null and are copied, there are no extensions, and the
    // buffer is as long as is said; what is written to it ends with null.
    let code = unsafe {
        rdkafka::bindings::rd_kafka_oauthbearer_set_token(
            client.native_ptr(),
            value.as_ptr(),
            token.lifetime_ms,
            principal.as_ptr(),
            ptr::null_mut(),
            0,
            text.as_mut_ptr(),
            text.len(),
        )
    };
    if code == rdkafka::bindings::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Ok(());
    }
    Err(text.iter().take_while(|c| **c != 0).map(|c| char::from(c.cast_unsigned())).collect())
}
