//! A table whose log is purged, and that is to recover from what the table itself has.
//!
//! Promise: every row that the table has, or that the log still shows being deleted, is published, and nothing of the log
//! that is left is passed over; so events may come twice, which is said. A row that was inserted and deleted in the lost
//! part alone is in neither: unless the table rules that out by its numbers, it halts and names the part. See docs/adr/0014-recovery-from-the-table.md.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::life::Turn;
use super::{PURGED, Reader, Relay, Supervisor, Table};
use crate::outlet::Outlet;
use crate::position::{Claim, Claimed, Position, PositionStore};
use crate::relay::control::{Order, Orders};
use crate::relay::feeder::Shared;
use crate::relay::settings::OnPurged;
use crate::relay::stats::State;
use crate::relay::worker::Halt;
use crate::source::{Lapse, LogSource, Recovery, Remains, SourceError};
use crate::table::TableName;

/// Whether the table itself may have what this halt is about.
pub(super) fn may_cure(table: &Table, halt: &Halt) -> bool {
    // A server says the second where its answer tells no more.
    table.on_purged == OnPurged::RecoverFromTable && [PURGED, "log_not_available"].contains(&halt.name)
}

impl<P, S, N, O, M> Supervisor<P, N, M>
where
    P: PositionStore,
    S: LogSource,
    N: Fn(Reader) -> S + Send + Sync + 'static,
    O: Outlet,
    M: Fn(Claim) -> Result<O, String> + Send + Sync + 'static,
{
    /// Has a table go on with itself, if its log is purged; gives what is next, or why it halts. Until its turn comes,
    /// it takes orders as one that has halted.
    pub(super) async fn recover(
        &self,
        relay: &mut Relay,
        orders: &mut Orders,
        halt: Halt,
        shared: &Shared,
        stop: &CancellationToken,
    ) -> Result<Turn<O, S>, Halt> {
        let waits = "the log is purged, waits for its turn: relay.snapshot_readers other tables are read";
        relay.stats.set_state(State::Starting, Some(format!("{waits}: {halt}")));
        let mut turn = pin!(shared.scans.next());
        let turn = loop {
            tokio::select! {
                biased;
                turn = &mut turn => break turn,
                told = orders.next() => {
                    let moves = matches!(told.order, Order::Set(_) | Order::Forget);
                    match self.carry_out_unclaimed(relay, told, &halt).await {
                        Some(next) => return Ok(next),
                        // Where it stands now may be in the log.
                        None if moves => return Ok(Turn::Claim(Duration::ZERO)),
                        None => {}
                    }
                }
            }
        };
        let Some(_turn) = turn else { return Err(halt) };
        relay.stats.set_state(State::Starting, Some(format!("the log is purged, looks at the table: {halt}")));
        let Ok(Claimed { claim, position, .. }) = self.claim_for_order(relay, stop).await else { return Err(halt) };
        let going = match position {
            Ok(Some(position)) => self.go_on(relay, &claim, &position, halt).await,
            Ok(None) | Err(_) => Ok(None),
        };
        let _ = self.store.release(&claim).await;
        match going? {
            None => Ok(Turn::Claim(Duration::ZERO)),
            Some(reason) => {
                warn!(table = %claim.table, %reason, "recovery_interrupted");
                Ok(Turn::Claim(relay.backoff.wait()))
            }
        }
    }

    /// Moves a claimed table to where it goes on. Gives why that has to be tried again, if it has.
    async fn go_on(
        &self,
        relay: &Relay,
        claim: &Claim,
        position: &Position,
        halt: Halt,
    ) -> Result<Option<String>, Halt> {
        let oldest = match self.stranded(position).await {
            Ok(Some(oldest)) => oldest,
            // The position is none of the log's for another reason.
            Ok(None) => return Err(halt),
            Err(reason) => return Ok(Some(reason)),
        };
        let Table { subscription, is_cleaned, .. } = &relay.table;
        let saved_micros = match self.saved_micros(&claim.table).await {
            Ok(saved_micros) => saved_micros,
            Err(reason) => return Ok(Some(reason)),
        };
        let lapse = Lapse { is_cleaned: *is_cleaned, saved_micros };
        let Recovery { from, remains } = match (self.source)(Reader::Own).recover(subscription, &lapse).await {
            Ok(recovery) => recovery,
            Err(SourceError::Definite(fault)) => return Err(fault.into()),
            Err(SourceError::Transient(reason) | SourceError::Displaced(reason)) => return Ok(Some(reason)),
        };
        // What was purged meanwhile is missing too.
        let begins = if from.point > oldest.point { &from.point } else { &oldest.point };
        let missing = position.point.names_to(begins).unwrap_or_default();
        if let Remains::Doubtful(why) = remains {
            return Err(gone(&claim.table, &missing, &why));
        }
        if let Err(error) = self.store.set(claim, &from).await {
            return Ok(Some(error.to_string()));
        }
        relay.stats.recoveries.fetch_add(1, Relaxed);
        relay.stats.set_position(Arc::new(from.clone()));
        let duplicates = "every row of the table comes, also those that came before";
        warn!(table = %claim.table, from = %position, to = %from, %missing, duplicates, "recovers_from_table");
        Ok(None)
    }

    async fn saved_micros(&self, table: &TableName) -> Result<Option<u64>, String> {
        let all = self.store.list().await.map_err(|error| error.to_string())?;
        Ok(all.iter().find(|saved| saved.table == *table).map(|saved| saved.saved_micros).filter(|saved| *saved > 0))
    }
}

fn gone(table: &TableName, missing: &str, why: &str) -> Halt {
    let detail = format!(
        "the log has lost {missing}, and the table does not show that it has all of its rows: {why}. What these transactions \
         inserted and somebody has deleted since cannot be recovered; archived log files have it (outboxd decode). To go on \
         with what there is: outboxd position set {table} --to table, then outboxd retry {table}"
    );
    Halt { name: "purged_rows_gone", detail }
}
