//! The thread of one producer: it reads librdkafka's reports, and does what would make a task wait.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use rdkafka::producer::Producer as _;

use super::Shared;
use super::inbox::lock;

/// How long it waits before it asks something again that could not be.
const AGAIN: Duration = Duration::from_millis(1);

/// How long the broker may take to say how many partitions a topic has.
const ANSWER: Duration = Duration::from_secs(2);

/// How long it sleeps when nothing wakes it.
const IDLE: Duration = Duration::from_millis(500);

pub(super) fn serve(shared: &Arc<Shared>) {
    // Before the first look: what comes after it rings.
    shared.bell.wakes(thread::current());
    while !shared.stopped() {
        shared.read_reports();
        let orders = mem::take(&mut *lock(&shared.orders));
        if orders.is_empty() {
            thread::park_timeout(IDLE);
        }
        for order in orders {
            shared.carry_out(order);
        }
    }
    // Ending the native producer takes a while, and must not hold up a task.
    while Arc::strong_count(shared) > 1 {
        thread::sleep(AGAIN);
    }
}

impl Shared {
    /// Reads every report that is there; gives whether nothing is in flight.
    pub(super) fn read_reports(&self) -> bool {
        let context = self.native.context();
        loop {
            // One entry of the queue, which may report many records.
            self.native.poll(Duration::ZERO);
            if self.bell.is_silent() {
                break;
            }
        }
        if context.was_lonely() {
            self.bootstrap.tell(&self.native);
        }
        if let Some(openings) = &context.openings {
            for (topic, partition) in context.acknowledged() {
                openings.acknowledge(&topic, partition, || partitions(self, &topic));
            }
        }
        let reported = context.flush();
        self.waiting.fetch_sub(reported, Ordering::AcqRel) == reported
    }

    /// Waits until there are reports, or for a moment, and reads them; gives whether nothing is in flight.
    pub(super) fn await_reports(&self) -> bool {
        thread::park_timeout(IDLE);
        self.read_reports()
    }

    /// Reads reports, a moment later.
    pub(super) fn pause(&self) {
        thread::sleep(AGAIN);
        self.read_reports();
    }
}

fn partitions(shared: &Shared, topic: &str) -> Option<usize> {
    let metadata = shared.native.client().fetch_metadata(Some(topic), ANSWER).ok()?;
    Some(metadata.topics().first().filter(|topic| topic.error().is_none())?.partitions().len())
}
