//! Rows as JSON, for people and programs that have no server at hand.

use super::super::decode::{self, ColumnType, ColumnValue, DecodeError, RawValue, RowsEvent};
use super::super::tables::{Layout, Rows};
use crate::source::Fault;

impl Rows {
    /// Gives every row as a JSON object of its columns, in the order of the table, or the reason why it has none. A column
    /// that the row image leaves out is left out.
    ///
    /// Integers, FLOAT, DOUBLE, ENUM and SET are numbers; JSON is itself; the rest is text as the server prints it. What
    /// is no UTF-8, and BIT, GEOMETRY and VECTOR, is `{"base64": "…"}`. Text whose character set the log does not tell is
    /// shown by its bytes; an integer that is another one if it is UNSIGNED, while the log does not tell, is a fault.
    pub fn json<E>(&self, out: &mut impl FnMut(Result<&[u8], Fault>) -> Result<(), E>) -> Result<(), E> {
        let Layout { map, wanted, .. } = &*self.layout;
        let fault =
            |error: &DecodeError| Fault { name: "undecodable_row", detail: error.to_string(), at: self.at.to_string() };
        let mut rows = match RowsEvent::parse(self.kind, &self.body) {
            Ok(rows) => rows,
            Err(error) => return out(Err(fault(&error))),
        };
        let mut line = Vec::new();
        loop {
            line.clear();
            line.push(b'{');
            // A bad value spoils its own row only: the next one is found all the same.
            let mut bad = None;
            let more = rows.next_row::<DecodeError>(map, wanted, &mut |place, value| {
                if let (None, Some(column)) = (&bad, map.columns.get(place)) {
                    bad = write(&mut line, column.name.as_deref().unwrap_or_default(), value).err();
                }
                Ok(())
            });
            line.push(b'}');
            match (more, bad) {
                (Ok(false), _) => return Ok(()),
                (Ok(true), None) => out(Ok(&line))?,
                (Ok(true), Some(error)) => out(Err(fault(&error)))?,
                (Err(error), _) => return out(Err(fault(&error))),
            }
        }
    }
}

fn write(line: &mut Vec<u8>, name: &str, value: ColumnValue<'_>) -> Result<(), DecodeError> {
    let value = match value {
        ColumnValue::Absent => return Ok(()),
        ColumnValue::Null => None,
        ColumnValue::Value(value) => Some(value),
    };
    if line.last() != Some(&b'{') {
        line.push(b',');
    }
    quote(line, name);
    line.push(b':');
    match value {
        None => line.extend_from_slice(b"null"),
        Some(value) => write_value(line, value)?,
    }
    Ok(())
}

fn write_value(line: &mut Vec<u8>, value: RawValue<'_>) -> Result<(), DecodeError> {
    let column = value.column();
    let mut text = Vec::new();
    match column.ty {
        ColumnType::Json | ColumnType::Float | ColumnType::Double | ColumnType::Enum | ColumnType::Set => {
            return value.write_text(line);
        }
        ty if ty.is_integer() => {
            // Without the highest bit it is the same number, UNSIGNED or not.
            if column.unsigned.is_none() && value.bytes().last().is_some_and(|byte| *byte < 0x80) {
                let signed = decode::Column { unsigned: Some(false), ..column.clone() };
                return RawValue::new(&signed, value.index(), value.bytes()).write_text(line);
            }
            return value.write_text(line);
        }
        ColumnType::Bit | ColumnType::Geometry | ColumnType::Vector => {
            base64(line, value.bytes());
            return Ok(());
        }
        ColumnType::VarChar
        | ColumnType::VarString
        | ColumnType::String
        | ColumnType::TinyBlob
        | ColumnType::MediumBlob
        | ColumnType::LongBlob
        | ColumnType::Blob
            if column.collation.is_none() =>
        {
            text.extend_from_slice(value.bytes());
        }
        _ => value.write_text(&mut text)?,
    }
    match std::str::from_utf8(&text) {
        Ok(text) => quote(line, text),
        Err(_) => base64(line, &text),
    }
    Ok(())
}

fn base64(line: &mut Vec<u8>, data: &[u8]) {
    line.extend_from_slice(b"{\"base64\":\"");
    decode::write_base64(line, data, b"");
    line.extend_from_slice(b"\"}");
}

/// Appends a JSON string.
fn quote(line: &mut Vec<u8>, text: &str) {
    // Writing to memory does not fail.
    let _ = serde_json::to_writer(line, text);
}
