//! Binary JSON as text.
//!
//! The format is described in the server's `sql-common/json_binary.h`: a type byte, then the value; objects and arrays
//! have a table of entries that hold small values or the offset of a value, counted from the container's beginning.

use super::base64;
use super::error::DecodeError;
use super::number::{le_i64, le_u64, write_decimal, write_float, write_i64, write_u64};
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

const SHORT: Problem = Problem::Malformed("it ends too early");

/// What is wrong with a document.
#[derive(Debug, Clone, Copy)]
enum Problem {
    Malformed(&'static str),
    TooDeep,
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
    written.map_err(|problem| match problem {
        Problem::Malformed(problem) => DecodeError::BadJson { column, problem },
        Problem::TooDeep => DecodeError::JsonTooDeep { column, limit: MAX_JSON_DEPTH },
    })
}

/// The size of offsets and counts in a container, in bytes.
#[derive(Debug, Clone, Copy)]
struct Width(usize);

impl Width {
    fn read(self, data: &[u8], at: usize) -> Result<usize, Problem> {
        let bytes = at.checked_add(self.0).and_then(|end| data.get(at..end)).ok_or(SHORT)?;
        usize::try_from(le_u64(bytes)).map_err(|_| SHORT)
    }

    /// Whether a value of this type stands in the entry itself.
    fn inlines(self, ty: u8) -> bool {
        matches!(ty, LITERAL | INT16 | UINT16) || self.0 == 4 && matches!(ty, INT32 | UINT32)
    }
}

struct Writer<'o> {
    out: &'o mut Vec<u8>,
    /// How many bytes of the document have not been read yet. No layout of the server reads one twice, so whatever
    /// exceeds this has values that overlap.
    unused: usize,
}

impl Writer<'_> {
    fn charge(&mut self, bytes: usize) -> Result<(), Problem> {
        self.unused = self.unused.checked_sub(bytes).ok_or(Problem::Malformed("its values overlap"))?;
        Ok(())
    }

    fn value(&mut self, ty: u8, data: &[u8], depth: usize) -> Result<(), Problem> {
        match ty {
            SMALL_OBJECT => self.container(data, Width(2), true, depth),
            LARGE_OBJECT => self.container(data, Width(4), true, depth),
            SMALL_ARRAY => self.container(data, Width(2), false, depth),
            LARGE_ARRAY => self.container(data, Width(4), false, depth),
            STRING => {
                let text = self.counted(data)?;
                write_string(self.out, text)
            }
            OPAQUE => {
                let (&field_type, body) = data.split_first().ok_or(SHORT)?;
                self.charge(1)?;
                let body = self.counted(body)?;
                write_opaque(self.out, field_type, body)
            }
            _ => self.scalar(ty, data),
        }
    }

    fn scalar(&mut self, ty: u8, data: &[u8]) -> Result<(), Problem> {
        let size = match ty {
            LITERAL => 1,
            INT16 | UINT16 => 2,
            INT32 | UINT32 => 4,
            INT64 | UINT64 | DOUBLE => 8,
            _ => return Err(Problem::Malformed("a value is of a type that does not exist")),
        };
        let data = data.get(..size).ok_or(SHORT)?;
        self.charge(size)?;
        match ty {
            LITERAL => self.out.extend_from_slice(match data {
                [0] => b"null",
                [1] => b"true",
                [2] => b"false",
                _ => return Err(Problem::Malformed("a literal is neither null nor true nor false")),
            }),
            INT16 | INT32 | INT64 => write_i64(self.out, le_i64(data)),
            UINT16 | UINT32 | UINT64 => write_u64(self.out, le_u64(data)),
            _ => return write_double(self.out, f64::from_bits(le_u64(data))),
        }
        Ok(())
    }

    /// The body of a string or an opaque value, whose length stands in front in groups of seven bits.
    fn counted<'d>(&mut self, data: &'d [u8]) -> Result<&'d [u8], Problem> {
        let mut length = 0_u64;
        for (at, byte) in data.iter().enumerate().take(5) {
            length |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                let length = usize::try_from(length).map_err(|_| SHORT)?;
                let (_, body) = data.split_at_checked(at + 1).ok_or(SHORT)?;
                let body = body.get(..length).ok_or(SHORT)?;
                self.charge(at + 1 + length)?;
                return Ok(body);
            }
        }
        Err(Problem::Malformed("the length of a string has no end"))
    }

    fn container(&mut self, data: &[u8], width: Width, object: bool, depth: usize) -> Result<(), Problem> {
        if depth == MAX_JSON_DEPTH {
            return Err(Problem::TooDeep);
        }
        let count = width.read(data, 0)?;
        let size = width.read(data, width.0)?;
        // From here on nothing outside of the container can be reached.
        let data = data.get(..size).ok_or(SHORT)?;
        let (key_size, value_size) = (if object { width.0 + 2 } else { 0 }, width.0 + 1);
        let keys = 2 * width.0;
        let table = count.checked_mul(key_size + value_size).and_then(|table| table.checked_add(keys)).ok_or(SHORT)?;
        if table > size {
            return Err(SHORT);
        }
        self.charge(table)?;
        self.out.push(if object { b'{' } else { b'[' });
        for place in 0..count {
            if place > 0 {
                self.out.push(b',');
            }
            if object {
                let entry = keys + place * key_size;
                let (at, length) = (width.read(data, entry)?, Width(2).read(data, entry + width.0)?);
                let key = at.checked_add(length).and_then(|end| data.get(at..end)).ok_or(SHORT)?;
                if at < table {
                    return Err(Problem::Malformed("a key lies in the table of entries"));
                }
                self.charge(length)?;
                write_string(self.out, key)?;
                self.out.push(b':');
            }
            self.entry(data, keys + count * key_size + place * value_size, table, width, depth)?;
        }
        self.out.push(if object { b'}' } else { b']' });
        Ok(())
    }

    /// The value of the entry at `at`, which is a type byte and an offset or a value.
    fn entry(&mut self, data: &[u8], at: usize, table: usize, width: Width, depth: usize) -> Result<(), Problem> {
        let ty = *data.get(at).ok_or(SHORT)?;
        if width.inlines(ty) {
            let value = data.get(at + 1..at + 1 + width.0).ok_or(SHORT)?;
            // Paid for with the table.
            let unused = self.unused;
            self.unused = usize::MAX;
            let written = self.scalar(ty, value);
            self.unused = unused;
            return written;
        }
        let offset = width.read(data, at + 1)?;
        if offset < table {
            return Err(Problem::Malformed("a value lies in the table of entries"));
        }
        self.value(ty, data.get(offset..).ok_or(SHORT)?, depth + 1)
    }
}

fn write_double(out: &mut Vec<u8>, value: f64) -> Result<(), Problem> {
    let start = out.len();
    if !write_float(out, value) {
        return Err(Problem::Malformed("a double is not finite"));
    }
    if !out.get(start..).unwrap_or(&[]).iter().any(|byte| matches!(byte, b'.' | b'e')) {
        out.extend_from_slice(b".0");
    }
    Ok(())
}

/// Appends a string in quotes, with the escapes that the server uses (`double_quote` in `sql-common/json_dom.cc`).
fn write_string(out: &mut Vec<u8>, text: &[u8]) -> Result<(), Problem> {
    if std::str::from_utf8(text).is_err() {
        return Err(Problem::Malformed("a string is not UTF-8"));
    }
    out.push(b'"');
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, 0..=0x1f | b'"' | b'\\')) {
        let (plain, behind) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((&byte, behind)) = behind.split_first() else { break };
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0x08 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            _ => {
                let low = byte & 0xf;
                let low = if low < 10 { b'0' + low } else { b'a' + low - 10 };
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', b'0' + (byte >> 4), low]);
            }
        }
        rest = behind;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
    Ok(())
}

/// Appends a value of an SQL type that JSON does not have: `field_type` is a code of `enum_field_types`.
fn write_opaque(out: &mut Vec<u8>, field_type: u8, data: &[u8]) -> Result<(), Problem> {
    let temporal = match field_type {
        246 => {
            let Some((&[precision, scale], digits)) = data.split_first_chunk() else { return Err(SHORT) };
            let good = write_decimal(out, digits, precision.into(), scale.into());
            return if good { Ok(()) } else { Err(Problem::Malformed("a DECIMAL is not one")) };
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
    let packed: &[u8; 8] = data.try_into().map_err(|_| Problem::Malformed("a date or time does not take 8 bytes"))?;
    out.push(b'"');
    let good = write_json_temporal(out, i64::from_le_bytes(*packed), temporal);
    out.push(b'"');
    if good { Ok(()) } else { Err(Problem::Malformed("a date or time is not one")) }
}
