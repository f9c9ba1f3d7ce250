//! How fast and how late each table was lately, a point a second. Pure.
//!
//! Promise: what is remembered is bounded by the number of tables that there are now; tables come and go.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::relay::stats::TableStats;
use crate::table::TableName;

/// Points of one table that are remembered: four minutes.
pub(super) const POINTS: usize = 240;

/// One second of a table: events acknowledged a second, and the lag in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point(pub u64, pub u64);

/// The latest seconds of one table.
#[derive(Debug, Default)]
struct Line {
    /// Who counts: when it began to.
    started_micros: u64,
    events: u64,
    points: VecDeque<Point>,
}

/// The latest seconds of every table.
#[derive(Debug, Default)]
pub(super) struct History(BTreeMap<TableName, Line>);

impl History {
    /// Adds a point to each of these tables, `millis` after the one before, and forgets all others.
    pub(super) fn take<'s>(&mut self, tables: impl IntoIterator<Item = &'s TableStats>, now_micros: u64, millis: u64) {
        let mut known = std::mem::take(&mut self.0);
        for stats in tables {
            let events = stats.events.load(std::sync::atomic::Ordering::Relaxed);
            let mut line = known.remove(&stats.table).unwrap_or_default();
            if line.started_micros != stats.started_micros {
                // What came before somebody looked has no time.
                let before = if line.started_micros == 0 { events } else { 0 };
                (line.started_micros, line.events) = (stats.started_micros, before);
            }
            let rate = events.saturating_sub(line.events) * 1_000 / millis.max(1);
            line.events = events;
            if line.points.len() == POINTS {
                line.points.pop_front();
            }
            line.points.push_back(Point(rate, lag_millis(stats, now_micros)));
            self.0.insert(stats.table.clone(), line);
        }
    }

    /// The latest point of each table.
    pub(super) fn latest(&self) -> BTreeMap<TableName, Point> {
        self.0.iter().filter_map(|(table, line)| Some((table.clone(), *line.points.back()?))).collect()
    }

    /// Every point of each table, oldest first.
    pub(super) fn all(&self) -> BTreeMap<TableName, Vec<Point>> {
        self.0.iter().map(|(table, line)| (table.clone(), line.points.iter().copied().collect())).collect()
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "neither negative nor of many centuries")]
fn lag_millis(stats: &TableStats, now_micros: u64) -> u64 {
    (stats.lag_seconds(now_micros) * 1e3) as u64
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    fn stats(name: &str) -> TableStats {
        TableStats::new(TableName::new("d", name))
    }

    #[test]
    fn points_are_rates_and_lags_of_their_second() {
        let (table, mut history) = (stats("t"), History::default());
        table.events.store(1_000_000, Relaxed);
        history.take([&table], 5_000_000, 1_000);
        table.events.fetch_add(500, Relaxed);
        table.oldest_micros.store(4_000_000, Relaxed);
        history.take([&table], 6_500_000, 2_000);
        let all = history.all();
        assert_eq!(all[&table.table], [Point(0, 0), Point(250, 2_500)], "what came before the first look has no rate");
        assert_eq!(history.latest()[&table.table], Point(250, 2_500));
    }

    #[test]
    fn a_table_that_begins_to_count_anew_counts_from_nothing() {
        let (mut table, mut history) = (stats("t"), History::default());
        table.events.store(70, Relaxed);
        history.take([&table], 1, 1_000);
        table.started_micros += 1;
        table.events.store(7, Relaxed);
        history.take([&table], 2, 1_000);
        assert_eq!(history.latest()[&table.table], Point(7, 0));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (one, other, mut history) = (stats("one"), stats("other"), History::default());
        for _ in 0..=POINTS {
            history.take([&one, &other], 1, 1_000);
        }
        assert_eq!(history.all()[&one.table].len(), POINTS);
        history.take([&other], 1, 1_000);
        assert_eq!(history.all().keys().collect::<Vec<_>>(), [&other.table], "a table that has gone is forgotten");
    }
}
