//! Places in the log for an operator: whether a relay can go on from one, and which one a time stands for.
//!
//! Promise: the place of a time is before every transaction that was committed at that time or later, as the log has them in
//! order; so going on from there misses none of them.

use std::cmp::Ordering;

use crate::position::Position;
use crate::source::{LogEvent, LogSource, LogStream, SourceError, Subscription};

/// Whether a relay can go on from a position: the log is of its kind, still has what follows it, and is not behind it. The
/// error says why not.
pub async fn can_resume<S: LogSource>(source: &mut S, at: &Position) -> Result<(), String> {
    let oldest = source.oldest().await.map_err(|error| error.to_string())?;
    let newest = source.newest().await.map_err(|error| error.to_string())?;
    if oldest.point.kind() != at.point.kind() {
        return Err(format!("the server's positions are of the kind {}=", oldest.point.kind()));
    }
    if !oldest.point.partial_cmp(&at.point).is_some_and(Ordering::is_le) {
        return Err(format!("the log begins after {oldest}"));
    }
    if !at.point.partial_cmp(&newest.point).is_some_and(Ordering::is_le) {
        return Err(format!("the log ends at {newest}"));
    }
    Ok(())
}

/// The place before the first transaction that was committed at `micros` (since the Unix epoch) or later. `starts`: where
/// the log's files begin, in order. What is prepared for `tables` and not settled by then is left out, as XA wants it.
pub async fn at_time<S: LogSource>(
    source: &mut S,
    tables: &[Subscription],
    starts: &[Position],
    micros: u64,
) -> Result<Position, SourceError> {
    let newest = source.newest().await?;
    // The last file that begins with an earlier transaction is the one to search.
    let (mut low, mut high) = (0, starts.len());
    while low < high {
        let middle = usize::midpoint(low, high);
        if first_since(source, tables, &starts[middle], &newest, 0).await?.is_some_and(|(at, _)| at < micros) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let Some(start) = starts.get(low.saturating_sub(1)) else { return Ok(newest) };
    Ok(first_since(source, tables, start, &newest, micros).await?.map_or(newest, |(_, before)| before))
}

/// The first transaction after `start` that was committed at `micros` or later: when, and the position before it. `None`
/// when there is none up to `end`.
async fn first_since<S: LogSource>(
    source: &mut S,
    tables: &[Subscription],
    start: &Position,
    end: &Position,
    micros: u64,
) -> Result<Option<(u64, Position)>, SourceError> {
    if start.point >= end.point {
        return Ok(None);
    }
    let mut stream = source.open(start, tables).await?;
    let mut open = false;
    loop {
        match stream.next().await? {
            LogEvent::Begin { commit_micros, .. } if commit_micros >= micros => {
                return Ok(Some((commit_micros, stream.position().clone())));
            }
            LogEvent::Begin { .. } => open = true,
            LogEvent::Commit | LogEvent::Rollback | LogEvent::Prepare { .. } => open = false,
            _ => {}
        }
        if !open && stream.position().point >= end.point {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::TableName;
    use crate::testing::log::{MemoryLog, after};

    fn log(transactions: u64) -> MemoryLog {
        let log = MemoryLog::default();
        (0..transactions).for_each(|number| _ = log.insert(&TableName::new("d", "t"), &number.to_string(), "k"));
        log
    }

    #[tokio::test]
    async fn a_time_stands_for_the_place_before_the_first_transaction_that_is_not_earlier() {
        let mut log = log(20);
        let newest = log.newest().await.unwrap();
        let begin = log.oldest().await.unwrap();
        let time = |of: u64| {
            let mut log = log.clone();
            let (begin, newest) = (after(of), newest.clone());
            async move { first_since(&mut log, &[], &begin, &newest, 0).await.unwrap().unwrap().0 }
        };
        let times = [time(0).await, time(9).await, time(19).await];
        assert!(times[0] < times[1] && times[1] < times[2], "{times:?}");
        for starts in [vec![begin.clone()], vec![begin.clone(), after(5), after(10), after(15)]] {
            assert_eq!(at_time(&mut log, &[], &starts, times[1]).await.unwrap(), after(9));
            assert_eq!(at_time(&mut log, &[], &starts, times[1] + 1).await.unwrap(), after(10));
            assert_eq!(at_time(&mut log, &[], &starts, times[0]).await.unwrap(), begin, "nothing is earlier");
            assert_eq!(at_time(&mut log, &[], &starts, times[2] + 1).await.unwrap(), newest, "nothing is later");
        }
    }

    #[tokio::test]
    async fn only_places_of_the_log_can_be_gone_on_from() {
        let mut log = log(20);
        log.purge(5);
        assert_eq!(can_resume(&mut log, &after(5)).await, Ok(()));
        assert_eq!(can_resume(&mut log, &after(20)).await, Ok(()));
        assert!(can_resume(&mut log, &after(4)).await.unwrap_err().contains("begins after"));
        assert!(can_resume(&mut log, &after(21)).await.unwrap_err().contains("ends at"));
        assert!(
            can_resume(&mut log, &"file=b.000001:4".parse().unwrap()).await.unwrap_err().contains("of the kind gtid=")
        );
    }
}
