//! librdkafka's producers behind one table's: one, or two whose transactions take turns.
//!
//! Promise: one of them sends at a time, and the next one begins only when everything of the one before is acknowledged and
//! its transaction is committed, so records are in the order in which they were sent, as if one producer had sent them.
//!
//! A coordinator answers a commit before it has told every partition, and until then refuses the same producer's next
//! transaction (`CONCURRENT_TRANSACTIONS`); librdkafka asks again 20 ms later (2.12.1). Another producer begins at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Thread;

use rdkafka::config::{ClientConfig, FromClientConfigAndContext};

use super::bell::Bell;
use super::inbox::Context;
use super::{Native, ProducerError};

/// One of librdkafka's producers.
pub(super) struct Lane {
    /// Wakes the thread that serves. Before the producer, which it has to be dropped before.
    pub(super) bell: Bell,
    pub(super) native: Native,
}

impl Lane {
    pub(super) fn new(config: &ClientConfig, context: Context) -> Result<Self, ProducerError> {
        let native =
            Native::from_config_and_context(config, context).map_err(|error| ProducerError(error.to_string()))?;
        let bell = Bell::new(&native).ok_or_else(|| ProducerError("the producer has no queue".to_owned()))?;
        Ok(Self { bell, native })
    }
}

/// All of them; never none.
pub(super) struct Lanes {
    all: Vec<Lane>,
    /// The one that sends.
    turn: AtomicUsize,
}

impl Lanes {
    pub(super) fn new(all: Vec<Lane>) -> Self {
        Self { all, turn: AtomicUsize::new(0) }
    }

    pub(super) fn all(&self) -> &[Lane] {
        &self.all
    }

    /// The one that sends.
    pub(super) fn native(&self) -> &Native {
        &self.all[self.turn.load(Ordering::Acquire)].native
    }

    /// The one that is to send next.
    pub(super) fn next(&self) -> &Native {
        &self.all[self.after()].native
    }

    /// From now on that one sends.
    pub(super) fn take_turns(&self) {
        self.turn.store(self.after(), Ordering::Release);
    }

    fn after(&self) -> usize {
        (self.turn.load(Ordering::Acquire) + 1) % self.all.len()
    }

    /// From now on each wakes this thread.
    pub(super) fn wakes(&self, thread: &Thread) {
        for lane in &self.all {
            lane.bell.wakes(thread.clone());
        }
    }

    /// Wakes that thread.
    pub(super) fn wake(&self) {
        self.all[0].bell.wake();
    }
}
