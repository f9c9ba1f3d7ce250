//! The parts of what one outbox event costs on its way from the log's bytes to librdkafka: framing and checksum, the walk
//! over the row, its payload, the record, the window of what is in flight, and the metrics; and all of it but the latter
//! together, as the daemon does it, for transactions of 100 rows and of one. Each part is run over 100 events, which `MySQL` 9.7 wrote, with a nested JSON
//! document of 450 bytes each.

use std::hint::black_box;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use mysql_common::binlog::EventStreamReader;
use mysql_common::binlog::consts::BinlogVersion;
use mysql_common::binlog::events::{EventData, RowsEventData};
use mysql_common::binlog::value::BinlogValue;
use mysql_common::value::Value as Sql;
use outboxd::mysql::archive::Archive;
use outboxd::mysql::decode::{
    Checksum, ColumnType, ColumnValue, DecodeError, Event, RowsEvent, TableMap, event_size, kind, write_json,
};
use outboxd::outbox::{Columns, Mapping, TopicTemplate};
use outboxd::position::Position;
use outboxd::relay::Item;
use outboxd::relay::assembler::{Assembler, Limits};
use outboxd::relay::stats::TableStats;
use outboxd::relay::window::Window;
use outboxd::source::{Batch, BatchBuilder, BatchFull, Mark};
use outboxd::table::{TableName, TablePattern};

/// All in one transaction.
const LOG: &[u8] = include_bytes!("../data/events.binlog");

/// Each in a transaction of its own.
const SINGLE: &[u8] = include_bytes!("../data/single.binlog");

/// Events of each log.
pub(crate) const EVENTS: u32 = 100;

const COLUMNS: usize = 5;

/// The log's events, each whole.
fn events() -> Vec<&'static [u8]> {
    let (mut rest, mut events) = (&LOG[4..], Vec::new());
    while !rest.is_empty() {
        let (event, behind) = rest.split_at(event_size(rest).unwrap() as usize);
        events.push(event);
        rest = behind;
    }
    events
}

/// The rows of the log, and what they are rows of.
struct Rows {
    table: TableMap,
    events: Vec<RowsEvent<'static>>,
}

/// Where the columns go: each where it stands.
fn wanted() -> [Option<usize>; COLUMNS] {
    std::array::from_fn(Some)
}

fn parsed(events: &[&'static [u8]]) -> Rows {
    let events: Vec<_> = events.iter().map(|bytes| Event::parse(bytes, Checksum::Crc32).unwrap()).collect();
    let map = events.iter().find(|event| event.header.kind == kind::TABLE_MAP).unwrap();
    let rows = events.iter().filter(|event| event.header.kind == kind::WRITE_V2);
    Rows {
        table: TableMap::parse(map.body).unwrap(),
        events: rows.map(|event| RowsEvent::parse(event.header.kind, event.body).unwrap()).collect(),
    }
}

/// Framing and checksum.
fn frame(events: &[&[u8]]) -> usize {
    events.iter().map(|bytes| Event::parse(bytes, Checksum::Crc32).unwrap().body.len()).sum()
}

/// The walk over the rows, without looking at values.
fn walk(rows: &Rows, out: &mut impl FnMut(ColumnValue<'_>)) -> u32 {
    let mut count = 0;
    for event in &rows.events {
        let mut event = event.clone();
        let mut write = |_, value: ColumnValue<'_>| {
            out(value);
            Ok::<_, DecodeError>(())
        };
        while event.next_row(&rows.table, &wanted(), &mut write).unwrap() {
            count += 1;
        }
    }
    count
}

/// Every column as text in a batch, as a relay reads it.
fn whole(events: &[&[u8]], batch: &mut BatchBuilder) {
    let mut table = None;
    for bytes in events {
        let event = Event::parse(bytes, Checksum::Crc32).unwrap();
        match event.header.kind {
            kind::TABLE_MAP => table = Some(TableMap::parse(event.body).unwrap()),
            kind::WRITE_V2 => {
                let mut rows = RowsEvent::parse(event.header.kind, event.body).unwrap();
                fill(&mut rows, table.as_ref().unwrap(), batch);
            }
            _ => {}
        }
    }
}

/// Whichever of the two there is.
#[derive(Debug)]
enum Failure {
    Decode,
    Full,
}

impl From<DecodeError> for Failure {
    fn from(_: DecodeError) -> Self {
        Self::Decode
    }
}

impl From<BatchFull> for Failure {
    fn from(_: BatchFull) -> Self {
        Self::Full
    }
}

fn fill(rows: &mut RowsEvent<'_>, table: &TableMap, batch: &mut BatchBuilder) {
    loop {
        let mut row = batch.row();
        let more = rows.next_row::<Failure>(table, &wanted(), &mut |column, value| {
            row.set(column, |out| value.write_text(out).map(drop).map_err(Failure::from))
        });
        if !more.unwrap() {
            return;
        }
        row.finish();
    }
}

/// The same text by way of `mysql_common`: it gives values and a tree, here made into text, and ignores checksums.
fn oracle(events: &[&[u8]], out: &mut Vec<u8>) {
    let mut reader = EventStreamReader::new(BinlogVersion::Version4);
    for bytes in events {
        let event = reader.read(*bytes).unwrap().unwrap();
        if let Some(EventData::RowsEvent(RowsEventData::WriteRowsEvent(data))) = event.read_data().unwrap() {
            for row in data.rows(reader.get_tme(data.table_id()).unwrap()) {
                for value in row.unwrap().1.unwrap().unwrap() {
                    write_oracle(value, out);
                }
            }
        }
    }
}

fn write_oracle(value: BinlogValue<'_>, out: &mut Vec<u8>) {
    match value {
        BinlogValue::Jsonb(json) => serde_json::to_writer(out, &serde_json::Value::try_from(json).unwrap()).unwrap(),
        BinlogValue::Value(Sql::Bytes(bytes)) => out.extend_from_slice(&bytes),
        BinlogValue::Value(Sql::Int(number)) => write!(out, "{number}").unwrap(),
        BinlogValue::Value(Sql::UInt(number)) => write!(out, "{number}").unwrap(),
        other => panic!("{other:?}"),
    }
}

/// From the log's bytes to records whose position is acknowledged: what the daemon does but for the socket, the queue
/// between two tasks, and librdkafka.
struct Relay {
    log: &'static [u8],
    mapping: Mapping,
    here: Position,
}

impl Relay {
    fn new(log: &'static [u8]) -> Self {
        let mapping = Mapping::new(Columns::default(), TopicTemplate::parse("delivery").unwrap());
        Self { log, mapping, here: Position::default() }
    }

    fn run(&self) -> u64 {
        let mut archive = Archive::new(vec![TablePattern::parse("*.*").unwrap()], Vec::new());
        archive.open("log", Box::new(self.log)).unwrap();
        let limits = Limits { batch_bytes: 256 << 10, hold_bytes: 8 << 20, halt_on_update: false };
        let mut assembler = Assembler::new([(COLUMNS, self.here.clone())], limits);
        let mut window = Window::default();
        while let Some(event) = archive.next().unwrap() {
            assembler.take(event, &self.here);
        }
        assembler.flush(&self.here);
        for (_, item) in assembler.drain() {
            let Item::Batch(batch) = item else { panic!("{item:?}") };
            self.publish(&batch, &mut window);
        }
        assert!(window.is_settled());
        window.acknowledged_records()
    }

    fn publish(&self, batch: &Batch, window: &mut Window) {
        let chunk = window.open(Arc::clone(batch.position()), 0);
        for row in batch.rows() {
            self.mapping.with_record(row, None, |record| sink(record)).unwrap();
            window.publish();
        }
        window.close();
        window.acknowledge(chunk, batch.len() as u64);
    }
}

/// Takes a result, so that the compiler does not leave its making out.
fn sink<T>(result: T) {
    black_box(result);
}

/// A name, and what runs it once over all events.
pub(crate) type Part = (&'static str, Box<dyn FnMut()>);

/// Every part, ready to run.
pub(crate) fn all() -> Vec<Part> {
    let events = events();
    let rows = parsed(&events);
    let mut documents = Vec::new();
    let count = walk(&rows, &mut |value| {
        if let ColumnValue::Value(value) = value
            && value.column().ty == ColumnType::Json
        {
            documents.push(value.bytes().to_vec());
        }
    });
    assert_eq!(count, EVENTS);
    let mut filled = BatchBuilder::new(COLUMNS);
    whole(&events, &mut filled);
    let full = filled.take(Arc::default());
    let (relay, single) = (Relay::new(LOG), Relay::new(SINGLE));
    assert_eq!((relay.run(), single.run()), (EVENTS.into(), EVENTS.into()));
    let (mut text, mut batch) = (Vec::new(), BatchBuilder::new(COLUMNS));
    let mapping = Mapping::new(Columns::default(), TopicTemplate::parse("delivery").unwrap());
    let stats = TableStats::new(TableName::new("delivery", "delivery-outbox1"));
    let (framed, decoded) = (events.clone(), events);
    vec![
        ("frame", Box::new(move || sink(frame(black_box(&framed))))),
        (
            "walk",
            Box::new(move || {
                black_box(walk(black_box(&rows), &mut |value| sink(value)));
            }),
        ),
        (
            "json",
            Box::new(move || {
                text.clear();
                for document in black_box(&documents) {
                    write_json(document, 0, &mut text).unwrap();
                }
            }),
        ),
        (
            "decode",
            Box::new(move || {
                batch.cut(Mark::START);
                whole(black_box(&decoded), black_box(&mut batch));
            }),
        ),
        (
            "record",
            Box::new(move || {
                for row in black_box(&full).rows() {
                    mapping.with_record(row, None, |record| sink(record)).unwrap();
                }
            }),
        ),
        ("window", Box::new(|| sink(in_flight(black_box(EVENTS))))),
        ("metrics", Box::new(move || (0..black_box(EVENTS)).for_each(|event| counted(&stats, event.into())))),
        ("relay-100", Box::new(move || sink(relay.run()))),
        ("relay-1", Box::new(move || sink(single.run()))),
    ]
}

/// What a relay counts for a transaction of one row that comes alone, the most that it can be for an event: what was handed over,
/// what was acknowledged and how late, and what waits, which it looks at twice.
fn counted(stats: &TableStats, micros: u64) {
    stats.bytes.fetch_add(450, Relaxed);
    stats.events.fetch_add(1, Relaxed);
    stats.delivery.observe(micros * 100, 1);
    for waiting in [1, 0] {
        stats.in_flight.store(waiting, Relaxed);
        stats.in_flight_bytes.store(450 * waiting, Relaxed);
        stats.oldest_micros.store(micros * waiting, Relaxed);
    }
}

/// Batches of ten events that are published and acknowledged in another order.
fn in_flight(events: u32) -> u64 {
    let (mut window, position) = (Window::default(), Arc::default());
    let chunks: Vec<_> = (0..events / 10)
        .map(|_| {
            let chunk = window.open(Arc::clone(&position), 0);
            (0..10).for_each(|_| window.publish());
            window.close();
            chunk
        })
        .collect();
    for chunk in chunks.into_iter().rev() {
        window.acknowledge(chunk, 10);
    }
    window.acknowledged_records()
}

/// `mysql_common`, which other programs decode with, on the same bytes; see [`oracle`].
#[allow(dead_code, reason = "only times are compared with it")]
pub(crate) fn others() -> Part {
    let (events, mut text) = (events(), Vec::new());
    let run = move || {
        text.clear();
        oracle(black_box(&events), black_box(&mut text));
    };
    ("mysql_common", Box::new(run))
}
