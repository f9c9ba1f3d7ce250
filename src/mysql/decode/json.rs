//! Binary JSON as text.
//!
//! The format is described in the server's `sql-common/json_binary.h`: a type byte, then the value; objects and arrays
//! have a table of entries that hold small values or the offset of a value, counted from the container's beginning.

use super::base64;
use super::error::DecodeError;
use super::number::{write_decimal, write_float, write_i64, write_u64};
use super::quote::write_quoted;
use super::temporal::{JsonTemporal, write_json_temporal};

/// How many levels of objects and arrays the server allows (`JSON_DOCUMENT_MAX_DEPTH` in `sql-common/json_dom.h`).
pub const MAX_JSON_DEPTH: usize = 100;

const SMALL_OBJECT: u8 = 0x0;
const LARGE_OBJECT: u8 = 0x1;
const SMALL_ARRAY: u8 = 0x2;
const LARGE_ARRAY: u8 = 0x3;
const LITERAL: u8 = 0x4;
const INT16: u8 = 0x5;
const UINT16: u8 = 0x6;
const INT32: u8 = 0x7;
const UINT32: u8 = 0x8;
const INT64: u8 = 0x9;
const UINT64: u8 = 0xa;
const DOUBLE: u8 = 0xb;
const STRING: u8 = 0xc;
const OPAQUE: u8 = 0xf;

/// What is wrong with a document. Without fields, so that the result of every step fits a register.
#[derive(Debug, Clone, Copy)]
enum Problem {
    Short,
    Overlap,
    KeyInTable,
    ValueInTable,
    Type,
    Literal,
    Length,
    Utf8,
    Double,
    Decimal,
    TemporalSize,
    Temporal,
    TooDeep,
}

impl Problem {
    fn of_column(self, column: usize) -> DecodeError {
        let problem = match self {
            Self::TooDeep => return DecodeError::JsonTooDeep { column, limit: MAX_JSON_DEPTH },
            Self::Short => "it ends too early",
            Self::Overlap => "its values overlap",
            Self::KeyInTable => "a key lies in the table of entries",
            Self::ValueInTable => "a value lies in the table of entries",
            Self::Type => "a value is of a type that does not exist",
            Self::Literal => "a literal is neither null nor true nor false",
            Self::Length => "the length of a string has no end",
            Self::Utf8 => "a string is not UTF-8",
            Self::Double => "a double is not finite",
            Self::Decimal => "a DECIMAL is not one",
            Self::TemporalSize => "a date or time does not take 8 bytes",
            Self::Temporal => "a date or time is not one",
        };
        DecodeError::BadJson { column, problem }
    }
}

/// Appends a binary JSON document to `out` as compact JSON text, with the keys of objects in the server's order.
///
/// Numbers, dates, times and opaque values are printed as the server prints them (`wrapper_to_string` in
/// `sql-common/json_dom.cc`). `column` is for errors. The work is linear in the length of `data` whatever the offsets
/// in it say, because every byte may be used once only.
pub fn write_json(data: &[u8], column: usize, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let mut writer = Writer { out, unused: data.len() };
    let written = match data.split_first() {
        // The server takes an empty value for the JSON null (`json_binary::parse_binary`).
        None => {
            writer.out.extend_from_slice(b"null");
            Ok(())
        }
        Some((&ty, body)) => writer.value(ty, body, 0),
    };
    written.map_err(|problem| problem.of_column(column))
}

/// The first `W` bytes, 2 or 4, as an offset or a count.
fn number<const W: usize>(data: &[u8]) -> Result<usize, Problem> {
    let wide = if W == 2 {
        data.first_chunk().map(|bytes| u16::from_le_bytes(*bytes).into())
    } else {
        data.first_chunk().map(|bytes| u32::from_le_bytes(*bytes) as usize)
    };
    wide.ok_or(Problem::Short)
}

struct Writer<'o> {
    out: &'o mut Vec<u8>,
    /// How many bytes of the document have not been read yet. No layout of the server reads one twice, so whatever
    /// exceeds this has values that overlap.
    unused: usize,
}

impl Writer<'_> {
    fn charge(&mut self, bytes: usize) -> Result<(), Problem> {
        self.unused = self.unused.checked_sub(bytes).ok_or(Problem::Overlap)?;
        Ok(())
    }

    fn value(&mut self, ty: u8, data: &[u8], depth: usize) -> Result<(), Problem> {
        match ty {
            SMALL_OBJECT => self.container::<2>(data, true, depth),
            LARGE_OBJECT => self.container::<4>(data, true, depth),
            SMALL_ARRAY => self.container::<2>(data, false, depth),
            LARGE_ARRAY => self.container::<4>(data, false, depth),
            STRING => {
                let text = self.counted(data)?;
                write_string(self.out, text)
            }
            OPAQUE => {
                let (&field_type, body) = data.split_first().ok_or(Problem::Short)?;
                self.charge(1)?;
                let body = self.counted(body)?;
                write_opaque(self.out, field_type, body)
            }
            _ => {
                let size = write_scalar(self.out, ty, data)?;
                self.charge(size)
            }
        }
    }

    /// The body of a string or an opaque value, whose length stands in front in groups of seven bits.
    fn counted<'d>(&mut self, data: &'d [u8]) -> Result<&'d [u8], Problem> {
        let mut length = 0_u64;
        for (at, byte) in data.iter().enumerate().take(5) {
            length |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                let length = usize::try_from(length).map_err(|_| Problem::Short)?;
                let (_, body) = data.split_at_checked(at + 1).ok_or(Problem::Short)?;
                let body = body.get(..length).ok_or(Problem::Short)?;
                self.charge(at + 1 + length)?;
                return Ok(body);
            }
        }
        Err(Problem::Length)
    }

    /// An object or an array whose offsets and counts take `W` bytes.
    fn container<const W: usize>(&mut self, data: &[u8], object: bool, depth: usize) -> Result<(), Problem> {
        if depth == MAX_JSON_DEPTH {
            return Err(Problem::TooDeep);
        }
        let (count, size) = (number::<W>(data)?, number::<W>(data.get(W..).ok_or(Problem::Short)?)?);
        // From here on nothing outside of the container can be reached.
        let data = data.get(..size).ok_or(Problem::Short)?;
        let table = data.get(2 * W..).ok_or(Problem::Short)?;
        let key_size = if object { W + 2 } else { 0 };
        let (keys, table) =
            count.checked_mul(key_size).and_then(|end| table.split_at_checked(end)).ok_or(Problem::Short)?;
        let values = count.checked_mul(W + 1).and_then(|end| table.get(..end)).ok_or(Problem::Short)?;
        let table = 2 * W + keys.len() + values.len();
        self.charge(table)?;
        self.out.push(if object { b'{' } else { b'[' });
        let mut keys = keys.chunks_exact(W + 2);
        for (place, value) in values.chunks_exact(W + 1).enumerate() {
            if place > 0 {
                self.out.push(b',');
            }
            if let Some(key) = keys.next() {
                self.key::<W>(data, key, table)?;
            }
            self.entry::<W>(data, value, table, depth)?;
        }
        self.out.push(if object { b'}' } else { b']' });
        Ok(())
    }

    /// The key of the entry in `entry`, which is an offset and a length.
    fn key<const W: usize>(&mut self, data: &[u8], entry: &[u8], table: usize) -> Result<(), Problem> {
        let (offset, length) = (number::<W>(entry)?, number::<2>(entry.get(W..).ok_or(Problem::Short)?)?);
        let key = data.get(offset..).and_then(|keys| keys.get(..length)).ok_or(Problem::Short)?;
        if offset < table {
            return Err(Problem::KeyInTable);
        }
        self.charge(length)?;
        write_string(self.out, key)?;
        self.out.push(b':');
        Ok(())
    }

    /// The value of the entry in `entry`, which is a type byte and an offset or a value.
    fn entry<const W: usize>(&mut self, data: &[u8], entry: &[u8], table: usize, depth: usize) -> Result<(), Problem> {
        let (&ty, value) = entry.split_first().ok_or(Problem::Short)?;
        if matches!(ty, LITERAL | INT16 | UINT16) || W == 4 && matches!(ty, INT32 | UINT32) {
            // Paid for with the table.
            return write_scalar(self.out, ty, value).map(drop);
        }
        let offset = number::<W>(value)?;
        if offset < table {
            return Err(Problem::ValueInTable);
        }
        self.value(ty, data.get(offset..).ok_or(Problem::Short)?, depth + 1)
    }
}

/// Appends a value of fixed size, and gives that size in bytes.
fn write_scalar(out: &mut Vec<u8>, ty: u8, data: &[u8]) -> Result<usize, Problem> {
    fn first<const N: usize>(data: &[u8]) -> Result<[u8; N], Problem> {
        data.first_chunk().copied().ok_or(Problem::Short)
    }
    match ty {
        LITERAL => out.extend_from_slice(match data.first().ok_or(Problem::Short)? {
            0 => b"null",
            1 => b"true",
            2 => b"false",
            _ => return Err(Problem::Literal),
        }),
        INT16 => write_i64(out, i16::from_le_bytes(first(data)?).into()),
        UINT16 => write_u64(out, u16::from_le_bytes(first(data)?).into()),
        INT32 => write_i64(out, i32::from_le_bytes(first(data)?).into()),
        UINT32 => write_u64(out, u32::from_le_bytes(first(data)?).into()),
        INT64 => write_i64(out, i64::from_le_bytes(first(data)?)),
        UINT64 => write_u64(out, u64::from_le_bytes(first(data)?)),
        DOUBLE => {
            if !write_float(out, f64::from_le_bytes(first(data)?), ".0") {
                return Err(Problem::Double);
            }
        }
        _ => return Err(Problem::Type),
    }
    Ok(match ty {
        LITERAL => 1,
        INT16 | UINT16 => 2,
        INT32 | UINT32 => 4,
        _ => 8,
    })
}

fn write_string(out: &mut Vec<u8>, text: &[u8]) -> Result<(), Problem> {
    if write_quoted(out, text) { Ok(()) } else { Err(Problem::Utf8) }
}

/// Appends a value of an SQL type that JSON does not have: `field_type` is a code of `enum_field_types`.
fn write_opaque(out: &mut Vec<u8>, field_type: u8, data: &[u8]) -> Result<(), Problem> {
    let temporal = match field_type {
        246 => {
            let Some((&[precision, scale], digits)) = data.split_first_chunk() else { return Err(Problem::Short) };
            let good = write_decimal(out, digits, precision.into(), scale.into());
            return if good { Ok(()) } else { Err(Problem::Decimal) };
        }
        // What the server treats as a string.
        253 => return write_string(out, data),
        10 => JsonTemporal::Date,
        11 => JsonTemporal::Time,
        7 | 12 => JsonTemporal::DateTime,
        _ => {
            out.extend_from_slice(b"\"base64:type");
            write_u64(out, field_type.into());
            out.push(b':');
            base64::write(out, data, b"\\n");
            out.push(b'"');
            return Ok(());
        }
    };
    let packed: &[u8; 8] = data.try_into().map_err(|_| Problem::TemporalSize)?;
    out.push(b'"');
    let good = write_json_temporal(out, i64::from_le_bytes(*packed), temporal);
    out.push(b'"');
    if good { Ok(()) } else { Err(Problem::Temporal) }
}
