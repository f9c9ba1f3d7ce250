//! The thread of one producer: it reads librdkafka's reports, and does what would make a task wait.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use rdkafka::producer::Producer as _;

use super::inbox::lock;
use super::lanes::Lane;
use super::{Native, Shared};

/// How long it waits before it asks something again that could not be.
const AGAIN: Duration = Duration::from_millis(1);

/// How long the broker may take to say how many partitions a topic has.
const ANSWER: Duration = Duration::from_secs(2);

/// How long it sleeps when nothing wakes it.
const IDLE: Duration = Duration::from_millis(500);

pub(super) fn serve(shared: &Arc<Shared>) {
    // Before the first look: what comes after it rings.
    shared.lanes.wakes(&thread::current());
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
        let reported = self.lanes.all().iter().map(|lane| self.read_reports_of(lane)).sum();
        self.waiting.fetch_sub(reported, Ordering::AcqRel) == reported
    }

    /// Gives how many records were reported.
    fn read_reports_of(&self, Lane { bell, native }: &Lane) -> usize {
        let context = native.context();
        loop {
            // One entry of the queue, which may report many records.
            native.poll(Duration::ZERO);
            if bell.is_silent() {
                break;
            }
        }
        if context.was_lonely() {
            self.bootstrap.tell(native);
        }
        if let Some(openings) = &context.openings {
            for (topic, partition) in context.acknowledged() {
                openings.acknowledge(&topic, partition, || partitions(native, &topic));
            }
        }
        context.flush()
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

fn partitions(native: &Native, topic: &str) -> Option<usize> {
    let metadata = native.client().fetch_metadata(Some(topic), ANSWER).ok()?;
    Some(metadata.topics().first().filter(|topic| topic.error().is_none())?.partitions().len())
}
