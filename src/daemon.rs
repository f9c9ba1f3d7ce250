//! The composition root: waits for the servers, builds the rooms, and runs the relays and the admin listener.
//!
//! Promise: nothing is relayed before the servers are looked at; a task that ends without a reason ends the daemon.

pub mod behind;
mod cleanup;
mod files;
mod guard;
mod mappings;
mod notify;
pub mod preflight;
mod reload;
mod shared;
mod spans;
pub mod store;
pub mod verify;
mod working_copies;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use self::files::Files;
use self::preflight::Looked;
use self::reload::{Kept, Reloader};
use self::shared::Shared;
use crate::admin::reload::{Asked, Reloads};
use crate::admin::{self, Current, View};
use crate::config::{Config, Loaded, Options, OutboxSettings};
use crate::kafka;
use crate::mysql::connect::Endpoint;
use crate::mysql::servers::Servers;
use crate::mysql::settings::PasswordError;
use crate::outlet::Reach;
use crate::position::StoreError;
use crate::preflight::Check;
use crate::relay::control::Control;
use crate::relay::stats::{State, TableStats, TailStats};
use crate::relay::supervisor::{Summary, Supervised, SupervisorError, Table};
use crate::source::Subscription;
use crate::table::{TableName, TablePattern};
use crate::telemetry::happenings::Happenings;
use crate::telemetry::logging::Levels;
use crate::telemetry::metrics::Metrics;

/// How long the last spans may take.
const LAST_SPANS: Duration = Duration::from_secs(2);

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
    /// A stop took too long, and what hung was given up, as by a kill.
    #[error("a server does not answer: the stop was given up, as by a kill; tables that had halted: {halted}")]
    Overdue {
        /// Tables that had halted.
        halted: usize,
    },
    /// Something within this process failed.
    #[error("internal: {0}")]
    Internal(String),
}

/// The servers that the configuration names: of the log, and of the positions.
pub fn servers(config: &Config) -> Result<(Servers, Servers), DaemonError> {
    let bad = || DaemonError::Configuration("mysql.url is not a URL".to_owned());
    let endpoint = |opts| Endpoint::new(opts, config.mysql.connect_timeout).with_tls(config.mysql.tls.clone());
    let login = config.mysql.login();
    let of_log = |opts| endpoint(opts).with_password_file(login.password_in_file());
    let first = login.options()?.ok_or_else(bad)?;
    let others = config.mysql.alternatives(&first).into_iter().map(of_log).collect();
    let log = Servers::new(of_log(first), others, config.mysql.role());
    let positions = match config.positions.login() {
        None => log.clone(),
        Some(login) => {
            let opts =
                login.options()?.ok_or_else(|| DaemonError::Configuration("positions.url is not a URL".to_owned()))?;
            endpoint(opts).with_password_file(login.password_in_file()).into()
        }
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
                    let found = existing.iter().filter(|table| wildcard.matches(table));
                    found.filter(|table| is_outbox(table, outbox, existing)).cloned().collect()
                }
            };
            if found.is_empty() {
                warn!(%pattern, "no_table_matches");
            }
            names.extend(found);
        }
        // Patterns of a block may meet in a table.
        names.sort();
        names.dedup();
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

/// Whether a table that a wildcard finds is meant: a change of an outbox's definition, or its rotation, brings others beside it
/// that are named much like it.
fn is_outbox(table: &TableName, outbox: &OutboxSettings, existing: &[TableName]) -> bool {
    let why = if working_copies::is_one(table, existing) {
        "an online schema change has made it"
    } else if outbox.shard.is_some() && table.number().is_none() {
        "its name does not end in the number of a shard"
    } else {
        return true;
    };
    warn!(%table, why, "table_left_out");
    false
}

/// What a process has that runs as a daemon.
pub struct Process {
    /// Where its configuration is read from again.
    pub options: Options,
    /// The configuration as it was read.
    pub loaded: Loaded,
    /// What it logs.
    pub levels: Levels,
    /// What it has logged lately.
    pub happenings: Happenings,
    /// Who asks for the configuration to be read again, and where they are heard.
    pub reloads: (Reloads, mpsc::Receiver<Asked>),
}

/// Shows tables on the admin listener.
struct Show {
    publish: watch::Sender<Arc<View>>,
    parts: Parts,
}

/// What every view is made of.
struct Parts {
    tail: Arc<TailStats>,
    reach: Arc<Reach>,
    reloads: Reloads,
    levels: Levels,
}

impl Parts {
    fn view(&self, stats: Vec<Arc<TableStats>>, control: Control) -> Arc<View> {
        let metrics = Metrics::new(stats, Arc::clone(&self.tail), Arc::clone(&self.reach));
        let (reloads, levels) = (self.reloads.clone(), self.levels.clone());
        Arc::new(View { metrics, control, reloads, levels })
    }
}

impl Show {
    /// Without tables yet.
    fn new(parts: Parts) -> (Self, Current) {
        let (publish, current) = watch::channel(parts.view(Vec::new(), Control::default()));
        (Self { publish, parts }, current)
    }

    fn tables(&self, tables: &[Kept], control: &Control) {
        let stats = tables.iter().map(|(_, stats)| Arc::clone(stats)).collect();
        self.publish.send_replace(self.parts.view(stats, control.clone()));
    }
}

/// Runs until `stop`, or until every relay has halted.
pub async fn run(process: Process, stop: CancellationToken) -> Result<Summary, DaemonError> {
    let Process { options, loaded, levels, happenings, reloads: (reloads, asked) } = process;
    let config = &loaded.config;
    let (log, positions) = servers(config)?;
    let listener = TcpListener::bind(config.admin.listen)
        .await
        .map_err(|error| DaemonError::Configuration(format!("admin.listen {}: {error}", config.admin.listen)))?;
    let exporter = spans::exporter(config)?;
    let spans = exporter.as_ref().map(spans::Exporter::sink);
    let shared = Arc::new(Shared::new(config.clone(), log, positions, spans));
    let address = listener.local_addr().map_err(|error| DaemonError::Internal(error.to_string()))?;
    info!(%address, "admin_listening");
    let parts = Parts { tail: Arc::clone(&shared.tail_stats), reach: shared.reach(), reloads, levels };
    let (show, current) = Show::new(parts);
    let shown = current.clone();
    let admin_stop = CancellationToken::new();
    let incoming = admin::Incoming::of(listener, &config.admin.tls)
        .map_err(|error| DaemonError::Configuration(error.to_string()))?;
    let settings = config.admin.clone();
    let admin = tokio::spawn(admin::serve(incoming, settings, current, happenings, admin_stop.clone()));
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
        let tables: Vec<Kept> = relays.iter().map(|relay| (relay.table.clone(), Arc::clone(&relay.stats))).collect();
        show.tables(&tables, &control);
        let company = shared.accompany(&tables);
        let (joins, joining) = mpsc::channel(1);
        let files = Files::new(kafka::security::files(&loaded.config.kafka));
        let by = Arc::clone(&shared);
        let reloader = Reloader { shared: by, options, loaded, files, tables, control, joins, show, company };
        tokio::select! {
            summary = shared.relay(relays, joining, stop.clone()) => Ok(summary?),
            () = shared.overdue(&stop) => Err(DaemonError::Overdue { halted: halted(&shown) }),
            never = reloader.serve(asked) => match never {},
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

/// How many of the tables that are shown have halted.
fn halted(shown: &Current) -> usize {
    shown.borrow().metrics.tables().iter().filter(|stats| stats.state() == State::Halted).count()
}

impl From<SupervisorError> for DaemonError {
    fn from(error: SupervisorError) -> Self {
        Self::Internal(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_a_block_select_each_table_once_and_none_that_stands_beside_one() {
        let existing = ["_order-b_gho", "a-outbox", "order-b", "order-x-outbox", "outbox1", "outbox1_old", "outbox2"];
        let existing = existing.map(|table| TableName::new("d", table));
        for (patterns, shard, expected) in [
            (
                ["d.outbox1", "d.outbox{1..4}"],
                Some("crc32(aggregateid) % 4"),
                "d.outbox1 d.outbox2 d.outbox3 d.outbox4",
            ),
            (["d.order-*", "d.*-outbox"], None, "d.a-outbox d.order-b d.order-x-outbox"),
            // Beside `_order-b_gho`, which an online schema change has made.
            (["d.*order-*", "d.a-*"], None, "d.a-outbox d.order-b d.order-x-outbox"),
            // Beside `outbox1_old`, which is no shard.
            (["d.outbox*", "d.outbox2"], Some("crc32(aggregateid) % 2"), "d.outbox1 d.outbox2"),
        ] {
            let block = OutboxSettings {
                tables: patterns.map(str::to_owned).into(),
                topic: "t".to_owned(),
                shard: shard.map(str::to_owned),
                ..OutboxSettings::default()
            };
            let config = Config { outbox: vec![block], ..Config::default() };
            let tables = select(&config, &existing).unwrap();
            let names: Vec<_> = tables.iter().map(|table| table.subscription.table.to_string()).collect();
            assert_eq!(names.join(" "), expected);
        }
    }
}
