//! How a table's columns are asked for, so that a SELECT answers what the log's decoder writes.
//!
//! Rows are read in the order in which they were inserted where the table numbers them (`AUTO_INCREMENT`, with a unique index
//! of its own), and in that of the primary key otherwise, which need not be that of time.
//!
//! Promise: a row read from the table becomes the same record, byte for byte, as the same row read from the log. What a
//! SELECT would show otherwise is converted: by the server where it can, here where it cannot (numbers in floating point,
//! JSON). Tests compare the two for every type.

use std::io::Write as _;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row, Value};

use crate::mysql::decode::write_float;
use crate::mysql::indexes::Indexes;
use crate::position::{Key, Scan};
use crate::source::{Fault, Subscription};
use crate::table::{TableName, quote};

/// A table, and what is asked of it.
#[derive(Debug, Clone)]
pub(in crate::mysql) struct Layout {
    pub(in crate::mysql) table: TableName,
    /// The subscription's columns, and behind them those of the primary key that are not among them.
    pub(in crate::mysql) columns: Vec<Asked>,
    /// How many of them the subscription has.
    pub(super) wanted: usize,
    /// The index by which rows are read: that of the numbers which rows get as they are inserted, or the primary key.
    index: String,
    /// Its columns.
    pub(in crate::mysql) key: Vec<KeyColumn>,
}

/// One column.
#[derive(Debug, Clone)]
pub(in crate::mysql) struct Asked {
    pub(super) name: String,
    /// What is selected.
    pub(in crate::mysql) expression: String,
    is_json: bool,
}

/// One column of the key.
#[derive(Debug, Clone)]
pub(in crate::mysql) struct KeyColumn {
    /// Its name, quoted, behind that of the table.
    pub(in crate::mysql) name: String,
    /// Its place among the columns that are asked for.
    pub(in crate::mysql) place: usize,
    /// A value of it as a parameter that compares with the column.
    pub(in crate::mysql) parameter: String,
    /// The same beside no column, so with the column's collation.
    pub(super) alone: String,
    given: Given,
}

/// How a parameter is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    Text,
    Signed,
    Unsigned,
    /// In hexadecimal digits.
    Hex,
}

/// A column as the server's dictionary describes it.
struct Defined {
    name: String,
    data_type: String,
    column_type: String,
    charset: Option<String>,
    collation: Option<String>,
}

/// A line of `information_schema.COLUMNS`, in the order of the fields of [`Defined`].
type Answer = (String, String, String, Option<String>, Option<String>);

/// The name of the table in every statement.
pub(in crate::mysql) const ALIAS: &str = "o";

impl Layout {
    /// Asks the server. A table whose rows have no order that can be resumed is a fault. Rows that were read by columns of
    /// the names that are saved are read by them further, if they can be.
    pub(in crate::mysql) async fn read(
        conn: &mut Conn,
        wanted: &Subscription,
        saved: Option<&Key>,
    ) -> Result<Result<Self, Fault>, Error> {
        let defined = Defined::read(conn, &wanted.table).await?;
        let indexes = Indexes::read(conn, &wanted.table).await?;
        let (index, key) = indexes.reading(saved);
        Ok(Self::of(wanted, &defined, index.to_owned(), &key))
    }

    fn of(wanted: &Subscription, defined: &[Defined], index: String, key: &[String]) -> Result<Self, Fault> {
        let mut columns = asked(wanted, defined)?;
        let table = wanted.table.clone();
        let fault = |name, detail: String| Fault { name, detail, at: wanted.table.to_string() };
        if key.is_empty() {
            let detail = format!(
                "start = \"snapshot\" and cleaning read the table by its primary key, and it has none: ALTER TABLE {} ADD \
                 PRIMARY KEY, or start = \"earliest\" or \"now\"",
                wanted.table.quoted()
            );
            return Err(fault("no_primary_key", detail));
        }
        let wanted = columns.len();
        let mut parts = Vec::new();
        for name in key {
            let place = columns.iter().position(|asked| asked.name.eq_ignore_ascii_case(name));
            let place = place.unwrap_or(columns.len());
            let part = find(defined, name).and_then(|defined| defined.key(place)).ok_or_else(|| {
                let kind = find(defined, name).map_or("unknown", |defined| &defined.column_type);
                let detail = format!(
                    "the primary key has column `{name}` {kind}, whose values are no place to resume at; start = \
                     \"earliest\" or \"now\""
                );
                fault("no_primary_key", detail)
            })?;
            if place == columns.len() {
                columns.extend(find(defined, name).map(Defined::asked));
            }
            parts.push(part);
        }
        Ok(Self { table, columns, wanted, index, key: parts })
    }

    fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.key.iter().map(|part| self.columns[part.place].name.as_str())
    }

    /// A scan of rows up to this key.
    pub(super) fn scan(&self, until: Key) -> Scan {
        Scan::new(until).with_columns(Key::new(self.names().map(|name| name.as_bytes().into())))
    }

    /// Why a scan cannot go on by this key, if it cannot.
    pub(super) fn refuses(&self, scan: &Scan) -> Option<String> {
        let fits = |key: &Key| {
            key.columns().len() == self.key.len()
                && self.key.iter().zip(key.columns()).all(|(part, value)| part.takes(value))
        };
        let is_same = scan.by.as_ref().is_none_or(|saved| saved.is_named(self.names()));
        if is_same && fits(&scan.until) && scan.last.as_ref().is_none_or(fits) {
            return None;
        }
        let saved = scan.by.as_ref().map_or_else(|| format!("a key with values as {}", scan.until), Key::to_string);
        Some(format!(
            "its rows were read in the order of {saved}, and the key that they can be read by now is {}; give the table its \
             key back, or have it read anew: outboxd position set {} --to table",
            self.names().collect::<Vec<_>>().join(","),
            self.table
        ))
    }

    /// The key out of a row's values, which are in the order of the columns.
    pub(super) fn key_of<'v>(&self, value: impl Fn(usize) -> Option<&'v [u8]>) -> Key {
        Key::new(self.key.iter().map(|part| value(part.place).unwrap_or_default().into()))
    }

    /// The condition that a row's key comes behind this one, or with `not` that it does not.
    pub(super) fn behind(&self, key: &Key, not: bool, parameters: &mut Vec<Value>) -> String {
        let parts: Vec<_> = self.key.iter().map(|part| (part.name.as_str(), part.parameter.as_str())).collect();
        self.compare(&parts, key, not, parameters)
    }

    fn compare(&self, parts: &[(&str, &str)], key: &Key, not: bool, parameters: &mut Vec<Value>) -> String {
        let values: Vec<Value> = self.key.iter().zip(key.columns()).map(|(part, value)| part.value(value)).collect();
        let mut choices = Vec::new();
        for (last, (name, parameter)) in parts.iter().enumerate().take(values.len()) {
            let mut all: Vec<String> = parts[..last].iter().map(|(name, value)| format!("{name} = {value}")).collect();
            parameters.extend_from_slice(&values[..=last]);
            let sign = match not {
                false => ">",
                true if last + 1 == parts.len() => "<=",
                true => "<",
            };
            all.push(format!("{name} {sign} {parameter}"));
            choices.push(format!("({})", all.join(" AND ")));
        }
        format!("({})", choices.join(" OR "))
    }

    /// Whether `one` comes behind `other`, as an expression without a row.
    pub(super) fn one_behind(&self, one: &Key, other: &Key, parameters: &mut Vec<Value>) -> String {
        // Every value of `one` stands where it is compared, so the parameters are in the order of the text.
        let mut choices = Vec::new();
        let value = |index: usize, key: &Key| {
            self.key.get(index).zip(key.columns().nth(index)).map(|(part, value)| part.value(value))
        };
        for last in 0..self.key.len() {
            let mut all = Vec::new();
            for index in 0..=last {
                parameters.extend(value(index, one));
                parameters.extend(value(index, other));
                let sign = if index == last { ">" } else { "=" };
                let alone = &self.key[index].alone;
                all.push(format!("{alone} {sign} {alone}"));
            }
            choices.push(format!("({})", all.join(" AND ")));
        }
        format!("({})", choices.join(" OR "))
    }

    /// The key's columns, for ORDER BY.
    pub(super) fn order(&self, direction: &str) -> String {
        self.key.iter().map(|part| format!("{} {direction}", part.name)).collect::<Vec<_>>().join(", ")
    }

    /// The table, read by its key.
    pub(in crate::mysql) fn from(&self) -> String {
        format!("FROM {} AS {ALIAS} FORCE INDEX ({})", self.table.quoted(), quote(&self.index))
    }

    /// What is selected of the key's columns.
    pub(in crate::mysql) fn keys(&self) -> String {
        let expressions = self.key.iter().map(|part| self.columns[part.place].expression.as_str());
        expressions.collect::<Vec<_>>().join(", ")
    }

    /// The key in a row that has these alone.
    pub(in crate::mysql) fn key_in(&self, row: Row) -> Key {
        self.key_with(row.unwrap().iter())
    }

    /// The key with these values of its columns.
    pub(super) fn key_with<'v>(&self, values: impl Iterator<Item = &'v Value>) -> Key {
        Key::new(values.zip(&self.key).map(|(value, part)| {
            let mut text = Vec::new();
            self.columns[part.place].write(value, &mut text);
            text.into_boxed_slice()
        }))
    }

    /// What is selected of every column.
    pub(super) fn expressions(&self) -> String {
        self.columns.iter().map(|asked| asked.expression.as_str()).collect::<Vec<_>>().join(", ")
    }
}

impl KeyColumn {
    /// A value as a parameter.
    pub(in crate::mysql) fn value(&self, text: &[u8]) -> Value {
        let number = || str::from_utf8(text).ok();
        match self.given {
            // MySQL takes a text that is cast for a signed number, and cuts what is beyond.
            Given::Signed => number().and_then(|text| text.parse().ok()).map(Value::Int),
            Given::Unsigned => number().and_then(|text| text.parse().ok()).map(Value::UInt),
            Given::Hex => Some(Value::Bytes(text.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect())),
            Given::Text => None,
        }
        .unwrap_or_else(|| Value::Bytes(text.to_vec()))
    }

    /// Whether a value can be one of the column. The key of an empty table has nothing for one.
    fn takes(&self, text: &[u8]) -> bool {
        let is_number = matches!(self.given, Given::Signed | Given::Unsigned);
        text.is_empty() || !is_number || matches!(self.value(text), Value::Int(_) | Value::UInt(_))
    }
}

/// What is asked of a table for the columns that are wanted.
pub(in crate::mysql) async fn ask(conn: &mut Conn, wanted: &Subscription) -> Result<Result<Vec<Asked>, Fault>, Error> {
    Ok(asked(wanted, &Defined::read(conn, &wanted.table).await?))
}

fn asked(wanted: &Subscription, defined: &[Defined]) -> Result<Vec<Asked>, Fault> {
    let fault = |name, detail: String| Fault { name, detail, at: wanted.table.to_string() };
    if defined.is_empty() {
        return Err(fault("table_missing", "there is no such table, or SELECT on it is not granted".to_owned()));
    }
    let ask = |name: &String| {
        let missing = || fault("missing_column", format!("the table has no column `{name}`; add it, or name another"));
        find(defined, name).map(Defined::asked).ok_or_else(missing)
    };
    wanted.columns.iter().map(ask).collect()
}

fn find<'d>(defined: &'d [Defined], name: &str) -> Option<&'d Defined> {
    defined.iter().find(|defined| defined.name.eq_ignore_ascii_case(name))
}

impl Asked {
    /// Appends a value that the server answered, as the log's decoder writes it; `false` for NULL.
    pub(in crate::mysql) fn write(&self, value: &Value, out: &mut Vec<u8>) -> bool {
        match value {
            Value::NULL => return false,
            Value::Bytes(bytes) if self.is_json => write_compact(bytes, out),
            Value::Bytes(bytes) => out.extend_from_slice(bytes),
            Value::Int(number) => _ = write!(out, "{number}"),
            Value::UInt(number) => _ = write!(out, "{number}"),
            Value::Float(number) => _ = write_float(out, *number, ""),
            Value::Double(number) => _ = write_float(out, *number, ""),
            // They are asked for as text.
            Value::Date(..) | Value::Time(..) => {
                out.extend_from_slice(value.as_sql(true).trim_matches('\'').as_bytes());
            }
        }
        true
    }
}

/// JSON as the server prints it, without the blanks between its parts.
fn write_compact(text: &[u8], out: &mut Vec<u8>) {
    let (mut quoted, mut escaped) = (false, false);
    for &byte in text {
        if !quoted && byte == b' ' {
            continue;
        }
        out.push(byte);
        quoted = if byte == b'"' && !escaped { !quoted } else { quoted };
        escaped = quoted && byte == b'\\' && !escaped;
    }
}

impl From<Answer> for Defined {
    fn from((name, data_type, column_type, charset, collation): Answer) -> Self {
        let (data_type, column_type) = (data_type.to_lowercase(), column_type.to_lowercase());
        Self { name, data_type, column_type, charset, collation }
    }
}

impl Defined {
    /// The columns of a table, in their order; none if it is not there.
    async fn read(conn: &mut Conn, table: &TableName) -> Result<Vec<Self>, Error> {
        let rows: Vec<Answer> = conn
            .exec(
                "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, CHARACTER_SET_NAME, COLLATION_NAME FROM \
                 information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION",
                (table.schema(), table.table()),
            )
            .await?;
        Ok(rows.into_iter().map(Self::from).collect())
    }

    fn asked(&self) -> Asked {
        let column = format!("{ALIAS}.{}", quote(&self.name));
        let expression = match self.data_type.as_str() {
            "year" | "date" | "datetime" | "time" | "timestamp" | "json" | "uuid" => format!("CAST({column} AS CHAR)"),
            "enum" | "set" => format!("CAST({column} AS UNSIGNED)"),
            "inet4" => format!("CAST({column} AS BINARY(4))"),
            "inet6" => format!("CAST({column} AS BINARY(16))"),
            "decimal" if self.column_type.contains("zerofill") => format!("{column} + 0"),
            _ => column,
        };
        Asked { name: self.name.clone(), expression, is_json: self.data_type == "json" }
    }

    /// The column as part of a key, at this place among those asked for; `None` when its values do not order or read back
    /// exactly.
    fn key(&self, place: usize) -> Option<KeyColumn> {
        let unsigned = self.column_type.contains("unsigned");
        let (parameter, given) = match self.data_type.as_str() {
            "tinyint" | "smallint" | "mediumint" | "int" | "bigint" if !unsigned => ("?", Given::Signed),
            "tinyint" | "smallint" | "mediumint" | "int" | "bigint" => ("?", Given::Unsigned),
            "year" | "enum" | "set" => ("CAST(? AS UNSIGNED)", Given::Text),
            "decimal" => ("CAST(? AS DECIMAL(65,30))", Given::Text),
            "date" => ("CAST(? AS DATE)", Given::Text),
            "datetime" | "timestamp" => ("CAST(? AS DATETIME(6))", Given::Text),
            "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => ("UNHEX(?)", Given::Hex),
            "uuid" => ("CAST(? AS UUID)", Given::Text),
            "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => ("?", Given::Text),
            _ => return None,
        };
        let alone = match (given, &self.charset, &self.collation) {
            (Given::Text, Some(charset), Some(collation)) if parameter == "?" => {
                format!("CONVERT(? USING {charset}) COLLATE {collation}")
            }
            (Given::Signed, ..) => "CAST(? AS SIGNED)".to_owned(),
            (Given::Unsigned, ..) => "CAST(? AS UNSIGNED)".to_owned(),
            _ => parameter.to_owned(),
        };
        let name = format!("{ALIAS}.{}", quote(&self.name));
        Some(KeyColumn { name, place, parameter: parameter.to_owned(), alone, given })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mysql::indexes::PRIMARY;

    fn defined(name: &str, column_type: &str) -> Defined {
        let data_type = column_type.split(['(', ' ']).next().unwrap_or_default();
        (name.to_owned(), data_type.to_owned(), column_type.to_owned(), None, None).into()
    }

    fn subscription(columns: &[&str]) -> Subscription {
        Subscription { table: TableName::new("d", "t"), columns: columns.iter().map(ToString::to_string).collect() }
    }

    #[test]
    fn a_key_of_two_columns_is_compared_as_the_index_orders() {
        let table = [defined("a", "int unsigned"), defined("b", "binary(2)"), defined("payload", "json")];
        let layout =
            Layout::of(&subscription(&["payload", "b"]), &table, PRIMARY.to_owned(), &["a".to_owned(), "b".to_owned()])
                .unwrap();
        assert_eq!((layout.wanted, layout.columns.len()), (2, 3));
        let key = layout.key_of(|place| Some([&b"{}"[..], b"\xff\0", b"7"][place]));
        assert_eq!(key.to_string(), "7,%ff%00");
        let mut parameters = Vec::new();
        let sql = layout.behind(&key, false, &mut parameters);
        assert_eq!(sql, "((o.`a` > ?) OR (o.`a` = ? AND o.`b` > UNHEX(?)))");
        assert_eq!(parameters, [Value::UInt(7), Value::UInt(7), Value::from("ff00")]);
        let sql = layout.behind(&key, true, &mut parameters);
        assert!(sql.ends_with("o.`b` <= UNHEX(?)))") && sql.contains("o.`a` < ?"), "{sql}");
    }

    #[test]
    fn given_a_scan_by_another_key_when_it_is_to_go_on_then_it_is_refused() {
        let table = [defined("id", "char(36)"), defined("seq", "int unsigned"), defined("at", "bigint")];
        let by = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            Layout::of(&subscription(&["id"]), &table, PRIMARY.to_owned(), &names).unwrap()
        };
        let scan = |text: &str| text.parse::<Scan>().unwrap();
        for text in [
            "scan 1 after 7 until 9",
            "scan 1 after 7 until 9 by SEQ",
            "scan 0 until 4294967296 by seq",
            "scan 0 until ",
        ] {
            assert_eq!(by(&["seq"]).refuses(&scan(text)), None, "{text}");
        }
        for text in [
            "scan 1 after 7c until ff",
            "scan 0 until ff",
            "scan 1 after 7c until 9 by seq",
            "scan 0 until -1",
            "scan 0 until 1,2",
        ] {
            assert!(by(&["seq"]).refuses(&scan(text)).is_some(), "{text}");
        }
        // Values that would fit, of another column.
        let said = by(&["seq"]).refuses(&scan("scan 1 after 7 until 9 by id")).unwrap();
        assert!(said.contains("in the order of id, ") && said.contains("now is seq; "), "{said}");
        assert!(said.ends_with("outboxd position set d.t --to table"), "{said}");
        assert!(by(&["seq", "at"]).refuses(&scan("scan 0 until 1,2 by at,seq")).is_some());
        let own = by(&["seq", "at"]).scan("1,-2".parse().unwrap());
        assert_eq!(own.to_string(), "scan 0 until 1,-2 by seq,at");
        assert_eq!(by(&["seq", "at"]).refuses(&own), None);
    }

    #[test]
    fn tables_that_cannot_be_resumed_are_a_fault_by_name() {
        let table = [defined("a", "double"), defined("payload", "json")];
        for key in [&[][..], &["a".to_owned()]] {
            assert_eq!(
                Layout::of(&subscription(&["payload"]), &table, PRIMARY.to_owned(), key).unwrap_err().name,
                "no_primary_key"
            );
        }
        assert_eq!(
            Layout::of(&subscription(&["id"]), &table, PRIMARY.to_owned(), &["a".to_owned()]).unwrap_err().name,
            "missing_column"
        );
    }

    #[test]
    fn json_is_compacted_outside_of_strings_only() {
        let mut out = Vec::new();
        write_compact(br#"{"a b": [1, "c, \"d\\", 2.0], "e": " \\"}"#, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), r#"{"a b":[1,"c, \"d\\",2.0],"e":" \\"}"#);
    }
}
