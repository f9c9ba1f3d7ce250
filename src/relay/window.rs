//! What is published, acknowledged and saved: the arithmetic behind R2, without I/O.
//!
//! Promise: the position that [`Window::acknowledged`] gives is that of the longest run of batches, from the oldest on,
//! whose records are all acknowledged. Acknowledgements may come in any order. Nothing from the first failed record's
//! batch on is ever covered.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::outlet::Chunk;
use crate::planted::{self, Bug};
use crate::position::{Parked, Position};

#[derive(Debug)]
struct Entry {
    unsettled: u64,
    records: u64,
    closed: bool,
    /// `None` for a batch that was given up half-way, or of which a record failed: nothing from it on is covered.
    position: Option<Arc<Position>>,
    /// Which aggregates are parked once it is covered, if it has changed that.
    parked: Option<Arc<Parked>>,
    oldest_commit_micros: u64,
}

/// The batches of one table between publishing and saving.
#[derive(Debug, Default)]
pub struct Window {
    entries: VecDeque<Entry>,
    first: Chunk,
    /// A batch that will not be covered has left: nothing after it counts.
    broken: bool,
    /// There is a batch that will not be covered, whether it has left or not.
    is_torn: bool,
    acknowledged: Option<Arc<Position>>,
    parked: Option<Arc<Parked>>,
    published: u64,
    settled_in_order: u64,
    saved: u64,
}

impl Window {
    /// Opens a batch: its records follow. `oldest_commit_micros` is the commit time of its first row.
    pub fn open(&mut self, position: Arc<Position>, oldest_commit_micros: u64) -> Chunk {
        debug_assert!(self.entries.back().is_none_or(|entry| entry.closed), "one batch is published at a time");
        self.entries.push_back(Entry {
            unsettled: 0,
            records: 0,
            closed: false,
            position: Some(position),
            parked: None,
            oldest_commit_micros,
        });
        self.first + self.entries.len() as Chunk - 1
    }

    /// Nothing is published yet, and what comes follows this.
    #[must_use]
    pub fn resuming(self, position: Arc<Position>) -> Self {
        Self { acknowledged: Some(position), ..self }
    }

    /// Notes which aggregates are parked once the open batch is covered.
    pub fn park(&mut self, parked: Arc<Parked>) {
        if let Some(entry) = self.entries.back_mut() {
            debug_assert!(!entry.closed, "events are parked in an open batch");
            entry.parked = Some(parked);
        }
    }

    /// Which aggregates are parked as of [`Window::acknowledged`]; `None` if nothing has changed since the start.
    pub fn acknowledged_parked(&self) -> Option<&Arc<Parked>> {
        self.parked.as_ref()
    }

    /// Which aggregates are parked as of [`Window::published`]; `None` if nothing has changed since the start.
    pub fn published_parked(&self) -> Option<&Arc<Parked>> {
        self.entries.iter().rev().find_map(|entry| entry.parked.as_ref()).or(self.parked.as_ref())
    }

    /// The position that everything published so far reaches; `None` before the first, and after something torn.
    pub(super) fn latest(&self) -> Option<&Arc<Position>> {
        self.entries.back().map_or(self.acknowledged.as_ref(), |entry| entry.position.as_ref())
    }

    /// Opens a batch that was published before: it leads no further than what was published until now. `None` when that
    /// leads nowhere yet.
    pub fn open_again(&mut self, oldest_commit_micros: u64) -> Option<Chunk> {
        let position = Arc::clone(self.latest()?);
        Some(self.open(position, oldest_commit_micros))
    }

    /// Whether there is a position that a repeated batch could have.
    pub fn leads_somewhere(&self) -> bool {
        self.latest().is_some()
    }

    /// The oldest batch that is not settled, or the next one.
    pub fn first(&self) -> Chunk {
        self.first
    }

    /// Counts a record of the open batch as published.
    pub fn publish(&mut self) {
        if let Some(entry) = self.entries.back_mut() {
            debug_assert!(!entry.closed, "records are published into an open batch");
            entry.unsettled += 1;
            entry.records += 1;
            self.published += 1;
        }
    }

    /// Closes the open batch: all its records are published.
    pub fn close(&mut self) {
        if let Some(entry) = self.entries.back_mut() {
            entry.closed = true;
        }
        self.advance();
    }

    /// Gives the open batch up half-way, if there is one: what was published of it is waited for, but no position will
    /// ever cover it. Nothing is published after it.
    pub fn abandon(&mut self) {
        if let Some(entry) = self.entries.back_mut().filter(|entry| !entry.closed) {
            entry.closed = true;
            entry.position = None;
            self.is_torn = true;
        }
        self.advance();
    }

    /// Counts records of a batch as acknowledged.
    pub fn acknowledge(&mut self, chunk: Chunk, records: u64) {
        self.settle(chunk, records, true);
    }

    /// Counts records of a batch as failed: they are not waited for any more, and no position will ever cover them.
    pub fn fail(&mut self, chunk: Chunk, records: u64) {
        self.settle(chunk, records, false);
    }

    fn settle(&mut self, chunk: Chunk, records: u64, delivered: bool) {
        let index = chunk.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let entry = index.and_then(|index| self.entries.get_mut(index));
        debug_assert!(
            entry.as_ref().is_some_and(|entry| entry.unsettled >= records),
            "R2: settled more than published"
        );
        if let Some(entry) = entry {
            entry.unsettled = entry.unsettled.saturating_sub(records);
            entry.position.take_if(|_| !delivered);
            self.is_torn |= !delivered;
        }
        self.advance();
    }

    /// The table has nothing in the log up to `position`: moves on if nothing is in flight.
    pub fn progress(&mut self, position: Arc<Position>) {
        match self.entries.back_mut() {
            // What is in flight is acknowledged first; then the later position holds for it as well.
            Some(entry) => entry.position = entry.position.take().map(|_| position),
            None if self.broken => {}
            None => self.acknowledged = Some(position),
        }
    }

    fn advance(&mut self) {
        while let Some(entry) = self.entries.front().filter(|entry| entry.closed && entry.unsettled == 0) {
            self.broken |= entry.position.is_none();
            let behind = self.entries.get(1).filter(|_| planted::is(Bug::WindowOffByOne));
            let covered = behind.map_or(&entry.position, |behind| &behind.position);
            if let Some(position) = covered.as_ref().filter(|_| !self.broken) {
                self.settled_in_order += entry.records;
                self.acknowledged = Some(Arc::clone(position));
                self.parked = entry.parked.clone().or(self.parked.take());
            }
            self.entries.pop_front();
            self.first += 1;
        }
    }

    /// The position of everything acknowledged in order; `None` before the first.
    pub fn acknowledged(&self) -> Option<&Arc<Position>> {
        self.acknowledged.as_ref()
    }

    /// The position of everything published, and how many records that are since the start; `None` within a batch, and
    /// when something has failed.
    pub fn published(&self) -> Option<(&Arc<Position>, u64)> {
        let whole = !self.is_torn && self.entries.back().is_none_or(|entry| entry.closed);
        self.latest().filter(|_| whole).map(|position| (position, self.published))
    }

    /// Records published, since the start.
    pub fn published_records(&self) -> u64 {
        self.published
    }

    /// Whether something that was published will not be covered: it failed, or its batch was given up half-way.
    pub fn is_torn(&self) -> bool {
        self.is_torn
    }

    /// Records acknowledged in order, since the start; what a save of [`Window::acknowledged`] covers.
    pub fn acknowledged_records(&self) -> u64 {
        self.settled_in_order
    }

    /// A save that covers this many records is durable.
    pub fn saved(&mut self, records: u64) {
        debug_assert!(
            records >= self.saved && records <= self.settled_in_order,
            "R2, R3: saved what is acknowledged, forwards"
        );
        self.saved = records;
    }

    /// Records published and not covered by a durable position: the most that a crash now can duplicate.
    pub fn unsaved(&self) -> u64 {
        self.published - self.saved
    }

    /// Records published and not yet settled.
    pub fn in_flight(&self) -> u64 {
        self.entries.iter().map(|entry| entry.unsettled).sum()
    }

    /// Whether everything published is acknowledged or has failed.
    pub fn is_settled(&self) -> bool {
        self.entries.is_empty()
    }

    /// Commit time of the oldest batch not yet acknowledged, in microseconds since the Unix epoch.
    pub fn oldest_commit_micros(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.oldest_commit_micros)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::position::{FilePoint, Point};

    fn at(offset: u64) -> Arc<Position> {
        Arc::new(Point::from(FilePoint { file: "b.000001".into(), offset, server: None }).into())
    }

    proptest! {
        /// Given batches of any size acknowledged in any order, when some are acknowledged,
        /// then the position is that of the longest acknowledged run, and no other.
        #[test]
        fn the_position_is_that_of_the_acknowledged_prefix(
            sizes in prop::collection::vec(0_u64..4, 1..12),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..48),
        ) {
            let mut window = Window::default();
            let mut open: Vec<(Chunk, u64)> = Vec::new();
            for (index, &size) in sizes.iter().enumerate() {
                let chunk = window.open(at(index as u64 + 1), 1);
                (0..size).for_each(|_| window.publish());
                window.close();
                open.extend((0..size).map(|_| (chunk, 1)));
            }
            let mut left: Vec<u64> = sizes.clone();
            for pick in order {
                if open.is_empty() { break; }
                let (chunk, records) = open.swap_remove(pick.index(open.len()));
                window.acknowledge(chunk, records);
                left[usize::try_from(chunk).unwrap()] -= records;
                let prefix = left.iter().take_while(|&&unsettled| unsettled == 0).count();
                let expected = (prefix > 0).then(|| at(prefix as u64));
                prop_assert_eq!(window.acknowledged(), expected.as_ref());
                prop_assert_eq!(window.in_flight(), left.iter().sum::<u64>());
                prop_assert_eq!(window.acknowledged_records(), sizes[..prefix].iter().sum::<u64>());
            }
        }
    }

    #[test]
    fn an_open_batch_is_not_acknowledged_although_its_records_are() {
        let mut window = Window::default();
        let chunk = window.open(at(1), 7);
        window.publish();
        window.acknowledge(chunk, 1);
        assert_eq!(window.acknowledged(), None);
        assert_eq!(window.oldest_commit_micros(), Some(7));
        window.publish();
        window.close();
        assert_eq!(window.acknowledged(), None);
        window.acknowledge(chunk, 1);
        assert_eq!(window.acknowledged(), Some(&at(1)));
        assert_eq!(window.unsaved(), 2);
        window.saved(2);
        assert_eq!(window.unsaved(), 0);
    }

    #[test]
    fn a_batch_given_up_half_way_is_waited_for_and_never_covered() {
        let mut window = Window::default();
        let chunk = window.open(at(1), 1);
        window.publish();
        window.abandon();
        assert!(!window.is_settled());
        window.acknowledge(chunk, 1);
        assert!(window.is_settled());
        assert_eq!((window.acknowledged(), window.unsaved()), (None, 1));
    }

    #[test]
    fn nothing_from_the_first_failed_record_on_is_covered() {
        let mut window = Window::default();
        let chunks: Vec<_> = (1..=3)
            .map(|offset| {
                let chunk = window.open(at(offset), 1);
                (0..2).for_each(|_| window.publish());
                window.close();
                chunk
            })
            .collect();
        window.acknowledge(chunks[2], 2);
        window.fail(chunks[1], 1);
        window.acknowledge(chunks[0], 2);
        assert_eq!((window.acknowledged(), window.is_settled()), (Some(&at(1)), false));
        window.acknowledge(chunks[1], 1);
        window.progress(at(9));
        assert!(window.is_settled());
        assert_eq!((window.acknowledged(), window.acknowledged_records()), (Some(&at(1)), 2));
    }

    #[test]
    fn a_repeated_batch_leads_no_further_and_holds_up_what_comes_after_it() {
        let mut window = Window::default();
        assert_eq!((window.open_again(1), window.leads_somewhere()), (None, false));
        window.progress(at(3));
        let again = window.open_again(1).unwrap();
        window.publish();
        window.close();
        let next = window.open(at(4), 1);
        window.publish();
        window.close();
        window.acknowledge(next, 1);
        assert_eq!((window.acknowledged(), window.published()), (Some(&at(3)), Some((&at(4), 2))));
        window.acknowledge(again, 1);
        assert_eq!((window.acknowledged(), window.acknowledged_records(), window.first()), (Some(&at(4)), 2, 2));
    }

    #[test]
    fn what_is_parked_is_known_as_of_the_position() {
        let parked = |events| {
            let mut parked = Parked::default();
            let parking = crate::position::Parking {
                run: "r".into(),
                reason: "why".into(),
                since: jiff::Timestamp::UNIX_EPOCH,
                position: "p".into(),
                topics: [].into(),
                events,
                released: 0,
                bytes: 0,
            };
            parked.put(crate::position::Aggregate::new(b"k"), parking);
            Arc::new(parked)
        };
        let mut window = Window::default().resuming(at(1));
        assert_eq!((window.acknowledged(), window.acknowledged_parked()), (Some(&at(1)), None));
        let mut open = |offset, events: Option<u64>| {
            let chunk = window.open(at(offset), 1);
            window.publish();
            if let Some(events) = events {
                window.park(parked(events));
            }
            window.close();
            chunk
        };
        let chunks = [open(2, None), open(3, Some(1)), open(4, None), open(5, Some(2))];
        window.acknowledge(chunks[0], 1);
        assert_eq!((window.acknowledged(), window.acknowledged_parked()), (Some(&at(2)), None));
        assert_eq!(window.published_parked(), Some(&parked(2)));
        window.acknowledge(chunks[1], 1);
        window.acknowledge(chunks[3], 1);
        assert_eq!((window.acknowledged(), window.acknowledged_parked()), (Some(&at(3)), Some(&parked(1))));
        window.acknowledge(chunks[2], 1);
        assert_eq!((window.acknowledged(), window.acknowledged_parked()), (Some(&at(5)), Some(&parked(2))));
    }

    #[test]
    fn idle_progress_waits_for_what_is_in_flight() {
        let mut window = Window::default();
        window.progress(at(3));
        assert_eq!(window.acknowledged(), Some(&at(3)));
        let chunk = window.open(at(4), 1);
        window.publish();
        window.close();
        window.progress(at(9));
        assert_eq!(window.acknowledged(), Some(&at(3)));
        window.acknowledge(chunk, 1);
        assert_eq!(window.acknowledged(), Some(&at(9)));
    }
}
