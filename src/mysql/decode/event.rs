//! Events as they stand in the log: a header of 19 bytes, a body, and possibly a checksum.
//!
//! The layout is described at `Log_event_header` and `Log_event_footer` in the server's `libs/mysql/binlog/event`.

use super::cursor::Cursor;
use super::error::DecodeError;

/// Type codes: `mysql::binlog::event::Log_event_type`, and `MariaDB`'s `Log_event_type` from 160 on.
#[allow(missing_docs)]
pub mod kind {
    pub const START_V3: u8 = 1;
    pub const QUERY: u8 = 2;
    pub const STOP: u8 = 3;
    pub const ROTATE: u8 = 4;
    pub const INTVAR: u8 = 5;
    pub const APPEND_BLOCK: u8 = 9;
    pub const DELETE_FILE: u8 = 11;
    pub const RAND: u8 = 13;
    pub const USER_VAR: u8 = 14;
    pub const FORMAT_DESCRIPTION: u8 = 15;
    pub const XID: u8 = 16;
    pub const BEGIN_LOAD_QUERY: u8 = 17;
    pub const EXECUTE_LOAD_QUERY: u8 = 18;
    pub const TABLE_MAP: u8 = 19;
    pub const WRITE_V1: u8 = 23;
    pub const UPDATE_V1: u8 = 24;
    pub const DELETE_V1: u8 = 25;
    pub const INCIDENT: u8 = 26;
    pub const HEARTBEAT: u8 = 27;
    pub const IGNORABLE: u8 = 28;
    pub const ROWS_QUERY: u8 = 29;
    pub const WRITE_V2: u8 = 30;
    pub const UPDATE_V2: u8 = 31;
    pub const DELETE_V2: u8 = 32;
    pub const GTID: u8 = 33;
    pub const ANONYMOUS_GTID: u8 = 34;
    pub const PREVIOUS_GTIDS: u8 = 35;
    pub const TRANSACTION_CONTEXT: u8 = 36;
    pub const VIEW_CHANGE: u8 = 37;
    pub const XA_PREPARE: u8 = 38;
    pub const PARTIAL_UPDATE: u8 = 39;
    pub const TRANSACTION_PAYLOAD: u8 = 40;
    pub const HEARTBEAT_V2: u8 = 41;
    pub const GTID_TAGGED: u8 = 42;
    pub const MARIADB_ANNOTATE_ROWS: u8 = 160;
    pub const MARIADB_BINLOG_CHECKPOINT: u8 = 161;
    pub const MARIADB_GTID: u8 = 162;
    pub const MARIADB_GTID_LIST: u8 = 163;
    pub const MARIADB_START_ENCRYPTION: u8 = 164;
    pub const MARIADB_QUERY_COMPRESSED: u8 = 165;
    pub const MARIADB_WRITE_COMPRESSED_V1: u8 = 166;
    pub const MARIADB_UPDATE_COMPRESSED_V1: u8 = 167;
    pub const MARIADB_DELETE_COMPRESSED_V1: u8 = 168;
    pub const MARIADB_WRITE_COMPRESSED: u8 = 169;
    pub const MARIADB_UPDATE_COMPRESSED: u8 = 170;
    pub const MARIADB_DELETE_COMPRESSED: u8 = 171;
}

/// What every event begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// When the statement began, in seconds since the Unix epoch; 0 on events that the server made up.
    pub timestamp: u32,
    /// The type code.
    pub kind: u8,
    /// The server that wrote the event first.
    pub server_id: u32,
    /// The whole event in bytes, with header and checksum.
    pub size: u32,
    /// The lower 32 bits of where the next event begins; 0 on events that the server made up and within a payload.
    pub log_pos: u32,
    /// `LOG_EVENT_..._F`.
    pub flags: u16,
}

impl Header {
    /// Size in bytes.
    pub const LEN: usize = 19;

    /// Set on events that the server made up for this connection (`LOG_EVENT_ARTIFICIAL_F`).
    const ARTIFICIAL: u16 = 0x20;

    /// Set on events that a replica may pass over if it does not know them (`LOG_EVENT_IGNORABLE_F`).
    const IGNORABLE: u16 = 0x80;

    /// Whether the server made the event up for this connection, so that it stands in no file.
    pub fn is_artificial(&self) -> bool {
        self.flags & Self::ARTIFICIAL != 0
    }

    /// Whether the server says that whoever does not know the event misses nothing.
    pub fn is_ignorable(&self) -> bool {
        self.flags & Self::IGNORABLE != 0
    }
}

/// How events are guarded against damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checksum {
    /// Not at all (`binlog_checksum=NONE`).
    #[default]
    None,
    /// CRC-32 in the last four bytes.
    Crc32,
}

impl Checksum {
    const LEN: usize = 4;

    /// What a `FORMAT_DESCRIPTION_EVENT` says about the events behind it. `bytes`: the whole event. Its last five bytes
    /// are the algorithm and its own checksum, which it has in any case.
    pub fn announced_by(bytes: &[u8]) -> Result<Self, DecodeError> {
        match bytes.len().checked_sub(Self::LEN + 1).and_then(|at| bytes.get(at)) {
            Some(0 | 255) => Ok(Self::None),
            Some(1) => Ok(Self::Crc32),
            Some(&code) => Err(DecodeError::UnknownChecksum { code }),
            None => Err(DecodeError::Truncated { part: "an event", offset: 0, needed: 5, left: bytes.len() }),
        }
    }
}

/// One event, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// Its header.
    pub header: Header,
    /// What follows the header, without the checksum.
    pub body: &'a [u8],
}

impl<'a> Event<'a> {
    /// Takes one whole event apart, and compares its checksum.
    pub fn parse(bytes: &'a [u8], checksum: Checksum) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(bytes, "an event");
        let header = Header {
            timestamp: cursor.u32()?,
            kind: cursor.u8()?,
            server_id: cursor.u32()?,
            size: cursor.u32()?,
            log_pos: cursor.u32()?,
            flags: cursor.u16()?,
        };
        if u64::from(header.size) != bytes.len() as u64 {
            return Err(DecodeError::BadEventSize { size: header.size, there: bytes.len() });
        }
        let checksum = if header.kind == kind::FORMAT_DESCRIPTION { Checksum::announced_by(bytes)? } else { checksum };
        let mut body = cursor.rest();
        if checksum == Checksum::Crc32 {
            let cut = body.len().checked_sub(Checksum::LEN).and_then(|at| body.split_at_checked(at));
            let short = DecodeError::Truncated { part: "an event", offset: Header::LEN, needed: 4, left: body.len() };
            let (rest, written) = cut.ok_or(short)?;
            let written = Cursor::new(written, "a checksum").u32()?;
            let (guarded, _) = bytes.split_at(bytes.len() - Checksum::LEN);
            let found = crc32fast::hash(guarded);
            if written != found {
                return Err(DecodeError::BadChecksum { written, found });
            }
            body = rest;
        }
        Ok(Self { header, body })
    }
}

/// How many bytes the event takes whose first bytes these are; an error if that is less than a header.
pub fn event_size(bytes: &[u8]) -> Result<u32, DecodeError> {
    let mut cursor = Cursor::new(bytes, "an event");
    cursor.take(9)?;
    let size = cursor.u32()?;
    if (size as usize) < Header::LEN {
        return Err(DecodeError::BadEventSize { size, there: bytes.len() });
    }
    Ok(size)
}
