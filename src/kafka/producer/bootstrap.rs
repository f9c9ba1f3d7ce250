//! Tells a client its bootstrap servers again.
//!
//! Promise: a client that knows no broker any more learns of them again, within the time of its statistics. librdkafka forgets
//! brokers that are not in the cluster's metadata, the last one too, where a broker that was just fenced says that there is
//! none; it then begins again with its bootstrap servers. But an answer that was on its way meanwhile takes that back
//! (`rd_kafka_rebootstrap_tmr_stop` in 2.12.1, after which `rk_rebootstrap_in_progress` stays; the same is reported of 2.13 in
//! confluentinc/librdkafka#5301), and the client has nobody to ask for good: its records waited until the process was started
//! anew.

#![allow(unsafe_code, reason = "the binding has no safe function for it")]

use std::ffi::CString;

use rdkafka::bindings::rd_kafka_brokers_add;
use rdkafka::producer::Producer as _;
use tracing::warn;

use super::Native;

/// Where a client begins.
pub(super) struct Bootstrap(CString);

impl Bootstrap {
    /// These servers, as they are configured; `None` if there is a NUL in them, which no client takes.
    pub(super) fn of(servers: &str) -> Option<Self> {
        CString::new(servers).ok().map(Self)
    }

    /// Tells the client of them. Those that it knows it does not add again.
    pub(super) fn tell(&self, native: &Native, producer: &str) {
        // SAFETY: the client is alive, and the text is one that it copies.
        let added = unsafe { rd_kafka_brokers_add(native.client().native_ptr(), self.0.as_ptr()) };
        warn!(producer, servers = %self.0.to_string_lossy(), added, "kafka_brokers_forgotten");
    }
}
