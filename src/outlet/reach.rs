//! Whether the place of delivery can be reached, and what its clients tell of themselves.
//!
//! Promise: counters never go back, although clients come and go; what is counted now is of the clients that there are.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Noted by the outlet's clients, read by telemetry.
#[derive(Debug, Default)]
pub struct Reach {
    connected: AtomicBool,
    clients: Mutex<Clients>,
}

#[derive(Debug, Default)]
struct Clients {
    next: u64,
    /// How many there are.
    living: usize,
    /// The latest word of each.
    words: HashMap<u64, Word>,
    /// The counters of those that are gone.
    gone: Word,
}

/// What a client tells of itself, or what all of them come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Word {
    /// Now: connections to brokers that are up.
    pub connections: u64,
    /// Now: records that the client holds.
    pub queued_records: u64,
    /// Now: their bytes.
    pub queued_bytes: u64,
    /// Requests that were sent again, since the client was made.
    pub retries: u64,
    /// Requests that could not be sent or were not answered as they should, since then.
    pub errors: u64,
    /// Requests that were not answered in time, since then.
    pub timeouts: u64,
    /// Connections that ended, since then.
    pub disconnects: u64,
    /// Lately: requests that were answered.
    pub answers: u64,
    /// Lately: how long all of these took together.
    pub answers_took: Duration,
    /// Lately: how long the slowest one in a hundred took, at the slowest broker.
    pub slow_answer: Duration,
}

impl Word {
    fn counters_of(self) -> Self {
        let Self { retries, errors, timeouts, disconnects, .. } = self;
        Self { retries, errors, timeouts, disconnects, ..Self::default() }
    }

    fn and(self, other: Self) -> Self {
        Self {
            connections: self.connections + other.connections,
            queued_records: self.queued_records + other.queued_records,
            queued_bytes: self.queued_bytes + other.queued_bytes,
            retries: self.retries + other.retries,
            errors: self.errors + other.errors,
            timeouts: self.timeouts + other.timeouts,
            disconnects: self.disconnects + other.disconnects,
            answers: self.answers + other.answers,
            answers_took: self.answers_took + other.answers_took,
            slow_answer: self.slow_answer.max(other.slow_answer),
        }
    }
}

impl Reach {
    /// Whether any of the clients had a broker when it was last heard of; where none is there, what the last one said.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Relaxed)
    }

    /// A broker has answered somebody who is no client of this.
    pub fn answered(&self) {
        self.connected.store(true, Relaxed);
    }

    /// What all clients come to.
    pub fn all(&self) -> Word {
        let clients = self.locked();
        clients.words.values().fold(clients.gone, |all, word| all.and(*word))
    }

    /// How many clients there are.
    pub fn clients(&self) -> usize {
        self.locked().living
    }

    /// What one client says is not what all have: one whose broker is away says nothing of the others.
    fn heard(&self, clients: &Clients) {
        if !clients.words.is_empty() {
            self.connected.store(clients.words.values().any(|word| word.connections > 0), Relaxed);
        }
    }

    fn locked(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One client, for as long as it is there.
#[derive(Debug)]
pub struct Client {
    reach: Arc<Reach>,
    number: u64,
}

impl Client {
    /// One that has told nothing yet.
    pub fn of(reach: Arc<Reach>) -> Self {
        let mut clients = reach.locked();
        let number = clients.next;
        clients.next += 1;
        clients.living += 1;
        drop(clients);
        Self { reach, number }
    }

    /// Notes what it tells now.
    pub fn tell(&self, word: Word) {
        let mut clients = self.reach.locked();
        clients.words.insert(self.number, word);
        self.reach.heard(&clients);
    }

    /// None of its brokers is connected.
    pub fn is_alone(&self) {
        let mut clients = self.reach.locked();
        clients.words.entry(self.number).or_default().connections = 0;
        self.reach.heard(&clients);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut clients = self.reach.locked();
        clients.living -= 1;
        if let Some(word) = clients.words.remove(&self.number) {
            clients.gone = clients.gone.and(word.counters_of());
        }
        self.reach.heard(&clients);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_clients_that_come_and_go_when_added_up_then_counters_stay_and_what_is_now_goes() {
        let reach = Arc::new(Reach::default());
        let word = Word { connections: 2, queued_bytes: 10, retries: 3, ..Word::default() };
        let first = Client::of(Arc::clone(&reach));
        first.tell(word);
        let second = Client::of(Arc::clone(&reach));
        second.tell(Word { slow_answer: Duration::from_millis(7), ..word });
        second.tell(Word { retries: 4, slow_answer: Duration::from_millis(5), ..word });
        let all = reach.all();
        assert_eq!((all.connections, all.queued_bytes, all.retries), (4, 20, 7));
        assert_eq!((all.slow_answer, reach.is_connected()), (Duration::from_millis(5), true));
        assert_eq!(reach.clients(), 2);
        drop(first);
        assert_eq!(reach.clients(), 1);
        let all = reach.all();
        assert_eq!((all.connections, all.queued_bytes, all.retries), (2, 10, 7));
    }

    #[test]
    fn given_clients_of_which_one_loses_its_broker_when_asked_then_only_the_loss_of_all_counts() {
        let reach = Arc::new(Reach::default());
        let (one, two) = (Client::of(Arc::clone(&reach)), Client::of(Arc::clone(&reach)));
        let up = Word { connections: 1, ..Word::default() };
        one.tell(up);
        two.tell(up);
        two.is_alone();
        assert!(reach.is_connected(), "the other has a broker");
        one.tell(Word::default());
        assert!(!reach.is_connected());
        two.tell(up);
        one.is_alone();
        assert!(reach.is_connected(), "whoever spoke last");
        drop(two);
        assert!(!reach.is_connected(), "the one that had a broker is gone");
        drop(one);
        assert!(!reach.is_connected(), "nobody knows better");
        reach.answered();
        assert!(reach.is_connected());
    }
}
