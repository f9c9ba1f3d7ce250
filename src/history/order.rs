//! The order of one aggregate's records, judged.
//!
//! Let the events of the aggregate that were delivered at all be numbered 0, 1, 2, … in journal order (what is missing is
//! reported as missing and leaves no hole here), and let the records be walked in the order of their offsets:
//!
//! 1. A **first delivery** of n is late, and so out of order, if some m > n was delivered before it.
//! 2. A **duplicate** of n may come at any time: at least once, a relay goes back, as far as it must. But from there it has
//!    to repeat in order: as long as it has not come back to the newest event delivered so far, the record after
//!    a duplicate of n is n + 1, or the start of yet another replay, which is any duplicate of m <= n. Anything else skips,
//!    and is out of order.
//!
//! Each record is counted once at most. So 1,2,3,2,3,4 and 1,2,3,2,1,2,3 are in order with duplicates;
//! in 1,2,3,2,1,3 the last record skips 2; in 1,3,2 the last is late; in 1,2,3,1,4 the last skips 2 and 3.
//!
//! Replays may start earlier than the one before: after a retry that began at the oldest record without an
//! acknowledgement, a crash goes back to what was saved before. Therefore a replay in exactly reversed order (1,2,3,3,2,1)
//! cannot be told from several interrupted ones; it leaves the log **unfinished**: the last record is not the newest
//! event, which a relay that had the time to finish never leaves behind.

/// What is wrong with a record's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// First delivered after a later event.
    Late,
    /// A replay went on elsewhere than at the event after the one that it had repeated.
    Skips,
}

/// One record, judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    /// The event was delivered before.
    pub(super) duplicate: bool,
    /// What is wrong with the record's place, if anything.
    pub(super) trouble: Option<Trouble>,
}

/// Judges one aggregate: the sequence numbers of its records in the order of the log. Also gives whether the last replay
/// is unfinished.
pub(super) fn judge(sequences: &[u64]) -> (Vec<Step>, bool) {
    let mut known = sequences.to_vec();
    known.sort_unstable();
    known.dedup();
    let mut seen = vec![false; known.len()];
    let mut newest: Option<usize> = None;
    let mut replaying: Option<usize> = None;
    let mut steps = Vec::with_capacity(sequences.len());
    for sequence in sequences {
        let rank = known.partition_point(|other| other < sequence);
        let duplicate = std::mem::replace(&mut seen[rank], true);
        let skips = replaying.is_some_and(|last| rank > last + 1);
        let late = !duplicate && newest.is_some_and(|newest| rank < newest);
        let trouble = match (late, skips) {
            (true, _) => Some(Trouble::Late),
            (false, true) => Some(Trouble::Skips),
            (false, false) => None,
        };
        newest = newest.max(Some(rank));
        replaying = (duplicate && newest != Some(rank)).then_some(rank);
        steps.push(Step { duplicate, trouble });
    }
    (steps, replaying.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which records are out of order, how many are duplicates, whether the log is unfinished.
    fn judged(sequences: &[u64]) -> (Vec<usize>, usize, bool) {
        let (steps, unfinished) = judge(sequences);
        let wrong = steps.iter().enumerate().filter(|(_, step)| step.trouble.is_some()).map(|(index, _)| index);
        (wrong.collect(), steps.iter().filter(|step| step.duplicate).count(), unfinished)
    }

    #[test]
    fn replays_in_order_are_duplicates_only() {
        assert_eq!(judged(&[]), (vec![], 0, false));
        assert_eq!(judged(&[1, 2, 3]), (vec![], 0, false));
        assert_eq!(judged(&[1, 2, 2, 3]), (vec![], 1, false));
        assert_eq!(judged(&[1, 2, 3, 2, 3, 4]), (vec![], 2, false));
        assert_eq!(judged(&[1, 2, 3, 2, 1, 2, 3, 1, 2, 3, 4]), (vec![], 7, false));
        assert_eq!(judged(&[10, 30, 70, 30, 70]), (vec![], 2, false), "gaps are no trouble");
        assert_eq!(judged(&[1, 2, 3, 1]), (vec![], 1, true));
        assert_eq!(judged(&[1, 2, 3, 3, 2, 1]), (vec![], 3, true), "cannot be told from interrupted replays");
    }

    #[test]
    fn wrong_orders_are_found_where_they_are() {
        assert_eq!(judged(&[1, 3, 2]), (vec![2], 0, false));
        assert_eq!(judged(&[2, 1, 3]), (vec![1], 0, false));
        assert_eq!(judged(&[1, 3, 2, 4]), (vec![2], 0, false), "what follows is not blamed");
        assert_eq!(judged(&[1, 2, 3, 2, 1, 3]), (vec![5], 3, false));
        assert_eq!(judged(&[1, 2, 3, 1, 4]), (vec![4], 1, false), "broken off");
        assert_eq!(judged(&[1, 2, 3, 1, 3]), (vec![4], 2, false), "skipped");
    }
}
