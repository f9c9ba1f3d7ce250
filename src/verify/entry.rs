//! What was seen of events, as byte strings whose order puts together what belongs together.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;

/// What tells one event from all others: the same id under the same key in the same topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// Number of the topic.
    pub topic: u16,
    /// The record's key: the aggregate.
    pub key: &'a [u8],
    /// The event's id.
    pub id: &'a [u8],
}

/// What is expected of a committed row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// Its record must be in the topic: the durable position covers it.
    Due,
    /// Its record may be in the topic.
    InFlight,
    /// It is not asked after; it is only known, so that its record is expected.
    Known,
}

/// A committed row.
#[derive(Debug, Clone, Copy)]
pub struct Committed<'a> {
    /// The event.
    pub event: Event<'a>,
    /// Number of the table.
    pub table: u16,
    /// Its number among the table's rows in commit order; `None` where it was found in the table itself, whose rows have
    /// no order.
    pub order: Option<u64>,
    /// What is expected.
    pub duty: Duty,
    /// The record's timestamp in milliseconds since the Unix epoch, if it can be told.
    pub millis: Option<i64>,
    /// The partition that its record goes to, if it can be told.
    pub partition: Option<i32>,
}

/// A record that is in a topic.
#[derive(Debug, Clone, Copy)]
pub struct Delivered<'a> {
    /// The event.
    pub event: Event<'a>,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Its timestamp in milliseconds since the Unix epoch.
    pub millis: i64,
    /// How it says of itself that it came.
    pub turn: Turn,
}

/// How a record came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// From the log, in its turn.
    Log,
    /// From the table, whose key gives the order.
    Table,
    /// Published again on request, out of its turn.
    Again,
}

/// No partition, or none that is known.
const NO_PARTITION: u32 = u32::MAX;

/// A time that is not known.
const NO_TIME: i64 = i64::MIN;

/// Where an event was seen. They order by source, then by place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sighting {
    Log { table: u16, order: u64, duty: Duty, millis: Option<i64>, partition: Option<i32> },
    Table { table: u16, duty: Duty, millis: Option<i64>, partition: Option<i32> },
    Topic { partition: i32, offset: i64, millis: i64, turn: Turn },
}

/// Bytes behind the event in a sighting's string.
pub(super) const TAIL: usize = 1 + 4 + 8 + 8 + 1 + 2;

fn partition_bytes(partition: Option<i32>) -> [u8; 4] {
    partition.and_then(|partition| u32::try_from(partition).ok()).unwrap_or(NO_PARTITION).to_be_bytes()
}

fn put(out: &mut Vec<u8>, text: &[u8]) {
    // A record is never that large.
    out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(text);
}

/// The string of a sighting.
pub(super) fn write(out: &mut Vec<u8>, event: &Event<'_>, sighting: Sighting) {
    out.clear();
    out.extend_from_slice(&event.topic.to_be_bytes());
    put(out, event.key);
    put(out, event.id);
    let (source, partition, order, millis, flag, table) = match sighting {
        Sighting::Log { table, order, duty, millis, partition } => (0, partition, order, millis, duty as u8, table),
        Sighting::Table { table, duty, millis, partition } => (1, partition, 0, millis, duty as u8, table),
        Sighting::Topic { partition, offset, millis, turn } => {
            (2, Some(partition), offset.cast_unsigned(), Some(millis), turn as u8, 0)
        }
    };
    out.push(source);
    out.extend_from_slice(&partition_bytes(partition));
    out.extend_from_slice(&order.to_be_bytes());
    out.extend_from_slice(&millis.unwrap_or(NO_TIME).to_be_bytes());
    out.push(flag);
    out.extend_from_slice(&table.to_be_bytes());
}

/// Reads numbers and texts off the front of a string that was written here.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk().ok_or_else(damaged)?;
        self.0 = rest;
        Ok(*head)
    }

    fn text(&mut self) -> io::Result<&'a [u8]> {
        let length = u32::from_be_bytes(self.bytes()?) as usize;
        let (text, rest) = self.0.split_at_checked(length).ok_or_else(damaged)?;
        self.0 = rest;
        Ok(text)
    }

    pub(super) fn event(&mut self) -> io::Result<Event<'a>> {
        Ok(Event { topic: u16::from_be_bytes(self.bytes()?), key: self.text()?, id: self.text()? })
    }

    fn partition(&mut self) -> io::Result<Option<i32>> {
        Ok(i32::try_from(u32::from_be_bytes(self.bytes()?)).ok())
    }

    fn millis(&mut self) -> io::Result<Option<i64>> {
        Ok(Some(i64::from_be_bytes(self.bytes()?)).filter(|millis| *millis != NO_TIME))
    }

    pub(super) fn sighting(&mut self) -> io::Result<Sighting> {
        let [source] = self.bytes()?;
        let partition = self.partition()?;
        let order = u64::from_be_bytes(self.bytes()?);
        let millis = self.millis()?;
        let [flag] = self.bytes()?;
        let table = u16::from_be_bytes(self.bytes()?);
        let duty = [Duty::Due, Duty::InFlight, Duty::Known].into_iter().find(|duty| *duty as u8 == flag);
        let duty = duty.unwrap_or(Duty::Known);
        Ok(match source {
            0 => Sighting::Log { table, order, duty, millis, partition },
            1 => Sighting::Table { table, duty, millis, partition },
            _ => Sighting::Topic {
                partition: partition.unwrap_or_default(),
                offset: order.cast_signed(),
                millis: millis.unwrap_or_default(),
                turn: [Turn::Log, Turn::Table].into_iter().find(|turn| *turn as u8 == flag).unwrap_or(Turn::Again),
            },
        })
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a temporary file was changed")
}

/// Tells an event from others in few bytes: among a thousand million, two are alike once in 10²⁰ times. The same within a process.
pub(super) fn fingerprint(event: &Event<'_>) -> u128 {
    let hash = |seed: u8| {
        let mut hasher = DefaultHasher::new();
        (seed, event.topic, event.key, event.id).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    hash(0) << 64 | hash(1)
}

/// What came of a committed event, for the judgement of its aggregate: what arrived comes first, by its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) table: u16,
    /// Where it arrived first; `None` if it did not.
    pub(super) place: Option<(i32, i64)>,
    pub(super) order: Option<u64>,
    /// Whether its place may be compared with those of others; otherwise it only tells that the event is there.
    pub(super) in_turn: bool,
    /// Whether it is asked after.
    pub(super) asked: bool,
    /// Where it should have arrived.
    pub(super) partition: Option<i32>,
    pub(super) millis: Option<i64>,
}

/// The string of an outcome.
pub(super) fn write_outcome(out: &mut Vec<u8>, event: &Event<'_>, outcome: &Outcome) {
    out.clear();
    out.extend_from_slice(&event.topic.to_be_bytes());
    put(out, event.key);
    out.extend_from_slice(&outcome.table.to_be_bytes());
    let (partition, offset) = match outcome.place {
        Some((partition, offset)) => (partition_bytes(Some(partition)), offset.cast_unsigned()),
        None => (partition_bytes(None), u64::MAX),
    };
    out.extend_from_slice(&partition);
    out.extend_from_slice(&offset.to_be_bytes());
    out.extend_from_slice(&outcome.order.unwrap_or(u64::MAX).to_be_bytes());
    out.push(u8::from(outcome.asked) | u8::from(outcome.in_turn) << 1);
    out.extend_from_slice(&partition_bytes(outcome.partition));
    out.extend_from_slice(&outcome.millis.unwrap_or(NO_TIME).to_be_bytes());
    out.extend_from_slice(event.id);
}

/// Reads a string of [`write_outcome`].
pub(super) fn read_outcome(string: &[u8]) -> io::Result<(Event<'_>, Outcome)> {
    let mut fields = Fields(string);
    let topic = u16::from_be_bytes(fields.bytes()?);
    let key = fields.text()?;
    let table = u16::from_be_bytes(fields.bytes()?);
    let arrived = fields.partition()?;
    let offset = u64::from_be_bytes(fields.bytes()?).cast_signed();
    let order = Some(u64::from_be_bytes(fields.bytes()?)).filter(|order| *order != u64::MAX);
    let [flags] = fields.bytes()?;
    let partition = fields.partition()?;
    let millis = fields.millis()?;
    let place = arrived.map(|partition| (partition, offset));
    let (asked, in_turn) = (flags & 1 != 0, flags & 2 != 0);
    let outcome = Outcome { table, place, order, in_turn, asked, partition, millis };
    Ok((Event { topic, key, id: fields.0 }, outcome))
}
