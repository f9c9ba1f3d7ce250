//! Transactions as their writer knows them.

use std::collections::HashSet;
use std::sync::Arc;

use super::fingerprint::Fingerprint;
use super::reader::Seen;
use crate::table::TableName;

/// How a transaction ended, as far as its writer knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// COMMIT was answered.
    Committed,
    /// ROLLBACK was sent, or the connection was lost before COMMIT was sent.
    RolledBack,
    /// COMMIT was sent and its answer was lost: ask the database, then [`Journal::resolve`].
    Unknown,
}

/// One outbox row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The event's id, unique in the journal.
    pub id: Arc<str>,
    /// The outbox table that it went to.
    pub table: TableName,
    /// The aggregate's id.
    pub aggregate: Arc<str>,
    /// Its place in the aggregate's order, assigned when it was written. Events that were rolled back leave gaps; no
    /// two events of an aggregate have the same.
    pub sequence: u64,
    /// The event's type.
    pub event_type: Arc<str>,
    /// The payload's fingerprint.
    pub payload: Fingerprint,
    /// Whether the row was still there at the end of its transaction; false when its savepoint was rolled back.
    pub kept: bool,
}

/// One transaction, its events in the order in which they were inserted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// A number for messages, unique among one writer's transactions.
    pub id: u64,
    /// The events.
    pub events: Vec<Event>,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether COMMIT was sent and its answer was lost, however it ended.
    pub unanswered: bool,
}

impl Transaction {
    /// The events that are in the database if the transaction committed.
    pub fn kept(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(|event| event.kept)
    }

    /// Decides an unknown outcome by the event ids that the database has, and gives the outcome. One id of its own is
    /// enough for a commit, because transactions are atomic; a transaction without any kept event counts as rolled back.
    pub fn resolve(&mut self, found: &HashSet<String>) -> Outcome {
        if self.outcome == Outcome::Unknown {
            let committed = self.kept().any(|event| found.contains(&*event.id));
            self.outcome = if committed { Outcome::Committed } else { Outcome::RolledBack };
        }
        self.outcome
    }
}

/// Everything that a writer did.
///
/// The order of one aggregate's events is that of their sequence numbers. That is commit order as long as one
/// writer at a time owns an aggregate and finishes one transaction before it begins the next; journals of several
/// writers can then be put together in any order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Journal {
    transactions: Vec<Transaction>,
}

impl Journal {
    /// Adds a transaction. To be called when its outcome is known, or known to be unknown.
    pub fn record(&mut self, transaction: Transaction) {
        self.transactions.push(transaction);
    }

    /// Adds all transactions of another journal.
    pub fn absorb(&mut self, other: Self) {
        self.transactions.extend(other.transactions);
    }

    /// All transactions.
    pub fn transactions(&self) -> &[Transaction] {
        &self.transactions
    }

    /// The transactions whose outcome is unknown.
    pub fn unknown(&self) -> impl Iterator<Item = &Transaction> {
        self.transactions.iter().filter(|transaction| transaction.outcome == Outcome::Unknown)
    }

    /// Decides every unknown outcome. `found` is what the database has of the events of [`Journal::unknown`], asked
    /// after none of these transactions could still be running. Gives how many were decided.
    pub fn resolve(&mut self, found: &HashSet<String>) -> usize {
        let unknown = self.transactions.iter_mut().filter(|transaction| transaction.outcome == Outcome::Unknown);
        unknown.map(|transaction| transaction.resolve(found)).count()
    }

    /// The events that must be delivered.
    pub fn committed(&self) -> impl Iterator<Item = &Event> {
        let committed = self.transactions.iter().filter(|transaction| transaction.outcome == Outcome::Committed);
        committed.flat_map(Transaction::kept)
    }

    /// Whether everything that was committed has been seen, whatever else was. Looks again only for what was missing.
    pub fn has_arrived(&self) -> impl FnMut(&Seen) -> bool {
        let mut awaited = self.committed().peekable();
        move |seen| {
            while awaited.next_if(|event| seen.contains(&event.id)).is_some() {}
            awaited.peek().is_none()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction(id: u64, kept: bool) -> Transaction {
        let event = Event {
            id: format!("event-{id}").into(),
            table: TableName::new("delivery", "delivery-outbox1"),
            aggregate: "d-1".into(),
            sequence: id,
            event_type: "Created".into(),
            payload: Fingerprint::of(None),
            kept,
        };
        Transaction { id, events: vec![event], outcome: Outcome::Unknown, unanswered: true }
    }

    #[test]
    fn the_database_decides_what_the_writer_does_not_know() {
        let mut journal = Journal::default();
        journal.record(transaction(1, true));
        journal.record(transaction(2, true));
        journal.record(transaction(3, false));
        assert_eq!(journal.unknown().count(), 3);
        assert_eq!(journal.resolve(&HashSet::from(["event-1".to_owned(), "event-3".to_owned()])), 3);
        let outcomes: Vec<_> = journal.transactions().iter().map(|transaction| transaction.outcome).collect();
        assert_eq!(outcomes, [Outcome::Committed, Outcome::RolledBack, Outcome::RolledBack]);
        assert_eq!(journal.committed().count(), 1);
        assert_eq!(journal.resolve(&HashSet::new()), 0, "what is decided stays decided");
    }
}
