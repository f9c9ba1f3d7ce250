//! The open binlog: from events to what they mean for the relay.
//!
//! Promise: an event that this module does not know cannot hide a row of a subscribed table: what may carry rows and is
//! not understood is a fault, by name.

use std::collections::VecDeque;
use std::time::Duration;

use futures::StreamExt;
use mysql_async::BinlogStream;
use mysql_async::binlog::BinlogChecksumAlg;
use mysql_async::binlog::events::{Event, GtidEvent, QueryEvent};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::source::classify;
use super::statement::{Statement, mentions, of_load};
use super::tables::{Rows, Tables};
use crate::position::{DomainGtid, FilePoint, Gtid, Origin, Point, Position, TxnId};
use crate::source::{Fault, ForeignDml, LogEvent, LogStream, Slot, SourceError};

/// Type codes: `mysql::binlog::event::Log_event_type`, and MariaDB's `Log_event_type` from 160 on.
mod kind {
    pub(super) const QUERY: u8 = 2;
    pub(super) const ROTATE: u8 = 4;
    pub(super) const FORMAT_DESCRIPTION: u8 = 15;
    pub(super) const XID: u8 = 16;
    pub(super) const EXECUTE_LOAD_QUERY: u8 = 18;
    pub(super) const TABLE_MAP: u8 = 19;
    pub(super) const WRITE_V1: u8 = 23;
    pub(super) const UPDATE_V1: u8 = 24;
    pub(super) const DELETE_V1: u8 = 25;
    pub(super) const INCIDENT: u8 = 26;
    pub(super) const HEARTBEAT: u8 = 27;
    pub(super) const WRITE_V2: u8 = 30;
    pub(super) const UPDATE_V2: u8 = 31;
    pub(super) const DELETE_V2: u8 = 32;
    pub(super) const GTID: u8 = 33;
    pub(super) const ANONYMOUS_GTID: u8 = 34;
    pub(super) const XA_PREPARE: u8 = 38;
    pub(super) const PARTIAL_UPDATE: u8 = 39;
    pub(super) const TRANSACTION_PAYLOAD: u8 = 40;
    pub(super) const HEARTBEAT_V2: u8 = 41;
    pub(super) const GTID_TAGGED: u8 = 42;
    pub(super) const MARIADB_GTID: u8 = 162;
    pub(super) const MARIADB_QUERY_COMPRESSED: u8 = 165;
    pub(super) const MARIADB_ROWS_COMPRESSED: std::ops::RangeInclusive<u8> = 166..=171;
}

/// Set on events that the server made up for this connection (`LOG_EVENT_ARTIFICIAL_F`).
const ARTIFICIAL: u16 = 0x20;

/// The transaction being read.
struct Open {
    txn: TxnId,
    /// Between BEGIN and its end; a group that is one statement has no BEGIN.
    begun: bool,
    xa: bool,
    touched: Vec<Slot>,
}

/// An open binlog.
pub struct MysqlStream {
    stream: BinlogStream,
    tables: Tables,
    position: Position,
    silence_deadline: Duration,
    heard: Instant,
    file: String,
    offset: u64,
    open: Option<Open>,
    pending: VecDeque<LogEvent<Rows>>,
    /// Bytes of a compressed transaction that are yet to come out of the client library.
    inner_left: u64,
}

impl MysqlStream {
    pub(super) fn new(stream: BinlogStream, tables: Tables, position: Position, silence_deadline: Duration) -> Self {
        let (file, offset) = match &position.point {
            Point::File(FilePoint { file, offset }) => (file.clone(), *offset),
            _ => (String::new(), 4),
        };
        Self {
            stream,
            tables,
            position,
            silence_deadline,
            heard: Instant::now(),
            file,
            offset,
            open: None,
            pending: VecDeque::new(),
            inner_left: 0,
        }
    }

    fn at(&self) -> String {
        match &self.open {
            Some(open) => format!("{} ({}:{})", open.txn, self.file, self.offset),
            None => format!("{}:{}", self.file, self.offset),
        }
    }

    fn fault(&self, name: &'static str, detail: impl Into<String>) -> Fault {
        Fault { name, detail: detail.into(), at: self.at() }
    }

    fn damaged(&self, error: &dyn std::fmt::Display) -> SourceError {
        SourceError::Definite(self.fault("damaged_event", error.to_string()))
    }

    /// What an event means; `None` when it means nothing for the relay.
    fn meaning(&mut self, event: &Event) -> Result<Option<LogEvent<Rows>>, SourceError> {
        let header = event.header();
        let code = header.event_type_raw();
        let artificial = header.flags_raw() & ARTIFICIAL != 0;
        self.verify(event)?;
        self.advance(event, code, artificial)?;
        let body = event.data();
        Ok(match code {
            kind::TABLE_MAP => {
                let at = self.at();
                self.tables.map(body, &at).map_err(|error| self.damaged(&error))?;
                if let Some(table) = self.tables.outdated() {
                    // Opening again reads the definitions as they are now, and this transaction from its beginning.
                    return Err(SourceError::Transient(format!("the definition of {table} has changed")));
                }
                None
            }
            kind::WRITE_V1 | kind::WRITE_V2 => self.rows(code, body),
            kind::UPDATE_V1 | kind::UPDATE_V2 | kind::PARTIAL_UPDATE => self.foreign(body, ForeignDml::Update),
            kind::DELETE_V1 | kind::DELETE_V2 => self.foreign(body, ForeignDml::Delete),
            code if kind::MARIADB_ROWS_COMPRESSED.contains(&code) => self.tables.of_rows(body).map(|(slot, _)| {
                let detail = "compressed row events are not supported; set log_bin_compress=OFF on the server";
                LogEvent::Fault { slot: Some(slot), fault: self.fault("mariadb_compressed_rows", detail) }
            }),
            kind::EXECUTE_LOAD_QUERY => {
                let (schema, text) = of_load(body).ok_or_else(|| self.damaged(&"a LOAD DATA statement"))?;
                self.query(&text, &schema)
            }
            kind::QUERY => {
                let query = event.read_event::<QueryEvent<'_>>().map_err(|error| self.damaged(&error))?;
                self.query(&query.query(), &query.schema())
            }
            kind::MARIADB_QUERY_COMPRESSED if self.open.as_ref().is_some_and(|open| open.begun) => {
                let detail = "a compressed statement within a transaction; set log_bin_compress=OFF on the server";
                Some(LogEvent::Fault { slot: None, fault: self.fault("mariadb_compressed_statement", detail) })
            }
            kind::XID | kind::MARIADB_QUERY_COMPRESSED => self.end(LogEvent::Commit),
            kind::GTID | kind::GTID_TAGGED | kind::ANONYMOUS_GTID => self.begin_mysql(event)?,
            kind::MARIADB_GTID => self.begin_mariadb(event)?,
            kind::XA_PREPARE => self.prepared(body),
            kind::INCIDENT => {
                let detail = "the server could not write some events to its log; compare the tables with the topics";
                Some(LogEvent::Fault { slot: None, fault: self.fault("incident", detail) })
            }
            kind::ROTATE | kind::HEARTBEAT | kind::HEARTBEAT_V2 if self.open.is_none() => Some(LogEvent::Progress),
            _ => None,
        })
    }

    fn verify(&self, event: &Event) -> Result<(), SourceError> {
        // Events out of a compressed transaction carry no checksum of their own.
        if self.inner_left > 0 || event.header().event_type_raw() == kind::FORMAT_DESCRIPTION {
            return Ok(());
        }
        let crc32 = BinlogChecksumAlg::BINLOG_CHECKSUM_ALG_CRC32;
        if event.footer().get_checksum_alg() != Ok(Some(crc32)) {
            return Ok(());
        }
        match event.checksum() {
            Some(written) if u32::from_le_bytes(written) != event.calc_checksum(crc32) => {
                Err(SourceError::Transient(format!("an event's checksum does not match at {}", self.at())))
            }
            _ => Ok(()),
        }
    }

    /// Follows file and offset, and counts the bytes of a compressed transaction: the client library drops a payload
    /// that it cannot expand without a word, and this is where that shows.
    fn advance(&mut self, event: &Event, code: u8, artificial: bool) -> Result<(), SourceError> {
        let header = event.header();
        if self.inner_left > 0 {
            let size = u64::from(header.event_size());
            if size > self.inner_left
                || matches!(code, kind::GTID | kind::ROTATE | kind::HEARTBEAT | kind::HEARTBEAT_V2)
            {
                return Err(self.damaged(&"a compressed transaction did not expand to what it says"));
            }
            self.inner_left -= size;
            return Ok(());
        }
        if code == kind::ROTATE {
            let body = event.data();
            let (offset, file) =
                body.split_at_checked(8).ok_or_else(|| self.damaged(&"a ROTATE event is too short"))?;
            self.file = String::from_utf8_lossy(file).into_owned();
            self.offset = offset.try_into().map_or(4, u64::from_le_bytes);
            self.tables.clear();
            if self.open.is_none()
                && let Point::File(point) = &mut self.position.point
            {
                *point = FilePoint { file: self.file.clone(), offset: self.offset };
            }
        } else if !artificial && header.log_pos() != 0 {
            self.offset += u64::from(header.event_size());
            // The header has 32 bits only; they tell where they agree, and correct what was not sent to us.
            let low = self.offset & u64::from(u32::MAX);
            if low != u64::from(header.log_pos()) {
                self.offset = (self.offset & !u64::from(u32::MAX)) | u64::from(header.log_pos());
            }
        }
        if code == kind::TRANSACTION_PAYLOAD {
            self.inner_left =
                uncompressed_size(event.data()).ok_or_else(|| self.damaged(&"a compressed transaction"))?;
        }
        Ok(())
    }

    fn rows(&mut self, code: u8, body: &[u8]) -> Option<LogEvent<Rows>> {
        let (slot, layout) = self.tables.of_rows(body)?;
        self.touch(slot);
        Some(match layout {
            Ok(layout) => {
                LogEvent::Rows { slot, rows: Rows { kind: code, body: body.to_vec(), layout, at: self.at() } }
            }
            Err(fault) => LogEvent::Fault { slot: Some(slot), fault },
        })
    }

    fn touch(&mut self, slot: Slot) {
        if let Some(open) = &mut self.open
            && !open.touched.contains(&slot)
        {
            open.touched.push(slot);
        }
    }

    fn foreign(&self, body: &[u8], kind: ForeignDml) -> Option<LogEvent<Rows>> {
        self.tables.of_rows(body).map(|(slot, _)| LogEvent::Foreign { slot, kind })
    }

    fn query(&mut self, text: &str, schema: &str) -> Option<LogEvent<Rows>> {
        let statement = Statement::classify(text);
        match statement {
            Statement::Begin | Statement::XaStart => {
                if let Some(open) = &mut self.open {
                    open.begun = true;
                    open.xa = statement == Statement::XaStart;
                }
                return None;
            }
            Statement::XaEnd => return None,
            Statement::Commit => return self.end(LogEvent::Commit),
            Statement::Rollback => return self.end(LogEvent::Rollback),
            Statement::Savepoint(name) => return Some(LogEvent::Savepoint { name: name.to_owned() }),
            Statement::RollbackTo(name) => return Some(LogEvent::RollbackTo { name: name.to_owned() }),
            Statement::Dml | Statement::Truncate => self.statement(&statement, text, schema),
            Statement::Definition => {
                self.tables.redefine(|table| mentions(text, schema, table));
            }
            Statement::Other => {}
        }
        // A group without BEGIN is this one statement.
        if self.open.as_ref().is_some_and(|open| !open.begun) {
            let end = self.end(LogEvent::Commit);
            self.pending.extend(end);
        }
        self.pending.pop_front()
    }

    /// Statement-format changes of a subscribed table: its rows are not in the log.
    fn statement(&mut self, statement: &Statement<'_>, text: &str, schema: &str) {
        let concerned =
            |(slot, table): (Slot, &crate::source::Subscription)| mentions(text, schema, &table.table).then_some(slot);
        let slots: Vec<Slot> = self.tables.subscriptions().iter().enumerate().filter_map(concerned).collect();
        for slot in slots {
            self.touch(slot);
            let event = if *statement == Statement::Truncate {
                LogEvent::Foreign { slot, kind: ForeignDml::Truncate }
            } else {
                let detail =
                    "rows were changed in statement format, so the log does not have them; use binlog_format=ROW";
                LogEvent::Fault { slot: Some(slot), fault: self.fault("statement_format", detail) }
            };
            self.pending.push_back(event);
        }
    }

    fn begin_mysql(&mut self, event: &Event) -> Result<Option<LogEvent<Rows>>, SourceError> {
        let anonymous = event.header().event_type_raw() == kind::ANONYMOUS_GTID;
        let gtid =
            if anonymous { None } else { Some(event.read_event::<GtidEvent>().map_err(|error| self.damaged(&error))?) };
        let txn = match (&self.position.point, &gtid) {
            (Point::File(_), _) => TxnId::File(FilePoint {
                file: self.file.clone(),
                offset: self.offset.saturating_sub(u64::from(event.header().event_size())),
            }),
            (_, Some(gtid)) => TxnId::Gtid(Gtid {
                origin: Origin {
                    server: Uuid::from_bytes(gtid.sid()),
                    tag: gtid.tag().map(|tag| tag.to_string().into()),
                },
                number: gtid.gno(),
            }),
            (_, None) => {
                let detail = "a transaction without GTID, after a position that is a GTID set; set gtid_mode=ON";
                return Ok(Some(LogEvent::Fault { slot: None, fault: self.fault("anonymous_transaction", detail) }));
            }
        };
        let seconds = u64::from(event.header().timestamp());
        // The anonymous event has the same layout; its time is in whole seconds here, which costs lag its precision only.
        let micros = gtid.map_or(0, |gtid| gtid.immediate_commit_timestamp() & ((1 << 55) - 1));
        Ok(Some(self.begin(txn, if micros == 0 { seconds * 1_000_000 } else { micros })))
    }

    fn begin_mariadb(&mut self, event: &Event) -> Result<Option<LogEvent<Rows>>, SourceError> {
        /// The group has no COMMIT of its own (`Gtid_log_event::FL_STANDALONE`).
        const STANDALONE: u8 = 1;
        let body = event.data();
        let (Some(sequence), Some(domain), Some(flags)) =
            (body.first_chunk::<8>(), body.get(8..12).and_then(<[u8]>::first_chunk::<4>), body.get(12))
        else {
            return Err(self.damaged(&"a GTID event is too short"));
        };
        let header = event.header();
        let txn = match &self.position.point {
            Point::File(_) => TxnId::File(FilePoint {
                file: self.file.clone(),
                offset: self.offset.saturating_sub(u64::from(header.event_size())),
            }),
            _ => TxnId::Domain(DomainGtid {
                domain: u32::from_le_bytes(*domain),
                server: header.server_id(),
                sequence: u64::from_le_bytes(*sequence),
            }),
        };
        let begin = self.begin(txn, u64::from(header.timestamp()) * 1_000_000);
        if let Some(open) = &mut self.open {
            // There is no BEGIN in the log: the flag says it.
            open.begun = flags & STANDALONE == 0;
        }
        Ok(Some(begin))
    }

    fn begin(&mut self, txn: TxnId, commit_micros: u64) -> LogEvent<Rows> {
        self.open = Some(Open { txn: txn.clone(), begun: false, xa: false, touched: Vec::new() });
        LogEvent::Begin { txn, commit_micros }
    }

    /// XA: rows of a prepared transaction are here, its outcome is not.
    fn prepared(&mut self, body: &[u8]) -> Option<LogEvent<Rows>> {
        let one_phase = body.first().is_some_and(|&byte| byte != 0);
        if !one_phase {
            let touched = self.open.as_mut().map(|open| std::mem::take(&mut open.touched)).unwrap_or_default();
            for slot in touched {
                let detail =
                    "rows of an XA transaction are in the log before its outcome; commit the outbox without XA";
                let fault = self.fault("xa_prepared", detail);
                self.pending.push_back(LogEvent::Fault { slot: Some(slot), fault });
            }
        }
        let end = self.end(LogEvent::Commit);
        self.pending.extend(end);
        self.pending.pop_front()
    }

    /// Ends the open group: the position covers it once the event is handed out.
    fn end(&mut self, event: LogEvent<Rows>) -> Option<LogEvent<Rows>> {
        self.open.as_ref()?;
        Some(event)
    }

    fn cover(&mut self) {
        let Some(open) = self.open.take() else { return };
        match (&mut self.position.point, open.txn) {
            (Point::Gtid(set), TxnId::Gtid(gtid)) => set.add(&gtid),
            (Point::Domains(point), TxnId::Domain(gtid)) => point.add(gtid),
            (Point::File(point), _) => *point = FilePoint { file: self.file.clone(), offset: self.offset },
            _ => {}
        }
        self.position.partial = None;
    }

    fn hand_out(&mut self, event: LogEvent<Rows>) -> LogEvent<Rows> {
        if matches!(event, LogEvent::Commit | LogEvent::Rollback) {
            self.cover();
        }
        event
    }
}

impl LogStream for MysqlStream {
    type Rows = Rows;

    async fn next(&mut self) -> Result<LogEvent<Rows>, SourceError> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(self.hand_out(event));
            }
            let event = match timeout_at(self.heard + self.silence_deadline, self.stream.next()).await {
                Ok(Some(Ok(event))) => event,
                Ok(Some(Err(error))) => return Err(classify(&error, &self.at())),
                Ok(None) => return Err(SourceError::Transient("the server ended the connection".to_owned())),
                Err(_) => {
                    let silence = humantime::format_duration(self.silence_deadline);
                    return Err(SourceError::Transient(format!("nothing heard from the server for {silence}")));
                }
            };
            self.heard = Instant::now();
            if let Some(event) = self.meaning(&event)? {
                return Ok(self.hand_out(event));
            }
        }
    }

    fn position(&self) -> &Position {
        &self.position
    }
}

/// The size that a `TRANSACTION_PAYLOAD` event's content has when it is expanded
/// (`mysql::binlog::event::codecs::binary::Transaction_payload`: fields of type, length and value, each length-encoded).
fn uncompressed_size(body: &[u8]) -> Option<u64> {
    const END: u64 = 0;
    const UNCOMPRESSED_SIZE: u64 = 3;
    let mut cursor = super::decode::Cursor::new(body, "a TRANSACTION_PAYLOAD event");
    loop {
        let field = cursor.lenenc().ok()?;
        if field == END {
            return None;
        }
        let length = cursor.lenenc().ok()?;
        let value = cursor.take_u64(length).ok()?;
        if field == UNCOMPRESSED_SIZE {
            return super::decode::Cursor::new(value, "a size").lenenc().ok();
        }
    }
}
