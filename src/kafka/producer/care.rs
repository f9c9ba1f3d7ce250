//! Which producers send each record by itself.
//!
//! A broker refuses a batch whole, and does not say for which of its records. Promise: an event is blamed only when its record
//! was alone. Otherwise the table's next producer sends every record in a batch of its own; the one after it, which a
//! refused record calls for, sends batches again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use rdkafka::message::{Headers, Message};
use tracing::warn;

use super::inbox::lock;
use crate::outbox::STANDARD_HEADERS;
use crate::outlet::{DeliveryError, Event, Failing};

/// What the producers of a process know of each other, by table.
#[derive(Debug, Clone, Default)]
pub(super) struct Careful(Arc<Mutex<HashMap<String, Arc<AtomicBool>>>>);

impl Careful {
    /// For the next producer of this name.
    pub(super) fn of(&self, name: &str) -> Care {
        let next = Arc::clone(lock(&self.0).entry(name.to_owned()).or_default());
        Care { alone: next.load(Relaxed), next }
    }
}

/// How one producer goes about it.
#[derive(Debug, Default)]
pub(super) struct Care {
    alone: bool,
    /// Whether the next one sends each record by itself.
    next: Arc<AtomicBool>,
}

impl Care {
    /// Whether each record is sent by itself.
    pub(super) fn is_alone(&self) -> bool {
        self.alone
    }

    /// What the error of a record is for the relay of the producer of this name.
    pub(super) fn judge(&self, producer: &str, error: DeliveryError, message: &impl Message) -> DeliveryError {
        let DeliveryError::Poison { refusal, .. } = error else { return error };
        self.next.store(!self.alone, Relaxed);
        if !self.alone {
            let reason =
                format!("{}: a batch is refused ({}); each record is sent by itself", refusal.name, refusal.reason);
            return DeliveryError::Retriable { failing: Failing::Event, topic: refusal.topic, reason };
        }
        let [id, _] = STANDARD_HEADERS;
        let headers = message.headers().into_iter().flat_map(Headers::iter);
        let id = headers.filter(|header| header.key == id).find_map(|header| header.value);
        let event = Event { key: message.key().unwrap_or_default().to_vec(), id: id.unwrap_or_default().to_vec() };
        warn!(producer, topic = refusal.topic, reason = refusal.name, "record_refused");
        DeliveryError::Poison { refusal, event: Some(Box::new(event)) }
    }
}
