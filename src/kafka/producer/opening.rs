//! Which partitions know a producer already.
//!
//! A broker takes a batch only when it follows the one before, so what is behind a refused batch is refused too; except
//! where it knows nothing of the producer yet, or has forgotten it: there it takes any batch first. Promise: until a
//! partition has acknowledged a producer's first record, the producer sends it no second one; nor until it has
//! acknowledged the first one after an hour without any.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::inbox::lock;
use crate::outbox::murmur2;

/// How often it is looked which partitions are quiet. One that is sent nothing from one look to the next but one, so for
/// an hour at most, has to be opened again: brokers forget a producer after `producer.id.expiration.ms`, a day where
/// nobody has set it. An hour is far from that, and long enough for one answer that is waited for to cost nothing.
const LOOK: Duration = Duration::from_mins(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opening {
    Unopened,
    /// Its first record is on its way.
    Knocking,
    Open,
    /// It is open, and nothing was sent to it since the last look.
    Quiet,
}

/// The partitions of one topic; as long as their number is not known, they are taken for one.
#[derive(Debug)]
struct Topic {
    partitions: Vec<Opening>,
    is_known: bool,
    /// Partitions that are not open, or quiet.
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
    /// When it was looked last which are quiet.
    looked: Mutex<Option<Instant>>,
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
            quiet @ Opening::Quiet => {
                *quiet = Opening::Open;
                topic.shut -= 1;
                true
            }
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

    /// Shuts partitions that have been quiet for long. To be told the time now and then, and not for each record.
    pub(super) fn look(&self, now: Instant) {
        let mut looked = lock(&self.looked);
        let passed = now.saturating_duration_since(*looked.get_or_insert(now));
        if passed < LOOK {
            return;
        }
        *looked = Some(now);
        // Who has not looked for so long does not know what was sent meanwhile, and when.
        let quiet = if passed < LOOK * 2 { Opening::Quiet } else { Opening::Unopened };
        for topic in lock(&self.topics).values_mut() {
            for opening in &mut topic.partitions {
                *opening = match *opening {
                    Opening::Open => quiet,
                    Opening::Quiet => Opening::Unopened,
                    shut @ (Opening::Unopened | Opening::Knocking) => shut,
                };
            }
            topic.shut = topic.partitions.len();
        }
    }

    /// Once everything that was sent is reported, a record that is still on its way has opened another partition than it
    /// was for: the topic has more or fewer of them than were counted. It is forgotten, or its records would wait for ever.
    pub(super) fn recount(&self, is_reported: impl FnOnce() -> bool) {
        if !self.are_awaited() {
            return;
        }
        let mut topics = lock(&self.topics);
        // Asked while nothing is admitted: whatever was counts as sent by now.
        if is_reported() {
            topics.retain(|_, topic| !topic.partitions.contains(&Opening::Knocking));
            self.knocking.store(0, Ordering::Relaxed);
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

    /// A topic of two partitions, which are both open.
    fn open() -> Openings {
        let openings = Openings::default();
        for partition in 0..2 {
            assert!(openings.admit("t", b"x", Some(partition)));
            openings.acknowledge("t", partition, || Some(2));
        }
        assert!(!openings.are_awaited());
        openings
    }

    #[test]
    fn given_a_partition_that_was_quiet_for_an_hour_when_records_are_admitted_then_one_until_it_is_acknowledged() {
        let (openings, begun) = (open(), Instant::now());
        let admits = |partition| openings.admit("t", b"x", Some(partition));
        openings.look(begun);
        for looks in 1..=4 {
            openings.look(begun + LOOK * looks);
            openings.look(begun + LOOK * looks + Duration::from_secs(1));
            assert!((0..9).all(|_| admits(0)), "it is in use");
        }
        assert!(admits(1) && !admits(1), "the broker may have forgotten the producer there");
        openings.acknowledge("t", 1, || None);
        assert!((0..9).all(|_| admits(1)) && !openings.are_awaited());
        openings.look(begun + LOOK * 5);
        assert!((0..9).all(|_| admits(1)), "half an hour is not long");
        openings.look(begun + LOOK * 7);
        assert!(admits(0) && !admits(0), "nobody has looked for an hour");
    }

    #[test]
    fn given_a_record_that_went_to_another_partition_than_was_counted_when_all_is_reported_then_others_are_admitted() {
        let (openings, begun) = (open(), Instant::now());
        openings.look(begun);
        openings.look(begun + LOOK * 2);
        assert!(openings.admit("t", b"x", Some(1)));
        openings.acknowledge("t", 5, || None);
        openings.recount(|| false);
        assert!(!openings.admit("t", b"x", Some(1)), "it may still be on its way");
        openings.recount(|| true);
        assert!(!openings.are_awaited());
        assert!(openings.admit("t", b"x", Some(1)) && !openings.admit("t", b"x", Some(0)), "they are counted again");
        openings.acknowledge("t", 5, || Some(6));
        assert!((0..9).all(|_| openings.admit("t", b"x", Some(5))));
        assert!(openings.admit("t", b"x", Some(1)) && openings.are_awaited());
    }
}
