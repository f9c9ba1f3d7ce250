//! What every byte that a server sends goes through, as functions of bytes: fuzzing calls them with whatever it can think
//! of, and `tests/corpus.rs` with its seeds (feature `testing`).
//!
//! Promise: whatever the bytes are, each of these returns, panics never, and holds at no time more memory than
//! [`Target::most`] says, because no length in the bytes is believed before the bytes are there.

use std::io::Cursor;
use std::sync::Arc;

use mysql_async::OptsBuilder;
use tokio::io::{join, sink};

use super::archive::Archive;
use super::decode::{
    Checksum, ColumnValue, DecodeError, Dialect, Event, GtidEvent, Header, MariaDbGtid, QueryEvent, RowsEvent,
    TableMap, event_size, kind, peek_name, uncompress_rows, write_json,
};
use super::definition::Definition;
use super::statement::{Statement, Xid, plain, replaced, target};
use super::stream::{Payload, Reader};
use super::tables::{Rows, Selection, Tables};
use super::wire::Wire;
use crate::position::{FilePoint, Point, Position};
use crate::source::{BatchBuilder, LogEvent, RowSet, Subscription};
use crate::table::{TableName, TablePattern};

/// Something that takes bytes of a server.
pub struct Target {
    /// The name of its fuzz target, and of the folder of its seeds.
    pub name: &'static str,
    /// Takes them.
    pub run: fn(&[u8]),
    /// Bytes of memory for every byte of input, besides [`Target::ALWAYS`].
    pub factor: usize,
}

impl Target {
    /// Bytes of memory that may be held whatever the input is: buffers of fixed size.
    pub const ALWAYS: usize = 1 << 20;

    /// All of them. The factors: the structures of a column for one byte of type, 255 bytes of a BINARY column for one of
    /// row, what a byte of zlib expands to at most, and what one of zstd does.
    pub const ALL: [Self; 7] = [
        Self { name: "event", run: event, factor: ZLIB },
        Self { name: "rows", run: rows, factor: 1024 },
        Self { name: "json", run: json, factor: 64 },
        Self { name: "payload", run: payload, factor: ZSTD },
        Self { name: "log", run: log, factor: ZSTD },
        Self { name: "file", run: file, factor: ZSTD },
        Self { name: "server", run: server, factor: 64 },
    ];

    /// The target of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        const ALL: &[Target] = &Target::ALL;
        ALL.iter().find(|target| target.name == name)
    }

    /// How many bytes of memory may be held at most for an input of `len` bytes.
    pub fn most(&self, len: usize) -> usize {
        Self::ALWAYS + self.factor * len
    }
}

const ZLIB: usize = 4 * 1040;

/// Blocks of 128 KiB that repeat one byte take four.
const ZSTD: usize = 2 * (1 << 15);

/// A whole event, its header's type code telling what the body is; that it has the wrong size or checksum is no obstacle.
fn event(bytes: &[u8]) {
    let _ = event_size(bytes);
    for checksum in [Checksum::None, Checksum::Crc32] {
        let _ = Event::parse(bytes, checksum);
    }
    let _ = Checksum::announced_by(bytes);
    let (Some(&code), Some(body)) = (bytes.get(4), bytes.get(Header::LEN..)) else { return };
    match code {
        kind::GTID | kind::GTID_TAGGED | kind::ANONYMOUS_GTID => drop(GtidEvent::parse(code, body)),
        kind::MARIADB_GTID => drop(MariaDbGtid::parse(body)),
        kind::QUERY | kind::EXECUTE_LOAD_QUERY | kind::MARIADB_QUERY_COMPRESSED => {
            if let Ok(query) = QueryEvent::parse(code, body) {
                let text = plain(&query.text);
                for begun in [false, true] {
                    let _ = Statement::classify(&text, begun);
                }
                assert!(query.text.starts_with(target(&query.text)), "a statement begins with its target");
                let _ = replaced(&text);
            }
        }
        kind::XA_PREPARE => drop(Xid::of_event(body)),
        kind::TABLE_MAP => {
            let _ = peek_name(body);
            for dialect in [Dialect::MySql, Dialect::MariaDb] {
                let _ = TableMap::parse_as(body, dialect);
            }
        }
        kind::MARIADB_WRITE_COMPRESSED_V1 | kind::MARIADB_WRITE_COMPRESSED => {
            let mut plain = Vec::new();
            if let Ok(code) = uncompress_rows(code, body, &mut plain) {
                let _ = RowsEvent::parse(code, &plain);
            }
        }
        _ => drop(RowsEvent::parse(code, body)),
    }
}

/// One byte of flags (bit 0: `MariaDB`, bit 1: version 2 of the rows event, bit 2: what the log leaves out of the columns
/// is made up), the length of the body of a table map in two, that, and the body of a rows event.
fn rows(bytes: &[u8]) {
    let Some((&[flags, low, high], rest)) = bytes.split_first_chunk() else { return };
    let Some((map, body)) = rest.split_at_checked(u16::from_le_bytes([low, high]).into()) else { return };
    let dialect = if flags & 1 == 0 { Dialect::MySql } else { Dialect::MariaDb };
    let Ok(mut table) = TableMap::parse_as(map, dialect) else { return };
    if flags & 4 != 0 {
        for (index, column) in table.columns.iter_mut().enumerate() {
            column.unsigned.get_or_insert(index % 2 == 0);
            // utf8mb4, latin1, utf16, sjis, binary
            column.collation.get_or_insert([45, 8, 54, 13, 63][index % 5]);
        }
    }
    let code = if flags & 2 == 0 { kind::WRITE_V1 } else { kind::WRITE_V2 };
    let Ok(mut rows) = RowsEvent::parse(code, body) else { return };
    let wanted: Vec<_> = (0..table.columns.len()).map(Some).collect();
    let mut out = Vec::new();
    let mut write = |_, value: ColumnValue<'_>| {
        out.clear();
        out.push(b'x');
        if let Ok(false) | Err(_) = value.write_text(&mut out) {
            assert_eq!(out, b"x", "nothing is left of a value that cannot be written");
        }
        Ok::<_, DecodeError>(())
    };
    while rows.next_row(&table, &wanted, &mut write).is_ok_and(|more| more) {}
}

/// A document of `MySQL`'s binary JSON.
fn json(bytes: &[u8]) {
    let mut out = Vec::new();
    if write_json(bytes, 0, &mut out).is_ok() {
        let read = serde_json::from_slice::<serde_json::Value>(&out);
        assert!(read.is_ok(), "what is written is JSON: {}", String::from_utf8_lossy(&out));
        assert!(out.len() <= 12 * bytes.len() + 64, "a byte takes twelve at most");
    }
}

/// The body of a compressed transaction.
fn payload(bytes: &[u8]) {
    let Ok(mut payload) = Payload::open(bytes) else { return };
    while let Ok(Some(event)) = payload.next_event() {
        let _ = Event::parse(event, Checksum::None);
    }
}

/// One byte of flags (bit 0: `MariaDB`, bit 1: read as files are), then events: type code, length of the body in two
/// bytes, body.
fn log(bytes: &[u8]) {
    let Some((&flags, mut rest)) = bytes.split_first() else { return };
    let dialect = if flags & 1 == 0 { Dialect::MySql } else { Dialect::MariaDb };
    let mut reader = if flags & 2 == 0 {
        let point = FilePoint { file: "binlog.000001".to_owned(), offset: 4, server: None };
        let position = Position { point: Point::File(point.into()), ..Position::default() };
        Reader::new(Tables::new(dialect, &subscriptions(), vec![Definition::default()]), position)
    } else {
        let mut reader = Reader::of_archive(everything());
        reader.enter("binlog.000001", dialect);
        reader
    };
    let mut log_pos = 4;
    while let Some((&[kind, low, high], behind)) = rest.split_first_chunk() {
        let (body, behind) = behind.split_at(behind.len().min(u16::from_le_bytes([low, high]).into()));
        rest = behind;
        let size = u32::try_from(Header::LEN + body.len()).unwrap_or(u32::MAX);
        log_pos += size;
        let header = Header { timestamp: 1, kind, server_id: 1, size, log_pos, flags: 0 };
        if take(&mut reader, &Event { header, body }).is_none() {
            return;
        }
        while let Some(event) = reader.pop() {
            if let LogEvent::Rows { rows, .. } = event {
                read(rows, flags & 2 != 0);
            }
        }
    }
}

/// Takes an event in; `None` where the log ends for good.
fn take(reader: &mut Reader, event: &Event<'_>) -> Option<()> {
    reader.advance(event).ok()?;
    if event.header.kind != kind::TRANSACTION_PAYLOAD {
        return reader.take(event).ok();
    }
    let mut payload = Payload::open(event.body).ok()?;
    while let Some(bytes) = payload.next_event().ok()? {
        reader.take(&Event::parse(bytes, Checksum::None).ok()?).ok()?;
    }
    Some(())
}

fn read(rows: Rows, archived: bool) {
    if archived {
        let _ = rows.json(&mut |line| {
            if let Ok(line) = line {
                assert!(serde_json::from_slice::<serde_json::Value>(line).is_ok(), "a line is JSON");
            }
            Ok::<_, ()>(())
        });
    } else {
        let _ = rows.append_to(&mut BatchBuilder::new(2));
    }
}

fn subscriptions() -> [Subscription; 1] {
    let columns: Arc<[String]> = ["id".to_owned(), "payload".to_owned()].into();
    [Subscription { table: TableName::new("delivery", "delivery-outbox1"), columns }]
}

fn everything() -> Selection {
    Selection { patterns: TablePattern::parse("*.*").into_iter().collect(), names: Vec::new() }
}

/// A binlog file, whatever it begins with.
fn file(bytes: &[u8]) {
    let mut archive = Archive::new(everything().patterns, Vec::new());
    if archive.open("file", Box::new(Cursor::new(bytes.to_vec()))).is_err() {
        return;
    }
    while let Ok(Some(event)) = archive.next() {
        if let LogEvent::Rows { rows, .. } = event {
            read(rows, true);
        }
    }
}

/// All that a server says on a connection, from its greeting on.
fn server(bytes: &[u8]) {
    let opts = OptsBuilder::default().user(Some("outboxd")).pass(Some("secret")).into();
    let transport = join(Cursor::new(bytes.to_vec()), sink());
    let talk = async {
        let mut wire = Wire::over(Box::new(transport), &opts, false).await.ok()?;
        wire.run("SET @a = 1").await.ok()?;
        loop {
            while let Some(packet) = wire.packet() {
                event(wire.event(&packet).ok()?);
            }
            wire.receive().await.ok()?;
        }
    };
    // Nothing of it waits for anything, so it needs no driver.
    if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() {
        let _: Option<()> = runtime.block_on(talk);
    }
}
