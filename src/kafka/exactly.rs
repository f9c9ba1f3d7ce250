//! The outlet of exactly-once delivery: a table's records and its position in one Kafka transaction.

use std::sync::Arc;

use super::producer::Publisher;
use super::store::KafkaStore;
use crate::outbox::Record;
use crate::outbox::aside::Unpacked;
use crate::outlet::{Chunk, Limit, Outlet, Publish, PublishError, Settled, Wanted};
use crate::position::{Claim, Parked, Position, PositionStore, StoreError};

/// Publishes in transactions; a save commits what was published, and the position with it.
pub struct ExactlyOnce {
    producer: Arc<Publisher>,
    store: KafkaStore,
    claim: Claim,
    limit: Limit,
}

impl ExactlyOnce {
    /// For one table that is claimed in this store, with at most `limit` in flight; `None` when the claim counts no more.
    pub fn new(store: KafkaStore, claim: Claim, limit: Limit) -> Option<Self> {
        let producer = store.producer(&claim)?;
        Some(Self { producer, store, claim, limit })
    }
}

impl Outlet for ExactlyOnce {
    const ATOMIC: bool = true;

    fn publish(&mut self, record: &Record<'_>, chunk: Chunk) -> Result<(), PublishError> {
        self.producer.publish_within(record, chunk, self.limit.bytes())
    }

    fn room(&self) -> impl Future<Output = ()> + Send + 'static {
        self.producer.room()
    }

    fn in_flight_bytes(&self) -> u64 {
        self.producer.in_flight_bytes()
    }

    fn is_busy(&self) -> bool {
        self.producer.is_busy()
    }

    fn is_spent(&self) -> bool {
        self.producer.is_spent()
    }

    async fn settled(&mut self, into: &mut Vec<Settled>) {
        self.producer.settled(into).await;
    }

    fn keep(
        &mut self,
        position: &Position,
        parked: Option<&Parked>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + 'static {
        self.store.commit(&self.claim, position, parked)
    }

    fn read(&self, wanted: Wanted) -> impl Future<Output = Result<Vec<Unpacked>, String>> + Send + 'static {
        self.producer.read(wanted)
    }

    async fn release(&mut self) -> Result<(), StoreError> {
        self.store.release(&self.claim).await
    }
}
