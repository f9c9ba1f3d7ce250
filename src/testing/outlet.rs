//! Outlets in memory: a way into the broker, and a position store of any kind.

use super::broker::MemoryPublisher;
use crate::outbox::Record;
use crate::outbox::aside::Unpacked;
use crate::outlet::{AtLeastOnce, Chunk, DeliveryError, Outlet, Publish, PublishError, Settled, Wanted};
use crate::position::{Claim, Parked, Position, PositionStore, StoreError};

/// At least once, into memory.
pub type MemoryOutlet<S> = AtLeastOnce<MemoryPublisher, S>;

/// Publishes into memory in transactions, which reach the store and the readers together.
#[derive(Debug)]
pub struct MemoryTransactions<S> {
    publisher: MemoryPublisher,
    store: S,
    claim: Claim,
}

impl<S: PositionStore + Clone> MemoryTransactions<S> {
    /// For one claimed table, with a publisher of transactions.
    pub fn new(publisher: MemoryPublisher, store: S, claim: Claim) -> Self {
        Self { publisher, store, claim }
    }
}

fn given_up(reason: &str) -> DeliveryError {
    DeliveryError::retriable("transaction", reason)
}

impl<S: PositionStore + Clone> Outlet for MemoryTransactions<S> {
    const ATOMIC: bool = true;

    fn publish(&mut self, record: &Record<'_>, chunk: Chunk) -> Result<(), PublishError> {
        self.publisher.publish(record, chunk)
    }

    fn room(&self) -> impl Future<Output = ()> + Send + 'static {
        self.publisher.room()
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

    fn read(&self, wanted: Wanted) -> impl Future<Output = Result<Vec<Unpacked>, String>> + Send + 'static {
        self.publisher.read(wanted)
    }

    fn keep(
        &mut self,
        position: &Position,
        parked: Option<&Parked>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + 'static {
        let (publisher, store) = (self.publisher.clone(), self.store.clone());
        let (claim, position, parked) = (self.claim.clone(), position.clone(), parked.cloned());
        publisher.close();
        async move {
            publisher.written().await.map_err(|error| StoreError::Broken(error.to_string()))?;
            // The store in memory does not make us wait, so nobody comes between it and the commit.
            match store.keep(&claim, &position, parked.as_ref()).await {
                Ok(()) => publisher.commit(),
                Err(error) => {
                    publisher.abort(&given_up(&error.to_string()));
                    return Err(match error {
                        StoreError::Unavailable(reason) => StoreError::Broken(reason),
                        error => error,
                    });
                }
            }
            Ok(())
        }
    }

    async fn release(&mut self) -> Result<(), StoreError> {
        self.publisher.abort(&given_up("released"));
        self.store.release(&self.claim).await
    }
}
