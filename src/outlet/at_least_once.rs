//! At-least-once delivery: records are acknowledged one by one, and a position store keeps what is acknowledged.

use super::{Chunk, Outlet, Publish, PublishError, Settled, Wanted};
use crate::outbox::Record;
use crate::outbox::aside::Unpacked;
use crate::position::{Claim, Parked, Position, PositionStore, StoreError};

/// Publishes, and saves what is acknowledged to a store.
#[derive(Debug)]
pub struct AtLeastOnce<P, S> {
    publisher: P,
    store: S,
    claim: Claim,
}

impl<P: Publish, S: PositionStore + Clone> AtLeastOnce<P, S> {
    /// For one claimed table.
    pub fn new(publisher: P, store: S, claim: Claim) -> Self {
        Self { publisher, store, claim }
    }
}

impl<P: Publish, S: PositionStore + Clone> Outlet for AtLeastOnce<P, S> {
    fn publish(&mut self, record: &Record<'_>, chunk: Chunk) -> Result<(), PublishError> {
        self.publisher.publish(record, chunk)
    }

    fn room(&self) -> impl Future<Output = ()> + Send + 'static {
        self.publisher.room()
    }

    fn in_flight_bytes(&self) -> u64 {
        self.publisher.in_flight_bytes()
    }

    fn is_busy(&self) -> bool {
        self.publisher.is_busy()
    }

    fn is_spent(&self) -> bool {
        self.publisher.is_spent()
    }

    async fn settled(&mut self, into: &mut Vec<Settled>) {
        self.publisher.settled(into).await;
    }

    fn keep(
        &mut self,
        position: &Position,
        parked: Option<&Parked>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + 'static {
        let (store, claim) = (self.store.clone(), self.claim.clone());
        let (position, parked) = (position.clone(), parked.cloned());
        async move { store.keep(&claim, &position, parked.as_ref()).await }
    }

    fn read(&self, wanted: Wanted) -> impl Future<Output = Result<Vec<Unpacked>, String>> + Send + 'static {
        self.publisher.read(wanted)
    }

    async fn release(&mut self) -> Result<(), StoreError> {
        self.store.release(&self.claim).await
    }
}
