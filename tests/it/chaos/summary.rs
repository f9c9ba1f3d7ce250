//! What a campaign has done and found.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// Figures of one round, or of many.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) rounds: u64,
    pub(super) events: u64,
    pub(super) duplicates: u64,
    /// The most duplicates that were allowed.
    pub(super) bound: u64,
    /// Daemons started, and relays that started again by themselves.
    pub(super) starts: u64,
    pub(super) restarts: u64,
    pub(super) peak_memory: u64,
    pub(super) recoveries: Vec<Duration>,
    faults: BTreeMap<&'static str, u64>,
}

impl Summary {
    pub(super) fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    pub(super) fn add(&mut self, round: Self) {
        self.rounds += round.rounds;
        self.events += round.events;
        self.duplicates += round.duplicates;
        self.bound += round.bound;
        self.starts += round.starts;
        self.restarts += round.restarts;
        self.peak_memory = self.peak_memory.max(round.peak_memory);
        self.recoveries.extend(round.recoveries);
        for (kind, times) in round.faults {
            *self.faults.entry(kind).or_default() += times;
        }
    }

    fn injected(&self) -> u64 {
        self.faults.values().sum()
    }

    /// The recovery time that so many per cent do not exceed.
    fn recovery(&self, percent: usize) -> Duration {
        let mut sorted = self.recoveries.clone();
        sorted.sort();
        let last = sorted.len().saturating_sub(1);
        sorted.get((sorted.len() * percent / 100).min(last)).copied().unwrap_or_default()
    }

    /// In one line, while it goes on.
    pub(super) fn line(&self) -> String {
        format!("{} rounds, {} faults, {} events, no violation", self.rounds, self.injected(), self.events)
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let mut text = String::from("| | |\n|---|---|\n");
        let mut row = |what: &str, value: String| _ = writeln!(text, "| {what} | {value} |");
        row("rounds, each on servers of its own", self.rounds.to_string());
        row("events committed", self.events.to_string());
        row("missing, out of order, altered, from rolled-back transactions", "0".to_owned());
        row("duplicates, of so many that were allowed", format!("{} of {}", self.duplicates, self.bound));
        row("daemons started, relays started again by themselves", format!("{}, {}", self.starts, self.restarts));
        row("most memory of a daemon", format!("{} MiB", self.peak_memory >> 20));
        let recovery = |percent| format!("{:.1} s", self.recovery(percent).as_secs_f64());
        let recoveries = format!("{} / {} / {}", recovery(50), recovery(99), recovery(100));
        row(&format!("recovery, p50 / p99 / longest of {}", self.recoveries.len()), recoveries);
        row("faults", self.injected().to_string());
        for (kind, times) in &self.faults {
            row(&format!("… {kind}"), times.to_string());
        }
        text
    }

    /// For `docs/reliability.md`.
    pub(super) fn page(&self, seed: u64, lasted: Duration) -> String {
        let lasted = humantime::format_duration(Duration::from_secs(lasted.as_secs()));
        format!("Seeds from {seed} on, {lasted}:\n\n{}", self.table())
    }
}
