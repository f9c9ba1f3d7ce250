//! Supervising the relays of a process: claims, one shared tail, and a fresh start for a relay that needs it.
//!
//! Promise: every table is claimed, and where it starts is durable, before anything is read for it; a relay that ends by
//! name does not end the others; one that has to start again does so from its durable position, and comes back to the
//! shared tail as its feeder brings it there; no other waits for it.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::assembler::Limits;
use super::backoff::Backoff;
use super::feeder::{Feeder, Shared};
use super::meeting::Distances;
use super::queue;
use super::settings::{OnUpdate, RelaySettings, Start};
use super::stats::{State, TableStats, TailStats};
use super::tail::{Making, Request, Tail};
use super::worker::{Halt, Outcome, Worker};
use crate::outbox::Mapping;
use crate::outlet::Outlet;
use crate::position::{Claim, Position, PositionStore, StoreError};
use crate::source::{Fault, LogSource, SourceError, Subscription};
use crate::table::TableName;

/// How long claims wait for an owner that is just leaving, all together.
const CLAIM_WAIT: Duration = Duration::from_secs(10);

/// How often a claim is tried meanwhile.
const CLAIM_EVERY: Duration = Duration::from_millis(200);

/// One table to relay.
#[derive(Debug, Clone)]
pub struct Table {
    /// What to read of it.
    pub subscription: Subscription,
    /// What becomes of its rows.
    pub mapping: Mapping,
    /// Where it starts without a position; without an answer, at the beginning of a log that is whole.
    pub start: Option<Start>,
}

/// Why the relays cannot start, or have ended.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// Where a table starts has to be told.
    #[error(
        "{table} has no position yet, and the log is not known to begin before its first row; set start = \"earliest\" \
         to publish from {oldest} on, or start = \"now\""
    )]
    NoStart {
        /// The table.
        table: TableName,
        /// The beginning of the log.
        oldest: Position,
    },
    /// The log cannot be read for good.
    #[error("{0}")]
    Log(Fault),
    /// A task failed within this process.
    #[error("a task ended by itself: {0}")]
    Task(#[from] JoinError),
}

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
    /// Sizes and times.
    pub settings: RelaySettings,
    /// How much log is little.
    pub distances: Distances,
    /// What the shared tail tells of itself.
    pub tail_stats: Arc<TailStats>,
}

/// One supervised table.
struct Relay {
    table: Table,
    stats: Arc<TableStats>,
    backoff: Backoff,
    started: Instant,
}

/// A claimed table's worker, what it reads from, and where it resumes.
struct Ready<O> {
    worker: Worker<O>,
    line: queue::LineEnd,
    resume: Position,
}

/// How a task ended.
enum Ended {
    Tail,
    Relay(Box<Relay>, Result<Outcome, SupervisorError>),
}

impl<P, N, S, M, O> Supervisor<P, N, M>
where
    P: PositionStore,
    S: LogSource,
    N: Fn(Reader) -> S + Send + Sync + 'static,
    O: Outlet,
    M: Fn(Claim) -> Result<O, String> + Send + Sync + 'static,
{
    /// Relays these tables until `stop`, or until every one has halted.
    pub async fn run(
        self,
        tables: Vec<(Table, Arc<TableStats>)>,
        stop: CancellationToken,
    ) -> Result<Summary, SupervisorError> {
        let (requests, requested) = mpsc::unbounded_channel();
        let shared = self.shared(requests);
        let this = Arc::new(self);
        let mut tasks = JoinSet::new();
        let mut running = tables.len();
        let mut halted = 0;
        let deadline = Instant::now() + CLAIM_WAIT;
        let claims = tables.into_iter().map(async |(table, stats)| {
            let relay = Box::new(Relay { table, stats, backoff: this.backoff(), started: Instant::now() });
            let ready = this.ready(&relay, deadline, &stop).await;
            (relay, ready)
        });
        let mut claimed = Vec::new();
        // All at once: what one of them left unfinished may be what another one waits for.
        for (relay, ready) in join_all(claims).await {
            match ready? {
                Ok(ready) => claimed.push((relay, ready)),
                Err(outcome) => _ = tasks.spawn(async move { Ended::Relay(relay, Ok(outcome)) }),
            }
        }
        let points: Vec<_> = claimed.iter().map(|(_, ready)| &ready.resume.point).collect();
        if let Some((start, near)) = this.distances.together(&points) {
            let mut tail =
                Tail::new((this.source)(Reader::Tail), start, this.making(), Arc::clone(&this.tail_stats), requested);
            for ((relay, Ready { worker, line, resume }), near) in claimed.into_iter().zip(near) {
                let mut feeder = this.feeder(&relay, line, resume, &shared);
                if near {
                    tail.feed(feeder.start());
                }
                let stop = stop.clone();
                tasks.spawn(async move {
                    let outcome = relayed(worker, feeder, stop).await;
                    Ended::Relay(relay, Ok(outcome))
                });
            }
            let stop = stop.clone();
            tasks.spawn(async move {
                tail.run(stop).await;
                Ended::Tail
            });
        }
        while running > 0 {
            let Some(ended) = tasks.join_next().await else { break };
            let Ended::Relay(relay, outcome) = ended? else { continue };
            relay.stats.set_attached();
            let table = &relay.stats.table;
            match outcome? {
                Outcome::Restart(reason) if !stop.is_cancelled() => {
                    warn!(%table, %reason, "relay_restarts");
                    tasks.spawn(Arc::clone(&this).again(relay, shared.clone(), stop.clone()));
                    continue;
                }
                Outcome::Halted(halt) => {
                    error!(%table, reason = halt.name, detail = %halt.detail, "relay_halted");
                    halted += 1;
                }
                Outcome::Abandoned { unsaved } => warn!(%table, unsaved, "relay_stopped_before_it_was_drained"),
                Outcome::Restart(reason) => warn!(%table, %reason, "relay_stopped_before_it_was_drained"),
                Outcome::Drained => info!(%table, "relay_drained"),
            }
            running -= 1;
        }
        Ok(Summary { halted })
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(self.settings.retry_initial, self.settings.retry_max)
    }

    fn making(&self) -> Making {
        let limits = Limits {
            batch_bytes: bytes(self.settings.batch_bytes),
            hold_bytes: bytes(self.settings.transaction_hold_bytes),
            halt_on_update: self.settings.on_update == OnUpdate::Halt,
        };
        Making { limits, backoff: self.backoff(), patience: self.settings.detach_after, distances: self.distances }
    }

    fn shared(&self, requests: mpsc::UnboundedSender<Request>) -> Shared {
        Shared {
            requests,
            turns: Arc::new(Semaphore::new(self.settings.catch_up_readers)),
            queue_bytes: bytes(self.settings.queue_bytes),
            making: self.making(),
        }
    }

    fn feeder(
        self: &Arc<Self>,
        relay: &Relay,
        line: queue::LineEnd,
        resume: Position,
        shared: &Shared,
    ) -> Feeder<impl Fn() -> S + Send + Sync + use<P, N, S, M, O>> {
        let this = Arc::clone(self);
        let source = move || (this.source)(Reader::Own);
        let subscription = relay.table.subscription.clone();
        Feeder::new(shared.clone(), source, subscription, Arc::clone(&relay.stats), line, resume)
    }

    /// A relay once more, from its durable position; its feeder brings it back to the tail.
    async fn again(self: Arc<Self>, mut relay: Box<Relay>, shared: Shared, stop: CancellationToken) -> Ended {
        if relay.started.elapsed() > self.settings.retry_max {
            relay.backoff.reset();
        }
        let wait = relay.backoff.wait();
        let _ = stop.run_until_cancelled(sleep(wait)).await;
        relay.started = Instant::now();
        let outcome = match self.ready(&relay, Instant::now() + CLAIM_WAIT, &stop).await {
            Err(error) => Err(error),
            Ok(Err(outcome)) => Ok(outcome),
            Ok(Ok(Ready { worker, line, resume })) => {
                let feeder = self.feeder(&relay, line, resume, &shared);
                Ok(relayed(worker, feeder, stop).await)
            }
        };
        Ended::Relay(relay, outcome)
    }

    /// Claims a table. One that cannot be claimed halts alone.
    async fn ready(
        &self,
        relay: &Relay,
        deadline: Instant,
        stop: &CancellationToken,
    ) -> Result<Result<Ready<O>, Outcome>, SupervisorError> {
        let Relay { table, stats, .. } = relay;
        let name = &table.subscription.table;
        let (claim, resume) = match self.claim(table, deadline, stop).await? {
            Ok(Some(claimed)) => claimed,
            Ok(None) => {
                stats.set_state(State::Stopped, None);
                return Ok(Err(Outcome::Drained));
            }
            Err(halt) => {
                stats.set_state(State::Halted, Some(halt.to_string()));
                return Ok(Err(Outcome::Halted(halt)));
            }
        };
        info!(table = %name, position = %resume, epoch = claim.epoch, "table_claimed");
        stats.set_position(Arc::new(resume.clone()));
        let outlet = match (self.outlet)(claim) {
            Ok(outlet) => outlet,
            Err(reason) => return Ok(Err(Outcome::Restart(reason))),
        };
        let (end, line) = queue::line();
        let worker = Worker::new(table.mapping.clone(), outlet, line, (&self.settings).into(), Arc::clone(stats));
        Ok(Ok(Ready { worker, line: end, resume }))
    }

    /// The right to relay a table, and from where; `None` when `stop` came first. An owner that is just leaving is waited
    /// for until `deadline`.
    async fn claim(
        &self,
        table: &Table,
        deadline: Instant,
        stop: &CancellationToken,
    ) -> Result<Result<Option<(Claim, Position)>, Halt>, SupervisorError> {
        let name = &table.subscription.table;
        let mut backoff = self.backoff();
        while !stop.is_cancelled() {
            let result = match self.store.claim(name).await {
                Ok(claimed) => match claimed.position {
                    Some(position) => match self.stranded(&position).await {
                        Ok(None) => return Ok(Ok(Some((claimed.claim, position)))),
                        Ok(Some(halt)) => {
                            let _ = self.store.release(&claimed.claim).await;
                            return Ok(Err(halt));
                        }
                        Err(reason) => Err(StoreError::Unavailable(reason)),
                    },
                    None => match self.first(table, stop).await? {
                        None => break,
                        // Where it starts must not depend on when it starts again.
                        Some(first) => {
                            self.store.save(&claimed.claim, &first).await.map(|()| Some((claimed.claim, first)))
                        }
                    },
                },
                Err(error) => Err(error),
            };
            match result {
                Err(StoreError::Unavailable(reason) | StoreError::Broken(reason)) => {
                    warn!(table = %name, %reason, "waiting_for_position_store");
                    self.tail_stats.set_waiting(format!("waiting for the position store: {reason}"));
                    let _ = stop.run_until_cancelled(sleep(backoff.wait())).await;
                }
                Err(StoreError::Owned { .. }) if Instant::now() < deadline => {
                    let _ = stop.run_until_cancelled(sleep(CLAIM_EVERY)).await;
                }
                Err(error) => {
                    let name = if matches!(error, StoreError::Fenced { .. }) { "fenced" } else { "not_claimed" };
                    return Ok(Err(Halt { name, detail: error.to_string() }));
                }
                Ok(claimed) => return Ok(Ok(claimed)),
            }
        }
        Ok(Ok(None))
    }

    /// Whether the log has lost what comes after a position. Asked for each table, so that one that is stranded halts alone.
    async fn stranded(&self, position: &Position) -> Result<Option<Halt>, String> {
        let oldest = match (self.source)(Reader::Own).oldest().await {
            Ok(oldest) => oldest,
            Err(SourceError::Transient(reason)) => return Err(reason),
            // The tail will say the same of every table.
            Err(SourceError::Definite(_)) => return Ok(None),
        };
        let reachable = oldest.point.partial_cmp(&position.point).is_some_and(Ordering::is_le);
        let detail = || format!("the log begins after {oldest}, the table resumes after {position}");
        let lost = oldest.point.kind() == position.point.kind() && !reachable;
        Ok(lost.then(|| Halt { name: "position_purged", detail: detail() }))
    }

    /// Where a table starts that has never saved a position; `None` when `stop` came first. Without an answer in the
    /// configuration, the beginning of the log is taken only when nothing of it is purged.
    async fn first(&self, table: &Table, stop: &CancellationToken) -> Result<Option<Position>, SupervisorError> {
        let mut source = (self.source)(Reader::Own);
        let mut backoff = self.backoff();
        while !stop.is_cancelled() {
            let found = match table.start {
                Some(Start::Now) => source.newest().await,
                Some(Start::Earliest) | None => source.oldest().await,
            };
            match found {
                Ok(oldest) if table.start.is_none() && !oldest.is_beginning() => {
                    return Err(SupervisorError::NoStart { table: table.subscription.table.clone(), oldest });
                }
                Ok(position) => return Ok(Some(position)),
                Err(SourceError::Definite(fault)) => return Err(SupervisorError::Log(fault)),
                Err(SourceError::Transient(reason)) => {
                    warn!(table = %table.subscription.table, %reason, "waiting_for_log");
                    let _ = stop.run_until_cancelled(sleep(backoff.wait())).await;
                }
            }
        }
        Ok(None)
    }
}

/// A relay and what feeds it, until the relay ends.
async fn relayed<O: Outlet, N: Fn() -> S + Send + Sync, S: LogSource>(
    worker: Worker<O>,
    feeder: Feeder<N>,
    stop: CancellationToken,
) -> Outcome {
    let worker = worker.run(stop.clone());
    tokio::pin!(worker);
    tokio::select! {
        biased;
        outcome = &mut worker => return outcome,
        _ = stop.run_until_cancelled(feeder.run()) => {}
    }
    worker.await
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
