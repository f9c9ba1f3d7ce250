//! Wakes a producer's thread when librdkafka has something to tell.
//!
//! Promise: whatever librdkafka puts into the empty queue of its reports unparks the thread, so that it needs not ask again and
//! again. The binding's own `poll` counts whole milliseconds, and spins through the last one of each wait: a thread with
//! records in flight would take a processor for itself.
//!
//! Unsafe, as else only a call in `bootstrap.rs` and one in `security/oauth.rs` are: the binding gives no access to the queue.

#![allow(unsafe_code, reason = "the binding gives no access to the queue")]

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::thread::Thread;

use rdkafka::bindings::{
    rd_kafka_queue_cb_event_enable, rd_kafka_queue_destroy, rd_kafka_queue_get_main, rd_kafka_queue_length,
    rd_kafka_queue_t, rd_kafka_t,
};
use rdkafka::producer::Producer as _;

use super::Native;

/// The producer's queue of reports, and whom it wakes. To be dropped before the producer.
pub(super) struct Bell {
    queue: NonNull<rd_kafka_queue_t>,
    /// At a place of its own, which librdkafka is told.
    thread: Box<OnceLock<Thread>>,
}

// SAFETY: librdkafka's queues may be used by any thread, and by several: they have a lock. The rest is `Send` and `Sync`.
unsafe impl Send for Bell {}
// SAFETY: as above.
unsafe impl Sync for Bell {}

impl Bell {
    /// Of this producer; `None` when librdkafka has no queue for it, which no producer lacks.
    pub(super) fn new(native: &Native) -> Option<Self> {
        // SAFETY: the producer is alive, and what is given is a reference of its own, which `drop` gives back.
        let queue = NonNull::new(unsafe { rd_kafka_queue_get_main(native.client().native_ptr()) })?;
        let thread = Box::new(OnceLock::new());
        let place: *const OnceLock<Thread> = &raw const *thread;
        // SAFETY: `ring` takes what is given here; it stays where it is until `drop`, which ends the ringing first.
        unsafe { rd_kafka_queue_cb_event_enable(queue.as_ptr(), Some(ring), place.cast_mut().cast()) };
        Some(Self { queue, thread })
    }

    /// From now on it wakes this thread; the first one that is said counts.
    pub(super) fn wakes(&self, thread: Thread) {
        self.thread.get_or_init(|| thread);
    }

    /// Wakes the thread.
    pub(super) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Whether nothing is in the queue.
    pub(super) fn is_silent(&self) -> bool {
        // SAFETY: the reference to the queue is ours.
        unsafe { rd_kafka_queue_length(self.queue.as_ptr()) == 0 }
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        // SAFETY: librdkafka rings under the queue's lock, which this takes too: nobody rings any more once it returns. The
        // reference to the queue is ours, and given back once.
        unsafe {
            rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, std::ptr::null_mut());
            rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

/// What librdkafka calls, under the lock of the queue, when something has come into it that was empty.
unsafe extern "C" fn ring(_: *mut rd_kafka_t, thread: *mut c_void) {
    // SAFETY: `Bell::new` gave a pointer to this type, which lives as long as librdkafka may call this. Unparking does not
    // unwind, and calls nothing of librdkafka.
    let thread = unsafe { &*thread.cast::<OnceLock<Thread>>() };
    if let Some(thread) = thread.get() {
        thread.unpark();
    }
}
