//! What was sent and what became of it, between librdkafka's callbacks and the relay.

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{DeliveryResult, NoCustomPartitioner, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientContext, Statistics};
use tokio::sync::Notify;
use tracing::warn;

use super::super::error::classify;
use super::Tag;
use super::opening::Openings;
use crate::outlet::{Chunk, DeliveryError, PublishError, Reach, Settled};

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A transaction that is open on our side.
#[derive(Debug, Default)]
struct Open {
    /// Records by batch, in order.
    records: VecDeque<(Chunk, u64)>,
    /// Nothing enters while a commit is under way: it covers exactly what is there.
    committing: bool,
}

#[derive(Debug, Default)]
struct State {
    settled: Vec<Settled>,
    /// The first failure: what is published after it would overtake it.
    failed: Option<DeliveryError>,
    /// `None` where each record is settled by its own report.
    open: Option<Open>,
}

/// One table's records.
#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<State>,
    news: Notify,
    /// Bytes sent and not reported.
    in_flight: AtomicUsize,
    pub(super) room: Arc<Notify>,
}

impl Inbox {
    pub(super) fn new(transactional: bool) -> Self {
        let state = State { open: transactional.then(Open::default), ..State::default() };
        Self { state: Mutex::new(state), news: Notify::new(), in_flight: AtomicUsize::new(0), room: Arc::default() }
    }

    /// Counts a record that is about to be sent.
    pub(super) fn enter(&self, tag: Tag, limit: usize) -> Result<(), PublishError> {
        let mut state = lock(&self.state);
        if let Some(error) = &state.failed {
            return Err(PublishError::Refused(error.clone()));
        }
        let in_flight = self.in_flight.load(Ordering::Relaxed);
        if in_flight > 0 && in_flight.saturating_add(tag.bytes()) > limit {
            return Err(PublishError::Full);
        }
        if let Some(open) = &mut state.open {
            if open.committing {
                return Err(PublishError::Full);
            }
            match open.records.back_mut().filter(|(chunk, _)| *chunk == tag.chunk()) {
                Some((_, records)) => *records += 1,
                None => open.records.push_back((tag.chunk(), 1)),
            }
        }
        self.in_flight.fetch_add(tag.bytes(), Ordering::Relaxed);
        Ok(())
    }

    /// The record that has just entered was not sent.
    pub(super) fn leave(&self, tag: Tag) {
        self.in_flight.fetch_sub(tag.bytes(), Ordering::Relaxed);
        let mut state = lock(&self.state);
        let State { settled, open, .. } = &mut *state;
        let Some(open) = open else { return };
        if let Some((_, records)) = open.records.back_mut().filter(|(chunk, _)| *chunk == tag.chunk()) {
            *records -= 1;
            open.records.pop_back_if(|(_, records)| *records == 0);
        } else if let Some(failed) = settled.iter_mut().rev().find(|settled| settled.chunk == tag.chunk()) {
            // The transaction has failed in between, and the record with it, which nobody knows of.
            failed.records -= 1;
            settled.retain(|settled| settled.records > 0);
        }
    }

    /// Nothing enters any more. In a transaction everything has failed: it will never be committed.
    pub(super) fn fail(&self, error: &DeliveryError) {
        let mut state = lock(&self.state);
        // What has to be cured says more than what followed from it.
        if state.failed.as_ref().is_none_or(|first| matches!(first, DeliveryError::Retriable { .. })) {
            state.failed = Some(error.clone());
        }
        self.settle_all(&mut state, &Err(error.clone()));
    }

    /// A commit begins, unless something has failed.
    pub(super) fn close(&self) -> Result<(), DeliveryError> {
        let mut state = lock(&self.state);
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        if let Some(open) = &mut state.open {
            open.committing = true;
        }
        Ok(())
    }

    /// The transaction is committed, and the next one is open.
    pub(super) fn committed(&self) {
        self.settle_all(&mut lock(&self.state), &Ok(()));
        self.room.notify_one();
    }

    pub(super) fn failure(&self) -> Option<DeliveryError> {
        lock(&self.state).failed.clone()
    }

    fn settle_all(&self, state: &mut State, outcome: &Result<(), DeliveryError>) {
        let Some(open) = &mut state.open else { return };
        open.committing = false;
        let settled = open.records.drain(..);
        state.settled.extend(settled.map(|(chunk, records)| Settled { chunk, records, outcome: outcome.clone() }));
        self.news.notify_one();
    }

    fn report(&self, reports: Vec<Report>) {
        for Report { settled, bytes } in reports {
            self.in_flight.fetch_sub(bytes, Ordering::Relaxed);
            if let Err(error) = &settled.outcome {
                self.fail(error);
            }
            let mut state = lock(&self.state);
            if state.open.is_none() {
                state.settled.push(settled);
            }
        }
        self.news.notify_one();
        self.room.notify_one();
    }

    pub(super) async fn settled(&self, into: &mut Vec<Settled>) {
        loop {
            let reports = mem::take(&mut lock(&self.state).settled);
            if !reports.is_empty() {
                into.extend(reports);
                return;
            }
            self.news.notified().await;
        }
    }
}

/// Records of one batch that were reported alike.
struct Report {
    settled: Settled,
    bytes: usize,
}

/// What librdkafka calls.
pub(super) struct Context {
    inbox: Arc<Inbox>,
    /// Filled by the callbacks of one poll, on the serving thread only: the lock is never contended.
    reports: Mutex<Vec<Report>>,
    /// `None` in transactions: those are given up whole.
    pub(super) openings: Option<Openings>,
    /// Topics and partitions that have acknowledged something while an opening is awaited.
    acknowledged: Mutex<Vec<(String, i32)>>,
    reach: Arc<Reach>,
}

impl Context {
    pub(super) fn new(inbox: Arc<Inbox>, transactional: bool, reach: Arc<Reach>) -> Self {
        let openings = (!transactional).then(Openings::default);
        Self { inbox, reports: Mutex::default(), openings, acknowledged: Mutex::default(), reach }
    }

    /// Who has acknowledged something since the last time.
    pub(super) fn acknowledged(&self) -> Vec<(String, i32)> {
        mem::take(&mut lock(&self.acknowledged))
    }

    /// Hands the reports of one poll on; returns how many records they are about.
    pub(super) fn flush(&self) -> usize {
        let reports = mem::take(&mut *lock(&self.reports));
        if reports.is_empty() {
            return 0;
        }
        let records = reports.iter().map(|report| report.settled.records).sum::<u64>();
        self.inbox.report(reports);
        usize::try_from(records).unwrap_or(usize::MAX)
    }
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.reach.set(false);
        }
        warn!(%error, reason, "kafka_error");
    }

    fn stats(&self, statistics: Statistics) {
        // The bootstrap addresses are brokers too until the real ones are known, so one that is up is enough.
        self.reach.set(statistics.brokers.values().any(|broker| broker.state == "UP"));
    }
}

impl ProducerContext<NoCustomPartitioner> for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let (tag, outcome) = match result {
            Ok(message) => {
                if self.openings.as_ref().is_some_and(Openings::are_awaited) {
                    let place = (message.topic().to_owned(), message.partition());
                    let mut acknowledged = lock(&self.acknowledged);
                    if acknowledged.last() != Some(&place) {
                        acknowledged.push(place);
                    }
                }
                (Tag(opaque), Ok(()))
            }
            Err((error, message)) => {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
                (Tag(opaque), Err(classify(code, message.topic())))
            }
        };
        let mut reports = lock(&self.reports);
        match reports.last_mut() {
            Some(last) if last.settled.chunk == tag.chunk() && last.settled.outcome == outcome => {
                last.settled.records += 1;
                last.bytes += tag.bytes();
            }
            _ => reports
                .push(Report { settled: Settled { chunk: tag.chunk(), records: 1, outcome }, bytes: tag.bytes() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_a_record_that_was_not_sent_when_its_transaction_fails_meanwhile_then_it_is_settled_by_nobody() {
        let failure = DeliveryError::Retriable { topic: "t".to_owned(), reason: "over".to_owned() };
        for fails in [false, true] {
            let inbox = Inbox::new(true);
            inbox.enter(Tag::new(0, 1), usize::MAX).unwrap();
            inbox.enter(Tag::new(1, 1), usize::MAX).unwrap();
            if fails {
                inbox.fail(&failure);
            }
            inbox.leave(Tag::new(1, 1));
            inbox.fail(&failure);
            let settled = Settled { chunk: 0, records: 1, outcome: Err(failure.clone()) };
            assert_eq!(lock(&inbox.state).settled, [settled], "{fails}");
        }
    }
}
