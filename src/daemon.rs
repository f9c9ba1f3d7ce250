//! The composition root: waits for the servers, builds the rooms, and runs the relays and the admin listener.
//!
//! Promise: nothing is relayed before the servers are looked at; a task that ends without a reason ends the daemon.

mod cleanup;
mod guard;
mod mappings;
mod notify;
pub mod preflight;
mod spans;
pub mod store;
pub mod verify;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use self::cleanup::Cleaning;
use self::preflight::{Looked, Survey};
use self::store::Store;
use crate::admin::{self, View};
use crate::config::Config;
use crate::kafka::delivery::Guarantee;
use crate::kafka::{AtLeastOnce, ExactlyOnce, Producers};
use crate::mysql::MysqlSource;
use crate::mysql::cleanup::settings::CleanupSettings;
use crate::mysql::connect::Endpoint;
use crate::mysql::retention::Retention;
use crate::mysql::servers::Servers;
use crate::mysql::settings::{MysqlSettings, PasswordError};
use crate::outlet::{Outlet, Reach};
use crate::position::{Claim, PositionStore, StoreError};
use crate::preflight::{Check, Status, Unavailable};
use crate::relay::backoff::Backoff;
use crate::relay::control::Control;
use crate::relay::meeting::Distances;
use crate::relay::settings::RelaySettings;
use crate::relay::spans::Sink;
use crate::relay::stats::{TableStats, TailStats};
use crate::relay::supervisor::{Fitness, Reader, Summary, Supervised, Supervisor, SupervisorError, Table};
use crate::source::Subscription;
use crate::table::{TableName, TablePattern};
use crate::telemetry::metrics::Metrics;

/// How long the locks of a lost connection are waited for.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// How much longer than their grace relays may take to end.
const OVERDUE: Duration = Duration::from_secs(5);

/// How long the last spans may take.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// How long one look at the servers may take before they count as away.
const LOOK_WAIT: Duration = Duration::from_mins(1);

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
    Preflight(Vec<Check>),
    /// A server refused for good.
    #[error("{0}")]
    Server(String),
    /// The position store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Something within this process failed.
    #[error("internal: {0}")]
    Internal(String),
}

/// The servers that the configuration names: of the log, and of the positions.
pub fn servers(config: &Config) -> Result<(Servers, Servers), DaemonError> {
    let bad = || DaemonError::Configuration("mysql.url is not a URL".to_owned());
    let endpoint = |opts| Endpoint::new(opts, config.mysql.connect_timeout).with_tls(config.mysql.tls.clone());
    let first = config.mysql.options()?.ok_or_else(bad)?;
    let others = config.mysql.alternatives(&first).into_iter().map(endpoint).collect();
    let log = Servers::new(endpoint(first), others, config.mysql.role());
    let positions = match &config.positions.url {
        None => log.clone(),
        Some(url) => endpoint(url.options().map_err(|error| DaemonError::Configuration(error.to_string()))?).into(),
    };
    Ok((log, positions))
}

/// The tables that the configuration selects among those that exist; names that are written out are kept in any case.
pub fn select(config: &Config, existing: &[TableName]) -> Result<Vec<Table>, DaemonError> {
    let wrong = |error: &dyn std::fmt::Display| DaemonError::Configuration(error.to_string());
    let mut tables: BTreeMap<TableName, Table> = BTreeMap::new();
    let aside = config.delivery.aside().map_err(|(key, found)| wrong(&format!("delivery.{key}: {found:?}")))?;
    let aside = Arc::new(aside);
    for (block, outbox) in config.outbox.iter().enumerate() {
        let mut names = Vec::new();
        for pattern in &outbox.tables {
            let found = match TablePattern::parse(pattern).map_err(|error| wrong(&error))? {
                TablePattern::Names(names) => names,
                wildcard @ TablePattern::Wildcard(_) => {
                    existing.iter().filter(|table| wildcard.matches(table)).cloned().collect()
                }
            };
            if found.is_empty() {
                warn!(%pattern, "no_table_matches");
            }
            names.extend(found);
        }
        let mappings =
            mappings::of(outbox, &names).map_err(|(key, why)| wrong(&format!("outbox.{block}.{key}: {why}")))?;
        for (name, mapping) in names.into_iter().zip(mappings) {
            let mapping = mapping.with_aside(Arc::clone(&aside));
            let subscription = Subscription { table: name.clone(), columns: Arc::clone(mapping.columns()) };
            let table = Table {
                start: outbox.start.clone(),
                on_purged: outbox.on_purged,
                is_cleaned: config.cleanup.keep.is_some() && mapping.timestamp().is_some(),
                subscription,
                mapping,
            };
            if tables.insert(name.clone(), table).is_some() {
                return Err(wrong(&format!("{name} is selected by two [[outbox]] blocks")));
            }
        }
    }
    if tables.is_empty() {
        return Err(wrong(&"outbox: no table is selected"));
    }
    Ok(tables.into_values().collect())
}

/// Everything that relays share.
struct Shared {
    config: Config,
    log: Servers,
    server_id: u32,
    store: Store,
    producers: Producers,
    tail_stats: Arc<TailStats>,
    spans: Option<Sink>,
}

/// Runs until `stop`, or until every relay has halted.
pub async fn run(config: Config, stop: CancellationToken) -> Result<Summary, DaemonError> {
    let (log, positions) = servers(&config)?;
    let listener = TcpListener::bind(config.admin.listen)
        .await
        .map_err(|error| DaemonError::Configuration(format!("admin.listen {}: {error}", config.admin.listen)))?;
    let server_id = config.mysql.resolve_server_id();
    let producers = Producers::new(&config.kafka);
    let store = Store::at(&config, positions, LOCK_WAIT);
    let (tail_stats, exporter) = (Arc::default(), spans::exporter(&config)?);
    let spans = exporter.as_ref().map(spans::Exporter::sink);
    let shared = Arc::new(Shared { config, log, server_id, store, producers, tail_stats, spans });
    let address = listener.local_addr().map_err(|error| DaemonError::Internal(error.to_string()))?;
    info!(%address, "admin_listening");
    let view = |stats: Vec<Arc<TableStats>>, control| {
        let metrics = Metrics::new(stats, Arc::clone(&shared.tail_stats), shared.reach());
        metrics
            .map(|metrics| Arc::new(View { metrics, control }))
            .map_err(|error| DaemonError::Internal(error.to_string()))
    };
    let (publish, current) = watch::channel(view(Vec::new(), Control::default())?);
    let admin_stop = CancellationToken::new();
    let admin = tokio::spawn(admin::serve(listener, shared.config.admin.clone(), current, admin_stop.clone()));
    let _accompanied = AbortOnDropHandle::new(tokio::spawn(notify::accompany(stop.clone())));
    let summary = async {
        let Some(tables) = stop.run_until_cancelled(shared.wait_for_servers()).await else {
            return Ok(Summary { halted: 0 });
        };
        let Looked { fit, unfit } = tables?;
        notify::ready(fit.len());
        let fit = fit.into_iter().map(|table| (table, None));
        let tables: Vec<_> = fit.chain(unfit.into_iter().map(|(table, why)| (table, Some(why)))).collect();
        let (control, orders) = Control::of(tables.iter().map(|(table, _)| &table.subscription.table));
        let relays = tables.into_iter().zip(orders).map(|((table, unfit), orders)| {
            let stats = Arc::new(TableStats::new(table.subscription.table.clone()));
            Supervised { table, stats, orders, unfit }
        });
        let relays: Vec<_> = relays.collect();
        let all: Vec<_> = relays.iter().map(|relay| Arc::clone(&relay.stats)).collect();
        publish.send_replace(view(all.clone(), control)?);
        let _guarded = shared.guard(all);
        let _cleaned = shared.clean(&relays);
        tokio::select! {
            summary = shared.relay(relays, stop.clone()) => Ok(summary?),
            () = shared.overdue(&stop) => Ok(Summary { halted: 0 }),
        }
    }
    .await;
    admin_stop.cancel();
    if let Ok(Err(error)) = admin.await {
        warn!(%error, "admin_ended");
    }
    if let Some(exporter) = exporter {
        let _ = timeout(LAST_SPANS, tokio::task::spawn_blocking(|| exporter.end())).await;
    }
    summary
}

impl Shared {
    /// Waits until MySQL and Kafka answer, saying why; refuses as soon as no table is left that can be relayed.
    async fn wait_for_servers(&self) -> Result<Looked, DaemonError> {
        let mut backoff = Backoff::new(self.config.relay.retry_initial, self.config.relay.retry_max);
        loop {
            let survey = preflight::survey(&self.config, self.server_id, true);
            let Ok(survey) = timeout(LOOK_WAIT, survey).await else {
                warn!(after = ?LOOK_WAIT, "servers_do_not_answer");
                self.waits("waiting for servers that do not answer".to_owned());
                continue;
            };
            let Survey { tables, report } = survey?;
            let looked = Looked::at(tables, &report);
            if report.refuses() && looked.fit.is_empty() {
                return Err(DaemonError::Preflight(report.with(Status::Failed).cloned().collect()));
            }
            if let Some(definite) = report.unavailable.iter().find(|server| !server.transient) {
                return Err(DaemonError::Server(definite.to_string()));
            }
            if report.unavailable.is_empty() {
                preflight::log(&report);
                // It has just answered; from here on the producer notes it.
                self.reach().set(true);
                return Ok(looked);
            }
            for Unavailable { server, reason, .. } in &report.unavailable {
                warn!(%server, %reason, "waiting_for_server");
            }
            let all: Vec<_> = report.unavailable.iter().map(ToString::to_string).collect();
            self.waits(format!("waiting for {}", all.join("; ")));
            sleep(backoff.wait()).await;
        }
    }

    /// Asks once more what a start asks about a table.
    async fn fitness(&self, table: &TableName) -> Result<(), String> {
        let silent = |_| format!("the servers do not answer within {LOOK_WAIT:?}");
        let survey = timeout(LOOK_WAIT, preflight::survey(&self.config, self.server_id, true)).await.map_err(silent)?;
        let Survey { tables, report } = survey.map_err(|error| error.to_string())?;
        if !report.unavailable.is_empty() {
            return Err(report.unavailable.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
        }
        let Looked { fit, unfit } = Looked::at(tables, &report);
        let named = |one: &Table| one.subscription.table == *table;
        match unfit.into_iter().find(|(one, _)| named(one)) {
            Some((_, why)) => Err(why),
            None if fit.iter().any(named) => Ok(()),
            None => Err("the table is not there".to_owned()),
        }
    }

    /// Whether a broker is connected, as the producers in use note it.
    fn reach(&self) -> Arc<Reach> {
        match (self.config.delivery.guarantee, &self.store) {
            (Guarantee::ExactlyOnce, Store::Kafka(store)) => store.reach(),
            _ => self.producers.reach(),
        }
    }

    /// Waits for a stop, and then so long that every relay has ended unless a server does not answer. What hangs then is
    /// given up: that is like a kill, and the positions are what they were.
    async fn overdue(&self, stop: &CancellationToken) {
        stop.cancelled().await;
        let grace = self.config.relay.shutdown_grace;
        sleep(grace + grace / 2 + OVERDUE).await;
        warn!(?grace, "stop_overdue");
    }

    /// Watches how long the log keeps what these tables still need, until it is dropped.
    fn guard(&self, tables: Vec<Arc<TableStats>>) -> AbortOnDropHandle<()> {
        let retention = Retention::new(self.log.clone());
        let watch = guard::watch(retention, self.store.clone(), tables, self.config.mysql.purge_warning);
        AbortOnDropHandle::new(tokio::spawn(watch))
    }

    /// Cleans these tables, if that is wanted, until what it gives is dropped.
    fn clean(&self, relays: &[Supervised]) -> Vec<AbortOnDropHandle<()>> {
        let CleanupSettings { keep, interval, by } = self.config.cleanup;
        // A quiet table is saved that often; the next save may have been under way.
        let patience = self.config.relay.idle_checkpoint_interval * 2 + LOOK_WAIT;
        let cleaning = |relay: &Supervised| {
            let column = relay.table.mapping.timestamp()?.to_owned();
            let cleaning = Cleaning { column, keep: keep?, interval, by, patience };
            let clean = cleanup::clean(self.log.clone(), Arc::clone(&relay.stats), cleaning);
            Some(AbortOnDropHandle::new(tokio::spawn(clean)))
        };
        relays.iter().filter_map(cleaning).collect()
    }

    fn waits(&self, why: String) {
        notify::waiting(&why);
        self.tail_stats.set_waiting(why);
    }

    /// Relays to where and as firmly as the configuration says.
    async fn relay(
        self: &Arc<Self>,
        relays: Vec<Supervised>,
        stop: CancellationToken,
    ) -> Result<Summary, SupervisorError> {
        let this = Arc::clone(self);
        let limit = usize::try_from(self.config.relay.in_flight_bytes.as_u64()).unwrap_or(usize::MAX);
        match self.config.delivery.guarantee {
            Guarantee::AtLeastOnce => {
                let outlet = move |claim: Claim| {
                    let publisher = this.producers.publisher(&claim.table.to_string(), limit);
                    let publisher = publisher.map_err(|error| error.to_string())?;
                    Ok(AtLeastOnce::new(publisher, this.store.clone(), claim))
                };
                self.supervisor(self.store.clone(), outlet).run(relays, stop).await
            }
            Guarantee::ExactlyOnce => {
                let store = match &self.store {
                    Store::Kafka(store) => store.clone(),
                    Store::Mysql(_) => store::kafka(&self.config),
                };
                let deliver = store.clone();
                let outlet = move |claim| {
                    let outlet = ExactlyOnce::new(deliver.clone(), claim, limit);
                    outlet.ok_or_else(|| "the claim was given back".to_owned())
                };
                self.supervisor(store, outlet).run(relays, stop).await
            }
        }
    }

    fn supervisor<P: PositionStore, O: Outlet, M: Fn(Claim) -> Result<O, String>>(
        self: &Arc<Self>,
        store: P,
        outlet: M,
    ) -> Supervisor<P, impl Fn(Reader) -> MysqlSource + Send + Sync + use<P, O, M>, M> {
        let reader = Arc::clone(self);
        let source = move |of| reader.source(of);
        let tail_stats = Arc::clone(&self.tail_stats);
        let asked = Arc::clone(self);
        let fitness: Fitness = Box::new(move |table| {
            let shared = Arc::clone(&asked);
            async move { shared.fitness(&table).await }.boxed()
        });
        Supervisor {
            store,
            source,
            outlet,
            settings: self.pace(),
            distances: Distances::default(),
            tail_stats,
            fitness,
            spans: self.spans.clone(),
        }
    }

    /// Sizes and times of the relays. What is saved atomically is saved when consumers should see it.
    fn pace(&self) -> RelaySettings {
        let (relay, delivery) = (self.config.relay.clone(), &self.config.delivery);
        match delivery.guarantee {
            Guarantee::AtLeastOnce => relay,
            Guarantee::ExactlyOnce => RelaySettings {
                checkpoint_interval: delivery.commit_interval,
                // A save is due at half of it.
                max_unsaved_events: delivery.commit_events.saturating_mul(2),
                ..relay
            },
        }
    }

    /// A reader of the log. The tail is the replica that the configuration names; a server cuts a reader off when another
    /// comes with the same id, so every further one is a replica of its own.
    fn source(&self, of: Reader) -> MysqlSource {
        let mysql = &self.config.mysql;
        let server_id = match of {
            Reader::Tail => self.server_id,
            Reader::Own => MysqlSettings::fresh_server_id(),
        };
        MysqlSource::new(self.log.clone(), server_id, mysql.heartbeat, mysql.silence_deadline)
            .with_policy(mysql.on_lost_transactions, mysql.on_new_server)
    }
}

impl From<SupervisorError> for DaemonError {
    fn from(error: SupervisorError) -> Self {
        match error {
            SupervisorError::Log(_) => Self::Server(error.to_string()),
            SupervisorError::Task(_) => Self::Internal(error.to_string()),
        }
    }
}
