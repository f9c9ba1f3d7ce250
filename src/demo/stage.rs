//! The servers, the topic and the tables.

use std::path::{Path, PathBuf};

use mysql_async::Opts;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;

use super::DemoError;
use crate::services::Service;
use crate::table::TableName;

/// The topic.
pub(super) const TOPIC: &str = "delivery";

/// The shards as the configuration names them.
pub(super) const SHARDS: &str = "delivery.delivery-outbox{1..4}";

const PARTITIONS: i32 = 3;

/// Both servers, private to this process.
pub(super) struct Stage {
    mysql: Service,
    kafka: Service,
}

impl Stage {
    /// Starts both servers and creates the topic.
    pub(super) async fn set(script: &Path) -> Result<Self, DemoError> {
        let script = std::path::absolute(script)?;
        if !script.is_file() {
            return Err(DemoError::NoServices(script));
        }
        let (mysql, kafka) = (hold(script.clone(), "mysql-9.7"), hold(script, "kafka-4.1"));
        // Both are awaited in any case, so that neither is left starting.
        let (mysql, kafka) = tokio::join!(mysql, kafka);
        let stage = Self { mysql: mysql?, kafka: kafka? };
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

    /// The outbox tables in order.
    pub(super) fn outboxes() -> Vec<TableName> {
        (1..=4).map(|shard| TableName::new("delivery", &format!("delivery-outbox{shard}"))).collect()
    }

    /// Where MySQL listens on 127.0.0.1.
    pub(super) fn mysql_port(&self) -> u16 {
        self.mysql.port()
    }

    /// Where Kafka is.
    pub(super) fn bootstrap_servers(&self) -> String {
        format!("127.0.0.1:{}", self.kafka.port())
    }

    /// How the writers connect.
    pub(super) fn opts(&self) -> Opts {
        let server = mysql_async::OptsBuilder::default().ip_or_hostname("127.0.0.1").tcp_port(self.mysql.port());
        server.user(Some("admin")).pass(Some("admin")).prefer_socket(false).into()
    }
}

async fn hold(script: PathBuf, name: &'static str) -> Result<Service, DemoError> {
    let failed = |reason: String| DemoError::Server { name, reason };
    let held = tokio::task::spawn_blocking(move || Service::hold(&script, name, &[])).await;
    held.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
}
