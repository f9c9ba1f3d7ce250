//! A table at rest: paused or halted, until an order ends that.
//!
//! Promise: every order is answered, also one that cannot be carried out. A paused table keeps its claim, and is claimed anew
//! when that has broken; a halted one is nobody's, and is claimed for the moment when its position is moved.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::life::{LEFT, Turn, at_rest, done, goal, stays_parked};
use super::{Reader, Relay, Supervisor};
use crate::outlet::Outlet;
use crate::position::{Claim, Claimed, Pause, Position, PositionStore, StoreError};
use crate::relay::control::{Done, Order, Orders, Refusal, Told};
use crate::relay::places;
use crate::relay::stats::{State, TableStats};
use crate::relay::worker::Halt;
use crate::source::LogSource;

/// How long an order waits for the position store, its first try included. Whoever gave it waits for a minute, and what
/// is under way then may take some of that.
const STORE_WAIT: Duration = Duration::from_secs(20);

/// How much of that the first try may take.
const FIRST_TRY: Duration = Duration::from_secs(10);

impl<P, S, N, O, M> Supervisor<P, N, M>
where
    P: PositionStore,
    S: LogSource,
    N: Fn(Reader) -> S + Send + Sync + 'static,
    O: Outlet,
    M: Fn(Claim) -> Result<O, String> + Send + Sync + 'static,
{
    /// Gives a table up. A claim that cannot be released now ends with the process, or when the server notices.
    pub(super) async fn leave(&self, claim: &Claim, told: Told, before: State) -> Turn<O, S> {
        if let Err(error) = self.store.release(claim).await {
            warn!(table = %claim.table, %error, "claim_not_released");
        }
        told.answer(Ok(done(before.name(), LEFT)));
        Turn::Leave
    }

    /// Makes `to` the durable position, if a relay can go on from there; or, with none, forgets it.
    pub(super) async fn move_to(
        &self,
        stats: &TableStats,
        claim: &Claim,
        from: Result<Option<Position>, StoreError>,
        to: Option<&Position>,
    ) -> Result<Done, Refusal> {
        let before = match from {
            Ok(from) => from.map_or_else(|| "none".to_owned(), |from| from.to_string()),
            Err(unreadable) => unreadable.to_string(),
        };
        let Some(to) = to else {
            self.store.forget(claim).await?;
            stats.forget_position();
            info!(table = %claim.table, from = %before, "position_forgotten");
            return Ok(done(&before, "none"));
        };
        let misplaced = |reason| Refusal::Misplaced { position: to.clone(), reason };
        places::can_resume(&mut (self.source)(Reader::Own), to).await.map_err(misplaced)?;
        self.store.set(claim, to).await?;
        stats.set_position(Arc::new(to.clone()));
        info!(table = %claim.table, position = %to, "position_set");
        Ok(done(&before, &to.to_string()))
    }

    /// Waits until somebody resumes the table; a position may be set meanwhile.
    pub(super) async fn paused(
        &self,
        relay: &mut Relay,
        orders: &mut Orders,
        claim: &Claim,
        pause: &Pause,
    ) -> Turn<O, S> {
        loop {
            let told = orders.next().await;
            let table = &claim.table;
            match &told.order {
                order @ (Order::Resume | Order::Set(_) | Order::Forget) => {
                    let (done, anew) = self.carry_out(relay, claim, pause, order).await;
                    let resumes = *order == Order::Resume && done.is_ok();
                    told.answer(done);
                    match anew {
                        _ if resumes => return Turn::Claim(Duration::ZERO),
                        Some(claim) => return Turn::Pause(claim, pause.clone()),
                        None => {}
                    }
                }
                Order::Pause(_) => told.answer(Ok(done(State::Paused.name(), State::Paused.name()))),
                Order::Renew(renewed) => {
                    relay.table = (**renewed).clone();
                    told.answer(Ok(done(State::Paused.name(), State::Paused.name())));
                }
                Order::Leave => return self.leave(claim, told, State::Paused).await,
                Order::Retry => {
                    told.answer(Err(Refusal::NotHalted { table: table.clone(), state: State::Paused }));
                }
                Order::Replay(_) => told.answer(Err(at_rest(table, State::Paused))),
                Order::Release(aggregate) => {
                    let refused = stays_parked(table, aggregate, format!("the table is {}", State::Paused.name()));
                    told.answer(Err(refused));
                }
            }
        }
    }

    /// Does with a paused table what an order says; and once more under another claim, which is given too, where the store
    /// was away, has refused it, or the claim has broken.
    async fn carry_out(
        &self,
        relay: &mut Relay,
        claim: &Claim,
        pause: &Pause,
        order: &Order,
    ) -> (Result<Done, Refusal>, Option<Claim>) {
        let deadline = Instant::now() + STORE_WAIT;
        let from = relay.stats.position().map(|position| (*position).clone());
        // A claim that has broken may take longer to say so than anybody waits.
        let done = match timeout(FIRST_TRY, self.obey(relay, claim, Ok(from), (order, pause))).await {
            Ok(done) => done,
            Err(_) => Err(StoreError::Unavailable(format!("no answer within {FIRST_TRY:?}")).into()),
        };
        // A client that a record was refused to is over, too.
        let Err(Refusal::Store(StoreError::Unavailable(_) | StoreError::Broken(_) | StoreError::Refused(_))) = done
        else {
            return (done, None);
        };
        let claimed = self.claim_until(relay, deadline).await;
        relay.stats.set_state(State::Paused, Some(pause.to_string()));
        let Claimed { claim, position, pause: kept, .. } = match claimed {
            Ok(claimed) => claimed,
            Err(refusal) => return (Err(refusal), None),
        };
        // What was answered with an error may have been done all the same.
        match &position {
            Ok(Some(position)) => relay.stats.set_position(Arc::new(position.clone())),
            Ok(None) | Err(_) => relay.stats.forget_position(),
        }
        if kept.is_none()
            && *order != Order::Resume
            && let Err(error) = self.store.pause(&claim, Some(pause)).await
        {
            return (Err(error.into()), Some(claim));
        }
        let done = self.obey(relay, &claim, position, (order, pause)).await;
        (done, Some(claim))
    }

    /// Has a paused table go on, or moves its position.
    async fn obey(
        &self,
        relay: &Relay,
        claim: &Claim,
        from: Result<Option<Position>, StoreError>,
        (order, pause): (&Order, &Pause),
    ) -> Result<Done, Refusal> {
        if *order != Order::Resume {
            return self.move_resting(relay, claim, from, goal(order)).await;
        }
        self.store.pause(claim, None).await?;
        info!(table = %claim.table, paused = %pause, "relay_resumed");
        relay.stats.set_state(State::Starting, None);
        Ok(done(State::Paused.name(), State::Starting.name()))
    }

    /// Claims a table anew. The position store is waited for until `deadline`; then it is tried once more at most.
    async fn claim_until(&self, relay: &mut Relay, deadline: Instant) -> Result<Claimed, Refusal> {
        let enough = CancellationToken::new();
        relay.backoff.reset();
        let mut claimed = pin!(self.claim_for_order(relay, &enough));
        tokio::select! {
            biased;
            claimed = &mut claimed => return claimed,
            () = sleep_until(deadline) => enough.cancel(),
        }
        claimed.await
    }

    /// Moves the position of a table that rests. What was refused before it is tried again, should it come.
    async fn move_resting(
        &self,
        relay: &Relay,
        claim: &Claim,
        from: Result<Option<Position>, StoreError>,
        to: Option<&Position>,
    ) -> Result<Done, Refusal> {
        let done = self.move_to(&relay.stats, claim, from, to).await?;
        relay.condemned.forget();
        Ok(done)
    }

    /// Waits until somebody retries the table; a position may be set meanwhile.
    pub(super) async fn halted(&self, relay: &mut Relay, orders: &mut Orders, halt: Halt) -> Turn<O, S> {
        loop {
            let told = orders.next().await;
            if let Some(next) = self.carry_out_unclaimed(relay, told, &halt).await {
                return next;
            }
        }
    }

    /// Does with a table that has halted, and is nobody's, what an order says; gives what is next, if it goes on.
    pub(super) async fn carry_out_unclaimed(&self, relay: &mut Relay, told: Told, halt: &Halt) -> Option<Turn<O, S>> {
        let table = relay.stats.table.clone();
        match &told.order {
            Order::Retry => match (self.fitness)(table.clone()).await {
                Ok(()) => {
                    info!(%table, reason = halt.name, "relay_retried");
                    relay.stats.set_state(State::Starting, None);
                    relay.backoff.reset();
                    told.answer(Ok(done(State::Halted.name(), State::Starting.name())));
                    return Some(Turn::Claim(Duration::ZERO));
                }
                Err(detail) => told.answer(Err(Refusal::Unfit { table, detail })),
            },
            // What has made it halt may be what has changed.
            Order::Renew(renewed) => {
                relay.table = (**renewed).clone();
                relay.stats.set_state(State::Starting, None);
                relay.backoff.reset();
                told.answer(Ok(done(State::Halted.name(), State::Starting.name())));
                return Some(Turn::Claim(Duration::ZERO));
            }
            Order::Leave => {
                told.answer(Ok(done(State::Halted.name(), LEFT)));
                return Some(Turn::Leave);
            }
            Order::Pause(_) => told.answer(Err(Refusal::Halted { table, detail: halt.to_string() })),
            Order::Resume => told.answer(Err(Refusal::NotPaused(table))),
            Order::Replay(_) => told.answer(Err(at_rest(&table, State::Halted))),
            Order::Release(aggregate) => {
                let refused = stays_parked(&table, aggregate, format!("the table has halted: {halt}"));
                told.answer(Err(refused));
            }
            order @ (Order::Set(_) | Order::Forget) => {
                let moved = self.move_halted(relay, goal(order)).await;
                told.answer(moved);
            }
        }
        None
    }

    /// A halted table is nobody's: claimed for the moment.
    async fn move_halted(&self, relay: &Relay, to: Option<&Position>) -> Result<Done, Refusal> {
        let Claimed { claim, position, .. } = self.store.claim(&relay.stats.table).await?;
        let moved = self.move_resting(relay, &claim, position, to).await;
        self.store.release(&claim).await?;
        moved
    }
}
