//! The configuration taken over while relays run.
//!
//! Promise: a configuration counts wholly or not at all. Whatever would refuse it is asked before the first change: that
//! it loads, that nothing in it takes a restart, that tables which would join or be relayed another way pass the checks of
//! a start. A table that nothing in it is about is not touched (R8); one that is leaves nothing unacknowledged behind.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use futures::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::files::Files;
use super::preflight::{Asker, Looked, Survey};
use super::shared::{LOOK_WAIT, Shared};
use super::{DaemonError, Show, notify, preflight};
use crate::admin::reload::{Asked, Reloaded, Setting, Unloaded};
use crate::config::{Config, KeyChange, Loaded, Options, load};
use crate::kafka::security;
use crate::relay::control::{Control, Order};
use crate::relay::stats::TableStats;
use crate::relay::supervisor::{Supervised, Table};
use crate::table::TableName;

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Relays that start again together.
const AT_A_TIME: usize = 4;

/// A table, and what it tells of itself.
pub(super) type Kept = (Table, Arc<TableStats>);

/// What accompanies a set of tables until it is dropped.
pub(super) type Company = (AbortOnDropHandle<()>, Vec<AbortOnDropHandle<()>>);

/// Takes configurations over.
pub(super) struct Reloader {
    pub(super) shared: Arc<Shared>,
    /// Where the configuration is read from.
    pub(super) options: Options,
    /// As it is in force.
    pub(super) loaded: Loaded,
    /// What clients of Kafka are made with.
    pub(super) files: Files,
    pub(super) tables: Vec<Kept>,
    pub(super) control: Control,
    pub(super) joins: mpsc::Sender<Supervised>,
    pub(super) show: Show,
    pub(super) company: Company,
}

/// What a new configuration is about.
#[derive(Default)]
struct Plan {
    joining: Vec<Table>,
    renewing: Vec<Table>,
    leaving: Vec<TableName>,
    /// Every table that is relayed afterwards, in the order of the configuration.
    order: Vec<TableName>,
}

impl Plan {
    /// From the tables that are relayed, and those that are selected now.
    fn between(kept: &[Kept], selected: Vec<Table>) -> Self {
        let mut known: BTreeMap<&TableName, &Table> =
            kept.iter().map(|(table, _)| (&table.subscription.table, table)).collect();
        let mut plan = Self::default();
        for table in selected {
            plan.order.push(table.subscription.table.clone());
            match known.remove(&table.subscription.table) {
                None => plan.joining.push(table),
                Some(before) if *before == table => {}
                Some(_) => plan.renewing.push(table),
            }
        }
        plan.leaving = known.into_keys().cloned().collect();
        plan
    }

    fn names(tables: &[Table]) -> Vec<TableName> {
        tables.iter().map(|table| table.subscription.table.clone()).collect()
    }

    /// Why it cannot be carried out, of the tables that it is about.
    fn unfit(&self, unfit: &[(Table, String)]) -> Option<String> {
        let about = |table: &Table| self.joining.contains(table) || self.renewing.contains(table);
        let told = unfit.iter().filter(|(table, _)| about(table));
        let told: Vec<_> = told.map(|(table, why)| format!("{}: {why}", table.subscription.table)).collect();
        (!told.is_empty()).then(|| told.join("\n"))
    }
}

impl Reloader {
    /// Takes over whatever is asked for, and files that have changed, one after another, for as long as it is polled.
    pub(super) async fn serve(mut self, mut asked: mpsc::Receiver<Asked>) -> Infallible {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let Asked { rehearse, answer } = tokio::select! {
                Some(asked) = asked.recv() => asked,
                _ = looks.tick(), if !self.files.is_empty() => {
                    if self.files.have_changed() {
                        self.renew_clients().await;
                    }
                    continue;
                }
                // Nobody can ask any more.
                else => return std::future::pending().await,
            };
            if !rehearse {
                notify::reloading();
            }
            let outcome = self.reload(rehearse).await;
            if !rehearse {
                notify::ready(self.tables.len());
                match &outcome {
                    Ok(reloaded) => {
                        let Reloaded { settings, joined, renewed, left, .. } = reloaded;
                        let (joined, renewed, left) = (joined.len(), renewed.len(), left.len());
                        info!(settings = settings.len(), joined, renewed, left, "configuration_reloaded");
                    }
                    Err(reason) => warn!(reason = %reason.line(), "reload_refused"),
                }
            }
            let _ = answer.send(outcome);
        }
    }

    /// Has every relay start again, from its saved position and with a new client, some at a time.
    async fn renew_clients(&self) {
        if let Err(error) = security::properties(&self.loaded.config.kafka) {
            warn!(%error, "kafka_files_unusable");
            return;
        }
        info!(tables = self.tables.len(), "kafka_files_changed");
        let control = &self.control;
        let renewals = self.tables.iter().map(async |(table, _)| {
            let name = &table.subscription.table;
            if let Err(refusal) = control.order(name, Order::Renew(Box::new(table.clone()))).await {
                warn!(table = %name, %refusal, "client_not_renewed");
            }
        });
        stream::iter(renewals).buffer_unordered(AT_A_TIME).collect::<()>().await;
    }

    async fn reload(&mut self, rehearse: bool) -> Result<Reloaded, Unloaded> {
        let next = load(&self.options).map_err(|errors| Unloaded::Configuration(errors.to_string()))?;
        let changes = self.loaded.changes(&next);
        let fixed: Vec<_> = changes.iter().filter(|change| change.needs_restart).map(ToString::to_string).collect();
        if !fixed.is_empty() {
            return Err(Unloaded::NeedsRestart(fixed.join(", ")));
        }
        let plan = self.look(&next.config, !rehearse).await?;
        let setting = |KeyChange { key, before, after, .. }| Setting { key, before, after };
        let mut reloaded = Reloaded {
            settings: changes.into_iter().map(setting).collect(),
            joined: Plan::names(&plan.joining),
            renewed: Plan::names(&plan.renewing),
            left: plan.leaving.clone(),
            troubles: Vec::new(),
        };
        if !rehearse {
            self.shared.take_over(&next.config);
            // It has been checked.
            let _ = self.show.parts.levels.set(&next.config.log.level);
            self.loaded = next;
            reloaded.troubles = self.carry_out(plan).await;
        }
        Ok(reloaded)
    }

    /// Looks at the servers as a start does.
    async fn look(&self, config: &Config, creates: bool) -> Result<Plan, Unloaded> {
        let asker = Asker { server_id: self.shared.server_id, relays: true, creates };
        let survey = timeout(LOOK_WAIT, preflight::survey(config, asker)).await;
        let silent = |_| Unloaded::Unavailable(format!("the servers do not answer within {LOOK_WAIT:?}"));
        let Survey { tables, report } = survey.map_err(silent)?.map_err(|error| match error {
            DaemonError::Configuration(_) | DaemonError::Password(_) => Unloaded::Configuration(error.to_string()),
            other => Unloaded::Unavailable(other.to_string()),
        })?;
        if !report.unavailable.is_empty() {
            return Err(Unloaded::Unavailable(lines(&report.unavailable)));
        }
        let plan = Plan::between(&self.tables, tables.clone());
        match plan.unfit(&Looked::at(tables, &report).unfit) {
            Some(why) => Err(Unloaded::Unfit(why)),
            None => Ok(plan),
        }
    }

    /// Tables join before others leave, so that there are always some. Gives what did not come about.
    async fn carry_out(&mut self, plan: Plan) -> Vec<String> {
        let Plan { joining, renewing, leaving, order } = plan;
        let (control, orders) = self.control.with(joining.iter().map(|table| &table.subscription.table));
        self.control = control;
        for (table, orders) in joining.into_iter().zip(orders) {
            let stats = Arc::new(TableStats::new(table.subscription.table.clone()));
            self.tables.push((table.clone(), Arc::clone(&stats)));
            // Without a supervisor the process is about to end.
            let _ = self.joins.send(Supervised { table, stats, orders, unfit: None }).await;
        }
        self.show.tables(&self.tables, &self.control);
        let renewed = renewing.into_iter().map(|table| {
            let name = table.subscription.table.clone();
            if let Some((kept, _)) = self.tables.iter_mut().find(|(kept, _)| kept.subscription.table == name) {
                *kept = table.clone();
            }
            (name, Order::Renew(Box::new(table)))
        });
        let all: Vec<_> = renewed.chain(leaving.iter().map(|name| (name.clone(), Order::Leave))).collect();
        let control = &self.control;
        let carried_out = join_all(all.into_iter().map(async |(name, order)| {
            let refused = control.order(&name, order).await.err()?;
            Some(format!("{name}: {refused}"))
        }));
        let troubles = carried_out.await.into_iter().flatten().collect();
        self.control = self.control.without(&leaving);
        let place = |kept: &Kept| order.iter().position(|name| *name == kept.0.subscription.table);
        self.tables.retain(|kept| place(kept).is_some());
        self.tables.sort_by_key(place);
        self.company = self.shared.accompany(&self.tables);
        self.show.tables(&self.tables, &self.control);
        troubles
    }
}

fn lines(all: &[impl Display]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
