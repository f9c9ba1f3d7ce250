//! The thread of one producer: it reads librdkafka's reports, and does what would make a task wait.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::producer::{Producer as _, PurgeConfig};
use tracing::warn;

use super::inbox::lock;
use super::lanes::Lane;
use super::statistics::Brokers;
use super::{Native, Shared};
use crate::outlet::{DeliveryError, Failing};

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
        match context.brokers() {
            Brokers::Sought => {}
            Brokers::Forgotten => self.bootstrap.tell(native, &self.inbox.name),
            Brokers::Neglected => self.give_up(native),
        }
        if let Some(openings) = &context.openings {
            for (topic, partition) in context.acknowledged() {
                openings.acknowledge(&topic, partition, || partitions(native, &topic));
            }
            openings.look(Instant::now());
        }
        let reported = context.flush();
        if let Some(openings) = &context.openings {
            openings.recount(|| self.inbox.in_flight_bytes() == 0);
        }
        reported
    }

    /// Nothing that waits in this client will ever be sent: it is over, and the relay makes another one. Seen after a broker was
    /// fenced, beside a transaction's coordinator, which tells librdkafka of brokers again. It connects to none as long as it
    /// counts one as connected (2.12.1, `rk_broker_up_cnt` in `rd_kafka_connect_any`), which may be one that it has let go of.
    fn give_up(&self, native: &Native) {
        warn!(producer = self.inbox.name, "kafka_brokers_neglected");
        self.inbox.fail(&DeliveryError::Retriable {
            failing: Failing::Client,
            topic: "any topic".to_owned(),
            reason: "the client connects to no broker that it knows".to_owned(),
        });
        // They are reported then, where each record is settled by itself.
        native.purge(PurgeConfig::default().queue().inflight());
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
