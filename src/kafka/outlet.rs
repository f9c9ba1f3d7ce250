//! The outlet of at-least-once delivery: the table's idempotent producer, and a position store.

use super::producer::Publisher;
use crate::outbox::Record;
use crate::outlet::{Chunk, Outlet, PublishError, Settled};
use crate::position::{Claim, Position, PositionStore, StoreError};

/// Publishes, and saves what is acknowledged to a store.
pub struct AtLeastOnce<S> {
    publisher: Publisher,
    store: S,
    claim: Claim,
}

impl<S: PositionStore + Clone> AtLeastOnce<S> {
    /// For one claimed table.
    pub fn new(publisher: Publisher, store: S, claim: Claim) -> Self {
        Self { publisher, store, claim }
    }
}

impl<S: PositionStore + Clone> Outlet for AtLeastOnce<S> {
    fn publish(&mut self, record: &Record<'_>, chunk: Chunk) -> Result<(), PublishError> {
        self.publisher.publish(record, chunk)
    }

    fn room(&self) -> impl Future<Output = ()> + Send + 'static {
        self.publisher.room()
    }

    async fn settled(&mut self, into: &mut Vec<Settled>) {
        self.publisher.settled(into).await;
    }

    fn save(&mut self, position: &Position) -> impl Future<Output = Result<(), StoreError>> + Send + 'static {
        let (store, claim, position) = (self.store.clone(), self.claim.clone(), position.clone());
        async move { store.save(&claim, &position).await }
    }

    async fn release(&mut self) -> Result<(), StoreError> {
        self.store.release(&self.claim).await
    }
}
