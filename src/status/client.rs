//! Asking a daemon's admin listener.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::time::sleep;
use ureq::Agent;
use ureq::config::ConfigBuilder;
use ureq::http::{Method, Request, StatusCode};
use ureq::typestate::AgentScope;
use zeroize::Zeroizing;

use crate::admin::Failure;
use crate::admin::pages::{ParkedStatus, ReplayStatus, TableStatus};
use crate::admin::reload::LogLevel;
use crate::credentials::FileError;
use crate::table::TableName;

use super::trust::Trust;

/// How often a change is asked for of a daemon that has too much to do, a second apart.
const MOST_TRIES: u32 = 60;

/// The daemon does not answer, or not as a daemon does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no daemon answers at {address}: {reason}")]
pub struct Silent {
    /// Where it was asked.
    pub address: String,
    /// What came instead.
    pub reason: String,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum Unchanged {
    /// Nobody to make it.
    #[error(transparent)]
    Silent(#[from] Silent),
    /// The daemon's answer.
    #[error("{0}")]
    Refused(Failure),
}

/// A daemon at an address. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    /// As people write it: with `https://`, and without `http://`.
    address: String,
    url: String,
    agent: Agent,
}

impl Client {
    /// Over HTTP, at `HOST:PORT`. Each answer may take `patience`.
    pub fn new(address: &str, patience: Duration) -> Self {
        Self::with(address, Agent::config_builder(), patience)
    }

    /// At `HOST:PORT`, or a URL; over HTTPS if that says so.
    pub fn secured(address: &str, trust: &Trust, patience: Duration) -> Result<Self, FileError> {
        let config = Agent::config_builder().tls_config(trust.config()?);
        Ok(Self::with(address, config, patience))
    }

    fn with(address: &str, config: ConfigBuilder<AgentScope>, patience: Duration) -> Self {
        let address = address.trim_end_matches('/').trim_start_matches("http://");
        let url = if address.starts_with("https://") { address.to_owned() } else { format!("http://{address}") };
        let agent = config.timeout_global(Some(patience)).http_status_as_error(false).build().into();
        Self { address: address.to_owned(), url, agent }
    }

    /// Where a daemon that listens on `listen` is to be asked from the same machine.
    pub fn address_of(listen: SocketAddr) -> SocketAddr {
        let ip = match listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        SocketAddr::new(ip, listen.port())
    }

    /// Every table's state, in the daemon's order.
    pub async fn tables(&self) -> Result<Vec<TableStatus>, Silent> {
        self.ask("api/v1/tables", |mut answer| answer.body_mut().read_json()).await
    }

    /// How far a table's latest replay is.
    pub async fn replay(&self, table: &TableName) -> Result<ReplayStatus, Silent> {
        self.ask(&format!("api/v1/{}", page(table, "replay")), |mut answer| answer.body_mut().read_json()).await
    }

    /// What is logged.
    pub async fn log_level(&self) -> Result<LogLevel, Silent> {
        self.ask("api/v1/log", |mut answer| answer.body_mut().read_json()).await
    }

    /// The aggregates of a table that are parked.
    pub async fn parked(&self, table: &TableName) -> Result<Vec<ParkedStatus>, Silent> {
        self.ask(&format!("api/v1/{}", page(table, "parked")), |mut answer| answer.body_mut().read_json()).await
    }

    /// A page as it is, whatever its status.
    pub async fn text(&self, path: &str) -> Result<String, Silent> {
        self.get(path, |mut answer| answer.body_mut().read_to_string().map_err(|error| error.to_string())).await
    }

    /// Whether the daemon is ready; the error says why it is not, or that it does not answer.
    pub async fn ready(&self) -> Result<(), Silent> {
        self.ask("readyz", |_| Ok(())).await
    }

    /// Whether the process answers at all; the error says that it does not.
    pub async fn live(&self) -> Result<(), Silent> {
        self.ask("livez", |_| Ok(())).await
    }

    /// Asks for a change at a page below `/api/v1`, with this body, and `token` if there is one. Waits while the daemon has too
    /// much to do.
    pub async fn change(
        &self,
        method: Method,
        page: &str,
        body: &Value,
        token: Option<&SecretString>,
    ) -> Result<Value, Unchanged> {
        let url = format!("{}/api/v1/{page}", self.url);
        let authorization = token.map(|token| Zeroizing::new(format!("Bearer {}", token.expose_secret())));
        for _ in 0..MOST_TRIES {
            let mut request = Request::builder().method(method.clone()).uri(&url);
            request = request.header("content-type", "application/json");
            if let Some(authorization) = &authorization {
                request = request.header("authorization", authorization.as_str());
            }
            let silent = |reason: String| Silent { address: self.address.clone(), reason };
            let request = request.body(body.to_string()).map_err(|error| silent(error.to_string()))?;
            let agent = self.agent.clone();
            let asked = tokio::task::spawn_blocking(move || {
                let mut answer = agent.run(request).map_err(|error| error.to_string())?;
                let text = answer.body_mut().read_to_string().map_err(|error| error.to_string())?;
                Ok((answer.status(), text))
            });
            let (status, text) = asked.await.unwrap_or_else(|error| Err(error.to_string())).map_err(silent)?;
            if status == StatusCode::TOO_MANY_REQUESTS {
                sleep(Duration::from_secs(1)).await;
            } else if status.is_success() {
                return Ok(serde_json::from_str(&text).map_err(|error| silent(error.to_string()))?);
            } else {
                let failure = serde_json::from_str(&text).map_err(|_| silent(format!("{status}: {}", text.trim())))?;
                return Err(Unchanged::Refused(failure));
            }
        }
        Err(Silent { address: self.address.clone(), reason: "it has too much to do".to_owned() }.into())
    }

    async fn ask<T: Send + 'static>(
        &self,
        path: &str,
        read: fn(ureq::http::Response<ureq::Body>) -> Result<T, ureq::Error>,
    ) -> Result<T, Silent> {
        let read = move |mut answer: ureq::http::Response<ureq::Body>| {
            if answer.status().is_success() {
                return read(answer).map_err(|error| error.to_string());
            }
            let body = answer.body_mut().read_to_string().unwrap_or_default();
            Err(if body.trim().is_empty() { answer.status().to_string() } else { body.trim().to_owned() })
        };
        self.get(path, read).await
    }

    async fn get<T: Send + 'static>(
        &self,
        path: &str,
        read: impl FnOnce(ureq::http::Response<ureq::Body>) -> Result<T, String> + Send + 'static,
    ) -> Result<T, Silent> {
        let (agent, url) = (self.agent.clone(), format!("{}/{path}", self.url));
        let asked =
            tokio::task::spawn_blocking(move || read(agent.get(&url).call().map_err(|error| error.to_string())?));
        let answer = asked.await.unwrap_or_else(|error| Err(error.to_string()));
        answer.map_err(|reason| Silent { address: self.address.clone(), reason })
    }
}

/// A table's page of this name, below `/api/v1`.
pub fn page(table: &TableName, name: &str) -> String {
    format!("tables/{}/{name}", utf8_percent_encode(&table.to_string(), NON_ALPHANUMERIC))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_listener_on_every_interface_is_asked_on_this_machine() {
        let address = |listen: &str| Client::address_of(listen.parse().unwrap()).to_string();
        assert_eq!(address("0.0.0.0:9640"), "127.0.0.1:9640");
        assert_eq!(address("[::]:9640"), "[::1]:9640");
        assert_eq!(address("10.1.2.3:80"), "10.1.2.3:80");
    }

    #[tokio::test]
    async fn nobody_there_is_said_with_the_address() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let client = Client::new(&free.to_string(), Duration::from_secs(1));
        let silent = client.tables().await.unwrap_err();
        assert!(silent.to_string().starts_with(&format!("no daemon answers at {free}: ")), "{silent}");
    }

    #[tokio::test]
    async fn a_refusal_is_given_in_the_daemons_words() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client::new(&listener.local_addr().unwrap().to_string(), Duration::from_secs(5));
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]).unwrap();
            let body = "waits for mysql\n";
            write!(stream, "HTTP/1.1 503 No\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        });
        assert_eq!(client.ready().await.unwrap_err().reason, "waits for mysql");
        answering.join().unwrap();
    }
}
