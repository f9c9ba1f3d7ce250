//! A table at rest: paused or halted, until an order ends that.
//!
//! Promise: every order is answered, also one that cannot be carried out. A paused table keeps its claim; a halted one is
//! nobody's, and is claimed for the moment when its position is moved.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::life::{LEFT, Turn, at_rest, done, goal, stays_parked};
use super::{Reader, Relay, Supervisor};
use crate::outlet::Outlet;
use crate::position::{Claim, Claimed, Pause, Position, PositionStore};
use crate::relay::control::{Done, Order, Orders, Refusal, Told};
use crate::relay::places;
use crate::relay::stats::{State, TableStats};
use crate::relay::worker::Halt;
use crate::source::LogSource;

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
        from: Option<Position>,
        to: Option<&Position>,
    ) -> Result<Done, Refusal> {
        let before = from.map_or_else(|| "none".to_owned(), |from| from.to_string());
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
                Order::Resume => match self.store.pause(claim, None).await {
                    Ok(()) => {
                        info!(%table, paused = %pause, "relay_resumed");
                        relay.stats.set_state(State::Starting, None);
                        told.answer(Ok(done(State::Paused.name(), State::Starting.name())));
                        return Turn::Claim(Duration::ZERO);
                    }
                    Err(error) => told.answer(Err(error.into())),
                },
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
                order @ (Order::Set(_) | Order::Forget) => {
                    let from = relay.stats.position().map(|position| (*position).clone());
                    let moved = self.move_to(&relay.stats, claim, from, goal(order)).await;
                    told.answer(moved);
                }
            }
        }
    }

    /// Waits until somebody retries the table; a position may be set meanwhile.
    pub(super) async fn halted(&self, relay: &mut Relay, orders: &mut Orders, halt: Halt) -> Turn<O, S> {
        loop {
            let told = orders.next().await;
            let table = relay.stats.table.clone();
            match &told.order {
                Order::Retry => match (self.fitness)(table.clone()).await {
                    Ok(()) => {
                        info!(%table, reason = halt.name, "relay_retried");
                        relay.stats.set_state(State::Starting, None);
                        relay.backoff.reset();
                        told.answer(Ok(done(State::Halted.name(), State::Starting.name())));
                        return Turn::Claim(Duration::ZERO);
                    }
                    Err(detail) => told.answer(Err(Refusal::Unfit { table, detail })),
                },
                // What has made it halt may be what has changed.
                Order::Renew(renewed) => {
                    relay.table = (**renewed).clone();
                    relay.stats.set_state(State::Starting, None);
                    relay.backoff.reset();
                    told.answer(Ok(done(State::Halted.name(), State::Starting.name())));
                    return Turn::Claim(Duration::ZERO);
                }
                Order::Leave => {
                    told.answer(Ok(done(State::Halted.name(), LEFT)));
                    return Turn::Leave;
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
        }
    }

    /// A halted table is nobody's: claimed for the moment.
    async fn move_halted(&self, relay: &Relay, to: Option<&Position>) -> Result<Done, Refusal> {
        let Claimed { claim, position, .. } = self.store.claim(&relay.stats.table).await?;
        let moved = self.move_to(&relay.stats, &claim, position, to).await;
        self.store.release(&claim).await?;
        moved
    }
}
