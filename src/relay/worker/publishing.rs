//! Publishing: a batch's rows, one after the other, as records.
//!
//! Promise: rows are handed over in the order of the queue (R1), each of them once; when there is no room, the next one waits
//! for it, and saving goes on meanwhile. What is no record is set aside ([`super::aside`]), never skipped.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::aside::Poison;
use super::saving::finish;
use super::{End, WARN_EVERY, Worker};
use crate::outbox::{Header, REPLAY_HEADER, SNAPSHOT_HEADER};
use crate::outlet::{Chunk, DeliveryError, Outlet, PublishError};
use crate::planted::{self, Bug};
use crate::relay::replay::Again;
use crate::relay::stats::now_micros;
use crate::source::{Batch, Row};

impl<O: Outlet> Worker<O> {
    pub(super) async fn publish(&mut self, batch: &Batch, stop: &CancellationToken) -> Result<(), End> {
        let oldest = batch.rows().next().map_or(0, |row| row.commit_micros());
        let chunk = self.window.open(Arc::clone(batch.position()), oldest);
        let mut patience = None;
        let mut bytes = 0;
        let mut late = Vec::new();
        // Positions with a scan are those of rows that are read in the table.
        let mark =
            batch.position().scan.as_ref().map(|_| Header { name: SNAPSHOT_HEADER, value: Some(b"1".as_slice()) });
        // When those were committed is not known.
        if mark.is_none() {
            self.lags.begin(chunk, batch, now_micros());
        }
        for row in batch.rows() {
            if self.mapping.is_misrouted(row) {
                self.misrouted(row);
            }
            let foregone = match self.foregone(row) {
                None => match self.row(row, mark, chunk, stop, &mut patience).await {
                    Err(End::Restart(_)) if planted::is(Bug::RetryReorders) => {
                        late.push(row);
                        continue;
                    }
                    published => published?.map_err(|poison| (poison, false)),
                },
                Some(foregone) => Err(foregone),
            };
            bytes += match foregone {
                Ok(size) => size,
                Err(why) => self.set_aside(row, why, batch.position(), (chunk, stop, &mut patience)).await?,
            };
        }
        for row in late {
            let _ = self.row(row, mark, chunk, stop, &mut patience).await?;
        }
        self.note_parked();
        self.window.close();
        self.stats.bytes.fetch_add(bytes, Relaxed);
        Ok(())
    }

    /// Publishes what is wanted of a batch once more. A row that is no record today ends the replay, not the relay.
    pub(super) async fn repeat(&mut self, again: Again, stop: &CancellationToken) -> Result<(), End> {
        // What comes after such a row is not repeated: the replay names the place before it.
        if again.progress.ended().is_some() {
            return Ok(());
        }
        let Some(chunk) = self.window.open_again(now_micros()) else { return Ok(()) };
        let repeated = self.repeat_rows(&again, chunk, stop).await;
        // One that was given up half-way stays under way until the relay has ended.
        if !matches!(repeated, Ok(false)) {
            self.repeated.push_back((chunk, again));
        }
        repeated?;
        self.window.close();
        self.forget_repeated();
        Ok(())
    }

    /// Whether all of its rows that are wanted were handed over.
    async fn repeat_rows(&mut self, again: &Again, chunk: Chunk, stop: &CancellationToken) -> Result<bool, End> {
        let (plan, progress) = (&again.plan, &again.progress);
        let mut patience = None;
        for row in again.batch.rows() {
            // What is parked was not published before.
            if !plan.wants(&self.mapping, row) || self.is_parked(row) {
                continue;
            }
            let mark = Header { name: REPLAY_HEADER, value: Some(plan.run.as_bytes()) };
            match self.row(row, Some(mark), chunk, stop, &mut patience).await? {
                Ok(size) => self.stats.bytes.fetch_add(size, Relaxed),
                Err(Poison { name, detail }) => {
                    progress.end(Err(format!("{name}: after {}: {detail}", progress.at())));
                    return Ok(false);
                }
            };
            progress.published.fetch_add(1, Relaxed);
        }
        Ok(true)
    }

    /// Notes how far repeated batches are acknowledged, and lets go of them. After a failure they stay until the relay has
    /// ended, so that the replay does not take them for acknowledged.
    pub(super) fn forget_repeated(&mut self) {
        while !self.window.is_torn() && self.repeated.front().is_some_and(|(chunk, _)| *chunk < self.window.first()) {
            if let Some((_, again)) = self.repeated.pop_front() {
                again.progress.reach((**again.batch.position()).clone());
            }
        }
    }

    /// Publishes a row, waiting for room, and gives its size in bytes; or why it is no record.
    pub(super) async fn row(
        &mut self,
        row: Row<'_>,
        mark: Option<Header<'_>>,
        chunk: Chunk,
        stop: &CancellationToken,
        patience: &mut Option<Instant>,
    ) -> Result<Result<u64, Poison>, End> {
        loop {
            let (outlet, mapping, spans) = (&mut self.outlet, &self.mapping, &self.spans);
            let place = (&self.stats.table, || self.window.latest().cloned());
            let published = mapping.with_record(row, mark, |record| {
                let size = (record.key.len() + record.value.map_or(0, <[u8]>::len)) as u64;
                let event = || mapping.id(row).unwrap_or_default();
                let span = spans.of(record, place, event, row.commit_micros());
                (outlet.publish(record, chunk), size, span)
            });
            match published {
                Ok((Ok(()), size, span)) => {
                    self.window.publish();
                    if let Some(span) = span {
                        self.spans.begin(chunk, span);
                    }
                    return Ok(Ok(size));
                }
                Ok((Err(PublishError::Full), ..)) => self.wait_for_room(stop, patience).await?,
                Ok((Err(PublishError::Refused(DeliveryError::Poison { refusal, event: None })), ..)) => {
                    return Ok(Err((&refusal).into()));
                }
                Ok((Err(PublishError::Refused(error)), ..)) => return Err(self.undelivered(&error)),
                Err(error) => return Ok(Err(Poison { name: "unmappable_event", detail: error.to_string() })),
            }
        }
    }

    /// It is in the wrong table by the writers' own rule: order with the aggregate's other events is not certain.
    fn misrouted(&mut self, row: Row<'_>) {
        let seen = self.stats.misrouted.fetch_add(1, Relaxed) + 1;
        if self.misrouted.is_none_or(|warned| warned.elapsed() >= WARN_EVERY) {
            self.misrouted = Some(Instant::now());
            let event = String::from_utf8_lossy(self.mapping.id(row).unwrap_or_default());
            warn!(table = %self.stats.table, event = %event.escape_debug(), seen, "event_in_wrong_shard");
        }
    }

    /// Waits until publishing again makes sense; saving goes on. After a stop that is only so long.
    pub(super) async fn wait_for_room(
        &mut self,
        stop: &CancellationToken,
        patience: &mut Option<Instant>,
    ) -> Result<(), End> {
        self.observe();
        self.begin_save(false);
        if patience.is_some_and(|patience| Instant::now() >= patience) {
            return Err(End::Stop);
        }
        let now = Instant::now();
        let room = self.outlet.room();
        tokio::select! {
            biased;
            () = stop.cancelled(), if patience.is_none() => {
                *patience = Some(now + self.pace.shutdown_grace / 2);
                Ok(())
            }
            result = finish(&mut self.saving) => self.end_save(result),
            () = self.outlet.settled(&mut self.settled), if !self.window.is_settled() => self.settle(),
            () = room => Ok(()),
            () = sleep_until(patience.unwrap_or(now)), if patience.is_some() => Err(End::Stop),
        }
    }
}
