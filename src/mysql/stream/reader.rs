//! From the log's events to what they mean for the relay: decisions without I/O.
//!
//! Promise: an event that this module does not know cannot hide a row of a subscribed table: what may carry rows and is
//! not understood is a fault, by name. The position never covers a transaction whose rows may still be wanted.

mod beginning;
mod statements;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::mysql::decode::{DecodeError, Dialect, Event, QueryEvent, kind, uncompress_rows};
use crate::mysql::statement::Xid;
use crate::mysql::tables::{At, Layout, Older, Rows, Selection, Tables};
use crate::position::{DomainGtid, FilePoint, Point, Position, TxnId};
use crate::source::{Fault, ForeignDml, LogEvent, LogPlace, Slot};
use crate::table::TableName;

/// Events that are not passed over with the transaction that they follow.
const AROUND: [u8; 8] = [
    kind::GTID,
    kind::GTID_TAGGED,
    kind::ANONYMOUS_GTID,
    kind::MARIADB_GTID,
    kind::ROTATE,
    kind::HEARTBEAT,
    kind::HEARTBEAT_V2,
    kind::INCIDENT,
];

/// Events that change no rows and end no transaction, as servers from `MySQL` 5.7 and `MariaDB` 10.5 on write them. Those of
/// statements say what a QUERY means that is looked at itself.
const WITHOUT_ROWS: [u8; 21] = [
    kind::START_V3,
    kind::STOP,
    kind::ROTATE,
    kind::INTVAR,
    kind::APPEND_BLOCK,
    kind::DELETE_FILE,
    kind::RAND,
    kind::USER_VAR,
    kind::FORMAT_DESCRIPTION,
    kind::BEGIN_LOAD_QUERY,
    kind::HEARTBEAT,
    kind::IGNORABLE,
    kind::ROWS_QUERY,
    kind::PREVIOUS_GTIDS,
    kind::TRANSACTION_CONTEXT,
    kind::VIEW_CHANGE,
    kind::HEARTBEAT_V2,
    kind::MARIADB_ANNOTATE_ROWS,
    kind::MARIADB_BINLOG_CHECKPOINT,
    kind::MARIADB_GTID_LIST,
    kind::MARIADB_START_ENCRYPTION,
];

/// The transaction being read.
struct Open {
    txn: TxnId,
    commit_micros: u64,
    /// When its last statement ended that may define tables, in seconds since the Unix epoch: `MariaDB` tells no more of a
    /// transaction than when its first statement began.
    defined: u64,
    /// Between BEGIN and its end; a group that is one statement has no BEGIN.
    begun: bool,
    touched: SmallVec<[Slot; 4]>,
    /// The prepared transaction whose outcome this one is.
    settles: Option<TxnId>,
}

/// Follows a log from one position on.
pub(in crate::mysql) struct Reader {
    tables: Tables,
    position: Position,
    file: Arc<str>,
    offset: u64,
    /// The server was asked for the whole file, because the position is farther in than can be asked for: what stands
    /// before this offset is passed over.
    behind: Option<u64>,
    open: Option<Open>,
    pending: VecDeque<LogEvent<Rows>>,
    /// XA transactions with rows of subscribed tables whose outcome has not come yet. The position leaves them out, so
    /// a stream that is opened there reads them again.
    prepared: HashMap<Xid, TxnId>,
    /// Domains that are read from before a prepared transaction up to the last one that the position covers.
    again: BTreeMap<u32, DomainGtid>,
    /// The transaction being read is one of those that the position covers.
    passing: bool,
    /// The log is read out of files, and never resumed at the position.
    archived: bool,
    /// For each DELETE that is pending, the rows as they were; none unless they are kept.
    deleted: Option<VecDeque<Result<Rows, Fault>>>,
}

impl Reader {
    pub(in crate::mysql) fn new(tables: Tables, position: Position) -> Self {
        let (file, offset, behind) = match &position.point {
            Point::File(point) => {
                let start = point.start();
                (start.file.as_str().into(), start_offset(start).into(), Some(start.offset))
            }
            _ => ("".into(), 4, None),
        };
        let again = match &position.point {
            Point::Domains(point) => point.read_again(),
            _ => BTreeMap::new(),
        };
        Self {
            tables,
            position,
            file,
            offset,
            behind: behind.filter(|behind| *behind > offset),
            open: None,
            pending: VecDeque::new(),
            prepared: HashMap::new(),
            again,
            passing: false,
            archived: false,
            deleted: None,
        }
    }

    /// Keeps the rows of each DELETE for [`Reader::deleted`].
    pub(super) fn keep_deleted(&mut self) {
        self.deleted = Some(VecDeque::new());
    }

    /// Definitions were read after all that is to be read.
    pub(super) fn keep_definitions(&mut self) {
        self.tables.know_older(Older::All);
    }

    /// The rows of the DELETE that [`Reader::pop`] has just given.
    pub(super) fn deleted(&mut self) -> Option<Result<Rows, Fault>> {
        self.deleted.as_mut().and_then(VecDeque::pop_front)
    }

    /// Whether everything that stands in the log before this place has been given.
    pub(super) fn has_passed(&self, place: &FilePoint) -> bool {
        self.pending.is_empty() && file_point(&self.file, self.offset) >= *place
    }

    /// Reads files, each of them after [`Reader::enter`].
    pub(in crate::mysql) fn of_archive(selection: Selection) -> Self {
        Self { archived: true, ..Self::new(Tables::of_archive(selection), Position::default()) }
    }

    /// A file begins. A transaction that is open stays behind in the file before it.
    pub(in crate::mysql) fn enter(&mut self, file: &str, dialect: Dialect) {
        self.file = file.into();
        self.offset = 4;
        self.open = None;
        self.tables.start(dialect);
    }

    /// Whether a transaction has begun whose end has not come.
    pub(in crate::mysql) fn is_within(&self) -> bool {
        self.open.is_some()
    }

    /// The table of a slot.
    pub(in crate::mysql) fn table(&self, slot: Slot) -> &TableName {
        self.tables.name(slot)
    }

    /// How far the log is read; `None` before its file is known.
    pub(super) fn place(&self) -> Option<LogPlace> {
        let (_, number) = self.file.rsplit_once('.')?;
        Some(LogPlace { file: number.parse().ok()?, offset: self.offset })
    }

    /// Covers everything up to the last end of a transaction that [`Reader::pop`] gave.
    pub(super) fn position(&self) -> &Position {
        &self.position
    }

    /// Where the log is being read, in the server's terms.
    pub(in crate::mysql) fn at(&self) -> String {
        here(self.open.as_ref(), &self.file, self.offset).to_string()
    }

    /// A damaged event at this place.
    pub(in crate::mysql) fn damaged(&self, error: &DecodeError) -> Fault {
        self.fault("damaged_event", error.to_string())
    }

    fn fault(&self, name: &'static str, detail: impl Into<String>) -> Fault {
        Fault { name, detail: detail.into(), at: self.at() }
    }

    /// The next thing that was said, if there is one.
    pub(in crate::mysql) fn pop(&mut self) -> Option<LogEvent<Rows>> {
        let event = self.pending.pop_front()?;
        match event {
            LogEvent::Commit | LogEvent::Rollback => self.cover(),
            LogEvent::Prepare { .. } => {
                if let Some(open) = self.open.take() {
                    self.position.point.prepare(&open.txn, file_point(&self.file, self.offset));
                }
            }
            _ => {}
        }
        Some(event)
    }

    /// Follows file and offset past an event that stands in the log itself, not within a compressed transaction. Whether
    /// the event is to be taken in; it is not where it stands before the position.
    pub(in crate::mysql) fn advance(&mut self, event: &Event<'_>) -> Result<bool, Fault> {
        let header = event.header;
        if header.kind == kind::ROTATE {
            let rotate = event.body.split_first_chunk::<8>();
            let (offset, file) = rotate.ok_or_else(|| self.fault("damaged_event", "a ROTATE event is too short"))?;
            let file = String::from_utf8_lossy(file);
            if *self.file != *file {
                self.behind = None;
            }
            self.file = file.into();
            self.offset = u64::from_le_bytes(*offset);
            self.tables.clear();
            if self.open.is_none()
                && self.behind.is_none()
                && let Point::File(point) = &mut self.position.point
            {
                point.reach(file_point(&self.file, self.offset));
            }
        } else if !header.is_artificial() && header.log_pos != 0 {
            // A heartbeat stands nowhere itself: it tells where the log ends.
            let heartbeat = matches!(header.kind, kind::HEARTBEAT | kind::HEARTBEAT_V2);
            self.offset = widen(self.offset, if heartbeat { 0 } else { header.size }, header.log_pos);
        }
        match self.behind {
            Some(behind) if self.offset <= behind => {
                self.behind = Some(behind).filter(|behind| self.offset < *behind);
                Ok(false)
            }
            Some(behind) => {
                let detail = format!("no event of the file ends at the position's offset {behind}");
                Err(self.fault("position_mismatch", detail))
            }
            None => Ok(true),
        }
    }

    /// Takes in what an event says.
    pub(in crate::mysql) fn take(&mut self, event: &Event<'_>) -> Result<(), Fault> {
        let body = event.body;
        if self.passing && !AROUND.contains(&event.header.kind) {
            return Ok(());
        }
        match event.header.kind {
            kind::TABLE_MAP => {
                let ended = self.open.as_ref().map_or(0, |open| open.defined.max(open.commit_micros / 1_000_000));
                let at = || here(self.open.as_ref(), &self.file, self.offset);
                self.tables.map(body, ended, at).map_err(|error| self.damaged(&error))?;
            }
            code @ (kind::WRITE_V1 | kind::WRITE_V2) => self.rows(code, body, false),
            code @ (kind::MARIADB_WRITE_COMPRESSED_V1 | kind::MARIADB_WRITE_COMPRESSED) => self.rows(code, body, true),
            kind::UPDATE_V1
            | kind::UPDATE_V2
            | kind::PARTIAL_UPDATE
            | kind::MARIADB_UPDATE_COMPRESSED_V1
            | kind::MARIADB_UPDATE_COMPRESSED => self.foreign(body, ForeignDml::Update),
            kind::DELETE_V1 => self.delete(kind::WRITE_V1, body, false),
            kind::DELETE_V2 => self.delete(kind::WRITE_V2, body, false),
            kind::MARIADB_DELETE_COMPRESSED_V1 => self.delete(kind::MARIADB_WRITE_COMPRESSED_V1, body, true),
            kind::MARIADB_DELETE_COMPRESSED => self.delete(kind::MARIADB_WRITE_COMPRESSED, body, true),
            code @ (kind::QUERY | kind::EXECUTE_LOAD_QUERY | kind::MARIADB_QUERY_COMPRESSED) => {
                let query = QueryEvent::parse(code, body).map_err(|error| self.damaged(&error))?;
                self.query(&query, event.header.timestamp);
            }
            kind::XID => self.end(LogEvent::Commit),
            kind::GTID | kind::GTID_TAGGED | kind::ANONYMOUS_GTID => self.begin_mysql(event)?,
            kind::MARIADB_GTID => self.begin_mariadb(event)?,
            kind::XA_PREPARE => self.prepare(body)?,
            kind::INCIDENT => {
                let detail = "the server could not write some events to its log; compare the tables with the topics";
                let fault = self.fault("incident", detail);
                self.pending.push_back(LogEvent::Fault { slot: None, fault });
            }
            kind::ROTATE | kind::HEARTBEAT | kind::HEARTBEAT_V2 if self.open.is_none() => {
                self.pending.push_back(LogEvent::Progress);
            }
            code if WITHOUT_ROWS.contains(&code) || event.header.is_ignorable() || event.header.is_artificial() => {}
            code => {
                let detail = format!(
                    "an event of type {code}, which this version of outboxd does not know: it may have rows; use a newer \
                     one, or set back what has the server write it"
                );
                let fault = self.fault("unknown_event", detail);
                self.pending.push_back(LogEvent::Fault { slot: None, fault });
            }
        }
        Ok(())
    }

    fn rows(&mut self, code: u8, body: &[u8], compressed: bool) {
        let Some((slot, layout)) = self.tables.of_rows(body) else { return };
        if self.open.is_none() && !self.archived && matches!(self.position.point, Point::File(_)) {
            let fault = self.fault("position_mismatch", "the position stands within a transaction, behind its BEGIN");
            self.pending.push_back(LogEvent::Fault { slot: Some(slot), fault });
            return;
        }
        self.touch(slot);
        self.pending.push_back(match layout.and_then(|layout| self.rows_of(layout, code, body, compressed)) {
            Ok(rows) => LogEvent::Rows { slot, rows },
            Err(fault) => LogEvent::Fault { slot: Some(slot), fault },
        });
    }

    fn rows_of(&self, layout: Arc<Layout>, code: u8, body: &[u8], compressed: bool) -> Result<Rows, Fault> {
        let (kind, body) = if compressed {
            let mut plain = Vec::new();
            let code = uncompress_rows(code, body, &mut plain).map_err(|error| self.damaged(&error))?;
            (code, plain)
        } else {
            (code, body.to_vec())
        };
        Ok(Rows { kind, body, layout, at: here(self.open.as_ref(), &self.file, self.offset) })
    }

    /// A DELETE, whose event is laid out as that of an INSERT with this code.
    fn delete(&mut self, code: u8, body: &[u8], compressed: bool) {
        if let Some(mut deleted) = self.deleted.take() {
            if let Some((_, layout)) = self.tables.of_rows(body) {
                deleted.push_back(layout.and_then(|layout| self.rows_of(layout, code, body, compressed)));
            }
            self.deleted = Some(deleted);
        }
        self.foreign(body, ForeignDml::Delete);
    }

    fn touch(&mut self, slot: Slot) {
        if let Some(open) = &mut self.open
            && !open.touched.contains(&slot)
        {
            open.touched.push(slot);
        }
    }

    fn foreign(&mut self, body: &[u8], kind: ForeignDml) {
        if let Some((slot, _)) = self.tables.of_rows(body) {
            self.pending.push_back(LogEvent::Foreign { slot, kind });
        }
    }

    /// `XA PREPARE`, or the end of a transaction that is committed in one phase.
    fn prepare(&mut self, body: &[u8]) -> Result<(), Fault> {
        let (one_phase, xid) = Xid::of_event(body).map_err(|error| self.damaged(&error))?;
        let Some(open) = self.open.as_ref().filter(|open| !one_phase && !open.touched.is_empty()) else {
            self.end(LogEvent::Commit);
            return Ok(());
        };
        self.prepared.insert(xid.clone(), open.txn.clone());
        self.pending.push_back(LogEvent::Prepare { xid: xid.to_string() });
        Ok(())
    }

    /// The outcome of a prepared transaction. One that is not known has no rows of subscribed tables after the
    /// position that the log was opened at.
    fn settle(&mut self, xid: &Xid, commit: bool) {
        if let Some(prepared) = self.prepared.remove(xid) {
            if let Some(open) = &mut self.open {
                open.settles = Some(prepared);
            }
            self.pending.push_back(LogEvent::Settle { xid: xid.to_string(), commit });
        }
        self.end(LogEvent::Commit);
    }

    /// Ends the open group: the position covers it once the event is handed out.
    fn end(&mut self, event: LogEvent<Rows>) {
        if self.open.is_some() {
            self.pending.push_back(event);
        }
    }

    fn cover(&mut self) {
        let Some(open) = self.open.take() else { return };
        if let Some(prepared) = &open.settles {
            self.position.point.settle(prepared);
        }
        self.position.point.add(&open.txn, || file_point(&self.file, self.offset));
        self.position.partial = None;
    }

    /// Whether the definitions that were read with the log's opening no longer describe what follows.
    pub(super) fn wants_definitions(&self) -> bool {
        self.tables.wants_definitions()
    }

    /// What is older than the definitions that are read when the log is opened again.
    pub(super) fn older_than_next(&self) -> Older {
        self.open.as_ref().map_or(Older::None, |open| self.tables.older_than_next(&open.txn))
    }

    /// These statements are older than the definitions.
    #[cfg(test)]
    fn knowing(mut self, older: Older) -> Self {
        self.tables.know_older(older);
        self
    }
}

fn here(open: Option<&Open>, file: &Arc<str>, offset: u64) -> At {
    At { txn: open.map(|open| open.txn.clone()), file: Arc::clone(file), offset }
}

fn file_point(file: &str, offset: u64) -> FilePoint {
    FilePoint { file: file.to_owned(), offset, server: None }
}

/// Where the server has to be asked to begin: an offset beyond 32 bits cannot be asked for.
pub(in crate::mysql) fn start_offset(point: &FilePoint) -> u32 {
    /// Behind the four bytes that every file begins with.
    const FIRST: u32 = 4;
    point.offset.try_into().unwrap_or(FIRST)
}

/// The offset behind an event, of which the log has the lower 32 bits only. They tell where they agree with the sizes
/// that were read, and correct what was not sent to us.
fn widen(offset: u64, size: u32, log_pos: u32) -> u64 {
    const LOW: u64 = u32::MAX as u64;
    let next = offset + u64::from(size);
    let told = (next & !LOW) | u64::from(log_pos);
    if told < offset { told + LOW + 1 } else { told }
}

#[cfg(test)]
mod tests;
