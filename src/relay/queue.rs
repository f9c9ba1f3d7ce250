//! The queue between the tail and one relay, bounded in bytes.
//!
//! Promise: what is in the queue, together with the item being worked on, never counts more than the limit, but for one
//! item that is larger than the limit by itself: it travels alone.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::Item;

/// Bytes that one permit stands for: semaphores count in 32 bits, queues may be larger.
const UNIT: usize = 1024;

/// The tail's end.
#[derive(Debug)]
pub struct Sender {
    items: mpsc::UnboundedSender<Held>,
    room: Arc<Semaphore>,
    limit: u32,
}

/// The relay's end.
#[derive(Debug)]
pub struct Receiver {
    items: mpsc::UnboundedReceiver<Held>,
    room: Arc<Semaphore>,
    limit: u32,
}

/// An item that counts towards the limit until it is dropped.
#[derive(Debug)]
pub struct Held {
    /// The item.
    pub item: Item,
    _room: OwnedSemaphorePermit,
}

/// The relay has ended; the item comes back.
#[derive(Debug)]
pub struct Closed(pub Item);

/// A queue that holds at most `limit` bytes.
pub fn bounded(limit: usize) -> (Sender, Receiver) {
    let limit = u32::try_from(limit.div_ceil(UNIT)).unwrap_or(u32::MAX >> 3).clamp(1, u32::MAX >> 3);
    let room = Arc::new(Semaphore::new(limit as usize));
    let (sender, receiver) = mpsc::unbounded_channel();
    (Sender { items: sender, room: Arc::clone(&room), limit }, Receiver { items: receiver, room, limit })
}

impl Sender {
    /// Waits for room and puts the item in.
    pub async fn send(&self, item: Item) -> Result<(), Closed> {
        // An empty item takes one unit too: nothing in the queue is free.
        let units = u32::try_from(item.memory().div_ceil(UNIT)).unwrap_or(self.limit).clamp(1, self.limit);
        let permit = tokio::select! {
            biased;
            permit = Arc::clone(&self.room).acquire_many_owned(units) => permit,
            () = self.items.closed() => return Err(Closed(item)),
        };
        let Ok(room) = permit else { return Err(Closed(item)) };
        self.items.send(Held { item, _room: room }).map_err(|refused| Closed(refused.0.item))
    }
}

impl Receiver {
    /// The next item; `None` once the tail has ended and the queue is empty. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Held> {
        self.items.recv().await
    }

    /// Bytes in the queue and in work.
    pub fn bytes(&self) -> usize {
        (self.limit as usize - self.room.available_permits()) * UNIT
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::position::Position;
    use crate::source::{BatchBuilder, BatchFull};

    fn batch(bytes: usize) -> Item {
        let mut batch = BatchBuilder::new(1);
        let mut row = batch.row();
        row.set::<BatchFull>(0, |out| {
            out.resize(out.len() + bytes, 0);
            Ok(())
        })
        .unwrap();
        row.finish();
        Item::Batch(batch.take(Arc::new(Position::default())))
    }

    #[tokio::test]
    async fn a_full_queue_waits_until_the_relay_is_done_with_an_item() {
        let (sender, mut receiver) = bounded(8 * UNIT);
        sender.send(batch(5 * UNIT)).await.unwrap();
        assert!(sender.send(batch(5 * UNIT)).now_or_never().is_none());
        let held = receiver.recv().await.unwrap();
        assert!(sender.send(batch(5 * UNIT)).now_or_never().is_none(), "an item in work still counts");
        drop(held);
        sender.send(batch(5 * UNIT)).now_or_never().unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_item_larger_than_the_queue_travels_alone() {
        let (sender, mut receiver) = bounded(2 * UNIT);
        sender.send(batch(100 * UNIT)).await.unwrap();
        assert!(sender.send(batch(1)).now_or_never().is_none());
        drop(receiver.recv().await.unwrap());
        sender.send(batch(1)).now_or_never().unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_sender_learns_that_the_relay_has_ended_also_while_it_waits() {
        let (sender, receiver) = bounded(UNIT);
        sender.send(batch(UNIT)).await.unwrap();
        let waiting = tokio::spawn(async move { sender.send(batch(UNIT)).await.is_err() });
        tokio::task::yield_now().await;
        drop(receiver);
        assert!(waiting.await.unwrap());
    }
}
