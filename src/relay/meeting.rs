//! Where a table that reads the log on its own meets the shared tail: the decisions, without I/O.
//!
//! Promise: when a table changes from one reader to another, every transaction after the table's position is brought by
//! exactly one of them, and what the first brings comes before what the second does.
//!
//! # The protocol
//!
//! A table stands at *R*: the position of the last item that was put into its queue, rows of a transaction in part
//! included. Not the durable position: what is in the queue is on its way, so reading again from there would double it.
//! Nobody feeds it. Its feeder asks the tail to take it on, and the tail answers between two transactions of its own, at a
//! position *T*, or where it stopped if it is reconnecting:
//!
//! - The tail feeds no table: it goes to *R* and feeds this one from there. (It has closed its connection; so the only
//!   table of a daemon, and the first one back after an outage of Kafka, need no reader of their own.)
//! - *R* is at or beyond *T*: the tail takes the table on, passing over what *R* covers.
//! - *R* is a little behind *T*: the tail takes the table on, and from now on puts what comes after *T* into a new queue
//!   that the relay does not read yet. The table's catch-up reader brings what lies after *R* up to *T*, and ends; the new
//!   queue is put in line behind the reader's.
//! - *R* is far behind *T*: the tail only says *T*. The catch-up reader reads up to there, and the feeder asks once more.
//!   Reading is faster than writing, so the distance shrinks each time.
//!
//! Why this is exact: what the tail brings is what is neither covered by *R* nor by *T*; what the reader brings is not
//! covered by *R*, and it ends where its position covers all of *T*, having brought no transaction that *T* does not
//! cover. That is so whenever both read the same log, because it is one sequence and *T* is a place in it. When it is not
//! so (a failover to a server with another order in between), the reader notices that it brought a transaction too many
//! ([`Goal::is_exact`]), the new queue is thrown away unread, and the feeder asks again from where it is now.
//!
//! By containment, for each kind: a GTID set or a domain list is reached when it is covered. A file and offset may lie
//! between two transactions without being the end of one (a heartbeat, a new file): there the reader also ends before the
//! first transaction that begins at or after *T*.
//!
//! XA transactions that are prepared and not settled are left out by the positions of every reader that knows one of their
//! tables. The tail held no rows of them for a table that it did not feed: it opens the log again at *T*, which brings them
//! once more. What the reader held of them goes with it. A tail that did not know the table yet may have passed over one, so
//! that *T* covers it; such a *T* is not reached before the outcome, which is beyond it, and until then the table stays with
//! its own reader.
//!
//! What may come between: the tail reconnects: its position is *T* or later, and the new queue stays. The new queue fills:
//! the tail detaches the table again, and says where; the queue is read to its end in its turn all the same, and that is
//! the next *R*. The table halts, or a stop comes: its queues are dropped with it, and the tail notices the closed one.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::time::Duration;

use crate::position::{Point, Position, TxnId};
use crate::source::LogEvent;

/// How much log is little, in bytes, and how long a turn is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Distances {
    /// Between tables that are read for by one reader from the start.
    pub together: u64,
    /// What a catch-up reader may have to read while the tail already collects for the table.
    pub near: u64,
    /// How long a catch-up reader reads before it lets another have its turn.
    pub turn: Duration,
}

impl Default for Distances {
    /// What takes seconds to read, what takes a fraction of one, and half a minute.
    fn default() -> Self {
        Self { together: 1 << 30, near: 16 << 20, turn: Duration::from_secs(30) }
    }
}

impl Distances {
    /// Whether a table at `resume` can be taken on by a tail at `at`.
    pub fn is_near(self, resume: &Position, at: &Position) -> bool {
        resume >= at || resume.point.lacks(&at.point).is_some_and(|bytes| bytes <= self.near)
    }

    /// Where the shared tail starts, and which of these tables it feeds from there: those that are not far behind the one
    /// that is furthest ahead, for the others would hold them up; and none that is to be read itself first. `None` without
    /// tables.
    pub fn together(self, resume: &[&Position]) -> Option<(Point, Vec<bool>)> {
        let whole = |position: &&&Position| position.scan.is_none();
        let candidates: Vec<&Point> = resume.iter().filter(whole).map(|position| &position.point).collect();
        let Some((&first, rest)) = candidates.split_first() else {
            return resume.first().map(|position| (position.point.clone(), vec![false; resume.len()]));
        };
        let ahead = rest.iter().fold(first, |ahead, point| if *point > ahead { point } else { ahead });
        let near = |position: &Position| {
            position.scan.is_none() && position.point.lacks(ahead).is_some_and(|bytes| bytes <= self.together)
        };
        let near: Vec<bool> = resume.iter().map(|position| near(position)).collect();
        let start = resume.iter().zip(&near).filter(|(_, near)| **near);
        let start = start.fold(ahead.clone(), |start, (position, _)| start.meet(&position.point).unwrap_or(start));
        Some((start, near))
    }
}

/// How far a catch-up reader reads.
#[derive(Debug)]
pub struct Goal {
    point: Point,
    /// Whether the open transaction lies beyond it.
    beyond: bool,
    reached: bool,
    exact: bool,
    /// Prepared transactions that it covers, for the tail has not heard of them, and the reader does not.
    prepared: BTreeSet<String>,
}

impl Goal {
    /// Up to this point.
    pub fn new(point: Point) -> Self {
        Self { point, beyond: false, reached: false, exact: true, prepared: BTreeSet::new() }
    }

    /// A transaction begins. Gives whether the goal lies before it, and it is not to be read.
    pub fn begin(&mut self, txn: &TxnId) -> bool {
        self.beyond = self.point.covers(txn) == Some(false);
        // One before the goal that is not covered is only prepared.
        let behind = matches!((&self.point, txn), (Point::File(goal), TxnId::File(begin)) if *begin >= goal.at);
        self.reached |= behind && self.prepared.is_empty();
        self.reached
    }

    /// The reader takes this. A transaction that is only prepared is not brought: its rows are dropped with the reader.
    pub fn end<R>(&mut self, event: &LogEvent<R>) {
        match event {
            LogEvent::Commit | LogEvent::Rollback => self.exact &= !std::mem::take(&mut self.beyond),
            // What lies beyond is dropped with the reader.
            LogEvent::Prepare { xid } if !std::mem::take(&mut self.beyond) => {
                self.prepared.insert(xid.clone());
            }
            LogEvent::Settle { xid, .. } => _ = self.prepared.remove(xid),
            _ => {}
        }
    }

    /// The reader stands between transactions. Gives whether it has reached the goal.
    pub fn stand(&mut self, at: &Point) -> bool {
        self.reached |= matches!(self.point.partial_cmp(at), Some(Ordering::Less | Ordering::Equal));
        self.reached
    }

    /// Whether it was reached.
    pub fn is_reached(&self) -> bool {
        self.reached
    }

    /// Whether it was reached, and no transaction beyond it was read.
    pub fn is_exact(&self) -> bool {
        self.reached && self.exact
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::log::MemoryRows;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn point(text: &str) -> Point {
        text.parse::<Position>().unwrap().point
    }

    fn gtid(number: u64) -> TxnId {
        TxnId::Gtid(format!("{A}:{number}").parse().unwrap())
    }

    #[test]
    fn a_goal_is_reached_when_it_is_covered_and_inexact_when_more_was_read() {
        let mut goal = Goal::new(point(&format!("gtid={A}:1-3")));
        assert!(!goal.begin(&gtid(2)) && !goal.stand(&point(&format!("gtid={A}:1-2"))) && !goal.is_exact());
        assert!(!goal.begin(&gtid(3)) && goal.stand(&point(&format!("gtid={A}:1-3"))) && goal.is_exact());
        let mut goal = Goal::new(point(&format!("gtid={A}:1-3")));
        assert!(!goal.begin(&gtid(9)), "another order: what is after it may be before the goal");
        goal.end(&LogEvent::<MemoryRows>::Commit);
        assert!(goal.stand(&point(&format!("gtid={A}:1-3:9"))) && !goal.is_exact());
    }

    #[test]
    fn what_is_prepared_beyond_a_goal_is_not_brought() {
        let mut goal = Goal::new(point(&format!("gtid={A}:1-3:5")));
        assert!(!goal.begin(&gtid(4)));
        goal.end(&LogEvent::<MemoryRows>::Prepare { xid: "x".to_owned() });
        assert!(!goal.begin(&gtid(5)));
        goal.end(&LogEvent::<MemoryRows>::Commit);
        assert!(goal.stand(&point(&format!("gtid={A}:1-3:5"))) && goal.is_exact());
    }

    #[test]
    fn a_place_in_a_file_that_covers_what_is_prepared_for_the_reader_is_reached_with_its_outcome() {
        let begin = |offset: u64| TxnId::File(format!("b.000002:{offset}").parse().unwrap());
        let mut goal = Goal::new(point("file=b.000002:150"));
        assert!(!goal.begin(&begin(50)));
        goal.end(&LogEvent::<MemoryRows>::Prepare { xid: "x".to_owned() });
        assert!(!goal.stand(&point("file=b.000002:150 without b.000002:50")) && !goal.begin(&begin(150)));
        goal.end(&LogEvent::<MemoryRows>::Settle { xid: "x".to_owned(), commit: true });
        goal.end(&LogEvent::<MemoryRows>::Commit);
        assert!(goal.stand(&point("file=b.000002:200")) && !goal.is_exact());
        let mut goal = Goal::new(point("file=b.000002:150 without b.000002:50"));
        assert!(!goal.begin(&begin(50)));
        goal.end(&LogEvent::<MemoryRows>::Prepare { xid: "x".to_owned() });
        assert!(goal.begin(&begin(150)) && goal.is_exact());
    }

    #[test]
    fn a_place_in_a_file_is_reached_before_the_first_transaction_behind_it() {
        let begin = |offset: u64| TxnId::File(format!("b.000002:{offset}").parse().unwrap());
        let mut goal = Goal::new(point("file=b.000002:150"));
        assert!(!goal.begin(&begin(4)) && !goal.stand(&point("file=b.000002:100")));
        assert!(goal.begin(&begin(150)) && goal.is_exact());
    }

    #[test]
    fn tables_far_behind_are_left_to_themselves_and_the_others_start_where_the_last_of_them_is() {
        let position = |text: &str| text.parse::<Position>().unwrap();
        let tables = [1_900_000, 5, 2_000_000, 1_950_000].map(|last| position(&format!("gtid={A}:1-{last}")));
        let (start, near) = Distances::default().together(&tables.each_ref()).unwrap();
        assert_eq!((start, near), (tables[0].point.clone(), vec![true, false, true, true]));
        let kinds = [position("file=b.000002:4"), position("gtid=")];
        let together = Distances::default().together(&kinds.each_ref()).unwrap();
        assert_eq!(together, (kinds[0].point.clone(), vec![true, false]));
        assert_eq!(Distances::default().together(&[]), None);
        let scans = [position("gtid= scan 0 until 9"), tables[0].clone()];
        let together = Distances::default().together(&scans.each_ref()).unwrap();
        assert_eq!(together, (tables[0].point.clone(), vec![false, true]));
        let together = Distances::default().together(&[&scans[0]]).unwrap();
        assert_eq!(together, (point("gtid="), vec![false]));
    }
}
