//! The position store in a compacted Kafka topic.
//!
//! Promise: as the seam says, with one difference: a claim does not wait for a live owner, it takes the table over. Each
//! table has a producer with transactional ids of its own that stay; whoever initialises them fences every older one, so a
//! process that was paused, or is merely slow to leave, commits nothing any more. A position is a record with the table's name as key
//! in partition 0, written in a transaction, and read back only once no older transaction is open there.

mod log;

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::log::OpenOnes;
use super::producer::{Broken, PositionRecord, Producers, Publisher};
use super::readback;
use super::settings::KafkaSettings;
use crate::outlet::Reach;
use crate::position::{
    Claim, Claimed, Parked, Pause, Position, PositionError, PositionStore, Saved, StoreError, table_of_row,
};
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
    /// Only the owner moves it, so it need not be asked for. What is not readable is replaced by an operator only.
    durable: Result<Option<Position>, StoreError>,
    pause: Option<Pause>,
    parked: Parked,
    /// `None` once it has broken or was given back.
    producer: Option<Arc<Publisher>>,
}

impl Held {
    /// All that is kept, with this position.
    fn kept(&self, position: Option<Position>) -> Kept {
        Kept { position, pause: self.pause.clone(), parked: self.parked.clone() }
    }

    /// What is kept after a change. A save that is not at or after the durable position is refused.
    fn after(&self, table: &TableName, change: Change) -> Result<Kept, StoreError> {
        match change {
            Change::Save(to, parked) => {
                let forward = |durable: &&Position| durable.partial_cmp(&&to).is_some_and(Ordering::is_le);
                let durable = self.durable.as_ref().map_err(Clone::clone)?;
                if let Some(durable) = durable.as_ref().filter(|durable| !forward(durable)) {
                    let (from, to) = (durable.to_string(), to.to_string());
                    return Err(StoreError::Backwards { table: table.clone(), from, to });
                }
                let now = self.kept(Some(to));
                Ok(Kept { parked: parked.unwrap_or(now.parked), ..now })
            }
            Change::Set(to) => Ok(self.kept(Some(to))),
            Change::Forget => Ok(self.kept(None)),
            Change::Pause(pause) => Ok(Kept { pause, ..self.kept(self.durable.clone()?) }),
        }
    }
}

/// What is to become of a claimed table's entry.
enum Change {
    Save(Position, Option<Parked>),
    Set(Position),
    Forget,
    Pause(Option<Pause>),
}

/// What is kept of a table.
#[derive(Debug, Clone, Default)]
struct Kept {
    position: Option<Position>,
    pause: Option<Pause>,
    parked: Parked,
}

/// What is being made durable, and how that ends.
type Begun<F> = (Kept, F);

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
    #[serde(default, skip_serializing_if = "Parked::is_empty")]
    parked: Parked,
}

impl Entry {
    fn position(&self, table: &TableName) -> Result<Option<Position>, StoreError> {
        let unreadable = |error: PositionError| StoreError::unreadable(table, error);
        self.position.as_deref().map(|text| text.parse().map_err(unreadable)).transpose()
    }
}

impl KafkaStore {
    /// The store in `topic`. Transactional ids are `transactional_id`, a hyphen or a plus, and the table's name.
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
        let read = readback::blocking(move |given_up| log::read(&settings, &topic, open, given_up)).await;
        read.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
    }

    /// The newest entry of a table, as it is committed.
    async fn entry(&self, table: &TableName) -> Result<Option<Entry>, StoreError> {
        let log = self.read(OpenOnes::Await).await?;
        log.get(&table.to_string()).map(|stored| stored.entry(table)).transpose()
    }

    fn record(&self, table: &TableName, epoch: u64, kept: &Kept) -> Result<PositionRecord, StoreError> {
        let entry = Entry {
            position: kept.position.as_ref().map(ToString::to_string),
            epoch,
            owner: self.inner.owner.clone(),
            instance: self.inner.instance.clone(),
            pause: kept.pause.clone(),
            parked: kept.parked.clone(),
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
        parked: Option<&Parked>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        self.change(claim, Change::Save(position.clone(), parked.cloned()))
    }

    /// Begins to make a change durable.
    fn change(&self, claim: &Claim, change: Change) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        let begun = self.begin(claim, change);
        let (this, claim) = (self.clone(), claim.clone());
        async move {
            let (kept, committed) = begun?;
            match committed.await {
                Ok(()) => {
                    let mut all = this.held();
                    if let Some(held) = all.get_mut(&claim.table).filter(|held| held.epoch == claim.epoch) {
                        (held.durable, held.pause, held.parked) = (Ok(kept.position), kept.pause, kept.parked);
                    }
                    Ok(())
                }
                Err(broken) => {
                    // What is open in front hides what another process wrote, and is not to wait for its timeout.
                    if let Some(producer) = this.producer(&claim) {
                        let _ = producer.abort().await;
                    }
                    this.superseded(&claim.table, claim.epoch).await?;
                    Err(match broken {
                        // It would be the next time, too.
                        Broken::Refused(reason) => StoreError::Refused(reason),
                        Broken::Unavailable(reason) | Broken::Over(reason) => StoreError::Broken(reason),
                    })
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
        let kept = held.after(table, change)?;
        let record = self.record(table, *ours, &kept)?;
        match &held.producer {
            Some(producer) => Ok((kept, producer.commit(record))),
            None => Err(StoreError::Broken("the claim was given back".to_owned())),
        }
    }
}

/// An entry as it is told of, whatever is in it.
fn saved(name: &str, stored: &log::Stored) -> Saved {
    let (table, named) = table_of_row(name);
    let saved_micros = stored.millis * 1000;
    match named.and_then(|()| stored.entry(&table)) {
        Ok(entry) => {
            let position = entry.position(&table);
            let Entry { epoch, owner, pause, parked, .. } = entry;
            Saved { table, position, epoch, owner, saved_micros, pause, parked }
        }
        Err(unreadable) => Saved {
            table,
            position: Err(unreadable),
            epoch: 0,
            owner: String::new(),
            saved_micros,
            pause: None,
            parked: Parked::default(),
        },
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
        // Whoever owned it before has an open transaction of at most one of them; all are fenced before its entry is read.
        let ids = ["-", "+"].map(|between| format!("{}{between}{table}", self.inner.transactional_id));
        let producer = self.inner.producers.transactional(&table.to_string(), &ids, self.inner.transaction_timeout);
        let producer = Arc::new(producer.map_err(|error| StoreError::Unavailable(error.to_string()))?);
        producer.init().await.map_err(answer)?;
        let found = self.entry(table).await?;
        let position = found.as_ref().map_or(Ok(None), |entry| entry.position(table));
        let epoch = found.as_ref().map_or(0, |entry| entry.epoch) + 1;
        let (pause, parked) = found.map(|entry| (entry.pause, entry.parked)).unwrap_or_default();
        let held = Held { epoch, durable: position, pause, parked, producer: Some(Arc::clone(&producer)) };
        // An entry that is not readable stays as it is: without its position the table would begin anew.
        if let Ok(position) = &held.durable {
            producer.commit(self.record(table, epoch, &held.kept(position.clone()))?).await.map_err(answer)?;
        }
        let (position, pause, parked) = (held.durable.clone(), held.pause.clone(), held.parked.clone());
        self.held().insert(table.clone(), held);
        Ok(Claimed { claim: Claim { table: table.clone(), epoch }, position, pause, parked })
    }

    async fn keep(&self, claim: &Claim, position: &Position, parked: Option<&Parked>) -> Result<(), StoreError> {
        self.commit(claim, position, parked).await
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

    fn leave(&self, table: &TableName) {
        self.held().remove(table);
    }

    async fn list(&self) -> Result<Vec<Saved>, StoreError> {
        Ok(self.read(OpenOnes::Glance).await?.iter().map(|(name, stored)| saved(name, stored)).collect())
    }
}
