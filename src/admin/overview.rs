//! Everything that there is to see at once, and what changes in it: what the status page shows.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use serde::{Deserialize, Serialize};

use super::View;
use super::history::Point;
use super::pages::{TableStatus, not_ready};
use crate::table::TableName;
use crate::telemetry::happenings::Happening;

/// What can be seen of the process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Of the daemon.
    pub version: String,
    /// Who may change something: `open` to programs of this machine, who has the `token`, or `nobody`.
    pub changes: String,
    /// Why it is not ready, if it is not.
    pub not_ready: Option<String>,
    /// Whether a Kafka broker is connected.
    pub kafka_connected: bool,
    /// The shared reader of the binlog.
    pub tail: TailStatus,
}

/// What can be seen of the shared reader of the binlog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TailStatus {
    /// Whether the binlog is open.
    pub connected: bool,
    /// Whether there is no table to read it for.
    pub idle: bool,
    /// How often it was opened again.
    pub reconnects: u64,
    /// Why it is not open.
    pub waiting: Option<String>,
    /// Where it is, to the second.
    pub position: Option<String>,
}

impl Process {
    pub(super) fn of(view: &View, changes: &str) -> Self {
        let (metrics, tail) = (&view.metrics, view.metrics.tail());
        let connected = tail.connected.load(Relaxed);
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            changes: changes.to_owned(),
            not_ready: not_ready(metrics),
            kafka_connected: metrics.reach().is_connected(),
            tail: TailStatus {
                connected,
                idle: tail.idle.load(Relaxed),
                reconnects: tail.reconnects().into_iter().map(|(_, count)| count).sum(),
                waiting: tail.waiting().filter(|_| !connected),
                position: tail.position().map(|position| position.to_string()),
            },
        }
    }
}

/// Everything, as of now; the first event of `/api/v1/stream`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    /// When, microseconds since the Unix epoch.
    pub now_micros: u64,
    /// The process.
    pub process: Process,
    /// Its tables, in no order that means anything.
    pub tables: Vec<TableStatus>,
    /// The latest minutes of each table, a point a second, oldest first: events a second, and lag in milliseconds.
    pub history: BTreeMap<TableName, Vec<Point>>,
    /// What has happened lately, oldest first.
    pub happenings: Vec<Happening>,
}

/// What is new; each further event of `/api/v1/stream`, every second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tick {
    /// When, microseconds since the Unix epoch.
    pub now_micros: u64,
    /// The process.
    pub process: Process,
    /// Tables that are new or have changed.
    pub tables: Vec<TableStatus>,
    /// Tables that are relayed here no more.
    pub gone: Vec<TableName>,
    /// The latest second of each table.
    pub points: BTreeMap<TableName, Point>,
    /// Happenings that are new, or have happened again.
    pub happenings: Vec<Happening>,
}

/// Tables by name.
pub(super) type Tables = BTreeMap<TableName, TableStatus>;

/// The tables as they are, by name.
pub(super) fn tables(view: &View) -> Tables {
    let all = view.metrics.tables().iter().map(|stats| TableStatus::of(stats, view.metrics.tail()));
    all.map(|status| (status.table.clone(), status)).collect()
}

/// What of the tables is another than it was, and which are there no more.
pub(super) fn changed(before: &Tables, now: &Tables) -> (Vec<TableStatus>, Vec<TableName>) {
    let changed = now.iter().filter(|(table, status)| before.get(*table) != Some(*status));
    let gone = before.keys().filter(|table| !now.contains_key(*table));
    (changed.map(|(_, status)| status.clone()).collect(), gone.cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::stats::{State, TableStats, TailStats};

    #[test]
    fn only_what_has_changed_is_told() {
        let all = ["a", "b"].map(|name| TableStats::new(TableName::new("d", name)));
        let tail = TailStats::default();
        let tables = |of: &[TableStats]| -> Tables {
            of.iter().map(|stats| (stats.table.clone(), TableStatus::of(stats, &tail))).collect()
        };
        let before = tables(&all);
        assert_eq!(changed(&before, &tables(&all)), (Vec::new(), Vec::new()));
        all[1].set_state(State::Halted, Some("fenced: twice".to_owned()));
        let (news, gone) = changed(&before, &tables(&all[1..]));
        assert_eq!((news.len(), news[0].state.as_str()), (1, "halted"));
        assert_eq!(gone, [all[0].table.clone()]);
        assert_eq!(changed(&Tables::new(), &tables(&all)).0.len(), 2, "new ones are news");
    }
}
