//! The feeder of one table: sees to it that exactly one reader of the log feeds it, the shared tail whenever possible.
//!
//! Promise: a table that the tail let go of comes back to it without loss, reordering or duplicates (see
//! [`super::meeting`]); while it cannot take anything it reads nothing, so a stuck table costs no connection; and no more
//! than so many tables read on their own at the same time, the others wait for their turn and say so.
//!
//! A table holds at most two queues' worth of rows: that of its catch-up reader, and that which the tail fills meanwhile.
//! One whose position asks for the rows in the table has these first, by a scan, and the log from there on.

mod scan;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use super::queue::{self, Level, LineEnd, Receiver};
use super::stats::{State, TableStats};
use super::tail::{Answer, Ended, Feed, Making, Request, Tail};
use super::turns::Turns;
use crate::position::{Point, Position};
use crate::source::{LogSource, Subscription};

/// What the feeders of a process share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The way to the shared tail.
    pub requests: mpsc::UnboundedSender<Request>,
    /// Turns of catch-up readers.
    pub turns: Turns,
    /// Turns of tables that are read themselves.
    pub scans: Turns,
    /// Size of a queue, in bytes.
    pub queue_bytes: usize,
    /// What keys may take that a reader of a table remembers, in bytes.
    pub snapshot_keys_bytes: usize,
    /// What readers are made with.
    pub making: Making,
}

/// What is known of the reader that feeds the table.
struct Hold {
    level: Level,
    left: oneshot::Receiver<Position>,
}

/// Feeds one table.
pub struct Feeder<N> {
    shared: Shared,
    source: N,
    subscription: Subscription,
    stats: Arc<TableStats>,
    line: LineEnd,
    resume: Position,
    hold: Option<Hold>,
}

impl<N, S> Feeder<N>
where
    N: Fn() -> S + Send + Sync,
    S: LogSource,
{
    /// A feeder of a table that stands at `resume`; its queues are put into `line`.
    pub fn new(
        shared: Shared,
        source: N,
        subscription: Subscription,
        stats: Arc<TableStats>,
        line: LineEnd,
        resume: Position,
    ) -> Self {
        Self { shared, source, subscription, stats, line, resume, hold: None }
    }

    /// What a tail that starts at or before the table's position is given to feed it with.
    pub fn start(&mut self) -> Feed {
        let (feed, queue, hold) = self.feed();
        self.attach(queue, hold);
        feed
    }

    /// Feeds the table until this is dropped, or there is nothing more to feed it with.
    pub async fn run(mut self) {
        if self.read_table().await.is_none() {
            return;
        }
        loop {
            if let Some(Hold { level, left }) = self.hold.take() {
                // Without a word it has been told a fault, and its relay ends.
                let Ok(at) = left.await else { return };
                self.resume = at;
                self.let_go(&level).await;
            }
            if self.come_back().await.is_none() {
                return;
            }
        }
    }

    fn feed(&self) -> (Feed, Receiver, Hold) {
        let (queue, receiver) = queue::bounded(self.shared.queue_bytes);
        let (tell, left) = oneshot::channel();
        let hold = Hold { level: queue.level(), left };
        let feed = Feed { subscription: self.subscription.clone(), resume: self.resume.clone(), queue, left: tell };
        (feed, receiver, hold)
    }

    fn attach(&mut self, queue: Receiver, hold: Hold) {
        self.line.push(queue);
        self.hold = Some(hold);
        self.stats.set_attached();
    }

    /// The queue stayed full: reading on would stall a connection. Waits until the relay has taken everything.
    async fn let_go(&self, level: &Level) {
        warn!(table = %self.stats.table, position = %self.resume, "table_detached");
        self.stats.detaches.fetch_add(1, Relaxed);
        self.stats.set_apart(State::Detached, "its queue was full; it reads on once the queue is empty".to_owned());
        level.emptied().await;
    }

    /// One turn of the way back to the tail; `None` when the table will not be fed any more.
    async fn come_back(&mut self) -> Option<()> {
        let turn = if let Some(turn) = self.shared.turns.now() {
            turn
        } else {
            let reason = "it waits for its turn to catch up; relay.catch_up_readers others do".to_owned();
            self.stats.set_apart(State::Detached, reason);
            self.shared.turns.next().await?
        };
        let (feed, queue, hold) = self.feed();
        let (answer, answered) = oneshot::channel();
        self.shared.requests.send(Request { feed, answer }).ok()?;
        let (goal, met) = match answered.await.ok()? {
            Answer::Fed(at) if self.resume >= at => {
                info!(table = %self.stats.table, position = %self.resume, "table_attached");
                self.attach(queue, hold);
                return Some(());
            }
            Answer::Fed(at) => (at, Some((queue, hold))),
            Answer::Far(at) => (at, None),
        };
        let (ended, level) = self.catch_up(goal.point).await;
        drop(turn);
        match (ended, met) {
            (Ended::Met(at), Some((queue, hold))) => {
                info!(table = %self.stats.table, position = %at, "table_attached");
                self.attach(queue, hold);
            }
            (Ended::Met(at) | Ended::Over(at), unread) => {
                drop(unread);
                self.resume = at;
                level.emptied().await;
            }
            (Ended::Full(at), unread) => {
                drop(unread);
                self.resume = at;
                self.let_go(&level).await;
            }
            (Ended::Told, _) => return None,
        }
        Some(())
    }

    /// Reads on its own up to `goal`.
    async fn catch_up(&mut self, goal: Point) -> (Ended, Level) {
        let reason = format!("it reads the log on its own, from {}", self.resume);
        self.stats.set_apart(State::CatchingUp, reason);
        let (feed, queue, Hold { level, .. }) = self.feed();
        self.line.push(queue);
        let (making, stats) = (self.shared.making.clone(), Arc::clone(&self.stats.reader));
        (Tail::catch_up((self.source)(), feed, goal, making, stats).await, level)
    }
}
