//! Which producers send each record by itself.
//!
//! A broker refuses a batch whole, and does not say for which of its records. Promise: an event is blamed only when its record
//! was alone. Otherwise the table's next producer sends every record in a batch of its own. The one after it sends batches
//! again: it is made when a record was refused, or when so many were taken that none will be.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use rdkafka::message::{Headers, Message};
use tracing::warn;

use super::inbox::lock;
use crate::outbox::STANDARD_HEADERS;
use crate::outlet::{DeliveryError, Event, Failing};

/// So many records that were taken one by one tell that none is refused any more: what was sent with the refused one is
/// among them, unless more may be unsaved than is usual (`relay.max_unsaved_events`). Twice as many each further time in a
/// row, for it may be the batches that are refused, as too large.
const ENOUGH: u64 = 50_000;

/// It is doubled so often at most.
const DOUBLED: u32 = 16;

/// What the producers of a process know of each other, by table.
#[derive(Debug, Clone, Default)]
pub(super) struct Careful(Arc<Mutex<HashMap<String, Arc<Known>>>>);

/// What the producers of a table know of each other.
#[derive(Debug, Default)]
struct Known {
    /// Whether the next one sends each record by itself.
    alone: AtomicBool,
    /// How many in a row have done so and had none refused.
    in_vain: AtomicU32,
}

impl Careful {
    /// For the next producer of this name.
    pub(super) fn of(&self, name: &str) -> Care {
        let known = Arc::clone(lock(&self.0).entry(name.to_owned()).or_default());
        let enough = ENOUGH << known.in_vain.load(Relaxed).min(DOUBLED);
        Care { alone: known.alone.load(Relaxed), enough, taken: AtomicU64::new(0), known }
    }
}

/// How one producer goes about it.
#[derive(Debug, Default)]
pub(super) struct Care {
    alone: bool,
    /// After so many records another one does better.
    enough: u64,
    taken: AtomicU64,
    known: Arc<Known>,
}

impl Care {
    /// Whether each record is sent by itself.
    pub(super) fn is_alone(&self) -> bool {
        self.alone
    }

    /// Whether that was done for long enough.
    pub(super) fn is_spent(&self) -> bool {
        self.alone && self.taken.load(Relaxed) >= self.enough
    }

    /// A record was taken.
    pub(super) fn acknowledge(&self) {
        // The two producers of exactly-once delivery count apart, and each may be the first.
        if self.alone && self.taken.fetch_add(1, Relaxed) + 1 == self.enough && self.known.alone.swap(false, Relaxed) {
            self.known.in_vain.fetch_add(1, Relaxed);
        }
    }

    /// What the error of a record is for the relay of the producer of this name.
    pub(super) fn judge(&self, producer: &str, error: DeliveryError, message: &impl Message) -> DeliveryError {
        let DeliveryError::Poison { refusal, .. } = error else { return error };
        self.known.alone.store(!self.alone, Relaxed);
        if !self.alone {
            let reason =
                format!("{}: a batch is refused ({}); each record is sent by itself", refusal.name, refusal.reason);
            return DeliveryError::Retriable { failing: Failing::Event, topic: refusal.topic, reason };
        }
        self.known.in_vain.store(0, Relaxed);
        let [id, _] = STANDARD_HEADERS;
        let headers = message.headers().into_iter().flat_map(Headers::iter);
        let id = headers.filter(|header| header.key == id).find_map(|header| header.value);
        let event = Event { key: message.key().unwrap_or_default().to_vec(), id: id.unwrap_or_default().to_vec() };
        warn!(producer, topic = refusal.topic, reason = refusal.name, "record_refused");
        DeliveryError::Poison { refusal, event: Some(Box::new(event)) }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::Timestamp;
    use rdkafka::message::{Header, OwnedHeaders, OwnedMessage};
    use rdkafka::types::RDKafkaErrorCode as Code;

    use super::*;
    use crate::kafka::error::classify;

    /// What a refused record of the event `e` of the key `k` leads to.
    fn refuse(care: &Care) -> DeliveryError {
        let headers = OwnedHeaders::new().insert(Header { key: STANDARD_HEADERS[0], value: Some("e") });
        let (key, time) = (Some(b"k".to_vec()), Timestamp::NotAvailable);
        let message = OwnedMessage::new(None, key, "t".to_owned(), time, 0, 0, Some(headers));
        care.judge("d.o", classify(Code::MessageSizeTooLarge, "t"), &message)
    }

    fn is_blamed(error: &DeliveryError) -> bool {
        let expected = Event { key: b"k".to_vec(), id: b"e".to_vec() };
        matches!(error, DeliveryError::Poison { event: Some(event), .. } if **event == expected)
    }

    #[test]
    fn given_a_refused_batch_when_the_next_producer_finds_the_event_then_the_one_after_it_sends_batches() {
        let careful = Careful::default();
        let batching = careful.of("d.o");
        let error = refuse(&batching);
        assert!(matches!(error, DeliveryError::Retriable { failing: Failing::Event, .. }), "{error:?}");
        assert!(!batching.is_alone() && !careful.of("d.other").is_alone());
        let alone = careful.of("d.o");
        assert!(alone.is_alone() && is_blamed(&refuse(&alone)));
        assert!(!careful.of("d.o").is_alone());
    }

    #[test]
    fn given_a_refused_batch_when_none_of_its_records_is_refused_again_then_the_table_sends_batches_again() {
        let careful = Careful::default();
        let spend = |expected: u64| {
            refuse(&careful.of("d.o"));
            // Two of them, as exactly once; each is told of by its own.
            let (one, other) = (careful.of("d.o"), careful.of("d.o"));
            for care in [&one, &other] {
                (1..expected).for_each(|_| care.acknowledge());
            }
            assert!(!one.is_spent() && careful.of("d.o").is_alone(), "one that ends before is followed by such a one");
            for care in [&one, &other] {
                care.acknowledge();
                assert!(care.is_spent() && !careful.of("d.o").is_alone());
            }
        };
        spend(ENOUGH);
        spend(2 * ENOUGH);
        spend(4 * ENOUGH);
        refuse(&careful.of("d.o"));
        assert!(is_blamed(&refuse(&careful.of("d.o"))));
        spend(ENOUGH);
        let batching = careful.of("d.o");
        (0..=ENOUGH).for_each(|_| batching.acknowledge());
        assert!(!batching.is_spent(), "it is not alone");
    }
}
