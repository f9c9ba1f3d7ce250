//! How long events take from commit to acknowledgement.
//!
//! Promise: every event of an acknowledged batch is counted once, at a cost per batch and not per event: commit times that
//! are alike, within a part of how long ago they are, are counted together. What is counted is until the batch is
//! acknowledged, with everything before it; batches that failed are not.

use std::collections::VecDeque;

use smallvec::SmallVec;

use super::stats::histogram::Histogram;
use crate::outlet::Chunk;
use crate::source::Batch;

/// Commit times count as the same that differ by less, in microseconds.
const ALIKE_MICROS: u64 = 500;

/// Or by less than this part of how long ago they are: cells of the histogram are much wider.
const ALIKE_PART: u64 = 32;

/// The commit time of events in a row, in microseconds since the Unix epoch, and how many they are.
type Run = (u64, u64);

/// The batches of one worker that are not acknowledged yet.
#[derive(Debug, Default)]
pub(super) struct Lags {
    open: VecDeque<(Chunk, SmallVec<[Run; 4]>)>,
}

impl Lags {
    /// This batch is published now.
    pub(super) fn begin(&mut self, chunk: Chunk, batch: &Batch, now_micros: u64) {
        let mut runs: SmallVec<[Run; 4]> = SmallVec::new();
        // Within this, a commit time is that of the run before it.
        let mut alike = 0..0;
        for row in batch.rows() {
            let commit = row.commit_micros();
            match runs.last_mut() {
                Some((_, events)) if alike.contains(&commit) => *events += 1,
                _ => {
                    let width = ALIKE_MICROS.max(now_micros.saturating_sub(commit) / ALIKE_PART);
                    alike = commit..commit.saturating_add(width);
                    runs.push((commit, 1));
                }
            }
        }
        self.open.push_back((chunk, runs));
    }

    /// Everything before this batch is acknowledged.
    pub(super) fn end(&mut self, first: Chunk, now_micros: impl FnOnce() -> u64, counted: &Histogram) {
        let before = |(chunk, _): &mut (Chunk, _)| *chunk < first;
        let Some((_, runs)) = self.open.pop_front_if(before) else { return };
        let now = now_micros();
        let count = |runs: SmallVec<[Run; 4]>| {
            for (commit, events) in runs {
                counted.observe(now.saturating_sub(commit), events);
            }
        };
        count(runs);
        while let Some((_, runs)) = self.open.pop_front_if(before) {
            count(runs);
        }
    }

    /// What is under way will not be acknowledged.
    pub(super) fn forget(&mut self) {
        self.open.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::position::Position;
    use crate::source::BatchBuilder;

    const SECOND: u64 = 1_000_000;
    const BOUNDS: &[u64] = &[SECOND, 10 * SECOND];

    fn batch(commits: &[u64]) -> Batch {
        let mut batch = BatchBuilder::new(0);
        for commit in commits {
            batch.set_commit_micros(*commit);
            batch.row().finish();
        }
        batch.take(Arc::new(Position::default()))
    }

    fn counts(histogram: &Histogram) -> Vec<u64> {
        histogram.cumulated().map(|(_, count)| count).collect()
    }

    #[test]
    fn given_batches_when_those_in_front_are_acknowledged_then_their_events_are_counted_once() {
        let (mut lags, counted) = (Lags::default(), Histogram::new(BOUNDS));
        let now = 100 * SECOND;
        lags.begin(0, &batch(&[now, now, now - 5 * SECOND]), now);
        lags.begin(1, &batch(&[]), now);
        lags.begin(2, &batch(&[now - 50 * SECOND]), now);
        lags.end(0, || panic!("nothing is acknowledged"), &counted);
        assert_eq!(counts(&counted), [0, 0, 0]);
        lags.end(2, || now, &counted);
        assert_eq!((counts(&counted), counted.sum_micros()), (vec![2, 3, 3], 5 * SECOND));
        lags.end(3, || now, &counted);
        assert_eq!(counts(&counted), [2, 3, 4]);
        lags.begin(3, &batch(&[now]), now);
        lags.forget();
        lags.end(9, || panic!("it is forgotten"), &counted);
        assert_eq!(counts(&counted), [2, 3, 4]);
    }

    #[test]
    fn given_commit_times_that_are_alike_when_a_batch_begins_then_they_are_kept_together_and_others_are_not() {
        let mut lags = Lags::default();
        let now = 100 * SECOND;
        lags.begin(0, &batch(&[now - 1_000, now - 900, now - 500, now - 400, now - 450]), now);
        assert_eq!(lags.open[0].1.as_slice(), [(now - 1_000, 2), (now - 500, 3)]);
        // A minute ago, a second makes no difference; a clock that is behind makes none either.
        lags.begin(1, &batch(&[now - 64 * SECOND, now - 63 * SECOND, now - 10 * SECOND, now + 5 * SECOND]), now);
        assert_eq!(lags.open[1].1.len(), 3);
        let counted = Histogram::new(BOUNDS);
        lags.end(9, || now, &counted);
        assert_eq!(counts(&counted), [6, 7, 9]);
    }
}
