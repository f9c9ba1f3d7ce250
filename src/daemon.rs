//! The composition root: builds the rooms, spawns named tasks, supervises them, and drains in order.
//!
//! Promise: every table is claimed before anything is read for it; a relay that ends by name does not end the others; a
//! task that ends without a reason ends the daemon.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::Config;
use crate::kafka::{AtLeastOnce, Producer, ProducerError};
use crate::mysql::connect::{Endpoint, is_transient};
use crate::mysql::preflight::{self, Finding};
use crate::mysql::settings::PasswordError;
use crate::mysql::{MysqlSource, MysqlStore};
use crate::outbox::{Mapping, TopicTemplate};
use crate::position::{Position, PositionStore, StoreError};
use crate::relay::assembler::Limits;
use crate::relay::backoff::Backoff;
use crate::relay::queue;
use crate::relay::settings::{OnUpdate, Start};
use crate::relay::stats::{State, TableStats, TailStats};
use crate::relay::tail::{Feed, Tail};
use crate::relay::worker::{Outcome, Pace, Worker};
use crate::source::Subscription;
use crate::table::{TableName, TablePattern};
use crate::telemetry::admin;
use crate::telemetry::metrics::Metrics;

/// How long a claim waits for an owner that is just leaving.
const CLAIM_WAIT: Duration = Duration::from_secs(10);

/// Why the daemon does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The password cannot be read.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The configuration names something that is only known to be wrong now.
    #[error("{0}")]
    Configuration(String),
    /// The servers are not set up as they must be.
    #[error("preflight refused:\n  {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  "))]
    Preflight(Vec<Finding>),
    /// A server refused for good.
    #[error("{0}")]
    Server(String),
    /// The position store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The producer cannot be made.
    #[error(transparent)]
    Producer(#[from] ProducerError),
    /// Something within this process failed.
    #[error("internal: {0}")]
    Internal(String),
}

/// One configured table.
#[derive(Debug, Clone)]
pub struct Table {
    /// What to read of it.
    pub subscription: Subscription,
    /// What becomes of its rows.
    pub mapping: Mapping,
    /// Where it starts without a position.
    pub start: Option<Start>,
}

/// The endpoints that the configuration names: of the log, and of the positions.
pub fn endpoints(config: &Config) -> Result<(Endpoint, Endpoint), DaemonError> {
    let bad = || DaemonError::Configuration("mysql.url is not a URL".to_owned());
    let timeout = config.mysql.connect_timeout;
    let log = Endpoint::new(config.mysql.options()?.ok_or_else(bad)?, timeout);
    let positions = match &config.positions.url {
        None => log.clone(),
        Some(url) => {
            Endpoint::new(url.options().map_err(|error| DaemonError::Configuration(error.to_string()))?, timeout)
        }
    };
    Ok((log, positions))
}

/// The tables that the configuration selects among those that exist; names that are written out are kept in any case.
pub fn select(config: &Config, existing: &[TableName]) -> Result<Vec<Table>, DaemonError> {
    let wrong = |error: &dyn std::fmt::Display| DaemonError::Configuration(error.to_string());
    let mut tables: BTreeMap<TableName, Table> = BTreeMap::new();
    for outbox in &config.outbox {
        let topic = TopicTemplate::parse(&outbox.topic).map_err(|error| wrong(&error))?;
        for pattern in &outbox.tables {
            let pattern_text = pattern;
            let names = match TablePattern::parse(pattern).map_err(|error| wrong(&error))? {
                TablePattern::Names(names) => names,
                wildcard @ TablePattern::Wildcard(_) => {
                    existing.iter().filter(|table| wildcard.matches(table)).cloned().collect()
                }
            };
            if names.is_empty() {
                warn!(pattern = %pattern_text, "no_table_matches");
            }
            for name in names {
                let mapping = Mapping::new(outbox.columns.clone(), topic.clone(), &outbox.topic);
                let subscription = Subscription { table: name.clone(), columns: Arc::clone(mapping.columns()) };
                let table = Table { subscription, mapping, start: outbox.start };
                if tables.insert(name.clone(), table).is_some() {
                    return Err(wrong(&format!("{name} is selected by two [[outbox]] blocks")));
                }
            }
        }
    }
    if tables.is_empty() {
        return Err(wrong(&"outbox: no table is selected"));
    }
    Ok(tables.into_values().collect())
}

/// How the daemon ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Relays that halted.
    pub halted: usize,
}

/// Everything that relays share.
struct Shared {
    config: Config,
    log: Endpoint,
    server_id: u32,
    store: Arc<MysqlStore>,
    producer: Producer,
    tail_stats: Arc<TailStats>,
}

/// Runs until `stop`, or until every relay has halted.
pub async fn run(config: Config, stop: CancellationToken) -> Result<Summary, DaemonError> {
    let (log, positions) = endpoints(&config)?;
    let listener = TcpListener::bind(config.admin.listen)
        .await
        .map_err(|error| DaemonError::Configuration(format!("admin.listen {}: {error}", config.admin.listen)))?;
    let server_id = config.mysql.resolve_server_id();
    let properties = config.kafka.properties.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let producer = Producer::new(&config.kafka.bootstrap_servers, &properties)?;
    let store = MysqlStore::new(positions, &config.positions.schema, &config.positions.table, CLAIM_WAIT);
    let shared =
        Arc::new(Shared { config, log, server_id, store: Arc::new(store), producer, tail_stats: Arc::default() });
    let tables = tokio::select! {
        tables = shared.wait_for_servers() => tables?,
        () = stop.cancelled() => return Ok(Summary { halted: 0 }),
    };
    let stats: Vec<_> =
        tables.iter().map(|table| Arc::new(TableStats::new(table.subscription.table.clone()))).collect();
    let metrics = Metrics::new(stats.clone(), Arc::clone(&shared.tail_stats));
    let metrics = Arc::new(metrics.map_err(|error| DaemonError::Internal(error.to_string()))?);
    info!(address = ?listener.local_addr().ok(), "admin_listening");
    let admin_stop = CancellationToken::new();
    let admin = tokio::spawn(admin::serve(listener, metrics, admin_stop.clone()));
    let relays: Vec<_> = tables.into_iter().zip(stats).collect();
    let summary = supervise(&shared, relays, &stop).await;
    admin_stop.cancel();
    if let Ok(Err(error)) = admin.await {
        warn!(%error, "admin_ended");
    }
    summary
}

type Relay = (Table, Arc<TableStats>);

/// Ends of a group's tasks.
enum Ended {
    Tail,
    Relay(Box<Relay>, Outcome),
}

async fn supervise(shared: &Arc<Shared>, relays: Vec<Relay>, stop: &CancellationToken) -> Result<Summary, DaemonError> {
    let mut tasks = JoinSet::new();
    let mut halted = 0;
    let mut running = relays.len();
    let mut backoff = Backoff::new(shared.config.relay.retry_initial, shared.config.relay.retry_max);
    shared.start(relays, &mut tasks, stop).await?;
    while running > 0 {
        match tasks.join_next().await {
            None => break,
            Some(Err(panic)) => return Err(DaemonError::Internal(panic.to_string())),
            Some(Ok(Ended::Tail)) => {}
            Some(Ok(Ended::Relay(relay, outcome))) => {
                let table = &relay.1.table;
                match outcome {
                    Outcome::Restart(reason) if !stop.is_cancelled() => {
                        warn!(%table, %reason, "relay_restarts");
                        tokio::time::sleep(backoff.wait()).await;
                        // From its durable position, with a tail of its own.
                        shared.start(vec![*relay], &mut tasks, stop).await?;
                        continue;
                    }
                    Outcome::Halted(halt) => {
                        error!(%table, reason = halt.name, detail = %halt.detail, "relay_halted");
                        halted += 1;
                    }
                    Outcome::Abandoned { unsaved } => warn!(%table, unsaved, "relay_stopped_before_it_was_drained"),
                    Outcome::Drained | Outcome::Restart(_) => info!(%table, "relay_drained"),
                }
                running -= 1;
            }
        }
    }
    Ok(Summary { halted })
}

impl Shared {
    /// Waits until MySQL and Kafka answer, saying why; then looks whether they are set up as they must be.
    async fn wait_for_servers(&self) -> Result<Vec<Table>, DaemonError> {
        let mut backoff = Backoff::new(self.config.relay.retry_initial, self.config.relay.retry_max);
        let tables = loop {
            match self.look().await {
                Ok(Ok(tables)) => break tables,
                Ok(Err(error)) => return Err(error),
                Err(error) if is_transient(&error) => {
                    warn!(server = %self.log, %error, "waiting_for_mysql");
                    tokio::time::sleep(backoff.wait()).await;
                }
                Err(error) => return Err(DaemonError::Server(format!("mysql {}: {error}", self.log))),
            }
        };
        for topic in
            tables.iter().filter_map(|table| table.mapping.fixed_topic()).collect::<std::collections::BTreeSet<_>>()
        {
            loop {
                let answer = tokio::task::block_in_place(|| self.producer.partitions(topic, Duration::from_secs(5)));
                match answer {
                    Ok(Some(partitions)) => break info!(topic, partitions, "topic_found"),
                    Ok(None) => {
                        return Err(DaemonError::Preflight(vec![Finding {
                            setting: format!("topic {topic}"),
                            expected: "exists".to_owned(),
                            found: "not there".to_owned(),
                            cure: format!("kafka-topics.sh --create --topic {topic}"),
                        }]));
                    }
                    Err(error) => {
                        warn!(topic, %error, "waiting_for_kafka");
                        tokio::time::sleep(backoff.wait()).await;
                    }
                }
            }
        }
        Ok(tables)
    }

    async fn look(&self) -> Result<Result<Vec<Table>, DaemonError>, mysql_async::Error> {
        let mut conn = self.log.connect().await?;
        let existing = preflight::tables(&mut conn).await?;
        let tables = match select(&self.config, &existing) {
            Ok(tables) => tables,
            Err(error) => return Ok(Err(error)),
        };
        let subscriptions: Vec<_> = tables.iter().map(|table| table.subscription.clone()).collect();
        let findings = preflight::check(&mut conn, &subscriptions, self.server_id).await?;
        Ok(if findings.is_empty() { Ok(tables) } else { Err(DaemonError::Preflight(findings)) })
    }

    /// Claims the tables and starts one tail and a worker for each. A table that cannot be claimed halts alone.
    async fn start(
        &self,
        relays: Vec<Relay>,
        tasks: &mut JoinSet<Ended>,
        stop: &CancellationToken,
    ) -> Result<(), DaemonError> {
        let relay = &self.config.relay;
        let (retry_initial, retry_max) = (relay.retry_initial, relay.retry_max);
        let bytes = |size: bytesize::ByteSize| usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
        let pace = Pace {
            max_unsaved: relay.max_unsaved_events,
            checkpoint_interval: relay.checkpoint_interval,
            idle_checkpoint_interval: relay.idle_checkpoint_interval,
            shutdown_grace: relay.shutdown_grace,
            halt_on_update: relay.on_update == OnUpdate::Halt,
        };
        let mut feeds = Vec::new();
        for (table, stats) in relays {
            let name = table.subscription.table.clone();
            let mut backoff = Backoff::new(retry_initial, retry_max);
            let claimed = loop {
                match self.store.claim(&name).await {
                    Err(StoreError::Unavailable(reason)) if !stop.is_cancelled() => {
                        warn!(table = %name, %reason, "waiting_for_position_store");
                        tokio::time::sleep(backoff.wait()).await;
                    }
                    other => break other,
                }
            };
            let claimed = match claimed {
                Ok(claimed) => claimed,
                Err(error) => {
                    let halt = crate::relay::worker::Halt { name: "not_claimed", detail: error.to_string() };
                    stats.set_state(State::Halted, Some(halt.to_string()));
                    tasks.spawn(async move { Ended::Relay(Box::new((table, stats)), Outcome::Halted(halt)) });
                    continue;
                }
            };
            let resume = match claimed.position {
                Some(position) => position,
                None => self.first_position(&table).await?,
            };
            info!(table = %name, position = %resume, epoch = claimed.claim.epoch, "table_claimed");
            let (sender, receiver) = queue::bounded(bytes(relay.queue_bytes));
            feeds.push(Feed { subscription: table.subscription.clone(), resume, queue: sender });
            let outlet = AtLeastOnce::new(
                self.producer.publisher(bytes(relay.in_flight_bytes)),
                Arc::clone(&self.store),
                claimed.claim,
            );
            let worker = Worker::new(table.mapping.clone(), outlet, receiver, pace, Arc::clone(&stats));
            let stop = stop.clone();
            tasks.spawn(async move {
                let outcome = worker.run(stop).await;
                Ended::Relay(Box::new((table, stats)), outcome)
            });
        }
        if feeds.is_empty() {
            return Ok(());
        }
        let source = MysqlSource::new(
            self.log.clone(),
            self.server_id,
            self.config.mysql.heartbeat,
            self.config.mysql.silence_deadline,
        );
        let limits = Limits { batch_bytes: bytes(relay.batch_bytes), hold_bytes: bytes(relay.transaction_hold_bytes) };
        let tail =
            Tail::new(source, feeds, limits, Backoff::new(retry_initial, retry_max), Arc::clone(&self.tail_stats))
                .map_err(|error| DaemonError::Server(error.to_string()))?;
        let stop = stop.clone();
        tasks.spawn(async move {
            tail.run(stop).await;
            Ended::Tail
        });
        Ok(())
    }

    /// Where a table starts that has never saved a position. Without an answer in the configuration, the beginning of the
    /// log is taken only when nothing of it is purged.
    async fn first_position(&self, table: &Table) -> Result<Position, DaemonError> {
        let server = |error: mysql_async::Error| DaemonError::Server(format!("mysql {}: {error}", self.log));
        let mut conn = self.log.connect().await.map_err(server)?;
        let earliest = table.start != Some(Start::Now);
        let position = MysqlSource::start(&mut conn, earliest).await.map_err(server)?;
        let position = position.ok_or_else(|| DaemonError::Server("the server writes no binlog".to_owned()))?;
        if table.start.is_none() && position.to_string() != Position::default().to_string() {
            let table = &table.subscription.table;
            return Err(DaemonError::Configuration(format!(
                "{table} has no position yet, and the binlog is not known to begin before its first row; set start = \
                 \"earliest\" to publish from {position} on, or start = \"now\""
            )));
        }
        Ok(position)
    }
}
