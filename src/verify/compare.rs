//! The comparison: sightings put together by event, then by aggregate.

use std::io;

use super::entry::{
    Committed, Delivered, Duty, Event, Fields, Outcome, Sighting, TAIL, Turn, fingerprint, read_outcome, write,
    write_outcome,
};
use super::sort::{Room, Sorted, Sorter};
use super::verdict::{Examples, Finding, Kind, TableCounts, TopicCounts, Verdict};

/// How far clocks may be apart, and commits out of the order of their times, in milliseconds.
pub const CLOCKS: i64 = 600_000;

/// What is known of a topic.
#[derive(Debug, Clone, Default)]
pub struct TopicScope {
    /// Older records of a key may be gone.
    pub compacted: bool,
    /// For each partition that has lost its beginning, the timestamp of the first record that it still has of those that
    /// came in their turn; `i64::MAX` if it has none.
    pub horizons: Vec<Option<i64>>,
    /// Whether the timestamp of a record from the log is when its row was committed.
    pub has_commit_times: bool,
}

impl TopicScope {
    /// Whether a record of this time may have been in the topic and be gone. Tables that share a topic, each published at
    /// its own pace, are not in the order of their times.
    fn may_have_lost(&self, partition: Option<i32>, millis: Option<i64>) -> bool {
        let own = partition.and_then(|partition| usize::try_from(partition).ok());
        let of_own = own.map_or(Some(i64::MAX), |own| self.horizons.get(own).copied().flatten());
        // Under another number of partitions it was in another one. One without any record tells nothing of the others.
        let others = self.horizons.iter().flatten().filter(|horizon| **horizon != i64::MAX);
        let any = self.horizons.iter().any(Option::is_some);
        let latest = others.chain(of_own.as_ref()).max();
        any && latest.is_some_and(|latest| millis.is_none_or(|millis| millis <= latest.saturating_add(CLOCKS)))
    }
}

/// What the comparison was given, and what it was not.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// How many tables there are.
    pub tables: usize,
    /// The topics, by number.
    pub topics: Vec<TopicScope>,
    /// Since when every committed row is known, in milliseconds since the Unix epoch: `i64::MIN` if all are, `i64::MAX` if
    /// that cannot be told.
    pub known_since: i64,
    /// The tables, by number, of which the log could not be read to the end: a row that only the table has may be one of
    /// those that were not read, and not due.
    pub unread: Vec<usize>,
    /// How many findings of each kind to keep.
    pub examples: usize,
}

/// Takes in what was seen on both sides, in any order.
pub struct Comparison {
    room: Room,
    sightings: Sorter,
    string: Vec<u8>,
}

/// What a comparison comes to.
pub struct Judgement {
    /// What was found.
    pub verdict: Verdict,
    /// Missing rows.
    pub missing: Missing,
}

/// Missing rows by table: those that the log has in commit order, and those that only the table has.
pub struct Missing {
    log: Sorted,
    table: Sorted,
}

impl Missing {
    /// The next one that the log has: the number of its table, and its number among the table's rows.
    #[allow(clippy::should_implement_trait, reason = "it can fail")]
    pub fn next(&mut self) -> io::Result<Option<(u16, u64)>> {
        Ok(numbers(&mut self.log)?.map(|(table, order)| (table, u64::from_be_bytes(order))))
    }

    /// The next one that only the table has: the number of its table, and which event it is ([`Missing::is_of`]).
    pub fn next_beyond_log(&mut self) -> io::Result<Option<(u16, u128)>> {
        Ok(numbers(&mut self.table)?.map(|(table, event)| (table, u128::from_be_bytes(event))))
    }

    /// Which event a row is, as [`Missing::next_beyond_log`] tells.
    pub fn is_of(event: &Event<'_>) -> u128 {
        fingerprint(event)
    }
}

/// The next string of these: a table, and what is behind it.
fn numbers<const N: usize>(sorted: &mut Sorted) -> io::Result<Option<(u16, [u8; N])>> {
    let Some(string) = sorted.next()? else { return Ok(None) };
    let parts = string.split_first_chunk().and_then(|(table, rest)| Some((*table, rest.first_chunk().copied()?)));
    Ok(parts.map(|(table, rest)| (u16::from_be_bytes(table), rest)))
}

impl Comparison {
    /// Takes no more memory than the room has.
    pub fn new(room: Room) -> Self {
        Self { sightings: Sorter::new(room.part(3, 4)), room, string: Vec::new() }
    }

    /// How much was taken in.
    pub fn count(&self) -> u64 {
        self.sightings.count()
    }

    /// Takes in a committed row.
    pub fn committed(&mut self, row: &Committed<'_>) -> io::Result<()> {
        let Committed { event, table, order, duty, millis, partition } = *row;
        let sighting = match order {
            Some(order) => Sighting::Log { table, order, duty, millis, partition },
            None => Sighting::Table { table, duty, millis, partition },
        };
        write(&mut self.string, &event, sighting);
        self.sightings.push(&self.string)
    }

    /// Takes in a record.
    pub fn delivered(&mut self, record: &Delivered<'_>) -> io::Result<()> {
        let Delivered { event, partition, offset, millis, turn } = *record;
        write(&mut self.string, &event, Sighting::Topic { partition, offset, millis, turn });
        self.sightings.push(&self.string)
    }

    /// Compares. `progress` is told now and then how much of what was taken in is done.
    pub fn judge(self, scope: &Scope, mut progress: impl FnMut(u64)) -> io::Result<Judgement> {
        let Self { room, sightings, .. } = self;
        let merge = room.memory / 4;
        let mut judge = Judge::new(scope, &room);
        let mut sorted = sightings.sorted(merge)?;
        let (mut group, mut done) = (Group::default(), 0_u64);
        while let Some(string) = sorted.next()? {
            let (event, tail) = string.split_at(string.len().saturating_sub(TAIL));
            if *event != *group.event {
                judge.event(&group)?;
                group.begin(event);
            }
            group.add(Fields(tail).sighting()?);
            done += 1;
            if done.is_multiple_of(1 << 16) {
                progress(done);
            }
        }
        judge.event(&group)?;
        drop(sorted);
        let Judge { outcomes, mut verdict, .. } = judge;
        let (mut in_log, mut in_table) = (Sorter::new(room.part(1, 8)), Sorter::new(room.part(1, 8)));
        let (missing, beyond) = (&mut in_log, &mut in_table);
        Aggregates { scope, verdict: &mut verdict, missing, beyond, order: Order::default() }
            .judge(outcomes.sorted(merge)?)?;
        let missing = Missing { log: in_log.sorted(merge / 2)?, table: in_table.sorted(merge / 2)? };
        Ok(Judgement { verdict, missing })
    }
}

/// All that was seen of one event.
#[derive(Default)]
struct Group {
    event: Vec<u8>,
    row: Option<Sighting>,
    in_log: u64,
    in_table: u64,
    records: u64,
    again: u64,
    first: Option<Sighting>,
}

impl Group {
    fn begin(&mut self, event: &[u8]) {
        let mut kept = std::mem::take(&mut self.event);
        kept.clear();
        kept.extend_from_slice(event);
        *self = Self { event: kept, ..Self::default() };
    }

    /// Sightings come in their order: the log's, the table's, the topic's.
    fn add(&mut self, sighting: Sighting) {
        match sighting {
            Sighting::Log { .. } => self.in_log += 1,
            Sighting::Table { .. } => self.in_table += 1,
            Sighting::Topic { turn, .. } => {
                self.records += 1;
                self.again += u64::from(turn == Turn::Again);
                self.first.get_or_insert(sighting);
                return;
            }
        }
        self.row.get_or_insert(sighting);
    }
}

/// Judges events one by one.
struct Judge<'s> {
    scope: &'s Scope,
    verdict: Verdict,
    outcomes: Sorter,
    string: Vec<u8>,
}

impl<'s> Judge<'s> {
    fn new(scope: &'s Scope, room: &Room) -> Self {
        let verdict = Verdict {
            tables: vec![TableCounts::default(); scope.tables],
            topics: vec![TopicCounts::default(); scope.topics.len()],
            examples: Examples::new(scope.examples),
        };
        Self { scope, verdict, outcomes: Sorter::new(room.part(1, 2)), string: Vec::new() }
    }

    fn event(&mut self, group: &Group) -> io::Result<()> {
        if group.event.is_empty() {
            return Ok(());
        }
        let event = Fields(&group.event).event()?;
        self.verdict.topics[usize::from(event.topic)].records += group.records;
        let (table, order, duty, millis, partition) = match group.row {
            Some(Sighting::Log { table, order, duty, millis, partition }) => {
                (table, Some(order), duty, millis, partition)
            }
            Some(Sighting::Table { table, duty, millis, partition }) => (table, None, duty, millis, partition),
            Some(Sighting::Topic { .. }) | None => {
                self.unexpected(&event, group);
                return Ok(());
            }
        };
        let place = match group.first {
            Some(Sighting::Topic { partition, offset, .. }) => Some((partition, offset)),
            _ => None,
        };
        let asked = duty != Duty::Known;
        let came = matches!(group.first, Some(Sighting::Topic { turn: Turn::Log, .. }));
        let in_turn = order.is_some() && group.in_log == 1 && came;
        let outcome = Outcome { table, place, order, in_turn, asked, partition, millis };
        let missing = group.records == 0 && duty == Duty::Due;
        let is_unknown = missing && order.is_none() && self.scope.unread.contains(&usize::from(table));
        if asked {
            let counts = &mut self.verdict.tables[usize::from(table)];
            counts.committed += 1;
            counts.published_again += group.again;
            counts.delivered += u64::from(group.records > 0);
            counts.unknown += u64::from(is_unknown);
            // Rows that say the same of themselves cannot be told from one another.
            let rows = group.in_log.max(group.in_table);
            let duplicates = (group.records - group.again).saturating_sub(rows);
            if group.records == 0 && duty == Duty::InFlight {
                counts.in_flight += 1;
            }
            if duplicates > 0 {
                counts.duplicates += duplicates;
                self.verdict.examples.add(Kind::Duplicate, finding(&event, &outcome));
            }
        }
        // However it came: consumers have it, and a topic that is compacted has let go of what was before it.
        if missing && !is_unknown || group.records > 0 {
            write_outcome(&mut self.string, &event, &outcome);
            self.outcomes.push(&self.string)?;
        }
        Ok(())
    }

    fn unexpected(&mut self, event: &Event<'_>, group: &Group) {
        let Some(Sighting::Topic { partition, offset, millis, turn }) = group.first else { return };
        let since = self.scope.known_since;
        let topic = usize::from(event.topic);
        let counts = &mut self.verdict.topics[topic];
        // Rows that were read in the table may be older than their records say, and repairs read some there.
        let has_commit_time = self.scope.topics[topic].has_commit_times && turn == Turn::Log;
        if since == i64::MIN || has_commit_time && millis >= since {
            counts.unexpected += group.records;
            let place = Some((partition, offset));
            let (id, aggregate) = (event.id.to_vec(), event.key.to_vec());
            let finding = Finding { table: None, topic: event.topic, id, aggregate, place, millis: Some(millis) };
            self.verdict.examples.add(Kind::Unexpected, finding);
        } else {
            counts.unknown += group.records;
        }
    }
}

fn finding(event: &Event<'_>, outcome: &Outcome) -> Finding {
    Finding {
        table: Some(outcome.table),
        topic: event.topic,
        id: event.id.to_vec(),
        aggregate: event.key.to_vec(),
        place: outcome.place,
        millis: outcome.millis,
    }
}

/// What of one table's aggregate has gone by.
#[derive(Default)]
struct Order {
    topic: u16,
    key: Vec<u8>,
    table: u16,
    partition: Option<i32>,
    /// The newest that arrived so far: in its turn in the partition, and however in any.
    newest: Option<u64>,
    newest_of_all: Option<u64>,
    /// Whether anything arrived, also what has no order.
    any: bool,
}

impl Order {
    /// Goes on to an outcome.
    fn reach(&mut self, event: &Event<'_>, outcome: &Outcome) {
        if self.topic != event.topic || self.table != outcome.table || self.key != event.key {
            let mut key = std::mem::take(&mut self.key);
            key.clear();
            key.extend_from_slice(event.key);
            *self = Self { topic: event.topic, key, table: outcome.table, ..Self::default() };
        }
        let partition = outcome.place.map(|(partition, _)| partition);
        if self.partition != partition {
            (self.partition, self.newest) = (partition, None);
        }
    }
}

/// Judges aggregates one by one: of each, what arrived in the order of its arrival, then what did not.
struct Aggregates<'a> {
    scope: &'a Scope,
    verdict: &'a mut Verdict,
    missing: &'a mut Sorter,
    beyond: &'a mut Sorter,
    order: Order,
}

impl Aggregates<'_> {
    fn judge(&mut self, mut outcomes: Sorted) -> io::Result<()> {
        while let Some(string) = outcomes.next()? {
            let (event, outcome) = read_outcome(string)?;
            self.order.reach(&event, &outcome);
            match outcome.place {
                Some(_) => self.arrived(&event, &outcome),
                None => self.absent(&event, &outcome)?,
            }
        }
        Ok(())
    }

    fn arrived(&mut self, event: &Event<'_>, outcome: &Outcome) {
        self.order.any = true;
        self.order.newest_of_all = self.order.newest_of_all.max(outcome.order);
        if !outcome.in_turn {
            return;
        }
        if self.order.newest > outcome.order {
            if outcome.asked {
                self.verdict.tables[usize::from(outcome.table)].out_of_order += 1;
                self.verdict.examples.add(Kind::OutOfOrder, finding(event, outcome));
            }
            return;
        }
        self.order.newest = outcome.order;
    }

    fn absent(&mut self, event: &Event<'_>, outcome: &Outcome) -> io::Result<()> {
        let counts = &mut self.verdict.tables[usize::from(outcome.table)];
        let topic = &self.scope.topics[usize::from(event.topic)];
        // Of a row that only the table has, any other event may be a later one.
        let overtaken = outcome.order.map_or(self.order.any, |order| self.order.newest_of_all > Some(order));
        if topic.may_have_lost(outcome.partition, outcome.millis) {
            counts.expired += 1;
            return Ok(());
        }
        if topic.compacted && overtaken {
            counts.compacted += 1;
            return Ok(());
        }
        counts.missing += 1;
        counts.overtaken += u64::from(overtaken);
        self.verdict.examples.add(Kind::Missing, finding(event, outcome));
        let Some(order) = outcome.order else {
            counts.missing_beyond_log += 1;
            counts.perhaps_overtaken += u64::from(overtaken);
            let mut place = [0; 18];
            place[..2].copy_from_slice(&outcome.table.to_be_bytes());
            place[2..].copy_from_slice(&fingerprint(event).to_be_bytes());
            return self.beyond.push(&place);
        };
        let mut place = [0; 10];
        place[..2].copy_from_slice(&outcome.table.to_be_bytes());
        place[2..].copy_from_slice(&order.to_be_bytes());
        self.missing.push(&place)
    }
}

#[cfg(test)]
mod tests;
