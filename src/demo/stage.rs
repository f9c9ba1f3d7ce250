//! The servers, the topic and the tables.

use std::path::{Path, PathBuf};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;

use super::DemoError;
use super::standby::{self, Standby};
use crate::services::Service;
use crate::table::TableName;

/// The topic.
pub(super) const TOPIC: &str = "delivery";

/// The shards as the configuration names them.
pub(super) const SHARDS: &str = "delivery.delivery-outbox{1..4}";

const PARTITIONS: i32 = 3;

/// The account that compose has, too.
const GRANTS: &str = include_str!("../../config/mysql/local.sql");

/// The servers, private to this process.
pub(super) struct Stage {
    mysql: Service,
    standby: Option<Standby>,
    kafka: Service,
}

impl Stage {
    /// Starts the servers, with a second MySQL if there is to be a failover, and creates the topic.
    pub(super) async fn set(script: &Path, failover: bool) -> Result<Self, DemoError> {
        let script = std::path::absolute(script)?;
        if !script.is_file() {
            return Err(DemoError::NoServices(script));
        }
        let settings: &'static [&'static str] = if failover { standby::SETTINGS } else { &[] };
        let second =
            async { if failover { hold(script.clone(), "mysql-9.7", settings).await.map(Some) } else { Ok(None) } };
        let (mysql, kafka) = (hold(script.clone(), "mysql-9.7", settings), hold(script.clone(), "kafka-4.1", &[]));
        // All are awaited in any case, so that none is left starting.
        let (mysql, second, kafka) = tokio::join!(mysql, second, kafka);
        let (mysql, second, kafka) = (mysql?, second?, kafka?);
        let standby = match second {
            Some(second) => Some(Standby::follow(second, mysql.port()).await?),
            None => None,
        };
        let stage = Self { mysql, standby, kafka };
        stage.create_topic().await?;
        Ok(stage)
    }

    async fn create_topic(&self) -> Result<(), DemoError> {
        let refused = |error: &dyn std::fmt::Display| DemoError::Topic(error.to_string());
        let client: Result<AdminClient<DefaultClientContext>, _> =
            ClientConfig::new().set("bootstrap.servers", self.bootstrap_servers()).create();
        let topic = NewTopic::new(TOPIC, PARTITIONS, TopicReplication::Fixed(1));
        let client = client.map_err(|error| refused(&error))?;
        let created = client.create_topics([&topic], &AdminOptions::new()).await.map_err(|error| refused(&error))?;
        created
            .into_iter()
            .try_for_each(|one| one.map(drop).map_err(|(name, code)| refused(&format!("{name}: {code}"))))
    }

    /// Creates the relay's account, with no more than the documents grant it.
    pub(super) async fn grant(&self) -> Result<(), DemoError> {
        let of_relay: Vec<_> = GRANTS.lines().filter(|line| line.contains("'outboxd'@'%'")).collect();
        run(self.mysql.port(), &of_relay).await
    }

    /// The outbox tables in order.
    pub(super) fn outboxes() -> Vec<TableName> {
        (1..=4).map(|shard| TableName::new("delivery", &format!("delivery-outbox{shard}"))).collect()
    }

    /// Where MySQL listens on 127.0.0.1, the first one.
    pub(super) fn mysql_port(&self) -> u16 {
        self.mysql.port()
    }

    /// The second MySQL.
    pub(super) fn standby(&self) -> Option<&Standby> {
        self.standby.as_ref()
    }

    /// SIGKILL for the first MySQL.
    pub(super) fn kill_primary(&mut self) -> Result<(), DemoError> {
        Ok(tokio::task::block_in_place(|| self.mysql.tell("kill"))?)
    }

    /// Where Kafka is.
    pub(super) fn bootstrap_servers(&self) -> String {
        format!("127.0.0.1:{}", self.kafka.port())
    }

    /// How the writers connect.
    pub(super) fn opts(&self) -> Opts {
        opts(self.standby.as_ref().map_or(self.mysql.port(), Standby::front))
    }
}

/// The account of a server on this port of 127.0.0.1 that may do everything.
pub(super) fn opts(port: u16) -> Opts {
    let server = mysql_async::OptsBuilder::default().ip_or_hostname("127.0.0.1").tcp_port(port);
    server.user(Some("admin")).pass(Some("admin")).prefer_socket(false).into()
}

/// Runs statements on the server at this port.
pub(super) async fn run(port: u16, statements: &[&str]) -> Result<(), DemoError> {
    let refused = |error: mysql_async::Error| DemoError::Server { name: "mysql-9.7", reason: error.to_string() };
    let mut conn = Conn::new(opts(port)).await.map_err(refused)?;
    for statement in statements {
        conn.query_drop(*statement).await.map_err(refused)?;
    }
    conn.disconnect().await.map_err(refused)
}

async fn hold(script: PathBuf, name: &'static str, settings: &'static [&'static str]) -> Result<Service, DemoError> {
    let failed = |reason: String| DemoError::Server { name, reason };
    let held = tokio::task::spawn_blocking(move || Service::hold(&script, name, settings)).await;
    held.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
}
