//! The start of a process: all tables are claimed, and those that are ready are fed by one reader from its beginning.
//!
//! Promise: a table that has to wait for something holds up no other. It is waited for only so long, and comes to the shared
//! reader later, as one does that joins.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::life::Turn;
use super::{CLAIM_WAIT, Found, Reader, Ready, Relay, Supervised, Supervisor, SupervisorError};
use crate::outlet::Outlet;
use crate::position::{Claim, PositionStore};
use crate::relay::control::Orders;
use crate::relay::stats::State;
use crate::relay::worker::{Halt, Outcome};
use crate::source::LogSource;

/// How long the tables wait for each other.
const START_WAIT: Duration = Duration::from_secs(3);

/// A table, and what its claim has led to.
pub(super) struct First<T> {
    pub(super) relay: Box<Relay>,
    pub(super) orders: Orders,
    pub(super) found: T,
}

/// A claim under way.
pub(super) struct Late<O>(AbortOnDropHandle<First<Found<Ready<O>>>>);

impl<O: Send + 'static> Late<O> {
    /// The end of it.
    pub(super) async fn end(self) -> First<Found<Ready<O>>> {
        self.0.await.unwrap_or_else(|error| resume_unwind(error.into_panic()))
    }
}

/// What the claims have led to in time.
pub(super) struct AtStart<O, S> {
    /// These are relayed.
    pub(super) ready: Vec<First<Ready<O>>>,
    /// These rest, or try it again.
    pub(super) others: Vec<First<Turn<O, S>>>,
    /// These are still waiting.
    pub(super) late: Vec<Late<O>>,
}

impl<P, S, N, O, M> Supervisor<P, N, M>
where
    P: PositionStore,
    S: LogSource,
    N: Fn(Reader) -> S + Send + Sync + 'static,
    O: Outlet,
    M: Fn(Claim) -> Result<O, String> + Send + Sync + 'static,
{
    /// Claims all tables at once: what one of them left unfinished may be what another one waits for.
    pub(super) async fn start(
        self: &Arc<Self>,
        tables: Vec<Supervised>,
        stop: &CancellationToken,
    ) -> Result<AtStart<O, S>, SupervisorError> {
        let (deadline, patience) = (Instant::now() + CLAIM_WAIT, stop.child_token());
        let claim = |Supervised { table, stats, orders, unfit }: Supervised| {
            let (this, patience) = (Arc::clone(self), patience.clone());
            tokio::spawn(async move {
                let relay = this.relay_of(table, stats);
                let found = match unfit {
                    None => this.ready(&relay, deadline, &patience).await,
                    Some(detail) => Found::Ended(Outcome::Halted(Halt { name: "preflight", detail })),
                };
                First { relay, orders, found }
            })
        };
        let claims: Vec<_> = tables.into_iter().map(|table| AbortOnDropHandle::new(claim(table))).collect();
        let limit = Instant::now() + START_WAIT;
        let mut start = AtStart { ready: Vec::new(), others: Vec::new(), late: Vec::new() };
        for mut claim in claims {
            let Ok(claimed) = timeout_at(limit, &mut claim).await else {
                start.late.push(Late(claim));
                continue;
            };
            let First { relay, orders, found } = claimed?;
            match turn_of(&relay, found) {
                Ok(ready) => start.ready.push(First { relay, orders, found: ready }),
                Err(turn) => start.others.push(First { relay, orders, found: turn }),
            }
        }
        // From here on each waits in its own task, where orders reach it.
        patience.cancel();
        Ok(start)
    }
}

/// What comes after a claim: the table can be relayed, or something else is next.
pub(super) fn turn_of<O, S>(relay: &Relay, found: Found<Ready<O>>) -> Result<Ready<O>, Turn<O, S>> {
    Err(match found {
        Found::Here(ready) => return Ok(ready),
        Found::Paused(claim, pause) => Turn::Pause(claim, pause),
        Found::Ended(Outcome::Halted(halt)) => Turn::Halt(halt),
        Found::Ended(_) => {
            relay.stats.set_state(State::Starting, relay.stats.reason());
            Turn::Claim(Duration::ZERO)
        }
    })
}
