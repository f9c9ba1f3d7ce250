use std::fmt::Write;

use super::super::{ColumnValue, DecodeError, RowsEvent, TableMap};
use super::table_map;

/// id BIGINT UNSIGNED, payload VARCHAR(20) utf8mb4, note TEXT utf8mb4
fn table() -> TableMap {
    TableMap::parse(&table_map(&[8, 15, 252], &[80, 0, 2], &[6], &[1, 1, 0x80, 2, 1, 45])).unwrap()
}

fn event(v2: bool, present: u8, rows: &[u8]) -> Vec<u8> {
    let mut body = vec![7, 0, 0, 0, 0, 0, 1, 0];
    if v2 {
        body.extend([5, 0, 1, 2, 3]);
    }
    body.extend([3, present]);
    body.extend_from_slice(rows);
    body
}

fn read(type_code: u8, body: &[u8], wanted: &[Option<usize>]) -> Result<Vec<String>, DecodeError> {
    let table = table();
    let mut rows = RowsEvent::parse(type_code, body)?;
    let mut seen = Vec::new();
    loop {
        let mut row = String::new();
        let more = rows.next_row::<DecodeError>(&table, wanted, &mut |place, value| {
            let mut text = Vec::new();
            value.write_text(&mut text)?;
            let text = match value {
                ColumnValue::Absent => "absent".into(),
                ColumnValue::Null => "null".into(),
                ColumnValue::Value(_) => String::from_utf8(text).unwrap(),
            };
            write!(row, "{place}={text};").unwrap();
            Ok(())
        })?;
        if !more {
            return Ok(seen);
        }
        seen.push(row);
    }
}

const ROWS: &[u8] = b"\x00\xff\xff\xff\xff\xff\xff\xff\xff\x02hi\x03\x00abc\x06\x01\0\0\0\0\0\0\0";

#[test]
fn both_versions() {
    let wanted = [Some(1), Some(0), Some(2)];
    let expected = ["1=18446744073709551615;0=hi;2=abc;", "1=1;0=null;2=null;"];
    assert_eq!(read(30, &event(true, 7, ROWS), &wanted).unwrap(), expected);
    assert_eq!(read(23, &event(false, 7, ROWS), &wanted).unwrap(), expected);
    assert_eq!(read(23, &event(false, 7, ROWS), &[None, None, Some(0)]).unwrap(), ["0=abc;", "0=null;"]);
    assert_eq!(read(23, &event(false, 7, ROWS), &[]).unwrap(), ["", ""]);
}

#[test]
fn absent_is_not_null() {
    let wanted = [Some(0), Some(1), Some(2)];
    let rows = b"\x02\x01\0\0\0\0\0\0\0";
    assert_eq!(read(30, &event(true, 5, rows), &wanted).unwrap(), ["0=1;1=absent;2=null;"]);
    assert_eq!(read(30, &event(true, 0, &[]), &wanted), Err(DecodeError::EmptyImage { table_id: 7 }));
}

#[test]
fn cut_rows() {
    let wanted = [Some(0), Some(1), Some(2)];
    for end in 1..ROWS.len() {
        let whole = end == 17;
        assert_eq!(read(30, &event(true, 7, &ROWS[..end]), &wanted).is_ok(), whole, "{end}");
    }
}

#[test]
fn an_error_ends_the_event() {
    let table = table();
    let body = event(true, 7, ROWS);
    let mut rows = RowsEvent::parse(30, &body).unwrap();
    let stop = DecodeError::NotWriteRows { code: 0 };
    let got = rows.next_row(&table, &[Some(0)], &mut |_, _| Err(stop.clone()));
    assert_eq!(got, Err(stop));
    assert!(rows.rest().is_empty());
}

#[test]
fn other_events() {
    assert_eq!(RowsEvent::parse(31, &[]).unwrap_err(), DecodeError::NotWriteRows { code: 31 });
    assert_eq!(RowsEvent::parse(166, &[]).unwrap_err(), DecodeError::NotWriteRows { code: 166 });
    let short = RowsEvent::parse(30, &[7, 0, 0, 0, 0, 0, 1, 0, 1, 0, 3, 7]).unwrap_err();
    assert_eq!(short, DecodeError::BadExtraData { length: 1 });
    let other = TableMap { table_id: 8, ..table() };
    let body = event(true, 7, ROWS);
    let mut rows = RowsEvent::parse(30, &body).unwrap();
    let got = rows.next_row::<DecodeError>(&other, &[], &mut |_, _| Ok(()));
    assert!(matches!(got, Err(DecodeError::WrongTable { rows_id: 7, table_id: 8, .. })));
}
