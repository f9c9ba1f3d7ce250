//! The same bytes through `mysql_common` and `mysql_cdc`: every value that they can read is the one that we read.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;

use mysql_cdc::binlog_reader::BinlogReader;
use mysql_cdc::events::binlog_event::BinlogEvent;
use mysql_cdc::events::row_events::mysql_value::MySqlValue;
use mysql_cdc::events::row_events::row_data::RowData;
use mysql_common::binlog::BinlogFile;
use mysql_common::binlog::consts::BinlogVersion;
use mysql_common::binlog::events::{EventData, RowsEventData};
use mysql_common::binlog::value::BinlogValue;
use mysql_common::value::Value as Sql;
use outboxd::mysql::decode::event_size;
use serde_json::{Value, json};

use crate::decode::{decoded, path};

/// A row of an oracle: texts and numbers as JSON, `None` where it has another form that is not compared.
type Row = Vec<Option<Value>>;

/// Where the events of a file begin.
fn offsets(name: &str) -> Vec<u64> {
    let bytes = std::fs::read(path(name)).unwrap();
    let (mut at, mut offsets) = (4, Vec::new());
    while at < bytes.len() {
        offsets.push(at as u64);
        at += event_size(&bytes[at..]).unwrap() as usize;
    }
    offsets
}

/// Where the event of a line begins.
fn begin(line: &Value) -> u64 {
    line["position"].as_str().unwrap().rsplit_once(':').unwrap().1.parse().unwrap()
}

/// Compares our rows with those of an oracle by where their event begins; gives how many values were compared.
fn compare(name: &str, theirs: &HashMap<u64, Vec<Row>>) -> usize {
    let (mut before, mut index, mut compared) = (0, 0, 0);
    for line in decoded(name) {
        let at = begin(&line);
        index = if at == before { index + 1 } else { 0 };
        before = at;
        let Some(row) = theirs.get(&at).and_then(|rows| rows.get(index)) else { continue };
        let columns = line["columns"].as_object().unwrap();
        assert_eq!(columns.len(), row.len(), "{name}:{at}");
        for (number, theirs) in row.iter().enumerate() {
            let Some(theirs) = theirs else { continue };
            let ours = &columns[&format!("c{}", number + 1)];
            compared += 1;
            let same = match (ours, theirs) {
                (Value::String(ours), Value::String(theirs)) => theirs.starts_with(ours.as_str()),
                (Value::Number(ours), Value::Number(theirs)) if ours.is_f64() => ours.as_f64() == theirs.as_f64(),
                _ => ours == theirs,
            };
            assert!(same, "{name}:{at} column {}: {ours} is not {theirs}", number + 1);
        }
    }
    compared
}

fn common(value: Option<BinlogValue<'_>>) -> Option<Value> {
    let sql = match value {
        None => return None,
        Some(BinlogValue::Jsonb(json)) => return Some(Value::try_from(json).unwrap()),
        Some(BinlogValue::JsonDiff(_)) => unreachable!("only rows that were inserted"),
        Some(BinlogValue::Value(sql)) => sql,
    };
    match sql {
        Sql::NULL => Some(Value::Null),
        Sql::Bytes(bytes) => String::from_utf8(bytes).ok().map(Value::String),
        Sql::Int(number) => Some(json!(number)),
        Sql::UInt(number) => Some(json!(number)),
        Sql::Float(number) => Some(json!(number)),
        Sql::Double(number) => Some(json!(number)),
        // With all digits of the fraction and a time of day, of which a column may have fewer.
        Sql::Date(year, month, day, hour, minute, second, micros) => {
            Some(json!(format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06}")))
        }
        Sql::Time(negative, days, hours, minute, second, micros) => {
            let (sign, hours) = (if negative { "-" } else { "" }, days * 24 + u32::from(hours));
            Some(json!(format!("{sign}{hours:02}:{minute:02}:{second:02}.{micros:06}")))
        }
    }
}

/// TIMESTAMP, which `mysql_common` gives as seconds.
const STAMPED: usize = 4;
/// SET of three, whose byte it gives.
const FLAGS: usize = 13;
/// VARCHAR of latin1, whose bytes it gives.
const LATIN: usize = 14;

#[test]
fn given_files_of_mysql_when_mysql_common_reads_them_then_it_reads_the_same_values() {
    let name = "mysql_9_7_minimal.binlog";
    let mut file = BinlogFile::new(BinlogVersion::Version4, BufReader::new(File::open(path(name)).unwrap())).unwrap();
    // On a negative TIME with a fraction it panics.
    let negative = |line: &Value| line["columns"]["c11"].as_str().is_some_and(|time| time.starts_with('-'));
    let skipped: Vec<u64> = decoded(name).iter().filter(|line| negative(line)).map(begin).collect();
    let mut rows = HashMap::new();
    for at in offsets(name) {
        let event = file.next().unwrap().unwrap();
        if skipped.contains(&at) {
            continue;
        }
        if let Some(EventData::RowsEvent(RowsEventData::WriteRowsEvent(data))) = event.read_data().unwrap() {
            let table = file.reader().get_tme(data.table_id()).unwrap();
            let read = |row: Option<mysql_common::binlog::row::BinlogRow>| {
                let mut values: Row = row.unwrap().unwrap().into_iter().map(|value| common(Some(value))).collect();
                if let Some(Some(Value::String(bits))) = values.get(FLAGS) {
                    values[FLAGS] = Some(json!(bits.as_bytes().first().copied().unwrap_or_default()));
                }
                for special in [STAMPED, LATIN] {
                    if let Some(value) = values.get_mut(special).filter(|value| **value != Some(Value::Null)) {
                        *value = None;
                    }
                }
                values
            };
            rows.insert(at, data.rows(table).map(|row| read(row.unwrap().1)).collect());
        }
    }
    assert!(compare(name, &rows) > 80);
}

fn cdc(value: Option<MySqlValue>) -> Option<Value> {
    Some(match value {
        None => Value::Null,
        Some(MySqlValue::BigInt(number) | MySqlValue::Set(number)) => json!(number),
        Some(MySqlValue::MediumInt(number) | MySqlValue::Enum(number)) => json!(number),
        Some(MySqlValue::Double(number)) => json!(number),
        Some(MySqlValue::Decimal(text) | MySqlValue::String(text)) => json!(text),
        Some(MySqlValue::Year(year)) => json!(year.to_string()),
        // It has no sign for TINYINT, milliseconds only, and the binary form of JSON.
        Some(_) => return None,
    })
}

#[test]
fn given_files_of_both_servers_when_mysql_cdc_reads_them_then_it_reads_the_same_values() {
    for name in ["mysql_9_7_minimal.binlog", "mariadb_11_8_no_log.binlog"] {
        let mut rows = HashMap::new();
        let mut reader = BinlogReader::new(File::open(path(name)).unwrap()).unwrap();
        for at in offsets(name) {
            // It cannot read latin1 and a negative TIME, and says so; what follows it reads again.
            if let Ok((_, BinlogEvent::WriteRowsEvent(event))) = reader.read_event() {
                let read = |row: RowData| row.cells.into_iter().map(cdc).collect();
                rows.insert(at, event.rows.into_iter().map(read).collect::<Vec<Row>>());
            }
        }
        assert!(compare(name, &rows) > 50, "{name}");
    }
}
