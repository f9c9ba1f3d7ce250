//! Bugs planted on purpose, to show that the simulation and the chaos campaign would find them.
//!
//! Promise: a program that is built without the feature `planted-bugs` has none of them: they are constants there. With
//! it, `OUTBOXD_PLANTED_BUG` names one; tests of this package plant them one by one.

use clap::ValueEnum;

/// A bug, each of a kind that a relay could have. Its name is in `kebab-case`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Bug {
    /// A position is saved once its records are published, without waiting for acknowledgements (R2).
    SavedBeforeAck,
    /// A record that is refused is tried again behind those after it, and the producer is not idempotent (R1).
    RetryReorders,
    /// The window covers one batch more than is acknowledged (R2).
    WindowOffByOne,
    /// The rows already relayed of a transaction are not taken from the position (R4).
    RowOffsetForgotten,
    /// A save under an old epoch is taken (R3).
    FenceIgnored,
    /// A table that is detached goes on behind the batch that did not fit (R6).
    DetachDropsBatch,
    /// Intervals of GTIDs one apart are joined (R6).
    GapMerged,
    /// Rows of a savepoint that was rolled back are published (R7).
    SavepointForgotten,
    /// Later events of a parked aggregate are published (R1).
    ParkedOvertaken,
    /// A table that is to be read itself goes on with the log at once (R6).
    SnapshotSkipped,
}

/// Whether this bug is planted now.
#[cfg(not(any(test, feature = "planted-bugs")))]
#[inline]
pub(crate) const fn is(_: Bug) -> bool {
    false
}

/// Whether this bug is planted now: by the environment of the process.
#[cfg(all(not(test), feature = "planted-bugs"))]
pub(crate) fn is(bug: Bug) -> bool {
    use std::sync::LazyLock;
    static PLANTED: LazyLock<Option<Bug>> = LazyLock::new(|| {
        let name = std::env::var("OUTBOXD_PLANTED_BUG").ok()?;
        let bug = Bug::from_str(&name, false).unwrap_or_else(|error| panic!("OUTBOXD_PLANTED_BUG: {error}"));
        tracing::warn!(%name, "bug_planted");
        Some(bug)
    });
    *PLANTED == Some(bug)
}

#[cfg(test)]
std::thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Whether this bug is planted now: by the test of this thread.
#[cfg(test)]
pub(crate) fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Plants a bug while `run` runs on this thread.
#[cfg(test)]
pub(crate) fn with<T>(bug: Bug, run: impl FnOnce() -> T) -> T {
    PLANTED.set(Some(bug));
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    PLANTED.set(None);
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
