//! The thread of one producer: it reads librdkafka's reports, and does what would make a task wait.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use rdkafka::producer::Producer as _;

use super::Shared;
use super::inbox::lock;

/// How long the thread waits for reports in one go while something is in flight.
const POLL: Duration = Duration::from_millis(1);

/// How long the broker may take to say how many partitions a topic has.
const ANSWER: Duration = Duration::from_secs(2);

/// How long it sleeps when idle: librdkafka reports errors and throttling then too.
const IDLE: Duration = Duration::from_millis(500);

pub(super) fn serve(shared: &Arc<Shared>) {
    while !shared.stopped() {
        let idle = poll(shared);
        let orders = mem::take(&mut *lock(&shared.orders));
        let rest = idle && orders.is_empty();
        for order in orders {
            shared.carry_out(order);
        }
        if rest {
            thread::park_timeout(IDLE);
        }
    }
    // Ending the native producer takes a while, and must not hold up a task.
    while Arc::strong_count(shared) > 1 {
        thread::sleep(POLL);
    }
}

/// Reads reports; gives whether nothing is in flight.
pub(super) fn poll(shared: &Shared) -> bool {
    let context = shared.native.context();
    shared.native.poll(POLL);
    if let Some(openings) = &context.openings {
        for (topic, partition) in context.acknowledged() {
            openings.acknowledge(&topic, partition, || partitions(shared, &topic));
        }
    }
    let reported = context.flush();
    shared.waiting.fetch_sub(reported, Ordering::AcqRel) == reported
}

fn partitions(shared: &Shared, topic: &str) -> Option<usize> {
    let metadata = shared.native.client().fetch_metadata(Some(topic), ANSWER).ok()?;
    Some(metadata.topics().first().filter(|topic| topic.error().is_none())?.partitions().len())
}
