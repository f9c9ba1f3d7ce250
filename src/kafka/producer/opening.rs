//! Which partitions know a producer already.
//!
//! A broker takes a batch only when it follows the one before, so what is behind a refused batch is refused too; except
//! where it knows nothing of the producer yet: there it takes any batch first. Promise: until a partition has
//! acknowledged a producer's first record, the producer sends it no second one.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::inbox::lock;
use crate::outbox::murmur2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opening {
    Unopened,
    /// Its first record is on its way.
    Knocking,
    Open,
}

/// The partitions of one topic; as long as their number is not known, they are taken for one.
#[derive(Debug)]
struct Topic {
    partitions: Vec<Opening>,
    is_known: bool,
    /// Partitions that are not open.
    shut: usize,
}

impl Topic {
    fn new() -> Self {
        Self { partitions: vec![Opening::Unopened], is_known: false, shut: 1 }
    }

    fn place(&self, key: &[u8], partition: Option<i32>) -> usize {
        if !self.is_known {
            return 0;
        }
        let given = partition.and_then(|partition| usize::try_from(partition).ok());
        given.map_or_else(|| hashed(key, self.partitions.len()), |given| given % self.partitions.len())
    }
}

/// The partitions that one producer sends to.
#[derive(Debug, Default)]
pub(super) struct Openings {
    topics: Mutex<HashMap<String, Topic>>,
    knocking: AtomicUsize,
}

impl Openings {
    /// Whether a record may be sent now; if so, it counts as sent.
    pub(super) fn admit(&self, topic: &str, key: &[u8], partition: Option<i32>) -> bool {
        let mut topics = lock(&self.topics);
        let topic = match topics.get_mut(topic) {
            Some(topic) if topic.shut == 0 => return true,
            Some(topic) => topic,
            None => topics.entry(topic.to_owned()).or_insert_with(Topic::new),
        };
        let place = topic.place(key, partition);
        match &mut topic.partitions[place] {
            Opening::Open => true,
            Opening::Knocking => false,
            unopened @ Opening::Unopened => {
                *unopened = Opening::Knocking;
                self.knocking.fetch_add(1, Ordering::Relaxed);
                true
            }
        }
    }

    /// The record that was admitted was not sent.
    pub(super) fn withdraw(&self, topic: &str, key: &[u8], partition: Option<i32>) {
        if let Some(topic) = lock(&self.topics).get_mut(topic) {
            let place = topic.place(key, partition);
            if topic.partitions[place] == Opening::Knocking {
                topic.partitions[place] = Opening::Unopened;
                self.knocking.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Whether an acknowledgement may open a partition.
    pub(super) fn are_awaited(&self) -> bool {
        self.knocking.load(Ordering::Relaxed) > 0
    }

    /// A partition has acknowledged a record. `count` gives the topic's number of partitions, if it can be told.
    pub(super) fn acknowledge(&self, name: &str, partition: i32, count: impl FnOnce() -> Option<usize>) {
        let is_known = lock(&self.topics).get(name).is_some_and(|topic| topic.is_known);
        // Asked without the lock: it takes a moment.
        let count = if is_known { None } else { count().filter(|count| *count > 0) };
        let mut topics = lock(&self.topics);
        let Some(topic) = topics.get_mut(name) else { return };
        if !topic.is_known {
            self.knocking.fetch_sub(1, Ordering::Relaxed);
            topic.partitions = vec![Opening::Unopened; count.unwrap_or(1)];
            topic.is_known = count.is_some();
            topic.shut = topic.partitions.len();
            if !topic.is_known {
                return;
            }
        }
        let place = usize::try_from(partition).ok().and_then(|place| topic.partitions.get_mut(place));
        if let Some(opening) = place.filter(|opening| **opening != Opening::Open) {
            if *opening == Opening::Knocking {
                self.knocking.fetch_sub(1, Ordering::Relaxed);
            }
            *opening = Opening::Open;
            topic.shut -= 1;
        }
    }
}

/// Which of so many partitions a key goes to.
pub(in crate::kafka) fn hashed(key: &[u8], partitions: usize) -> usize {
    (murmur2(key) as usize & 0x7fff_ffff) % partitions.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_a_topic_that_is_new_when_records_are_admitted_then_one_for_each_partition_until_it_is_acknowledged() {
        let openings = Openings::default();
        assert!(openings.admit("t", b"a", None));
        assert!(!openings.admit("t", b"b", None) && !openings.admit("t", b"c", Some(1)), "partitions are not known");
        assert!(openings.admit("u", b"a", None), "another topic is on its own");
        openings.acknowledge("t", 1, || None);
        assert!(openings.admit("t", b"b", None) && !openings.admit("t", b"c", None));
        openings.acknowledge("t", 1, || Some(3));
        assert!((0..9).all(|_| openings.admit("t", b"x", Some(1))), "it is open");
        assert!(openings.admit("t", b"x", Some(0)) && !openings.admit("t", b"x", Some(0)));
        openings.withdraw("t", b"x", Some(0));
        assert!(openings.admit("t", b"x", Some(0)) && openings.admit("t", b"x", Some(2)));
        openings.acknowledge("t", 0, || None);
        openings.acknowledge("t", 2, || None);
        openings.acknowledge("t", 2, || None);
        assert!((0..9).all(|n| openings.admit("t", &[n], None)), "all are open");
        assert!(openings.are_awaited(), "the other topic still waits");
        openings.acknowledge("u", 0, || Some(1));
        assert!(!openings.are_awaited());
    }
}
