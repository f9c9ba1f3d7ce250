//! Saving: when a position is made durable, and what becomes of a save that fails.
//!
//! Promise: one save at a time, of a position whose records are all acknowledged (R2), or that become durable together with
//! it. While the store cannot be reached the save is tried again; a store that refuses for good ends the relay.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures::FutureExt;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{End, Halt, Worker};
use crate::outlet::Outlet;
use crate::planted::{self, Bug};
use crate::position::{Parked, Position, StoreError};
use crate::relay::stats::now_micros;

type Saving = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send>>;

/// A save that is under way.
pub(super) struct Save {
    future: Saving,
    /// What the window gave.
    position: Arc<Position>,
    /// What is saved for it.
    durable: Arc<Position>,
    /// Which aggregates are parked, if that is to be saved too.
    parked: Option<Arc<Parked>>,
    records: u64,
    begun: Instant,
}

/// How long to wait before a save that failed is tried again.
const SAVE_RETRY: Duration = Duration::from_millis(250);

impl<O: Outlet> Worker<O> {
    /// Whether there is a position to save that the durable one does not cover.
    pub(super) fn wants_save(&self) -> bool {
        let coverable = self.coverable().filter(|_| !self.refused);
        // What was published again leads no further, and is to be covered all the same.
        coverable.is_some_and(|(position, records)| {
            records > self.saved_records || self.saved.as_ref().is_none_or(|saved| !Arc::ptr_eq(position, saved))
        })
    }

    /// What a save can cover now, and how many records that are since the start.
    fn coverable(&self) -> Option<(&Arc<Position>, u64)> {
        if O::ATOMIC || planted::is(Bug::SavedBeforeAck) {
            return self.window.published();
        }
        self.window.acknowledged().map(|position| (position, self.window.acknowledged_records()))
    }

    /// When the position should be saved next; `None` when the durable one is as good.
    pub(super) fn save_due(&self) -> Option<Instant> {
        let (_, records) = self.coverable().filter(|_| self.wants_save())?;
        let due = if records == self.saved_records {
            self.last_save + self.pace.idle_checkpoint_interval
        } else if self.window.unsaved() >= self.pace.max_unsaved_events / 2
            || O::ATOMIC && self.queue.is_idle()
            || self.aside.is_releasing()
        {
            // Consumers wait for an atomic save; it waits only for what it can take along.
            self.last_save
        } else {
            self.last_save + self.pace.checkpoint_interval
        };
        Some(due.max(self.retry_at))
    }

    pub(super) fn begin_save(&mut self, now: bool) {
        let due = self.save_due().is_some_and(|due| Instant::now() >= if now { self.retry_at } else { due });
        let Some((position, records)) = self.coverable().filter(|_| due && self.saving.is_none()) else { return };
        let position = Arc::clone(position);
        let durable =
            self.stats.position().map_or_else(|| Arc::clone(&position), |from| Arc::new(from.on_to(&position)));
        let parked = if O::ATOMIC { self.window.published_parked() } else { self.window.acknowledged_parked() };
        let parked = parked.filter(|parked| !Arc::ptr_eq(parked, &self.aside.saved)).map(Arc::clone);
        let future = Box::pin(self.outlet.keep(&durable, parked.as_deref()));
        self.saving = Some(Save { future, position, durable, parked, records, begun: Instant::now() });
    }

    pub(super) fn end_save(&mut self, result: Result<(), StoreError>) -> Result<(), End> {
        let Some(save) = self.saving.take() else { return Ok(()) };
        if O::ATOMIC && self.outlet.settled(&mut self.settled).now_or_never().is_some() {
            self.settle()?;
        }
        match result {
            Ok(()) => {
                self.last_save = Instant::now();
                self.count_save(save.begun);
                self.window.saved(save.records);
                self.saved_records = save.records;
                self.aside.forget(save.records);
                let is_first = self.stats.saved_micros.swap(now_micros(), Relaxed) == 0;
                self.stats.set_position(save.durable);
                if let Some(parked) = save.parked {
                    self.stats.set_parked(Arc::clone(&parked));
                    self.aside.saved = parked;
                }
                self.saved = Some(save.position);
                let failed = std::mem::take(&mut self.save_fails);
                if failed {
                    self.stats.set_reason(None);
                }
                // Each would be a flood; these tell that saving works, or does so again.
                if is_first || failed {
                    let position = self.stats.position().map_or_else(String::new, |position| position.to_string());
                    info!(table = %self.stats.table, position, "position_saved");
                }
                Ok(())
            }
            Err(StoreError::Unavailable(reason)) => {
                if self.stats.save_retries.fetch_add(1, Relaxed).is_power_of_two() {
                    warn!(table = %self.stats.table, %reason, "save_failed_will_retry");
                }
                self.save_fails = true;
                self.stats.set_reason(Some(format!("waits for the position store: {reason}")));
                self.retry_at = Instant::now() + SAVE_RETRY;
                Ok(())
            }
            Err(StoreError::Broken(reason)) => {
                self.refused = true;
                Err(self.again_for("store", reason))
            }
            Err(error) => {
                self.refused = true;
                Err(End::Halt(Halt { name: store_halt(&error), detail: error.to_string() }))
            }
        }
    }

    fn count_save(&self, begun: Instant) {
        let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.stats.checkpoints.observe(micros, 1);
        if O::ATOMIC {
            self.stats.transactions.fetch_add(1, Relaxed);
        }
    }
}

/// Waits for the save that is under way, if one is.
pub(super) async fn finish(saving: &mut Option<Save>) -> Result<(), StoreError> {
    match saving {
        Some(save) => save.future.as_mut().await,
        None => std::future::pending().await,
    }
}

fn store_halt(error: &StoreError) -> &'static str {
    match error {
        StoreError::Unavailable(_) | StoreError::Broken(_) => "store_unavailable",
        StoreError::Owned { .. } => "owned_elsewhere",
        StoreError::Fenced { .. } => "fenced",
        StoreError::Backwards { .. } => "position_backwards",
        StoreError::Unreadable { .. } => "position_unreadable",
        StoreError::Refused(_) => "store_refused",
    }
}
