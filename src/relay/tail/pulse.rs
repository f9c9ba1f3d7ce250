//! What a reader notes of its connection: whether it hears anything, and how late it is.
//!
//! Promise: while events come one after another nothing is noted but the time of the latest; the clock is looked at where
//! the reader has to wait anyway, and once a second.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use crate::relay::stats::{TailStats, now_micros};
use crate::source::LogPlace;

pub(super) struct Pulse {
    stats: Arc<TailStats>,
    /// Since when there is nothing to read.
    rests: Option<Instant>,
    /// When the transaction was committed that was read last, microseconds since the Unix epoch; 0 for none since the last
    /// tick.
    latest: u64,
    /// How late that one is, is noted.
    noted: bool,
}

impl Pulse {
    pub(super) fn of(stats: Arc<TailStats>) -> Self {
        Self { stats, rests: None, latest: 0, noted: false }
    }

    /// A transaction begins that was committed then.
    pub(super) fn reads(&mut self, commit_micros: u64) {
        self.latest = commit_micros;
        self.noted = false;
    }

    /// There is nothing to read. `heard`: when something came last, be it a part of an event.
    pub(super) fn rests(&mut self, heard: Option<Instant>) {
        self.note();
        let since = *self.rests.get_or_insert_with(Instant::now);
        let since = heard.map_or(since, |heard| heard.max(since));
        let silence = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.stats.listens(now_micros().saturating_sub(silence));
    }

    /// There is something to read.
    pub(super) fn beats(&mut self) {
        if self.rests.take().is_some() {
            self.stats.heard();
        }
    }

    /// A second has passed.
    pub(super) fn ticks(&mut self, place: Option<LogPlace>, held_bytes: usize) {
        self.note();
        if self.latest == 0 {
            self.stats.set_late(0);
        }
        self.latest = 0;
        self.stats.held_bytes.store(held_bytes as u64, Relaxed);
        if let Some(place) = place {
            self.stats.set_place(place);
        }
    }

    fn note(&mut self) {
        if self.latest != 0 && !self.noted {
            self.noted = true;
            self.stats.set_late(self.latest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn given_a_late_transaction_when_no_other_follows_then_the_reader_is_late_for_a_second_only() {
        let stats = Arc::new(TailStats::default());
        let mut pulse = Pulse::of(Arc::clone(&stats));
        pulse.reads(now_micros() - 7_000_000);
        pulse.rests(None);
        assert!((7.0..8.0).contains(&stats.late_seconds()));
        pulse.ticks(None, 5);
        assert!((7.0..8.0).contains(&stats.late_seconds()), "it was read within this second");
        assert_eq!(stats.held_bytes.load(Relaxed), 5);
        pulse.ticks(None, 0);
        assert!(stats.late_seconds() < 0.1);
        // While there is always more to read, the tick notes it.
        pulse.reads(now_micros() - 9_000_000);
        pulse.ticks(Some(LogPlace { file: 3, offset: 4 }), 0);
        assert!((9.0..10.0).contains(&stats.late_seconds()));
        assert_eq!(stats.place(), Some(LogPlace { file: 3, offset: 4 }));
    }

    #[tokio::test(start_paused = true)]
    async fn given_a_reader_that_waits_when_a_part_of_an_event_comes_then_that_is_no_silence() {
        let stats = Arc::new(TailStats::default());
        let mut pulse = Pulse::of(Arc::clone(&stats));
        let silence = || stats.silence_seconds(now_micros());
        let long_ago = Instant::now();
        tokio::time::advance(Duration::from_mins(1)).await;
        pulse.rests(Some(long_ago));
        assert!(silence() < 0.5, "nobody had waited for it");
        tokio::time::advance(Duration::from_secs(9)).await;
        pulse.rests(Some(long_ago));
        assert!((9.0..9.5).contains(&silence()));
        let part = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        pulse.rests(Some(part));
        assert!((1.0..1.5).contains(&silence()));
        pulse.beats();
        assert!(silence() < 0.001);
    }
}
