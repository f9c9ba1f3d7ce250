//! Values of a row, and their text.

use super::charset::Charset;
use super::column::{Column, ColumnType};
use super::compressed::uncompress_value;
use super::error::DecodeError;
use super::json::write_json;
use super::number::{le_i64, le_u64, write_decimal, write_float, write_i64, write_u64};
use super::temporal;

/// What a row has in one column.
#[derive(Debug, Clone, Copy)]
pub enum ColumnValue<'a> {
    /// The image leaves the column out (`binlog_row_image` is not FULL), so its value is not known.
    Absent,
    /// NULL.
    Null,
    /// A value, undecoded.
    Value(RawValue<'a>),
}

impl ColumnValue<'_> {
    /// Appends the value's text to `out` as [`RawValue::write_text`] does; `false` if there is no value to write.
    pub fn write_text(&self, out: &mut Vec<u8>) -> Result<bool, DecodeError> {
        match self {
            Self::Absent | Self::Null => Ok(false),
            Self::Value(value) => value.write_text(out).map(|()| true),
        }
    }
}

/// A value as the log has it, borrowed from the event.
#[derive(Debug, Clone, Copy)]
pub struct RawValue<'a> {
    column: &'a Column,
    index: usize,
    data: &'a [u8],
}

impl<'a> RawValue<'a> {
    /// A value of `column`, which is number `index` of its table, out of its bytes without their length.
    pub fn new(column: &'a Column, index: usize, data: &'a [u8]) -> Self {
        Self { column, index, data }
    }

    /// The column.
    pub fn column(&self) -> &'a Column {
        self.column
    }

    /// Which column of its table it is in, counted from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The bytes as the log has them, without their length.
    pub fn bytes(&self) -> &'a [u8] {
        self.data
    }

    /// Appends the value to `out` as text: what a client would read, in UTF-8.
    ///
    /// Numbers, dates and times are printed as the server prints them, TIMESTAMP in UTC, FLOAT and DOUBLE with as many
    /// digits as it takes to read the same number back; ENUM and SET as their number; JSON as compact JSON; text in
    /// UTF-8. BLOB, BINARY, VARBINARY, BIT, GEOMETRY and VECTOR give their bytes. On error `out` is as before.
    pub fn write_text(&self, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let before = out.len();
        let written = self.write(out);
        if written.is_err() {
            out.truncate(before);
        }
        written
    }

    fn write(&self, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let [high, low] = self.column.meta.to_be_bytes().map(usize::from);
        let data = self.data;
        let good = match self.column.ty {
            ColumnType::Tiny | ColumnType::Short | ColumnType::Int24 | ColumnType::Long | ColumnType::LongLong => {
                self.write_integer(out)?;
                true
            }
            ColumnType::Float => match data.first_chunk() {
                Some(bytes) => write_float(out, f32::from_le_bytes(*bytes), ""),
                None => false,
            },
            ColumnType::Double => match data.first_chunk() {
                Some(bytes) => write_float(out, f64::from_le_bytes(*bytes), ""),
                None => false,
            },
            ColumnType::NewDecimal => write_decimal(out, data, high, low),
            ColumnType::Year => data.first().is_some_and(|year| {
                temporal::write_year(out, *year);
                true
            }),
            ColumnType::Date | ColumnType::NewDate => temporal::write_date(out, le_u64(data)),
            ColumnType::Time2 => temporal::write_time2(out, data, low),
            ColumnType::DateTime2 => temporal::write_datetime2(out, data, low),
            ColumnType::Timestamp2 => temporal::write_timestamp2(out, data, low),
            ColumnType::Timestamp => {
                temporal::write_timestamp(out, le_u64(data));
                true
            }
            ColumnType::DateTime => temporal::write_old_datetime(out, le_u64(data)),
            ColumnType::Time => {
                temporal::write_old_time(out, le_i64(data));
                true
            }
            ColumnType::Enum | ColumnType::Set => {
                write_u64(out, le_u64(data));
                true
            }
            ColumnType::Bit | ColumnType::Geometry | ColumnType::Vector => {
                out.extend_from_slice(data);
                true
            }
            ColumnType::Uuid => write_uuid(out, data),
            ColumnType::Json => {
                write_json(data, self.index, out)?;
                true
            }
            ColumnType::VarChar
            | ColumnType::VarString
            | ColumnType::String
            | ColumnType::TinyBlob
            | ColumnType::MediumBlob
            | ColumnType::LongBlob
            | ColumnType::Blob => {
                self.write_string(out, data)?;
                true
            }
            ColumnType::BlobCompressed | ColumnType::VarCharCompressed => {
                let mut plain = Vec::new();
                uncompress_value(data, &mut plain)?;
                self.write_string(out, &plain)?;
                true
            }
            ty @ ColumnType::Null => return Err(DecodeError::UnsupportedType { column: self.index, ty }),
        };
        if good { Ok(()) } else { Err(DecodeError::BadValue { column: self.index, ty: self.column.ty }) }
    }

    fn write_integer(&self, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        match self.column.unsigned {
            Some(true) => write_u64(out, le_u64(self.data)),
            Some(false) => write_i64(out, le_i64(self.data)),
            None => return Err(DecodeError::UnknownSignedness { column: self.index, ty: self.column.ty }),
        }
        Ok(())
    }

    fn write_string(&self, out: &mut Vec<u8>, data: &[u8]) -> Result<(), DecodeError> {
        let (column, ty) = (self.index, self.column.ty);
        let collation = self.column.collation.ok_or(DecodeError::UnknownCollation { column, ty })?;
        let charset = Charset::of(collation).ok_or(DecodeError::UnsupportedCollation { column, ty, collation })?;
        let end = out.len() + usize::from(self.column.meta);
        if !charset.write(out, data) {
            return Err(DecodeError::BadValue { column, ty });
        }
        // The server cuts the zeros off the end of BINARY (`Field_string::pack` in `sql/field.cc`).
        if charset == Charset::Binary && ty == ColumnType::String && out.len() < end {
            out.resize(end, 0);
        }
        Ok(())
    }
}

/// A UUID as text. `MariaDB` stores those of versions 1 to 5 with their parts in the opposite order, which shows in where
/// the variant stands (`rec_need_swap` in `plugin/type_uuid/sql_type_uuid.h`), and cuts zeros off the end.
fn write_uuid(out: &mut Vec<u8>, data: &[u8]) -> bool {
    const STORED_PARTS: [std::ops::Range<usize>; 5] = [12..16, 10..12, 8..10, 6..8, 0..6];
    let mut stored = [0; 16];
    let Some(head) = stored.get_mut(..data.len()) else { return false };
    head.copy_from_slice(data);
    let swapped = stored[6] & 0x80 != 0 && stored[8] != 0 && stored[8] <= 0x80;
    let mut plain = stored;
    if swapped {
        let mut at = 0;
        for part in STORED_PARTS {
            let length = part.len();
            plain[at..at + length].copy_from_slice(&stored[part]);
            at += length;
        }
    }
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    out.extend_from_slice(uuid::Uuid::from_bytes(plain).hyphenated().encode_lower(&mut text).as_bytes());
    true
}
