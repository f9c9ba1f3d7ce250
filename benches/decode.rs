//! What one outbox event costs on its way from the log's bytes to text: framing, checksum, the walk over the row, and its
//! columns, of which the payload is a nested JSON document of 450 bytes. `cargo bench --bench decode`
//!
//! The bytes are those that `MySQL` 9.7 wrote for 100 rows of one transaction.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark fails by panicking and prints its figure")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use outboxd::mysql::decode::{Checksum, DecodeError, Event, RowsEvent, TableMap, event_size, kind};

const LOG: &[u8] = include_bytes!("data/events.binlog");

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

/// Decodes every row to text; gives how many there were, and the bytes of the last column.
fn decode(events: &[&[u8]], out: &mut Vec<u8>) -> (u32, usize) {
    let (mut table, mut rows, mut payload) = (None, 0, 0);
    for bytes in events {
        let event = Event::parse(bytes, Checksum::Crc32).unwrap();
        match event.header.kind {
            kind::TABLE_MAP => table = Some(TableMap::parse(event.body).unwrap()),
            kind::WRITE_V2 => {
                let table = table.as_ref().unwrap();
                let wanted: [Option<usize>; 5] = std::array::from_fn(Some);
                let mut event = RowsEvent::parse(event.header.kind, event.body).unwrap();
                let mut write = |_, value: outboxd::mysql::decode::ColumnValue<'_>| {
                    let before = out.len();
                    value.write_text(out)?;
                    payload = out.len() - before;
                    Ok::<_, DecodeError>(())
                };
                while event.next_row(table, &wanted, &mut write).unwrap() {
                    rows += 1;
                }
            }
            _ => {}
        }
    }
    (rows, payload)
}

fn main() {
    let (events, mut out) = (events(), Vec::new());
    let mut fastest = Duration::MAX;
    let (mut rows, mut payload) = (0, 0);
    for _ in 0..RUNS {
        out.clear();
        let start = Instant::now();
        (rows, payload) = decode(black_box(&events), black_box(&mut out));
        fastest = fastest.min(start.elapsed());
    }
    let each = fastest / rows;
    println!(
        "{rows} rows with {payload} bytes of JSON: {} ns an event, budget {} ns",
        each.as_nanos(),
        BUDGET.as_nanos()
    );
}
