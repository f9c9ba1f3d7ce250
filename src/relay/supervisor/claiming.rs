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

use super::{Found, PURGED, Reader, Ready, Relay, Supervisor, SupervisorError, Table};
use crate::outlet::Outlet;
use crate::position::{Claim, Claimed, Parked, Position, PositionStore, StoreError};
use crate::relay::queue;
use crate::relay::settings::Start;
use crate::relay::stats::{State, TableStats};
use crate::relay::worker::{Halt, Outcome, Worker};
use crate::source::{LogSource, Lost, Place, SourceError};

/// How often a claim is tried while its owner is just leaving.
const CLAIM_EVERY: Duration = Duration::from_millis(200);

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
    pub(super) async fn ready(
        &self,
        relay: &Relay,
        deadline: Instant,
        stop: &CancellationToken,
    ) -> Result<Found<Ready<O>>, SupervisorError> {
        let Relay { table, stats, .. } = relay;
        let name = &table.subscription.table;
        let (claim, resume, parked) = match self.claim(table, stats, deadline, stop).await? {
            Ok(Some(Found::Here(claimed))) => claimed,
            Ok(Some(Found::Paused(claim, pause))) => return Ok(Found::Paused(claim, pause)),
            Ok(Some(Found::Ended(outcome))) => return Ok(Found::Ended(outcome)),
            Ok(None) => {
                stats.set_state(State::Stopped, None);
                return Ok(Found::Ended(Outcome::Drained));
            }
            Err(halt) => return Ok(Found::Ended(Outcome::Halted(halt))),
        };
        info!(table = %name, position = %resume, epoch = claim.epoch, "table_claimed");
        stats.set_position(Arc::new(resume.clone()));
        let outlet = match (self.outlet)(claim) {
            Ok(outlet) => outlet,
            Err(reason) => return Ok(Found::Ended(Outcome::Restart(reason))),
        };
        let (end, line) = queue::line();
        let worker = Worker::new(table.mapping.clone(), outlet, line, self.settings.clone(), Arc::clone(stats));
        let worker = worker.resuming(Arc::new(resume.clone()), parked, relay.condemned.clone());
        let worker = worker.traced(self.spans.clone());
        Ok(Found::Here(Ready { worker, line: end, resume }))
    }

    /// The right to relay a table, and from where; `None` when `stop` came first. An owner that is just leaving is waited
    /// for until `deadline`.
    pub(super) async fn claim(
        &self,
        table: &Table,
        stats: &TableStats,
        deadline: Instant,
        stop: &CancellationToken,
    ) -> Result<Result<Option<Found<Ours>>, Halt>, SupervisorError> {
        let name = &table.subscription.table;
        let mut backoff = self.backoff();
        while !stop.is_cancelled() {
            let result = match self.store.claim(name).await {
                Ok(Claimed { claim, position, pause: Some(pause), parked }) => {
                    if let Some(position) = position {
                        stats.set_position(Arc::new(position));
                    }
                    stats.set_parked(Arc::new(parked));
                    return Ok(Ok(Some(Found::Paused(claim, pause))));
                }
                Ok(claimed) => match claimed.position {
                    Some(position) => match self.resume(stats, &claimed.claim, position).await {
                        Ok(Ok(position)) => {
                            return Ok(Ok(Some(Found::Here((claimed.claim, position, claimed.parked)))));
                        }
                        Ok(Err(halt)) => {
                            let _ = self.store.release(&claimed.claim).await;
                            return Ok(Err(halt));
                        }
                        Err(error) => Err(error),
                    },
                    None => match self.first(table, stop).await? {
                        Ok(None) => break,
                        Err(halt) => {
                            let _ = self.store.release(&claimed.claim).await;
                            return Ok(Err(halt));
                        }
                        // Where it starts must not depend on when it starts again.
                        Ok(Some(first)) => {
                            let saved = self.store.save(&claimed.claim, &first).await;
                            saved.map(|()| Some((claimed.claim, first, claimed.parked)))
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
                Ok(claimed) => return Ok(Ok(claimed.map(Found::Here))),
            }
        }
        Ok(Ok(None))
    }

    /// Where a claimed table resumes on the server that answers now, made durable where that is another place.
    pub(super) async fn resume(
        &self,
        stats: &TableStats,
        claim: &Claim,
        position: Position,
    ) -> Result<Result<Position, Halt>, StoreError> {
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
                return Err(StoreError::Unavailable(reason));
            }
        };
        match self.stranded(&position).await {
            Ok(None) => Ok(Ok(position)),
            Ok(Some(oldest)) => {
                let detail = format!("the log begins after {oldest}, the table resumes after {position}");
                Ok(Err(Halt { name: PURGED, detail }))
            }
            Err(reason) => Err(StoreError::Unavailable(reason)),
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

    /// Where a table starts that has never saved a position; `None` when `stop` came first. One that cannot be read itself
    /// halts alone.
    pub(super) async fn first(
        &self,
        table: &Table,
        stop: &CancellationToken,
    ) -> Result<Result<Option<Position>, Halt>, SupervisorError> {
        let mut source = (self.source)(Reader::Own);
        let mut backoff = self.backoff();
        while !stop.is_cancelled() {
            let found = match &table.start {
                Start::Snapshot => source.snapshot(&table.subscription).await,
                Start::Now => match source.newest().await {
                    Ok(newest) => source.settled().await.map(|()| newest),
                    error => error,
                },
                Start::Earliest => source.oldest().await,
                Start::At(position) => Ok((**position).clone()),
            };
            match found {
                Ok(position) => return Ok(Ok(Some(position))),
                Err(SourceError::Definite(fault)) if table.start == Start::Snapshot => return Ok(Err(fault.into())),
                Err(SourceError::Definite(fault)) => return Err(SupervisorError::Log(fault)),
                Err(SourceError::Transient(reason) | SourceError::Displaced(reason)) => {
                    warn!(table = %table.subscription.table, %reason, "waiting_for_log");
                    let _ = stop.run_until_cancelled(sleep(backoff.wait())).await;
                }
            }
        }
        Ok(Ok(None))
    }
}
