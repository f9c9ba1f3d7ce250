//! What the relays of a process share, and how they are made of it.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::cleanup::{self, Cleaning};
use super::preflight::{self, Asker, Looked, Survey};
use super::reload::{Company, Kept};
use super::store::{self, Store};
use super::{DaemonError, guard, notify};
use crate::config::Config;
use crate::kafka::delivery::Guarantee;
use crate::kafka::{AtLeastOnce, ExactlyOnce, Producers};
use crate::mysql::MysqlSource;
use crate::mysql::cleanup::settings::CleanupSettings;
use crate::mysql::retention::Retention;
use crate::mysql::servers::Servers;
use crate::mysql::settings::MysqlSettings;
use crate::outlet::{Limit, Outlet, Reach};
use crate::position::{Claim, PositionStore};
use crate::preflight::{Status, Unavailable};
use crate::relay::backoff::Backoff;
use crate::relay::meeting::Distances;
use crate::relay::settings::RelaySettings;
use crate::relay::spans::Sink;
use crate::relay::stats::{TableStats, TailStats};
use crate::relay::supervisor::{Fitness, Reader, Summary, Supervised, Supervisor, SupervisorError, Table};
use crate::table::TableName;

/// How long the locks of a lost connection are waited for.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// How much longer than their grace relays may take to end.
const OVERDUE: Duration = Duration::from_secs(5);

/// How long one look at the servers may take before they count as away.
pub(super) const LOOK_WAIT: Duration = Duration::from_mins(1);

/// Everything that relays share.
pub(super) struct Shared {
    /// As it is in force.
    config: watch::Sender<Arc<Config>>,
    settings: watch::Sender<RelaySettings>,
    in_flight: Limit,
    log: Servers,
    positions: Servers,
    pub(super) server_id: u32,
    store: Store,
    producers: Producers,
    pub(super) tail_stats: Arc<TailStats>,
    spans: Option<Sink>,
}

impl Shared {
    pub(super) fn new(config: Config, log: Servers, positions: Servers, spans: Option<Sink>) -> Self {
        let settings = pace(&config);
        Self {
            server_id: config.mysql.resolve_server_id(),
            store: Store::at(&config, positions.clone(), LOCK_WAIT),
            positions,
            producers: Producers::new(&config.kafka),
            in_flight: Limit::new(in_flight(&config)),
            settings: watch::Sender::new(settings),
            config: watch::Sender::new(Arc::new(config)),
            tail_stats: Arc::default(),
            log,
            spans,
        }
    }

    /// The configuration in force.
    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }

    /// What can change while relays run counts from now on.
    pub(super) fn take_over(&self, config: &Config) {
        self.in_flight.set(in_flight(config));
        self.config.send_replace(Arc::new(config.clone()));
        self.settings.send_replace(pace(config));
    }

    /// What looks after these tables until it is dropped.
    pub(super) fn accompany(&self, tables: &[Kept]) -> Company {
        let stats = tables.iter().map(|(_, stats)| Arc::clone(stats)).collect();
        (self.guard(stats), self.clean(tables))
    }

    /// Waits until MySQL and Kafka answer, saying why; refuses as soon as no table is left that can be relayed.
    pub(super) async fn wait_for_servers(&self) -> Result<Looked, DaemonError> {
        let config = self.config();
        let mut backoff = Backoff::new(config.relay.retry_initial, config.relay.retry_max);
        loop {
            let survey = preflight::survey_of(&config, &self.log, &self.positions, self.asker(false));
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
                self.reach().answered();
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

    fn asker(&self, relays: bool) -> Asker {
        Asker { server_id: self.server_id, relays, creates: true }
    }

    /// Asks once more what a start asks about a table.
    async fn fitness(&self, table: &TableName) -> Result<(), String> {
        let silent = |_| format!("the servers do not answer within {LOOK_WAIT:?}");
        let config = self.config();
        let survey = preflight::survey_of(&config, &self.log, &self.positions, self.asker(true));
        let survey = timeout(LOOK_WAIT, survey).await.map_err(silent)?;
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
    pub(super) fn reach(&self) -> Arc<Reach> {
        match (self.config().delivery.guarantee, &self.store) {
            (Guarantee::ExactlyOnce, Store::Kafka(store)) => store.reach(),
            _ => self.producers.reach(),
        }
    }

    /// Waits for a stop, and then so long that every relay has ended unless a server does not answer. What hangs then is
    /// given up: that is like a kill, and the positions are what they were.
    pub(super) async fn overdue(&self, stop: &CancellationToken) {
        stop.cancelled().await;
        let grace = self.config().relay.shutdown_grace;
        sleep(grace + grace / 2 + OVERDUE).await;
        warn!(?grace, "stop_overdue");
    }

    /// Watches how long the log keeps what these tables still need, until it is dropped.
    fn guard(&self, tables: Vec<Arc<TableStats>>) -> AbortOnDropHandle<()> {
        let retention = Retention::new(self.log.clone());
        let watch = guard::watch(retention, self.store.clone(), tables, self.config().mysql.purge_warning);
        AbortOnDropHandle::new(tokio::spawn(watch))
    }

    /// Cleans these tables, if that is wanted, until what it gives is dropped.
    fn clean(&self, tables: &[Kept]) -> Vec<AbortOnDropHandle<()>> {
        let config = self.config();
        let CleanupSettings { keep, interval, by } = config.cleanup;
        // A quiet table is saved that often; the next save may have been under way.
        let patience = config.relay.idle_checkpoint_interval * 2 + LOOK_WAIT;
        let cleaning = |(table, stats): &Kept| {
            let column = table.mapping.timestamp()?.to_owned();
            let cleaning = Cleaning { column, keep: keep?, interval, by, patience };
            let clean = cleanup::clean(self.log.clone(), Arc::clone(stats), cleaning);
            Some(AbortOnDropHandle::new(tokio::spawn(clean)))
        };
        tables.iter().filter_map(cleaning).collect()
    }

    fn waits(&self, why: String) {
        notify::waiting(&why);
        self.tail_stats.set_waiting(why);
    }

    /// Relays to where and as firmly as the configuration says.
    pub(super) async fn relay(
        self: &Arc<Self>,
        relays: Vec<Supervised>,
        joining: mpsc::Receiver<Supervised>,
        stop: CancellationToken,
    ) -> Result<Summary, SupervisorError> {
        let this = Arc::clone(self);
        let (config, limit) = (self.config(), self.in_flight.clone());
        match config.delivery.guarantee {
            Guarantee::AtLeastOnce => {
                let outlet = move |claim: Claim| {
                    let publisher = this.producers.publisher(&claim.table.to_string(), limit.clone());
                    let publisher = publisher.map_err(|error| error.to_string())?;
                    Ok(AtLeastOnce::new(publisher, this.store.clone(), claim))
                };
                self.supervisor(self.store.clone(), outlet).run(relays, joining, stop).await
            }
            Guarantee::ExactlyOnce => {
                let store = match &self.store {
                    Store::Kafka(store) => store.clone(),
                    Store::Mysql(_) => store::kafka(&config),
                };
                let deliver = store.clone();
                let outlet = move |claim| {
                    let outlet = ExactlyOnce::new(deliver.clone(), claim, limit.clone());
                    outlet.ok_or_else(|| "the claim was given back".to_owned())
                };
                self.supervisor(store, outlet).run(relays, joining, stop).await
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
            settings: self.settings.subscribe(),
            distances: Distances::default(),
            tail_stats,
            fitness,
            spans: self.spans.clone(),
        }
    }

    /// A reader of the log. The tail is the replica that the configuration names; a server cuts a reader off when another
    /// comes with the same id, so every further one is a replica of its own.
    fn source(&self, of: Reader) -> MysqlSource {
        let config = self.config();
        let mysql = &config.mysql;
        let server_id = match of {
            Reader::Tail => self.server_id,
            Reader::Own => MysqlSettings::fresh_server_id(),
        };
        MysqlSource::new(self.log.clone(), server_id, mysql.heartbeat, mysql.silence_deadline)
            .with_policy(mysql.on_lost_transactions, mysql.on_new_server)
    }
}

/// Sizes and times of the relays. What is saved atomically is saved when consumers should see it.
fn pace(config: &Config) -> RelaySettings {
    let (relay, delivery) = (config.relay.clone(), &config.delivery);
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

fn in_flight(config: &Config) -> usize {
    usize::try_from(config.relay.in_flight_bytes.as_u64()).unwrap_or(usize::MAX)
}
