//! The rows that are in a table itself, before the log.
//!
//! Promise: they go through the table's line as everything does, with positions that say how far they are relayed; the
//! shared tail comes behind them, at the position's point. A relay that takes nothing for long holds neither a turn nor
//! a view of the table: the scan ends, and another one goes on where it was once the queue is empty.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::Feeder;
use crate::planted::{self, Bug};
use crate::position::{Position, Scan};
use crate::relay::Item;
use crate::relay::backoff::Backoff;
use crate::relay::queue::{self, Sender};
use crate::relay::stats::State;
use crate::source::{BatchBuilder, LogSource, SourceError, TableScan};

/// How often the progress is told to who asks.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// How often the progress is told to the log.
const LOG_EVERY: Duration = Duration::from_secs(30);

/// How long a full queue is waited for before another table has the turn. To open a table again costs more than a short
/// stall.
const FULL_FOR: Duration = Duration::from_secs(10);

/// Why a scan breaks off.
enum Broken {
    /// The relay has ended.
    Closed,
    /// The queue stayed full.
    Full,
    Source(SourceError),
}

impl From<SourceError> for Broken {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

impl<N, S> Feeder<N>
where
    N: Fn() -> S + Send + Sync,
    S: LogSource,
{
    /// Feeds the rows that the position asks for, if it does; `None` when the table will not be fed any more.
    pub(super) async fn read_table(&mut self) -> Option<()> {
        if planted::is(Bug::SnapshotSkipped) {
            self.resume.scan = None;
        }
        if self.resume.scan.is_none() {
            return Some(());
        }
        let (queue, receiver) = queue::bounded(self.shared.queue_bytes);
        self.line.push(receiver);
        let mut backoff = self.shared.making.backoff.clone();
        while self.resume.scan.is_some() {
            self.read_on(&queue, &mut backoff).await?;
        }
        self.stats.snapshot_total.store(0, Relaxed);
        // What reads the log next fills a queue of its own.
        let level = queue.level();
        drop(queue);
        level.emptied().await;
        Some(())
    }

    /// Reads on for one turn. What has to be waited for behind it is waited for without one.
    async fn read_on(&mut self, queue: &Sender, backoff: &mut Backoff) -> Option<()> {
        self.stats
            .set_apart(State::Snapshot, "it waits for its turn to be read; relay.snapshot_readers others are".into());
        let turn = self.shared.scans.next().await?;
        let before = self.resume.clone();
        let ended = self.scan(queue).await;
        drop(turn);
        match ended {
            Ok(()) => {}
            Err(Broken::Closed) => return None,
            Err(Broken::Full) => {
                info!(table = %self.stats.table, position = %self.resume, "snapshot_waits");
                let reason = "its queue stayed full; it reads the table on once the queue is empty".to_owned();
                self.stats.set_apart(State::Snapshot, reason);
                queue.level().emptied().await;
            }
            Err(Broken::Source(SourceError::Transient(reason))) => {
                warn!(table = %self.stats.table, position = %self.resume, %reason, "snapshot_interrupted");
                self.stats.set_apart(State::Snapshot, format!("waits to read the table on: {reason}"));
                if self.resume != before {
                    backoff.reset();
                }
                sleep(backoff.wait()).await;
            }
            Err(Broken::Source(SourceError::Displaced(reason))) => {
                let _ = queue.send(Item::Displaced(reason)).await;
                return None;
            }
            Err(Broken::Source(SourceError::Definite(fault))) => {
                let _ = queue.send(Item::Fault { fault, behind: None }).await;
                return None;
            }
        }
        Some(())
    }

    /// Reads the table from where it is, to its end.
    async fn scan(&mut self, queue: &Sender) -> Result<(), Broken> {
        self.stats.set_apart(State::Snapshot, "it opens the table".to_owned());
        let mut source = (self.source)();
        let mut scan = source.scan(&self.resume, &self.subscription, self.shared.snapshot_keys_bytes).await?;
        info!(table = %self.stats.table, position = %self.resume, rows = scan.total(), "snapshot_opened");
        let mut batch = BatchBuilder::new(self.subscription.columns.len());
        let begun = self.resume.scan.as_ref().map_or(0, |scan| scan.done());
        let mut progress = Progress::new(begun);
        while self.resume.scan.is_some() {
            let reached = scan.fill(&mut batch, self.shared.making.limits.batch_bytes).await?;
            let rows = reached.as_ref().map(Scan::done);
            let position = Arc::new(Position { scan: reached.map(Box::new), ..self.resume.clone() });
            let item = if batch.is_empty() {
                Item::Progress(Arc::clone(&position))
            } else {
                Item::Batch(batch.take(Arc::clone(&position)))
            };
            // An item is sent whole or not at all; one that is not is read again, from where we are.
            match timeout(FULL_FOR, queue.send(item)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Broken::Closed),
                Err(_) => return Err(Broken::Full),
            }
            self.resume = Arc::unwrap_or_clone(position);
            if let Some(rows) = rows {
                let total = scan.total().max(rows);
                self.stats.snapshot_rows.store(rows, Relaxed);
                self.stats.snapshot_total.store(total, Relaxed);
                self.tell(&mut progress, rows, total);
            }
        }
        info!(table = %self.stats.table, position = %self.resume, rows = self.stats.snapshot_rows.load(Relaxed), "snapshot_done");
        Ok(())
    }

    fn tell(&self, progress: &mut Progress, rows: u64, total: u64) {
        let now = Instant::now();
        if now < progress.tell_at {
            return;
        }
        progress.tell_at = now + TELL_EVERY;
        let told = progress.text(rows, total, now);
        if now >= progress.log_at {
            progress.log_at = now + LOG_EVERY;
            info!(table = %self.stats.table, %told, "snapshot_progress");
        }
        self.stats.set_apart(State::Snapshot, told);
    }
}

/// How fast a scan is, for people.
struct Progress {
    begun: Instant,
    /// Rows that were read before it began.
    before: u64,
    tell_at: Instant,
    log_at: Instant,
}

impl Progress {
    fn new(before: u64) -> Self {
        let now = Instant::now();
        Self { begun: now, before, tell_at: now, log_at: now + LOG_EVERY }
    }

    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "for people"
    )]
    fn text(&self, rows: u64, total: u64, now: Instant) -> String {
        let percent = rows.saturating_mul(100) / total.max(1);
        let read = rows.saturating_sub(self.before) as f64;
        let rate = read / (now - self.begun).as_secs_f64().max(0.001);
        let text = format!("reads the table: {rows} of about {total} rows ({percent} %), {rate:.0} rows/s");
        if rate < 1.0 {
            return text;
        }
        let left = Duration::from_secs((total.saturating_sub(rows) as f64 / rate) as u64);
        format!("{text}, {} left", humantime::format_duration(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn progress_is_told_with_rate_and_time_left() {
        let progress = Progress::new(100);
        tokio::time::advance(Duration::from_secs(10)).await;
        let told = progress.text(1_100, 13_100, Instant::now());
        assert_eq!(told, "reads the table: 1100 of about 13100 rows (8 %), 100 rows/s, 2m left");
    }
}
