//! From counters to events per second. Pure.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::admin::pages::TableStatus;
use crate::table::TableName;

/// What a table's counter tells.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rate {
    /// Events seen by all looks together, across restarts of the daemon.
    pub total: u64,
    /// Events per second within the window; none before there are two looks to compare.
    pub per_second: Option<f64>,
}

/// Counters of tables over a sliding window. A daemon that starts again counts from 0 again, which is no step back; what
/// the one before counted after the last look at it is not known.
#[derive(Debug)]
pub struct Rates {
    window: Duration,
    tables: HashMap<TableName, Looks>,
}

#[derive(Debug, Default)]
struct Looks {
    /// Who counts: when it began to.
    since: u64,
    counter: u64,
    total: u64,
    /// When, and the total then; the oldest first.
    samples: VecDeque<(Duration, u64)>,
}

impl Rates {
    /// Rates over a window that long, or between two looks that lie further apart.
    pub fn new(window: Duration) -> Self {
        Self { window, tables: HashMap::new() }
    }

    /// Takes a look at what a table counts, at a time that never goes back, from any beginning.
    pub fn look(&mut self, status: &TableStatus, at: Duration) -> Rate {
        let looks = self.tables.entry(status.table.clone()).or_default();
        let known = if looks.since == status.started_micros { looks.counter } else { 0 };
        looks.total += status.events.saturating_sub(known);
        (looks.since, looks.counter) = (status.started_micros, status.events);
        looks.samples.push_back((at, looks.total));
        while looks.samples.len() > 2 && at.saturating_sub(looks.samples[1].0) >= self.window {
            looks.samples.pop_front();
        }
        let since = looks.samples.front().map(|&(then, total)| (at.saturating_sub(then), looks.total - total));
        let per_second = since.filter(|(time, _)| !time.is_zero()).map(|(time, events)| {
            #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
            let events = events as f64;
            events / time.as_secs_f64()
        });
        Rate { total: looks.total, per_second }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks at a daemon that was started at a time: milliseconds, events.
    fn look(rates: &mut Rates, started_micros: u64, (millis, events): (u64, u64)) -> (u64, Option<f64>) {
        let status = TableStatus {
            table: TableName::new("d", "t"),
            state: "running".to_owned(),
            reason: None,
            cure: None,
            started_micros,
            events,
            in_flight: 0,
            lag_seconds: 0.0,
            position: None,
            saved_micros: 0,
            detached_micros: 0,
            parked: 0,
            queue_bytes: 0,
        };
        let rate = rates.look(&status, Duration::from_millis(millis));
        (rate.total, rate.per_second)
    }

    fn looks(samples: &[(u64, u64)]) -> Vec<(u64, Option<f64>)> {
        let mut rates = Rates::new(Duration::from_secs(2));
        samples.iter().map(|&sample| look(&mut rates, 1, sample)).collect()
    }

    #[test]
    fn rates_are_those_of_the_window() {
        let seen = looks(&[(0, 100), (1000, 150), (2000, 150), (3000, 150), (4000, 250)]);
        assert_eq!(seen[0], (100, None), "one look has no rate");
        assert_eq!(seen[1], (150, Some(50.0)));
        assert_eq!(seen[2], (150, Some(25.0)));
        assert_eq!(seen[3], (150, Some(0.0)), "what is older than the window does not count");
        assert_eq!(seen[4], (250, Some(50.0)));
    }

    #[test]
    fn looks_far_apart_are_compared_all_the_same() {
        assert_eq!(looks(&[(0, 0), (10_000, 100), (20_000, 300)])[2], (300, Some(20.0)));
    }

    #[test]
    fn a_restart_counts_on() {
        for (counter, total, rate) in [(30, 230, 65.0), (250, 450, 175.0)] {
            let mut rates = Rates::new(Duration::from_secs(2));
            look(&mut rates, 1, (0, 100));
            look(&mut rates, 1, (1000, 200));
            assert_eq!(look(&mut rates, 2, (2000, counter)), (total, Some(rate)), "also with more than before");
        }
    }

    #[test]
    fn two_looks_at_once_divide_by_nothing() {
        assert_eq!(looks(&[(5, 1), (5, 2)])[1], (2, None));
    }
}
