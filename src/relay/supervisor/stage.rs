//! Whole relays over memory, for the tests of this room: a log, a broker, a position store, and processes over them.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures::FutureExt;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;
use crate::outbox::{Aside, Columns, TopicTemplate};
use crate::relay::control::Control;
use crate::testing::broker::MemoryBroker;
use crate::testing::log::MemoryLog;
use crate::testing::outlet::{MemoryOutlet, MemoryTransactions};
use crate::testing::store::{MemoryPositions, MemoryStore};

/// An outlet was made for a table, which had this durable position then.
pub(super) type Made = (TableName, Option<Position>);

/// The servers.
pub(super) struct Stage {
    pub(super) log: MemoryLog,
    pub(super) broker: MemoryBroker,
    pub(super) positions: MemoryPositions,
    pub(super) tables: Vec<TableName>,
    pub(super) settings: RelaySettings,
    pub(super) start: Start,
    pub(super) on_purged: OnPurged,
    pub(super) distances: Distances,
    /// Records that a table has in flight at most.
    pub(super) in_flight: usize,
    /// The tables that fail the checks before the start; and what those of a retry say.
    pub(super) unfit: Vec<usize>,
    pub(super) fits: Arc<AtomicBool>,
    /// Whether tables are delivered in transactions.
    pub(super) transactional: bool,
    /// What is done with events that cannot be delivered.
    pub(super) aside: Aside,
    /// Of every outlet that was made, in order: whose it is, and the durable position at that time.
    pub(super) outlets: Arc<Mutex<Vec<Made>>>,
}

/// A daemon.
pub(super) struct Process {
    pub(super) session: MemoryStore,
    pub(super) stats: Vec<Arc<TableStats>>,
    pub(super) tail: Arc<TailStats>,
    pub(super) stop: CancellationToken,
    pub(super) control: Control,
    /// The numbers of its publishers.
    pub(super) publishers: Arc<Mutex<Vec<usize>>>,
    /// What it keeps to, and the way in for tables that come later.
    pub(super) settings: watch::Sender<RelaySettings>,
    pub(super) joins: mpsc::Sender<Supervised>,
    pub(super) running: JoinHandle<Result<Summary, SupervisorError>>,
}

impl Stage {
    pub(super) fn new(tables: usize, partitions: usize) -> Self {
        Self {
            log: MemoryLog::default(),
            broker: MemoryBroker::new(partitions),
            positions: MemoryPositions::default(),
            tables: (1..=tables).map(|n| TableName::new("d", &format!("outbox-{n}"))).collect(),
            settings: RelaySettings::default(),
            start: Start::Earliest,
            on_purged: OnPurged::Halt,
            distances: Distances::default(),
            in_flight: 100,
            unfit: Vec::new(),
            fits: Arc::new(AtomicBool::new(true)),
            transactional: false,
            aside: Aside::default(),
            outlets: Arc::default(),
        }
    }

    /// One of its tables, or another one.
    pub(super) fn table(&self, name: &TableName) -> Table {
        let mapping = Mapping::new(Columns::default(), TopicTemplate::parse("t").unwrap());
        let mapping = mapping.with_aside(Arc::new(self.aside.clone()));
        Table {
            subscription: Subscription { table: name.clone(), columns: Arc::clone(mapping.columns()) },
            mapping,
            start: self.start.clone(),
            on_purged: self.on_purged,
            is_cleaned: false,
        }
    }

    /// Starts a daemon.
    pub(super) fn run(&self) -> Process {
        let (log, session) = (self.log.clone(), self.positions.session());
        let (broker, limit) = (self.broker.clone(), self.in_flight);
        let (outlets, positions) = (Arc::clone(&self.outlets), self.positions.clone());
        let publishers: Arc<Mutex<Vec<usize>>> = Arc::default();
        let publishing = Arc::clone(&publishers);
        let publisher = move |claim: &Claim, transactional| {
            outlets.lock().unwrap().push((claim.table.clone(), positions.position(&claim.table)));
            let publisher = if transactional { broker.transactional(limit) } else { broker.publisher(limit) };
            publishing.lock().unwrap().push(publisher.number());
            publisher
        };
        let (source, change) = (move |_| log.clone(), watch::Sender::new(self.settings.clone()));
        let (settings, (joins, joining)) = (change.subscribe(), mpsc::channel(8));
        let deliver = session.clone();
        let stats: Vec<_> = self.tables.iter().map(|name| Arc::new(TableStats::new(name.clone()))).collect();
        let (control, orders) = Control::of(&self.tables);
        let supervised = self.tables.iter().zip(orders).enumerate().map(|(index, (name, orders))| Supervised {
            table: self.table(name),
            stats: Arc::clone(&stats[index]),
            orders,
            unfit: self.unfit.contains(&index).then(|| "not yet".to_owned()),
        });
        let tables = supervised.collect();
        let fits = Arc::clone(&self.fits);
        let fitness: Fitness = Box::new(move |_| {
            let fits = fits.load(std::sync::atomic::Ordering::Relaxed);
            futures::future::ready(if fits { Ok(()) } else { Err("not yet".to_owned()) }).boxed()
        });
        let stop = CancellationToken::new();
        let (store, distances) = (session.clone(), self.distances);
        let tail: Arc<TailStats> = Arc::default();
        let tail_stats = Arc::clone(&tail);
        let running = if self.transactional {
            let outlet =
                move |claim: Claim| Ok(MemoryTransactions::new(publisher(&claim, true), deliver.clone(), claim));
            tokio::spawn(
                Supervisor { store, source, outlet, settings, distances, tail_stats, fitness, spans: None }.run(
                    tables,
                    joining,
                    stop.clone(),
                ),
            )
        } else {
            let outlet = move |claim: Claim| Ok(MemoryOutlet::new(publisher(&claim, false), deliver.clone(), claim));
            tokio::spawn(
                Supervisor { store, source, outlet, settings, distances, tail_stats, fitness, spans: None }.run(
                    tables,
                    joining,
                    stop.clone(),
                ),
            )
        };
        Process { session, stats, tail, stop, control, publishers, settings: change, joins, running }
    }

    /// The ids that arrived of a table's rows, given that ids begin with the table's number.
    pub(super) fn arrived(&self, table: usize) -> Vec<String> {
        let prefix = format!("{table}/");
        self.broker.ids().into_iter().filter(|id| id.starts_with(&prefix)).collect()
    }

    /// Those of them that arrived where they belong.
    pub(super) fn delivered(&self, table: usize) -> Vec<String> {
        let prefix = format!("{table}/");
        let there = |record: &crate::testing::broker::Delivered| record.topic == "t" && record.id.starts_with(&prefix);
        self.broker.delivered().into_iter().filter(there).map(|record| record.id).collect()
    }

    pub(super) fn saved(&self, table: usize) -> Option<Position> {
        self.positions.position(&self.tables[table])
    }
}

impl Process {
    /// Kills it at once.
    pub(super) async fn kill(&mut self, stage: &Stage, arrived: impl FnMut(usize) -> usize) {
        self.running.abort();
        let _ = (&mut self.running).await;
        self.forget(stage, arrived);
    }

    /// What is left of an ended process: some of its records in flight arrive, and its hold on the store is given up.
    pub(super) fn forget(&self, stage: &Stage, arrived: impl FnMut(usize) -> usize) {
        stage.broker.crash(&self.publishers.lock().unwrap(), arrived);
        stage.positions.sever(&self.session);
    }
}

/// Lets everything happen that needs no more than `millis` of time.
pub(super) async fn pass(millis: u64) {
    sleep(Duration::from_millis(millis)).await;
}
