//! The same bytes through `mysql_common` and `mysql_cdc`: every value that they can read is the one that we read.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::panic::{AssertUnwindSafe, catch_unwind};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use mysql_cdc::binlog_reader::BinlogReader;
use mysql_cdc::events::binlog_event::BinlogEvent;
use mysql_cdc::events::row_events::mysql_value::MySqlValue;
use mysql_common::binlog::consts::BinlogVersion;
use mysql_common::binlog::events::{Event, EventData, RowsEventData};
use mysql_common::binlog::value::BinlogValue;
use mysql_common::binlog::{BinlogFile, EventStreamReader};
use mysql_common::value::Value as Sql;
use outboxd::mysql::decode::event_size;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::capture::base64;
use super::decode::{TABLE, decode, path, same};

/// A value of an oracle, in the form in which it gives it.
enum Theirs {
    Json(Value),
    Bytes(Vec<u8>),
    /// A time, with more digits than the column may have.
    Time(String),
    /// A number of so many bits, of which it does not know the sign.
    Bits(u64, u32),
    /// Milliseconds since the Unix epoch.
    Millis(i128),
    /// With less digits than it has, or as its parts.
    Other,
    Null,
}

/// Rows of the outbox, by where their event begins.
type Rows = HashMap<u64, Vec<Vec<Theirs>>>;

/// Columns in the order of the table.
struct Columns(Vec<Value>);

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Columns;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("columns")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Columns, A::Error> {
                let mut columns = Vec::new();
                while let Some((_, value)) = map.next_entry::<String, Value>()? {
                    columns.push(value);
                }
                Ok(Columns(columns))
            }
        }

        from.deserialize_map(InOrder)
    }
}

#[derive(serde::Deserialize)]
struct Line {
    position: String,
    columns: Columns,
}

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

/// Whether two values are the same; `None` if the oracle does not convert what we do, a character set.
fn agree(ours: &Value, theirs: &Theirs) -> Option<bool> {
    let is_text = |bytes: &[u8], ours: &str| std::str::from_utf8(bytes).ok().map(|theirs| theirs == ours);
    Some(match (ours, theirs) {
        (Value::Null, Theirs::Null) => true,
        // It does not know the sign of MEDIUMINT.
        (ours, Theirs::Json(theirs))
            if ours.as_i64().is_some_and(|ours| ours < 0 && Some(ours + (1 << 24)) == theirs.as_i64()) =>
        {
            true
        }
        (ours, Theirs::Json(theirs)) => same(ours, theirs),
        (Value::String(ours), Theirs::Time(theirs)) => theirs.starts_with(ours.as_str()),
        (Value::Number(ours), Theirs::Bits(theirs, bits)) => {
            let ours = ours.as_i64().map_or_else(|| ours.as_u64().unwrap(), i64::cast_unsigned);
            let mask = u64::MAX >> (64 - bits);
            ours & mask == theirs & mask
        }
        // The bits of a SET.
        (Value::Number(ours), Theirs::Bytes(theirs)) => {
            ours.as_u64() == Some(theirs.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
        }
        // JSON it gives in its binary form.
        (Value::Object(ours), Theirs::Bytes(theirs)) => return ours.get("base64").map(|ours| *ours == base64(theirs)),
        (Value::Array(_) | Value::Bool(_), Theirs::Bytes(_)) | (_, Theirs::Other) => return None,
        (Value::String(ours), Theirs::Bytes(theirs)) => match stamp(ours).map(|ours| (ours, seconds(theirs))) {
            Some((ours, Some(theirs))) => ours == theirs,
            // It does not fill up BINARY with the zeros that the log leaves out.
            _ if ours.trim_end_matches('\0').as_bytes() == theirs => true,
            _ => return is_text(theirs, ours).filter(|same| *same || theirs.is_ascii() && !theirs.contains(&0)),
        },
        (Value::String(ours), Theirs::Millis(theirs)) => stamp(ours).unwrap() / 1000 == *theirs,
        _ => false,
    })
}

/// Microseconds since the Unix epoch.
fn stamp(text: &str) -> Option<i128> {
    let at: DateTime = text.parse().ok().filter(|_| text.contains(':'))?;
    Some(at.to_zoned(TimeZone::UTC).ok()?.timestamp().as_nanosecond() / 1000)
}

fn seconds(text: &[u8]) -> Option<i128> {
    let text = std::str::from_utf8(text).ok()?;
    let (seconds, micros) = text.split_once('.').unwrap_or((text, ""));
    Some(seconds.parse::<i128>().ok()? * 1_000_000 + format!("{micros:0<6}").parse::<i128>().ok()?)
}

/// Compares our rows with those of an oracle; gives how many values were compared.
fn compare(oracle: &str, name: &str, theirs: &Rows) -> usize {
    let output = decode(&[name], "");
    let mut ours: HashMap<u64, Vec<Vec<Value>>> = HashMap::new();
    for line in std::str::from_utf8(&output.stdout).unwrap().lines() {
        let Line { position, columns: Columns(columns) } = serde_json::from_str(line).unwrap();
        ours.entry(position.rsplit_once(':').unwrap().1.parse().unwrap()).or_default().push(columns);
    }
    let mut compared = 0;
    for (at, ours) in ours {
        // Where a row could not be decoded, that is said, and tested elsewhere.
        let Some(theirs) = theirs.get(&at).filter(|theirs| theirs.len() == ours.len()) else { continue };
        for (ours, theirs) in ours.iter().zip(theirs) {
            assert_eq!(ours.len(), theirs.len(), "{oracle} {name}:{at}");
            for (number, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                let Some(agreed) = agree(ours, theirs) else { continue };
                assert!(agreed, "{oracle} {name}:{at} column {}: {ours}", number + 1);
                compared += 1;
            }
        }
    }
    compared
}

fn common(value: BinlogValue<'_>) -> Theirs {
    let sql = match value {
        BinlogValue::Jsonb(json) => return Theirs::Json(Value::try_from(json).unwrap()),
        BinlogValue::JsonDiff(_) => unreachable!("only rows that were inserted"),
        BinlogValue::Value(sql) => sql,
    };
    match sql {
        Sql::NULL => Theirs::Null,
        Sql::Bytes(bytes) => Theirs::Bytes(bytes),
        Sql::Int(number) => Theirs::Json(number.into()),
        Sql::UInt(number) => Theirs::Json(number.into()),
        Sql::Float(number) => Theirs::Json(number.into()),
        Sql::Double(number) => Theirs::Json(number.into()),
        Sql::Date(year, month, day, hour, minute, second, micros) => {
            Theirs::Time(format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06}"))
        }
        Sql::Time(negative, days, hours, minute, second, micros) => {
            let (sign, hours) = (if negative { "-" } else { "" }, days * 24 + u32::from(hours));
            Theirs::Time(format!("{sign}{hours:02}:{minute:02}:{second:02}.{micros:06}"))
        }
    }
}

/// The rows of an event, if it has rows of the outbox and `mysql_common` can read them.
fn common_rows(reader: &EventStreamReader, event: &Event) -> Vec<Vec<Theirs>> {
    let Ok(Some(EventData::RowsEvent(data))) = event.read_data() else { return Vec::new() };
    let data = match data {
        RowsEventData::WriteRowsEvent(data) => RowsEventData::WriteRowsEvent(data),
        RowsEventData::WriteRowsEventV1(data) => RowsEventData::WriteRowsEventV1(data),
        _ => return Vec::new(),
    };
    let Some(table) = reader.get_tme(data.table_id()).filter(|table| table.table_name() == TABLE) else {
        return Vec::new();
    };
    let read = |row: mysql_common::binlog::row::BinlogRow| row.unwrap().into_iter().map(common).collect();
    // On some values it panics, such as a negative TIME with a fraction.
    let rows = || data.rows(table).map(|row| read(row.unwrap().1.unwrap())).collect();
    catch_unwind(AssertUnwindSafe(rows)).unwrap_or_default()
}

fn by_mysql_common(name: &str) -> Rows {
    let mut file = BinlogFile::new(BinlogVersion::Version4, BufReader::new(File::open(path(name)).unwrap())).unwrap();
    let mut rows = Rows::new();
    for at in offsets(name) {
        let Some(Ok(event)) = file.next() else { break };
        let mut found = common_rows(file.reader(), &event);
        if let Ok(Some(EventData::TransactionPayloadEvent(payload))) = event.read_data() {
            let mut inner = payload.decompressed().unwrap();
            while inner.has_data_left().unwrap() {
                let event = file.reader_mut().read_decompressed(&mut inner).unwrap().unwrap();
                found.extend(common_rows(file.reader(), &event));
            }
        }
        rows.insert(at, found);
    }
    rows
}

fn cdc(value: Option<MySqlValue>) -> Theirs {
    match value {
        None => Theirs::Null,
        Some(MySqlValue::TinyInt(number)) => Theirs::Bits(number.into(), 8),
        Some(MySqlValue::SmallInt(number)) => Theirs::Bits(number.into(), 16),
        Some(MySqlValue::MediumInt(number)) => Theirs::Bits(number.into(), 24),
        Some(MySqlValue::Int(number)) => Theirs::Bits(number.into(), 32),
        Some(MySqlValue::BigInt(number) | MySqlValue::Set(number)) => Theirs::Bits(number, 64),
        Some(MySqlValue::Enum(number)) => Theirs::Json(number.into()),
        Some(MySqlValue::Float(number)) => Theirs::Json(number.into()),
        Some(MySqlValue::Double(number)) => Theirs::Json(number.into()),
        Some(MySqlValue::Decimal(text) | MySqlValue::String(text)) => Theirs::Bytes(text.into_bytes()),
        Some(MySqlValue::Blob(bytes)) => Theirs::Bytes(bytes),
        Some(MySqlValue::Year(year)) => Theirs::Bytes(year.to_string().into_bytes()),
        Some(MySqlValue::Date(date)) => Theirs::Time(format!("{:04}-{:02}-{:02}", date.year, date.month, date.day)),
        Some(MySqlValue::Timestamp(millis)) => Theirs::Millis(millis.into()),
        Some(MySqlValue::Time(_) | MySqlValue::DateTime(_) | MySqlValue::Bit(_)) => Theirs::Other,
    }
}

fn by_mysql_cdc(name: &str) -> Rows {
    let mut rows = Rows::new();
    let mut reader = BinlogReader::new(File::open(path(name)).unwrap()).unwrap();
    let mut tables = BTreeSet::new();
    for at in offsets(name) {
        // What it cannot read it says, or panics; what follows it reads again.
        let Ok(Ok((_, event))) = catch_unwind(AssertUnwindSafe(|| reader.read_event())) else { continue };
        match event {
            BinlogEvent::TableMapEvent(table) if table.table_name == TABLE => drop(tables.insert(table.table_id)),
            BinlogEvent::WriteRowsEvent(event) if tables.contains(&event.table_id) => {
                let row = |cells: Vec<Option<MySqlValue>>| cells.into_iter().map(cdc).collect();
                rows.insert(at, event.rows.into_iter().map(|data| row(data.cells)).collect());
            }
            _ => {}
        }
    }
    rows
}

/// Cases of which `mysql_common` reads nothing.
const UNKNOWN_TO_MYSQL_COMMON: [&str; 1] = ["compressed_events"];

/// The same of `mysql_cdc`: it knows no compression, and stops at text that is no UTF-8.
const UNKNOWN_TO_MYSQL_CDC: [&str; 5] =
    ["compressed_events", "payload_without_checksum", "json", "character_sets", "metadata_minimal"];

#[test]
fn given_every_file_when_other_decoders_read_it_then_they_read_the_same_values() {
    let files = std::fs::read_dir(path("")).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let whole = |name: &String| name.ends_with(".binlog") && !name.contains("damaged") && !name.contains("truncated");
    for name in files.filter(whole) {
        let known = |cases: &[&str]| !cases.iter().any(|case| name.ends_with(&format!("_{case}.binlog")));
        let compared = compare("mysql_common", &name, &by_mysql_common(&name));
        assert_eq!(compared > 0, known(&UNKNOWN_TO_MYSQL_COMMON), "mysql_common {name}: {compared} values");
        let compared = compare("mysql_cdc", &name, &by_mysql_cdc(&name));
        assert_eq!(compared > 0, known(&UNKNOWN_TO_MYSQL_CDC), "mysql_cdc {name}: {compared} values");
    }
}
