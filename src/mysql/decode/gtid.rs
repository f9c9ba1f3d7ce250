//! Which transaction begins: `GTID_LOG_EVENT`, `GTID_TAGGED_LOG_EVENT`, and `MariaDB`'s `GTID_EVENT`.

use super::cursor::Cursor;
use super::error::DecodeError;
use super::event::kind;

/// The identity of a transaction of `MySQL`, and when it was committed on the server that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GtidEvent<'a> {
    /// The uuid of the server that committed it first.
    pub server: [u8; 16],
    /// The tag, if it has one.
    pub tag: Option<&'a str>,
    /// Its number there; 0 on anonymous transactions.
    pub number: u64,
    /// Commit time in microseconds since the Unix epoch; `None` in logs of `MySQL` 5.7 and before.
    pub commit_micros: Option<u64>,
}

/// What the field numbers of a tagged event stand for (`Gtid_event::define_fields` in
/// `libs/mysql/binlog/event/control_events.h`).
mod field {
    pub(super) const FLAGS: u64 = 0;
    pub(super) const SERVER: u64 = 1;
    pub(super) const NUMBER: u64 = 2;
    pub(super) const TAG: u64 = 3;
    pub(super) const LAST_COMMITTED: u64 = 4;
    pub(super) const SEQUENCE: u64 = 5;
    pub(super) const IMMEDIATE_COMMIT: u64 = 6;
}

impl<'a> GtidEvent<'a> {
    /// Parses the body of a GTID event, tagged, untagged or anonymous.
    pub fn parse(type_code: u8, body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(body, "a GTID event");
        if type_code == kind::GTID_TAGGED { Self::tagged(&mut cursor) } else { Self::untagged(&mut cursor) }
    }

    fn untagged(cursor: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        /// What introduces the logical clock, with the commit time behind it.
        const LOGICAL_CLOCK: u8 = 2;
        /// Set when the time of the first commit follows, which is another one.
        const HAS_ORIGINAL: u64 = 1 << 55;
        let _flags = cursor.u8()?;
        let mut event = Self { server: cursor.array()?, tag: None, number: cursor.u64()?, commit_micros: None };
        if cursor.rest().first() == Some(&LOGICAL_CLOCK) {
            cursor.take(1 + 8 + 8)?;
            if let Ok(time) = cursor.array::<7>() {
                let mut wide = [0; 8];
                wide[..7].copy_from_slice(&time);
                event.commit_micros = Some(u64::from_le_bytes(wide) & !HAS_ORIGINAL);
            }
        }
        Ok(event)
    }

    /// `libs/mysql/serialization`: version, size, the last field that must be understood, then fields by number.
    fn tagged(cursor: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        let mut event = Self { server: [0; 16], tag: None, number: 0, commit_micros: None };
        varint(cursor)?;
        varint(cursor)?;
        varint(cursor)?;
        let mut next = field::FLAGS;
        // Fields come in the order of their numbers; what follows the commit time is of no use here.
        while !cursor.is_empty() && next <= field::IMMEDIATE_COMMIT {
            let number = varint(cursor)?;
            if number < next {
                return Err(DecodeError::BadGtid { problem: "its fields are out of order" });
            }
            match number {
                field::SERVER => {
                    for byte in &mut event.server {
                        let problem = "a byte of its server's uuid is none";
                        *byte = varint(cursor)?.try_into().map_err(|_| DecodeError::BadGtid { problem })?;
                    }
                }
                // Zigzag; numbers are never negative.
                field::NUMBER => event.number = varint(cursor)? >> 1,
                field::TAG => {
                    let length = varint(cursor)?;
                    let tag = std::str::from_utf8(cursor.take_u64(length)?);
                    let tag = tag.map_err(|_| DecodeError::BadGtid { problem: "its tag is not UTF-8" })?;
                    event.tag = Some(tag).filter(|tag| !tag.is_empty());
                }
                field::IMMEDIATE_COMMIT => event.commit_micros = Some(varint(cursor)?),
                field::FLAGS | field::LAST_COMMITTED | field::SEQUENCE => {
                    varint(cursor)?;
                }
                _ => break,
            }
            next = number + 1;
        }
        if event.number == 0 || event.server == [0; 16] {
            return Err(DecodeError::BadGtid { problem: "it has no server or no number" });
        }
        Ok(event)
    }
}

/// An integer whose first byte says by its trailing ones how many bytes follow
/// (`libs/mysql/serialization/variable_length_integers.h`).
fn varint(cursor: &mut Cursor<'_>) -> Result<u64, DecodeError> {
    let first = cursor.u8()?;
    let more = first.trailing_ones() as usize;
    let mut wide = [0; 16];
    let (head, tail) = wide.split_at_mut(1);
    head.copy_from_slice(&[first]);
    if let Some(tail) = tail.get_mut(..more) {
        tail.copy_from_slice(cursor.take(more)?);
    }
    // Up to 9 bytes, of which the lowest `more + 1` bits are the count; all eight ones of a 9 byte integer.
    let bits = if more == 8 { 8 } else { more + 1 };
    u64::try_from(u128::from_le_bytes(wide) >> bits)
        .map_err(|_| DecodeError::BadGtid { problem: "a number is too large" })
}

/// The identity of a transaction of `MariaDB`; its server is the one in the event's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MariaDbGtid {
    /// Replication domain.
    pub domain: u32,
    /// Sequence number.
    pub sequence: u64,
    /// Whether the group has no COMMIT of its own (`FL_STANDALONE`).
    pub standalone: bool,
    /// Whether the group ends in an XA PREPARE (`FL_PREPARED_XA`).
    pub xa: bool,
}

impl MariaDbGtid {
    /// Parses the body of `MariaDB`'s `GTID_EVENT`.
    pub fn parse(body: &[u8]) -> Result<Self, DecodeError> {
        const STANDALONE: u8 = 1;
        const PREPARED_XA: u8 = 64;
        let mut cursor = Cursor::new(body, "a GTID event");
        let (sequence, domain, flags) = (cursor.u64()?, cursor.u32()?, cursor.u8()?);
        Ok(Self { domain, sequence, standalone: flags & STANDALONE != 0, xa: flags & PREPARED_XA != 0 })
    }
}
