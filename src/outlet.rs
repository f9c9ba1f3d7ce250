//! The outlet seam: where a relay delivers, and where its position becomes durable.
//!
//! Promise: records are handed on in the order in which they are published here (R1); every record is settled exactly
//! once, as acknowledged by all in-sync replicas or as failed; nothing is settled that was not published.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

mod at_least_once;
mod reach;

pub use at_least_once::AtLeastOnce;
pub use reach::{Client, Reach, Word};

use crate::outbox::Record;
use crate::outbox::aside::Unpacked;
use crate::position::{Parked, Position, StoreError};

/// Which batch of a relay a record belongs to: batches are numbered from 0 as they are published.
pub type Chunk = u64;

/// Bytes that an outlet may have in flight. Clones share it, so that it can change while they deliver.
#[derive(Debug, Clone)]
pub struct Limit(Arc<AtomicUsize>);

impl Limit {
    /// So many bytes.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    /// As it is now.
    pub fn bytes(&self) -> usize {
        self.0.load(Relaxed)
    }

    /// From now on.
    pub fn set(&self, bytes: usize) {
        self.0.store(bytes, Relaxed);
    }
}

/// Records of one chunk that were settled with the same outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The chunk.
    pub chunk: Chunk,
    /// How many records.
    pub records: u64,
    /// Acknowledged, or why not.
    pub outcome: Result<(), DeliveryError>,
}

/// What has to be waited for before a record is published again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failing {
    /// The place of delivery, or the way there.
    Cluster,
    /// The client, which is over: another one is made.
    Client,
    /// An event is refused, and which one of those that were sent together is not known yet.
    Event,
}

impl Failing {
    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Client => "client",
            Self::Event => "event",
        }
    }
}

/// A record is not taken, and publishing it again brings the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: topic {topic}: {reason}; {cure}")]
pub struct Rejection {
    /// Stable name for alerts and documents.
    pub name: &'static str,
    /// The record's topic.
    pub topic: String,
    /// What Kafka says.
    pub reason: String,
    /// What cures it.
    pub cure: &'static str,
}

/// Which event a record is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Event {
    /// The record's key.
    pub key: Vec<u8>,
    /// The header `id`.
    pub id: Vec<u8>,
}

/// A record that cannot be delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// Publishing the same again, from the last acknowledged record on, may succeed.
    #[error("{topic}: {reason}")]
    Retriable {
        /// What has to be waited for.
        failing: Failing,
        /// The record's topic.
        topic: String,
        /// What Kafka says.
        reason: String,
    },
    /// An operator has to act before any record can be delivered there.
    #[error(transparent)]
    Definite(Rejection),
    /// It is this record that is refused; others can be delivered.
    #[error("{refusal}")]
    Poison {
        /// Why.
        refusal: Rejection,
        /// Whose record, where the error comes later than the record was taken.
        event: Option<Box<Event>>,
    },
}

impl DeliveryError {
    /// The place of delivery is in the way, for now.
    pub fn retriable(topic: &str, reason: &str) -> Self {
        Self::Retriable { failing: Failing::Cluster, topic: topic.to_owned(), reason: reason.to_owned() }
    }
}

/// Why a record was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishError {
    /// There is no room; wait for [`Outlet::room`] and publish the same record again.
    Full,
    /// The record is refused. If it is for the record alone ([`DeliveryError::Poison`]), others are still taken.
    Refused(DeliveryError),
}

/// Records that were set aside: of some topics, those with this key and these headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Topics.
    pub topics: Vec<String>,
    /// Key.
    pub key: Vec<u8>,
    /// Names and values.
    pub headers: Vec<(&'static str, String)>,
}

/// The way of one table's records, acknowledged one by one, to where they are delivered.
pub trait Publish: Send + 'static {
    /// As [`Outlet::publish`].
    fn publish(&self, record: &Record<'_>, chunk: Chunk) -> Result<(), PublishError>;
    /// As [`Outlet::room`].
    fn room(&self) -> impl Future<Output = ()> + Send + 'static;
    /// As [`Outlet::settled`].
    fn settled(&self, into: &mut Vec<Settled>) -> impl Future<Output = ()> + Send;
    /// As [`Outlet::in_flight_bytes`].
    fn in_flight_bytes(&self) -> u64 {
        0
    }
    /// As [`Outlet::is_busy`].
    fn is_busy(&self) -> bool {
        false
    }
    /// As [`Outlet::is_spent`].
    fn is_spent(&self) -> bool {
        false
    }
    /// As [`Outlet::read`].
    fn read(&self, wanted: Wanted) -> impl Future<Output = Result<Vec<Unpacked>, String>> + Send + 'static;
}

/// Where one relay delivers.
pub trait Outlet: Send + 'static {
    /// Whether records become visible only together with the position that covers them. Then a save covers exactly what
    /// was published before it: it is asked for between batches only, takes nothing while it is under way, and settles
    /// those records before it returns; `settled` by itself tells failures only.
    const ATOMIC: bool = false;
    /// Hands a record on, copying what it needs. Never waits. Once a record has failed none is taken any more: a later
    /// one that arrived would overtake it (R1).
    fn publish(&mut self, record: &Record<'_>, chunk: Chunk) -> Result<(), PublishError>;
    /// Waits until it makes sense to publish again after [`PublishError::Full`]. Does not borrow the outlet.
    fn room(&self) -> impl Future<Output = ()> + Send + 'static;
    /// What is published and not settled takes so many bytes of memory; 0 where nobody counts them.
    fn in_flight_bytes(&self) -> u64 {
        0
    }
    /// Whether a record that is handed over now would wait for the acknowledgements of others before it is sent. Each of these
    /// is told by [`Outlet::settled`], in an atomic outlet by [`Outlet::room`].
    fn is_busy(&self) -> bool {
        false
    }
    /// Whether a new outlet would deliver faster than this one, which goes on all the same. The relay begins anew as soon as
    /// everything is settled and saved.
    fn is_spent(&self) -> bool {
        false
    }
    /// Waits until at least one record is settled and appends what is. Cancel-safe.
    fn settled(&mut self, into: &mut Vec<Settled>) -> impl Future<Output = ()> + Send;
    /// Makes a position durable. The future does not borrow the outlet, so that publishing goes on beside it; at most
    /// one is under way at a time.
    fn save(&mut self, position: &Position) -> impl Future<Output = Result<(), StoreError>> + Send + 'static {
        self.keep(position, None)
    }
    /// As [`Outlet::save`], and with the position, which aggregates are parked; without that they are what they were.
    fn keep(
        &mut self,
        position: &Position,
        parked: Option<&Parked>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + 'static;
    /// Reads back records that were acknowledged before, those of one key in the order in which they arrived; or says why that
    /// cannot be. A record may be there more than once, and so may its place with an older event. Does not borrow the outlet.
    fn read(&self, wanted: Wanted) -> impl Future<Output = Result<Vec<Unpacked>, String>> + Send + 'static;
    /// Ends ownership after the last save.
    fn release(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;
}
