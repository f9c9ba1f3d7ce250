//! Asking a daemon's admin listener.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ureq::Agent;

use crate::telemetry::admin::TableStatus;

/// The daemon does not answer, or not as a daemon does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no daemon answers at {address}: {reason}")]
pub struct Silent {
    /// Where it was asked.
    pub address: String,
    /// What came instead.
    pub reason: String,
}

/// A daemon at an address, `HOST:PORT`. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    address: String,
    agent: Agent,
}

impl Client {
    /// Each answer may take `patience`.
    pub fn new(address: String, patience: Duration) -> Self {
        Self { address, agent: Agent::config_builder().timeout_global(Some(patience)).build().into() }
    }

    /// Where a daemon that listens on `listen` is to be asked from the same machine.
    pub fn address_of(listen: SocketAddr) -> String {
        let ip = match listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        SocketAddr::new(ip, listen.port()).to_string()
    }

    /// Every table's state, in the daemon's order.
    pub async fn tables(&self) -> Result<Vec<TableStatus>, Silent> {
        self.ask("api/v1/tables", |mut answer| answer.body_mut().read_json()).await
    }

    /// Whether the daemon is ready; an error while it is not, or does not answer.
    pub async fn ready(&self) -> Result<(), Silent> {
        self.ask("readyz", |_| Ok(())).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        path: &str,
        read: fn(ureq::http::Response<ureq::Body>) -> Result<T, ureq::Error>,
    ) -> Result<T, Silent> {
        let (agent, url) = (self.agent.clone(), format!("http://{}/{path}", self.address));
        let asked = tokio::task::spawn_blocking(move || agent.get(&url).call().and_then(read));
        let silent = |reason: String| Silent { address: self.address.clone(), reason };
        asked.await.map_err(|error| silent(error.to_string()))?.map_err(|error| silent(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_interface_is_asked_on_this_machine() {
        let address = |listen: &str| Client::address_of(listen.parse().unwrap());
        assert_eq!(address("0.0.0.0:9640"), "127.0.0.1:9640");
        assert_eq!(address("[::]:9640"), "[::1]:9640");
        assert_eq!(address("10.1.2.3:80"), "10.1.2.3:80");
    }

    #[tokio::test]
    async fn nobody_there_is_said_with_the_address() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let client = Client::new(Client::address_of(free), Duration::from_secs(1));
        let silent = client.tables().await.unwrap_err();
        assert!(silent.to_string().starts_with(&format!("no daemon answers at {free}: ")), "{silent}");
    }
}
