//! Consumers of given partitions, from given offsets, that leave no trace.

use std::error::Error;
use std::ops::Deref;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::KafkaError;

use super::producer::client;
use super::security::OAuth;
use super::settings::KafkaSettings;

/// What is fetched ahead of the reader, in KiB.
const FETCHED: &str = "8192";

/// Which records are seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Isolation {
    /// Those of committed transactions, and those outside of transactions.
    Committed,
    /// All.
    Uncommitted,
}

/// What the client library asks of a consumer.
#[derive(Debug)]
pub(super) struct Context(OAuth);

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.0.token()
    }
}

impl ConsumerContext for Context {}

/// A consumer of given partitions. Whoever drops it does not wait for its end.
pub(super) struct Consumer {
    consumer: Arc<BaseConsumer<Context>>,
    /// After the other in this order, so that this is the last.
    _last: Last,
}

impl Deref for Consumer {
    type Target = BaseConsumer<Context>;

    fn deref(&self) -> &Self::Target {
        &self.consumer
    }
}

/// Ends a consumer elsewhere: the binding polls one that has a group until it has left it, and sleeps through the end of
/// that for 100 ms.
struct Last(Option<Arc<BaseConsumer<Context>>>);

impl Drop for Last {
    fn drop(&mut self) {
        let consumer = self.0.take();
        // Without a thread it ends here.
        let _ = thread::Builder::new().name("kafka-leave".to_owned()).spawn(move || drop(consumer));
    }
}

/// A consumer that tells when it is at an end. `group`: the client library asks for it; nothing is committed to it.
pub(super) fn consumer(settings: &KafkaSettings, group: &str, isolation: Isolation) -> Result<Consumer, KafkaError> {
    let isolation = match isolation {
        Isolation::Committed => "read_committed",
        Isolation::Uncommitted => "read_uncommitted",
    };
    let mut config = client(settings).map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
    config
        .set("group.id", group)
        .set("isolation.level", isolation)
        .set("enable.partition.eof", "true")
        .set("queued.max.messages.kbytes", FETCHED)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error");
    let oauth = OAuth::of(settings);
    let needs_token = oauth.is_used();
    let consumer = BaseConsumer::from_config_and_context(&config, Context(oauth))?;
    if needs_token {
        // It asks for its first token when it is first polled, and questions need one already. Nothing is assigned yet.
        consumer.poll(Duration::ZERO);
    }
    let consumer = Arc::new(consumer);
    Ok(Consumer { _last: Last(Some(Arc::clone(&consumer))), consumer })
}
