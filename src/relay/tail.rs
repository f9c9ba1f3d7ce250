//! The tail: one reader of the log for a set of tables, feeding the queue of each.
//!
//! Promise: events reach a table's queue in log order, whatever happens to the connection; the tail reconnects for as
//! long as the error is one that time can cure, and says meanwhile what it waits for.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures::FutureExt;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::assembler::{Assembler, Limits};
use super::backoff::Backoff;
use super::queue::{Closed, Sender};
use super::stats::TailStats;
use crate::position::Position;
use crate::source::{Fault, LogEvent, LogSource, LogStream, SourceError, Subscription};

/// How often tables with nothing to relay learn where the tail stands.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// One table that the tail feeds.
pub struct Feed {
    /// What to read.
    pub subscription: Subscription,
    /// Where the table resumes.
    pub resume: Position,
    /// Where its batches go.
    pub queue: Sender,
}

/// The tail of a set of tables.
pub struct Tail<S> {
    source: S,
    subscriptions: Vec<Subscription>,
    queues: Vec<Sender>,
    assembler: Assembler,
    position: Position,
    backoff: Backoff,
    stats: Arc<TailStats>,
}

/// Why a tail cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tables resume at positions that do not compare: {0} and {1}")]
pub struct NoCommonPosition(String, String);

impl<S: LogSource> Tail<S> {
    /// A tail that starts where the table that is furthest behind resumes.
    pub fn new(
        source: S,
        feeds: Vec<Feed>,
        limits: Limits,
        backoff: Backoff,
        stats: Arc<TailStats>,
    ) -> Result<Self, NoCommonPosition> {
        let mut start: Option<Position> = None;
        for Feed { resume, .. } in &feeds {
            let point = match &start {
                None => resume.point.clone(),
                Some(so_far) => so_far
                    .point
                    .meet(&resume.point)
                    .ok_or_else(|| NoCommonPosition(so_far.to_string(), resume.to_string()))?,
            };
            start = Some(point.into());
        }
        let assembler =
            Assembler::new(feeds.iter().map(|feed| (feed.subscription.columns.len(), feed.resume.clone())), limits);
        let (subscriptions, queues) = feeds.into_iter().map(|feed| (feed.subscription, feed.queue)).unzip();
        Ok(Self { source, subscriptions, queues, assembler, position: start.unwrap_or_default(), backoff, stats })
    }

    /// Reads until cancelled, or until every table has halted. A definite error of the source halts them all by name.
    pub async fn run(mut self, stop: CancellationToken) {
        while let Some(()) = stop.run_until_cancelled(self.connection()).await {
            if self.assembler.is_halted() {
                return;
            }
            let wait = self.backoff.wait();
            self.stats.reconnects.fetch_add(1, Relaxed);
            if stop.run_until_cancelled(sleep(wait)).await.is_none() {
                return;
            }
        }
    }

    /// Opens the log once and reads it until it breaks off.
    async fn connection(&mut self) {
        let error = match self.source.open(&self.position, &self.subscriptions).await {
            Ok(mut stream) => {
                info!(position = %self.position, tables = self.subscriptions.len(), "log_opened");
                self.stats.set_connected();
                let error = self.read(&mut stream).await;
                self.position = stream.position().clone();
                self.assembler.reopen(&self.position);
                error
            }
            Err(error) => Some(error),
        };
        match error {
            None => {}
            Some(SourceError::Transient(reason)) => {
                warn!(%reason, position = %self.position, "log_unavailable");
                self.stats.set_waiting(reason);
            }
            Some(SourceError::Definite(fault)) => {
                self.stats.set_waiting(fault.to_string());
                self.halt_all(fault).await;
            }
        }
    }

    async fn halt_all(&mut self, fault: Fault) {
        self.assembler.take(LogEvent::<S::Rows>::Fault { slot: None, fault }, &self.position);
        self.deliver().await;
    }

    /// Reads an open log; `None` when every table has halted.
    async fn read(&mut self, stream: &mut S::Stream) -> Option<SourceError> {
        let mut next_progress = Instant::now() + PROGRESS_EVERY;
        while !self.assembler.is_halted() {
            let ready = stream.next().now_or_never();
            let event = if let Some(event) = ready {
                event
            } else {
                // Nothing more is here: what is complete need not wait for company.
                self.assembler.flush(stream.position());
                self.deliver().await;
                tokio::select! {
                    biased;
                    event = stream.next() => event,
                    () = sleep_until(next_progress) => Ok(LogEvent::Progress),
                }
            };
            match event {
                Ok(event) => self.assembler.take(event, stream.position()),
                Err(error) => {
                    self.assembler.reopen(stream.position());
                    self.assembler.flush(stream.position());
                    self.deliver().await;
                    return Some(error);
                }
            }
            if Instant::now() >= next_progress {
                self.backoff.reset();
                self.assembler.progress(stream.position());
                next_progress = Instant::now() + PROGRESS_EVERY;
            }
            if !self.assembler.is_drained() {
                self.deliver().await;
            }
        }
        None
    }

    async fn deliver(&mut self) {
        let items: Vec<_> = self.assembler.drain().collect();
        for (slot, item) in items {
            if let Err(Closed(_)) = self.queues[slot].send(item).await {
                // The relay has ended; its own end says why. The others go on.
                self.assembler.close(slot);
            }
        }
    }
}
