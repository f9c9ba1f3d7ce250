//! The life of one table: relayed, started again, paused, halted, as failures and orders will have it.
//!
//! Promise: one task keeps a table from its start until it leaves or the process ends, so an order finds the relay either at work or
//! at rest. While a table is paused its claim is kept, and nothing is read for it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use super::claiming::wait_for_store;
use super::{CLAIM_WAIT, Found, Reader, Relay, Supervisor, recovery};
use crate::outlet::Outlet;
use crate::position::{Aggregate, Claim, Claimed, Pause, Position, PositionStore, StoreError};
use crate::relay::control::{Done, Order, Orders, Refusal, Told};
use crate::relay::feeder::{Feeder, Shared};
use crate::relay::replay::{self, Again, Plan, Replay};
use crate::relay::stats::{State, TableStats};
use crate::relay::worker::{Halt, Outcome, Release, Worker};
use crate::source::LogSource;
use crate::table::TableName;

/// How a feeder gets a reader of its own.
pub(super) type Readers<S> = Box<dyn Fn() -> S + Send + Sync>;

/// What a table does next.
pub(super) enum Turn<O, S> {
    /// It is claimed, and fed.
    Relay(Box<(Worker<O>, Feeder<Readers<S>>)>),
    /// It is claimed, after so long, and relayed.
    Claim(Duration),
    /// It is claimed, and relayed when somebody resumes it.
    Pause(Claim, Pause),
    /// It is relayed when somebody retries it.
    Halt(Halt),
    /// It is relayed no more.
    Leave,
}

/// How an attempt to relay has ended.
enum Ended {
    Paused(Claim, Pause),
    /// And how long the table was relayed: what it has waited for before does not count.
    Outcome(Outcome, Duration),
}

/// How many tables have not halted.
#[derive(Debug, Clone)]
pub(super) struct Going(pub(super) Arc<watch::Sender<usize>>);

impl<P, S, N, O, M> Supervisor<P, N, M>
where
    P: PositionStore,
    S: LogSource,
    N: Fn(Reader) -> S + Send + Sync + 'static,
    O: Outlet,
    M: Fn(Claim) -> Result<O, String> + Send + Sync + 'static,
{
    /// One table until `stop`.
    pub(super) async fn live(
        self: Arc<Self>,
        mut relay: Box<Relay>,
        mut orders: Orders,
        first: Turn<O, S>,
        shared: Shared,
        stop: CancellationToken,
        going: Going,
    ) -> Outcome {
        let mut turn = first;
        loop {
            turn = match turn {
                Turn::Halt(mut halt) => {
                    // What the table could not cure is not tried again: it halts.
                    if recovery::may_cure(&relay.table, &halt) {
                        let recovering = self.recover(&mut relay, &mut orders, halt, &shared, &stop);
                        match stop.run_until_cancelled(recovering).await {
                            Some(Ok(next)) => {
                                turn = next;
                                continue;
                            }
                            Some(Err(uncured)) => halt = uncured,
                            None => {
                                relay.stats.set_state(State::Stopped, None);
                                return Outcome::Drained;
                            }
                        }
                    }
                    error!(table = %relay.stats.table, reason = halt.name, detail = %halt.detail, "relay_halted");
                    relay.stats.halt(halt.name);
                    relay.stats.set_state(State::Halted, Some(halt.to_string()));
                    going.0.send_modify(|going| *going -= 1);
                    let Some(next) = stop.run_until_cancelled(self.halted(&mut relay, &mut orders, halt.clone())).await
                    else {
                        return Outcome::Halted(halt);
                    };
                    going.0.send_modify(|going| *going += 1);
                    next
                }
                Turn::Pause(claim, pause) => {
                    info!(table = %relay.stats.table, paused = %pause, "relay_paused");
                    relay.stats.set_state(State::Paused, Some(pause.to_string()));
                    let Some(next) =
                        stop.run_until_cancelled(self.paused(&mut relay, &mut orders, &claim, &pause)).await
                    else {
                        let _ = self.store.release(&claim).await;
                        relay.stats.set_state(State::Stopped, None);
                        return Outcome::Drained;
                    };
                    next
                }
                Turn::Leave => {
                    info!(table = %relay.stats.table, "relay_left");
                    self.store.leave(&relay.stats.table);
                    relay.stats.set_state(State::Stopped, None);
                    going.0.send_modify(|going| *going -= 1);
                    return Outcome::Drained;
                }
                turn => match self.relay(&mut relay, &mut orders, turn, &shared, &stop).await {
                    Ok(next) => next,
                    Err(outcome) => return outcome,
                },
            };
        }
    }

    /// Relays until something comes between, and gives what is next; or how it ended, for a process that stops.
    async fn relay(
        self: &Arc<Self>,
        relay: &mut Relay,
        orders: &mut Orders,
        turn: Turn<O, S>,
        shared: &Shared,
        stop: &CancellationToken,
    ) -> Result<Turn<O, S>, Outcome> {
        let one = stop.child_token();
        let mut between = None;
        let (repeat, again) = mpsc::channel(1);
        let (release, releases) = mpsc::channel(1);
        // Ends with the attempt.
        let mut replaying: Option<AbortOnDropHandle<()>> = None;
        let ended = {
            let mut attempt = pin!(self.attempt(relay, turn, shared, stop, &one, (again, releases)));
            loop {
                tokio::select! {
                    biased;
                    ended = &mut attempt => break ended,
                    told = orders.next(), if between.is_none() => match &told.order {
                        Order::Pause(_) | Order::Set(_) | Order::Forget | Order::Renew(_) | Order::Leave => {
                            one.cancel();
                            between = Some(told);
                        }
                        Order::Resume => told.answer(Err(Refusal::NotPaused(relay.stats.table.clone()))),
                        Order::Retry => {
                            let (table, state) = (relay.stats.table.clone(), relay.stats.state());
                            told.answer(Err(Refusal::NotHalted { table, state }));
                        }
                        Order::Release(aggregate) => {
                            let aggregate = aggregate.clone();
                            put_back(&relay.stats, told, aggregate, &release);
                        }
                        Order::Replay(plan) => {
                            let under_way = replaying.as_ref().is_some_and(|replaying| !replaying.is_finished());
                            match self.replay(relay, plan, shared, &repeat, under_way) {
                                Ok((done, running)) => {
                                    replaying = Some(running);
                                    told.answer(Ok(done));
                                }
                                Err(reason) => {
                                    let table = relay.stats.table.clone();
                                    told.answer(Err(Refusal::NoReplay { table, reason }));
                                }
                            }
                        }
                    },
                }
            }
        };
        relay.stats.set_attached();
        relay.stats.rests();
        let table = relay.stats.table.clone();
        match (ended, between) {
            (Ended::Outcome(Outcome::Halted(halt), _), told) => match told {
                Some(told) if told.order == Order::Leave => {
                    told.answer(Ok(done(State::Halted.name(), LEFT)));
                    Ok(Turn::Leave)
                }
                Some(told) => {
                    if let Order::Renew(table) = &told.order {
                        relay.table = (**table).clone();
                    }
                    told.answer(Err(Refusal::Halted { table, detail: halt.to_string() }));
                    Ok(Turn::Halt(halt))
                }
                None => Ok(Turn::Halt(halt)),
            },
            (_, Some(told)) if !stop.is_cancelled() => Ok(self.intervene(relay, told, stop).await),
            (Ended::Paused(claim, pause), _) => Ok(Turn::Pause(claim, pause)),
            (Ended::Outcome(Outcome::Restart(reason), lasted), _) if !stop.is_cancelled() => {
                warn!(%table, %reason, "relay_restarts");
                if lasted > self.settings.borrow().retry_max {
                    relay.backoff.reset();
                }
                Ok(Turn::Claim(relay.backoff.wait()))
            }
            (Ended::Outcome(outcome, _), _) => Err(outcome),
        }
    }

    /// A relay from its durable position on, and what feeds it; until `one`, or until it ends by itself.
    async fn attempt(
        self: &Arc<Self>,
        relay: &Relay,
        turn: Turn<O, S>,
        shared: &Shared,
        process: &CancellationToken,
        one: &CancellationToken,
        (again, releases): (mpsc::Receiver<Again>, mpsc::Receiver<Release>),
    ) -> Ended {
        let (worker, feeder) = match turn {
            Turn::Relay(ready) => *ready,
            Turn::Claim(wait) => {
                let _ = one.run_until_cancelled(sleep(wait)).await;
                match self.ready(relay, Instant::now() + CLAIM_WAIT, one).await {
                    Found::Here(ready) => {
                        let feeder = self.feeder(relay, ready.line, ready.resume, shared);
                        (ready.worker, feeder)
                    }
                    Found::Paused(claim, pause) => return Ended::Paused(claim, pause),
                    Found::Ended(outcome) => return Ended::Outcome(outcome, Duration::ZERO),
                }
            }
            Turn::Pause(claim, pause) => return Ended::Paused(claim, pause),
            Turn::Halt(halt) => return Ended::Outcome(Outcome::Halted(halt), Duration::ZERO),
            Turn::Leave => return Ended::Outcome(Outcome::Drained, Duration::ZERO),
        };
        let begun = Instant::now();
        let mut worker = pin!(worker.repeating(again, releases).run(one.clone(), process.clone()));
        let outcome = tokio::select! {
            biased;
            outcome = &mut worker => outcome,
            _ = one.run_until_cancelled(feeder.run()) => worker.await,
        };
        Ended::Outcome(outcome, begun.elapsed())
    }

    /// Begins to publish again what a relay at work has published before.
    fn replay(
        self: &Arc<Self>,
        relay: &Relay,
        plan: &Plan,
        shared: &Shared,
        worker: &mpsc::Sender<Again>,
        under_way: bool,
    ) -> Result<(Done, AbortOnDropHandle<()>), String> {
        if under_way {
            return Err("another replay is under way".to_owned());
        }
        let stats = &relay.stats;
        let durable = stats.position().filter(|_| stats.state().is_running());
        let durable = durable.ok_or_else(|| format!("it is {}", stats.state().name()))?;
        let progress = replay::progress(plan, &durable)?;
        stats.set_replay(Arc::clone(&progress));
        let this = Arc::clone(self);
        let repeating = Replay {
            source: move || (this.source)(Reader::Own),
            subscription: relay.table.subscription.clone(),
            mapping: relay.table.mapping.clone(),
            making: shared.making.clone(),
            worker: worker.clone(),
        };
        let done = done(&progress.from.to_string(), &progress.to.to_string());
        let running = tokio::spawn(repeating.run(Arc::new(plan.clone()), progress));
        Ok((done, AbortOnDropHandle::new(running)))
    }

    /// Carries out what a relay had to be stopped for.
    async fn intervene(&self, relay: &mut Relay, told: Told, stop: &CancellationToken) -> Turn<O, S> {
        let now = Turn::Claim(Duration::ZERO);
        relay.backoff.reset();
        if let Order::Pause(pause) = &told.order {
            relay.stats.set_state(State::Paused, Some(pause.to_string()));
        }
        if let Order::Renew(table) = &told.order {
            relay.table = (**table).clone();
            info!(table = %relay.stats.table, "relay_renewed");
            told.answer(Ok(done(State::Running.name(), State::Starting.name())));
            return now;
        }
        // Claimed anew: what the relay has left open in the store is given up together with its claim.
        let Claimed { claim, position, .. } = match self.claim_for_order(relay, stop).await {
            Ok(claimed) => claimed,
            // Whose it is now does not matter to who leaves.
            Err(_) if told.order == Order::Leave => {
                told.answer(Ok(done(State::Running.name(), LEFT)));
                return Turn::Leave;
            }
            Err(refusal) => {
                told.answer(Err(refusal));
                return now;
            }
        };
        match &told.order {
            Order::Pause(pause) => {
                let pause = pause.clone();
                let paused = self.store.pause(&claim, Some(&pause)).await;
                let done = done(State::Running.name(), State::Paused.name());
                match paused {
                    Ok(()) => {
                        told.answer(Ok(done));
                        Turn::Pause(claim, pause)
                    }
                    Err(error) => {
                        told.answer(Err(error.into()));
                        now
                    }
                }
            }
            order @ (Order::Set(_) | Order::Forget) => {
                let moved = self.move_to(&relay.stats, &claim, position, goal(order)).await;
                if moved.is_ok() {
                    relay.condemned.forget();
                }
                told.answer(moved);
                now
            }
            Order::Leave => self.leave(&claim, told, State::Running).await,
            Order::Resume | Order::Retry | Order::Replay(_) | Order::Release(_) | Order::Renew(_) => now,
        }
    }

    /// Claims a table that rests, as long as the store only has to be waited for.
    pub(super) async fn claim_for_order(
        &self,
        relay: &mut Relay,
        stop: &CancellationToken,
    ) -> Result<Claimed, Refusal> {
        loop {
            match self.store.claim(&relay.stats.table).await {
                Err(StoreError::Unavailable(reason) | StoreError::Broken(reason)) if !stop.is_cancelled() => {
                    wait_for_store(&relay.stats, &reason, &mut relay.backoff, stop).await;
                }
                claimed => return Ok(claimed?),
            }
        }
    }
}

/// What a table is that is relayed here no more.
pub(super) const LEFT: &str = "left";

/// Where an order moves the position; `None` for nowhere.
pub(super) fn goal(order: &Order) -> Option<&Position> {
    if let Order::Set(to) = order { Some(to) } else { None }
}

pub(super) fn stays_parked(table: &TableName, aggregate: &Aggregate, reason: String) -> Refusal {
    Refusal::NotReleased { table: table.clone(), aggregate: aggregate.clone(), reason }
}

/// Hands a release to the worker, and its answer to whoever asked.
fn put_back(stats: &TableStats, told: Told, aggregate: Aggregate, worker: &mpsc::Sender<Release>) {
    let table = stats.table.clone();
    let Some(parking) = stats.parked().get(aggregate.key()).cloned() else {
        return told.answer(Err(stays_parked(&table, &aggregate, "it is not parked".to_owned())));
    };
    let (answer, answered) = oneshot::channel();
    let release = Release { aggregate: aggregate.clone(), answer };
    if worker.try_send(release).is_err() {
        let busy = "another release is under way, or the relay starts again; try again later".to_owned();
        return told.answer(Err(stays_parked(&table, &aggregate, busy)));
    }
    tokio::spawn(async move {
        let stopped = || Err("the relay stopped before all was acknowledged".to_owned());
        told.answer(match answered.await.unwrap_or_else(|_| stopped()) {
            Ok(events) => {
                Ok(done(&format!("parked: {} events", parking.left()), &format!("released: {events} events")))
            }
            Err(reason) => Err(stays_parked(&table, &aggregate, reason)),
        });
    });
}

pub(super) fn at_rest(table: &TableName, state: State) -> Refusal {
    Refusal::NoReplay { table: table.clone(), reason: format!("it is {}", state.name()) }
}

pub(super) fn done(before: &str, after: &str) -> Done {
    Done { before: before.to_owned(), after: after.to_owned() }
}
