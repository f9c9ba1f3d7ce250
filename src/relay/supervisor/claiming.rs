//! Claims: the right to relay a table, and from where.
//!
//! Promise: nothing is read for a table before it is claimed and the place where it starts is durable. One whose log is
//! purged, or that cannot be claimed, halts alone.

use std::cmp::Ordering;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Found, PURGED, Reader, Ready, Relay, Supervisor, Table};
use crate::outlet::Outlet;
use crate::position::{Claim, Claimed, Parked, Position, PositionStore, StoreError};
use crate::relay::backoff::Backoff;
use crate::relay::queue;
use crate::relay::settings::Start;
use crate::relay::stats::{State, TableStats};
use crate::relay::worker::{Halt, Outcome, Worker};
use crate::source::{LogSource, Lost, Place, SourceError};

/// How often a claim is tried while it has an owner.
const CLAIM_EVERY: Duration = Duration::from_millis(200);

/// Why a claim has to be tried again, or cannot be.
enum Obstacle {
    /// The position store.
    Store(StoreError),
    /// The server of the log is away.
    Log(String),
}

impl From<StoreError> for Obstacle {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// How long a question about where a table starts may go on once nobody waits for it: with the answer the claim is good.
const GRACE: Duration = Duration::from_secs(2);

/// A claimed table: the right to it, where it resumes, and which of its aggregates are parked.
type Ours = (Claim, Position, Parked);

impl<P, N, S, M, O> Supervisor<P, N, M>
where
    P: PositionStore,
    S: LogSource,
    N: Fn(Reader) -> S + Send + Sync + 'static,
    O: Outlet,
    M: Fn(Claim) -> Result<O, String> + Send + Sync + 'static,
{
    /// Claims a table. One that cannot be claimed halts alone.
    pub(super) async fn ready(&self, relay: &Relay, deadline: Instant, stop: &CancellationToken) -> Found<Ready<O>> {
        let Relay { table, stats, .. } = relay;
        let name = &table.subscription.table;
        let (claim, resume, parked) = match self.claim(table, stats, deadline, stop).await {
            Ok(Some(Found::Here(claimed))) => claimed,
            Ok(Some(Found::Paused(claim, pause))) => return Found::Paused(claim, pause),
            Ok(Some(Found::Ended(outcome))) => return Found::Ended(outcome),
            Ok(None) => {
                stats.set_state(State::Stopped, None);
                return Found::Ended(Outcome::Drained);
            }
            Err(halt) => return Found::Ended(Outcome::Halted(halt)),
        };
        info!(table = %name, position = %resume, epoch = claim.epoch, "table_claimed");
        stats.set_position(Arc::new(resume.clone()));
        let outlet = match (self.outlet)(claim) {
            Ok(outlet) => outlet,
            Err(reason) => return Found::Ended(Outcome::Restart(reason)),
        };
        let (end, line) = queue::line(stats.queue.clone());
        let worker = Worker::new(table.mapping.clone(), outlet, line, self.settings.clone(), Arc::clone(stats));
        let worker = worker.resuming(Arc::new(resume.clone()), parked, relay.condemned.clone());
        let worker = worker.traced(self.spans.clone());
        Found::Here(Ready { worker, line: end, resume })
    }

    /// The right to relay a table, and from where; `None` when `stop` came first. An owner is waited for until `deadline`: it
    /// may be just leaving, or its host have vanished.
    pub(super) async fn claim(
        &self,
        table: &Table,
        stats: &TableStats,
        deadline: Instant,
        stop: &CancellationToken,
    ) -> Result<Option<Found<Ours>>, Halt> {
        let name = &table.subscription.table;
        let mut backoff = self.backoff();
        while !stop.is_cancelled() {
            let obstacle = match self.store.claim(name).await {
                Ok(Claimed { claim, position, pause: Some(pause), parked }) => {
                    if let Ok(Some(position)) = position {
                        stats.set_position(Arc::new(position));
                    }
                    stats.set_parked(Arc::new(parked));
                    return Ok(Some(Found::Paused(claim, pause)));
                }
                Ok(Claimed { claim, position: Err(unreadable), .. }) => {
                    let _ = self.store.release(&claim).await;
                    unreadable.into()
                }
                Ok(Claimed { claim, position: Ok(position), pause: None, parked }) => {
                    let from = match position {
                        Some(position) => self.resume(stats, &claim, position).await.map(|found| found.map(Some)),
                        None => self.begin(table, stats, &claim, stop).await,
                    };
                    match from {
                        Ok(Ok(Some(position))) => return Ok(Some(Found::Here((claim, position, parked)))),
                        Ok(Ok(None)) => break,
                        Ok(Err(halt)) => {
                            let _ = self.store.release(&claim).await;
                            return Err(halt);
                        }
                        Err(obstacle) => obstacle,
                    }
                }
                Err(error) => error.into(),
            };
            match obstacle {
                Obstacle::Log(reason) => wait_for_log(stats, &reason, &mut backoff, stop).await,
                Obstacle::Store(StoreError::Unavailable(reason) | StoreError::Broken(reason)) => {
                    wait_for_store(stats, &reason, &mut backoff, stop).await;
                }
                Obstacle::Store(StoreError::Owned { owner, .. }) if Instant::now() < deadline => {
                    stats.set_reason(Some(format!("waits until {owner} lets go of it")));
                    let _ = stop.run_until_cancelled(sleep(CLAIM_EVERY)).await;
                }
                Obstacle::Store(error) => {
                    let name = match error {
                        StoreError::Fenced { .. } => "fenced",
                        StoreError::Unreadable { .. } => "position_unreadable",
                        _ => "not_claimed",
                    };
                    return Err(Halt { name, detail: error.to_string() });
                }
            }
        }
        Ok(None)
    }

    /// Makes durable where a table starts that has never saved a position: it must not depend on when it starts again. `None`
    /// when `stop` came first.
    async fn begin(
        &self,
        table: &Table,
        stats: &TableStats,
        claim: &Claim,
        stop: &CancellationToken,
    ) -> Result<Result<Option<Position>, Halt>, Obstacle> {
        let first = match self.first(table, stats, stop).await {
            Ok(Some(first)) => first,
            none => return Ok(none),
        };
        let first = match table.start {
            // Somebody has written it down: it may be of another server, or of what is purged.
            Start::At(_) => match self.resume(stats, claim, first).await? {
                Ok(first) => first,
                Err(halt) => return Ok(Err(halt)),
            },
            _ => first,
        };
        self.store.save(claim, &first).await?;
        Ok(Ok(Some(first)))
    }

    /// Where a claimed table resumes on the server that answers now, made durable where that is another place.
    async fn resume(
        &self,
        stats: &TableStats,
        claim: &Claim,
        position: Position,
    ) -> Result<Result<Position, Halt>, Obstacle> {
        let position = match (self.source)(Reader::Own).place(&position).await {
            Ok(Place::Same) => position,
            Ok(Place::Moved { to, lost }) => {
                let table = &claim.table;
                self.store.set(claim, &to).await?;
                if let Some(Lost { transactions, count }) = lost {
                    error!(%table, lost = %transactions, count, from = %position, %to, "transactions_lost_by_failover");
                    stats.lost_transactions.fetch_add(count, Relaxed);
                } else {
                    info!(%table, from = %position, %to, "position_moved");
                }
                to
            }
            Err(SourceError::Definite(fault)) => return Ok(Err(fault.into())),
            Err(SourceError::Transient(reason) | SourceError::Displaced(reason)) => {
                return Err(Obstacle::Log(reason));
            }
        };
        match self.stranded(&position).await {
            Ok(None) => Ok(Ok(position)),
            Ok(Some(oldest)) => {
                let detail = format!("the log begins after {oldest}, the table resumes after {position}");
                Ok(Err(Halt { name: PURGED, detail }))
            }
            Err(reason) => Err(Obstacle::Log(reason)),
        }
    }

    /// Where the log begins, if it has lost what comes after a position. Asked for each table, so that one that is stranded
    /// halts alone.
    pub(super) async fn stranded(&self, position: &Position) -> Result<Option<Position>, String> {
        let oldest = match (self.source)(Reader::Own).oldest().await {
            Ok(oldest) => oldest,
            Err(SourceError::Transient(reason) | SourceError::Displaced(reason)) => return Err(reason),
            // The tail will say the same of every table.
            Err(SourceError::Definite(_)) => return Ok(None),
        };
        let reachable = oldest.point.partial_cmp(&position.point).is_some_and(Ordering::is_le);
        let lost = oldest.point.kind() == position.point.kind() && !reachable;
        Ok(lost.then_some(oldest))
    }

    /// Where a table starts that has never saved a position; `None` when `stop` came first. One that cannot learn it halts
    /// alone.
    async fn first(
        &self,
        table: &Table,
        stats: &TableStats,
        stop: &CancellationToken,
    ) -> Result<Option<Position>, Halt> {
        let mut source = (self.source)(Reader::Own);
        let mut backoff = self.backoff();
        loop {
            let ask = async {
                match &table.start {
                    Start::Snapshot => source.snapshot(&table.subscription).await,
                    Start::Now => match source.newest().await {
                        Ok(newest) => source.settled().await.map(|()| newest),
                        error => error,
                    },
                    Start::Earliest => source.oldest().await,
                    Start::At(position) => Ok((**position).clone()),
                }
            };
            // Somebody may have the table locked, for minutes.
            stats.set_reason(Some("asks the server where it starts".to_owned()));
            let enough = async {
                stop.cancelled().await;
                sleep(GRACE).await;
            };
            let found = tokio::select! {
                biased;
                found = ask => found,
                () = enough => return Ok(None),
            };
            match found {
                Ok(position) => return Ok(Some(position)),
                Err(SourceError::Definite(fault)) => return Err(fault.into()),
                Err(SourceError::Transient(reason) | SourceError::Displaced(reason)) => {
                    wait_for_log(stats, &reason, &mut backoff, stop).await;
                    if stop.is_cancelled() {
                        return Ok(None);
                    }
                }
            }
        }
    }
}

/// Waits before the server of the log is asked again, or until `stop`.
async fn wait_for_log(stats: &TableStats, reason: &str, backoff: &mut Backoff, stop: &CancellationToken) {
    warn!(table = %stats.table, %reason, "waiting_for_log");
    stats.set_reason(Some(format!("waits for the binlog: {reason}")));
    let _ = stop.run_until_cancelled(sleep(backoff.wait())).await;
}

/// Waits before the position store is asked again, or until `stop`.
pub(super) async fn wait_for_store(stats: &TableStats, reason: &str, backoff: &mut Backoff, stop: &CancellationToken) {
    warn!(table = %stats.table, %reason, "waiting_for_position_store");
    stats.set_reason(Some(format!("waits for the position store: {reason}")));
    let _ = stop.run_until_cancelled(sleep(backoff.wait())).await;
}
