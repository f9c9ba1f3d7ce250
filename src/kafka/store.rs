//! The position store in a compacted Kafka topic.
//!
//! Promise: as the seam says, with one difference: a claim does not wait for a live owner, it takes the table over. Each
//! table has a transactional producer of a stable id; whoever initialises it fences every older one, so a process that
//! was paused, or is merely slow to leave, commits nothing any more. A position is a record with the table's name as key
//! in partition 0, written in a transaction, and read back only once no older transaction is open there.

mod log;

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::log::OpenOnes;
use super::producer::{Broken, PositionRecord, Producers, Publisher};
use super::settings::KafkaSettings;
use crate::outlet::Reach;
use crate::position::{Claim, Claimed, Pause, Position, PositionStore, Saved, StoreError};
use crate::table::TableName;

/// Positions in a topic. Cheap to clone; the clones share their producers.
#[derive(Clone)]
pub struct KafkaStore {
    inner: Arc<Inner>,
}

struct Inner {
    settings: KafkaSettings,
    producers: Producers,
    topic: String,
    transactional_id: String,
    transaction_timeout: Duration,
    owner: String,
    /// Tells this process's entries from those of another one.
    instance: String,
    held: Mutex<HashMap<TableName, Held>>,
}

/// A table that this process has claimed.
struct Held {
    epoch: u64,
    /// Only the owner moves it, so it need not be asked for.
    durable: Option<Position>,
    pause: Option<Pause>,
    /// `None` once it has broken or was given back.
    producer: Option<Arc<Publisher>>,
}

impl Held {
    /// Position and pause after a change. A save that is not at or after the durable position is refused.
    fn after(&self, table: &TableName, change: Change) -> Result<(Option<Position>, Option<Pause>), StoreError> {
        match change {
            Change::Save(to) => {
                let forward = |durable: &&Position| durable.partial_cmp(&&to).is_some_and(Ordering::is_le);
                if let Some(durable) = self.durable.as_ref().filter(|durable| !forward(durable)) {
                    let (from, to) = (durable.to_string(), to.to_string());
                    return Err(StoreError::Backwards { table: table.clone(), from, to });
                }
                Ok((Some(to), self.pause.clone()))
            }
            Change::Set(to) => Ok((Some(to), self.pause.clone())),
            Change::Forget => Ok((None, self.pause.clone())),
            Change::Pause(pause) => Ok((self.durable.clone(), pause)),
        }
    }
}

/// What is to become of a claimed table's entry.
enum Change {
    Save(Position),
    Set(Position),
    Forget,
    Pause(Option<Pause>),
}

/// What is being made durable, and how that ends.
type Begun<F> = (Option<Position>, Option<Pause>, F);

/// A position as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// The text form; `None` for a table that was claimed and has not saved yet.
    position: Option<String>,
    epoch: u64,
    owner: String,
    /// Drawn by each process.
    instance: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pause: Option<Pause>,
}

impl Entry {
    fn position(&self, table: &TableName) -> Result<Option<Position>, StoreError> {
        let unreadable = |error: crate::position::PositionError| StoreError::Unreadable {
            table: table.clone(),
            reason: error.to_string(),
        };
        self.position.as_deref().map(|text| text.parse().map_err(unreadable)).transpose()
    }
}

impl KafkaStore {
    /// The store in `topic`. Transactional ids are `transactional_id`, a hyphen, and the table's name.
    pub fn new(settings: &KafkaSettings, topic: &str, transactional_id: &str, transaction_timeout: Duration) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let inner = Inner {
            settings: settings.clone(),
            producers: Producers::new(settings),
            topic: topic.to_owned(),
            transactional_id: transactional_id.to_owned(),
            transaction_timeout,
            owner: format!("{}:{}", host.trim(), std::process::id()),
            instance: format!("{:032x}", fastrand::u128(..)),
            held: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Whether a broker is connected, by the latest word of any of the tables' producers.
    pub fn reach(&self) -> Arc<Reach> {
        self.inner.producers.reach()
    }

    fn held(&self) -> MutexGuard<'_, HashMap<TableName, Held>> {
        self.inner.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The producer whose transactions carry the claim's positions.
    pub(super) fn producer(&self, claim: &Claim) -> Option<Arc<Publisher>> {
        let held = self.held();
        held.get(&claim.table).filter(|held| held.epoch == claim.epoch)?.producer.clone()
    }

    /// Everything in the topic that is committed.
    async fn read(&self, open: OpenOnes) -> Result<log::Log, StoreError> {
        let (settings, topic) = (self.inner.settings.clone(), self.inner.topic.clone());
        let read = tokio::task::spawn_blocking(move || log::read(&settings, &topic, open)).await;
        read.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
    }

    /// The newest entry of a table, as it is committed.
    async fn entry(&self, table: &TableName) -> Result<Option<Entry>, StoreError> {
        let log = self.read(OpenOnes::Await).await?;
        log.get(&table.to_string()).map(|stored| stored.entry(table)).transpose()
    }

    fn record(
        &self,
        table: &TableName,
        epoch: u64,
        position: Option<&Position>,
        pause: Option<&Pause>,
    ) -> Result<PositionRecord, StoreError> {
        let entry = Entry {
            position: position.map(ToString::to_string),
            epoch,
            owner: self.inner.owner.clone(),
            instance: self.inner.instance.clone(),
            pause: pause.cloned(),
        };
        let value = serde_json::to_string(&entry).map_err(|error| StoreError::Refused(error.to_string()))?;
        Ok(PositionRecord { topic: self.inner.topic.clone(), key: table.to_string(), value })
    }

    /// Whether another process has taken the table over since our claim of this epoch. A later entry of our own is a claim
    /// whose answer was lost.
    async fn superseded(&self, table: &TableName, ours: u64) -> Result<(), StoreError> {
        match self.entry(table).await? {
            Some(Entry { epoch: theirs, instance, .. }) if theirs > ours && instance != self.inner.instance => {
                Err(StoreError::Fenced { table: table.clone(), ours, theirs })
            }
            _ => Ok(()),
        }
    }

    /// Begins to make a position durable, together with what the claim's producer has sent since the last time.
    pub(super) fn commit(
        &self,
        claim: &Claim,
        position: &Position,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        self.change(claim, Change::Save(position.clone()))
    }

    /// Begins to make a change durable.
    fn change(&self, claim: &Claim, change: Change) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        let begun = self.begin(claim, change);
        let (this, claim) = (self.clone(), claim.clone());
        async move {
            let (position, pause, committed) = begun?;
            match committed.await {
                Ok(()) => {
                    let mut all = this.held();
                    if let Some(held) = all.get_mut(&claim.table).filter(|held| held.epoch == claim.epoch) {
                        (held.durable, held.pause) = (position, pause);
                    }
                    Ok(())
                }
                Err(broken) => {
                    this.superseded(&claim.table, claim.epoch).await?;
                    Err(StoreError::Broken(broken.to_string()))
                }
            }
        }
    }

    fn begin(
        &self,
        claim: &Claim,
        change: Change,
    ) -> Result<Begun<impl Future<Output = Result<(), Broken>> + Send + use<>>, StoreError> {
        let Claim { table, epoch: ours } = claim;
        let all = self.held();
        let theirs = all.get(table).map_or(0, |held| held.epoch);
        let Some(held) = all.get(table).filter(|held| held.epoch == *ours) else {
            return Err(StoreError::Fenced { table: table.clone(), ours: *ours, theirs });
        };
        let (position, pause) = held.after(table, change)?;
        let record = self.record(table, *ours, position.as_ref(), pause.as_ref())?;
        match &held.producer {
            Some(producer) => Ok((position, pause, producer.commit(record))),
            None => Err(StoreError::Broken("the claim was given back".to_owned())),
        }
    }
}

fn answer(broken: Broken) -> StoreError {
    match broken {
        Broken::Refused(reason) => StoreError::Refused(reason),
        Broken::Unavailable(reason) | Broken::Over(reason) => StoreError::Unavailable(reason),
    }
}

impl PositionStore for KafkaStore {
    async fn claim(&self, table: &TableName) -> Result<Claimed, StoreError> {
        let ours = self.held().get(table).map(|held| held.epoch);
        if let Some(ours) = ours {
            // Whoever took the table over from us must not be fenced by us.
            self.superseded(table, ours).await?;
            if let Some(held) = self.held().get_mut(table) {
                held.producer = None;
            }
        }
        let id = format!("{}-{table}", self.inner.transactional_id);
        let producer = self.inner.producers.transactional(&id, self.inner.transaction_timeout);
        let producer = Arc::new(producer.map_err(|error| StoreError::Unavailable(error.to_string()))?);
        producer.init().await.map_err(answer)?;
        let found = self.entry(table).await?;
        let durable = found.as_ref().map(|entry| entry.position(table)).transpose()?.flatten();
        let epoch = found.as_ref().map_or(0, |entry| entry.epoch) + 1;
        let pause = found.and_then(|entry| entry.pause);
        producer.commit(self.record(table, epoch, durable.as_ref(), pause.as_ref())?).await.map_err(answer)?;
        let held = Held { epoch, durable: durable.clone(), pause: pause.clone(), producer: Some(producer) };
        self.held().insert(table.clone(), held);
        Ok(Claimed { claim: Claim { table: table.clone(), epoch }, position: durable, pause })
    }

    async fn save(&self, claim: &Claim, position: &Position) -> Result<(), StoreError> {
        self.commit(claim, position).await
    }

    async fn set(&self, claim: &Claim, position: &Position) -> Result<(), StoreError> {
        self.change(claim, Change::Set(position.clone())).await
    }

    async fn forget(&self, claim: &Claim) -> Result<(), StoreError> {
        self.change(claim, Change::Forget).await
    }

    async fn pause(&self, claim: &Claim, pause: Option<&Pause>) -> Result<(), StoreError> {
        self.change(claim, Change::Pause(pause.cloned())).await
    }

    async fn release(&self, claim: &Claim) -> Result<(), StoreError> {
        let producer = self.producer(claim);
        if let Some(held) = self.held().get_mut(&claim.table).filter(|held| held.epoch == claim.epoch) {
            held.producer = None;
        }
        match producer {
            // Otherwise consumers would wait for the timeout of what is open.
            Some(producer) => producer.abort().await.map_err(answer),
            None => Ok(()),
        }
    }

    async fn list(&self) -> Result<Vec<Saved>, StoreError> {
        let saved = |(name, stored): (&String, &log::Stored)| {
            let table: TableName =
                name.parse().map_err(|_| StoreError::Refused(format!("`{name}` is no table name")))?;
            let entry = stored.entry(&table)?;
            let position = entry.position(&table)?;
            let Entry { epoch, owner, pause, .. } = entry;
            Ok(Saved { table, position, epoch, owner, saved_micros: stored.millis * 1000, pause })
        };
        self.read(OpenOnes::Glance).await?.iter().map(saved).collect()
    }
}
