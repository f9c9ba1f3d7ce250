//! What the shared tail tells of itself.
//!
//! Promise: an idle log, one that is read late and a connection that is dead look different: a server with nothing to
//! write shows that it is there, so silence is counted from its last sign of life, and only while it is waited for.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::{lock, now_micros, seconds_since};
use crate::position::Position;
use crate::source::{LogPlace, Parting};

/// What the tail tells of itself.
#[derive(Debug, Default)]
pub struct TailStats {
    /// Now: whether the log is open.
    pub connected: AtomicBool,
    /// Now: whether there is no table to read the log for.
    pub idle: AtomicBool,
    /// Now: bytes of rows whose transactions have not ended yet, over all tables.
    pub held_bytes: AtomicU64,
    /// Now: since when a word of the server is waited for, microseconds since the Unix epoch; 0 while there is something
    /// to read.
    silent_micros: AtomicU64,
    /// How late the transaction was read that was read last, in microseconds; 0 when there was none lately.
    late_micros: AtomicU64,
    reconnects: [AtomicU64; Parting::ALL.len()],
    place: Mutex<Option<LogPlace>>,
    waiting: Mutex<Option<String>>,
    position: Mutex<Option<Position>>,
}

impl TailStats {
    /// Why the log is not open.
    pub fn waiting(&self) -> Option<String> {
        lock(&self.waiting).clone()
    }

    /// Where it is in the log, to the second.
    pub fn position(&self) -> Option<Position> {
        lock(&self.position).clone()
    }

    pub(in crate::relay) fn set_position(&self, position: &Position) {
        *lock(&self.position) = Some(position.clone());
    }

    pub(in crate::relay) fn set_connected(&self) {
        *lock(&self.waiting) = None;
        self.connected.store(true, Relaxed);
        self.idle.store(false, Relaxed);
        self.heard();
    }

    pub(in crate::relay) fn set_idle(&self) {
        self.connected.store(false, Relaxed);
        self.idle.store(true, Relaxed);
        self.heard();
        self.set_late(0);
    }

    /// Notes why the log is not open.
    pub fn set_waiting(&self, reason: String) {
        self.connected.store(false, Relaxed);
        self.idle.store(false, Relaxed);
        *lock(&self.waiting) = Some(reason);
    }

    /// There is nothing more to read: from `since` on the server is waited for.
    pub(in crate::relay) fn listens(&self, since_micros: u64) {
        self.silent_micros.store(since_micros, Relaxed);
    }

    /// The server has said something.
    pub(in crate::relay) fn heard(&self) {
        self.silent_micros.store(0, Relaxed);
    }

    /// For how long nothing was heard of the server although it was waited for, in seconds; also while there is no
    /// connection after one that was lost.
    pub fn silence_seconds(&self, now_micros: u64) -> f64 {
        seconds_since(self.silent_micros.load(Relaxed), now_micros)
    }

    /// A transaction that was committed then is read now; 0 stands for none.
    pub(in crate::relay) fn set_late(&self, commit_micros: u64) {
        let late = if commit_micros == 0 { 0 } else { now_micros().saturating_sub(commit_micros) };
        self.late_micros.store(late, Relaxed);
    }

    /// How long after its commit the transaction was read that was read last, in seconds; 0 when there was none lately.
    #[allow(clippy::cast_precision_loss, reason = "285 years are exact enough")]
    pub fn late_seconds(&self) -> f64 {
        self.late_micros.load(Relaxed) as f64 / 1e6
    }

    /// The log has to be opened again, because of this: until then nothing is heard.
    pub(in crate::relay) fn reconnect(&self, parting: Parting) {
        let _ = self.silent_micros.compare_exchange(0, now_micros(), Relaxed, Relaxed);
        self.reconnects[parting as usize].fetch_add(1, Relaxed);
    }

    /// How often the log was opened again, by why.
    pub fn reconnects(&self) -> [(Parting, u64); Parting::ALL.len()] {
        Parting::ALL.map(|parting| (parting, self.reconnects[parting as usize].load(Relaxed)))
    }

    pub(in crate::relay) fn set_place(&self, place: LogPlace) {
        *lock(&self.place) = Some(place);
    }

    /// How far the log is read; `None` before anything was.
    pub fn place(&self) -> Option<LogPlace> {
        *lock(&self.place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_a_tail_when_it_waits_for_the_server_then_silence_grows_until_something_is_heard() {
        let tail = TailStats::default();
        let silence = |now| format!("{:.1}", tail.silence_seconds(now));
        assert_eq!(silence(9_000_000), "0.0", "nothing was waited for");
        tail.set_connected();
        tail.listens(1_000_000);
        assert_eq!(silence(3_500_000), "2.5");
        tail.set_waiting("nothing heard".to_owned());
        assert_eq!(silence(9_000_000), "8.0", "a lost connection is no word");
        tail.heard();
        assert_eq!(silence(9_500_000), "0.0");
    }

    #[test]
    fn given_a_tail_without_tables_when_one_comes_and_the_log_cannot_be_opened_then_it_is_no_longer_idle() {
        let tail = TailStats::default();
        tail.set_idle();
        assert!(tail.idle.load(Relaxed) && !tail.connected.load(Relaxed));
        tail.set_waiting("refused".to_owned());
        assert!(!tail.idle.load(Relaxed) && !tail.connected.load(Relaxed));
    }

    #[test]
    fn given_connections_that_ended_when_counted_then_each_is_under_its_cause() {
        let tail = TailStats::default();
        for parting in [Parting::Silence, Parting::Unreachable, Parting::Silence] {
            tail.reconnect(parting);
        }
        let counted: Vec<_> = tail.reconnects().into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [(Parting::Unreachable, 1), (Parting::Silence, 2)]);
        let later = now_micros() + 5_000_000;
        assert!((5.0..6.0).contains(&tail.silence_seconds(later)), "and nothing is heard meanwhile");
    }
}
