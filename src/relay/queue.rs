//! The queue between a reader of the log and one relay, bounded in bytes, and the line of such queues that a relay reads.
//!
//! Promise: what is in the queue, together with the item being worked on, never counts more than the limit, but for one
//! item that is larger than the limit by itself: it travels alone. A relay's readers take turns, each with a queue of its
//! own; the relay reads them one after another, each to its end, in the order in which they were put in line. How full the
//! queue is that is read now can be asked at any moment, also while its relay waits.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::Item;

/// Bytes that one permit stands for: semaphores count in 32 bits, queues may be larger.
const UNIT: usize = 1024;

/// The tail's end.
#[derive(Debug)]
pub struct Sender {
    items: mpsc::UnboundedSender<Held>,
    level: Level,
}

/// The relay's end.
#[derive(Debug)]
pub struct Receiver {
    items: mpsc::UnboundedReceiver<Held>,
    level: Level,
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

/// Why an item cannot be put in at once; it comes back.
#[derive(Debug)]
pub enum Refused {
    /// There is no room now.
    Full(Item),
    /// The relay has ended.
    Closed(Item),
}

/// How full a queue is, as seen from outside.
#[derive(Debug, Clone)]
pub struct Level {
    room: Arc<Semaphore>,
    limit: u32,
}

/// How full the queue is that a line reads now, for whoever asks; clones tell the same.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<Mutex<Option<Level>>>);

/// The relay's end of a line of queues.
#[derive(Debug)]
pub struct Line {
    gauge: Gauge,
    /// What was looked at and not given yet.
    ahead: Option<Held>,
    now: Option<Receiver>,
    later: mpsc::UnboundedReceiver<Receiver>,
}

/// Where queues are put in line.
#[derive(Debug)]
pub struct LineEnd(mpsc::UnboundedSender<Receiver>);

/// A line without a queue yet, which the gauge tells of from now on.
pub fn line(gauge: Gauge) -> (LineEnd, Line) {
    let (end, later) = mpsc::unbounded_channel();
    (LineEnd(end), Line { gauge, ahead: None, now: None, later })
}

impl LineEnd {
    /// Puts a queue behind those that are in line.
    pub fn push(&self, queue: Receiver) {
        // A relay that has ended reads nothing more; its reader learns that from the queue.
        let _ = self.0.send(queue);
    }
}

impl Line {
    /// The next item; `None` once nothing more can come. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Held> {
        if let Some(held) = self.ahead.take() {
            return Some(held);
        }
        loop {
            if let Some(queue) = &mut self.now {
                if let Some(held) = queue.recv().await {
                    return Some(held);
                }
                self.now = None;
            }
            let next = self.later.recv().await?;
            self.gauge.show(next.level.clone());
            self.now = Some(next);
        }
    }

    /// The next item if it is wanted; otherwise waits for ever, and only looks at what comes next. Cancel-safe.
    pub async fn recv_if(&mut self, wanted: bool) -> Option<Held> {
        if wanted {
            return self.recv().await;
        }
        if self.ahead.is_none() {
            self.ahead = self.recv().await;
        }
        std::future::pending().await
    }

    /// When the oldest event was committed that was looked at and not given, in microseconds since the Unix epoch.
    pub fn ahead_micros(&self) -> Option<u64> {
        match &self.ahead.as_ref()?.item {
            Item::Batch(batch) => batch.rows().next().map(|row| row.commit_micros()),
            _ => None,
        }
    }

    /// Whether nothing is in the queue that is read now or in work.
    pub fn is_idle(&self) -> bool {
        self.now.as_ref().is_none_or(|queue| queue.level.is_empty())
    }

    /// Whether nothing can be had from the queue that is read now without waiting.
    pub fn is_empty(&self) -> bool {
        self.ahead.is_none() && self.now.as_ref().is_none_or(|queue| queue.items.is_empty())
    }
}

impl From<Receiver> for Line {
    /// A line of one queue.
    fn from(queue: Receiver) -> Self {
        Self { gauge: Gauge::default(), ahead: None, now: Some(queue), later: mpsc::unbounded_channel().1 }
    }
}

impl Gauge {
    /// Bytes in the queue that is read now, and in work; 0 before the first queue, and once the relay has ended.
    pub fn bytes(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map_or(0, Level::bytes)
    }

    fn show(&self, level: Level) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(level);
    }
}

impl Level {
    /// Whether nothing is in the queue or in work.
    pub fn is_empty(&self) -> bool {
        self.room.available_permits() == self.limit as usize
    }

    /// Bytes in the queue and in work; the whole limit while somebody waits for room, or until it is empty.
    fn bytes(&self) -> u64 {
        (self.limit as usize - self.room.available_permits()) as u64 * UNIT as u64
    }

    /// Waits until nothing is in the queue or in work, or the relay has ended. Nothing may be put in meanwhile.
    pub async fn emptied(&self) {
        // The semaphore is never closed.
        let _ = self.room.acquire_many(self.limit).await;
    }
}

/// A queue that holds at most `limit` bytes.
pub fn bounded(limit: usize) -> (Sender, Receiver) {
    let limit = u32::try_from(limit.div_ceil(UNIT)).unwrap_or(u32::MAX >> 3).clamp(1, u32::MAX >> 3);
    let level = Level { room: Arc::new(Semaphore::new(limit as usize)), limit };
    let (sender, receiver) = mpsc::unbounded_channel();
    (Sender { items: sender, level: level.clone() }, Receiver { items: receiver, level })
}

impl Sender {
    /// How full the queue is.
    pub fn level(&self) -> Level {
        self.level.clone()
    }

    /// Whether the relay has ended.
    pub fn is_closed(&self) -> bool {
        self.items.is_closed()
    }

    /// Puts the item in if there is room.
    pub fn try_send(&self, item: Item) -> Result<(), Refused> {
        if self.is_closed() {
            return Err(Refused::Closed(item));
        }
        match Arc::clone(&self.level.room).try_acquire_many_owned(self.units(&item)) {
            Ok(room) => self.items.send(Held { item, _room: room }).map_err(|refused| Refused::Closed(refused.0.item)),
            Err(_) => Err(Refused::Full(item)),
        }
    }

    /// An empty item takes one unit too: nothing in the queue is free.
    fn units(&self, item: &Item) -> u32 {
        u32::try_from(item.memory().div_ceil(UNIT)).unwrap_or(self.level.limit).clamp(1, self.level.limit)
    }

    /// Waits for room and puts the item in.
    pub async fn send(&self, item: Item) -> Result<(), Closed> {
        let permit = tokio::select! {
            biased;
            permit = Arc::clone(&self.level.room).acquire_many_owned(self.units(&item)) => permit,
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
    async fn a_line_gives_each_queue_to_its_end_in_order_and_a_level_tells_when_one_is_empty() {
        let (end, mut line) = line(Gauge::default());
        let (first, receiver) = bounded(8 * UNIT);
        end.push(receiver);
        let (second, receiver) = bounded(8 * UNIT);
        end.push(receiver);
        second.send(batch(2 * UNIT)).await.unwrap();
        first.send(batch(5 * UNIT)).await.unwrap();
        assert!(matches!(first.try_send(batch(5 * UNIT)), Err(Refused::Full(_))));
        let level = first.level();
        let held = line.recv().await.unwrap();
        assert!(held.item.memory() >= 5 * UNIT && line.recv().now_or_never().is_none(), "the first queue is open yet");
        drop(first);
        assert!(level.emptied().now_or_never().is_none() && !level.is_empty(), "an item is in work");
        drop(held);
        assert!(level.emptied().now_or_never().is_some() && level.is_empty());
        assert!(line.recv().await.unwrap().item.memory() < 5 * UNIT);
        second.send(batch(UNIT)).await.unwrap();
        assert!(line.ahead_micros().is_none() && line.recv_if(false).now_or_never().is_none());
        assert!(line.ahead_micros().is_some(), "it is looked at");
        assert!(line.recv_if(true).now_or_never().unwrap().is_some() && line.ahead_micros().is_none());
        drop((second, end));
        assert!(line.recv().await.is_none());
    }

    #[tokio::test]
    async fn a_gauge_tells_how_full_the_queue_is_also_while_the_relay_looks_away() {
        let gauge = Gauge::default();
        let (end, mut line) = line(gauge.clone());
        let told = || gauge.bytes() / UNIT as u64;
        let (first, receiver) = bounded(8 * UNIT);
        end.push(receiver);
        assert!(told() == 0 && line.recv().now_or_never().is_none(), "the line takes its queue");
        first.send(batch(UNIT)).await.unwrap();
        let one = told();
        assert!((1..3).contains(&one), "{one}");
        first.send(batch(UNIT)).await.unwrap();
        assert_eq!(told(), 2 * one, "nobody has read since");
        let held = line.recv().await.unwrap();
        assert_eq!(told(), 2 * one, "an item in work still counts");
        drop(held);
        assert_eq!(told(), one);
        let waiting = tokio::spawn(async move { first.send(batch(8 * UNIT)).await.is_err() });
        tokio::task::yield_now().await;
        assert_eq!(told(), 8, "somebody waits for room");
        drop(line);
        assert!(waiting.await.unwrap());
        assert_eq!(told(), 0, "the relay has ended");
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
