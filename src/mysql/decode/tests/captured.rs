//! Events of real servers (`binlog_row_metadata=FULL`). Those of `MySQL` 9.7 are compared with what it answered to a
//! SELECT of the same rows.

use std::fmt::Write;

use super::super::{ColumnValue, DecodeError, Dialect, RowsEvent, TableMap, WRITE_ROWS_V1, WRITE_ROWS_V2};

const TABLE_MAP: &[u8] = include_bytes!("data/mysql_9_7_table_map.bin");
const ROWS: &[u8] = include_bytes!("data/mysql_9_7_rows.bin");
const SELECTED: &str = include_str!("data/mysql_9_7_select.tsv");

/// The server's JSON without the spaces that it puts behind commas and colons.
fn compact(json: &str) -> String {
    let (mut quoted, mut escaped) = (false, false);
    json.chars()
        .filter(|&c| {
            let keep = quoted || c != ' ';
            quoted ^= c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            keep
        })
        .collect()
}

fn expected(name: &str, text: &str) -> String {
    match name {
        // The server rounds FLOAT to six digits.
        "f" if text == "123457" => "123456.79".into(),
        "j" => compact(text),
        _ => text.into(),
    }
}

fn shown(name: &str, text: &[u8]) -> String {
    if !matches!(name, "bi" | "bn" | "mb" | "vec") {
        return String::from_utf8(text.to_vec()).unwrap();
    }
    let mut hex = String::new();
    for byte in text {
        write!(hex, "{byte:02X}").unwrap();
    }
    // HEX() takes BIT for a number.
    if name == "bi" { format!("{:X}", u32::from_str_radix(&hex, 16).unwrap()) } else { hex }
}

#[test]
fn values_are_those_of_the_server() {
    let table = TableMap::parse(TABLE_MAP).unwrap();
    assert_eq!((table.schema.as_str(), table.table.as_str()), ("o", "t"));
    let names: Vec<_> = table.columns.iter().map(|column| column.name.clone().unwrap()).collect();
    let wanted: Vec<_> = (0..names.len()).map(Some).collect();
    let mut rows = RowsEvent::parse(WRITE_ROWS_V2, ROWS).unwrap();
    for line in SELECTED.lines().skip(1) {
        let line: Vec<_> = line.split('\t').collect();
        assert_eq!(line.len(), names.len());
        let more = rows.next_row::<DecodeError>(&table, &wanted, &mut |place, value| {
            let name = &names[place];
            let mut text = Vec::new();
            value.write_text(&mut text)?;
            let got = match value {
                ColumnValue::Absent => "absent".into(),
                ColumnValue::Null => "NULL".into(),
                ColumnValue::Value(_) => shown(name, &text),
            };
            assert_eq!(got, expected(name, line[place]), "{name}");
            Ok(())
        });
        assert_eq!(more, Ok(true));
    }
    assert_eq!(rows.next_row::<DecodeError>(&table, &wanted, &mut |_, _| Ok(())), Ok(false));
}

#[test]
fn mariadb_11_8() {
    let map = include_bytes!("data/mariadb_11_8_table_map.bin");
    let table = TableMap::parse_as(map, Dialect::MariaDb).unwrap();
    let wanted: Vec<_> = (0..table.columns.len()).map(Some).collect();
    let mut rows = RowsEvent::parse(WRITE_ROWS_V1, include_bytes!("data/mariadb_11_8_rows.bin")).unwrap();
    let mut texts = Vec::new();
    let mut read = |_, value: ColumnValue<'_>| {
        let mut text = Vec::new();
        value.write_text(&mut text)?;
        texts.push(text);
        Ok::<_, DecodeError>(())
    };
    assert_eq!(rows.next_row(&table, &wanted, &mut read), Ok(true));
    assert_eq!(rows.next_row(&table, &wanted, &mut read), Ok(false));
    let text = |index: usize| String::from_utf8_lossy(&texts[index]);
    assert_eq!([text(0), text(1), text(2)], ["2024", "4294967295", "-1"]);
    assert_eq!([text(4), text(5), text(6)], ["é", "", "š"]);
    // A POINT behind its SRID, and a UUID: both as the server stores them.
    assert_eq!((texts[3].len(), texts[7].len()), (25, 16));
}
