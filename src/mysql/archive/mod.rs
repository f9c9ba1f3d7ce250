//! Binlog files, read without a server.
//!
//! Promise: the same decoder reads them that reads the log of a server, in memory that the largest event bounds. What
//! cannot be read is an [`ArchiveError`] or a [`LogEvent::Fault`], by name and with its place, never silence.

mod file;
mod line;

use std::io::{self, Read};

use super::decode::{Checksum, DecodeError, Event, kind};
use super::stream::{Payload, Reader};
use super::tables::{Rows, Selection};
use crate::source::{Fault, LogEvent, Slot};
use crate::table::{TableName, TablePattern};
use file::EventFile;

/// Why no more can be read of a file.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file cannot be read.
    #[error("{0}")]
    Read(#[from] io::Error),
    /// It is damaged, encrypted, or no binlog.
    #[error("{0}")]
    Fault(Fault),
}

/// Reads files one after another, in the order in which the server wrote them.
pub struct Archive {
    reader: Reader,
    file: Option<EventFile>,
    payload: Option<Payload>,
    /// Where the event begins that was read last, in bytes.
    at: u64,
}

impl Archive {
    /// Events of the tables that a pattern selects. `names`: those of the columns of tables whose columns have none in
    /// the log (`binlog_row_metadata` is not FULL); without them they are `c1`, `c2` and so on.
    pub fn new(patterns: Vec<TablePattern>, names: Vec<String>) -> Self {
        Self { reader: Reader::of_archive(Selection { patterns, names }), file: None, payload: None, at: 0 }
    }

    /// Begins a file, `name` in all that is said of it.
    pub fn open(&mut self, name: &str, input: Box<dyn Read>) -> Result<(), ArchiveError> {
        (self.file, self.payload, self.at) = (None, None, 0);
        let (file, dialect) = EventFile::open(input).map_err(|error| error.at(&format!("{name}:0")))?;
        self.reader.enter(name, dialect);
        self.file = Some(file);
        Ok(())
    }

    /// The next thing that the file says, `None` at its end. After an error there is no more of this file.
    #[allow(clippy::should_implement_trait, reason = "an iterator would end with the first file")]
    pub fn next(&mut self) -> Result<Option<LogEvent<Rows>>, ArchiveError> {
        loop {
            if let Some(event) = self.reader.pop() {
                return Ok(Some(event));
            }
            match self.step() {
                Ok(true) => {}
                Ok(false) if self.reader.is_within() && self.file.take().is_some() => {
                    return Err(cut_short().at(&self.reader.at()));
                }
                Ok(false) => return Ok(None),
                Err(error) => {
                    self.file = None;
                    return Err(error);
                }
            }
        }
    }

    /// Where the event begins that was read last, in bytes from the beginning of the file.
    pub fn offset(&self) -> u64 {
        self.at
    }

    /// The table of a slot.
    pub fn table(&self, slot: Slot) -> &TableName {
        self.reader.table(slot)
    }

    /// Takes in one event; `false` at the end of the file.
    fn step(&mut self) -> Result<bool, ArchiveError> {
        let Self { reader, file: Some(file), payload, at } = self else { return Ok(false) };
        let damaged = |reader: &Reader, error: &DecodeError| ArchiveError::Fault(reader.damaged(error));
        if let Some(open) = payload {
            // Events within a payload have no checksum of their own: the payload's covers them.
            let event =
                open.next_event().and_then(|bytes| bytes.map(|bytes| Event::parse(bytes, Checksum::None)).transpose());
            match event.map_err(|error| damaged(reader, &error))? {
                Some(event) => reader.take(&event).map_err(ArchiveError::Fault)?,
                None => *payload = None,
            }
            return Ok(true);
        }
        *at = file.offset();
        let Some(event) = file.next_event().map_err(|error| error.at(&reader.at()))? else { return Ok(false) };
        if event.header.kind == kind::MARIADB_START_ENCRYPTION {
            return Err(encrypted().at(&reader.at()));
        }
        reader.advance(&event).map_err(ArchiveError::Fault)?;
        if event.header.kind == kind::TRANSACTION_PAYLOAD {
            *payload = Some(Payload::open(event.body).map_err(|error| damaged(reader, &error))?);
        } else {
            reader.take(&event).map_err(ArchiveError::Fault)?;
        }
        Ok(true)
    }
}

/// What is wrong with a file, before it is said where.
enum Unreadable {
    Read(io::Error),
    Fault(&'static str, String),
}

impl Unreadable {
    fn at(self, at: &str) -> ArchiveError {
        match self {
            Self::Read(error) => ArchiveError::Read(error),
            Self::Fault(name, detail) => ArchiveError::Fault(Fault { name, detail, at: at.to_owned() }),
        }
    }
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

impl From<DecodeError> for Unreadable {
    fn from(error: DecodeError) -> Self {
        Self::Fault("damaged_event", error.to_string())
    }
}

fn encrypted() -> Unreadable {
    let detail = "the file is encrypted (MySQL: binlog_encryption, MariaDB: encrypt_binlog), and only its server has the \
                  key; fetch it decrypted with mysqlbinlog --read-from-remote-server --raw";
    Unreadable::Fault("encrypted_binlog", detail.to_owned())
}

fn cut_short() -> Unreadable {
    let detail = "the file ends within a transaction, whose rows were left out";
    Unreadable::Fault("transaction_cut_short", detail.to_owned())
}
