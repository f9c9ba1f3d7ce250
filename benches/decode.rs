//! What one outbox event costs on its way from the log's bytes to the batch that its relay reads: framing, checksum, the
//! walk over the row, and its columns, of which the payload is a nested JSON document of 450 bytes.
//!
//! `cargo bench --bench decode` measures the parts and the whole, and `mysql_common`, which other programs decode with, on
//! the same bytes in the same run: it gives values and a tree, here made into the same text, and does not look at the
//! checksum. `cargo bench --bench decode -- PART` measures one, as valgrind wants it to count instructions.
//! [docs/performance.md](../docs/performance.md) has the figures.
//!
//! The bytes are those that `MySQL` 9.7 wrote for 100 rows of one transaction.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark fails by panicking and prints its figure")]

use std::hint::black_box;
use std::io::Write;
use std::time::{Duration, Instant};

use mysql_common::binlog::EventStreamReader;
use mysql_common::binlog::consts::BinlogVersion;
use mysql_common::binlog::events::{EventData, RowsEventData};
use mysql_common::binlog::value::BinlogValue;
use mysql_common::value::Value as Sql;
use outboxd::mysql::decode::{
    Checksum, ColumnType, ColumnValue, DecodeError, Event, RowsEvent, TableMap, event_size, kind, write_json,
};
use outboxd::source::{BatchBuilder, BatchFull, Mark};

const LOG: &[u8] = include_bytes!("data/events.binlog");

const COLUMNS: usize = 5;

/// What an event may cost.
const BUDGET: Duration = Duration::from_nanos(800);

/// Runs, of which the fastest counts: the machine may be busy with others.
const RUNS: usize = 200;

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

/// The same text by way of `mysql_common`.
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

/// The fastest of the runs.
fn fastest(mut run: impl FnMut()) -> Duration {
    let time = |_| {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    (0..RUNS).map(time).min().unwrap_or_default()
}

fn main() {
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
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
    let (mut text, mut batch) = (Vec::new(), BatchBuilder::new(COLUMNS));
    let measure = |part: &str, run: &mut dyn FnMut()| {
        let each = only.as_deref().is_none_or(|only| only == part).then(|| fastest(run) / count);
        if let Some(each) = each {
            println!("{part:>8} {:>5} ns an event", each.as_nanos());
        }
        each
    };
    measure("frame", &mut || {
        black_box(frame(black_box(&events)));
    });
    measure("walk", &mut || {
        black_box(walk(black_box(&rows), &mut |value| {
            black_box(value);
        }));
    });
    measure("json", &mut || {
        text.clear();
        for document in black_box(&documents) {
            write_json(document, 0, &mut text).unwrap();
        }
    });
    let ours = measure("whole", &mut || {
        batch.cut(Mark::START);
        whole(black_box(&events), black_box(&mut batch));
    });
    let theirs = measure("oracle", &mut || {
        text.clear();
        oracle(black_box(&events), black_box(&mut text));
    });
    if let (Some(ours), Some(theirs)) = (ours, theirs) {
        let ratio = theirs.as_secs_f64() / ours.as_secs_f64();
        println!("the budget is {} ns; mysql_common takes {ratio:.1} times as long", BUDGET.as_nanos());
    }
}
