//! The open binlog: events as the server sends them, one after another, checked and expanded.
//!
//! Promise: nothing that the server sends is passed over in silence. What an event means stands in [`reader`]; here is
//! what brings it: the connection, checksums, compressed transactions, and the deadline after which silence is an error.

mod payload;
mod reader;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::decode::{Checksum, DecodeError, Event, kind};
use super::source::classify;
use super::tables::{Older, Rows, Tables};
use super::wire::Wire;
use crate::position::{FilePoint, Position};
use crate::source::{Fault, LogEvent, LogPlace, LogStream, Parting, SourceError};
pub(super) use payload::Payload;
pub(super) use reader::{Reader, start_offset};

/// Tells when another server is to be read from, and why.
pub(super) struct Elsewhere {
    pub(super) told: oneshot::Receiver<String>,
    pub(super) _watching: AbortOnDropHandle<()>,
}

/// What a stream that ends for want of a definition leaves to the next one: which statements are older than the definitions
/// that are read then.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory(Arc<Mutex<Older>>);

impl Memory {
    fn keep(&self, older: Older) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = older;
    }

    pub(super) fn recall(&self) -> Older {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// An open binlog.
pub struct MysqlStream {
    wire: Wire,
    reader: Reader,
    checksum: Checksum,
    payload: Option<Payload>,
    silence_deadline: Duration,
    heard: Instant,
    parting: Parting,
    elsewhere: Option<Elsewhere>,
    memory: Memory,
}

impl MysqlStream {
    /// `checksum`: what the events have that the server makes up before the log's own description comes.
    pub(super) fn new(
        wire: Wire,
        checksum: Checksum,
        tables: Tables,
        position: Position,
        silence_deadline: Duration,
    ) -> Self {
        Self {
            wire,
            reader: Reader::new(tables, position),
            checksum,
            payload: None,
            silence_deadline,
            heard: Instant::now(),
            parting: Parting::Connection,
            elsewhere: None,
            memory: Memory::default(),
        }
    }

    /// Keeps the rows of each DELETE for [`MysqlStream::deleted`].
    pub(super) fn keep_deleted(&mut self) {
        self.reader.keep_deleted();
    }

    /// Definitions are those of the end up to which the log is read: none of it changes them.
    pub(super) fn keep_definitions(&mut self) {
        self.reader.keep_definitions();
    }

    /// The rows of the DELETE that was given last, as they were.
    pub(super) fn deleted(&mut self) -> Option<Result<Rows, Fault>> {
        self.reader.deleted()
    }

    /// Whether everything that stands in the log before this place has been given.
    pub(super) fn has_passed(&self, place: &FilePoint) -> bool {
        self.payload.is_none() && self.reader.has_passed(place)
    }

    /// Ends when another server is to be read from.
    pub(super) fn leaving(self, elsewhere: Option<Elsewhere>) -> Self {
        Self { elsewhere, ..self }
    }

    /// Leaves to the next stream what it has to know.
    pub(super) fn remembering(self, memory: Memory) -> Self {
        Self { memory, ..self }
    }

    /// Takes in the next event that is here; `false` if none is.
    fn step(&mut self) -> Result<bool, SourceError> {
        let Self { wire, reader, checksum, payload, .. } = self;
        if let Some(open) = payload {
            // Events within a payload have no checksum of their own: the payload's covers them.
            let event =
                open.next_event().and_then(|bytes| bytes.map(|bytes| Event::parse(bytes, Checksum::None)).transpose());
            match event.map_err(|error| damaged(reader, &error))? {
                Some(event) => reader.take(&event).map_err(SourceError::Definite)?,
                None => *payload = None,
            }
            return Ok(true);
        }
        let Some(packet) = wire.packet() else { return Ok(false) };
        let bytes = wire.event(&packet).map_err(|error| classify(&error, &reader.at()))?;
        let event = Event::parse(bytes, *checksum).map_err(|error| damaged(reader, &error))?;
        if event.header.kind == kind::FORMAT_DESCRIPTION {
            *checksum = Checksum::announced_by(bytes).map_err(|error| damaged(reader, &error))?;
        }
        if !reader.advance(&event).map_err(SourceError::Definite)? {
            return Ok(true);
        }
        if event.header.kind == kind::TRANSACTION_PAYLOAD {
            *payload = Some(Payload::open(event.body).map_err(|error| damaged(reader, &error))?);
        } else {
            reader.take(&event).map_err(SourceError::Definite)?;
        }
        // What was taken in is a copy; a row of a GiB is not to be held twice while it is decoded.
        wire.release();
        Ok(true)
    }
}

/// Waits until somebody says that another server is to be read from.
async fn told(elsewhere: Option<&mut Elsewhere>) -> String {
    match elsewhere {
        Some(Elsewhere { told, .. }) => match told.await {
            Ok(reason) => reason,
            Err(_) => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

fn damaged(reader: &Reader, error: &DecodeError) -> SourceError {
    SourceError::Definite(reader.damaged(error))
}

impl LogStream for MysqlStream {
    type Rows = Rows;

    async fn next(&mut self) -> Result<LogEvent<Rows>, SourceError> {
        loop {
            if let Some(event) = self.reader.pop() {
                return Ok(event);
            }
            // Only now, for what has been said is to be covered when the log is opened again.
            if self.reader.wants_definitions() {
                self.parting = Parting::Definition;
                self.memory.keep(self.reader.older_than_next());
                let reason = "a subscribed table was defined anew, and the log does not say how";
                return Err(SourceError::Transient(reason.to_owned()));
            }
            if self.step()? {
                continue;
            }
            let Self { wire, elsewhere, .. } = self;
            tokio::select! {
                biased;
                reason = told(elsewhere.as_mut()) => {
                    self.parting = Parting::Server;
                    return Err(SourceError::Transient(reason));
                }
                received = wire.receive() => match received {
                    Ok(()) => self.heard = Instant::now(),
                    Err(error) => return Err(classify(&error, &self.reader.at())),
                },
                () = sleep_until(self.heard + self.silence_deadline) => {
                    self.parting = Parting::Silence;
                    let silence = humantime::format_duration(self.silence_deadline);
                    return Err(SourceError::Transient(format!("nothing heard from the server for {silence}")));
                }
            }
        }
    }

    fn position(&self) -> &Position {
        self.reader.position()
    }

    fn heard(&self) -> Option<Instant> {
        Some(self.heard)
    }

    fn place(&self) -> Option<LogPlace> {
        self.reader.place()
    }

    fn parting(&self) -> Parting {
        self.parting
    }
}
