//! What was sent and what became of it, between librdkafka's callbacks and the relay.

use std::collections::VecDeque;
use std::error::Error;
use std::mem;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{DeliveryResult, NoCustomPartitioner, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::Notify;
use tracing::{debug, error, info, warn};

use super::super::error::classify;
use super::super::security::OAuth;
use super::Tag;
use super::care::Care;
use super::opening::Openings;
use super::statistics::{self, Brokers};
use super::transaction::of_position;
use crate::outlet::{Chunk, Client, DeliveryError, PublishError, Reach, Settled};

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An idempotent producer has so many records of a partition in requests on their way, or one request of more; further ones wait,
/// and its thread asks again and again meanwhile whether they may be sent (librdkafka 2.12.1, `RD_KAFKA_IDEMP_MAX_INFLIGHT`,
/// which `rd_kafka_toppar_producer_serve` compares with records, not requests).
const SENT_AT_ONCE: u64 = 5;

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
    /// The table's name, for the log.
    pub(super) name: String,
    state: Mutex<State>,
    news: Notify,
    /// Bytes sent and not reported.
    in_flight: AtomicUsize,
    /// Records that these are of.
    records: AtomicU64,
    pub(super) room: Arc<Notify>,
}

impl Inbox {
    pub(super) fn new(name: &str, transactional: bool) -> Self {
        let state = State { open: transactional.then(Open::default), ..State::default() };
        Self {
            name: name.to_owned(),
            state: Mutex::new(state),
            news: Notify::new(),
            in_flight: AtomicUsize::new(0),
            records: AtomicU64::new(0),
            room: Arc::default(),
        }
    }

    /// Bytes sent and not reported.
    pub(super) fn in_flight_bytes(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether librdkafka may keep what is sent now until others are reported.
    pub(super) fn is_busy(&self) -> bool {
        self.records.load(Ordering::Relaxed) > SENT_AT_ONCE
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
        self.records.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// The record that has just entered was not sent.
    pub(super) fn leave(&self, tag: Tag) {
        self.in_flight.fetch_sub(tag.bytes(), Ordering::Relaxed);
        self.records.fetch_sub(1, Ordering::Relaxed);
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
        let says_more = !matches!(error, DeliveryError::Retriable { .. });
        if state.failed.as_ref().is_none_or(|first| says_more && matches!(first, DeliveryError::Retriable { .. })) {
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
        for Report { mut settled, bytes } in reports {
            self.in_flight.fetch_sub(bytes, Ordering::Relaxed);
            // A position is sent for itself, and has not entered.
            if settled.chunk != Tag::POSITION.chunk() {
                self.records.fetch_sub(settled.records, Ordering::Relaxed);
            }
            if let Err(error) = &settled.outcome {
                self.fail(error);
            }
            let mut state = lock(&self.state);
            if state.open.is_none() {
                if let (Err(_), Some(first @ DeliveryError::Definite { .. })) = (&settled.outcome, &state.failed) {
                    settled.outcome = Err(first.clone());
                }
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
    pub(super) inbox: Arc<Inbox>,
    /// Filled by the callbacks of one poll, on the serving thread only: the lock is never contended.
    reports: Mutex<Vec<Report>>,
    /// `None` in transactions: those are given up whole.
    pub(super) openings: Option<Openings>,
    /// Topics and partitions that have acknowledged something while an opening is awaited.
    acknowledged: Mutex<Vec<(String, i32)>>,
    client: Client,
    /// What it has said of its brokers since it was asked last.
    brokers: Mutex<Brokers>,
    oauth: OAuth,
    care: Care,
}

impl Context {
    pub(super) fn new(inbox: Arc<Inbox>, transactional: bool, reach: Arc<Reach>, oauth: OAuth) -> Self {
        let openings = (!transactional).then(Openings::default);
        let (reports, acknowledged, care) = (Mutex::default(), Mutex::default(), Care::default());
        let (client, brokers) = (Client::of(reach), Mutex::default());
        Self { inbox, reports, openings, acknowledged, client, brokers, oauth, care }
    }

    /// With what its producers know of each other.
    pub(super) fn with_care(self, care: Care) -> Self {
        Self { care, ..self }
    }

    /// Whether another one would send faster.
    pub(super) fn is_spent(&self) -> bool {
        self.care.is_spent()
    }

    /// What it has said of its brokers since the last time.
    pub(super) fn brokers(&self) -> Brokers {
        mem::take(&mut lock(&self.brokers))
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
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.oauth.token()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        use RDKafkaLogLevel::{Debug, Info, Notice, Warning};
        let producer = &self.inbox.name;
        match level {
            Debug => debug!(target: "librdkafka", producer, facility, "{message}"),
            Info | Notice => info!(target: "librdkafka", producer, facility, "{message}"),
            Warning => warn!(target: "librdkafka", producer, facility, "{message}"),
            _ => error!(target: "librdkafka", producer, facility, "{message}"),
        }
        // The records of the transaction say afterwards only that they were given up.
        if let Some(topic) = forbidden(facility, message) {
            self.inbox.fail(&classify(RDKafkaErrorCode::TopicAuthorizationFailed, topic));
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::ClusterAuthorizationFailed) {
            // The producer has broken for good, and its records say only that.
            self.inbox.fail(&classify(RDKafkaErrorCode::ClusterAuthorizationFailed, "of any name"));
        }
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.client.is_alone();
        }
        warn!(producer = self.inbox.name, %error, reason, "kafka_error");
    }

    fn stats_raw(&self, statistics: &[u8]) {
        match statistics::word(statistics) {
            Ok((word, brokers)) => {
                self.client.tell(word);
                *lock(&self.brokers) = brokers;
            }
            Err(error) => debug!(%error, "kafka_statistics_unreadable"),
        }
    }
}

/// The topic that a transaction may not write to: `TxnCoordinator/1: Failed to add partition "TOPIC" [0] to transaction: …`.
fn forbidden<'a>(facility: &str, message: &'a str) -> Option<&'a str> {
    let (_, named) = message.split_once("Failed to add partition \"").filter(|_| facility == "ADDPARTS")?;
    let (topic, why) = named.split_once('"')?;
    why.ends_with("Topic authorization failed").then_some(topic)
}

/// What a code means for the record with this tag. A partition that librdkafka chose was there then: it is not the record's
/// fault that the topic has fewer now, or is gone.
fn meaning(code: RDKafkaErrorCode, topic: &str, tag: Tag) -> DeliveryError {
    if code != RDKafkaErrorCode::UnknownPartition || tag.names_partition() {
        return classify(code, topic);
    }
    DeliveryError::retriable(topic, "the topic has fewer partitions than before")
}

impl ProducerContext<NoCustomPartitioner> for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let (tag, outcome) = match result {
            Ok(message) => {
                self.care.acknowledge();
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
                let tag = Tag(opaque);
                let error = meaning(code, message.topic(), tag);
                let error = if tag == Tag::POSITION {
                    of_position(error, message.payload().map_or(0, <[u8]>::len))
                } else {
                    self.care.judge(&self.inbox.name, error, message)
                };
                (tag, Err(error))
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
    fn given_a_word_of_the_client_library_when_a_topic_is_forbidden_to_a_transaction_then_it_is_named() {
        let word = r#"[thrd:main]: TxnCoordinator/1: Failed to add partition "a-1" [0] to transaction: Broker: "#;
        assert_eq!(forbidden("ADDPARTS", &format!("{word}Topic authorization failed")), Some("a-1"));
        assert_eq!(forbidden("ADDPARTS", &format!("{word}Concurrent transactions")), None);
        assert_eq!(forbidden("TXNERR", &format!("{word}Topic authorization failed")), None);
    }

    #[test]
    fn given_a_partition_that_is_gone_when_the_record_named_it_then_it_is_blamed_and_otherwise_not() {
        for (partition, blamed) in [(Some(7), true), (None, false)] {
            let tag = Tag::new(3, 1000).naming(partition);
            assert_eq!((tag.chunk(), tag.bytes()), (3, 1024));
            let error = meaning(RDKafkaErrorCode::UnknownPartition, "t", tag);
            assert_eq!(matches!(error, DeliveryError::Poison { .. }), blamed, "{error:?}");
            assert!(matches!(meaning(RDKafkaErrorCode::MessageSizeTooLarge, "t", tag), DeliveryError::Poison { .. }));
        }
    }

    #[test]
    fn given_records_in_flight_when_all_but_a_few_are_reported_then_it_is_busy_no_more_and_a_position_counts_for_nothing()
     {
        let inbox = Inbox::new("delivery-outbox1", false);
        let report = |tag: Tag, records: u64| {
            let settled = Settled { chunk: tag.chunk(), records, outcome: Ok(()) };
            inbox.report(vec![Report { settled, bytes: tag.bytes() * usize::try_from(records).unwrap() }]);
        };
        let tag = Tag::new(0, 64);
        report(Tag::POSITION, 1);
        let mut busy = Vec::new();
        for _ in 0..=SENT_AT_ONCE {
            busy.push(inbox.is_busy());
            inbox.enter(tag, usize::MAX).unwrap();
        }
        assert!(busy.iter().all(|busy| !busy) && inbox.is_busy(), "{busy:?}");
        inbox.leave(tag);
        assert!(!inbox.is_busy());
        inbox.enter(tag, usize::MAX).unwrap();
        report(Tag::POSITION, 1);
        assert!(inbox.is_busy());
        report(tag, 1);
        assert!(!inbox.is_busy());
    }

    #[test]
    fn given_records_that_fail_because_of_what_has_to_be_cured_when_settled_then_that_is_told() {
        let cause = classify(RDKafkaErrorCode::ClusterAuthorizationFailed, "t");
        let inbox = Inbox::new("delivery-outbox1", false);
        inbox.enter(Tag::new(0, 1), usize::MAX).unwrap();
        inbox.fail(&cause);
        let outcome = Err(classify(RDKafkaErrorCode::Fatal, "t"));
        inbox.report(vec![Report { settled: Settled { chunk: 0, records: 1, outcome }, bytes: 64 }]);
        assert_eq!(lock(&inbox.state).settled, [Settled { chunk: 0, records: 1, outcome: Err(cause) }]);
    }

    #[test]
    fn given_a_record_that_was_not_sent_when_its_transaction_fails_meanwhile_then_it_is_settled_by_nobody() {
        let failure = DeliveryError::retriable("t", "over");
        for fails in [false, true] {
            let inbox = Inbox::new("delivery-outbox1", true);
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
