//! Supervising the relays of a process: claims, one shared tail, and a fresh start for a relay that needs it.
//!
//! Promise: every table is claimed, and where it starts is durable, before anything is read for it (`claiming`), all at once
//! when a process starts, where none waits for long for another (`starting`); a relay that
//! ends by name does not end the others; one that has to start again does so from its durable position, and comes back to
//! the shared tail as its feeder brings it there; no other waits for it. What an operator orders, each table's own task
//! carries out (`life`), also where nothing is relayed (`resting`); one whose log is purged may recover from its table
//! (`recovery`).

mod claiming;
mod life;
mod recovery;
mod resting;
mod starting;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::life::{Going, Readers, Turn};
use self::starting::{AtStart, First, turn_of};
use super::assembler::Limits;
use super::backoff::Backoff;
use super::control::Orders;
use super::feeder::{Feeder, Shared};
use super::meeting::Distances;
use super::queue;
use super::settings::{OnPurged, OnUpdate, RelaySettings, Start};
use super::spans::Sink;
use super::stats::{TableStats, TailStats};
use super::tail::{Making, Request, Tail};
use super::turns::Turns;
use super::worker::{Condemned, Halt, Outcome, Worker};
use crate::outbox::Mapping;
use crate::outlet::Outlet;
use crate::position::{Claim, Pause, Position, PositionStore};
use crate::source::{LogSource, Subscription};
use crate::table::TableName;

/// How long claims wait for an owner, all together: for longer than a store keeps what is left of one whose host has
/// vanished (30 s in MySQL), so that the next process goes on where that was and does not end instead. At a start, no other
/// table waits for it.
pub(crate) const CLAIM_WAIT: Duration = Duration::from_secs(45);

/// The halt of a table whose log is purged.
const PURGED: &str = "position_purged";

/// One table to relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// What to read of it.
    pub subscription: Subscription,
    /// What becomes of its rows.
    pub mapping: Mapping,
    /// Where it starts without a position.
    pub start: Start,
    /// What becomes of it when the log has lost what comes next.
    pub on_purged: OnPurged,
    /// Whether its oldest rows are deleted by us, once they are acknowledged.
    pub is_cleaned: bool,
}

/// A task failed within this process.
#[derive(Debug, thiserror::Error)]
#[error("a task ended by itself: {0}")]
pub struct SupervisorError(#[from] JoinError);

/// How the relays ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Relays that halted.
    pub halted: usize,
}

/// What a reader of the log is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// The tail that the tables share.
    Tail,
    /// One table's own tail, beside the shared one; or a question about the log.
    Own,
}

/// What relays are made of, and how they are kept.
pub struct Supervisor<P, S, O> {
    /// Where positions are durable.
    pub store: P,
    /// A reader of the log.
    pub source: S,
    /// Where a claimed table is delivered; or why that cannot be made now.
    pub outlet: O,
    /// Sizes and times. Those of workers and the numbers of readers may change while relays run.
    pub settings: watch::Receiver<RelaySettings>,
    /// How much log is little.
    pub distances: Distances,
    /// What the shared tail tells of itself.
    pub tail_stats: Arc<TailStats>,
    /// Whether a table that has halted could be relayed now.
    pub fitness: Fitness,
    /// Who wants the spans of traced events.
    pub spans: Option<Sink>,
}

/// Makes the checks that a start makes of a table; the error names those that failed.
pub type Fitness = Box<dyn Fn(TableName) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// A table to be supervised.
pub struct Supervised {
    /// What to relay.
    pub table: Table,
    /// What it tells of itself.
    pub stats: Arc<TableStats>,
    /// Where its orders arrive.
    pub orders: Orders,
    /// Why it cannot be relayed as things are: it is halted from the start.
    pub unfit: Option<String>,
}

/// One supervised table.
struct Relay {
    table: Table,
    stats: Arc<TableStats>,
    backoff: Backoff,
    condemned: Condemned,
}

/// A claimed table's worker, what it reads from, and where it resumes.
struct Ready<O> {
    worker: Worker<O>,
    line: queue::LineEnd,
    resume: Position,
}

/// What a claim may lead to.
enum Found<T> {
    /// The table can be relayed.
    Here(T),
    /// Somebody has paused it.
    Paused(Claim, Pause),
    /// It cannot be relayed, or not any more.
    Ended(Outcome),
}

/// How a task ended.
enum Ended {
    Tail,
    Relay(TableName, Outcome),
}

impl<P, N, S, M, O> Supervisor<P, N, M>
where
    P: PositionStore,
    S: LogSource,
    N: Fn(Reader) -> S + Send + Sync + 'static,
    O: Outlet,
    M: Fn(Claim) -> Result<O, String> + Send + Sync + 'static,
{
    /// Relays these tables, and those that join them, until `stop`, or until every one has halted.
    pub async fn run(
        self,
        tables: Vec<Supervised>,
        mut joins: mpsc::Receiver<Supervised>,
        stop: CancellationToken,
    ) -> Result<Summary, SupervisorError> {
        let (requests, requested) = mpsc::unbounded_channel();
        let (shared, mut settings) = (self.shared(requests), self.settings.clone());
        let this = Arc::new(self);
        let mut tasks = JoinSet::new();
        let going = Going(Arc::new(watch::channel(tables.len()).0));
        // Ends with the last relay, too.
        let stop = stop.child_token();
        let begin = |tasks: &mut JoinSet<Ended>, relay: Box<Relay>, orders, turn| {
            let table = relay.stats.table.clone();
            let life = Arc::clone(&this).live(relay, orders, turn, shared.clone(), stop.clone(), going.clone());
            tasks.spawn(async move { Ended::Relay(table, life.await) });
        };
        let AtStart { ready, others, late } = this.start(tables, &stop).await?;
        for First { relay, orders, found: turn } in others {
            begin(&mut tasks, relay, orders, turn);
        }
        let points: Vec<_> = ready.iter().map(|first| &first.found.resume).collect();
        let together = this.distances.together(&points);
        let (start, near) = together.unwrap_or_else(|| (Position::default().point, Vec::new()));
        let mut tail =
            Tail::new((this.source)(Reader::Tail), start, this.making(), Arc::clone(&this.tail_stats), requested);
        for (First { relay, orders, found: Ready { worker, line, resume } }, near) in ready.into_iter().zip(near) {
            let mut feeder = this.feeder(&relay, line, resume, &shared);
            if near {
                tail.feed(feeder.start());
            }
            begin(&mut tasks, relay, orders, Turn::Relay(Box::new((worker, feeder))));
        }
        for claim in late {
            let (this, shared, stop, going) = (Arc::clone(&this), shared.clone(), stop.clone(), going.clone());
            tasks.spawn(async move {
                let First { relay, orders, found } = claim.end().await;
                let turn = match turn_of(&relay, found) {
                    Ok(Ready { worker, line, resume }) => {
                        let feeder = this.feeder(&relay, line, resume, &shared);
                        Turn::Relay(Box::new((worker, feeder)))
                    }
                    Err(turn) => turn,
                };
                let table = relay.stats.table.clone();
                Ended::Relay(table, this.live(relay, orders, turn, shared, stop, going).await)
            });
        }
        let tail_stop = stop.clone();
        tasks.spawn(async move {
            tail.run(tail_stop).await;
            Ended::Tail
        });
        let mut left = going.0.subscribe();
        let mut halted = 0;
        loop {
            let ended = tokio::select! {
                biased;
                // Before it is asked whether any is left: the last one may leave for one that comes.
                Some(Supervised { table, stats, orders, unfit }) = joins.recv(), if !stop.is_cancelled() => {
                    going.0.send_modify(|going| *going += 1);
                    let unfit = unfit.map(|detail| Turn::Halt(Halt { name: "preflight", detail }));
                    let turn = unfit.unwrap_or(Turn::Claim(Duration::ZERO));
                    begin(&mut tasks, this.relay_of(table, stats), orders, turn);
                    continue;
                }
                Ok(()) = settings.changed() => {
                    let settings = settings.borrow_and_update();
                    shared.turns.resize(settings.catch_up_readers);
                    shared.scans.resize(settings.snapshot_readers);
                    continue;
                }
                ended = tasks.join_next() => ended,
                Ok(_) = left.wait_for(|going| *going == 0), if !stop.is_cancelled() => {
                    stop.cancel();
                    continue;
                }
            };
            let Some(ended) = ended else { return Ok(Summary { halted }) };
            let Ended::Relay(table, outcome) = ended? else { continue };
            match outcome {
                Outcome::Halted(_) => halted += 1,
                Outcome::Abandoned { unsaved } => warn!(%table, unsaved, "relay_stopped_before_it_was_drained"),
                Outcome::Restart(reason) => warn!(%table, %reason, "relay_stopped_before_it_was_drained"),
                Outcome::Drained => info!(%table, "relay_drained"),
            }
        }
    }

    fn relay_of(&self, table: Table, stats: Arc<TableStats>) -> Box<Relay> {
        let (backoff, condemned) = (self.backoff(), Condemned::default());
        Box::new(Relay { table, stats, backoff, condemned })
    }

    fn backoff(&self) -> Backoff {
        let settings = self.settings.borrow();
        Backoff::new(settings.retry_initial, settings.retry_max)
    }

    fn making(&self) -> Making {
        let settings = self.settings.borrow();
        let limits = Limits {
            batch_bytes: bytes(settings.batch_bytes),
            hold_bytes: bytes(settings.transaction_hold_bytes),
            halt_on_update: settings.on_update == OnUpdate::Halt,
        };
        Making { limits, backoff: self.backoff(), patience: settings.detach_after, distances: self.distances }
    }

    fn shared(&self, requests: mpsc::UnboundedSender<Request>) -> Shared {
        let settings = self.settings.borrow();
        Shared {
            requests,
            turns: Turns::new(settings.catch_up_readers),
            scans: Turns::new(settings.snapshot_readers),
            queue_bytes: bytes(settings.queue_bytes),
            snapshot_keys_bytes: bytes(settings.snapshot_keys_bytes),
            making: self.making(),
        }
    }

    fn feeder(
        self: &Arc<Self>,
        relay: &Relay,
        line: queue::LineEnd,
        resume: Position,
        shared: &Shared,
    ) -> Feeder<Readers<S>> {
        let this = Arc::clone(self);
        let source: Readers<S> = Box::new(move || (this.source)(Reader::Own));
        let subscription = relay.table.subscription.clone();
        Feeder::new(shared.clone(), source, subscription, Arc::clone(&relay.stats), line, resume)
    }
}

fn bytes(size: bytesize::ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod tests;
