//! A delivery platform, played against a real server.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use mysql_async::{Conn, Opts, OptsBuilder};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::journal::{Journal, Outcome, Transaction};
use super::plan::Planner;
use super::session::{self, Broken};
use crate::table::TableName;

/// How long a writer that was told to stop goes on asking about a commit whose answer was lost.
const GRACE: Duration = Duration::from_secs(15);

/// What to play.
#[derive(Clone)]
pub struct WriterSettings {
    /// How to connect. A default schema is not used, so that it need not exist.
    pub server: Opts,
    /// The outbox tables in order; the hash of the aggregate's id selects among them, see [`super::shard_of`].
    pub outboxes: Vec<TableName>,
    /// The table of deliveries, changed in the same transactions.
    pub data: TableName,
    /// How many tasks write at once, each to its own deliveries.
    pub tasks: u16,
    /// Decides all that is written, ids included: use a seed once per database.
    pub seed: u64,
    /// Transactions per second, all tasks together; none for as fast as the server goes.
    pub rate: Option<NonZeroU32>,
    /// Transactions per task, after which it ends by itself.
    pub limit: Option<u64>,
    /// Whether a transaction now and then changes tens of deliveries.
    pub bulk: bool,
}

impl WriterSettings {
    /// Four tasks without limits; the data goes to `deliveries` in the schema of the first outbox table.
    pub fn new(server: Opts, outboxes: Vec<TableName>, seed: u64) -> Self {
        let schema = outboxes.first().map_or("delivery", TableName::schema);
        let data = TableName::new(schema, "deliveries");
        Self { server, outboxes, data, tasks: 4, seed, rate: None, limit: None, bulk: false }
    }
}

/// Why writing ended early.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The settings name no outbox table.
    #[error("there is no outbox table to write to")]
    NoTables,
    /// The server refuses, and would refuse again.
    #[error("the server refuses: {0}")]
    Refused(String),
    /// The server cannot be reached or does not answer.
    #[error("the server is unavailable: {0}")]
    Unavailable(String),
    /// A task ended unexpectedly.
    #[error("a writing task ended unexpectedly: {0}")]
    Task(String),
}

impl From<Broken> for WriteError {
    fn from(broken: Broken) -> Self {
        let text = broken.to_string();
        if broken.is_definite() { Self::Refused(text) } else { Self::Unavailable(text) }
    }
}

/// Figures of a writer at work.
#[derive(Debug, Default)]
pub struct Progress {
    committed: AtomicU64,
    rolled_back: AtomicU64,
    unknown: AtomicU64,
    events: AtomicU64,
    lost: AtomicU64,
}

impl Progress {
    /// Transactions committed.
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }

    /// Transactions rolled back.
    pub fn rolled_back(&self) -> u64 {
        self.rolled_back.load(Ordering::Relaxed)
    }

    /// Transactions whose outcome could not be found out.
    pub fn unknown(&self) -> u64 {
        self.unknown.load(Ordering::Relaxed)
    }

    /// Events committed.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Connections lost.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn count(&self, transaction: &Transaction) {
        let counter = match transaction.outcome {
            Outcome::Committed => &self.committed,
            Outcome::RolledBack => &self.rolled_back,
            Outcome::Unknown => &self.unknown,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if transaction.outcome == Outcome::Committed {
            self.events.fetch_add(transaction.kept().count() as u64, Ordering::Relaxed);
        }
    }
}

/// The platform: several tasks that commit life cycles of deliveries, with their events in the same transactions.
pub struct Writer {
    settings: Arc<WriterSettings>,
    progress: Arc<Progress>,
}

impl Writer {
    /// A writer. Nothing is done yet.
    pub fn new(mut settings: WriterSettings) -> Result<Self, WriteError> {
        if settings.outboxes.is_empty() {
            return Err(WriteError::NoTables);
        }
        settings.server = OptsBuilder::from_opts(settings.server).db_name(None::<String>).into();
        Ok(Self { settings: Arc::new(settings), progress: Arc::default() })
    }

    /// Figures, kept up to date while [`Writer::run`] is under way.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Creates the tables where they do not exist yet.
    pub async fn prepare(&self) -> Result<(), WriteError> {
        let mut conn = session::connect(&self.settings.server).await?;
        let created = super::schema::create(&mut conn, &self.settings.outboxes, &self.settings.data).await;
        created.map_err(|error| Broken::from(error).into())
    }

    /// Writes until `stop` is cancelled or the limit is reached. Outages of the server are waited out.
    /// Transactions under way are finished first; call it once per writer.
    pub async fn run(&self, stop: CancellationToken) -> Result<Journal, WriteError> {
        let mut tasks = JoinSet::new();
        let ended_early = stop.child_token();
        for owner in 0..self.settings.tasks {
            let task = Task::new(owner, &self.settings, &self.progress, ended_early.clone());
            tasks.spawn(task.run());
        }
        let (mut journal, mut failure) = (Journal::default(), None);
        while let Some(ended) = tasks.join_next().await {
            match ended.map_err(|error| WriteError::Task(error.to_string())).and_then(|result| result) {
                Ok(part) => journal.absorb(part),
                Err(error) => {
                    ended_early.cancel();
                    failure = Some(error);
                }
            }
        }
        failure.map_or(Ok(journal), Err)
    }

    /// Asks the database about every outcome that is still unknown, for a server that came back after the writer had
    /// stopped.
    pub async fn resolve(&self, journal: &mut Journal) -> Result<(), WriteError> {
        let mut conn = session::connect(&self.settings.server).await?;
        let mut found = HashSet::new();
        for transaction in journal.unknown() {
            found.extend(session::ask(&mut conn, transaction).await?);
        }
        journal.resolve(&found);
        Ok(())
    }
}

/// One owner of deliveries.
struct Task {
    settings: Arc<WriterSettings>,
    progress: Arc<Progress>,
    stop: CancellationToken,
    planner: Planner,
    conn: Option<Conn>,
    jitter: Rng,
}

impl Task {
    fn new(owner: u16, settings: &Arc<WriterSettings>, progress: &Arc<Progress>, stop: CancellationToken) -> Self {
        Self {
            planner: Planner::new(settings.seed, owner, settings.outboxes.as_slice().into()).in_bulk(settings.bulk),
            settings: Arc::clone(settings),
            progress: Arc::clone(progress),
            stop,
            conn: None,
            jitter: Rng::new(),
        }
    }

    async fn run(mut self) -> Result<Journal, WriteError> {
        let mut journal = Journal::default();
        let mut ticks = self.settings.rate.map(|rate| {
            let mut ticks = interval(Duration::from_secs(1) * u32::from(self.settings.tasks) / rate.get());
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        let stop = self.stop.clone();
        let mut left = self.settings.limit.unwrap_or(u64::MAX);
        while left > 0 && !stop.is_cancelled() {
            if let Some(ticks) = &mut ticks {
                stop.run_until_cancelled(ticks.tick()).await;
            }
            let Some(connected) = stop.run_until_cancelled(self.connect()).await else { break };
            let mut conn = connected?;
            let plan = self.planner.plan();
            let (outcome, broken) = session::play(&mut conn, &plan, &self.settings.data).await;
            let mut transaction = plan.transaction(outcome);
            match broken {
                None => self.conn = Some(conn),
                Some(broken) if broken.is_definite() => return Err(broken.into()),
                Some(broken) => {
                    drop(conn);
                    self.progress.lost.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(error = %broken, "writer lost its connection");
                }
            }
            if outcome == Outcome::Unknown {
                self.find_out(&mut transaction).await?;
            }
            self.planner.settle(&plan, transaction.outcome);
            self.progress.count(&transaction);
            journal.record(transaction);
            left -= 1;
        }
        if let Some(conn) = self.conn.take() {
            conn.disconnect().await.ok();
        }
        Ok(journal)
    }

    /// The connection, or a new one as soon as there is one to be had.
    async fn connect(&mut self) -> Result<Conn, WriteError> {
        if let Some(conn) = self.conn.take() {
            return Ok(conn);
        }
        let mut pause = Duration::from_millis(50);
        loop {
            match session::connect(&self.settings.server).await {
                Ok(conn) => return Ok(conn),
                Err(broken) if broken.is_definite() => return Err(broken.into()),
                Err(broken) => tracing::debug!(error = %broken, "writer waits for the server"),
            }
            sleep(pause.mul_f64(0.5 + self.jitter.f64() / 2.0)).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// Asks about a lost answer until there is one; after the stop, only for a while.
    async fn find_out(&mut self, transaction: &mut Transaction) -> Result<(), WriteError> {
        let stop = self.stop.clone();
        let found = tokio::select! {
            found = self.ask(transaction) => Some(found?),
            () = async { stop.cancelled().await; sleep(GRACE).await } => None,
        };
        if let Some(found) = found {
            transaction.resolve(&found);
        }
        Ok(())
    }

    async fn ask(&mut self, transaction: &Transaction) -> Result<HashSet<String>, WriteError> {
        loop {
            let mut conn = self.connect().await?;
            match session::ask(&mut conn, transaction).await {
                Ok(found) => {
                    self.conn = Some(conn);
                    return Ok(found);
                }
                Err(broken) if broken.is_definite() => return Err(broken.into()),
                Err(broken) => tracing::debug!(error = %broken, "writer could not ask"),
            }
            sleep(Duration::from_millis(200)).await;
        }
    }
}
