//! The outlet seam: where a relay delivers, and where its position becomes durable.
//!
//! Promise: records are handed on in the order in which they are published here (R1); every record is settled exactly
//! once, as acknowledged by all in-sync replicas or as failed; nothing is settled that was not published.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

mod at_least_once;

pub use at_least_once::AtLeastOnce;

use crate::outbox::Record;
use crate::position::{Position, StoreError};

/// Which batch of a relay a record belongs to: batches are numbered from 0 as they are published.
pub type Chunk = u64;

/// Whether the place of delivery can be reached: noted by the outlet's client, read by telemetry.
#[derive(Debug, Default)]
pub struct Reach(AtomicBool);

impl Reach {
    /// Whether at least one broker was connected when last heard of.
    pub fn is_connected(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// Notes it.
    pub fn set(&self, connected: bool) {
        self.0.store(connected, Relaxed);
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

/// A record that cannot be delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// Publishing the same again, from the last acknowledged record on, may succeed.
    #[error("{topic}: {reason}")]
    Retriable {
        /// The record's topic.
        topic: String,
        /// What Kafka says.
        reason: String,
    },
    /// Publishing again brings the same; an operator has to act.
    #[error("{name}: topic {topic}: {reason}; {cure}")]
    Definite {
        /// Stable name for alerts and documents.
        name: &'static str,
        /// The record's topic.
        topic: String,
        /// What Kafka says.
        reason: String,
        /// What cures it.
        cure: &'static str,
    },
}

/// Why a record was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishError {
    /// There is no room; wait for [`Outlet::room`] and publish the same record again.
    Full,
    /// The record is refused.
    Refused(DeliveryError),
}

/// The way of one table's records, acknowledged one by one, to where they are delivered.
pub trait Publish: Send + 'static {
    /// As [`Outlet::publish`].
    fn publish(&self, record: &Record<'_>, chunk: Chunk) -> Result<(), PublishError>;
    /// As [`Outlet::room`].
    fn room(&self) -> impl Future<Output = ()> + Send + 'static;
    /// As [`Outlet::settled`].
    fn settled(&self, into: &mut Vec<Settled>) -> impl Future<Output = ()> + Send;
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
    /// Waits until at least one record is settled and appends what is. Cancel-safe.
    fn settled(&mut self, into: &mut Vec<Settled>) -> impl Future<Output = ()> + Send;
    /// Makes a position durable. The future does not borrow the outlet, so that publishing goes on beside it; at most
    /// one is under way at a time.
    fn save(&mut self, position: &Position) -> impl Future<Output = Result<(), StoreError>> + Send + 'static;
    /// Ends ownership after the last save.
    fn release(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;
}
