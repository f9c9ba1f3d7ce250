//! Cleaning: old rows are deleted once Kafka has acknowledged them.
//!
//! Promise: a row is deleted, alone or with its partition, only when the table's durable position covers the place in the
//! log that the row's transaction stands before; and only while its relay runs here, so that a table which is halted,
//! paused, behind or still being read itself keeps everything that somebody may need to recover it. Deleting rows takes a
//! fifth of one connection's time at most.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use crate::mysql::cleanup::settings::By;
use crate::mysql::cleanup::{CHUNK, Cleaner, CleanupError, LOOK, Size};
use crate::mysql::servers::Servers;
use crate::position::{Key, Position};
use crate::relay::stats::{Kept, State, TableStats};

/// How often it is asked whether a position has been saved.
const POLL: Duration = Duration::from_millis(100);

/// The pause after something, by the time that it took.
const REST: u32 = 4;

/// How often rows that somebody has locked are tried again before they are left for the next time.
const TRIES: u32 = 5;

/// How one table is cleaned.
#[derive(Debug, Clone)]
pub(super) struct Cleaning {
    /// The column with the row's time.
    pub(super) column: String,
    /// How old a row has to be.
    pub(super) keep: Duration,
    /// How often somebody looks.
    pub(super) interval: Duration,
    /// What is deleted at once.
    pub(super) by: By,
    /// How long a save may take to come.
    pub(super) patience: Duration,
}

/// Cleans a table until it is dropped.
pub(super) async fn clean(servers: Servers, stats: Arc<TableStats>, cleaning: Cleaning) {
    // Tables do not come all at once.
    sleep(cleaning.interval.mul_f64(fastrand::f64())).await;
    let mut told = None;
    loop {
        if stats.state() == State::Running {
            match round(&servers, &stats, &cleaning).await {
                Ok(rows) => {
                    debug!(table = %stats.table, rows, "rows_cleaned");
                    told = None;
                }
                Err(error) => {
                    let reason = error.to_string();
                    if told.as_ref() != Some(&reason) {
                        warn!(table = %stats.table, %reason, "cleanup_failed");
                    }
                    told = Some(reason);
                }
            }
        }
        sleep(cleaning.interval).await;
    }
}

/// Deletes what can be deleted now; gives how many rows.
async fn round(servers: &Servers, stats: &TableStats, cleaning: &Cleaning) -> Result<u64, CleanupError> {
    let mut cleaner = Cleaner::open(servers, &stats.table, &cleaning.column, cleaning.keep).await?;
    let mut deleted = 0;
    let outcome = loop {
        let some = match cleaning.by {
            By::Rows => batch(&mut cleaner, stats, cleaning.patience, &mut deleted).await,
            By::Partitions => partition(&mut cleaner, stats, cleaning.patience, &mut deleted).await,
        };
        match some {
            Ok(true) => {}
            Ok(false) => break Ok(deleted),
            Err(error) => break Err(error),
        }
    };
    if outcome.is_ok() {
        let Size { rows, bytes } = cleaner.size().await?;
        stats.set_kept(Kept { rows, bytes });
    }
    cleaner.close().await;
    outcome
}

/// Deletes some rows; `false` when there are no more, or no more that may be deleted now.
async fn batch(
    cleaner: &mut Cleaner,
    stats: &TableStats,
    patience: Duration,
    deleted: &mut u64,
) -> Result<bool, CleanupError> {
    let began = Instant::now();
    let old = cleaner.look().await?;
    sleep(began.elapsed() * REST).await;
    if old.keys.is_empty() || !acknowledged(stats, &old.end, patience).await {
        return Ok(false);
    }
    let mut left = false;
    for keys in old.keys.chunks(CHUNK) {
        if stats.state() != State::Running {
            return Ok(false);
        }
        match delete(cleaner, keys).await? {
            Some(rows) => {
                *deleted += rows;
                stats.cleaned.fetch_add(rows, Relaxed);
            }
            None => left = true,
        }
    }
    Ok(old.keys.len() == LOOK && !left)
}

/// Deletes the rows of a partition; `false` when there is none, or none that may be deleted now.
async fn partition(
    cleaner: &mut Cleaner,
    stats: &TableStats,
    patience: Duration,
    deleted: &mut u64,
) -> Result<bool, CleanupError> {
    if let Some(aside) = cleaner.aside().await? {
        if !aside.is_old || !acknowledged(stats, &aside.end, patience).await {
            return Ok(false);
        }
        cleaner.drop_aside().await?;
        *deleted += aside.rows;
        stats.cleaned.fetch_add(aside.rows, Relaxed);
    }
    let Some(partition) = cleaner.oldest().await? else { return Ok(false) };
    // Once they are aside, the table itself does not have them for whoever recovers it.
    if !acknowledged(stats, &partition.end, patience).await {
        return Ok(false);
    }
    info!(table = %stats.table, partition = %partition.name, "partition_set_aside");
    match cleaner.set_aside(&partition).await {
        // Somebody works with the table for longer: another time.
        Err(error) if error.is_locked() => Ok(false),
        done => done.map(|()| true),
    }
}

/// Deletes these rows and rests; `None` when somebody has kept one of them locked.
async fn delete(cleaner: &mut Cleaner, keys: &[Key]) -> Result<Option<u64>, CleanupError> {
    for _ in 0..TRIES {
        let began = Instant::now();
        let outcome = cleaner.delete(keys).await;
        sleep(began.elapsed() * REST).await;
        match outcome {
            Ok(rows) => return Ok(Some(rows)),
            Err(error) if error.is_locked() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// What becomes of rows that stand before a place in the log.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Delete,
    Wait,
    Keep,
}

/// Kafka has acknowledged what the durable position covers. One with rows of the table still to be read covers nothing.
fn next(state: State, saved: Option<&Position>, end: &Position) -> Next {
    match saved {
        _ if state != State::Running => Next::Keep,
        Some(saved) if saved.scan.is_none() && saved >= end => Next::Delete,
        _ => Next::Wait,
    }
}

/// Waits until everything before this place in the log is acknowledged; `false` when that does not come.
async fn acknowledged(stats: &TableStats, end: &Position, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        match next(stats.state(), stats.position().as_deref(), end) {
            Next::Delete => return true,
            Next::Wait if Instant::now() < deadline => sleep(POLL).await,
            Next::Wait | Next::Keep => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_deleted_when_the_durable_position_covers_all_of_their_transactions() {
        let server = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        let position = |text: &str| text.replace('A', server).parse::<Position>().unwrap();
        let end = position("gtid=A:1-5:7");
        for (saved, expected) in [
            ("gtid=A:1-5:7", Next::Delete),
            ("gtid=A:1-8 +3 of A:9", Next::Delete),
            ("gtid=A:1-6", Next::Wait),
            ("gtid=A:1-5 +1 of A:7", Next::Wait),
            ("gtid=A:2-9", Next::Wait),
            ("gtid=A:1-9 scan 3 after 3 until 9", Next::Wait),
            ("file=binlog.000009:4", Next::Wait),
        ] {
            let saved = position(saved);
            assert_eq!(next(State::Running, Some(&saved), &end), expected, "{saved}");
            for state in State::ALL.into_iter().filter(|state| *state != State::Running) {
                assert_eq!(next(state, Some(&saved), &end), Next::Keep, "{state:?}");
            }
        }
        assert_eq!(next(State::Running, None, &end), Next::Wait);
    }

    #[test]
    fn prepared_transactions_are_not_acknowledged() {
        let end: Position = "domains=0-1-9".parse().unwrap();
        let saved = |text: &str| text.parse::<Position>().unwrap();
        assert_eq!(next(State::Running, Some(&saved("domains=0-1-9,1-1-3")), &end), Next::Delete);
        assert_eq!(next(State::Running, Some(&saved("domains=0-1-9 without 0-1-8 after 0-1-7")), &end), Next::Wait);
    }
}
