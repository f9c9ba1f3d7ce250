//! Savepoints of the open transaction.
//!
//! Promise: setting one and going back to one takes the time of a look-up, and memory is bounded, however many a transaction
//! sets: frameworks set one for every row. Releases are not in the log, so all of them stay.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::source::{Mark, Slot};

/// What a rollback to a savepoint keeps of each table: its batch up to a mark, and so many rows of the transaction.
pub(super) type Marks = Arc<[(Slot, Mark, u64)]>;

/// How many are remembered, the latest ones, and how many places of tables with them: some 20 MiB.
const MOST: usize = 1 << 16;
const MOST_MARKS: usize = 1 << 18;

/// Savepoints by when they were set, and by their names as the server compares them.
#[derive(Default)]
pub(super) struct Savepoints {
    next: u64,
    set: BTreeMap<u64, (Arc<str>, Marks)>,
    places: BTreeMap<Arc<str>, u64>,
    /// Those that are remembered, each as often as it is held.
    marks: usize,
}

impl Savepoints {
    /// Sets one; one of the same name is no more.
    pub(super) fn set(&mut self, name: &str, marks: impl Iterator<Item = (Slot, Mark, u64)> + Clone) {
        let marks = match self.set.last_key_value() {
            // As a rule nothing has been written to any of the tables since the one before.
            Some((_, (_, before))) if before.iter().copied().eq(marks.clone()) => Arc::clone(before),
            _ => {
                let marks: Marks = marks.collect();
                self.marks += marks.len();
                marks
            }
        };
        let name: Arc<str> = name.to_lowercase().into();
        if let Some(same) = self.places.insert(Arc::clone(&name), self.next)
            && let Some((_, marks)) = self.set.remove(&same)
        {
            self.forget(&marks);
        }
        self.set.insert(self.next, (name, marks));
        self.next += 1;
        while (self.set.len() > MOST || self.marks > MOST_MARKS)
            && let Some((_, (oldest, marks))) = self.set.pop_first()
        {
            self.places.remove(&oldest);
            self.forget(&marks);
        }
    }

    /// Counts marks no more that nobody else holds.
    fn forget(&mut self, marks: &Marks) {
        if Arc::strong_count(marks) == 1 {
            self.marks -= marks.len();
        }
    }

    /// Goes back to one, which stays; those that were set after it are no more. `None` where it is not known.
    pub(super) fn back_to(&mut self, name: &str) -> Option<Marks> {
        let place = *self.places.get(name.to_lowercase().as_str())?;
        for (name, marks) in self.set.split_off(&(place + 1)).into_values() {
            self.places.remove(&name);
            self.forget(&marks);
        }
        self.set.get(&place).map(|(_, marks)| Arc::clone(marks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(rows: u64) -> std::option::IntoIter<(Slot, Mark, u64)> {
        Some((0, Mark::START, rows)).into_iter()
    }

    fn rows(marks: Option<Marks>) -> Option<u64> {
        marks.map(|marks| marks[0].2)
    }

    #[test]
    fn given_savepoints_when_gone_back_to_then_the_later_ones_are_no_more_and_names_are_of_either_case() {
        let mut savepoints = Savepoints::default();
        for (name, count) in [("a", 1), ("B", 2), ("c", 3)] {
            savepoints.set(name, at(count));
        }
        savepoints.set("A", at(4));
        assert_eq!(rows(savepoints.back_to("a")), Some(4), "the one of the same name is the later one");
        assert_eq!(rows(savepoints.back_to("b")), Some(2));
        assert_eq!(rows(savepoints.back_to("b")), Some(2), "it stays");
        assert_eq!((rows(savepoints.back_to("c")), rows(savepoints.back_to("a"))), (None, None), "these came after it");
    }

    #[test]
    fn given_more_savepoints_than_are_remembered_when_gone_back_to_then_the_oldest_are_unknown() {
        let mut savepoints = Savepoints::default();
        let count = MOST as u64 + 1_000;
        for number in 0..count {
            savepoints.set(&format!("s{number}"), at(number / 1_000));
        }
        assert_eq!((savepoints.set.len(), savepoints.places.len()), (MOST, MOST));
        assert_eq!(rows(savepoints.back_to("s999")), None);
        assert_eq!(rows(savepoints.back_to("s1000")), Some(1));
        assert_eq!((savepoints.set.len(), savepoints.places.len(), savepoints.marks), (1, 1, 1));
    }

    #[test]
    fn given_savepoints_between_writes_to_many_tables_when_set_then_what_is_remembered_of_them_is_bounded() {
        let mut savepoints = Savepoints::default();
        for number in 0..10_000 {
            savepoints.set(&format!("s{number}"), (0..64).map(|slot| (slot, Mark::START, number)));
        }
        assert!(savepoints.marks <= MOST_MARKS && savepoints.set.len() == MOST_MARKS / 64);
        assert_eq!(rows(savepoints.back_to("s9999")), Some(9_999));
        assert_eq!(rows(savepoints.back_to("s0")), None);
    }
}
