//! How often this process has connected to servers of logs and positions.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

static OPENED: AtomicU64 = AtomicU64::new(0);
static FAILED: AtomicU64 = AtomicU64::new(0);

/// Notes the outcome of connecting and logging in once.
pub fn note(opened: bool) {
    if opened { &OPENED } else { &FAILED }.fetch_add(1, Relaxed);
}

/// Connections that were opened, and attempts that failed.
pub fn counted() -> [(&'static str, u64); 2] {
    [("opened", OPENED.load(Relaxed)), ("failed", FAILED.load(Relaxed))]
}
