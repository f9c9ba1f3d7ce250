//! The purge guard: how long until the server deletes what a table still needs.
//!
//! Promise: a table whose position comes near to being purged is said so while there is time, whatever its state: it is
//! one that has halted that gets there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{debug, warn};

use crate::mysql::retention::{Kept, Retention};
use crate::position::{Margin, Position, PositionStore};
use crate::relay::stats::TableStats;
use crate::table::TableName;

/// How often the server is asked.
const EVERY: Duration = Duration::from_mins(1);

/// How often a table that is near is warned of.
const WARN_EVERY: Duration = Duration::from_hours(1);

/// Watches these tables until it is dropped; one that is nearer than `near` to being purged is warned of.
pub(super) async fn watch<P: PositionStore>(
    mut retention: Retention,
    store: P,
    tables: Vec<Arc<TableStats>>,
    near: Duration,
) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut warned: HashMap<TableName, Instant> = HashMap::new();
    loop {
        ticks.tick().await;
        let positions = positions(&store, &tables).await;
        let asked: Vec<&Position> = positions.iter().map(|(_, position)| &**position).collect();
        let Kept { keeps, margins } = match retention.look(&asked).await {
            Ok(kept) => kept,
            // The tail says what is wrong with the server.
            Err(error) => {
                debug!(%error, "retention_unknown");
                continue;
            }
        };
        for ((stats, position), margin) in positions.into_iter().zip(margins) {
            stats.set_margin(margin);
            let table = &stats.table;
            if !is_near(margin, keeps, near) {
                warned.remove(table);
            } else if warned.get(table).is_none_or(|at| at.elapsed() >= WARN_EVERY) {
                warned.insert(table.clone(), Instant::now());
                let Margin { seconds, bytes, behind } = margin;
                warn!(%table, %position, seconds, bytes, behind, "position_near_purge");
            }
        }
    }
}

/// The durable position of each table that has one, also of those that were not claimed.
async fn positions<'a, P: PositionStore>(
    store: &P,
    tables: &'a [Arc<TableStats>],
) -> Vec<(&'a TableStats, Arc<Position>)> {
    let mut saved = HashMap::new();
    if tables.iter().any(|stats| stats.position().is_none()) {
        let all = store.list().await.unwrap_or_default();
        saved.extend(all.into_iter().filter_map(|saved| Some((saved.table, Arc::new(saved.position.ok()??)))));
    }
    let position = |stats: &TableStats| stats.position().or_else(|| saved.get(&stats.table).cloned());
    tables.iter().filter_map(|stats| Some((&**stats, position(stats)?))).collect()
}

/// A log that is kept for a short time only is near its end always; half of that time is what can be asked for.
fn is_near(margin: Margin, keeps: Option<Duration>, near: Duration) -> bool {
    let near = keeps.map_or(near, |keeps| near.min(keeps / 2));
    margin.seconds.is_some_and(|seconds| seconds < near.as_secs()) || margin.bytes == Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_near_when_little_time_or_no_room_is_left() {
        let hours = |hours: u64| Duration::from_hours(hours);
        let margin = |seconds, bytes| Margin { seconds, bytes, behind: None };
        assert!(is_near(margin(Some(3_000), None), Some(hours(48)), hours(12)));
        assert!(!is_near(margin(Some(50_000), None), Some(hours(48)), hours(12)));
        assert!(!is_near(margin(Some(3_000), None), Some(hours(1)), hours(12)), "of an hour more than a half is left");
        assert!(is_near(margin(None, Some(0)), None, hours(12)) && !is_near(margin(None, None), None, hours(12)));
    }
}
