//! The tail: one reader of the log for a set of tables, feeding the queue of each.
//!
//! Promise: events reach a table's queue in log order, whatever happens to the connection; the tail reconnects for as
//! long as the error is one that time can cure, and says meanwhile what it waits for. A table whose queue stays full does
//! not hold up the others: the tail lets go of it, at a position that it says, and takes it on again when it is asked to.
//!
//! The shared tail and a catch-up reader are this one thing: a catch-up reader feeds one table, and has a [`Goal`].

mod members;
mod pulse;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::members::{Member, Members};
use self::pulse::Pulse;
use super::assembler::{Assembler, Limits};
use super::backoff::Backoff;
use super::meeting::{Distances, Goal};
use super::queue::Sender;
use super::stats::TailStats;
use crate::position::{Point, Position};
use crate::source::{Fault, LogEvent, LogSource, LogStream, Parting, SourceError, Subscription};

/// How often tables with nothing to relay learn where the tail stands.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// While events come one after another the clock is looked at after so many of them: it costs as much as a small one.
const LOOK_EVERY: u32 = 64;

/// One table to feed.
#[derive(Debug)]
pub struct Feed {
    /// What to read.
    pub subscription: Subscription,
    /// Where the table resumes.
    pub resume: Position,
    /// Where its batches go.
    pub queue: Sender,
    /// Hears where the table stands when the tail lets go of it because its queue is full. Dropped when the table is fed
    /// no more for another reason: it has been told a fault, or its relay has ended.
    pub left: oneshot::Sender<Position>,
}

/// The tail is asked to feed one more table.
#[derive(Debug)]
pub struct Request {
    /// The table.
    pub feed: Feed,
    /// Hears the answer.
    pub answer: oneshot::Sender<Answer>,
}

/// What the tail says to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The table is fed from here on, or from where it resumes if that is later.
    Fed(Position),
    /// It is too far behind; the tail is here.
    Far(Position),
}

/// How a catch-up reader ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It has reached its goal, and read no transaction beyond it. The table stands here, at the goal or where it resumed
    /// if that is later.
    Met(Position),
    /// Its turn is over, or it was beyond its goal when it noticed. The table stands here.
    Over(Position),
    /// The queue stayed full. The table stands here.
    Full(Position),
    /// The table was told a fault, or its relay has ended.
    Told,
}

/// What every reader of the log is made with.
#[derive(Debug, Clone)]
pub struct Making {
    /// Sizes of batches.
    pub limits: Limits,
    /// Waits between connections.
    pub backoff: Backoff,
    /// How long one table may keep others waiting.
    pub patience: Duration,
    /// How much log is little.
    pub distances: Distances,
}

/// The tail of a set of tables.
pub struct Tail<S> {
    source: S,
    subscriptions: Vec<Subscription>,
    members: Members,
    assembler: Assembler,
    position: Position,
    backoff: Backoff,
    stats: Arc<TailStats>,
    requests: mpsc::UnboundedReceiver<Request>,
    /// The stream does not know the newest subscription.
    outdated: bool,
    distances: Distances,
    goal: Option<Goal>,
    turn_ends: Instant,
}

impl<S: LogSource> Tail<S> {
    /// A tail at `start`, without tables yet, that takes on those it is asked to.
    pub fn new(
        source: S,
        start: Point,
        making: Making,
        stats: Arc<TailStats>,
        requests: mpsc::UnboundedReceiver<Request>,
    ) -> Self {
        Self {
            source,
            subscriptions: Vec::new(),
            members: Members::new(making.patience),
            assembler: Assembler::new([], making.limits),
            position: start.into(),
            backoff: making.backoff,
            stats,
            requests,
            outdated: false,
            distances: making.distances,
            goal: None,
            turn_ends: Instant::now(),
        }
    }

    /// Takes a table on. It stands where it resumes, or where the tail is if that is later: another reader brings what is
    /// between.
    pub fn feed(&mut self, feed: Feed) {
        let Feed { subscription, resume, queue, left } = feed;
        let stands = if resume >= self.position { resume.clone() } else { self.position.clone() };
        let known = self.subscriptions.iter().position(|known| known.table == subscription.table);
        let slot = known.unwrap_or(self.subscriptions.len());
        // What is prepared was not held for this table: the log brings it again to a stream that is opened here.
        self.outdated |= self.assembler.holds_prepared();
        self.assembler.admit(slot, subscription.columns.len(), resume);
        self.members.set(slot, Member::new(queue, left, stands));
        match self.subscriptions.get_mut(slot) {
            Some(known) if *known == subscription => {}
            Some(known) => {
                *known = subscription;
                self.outdated = true;
            }
            None => {
                self.subscriptions.push(subscription);
                self.outdated = true;
            }
        }
    }

    /// Reads until cancelled. A definite error of the source halts every table by name.
    pub async fn run(mut self, stop: CancellationToken) {
        let _ = stop.run_until_cancelled(self.serve()).await;
    }

    async fn serve(&mut self) {
        loop {
            self.read_while_fed().await;
            self.stats.set_idle();
            let Some(request) = self.requests.recv().await else { return };
            self.position = request.feed.resume.point.clone().into();
            self.admit(request);
        }
    }

    /// Reads for one table up to `goal`, and no longer than a turn.
    pub async fn catch_up(source: S, feed: Feed, goal: Point, making: Making, stats: Arc<TailStats>) -> Ended {
        let start = feed.resume.point.clone();
        let (left, mut was_left) = oneshot::channel();
        let turn = making.distances.turn;
        let mut tail = Self::new(source, start, making, stats, mpsc::unbounded_channel().1);
        let end = goal.clone().into();
        tail.goal = Some(Goal::new(goal));
        tail.turn_ends = Instant::now() + turn;
        tail.feed(Feed { left, ..feed });
        tail.read_while_fed().await;
        match (tail.members.first_fed().cloned(), was_left.try_recv()) {
            (Some(at), _) if tail.goal.as_ref().is_some_and(Goal::is_exact) => {
                Ended::Met(if at >= end { at } else { end })
            }
            (Some(at), _) => Ended::Over(at),
            (None, Ok(at)) => Ended::Full(at),
            (None, Err(_)) => Ended::Told,
        }
    }

    /// Whether the goal is reached or the turn is over, for a reader that has one.
    fn is_over(&mut self, at: Option<&Position>) -> bool {
        let at = &at.unwrap_or(&self.position).point;
        self.goal.as_mut().is_some_and(|goal| goal.stand(at) || Instant::now() >= self.turn_ends)
    }

    /// Connects again and again for as long as there are tables to feed.
    async fn read_while_fed(&mut self) {
        while self.members.any() && !self.is_over(None) {
            self.connection().await;
            if self.members.any() && !self.outdated && !self.is_over(None) {
                self.pause().await;
            }
        }
    }

    /// Waits before the next connection; tables are taken on meanwhile.
    async fn pause(&mut self) {
        let until = Instant::now() + self.backoff.wait();
        loop {
            tokio::select! {
                biased;
                () = sleep_until(until) => return,
                Some(request) = self.requests.recv() => self.admit(request),
            }
        }
    }

    /// Answers a request, between transactions.
    fn admit(&mut self, Request { feed, answer }: Request) {
        let at = self.position.clone();
        if self.distances.is_near(&feed.resume, &at) {
            self.feed(feed);
            // Whoever does not want the answer any more has dropped the queue too.
            let _ = answer.send(Answer::Fed(at));
        } else {
            let _ = answer.send(Answer::Far(at));
        }
    }

    /// Opens the log once and reads it until it breaks off.
    async fn connection(&mut self) {
        self.outdated = false;
        let mut parting = Parting::Unreachable;
        let error = match self.source.open(&self.position, &self.subscriptions).await {
            Ok(mut stream) => {
                info!(position = %self.position, tables = self.subscriptions.len(), "log_opened");
                self.stats.set_connected();
                self.stats.set_position(&self.position);
                let error = self.read(&mut stream).await;
                parting = stream.parting();
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
                self.stats.reconnect(parting);
                self.stats.set_waiting(reason);
            }
            Some(SourceError::Displaced(reason)) => {
                warn!(%reason, position = %self.position, "log_displaced");
                self.stats.reconnect(Parting::Server);
                self.stats.set_waiting(reason.clone());
                self.assembler.displace(&reason);
                self.deliver().await;
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

    /// Reads an open log; `None` when there is no table left to feed, the goal is reached, or a table was added.
    async fn read(&mut self, stream: &mut S::Stream) -> Option<SourceError> {
        let mut next_progress = Instant::now() + PROGRESS_EVERY;
        let mut pulse = Pulse::of(Arc::clone(&self.stats));
        let mut unlooked = 0;
        while self.members.any() && !self.outdated {
            let ready = stream.next().now_or_never();
            let event = if let Some(event) = ready {
                unlooked += 1;
                event.inspect(|_| pulse.beats())
            } else {
                unlooked = LOOK_EVERY;
                // Nothing more is here: what is complete need not wait for company.
                self.assembler.flush(stream.position());
                self.deliver().await;
                pulse.rests(stream.heard());
                tokio::select! {
                    biased;
                    event = stream.next() => event.inspect(|_| pulse.beats()),
                    () = sleep_until(next_progress) => Ok(LogEvent::Progress),
                    Some(request) = self.requests.recv(), if self.takes_requests() => {
                        self.position.clone_from(stream.position());
                        self.admit(request);
                        continue;
                    }
                }
            };
            if let Ok(LogEvent::Begin { commit_micros, .. }) = &event {
                pulse.reads(*commit_micros);
            }
            match event {
                Ok(LogEvent::Begin { txn, .. }) if self.goal.as_mut().is_some_and(|goal| goal.begin(&txn)) => {
                    self.assembler.progress(stream.position());
                    self.deliver().await;
                    return None;
                }
                Ok(event) => {
                    if let Some(goal) = &mut self.goal {
                        goal.end(&event);
                    }
                    self.assembler.take(event, stream.position());
                }
                Err(SourceError::Definite(fault)) => {
                    // Now, while it is known which transaction is open.
                    self.position.clone_from(stream.position());
                    self.halt_all(fault.clone()).await;
                    return Some(SourceError::Definite(fault));
                }
                Err(error) => {
                    self.assembler.reopen(stream.position());
                    self.assembler.flush(stream.position());
                    self.deliver().await;
                    return Some(error);
                }
            }
            let looks = unlooked >= LOOK_EVERY;
            if looks {
                unlooked = 0;
            }
            if looks && Instant::now() >= next_progress {
                self.backoff.reset();
                self.stats.set_position(stream.position());
                pulse.ticks(stream.place(), self.assembler.held_bytes());
                self.assembler.progress(stream.position());
                self.close_ended();
                next_progress = Instant::now() + PROGRESS_EVERY;
            }
            if !self.assembler.is_drained() {
                self.deliver().await;
            }
            if !self.assembler.is_open() && self.is_over(Some(stream.position())) {
                self.assembler.progress(stream.position());
                self.deliver().await;
                return None;
            }
            while self.takes_requests()
                && let Ok(request) = self.requests.try_recv()
            {
                self.position.clone_from(stream.position());
                self.admit(request);
            }
        }
        None
    }

    /// Between transactions, with a position that counts: one without tables goes where the first one asks.
    fn takes_requests(&self) -> bool {
        !self.assembler.is_open() && self.members.any()
    }

    fn close_ended(&mut self) {
        for slot in self.members.close_ended() {
            self.assembler.close(slot);
        }
    }

    async fn deliver(&mut self) {
        let items = self.assembler.drain().collect();
        for slot in self.members.deliver(items).await {
            // The relay has ended, and its own end says why; or another reader will feed it. The others go on.
            self.assembler.close(slot);
        }
    }
}
