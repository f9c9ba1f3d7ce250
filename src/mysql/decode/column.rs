//! Columns of a table map, and how many bytes their values take.

use std::fmt;

use super::error::DecodeError;
use super::number::{decimal_bytes, le_u64};
use super::temporal::fraction_bytes;

/// A column's type, by the codes of `enum_field_types` in the server's `include/field_types.h`; those from 140 to 141
/// are `MariaDB`'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
#[repr(u8)]
pub enum ColumnType {
    Tiny = 1,
    Short = 2,
    Long = 3,
    Float = 4,
    Double = 5,
    Null = 6,
    /// TIMESTAMP as before `MySQL` 5.6: little-endian seconds.
    Timestamp = 7,
    LongLong = 8,
    Int24 = 9,
    Date = 10,
    /// TIME as before `MySQL` 5.6: HHMMSS as a decimal number.
    Time = 11,
    /// DATETIME as before `MySQL` 5.6: YYYYMMDDHHMMSS as a decimal number.
    DateTime = 12,
    Year = 13,
    NewDate = 14,
    VarChar = 15,
    Bit = 16,
    Timestamp2 = 17,
    DateTime2 = 18,
    Time2 = 19,
    /// `MariaDB`'s `BLOB COMPRESSED`.
    BlobCompressed = 140,
    /// `MariaDB`'s `VARCHAR COMPRESSED`.
    VarCharCompressed = 141,
    Vector = 242,
    Json = 245,
    NewDecimal = 246,
    Enum = 247,
    Set = 248,
    TinyBlob = 249,
    MediumBlob = 250,
    LongBlob = 251,
    Blob = 252,
    VarString = 253,
    /// CHAR and BINARY.
    String = 254,
    Geometry = 255,
    /// `MariaDB`'s UUID. The log calls it String: only the table's definition tells, and no code stands for it.
    Uuid = 0,
}

impl ColumnType {
    /// The type of a code.
    pub fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Tiny,
            2 => Self::Short,
            3 => Self::Long,
            4 => Self::Float,
            5 => Self::Double,
            6 => Self::Null,
            7 => Self::Timestamp,
            8 => Self::LongLong,
            9 => Self::Int24,
            10 => Self::Date,
            11 => Self::Time,
            12 => Self::DateTime,
            13 => Self::Year,
            14 => Self::NewDate,
            15 => Self::VarChar,
            16 => Self::Bit,
            17 => Self::Timestamp2,
            18 => Self::DateTime2,
            19 => Self::Time2,
            140 => Self::BlobCompressed,
            141 => Self::VarCharCompressed,
            242 => Self::Vector,
            245 => Self::Json,
            246 => Self::NewDecimal,
            247 => Self::Enum,
            248 => Self::Set,
            249 => Self::TinyBlob,
            250 => Self::MediumBlob,
            251 => Self::LongBlob,
            252 => Self::Blob,
            253 => Self::VarString,
            254 => Self::String,
            255 => Self::Geometry,
            _ => return None,
        })
    }

    /// The type's code.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Whether values are integers of two's complement, so that UNSIGNED changes what they mean.
    pub fn is_integer(self) -> bool {
        matches!(self, Self::Tiny | Self::Short | Self::Int24 | Self::Long | Self::LongLong)
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tiny => "TINYINT",
            Self::Short => "SMALLINT",
            Self::Long => "INT",
            Self::Float => "FLOAT",
            Self::Double => "DOUBLE",
            Self::Null => "NULL",
            Self::Timestamp => "old TIMESTAMP",
            Self::LongLong => "BIGINT",
            Self::Int24 => "MEDIUMINT",
            Self::Date | Self::NewDate => "DATE",
            Self::Time => "old TIME",
            Self::DateTime => "old DATETIME",
            Self::Year => "YEAR",
            Self::VarChar | Self::VarString => "VARCHAR or VARBINARY",
            Self::Bit => "BIT",
            Self::Timestamp2 => "TIMESTAMP",
            Self::DateTime2 => "DATETIME",
            Self::Time2 => "TIME",
            Self::BlobCompressed => "BLOB COMPRESSED",
            Self::VarCharCompressed => "VARCHAR COMPRESSED",
            Self::Vector => "VECTOR",
            Self::Json => "JSON",
            Self::NewDecimal => "DECIMAL",
            Self::Enum => "ENUM",
            Self::Set => "SET",
            Self::TinyBlob | Self::MediumBlob | Self::LongBlob | Self::Blob => "BLOB or TEXT",
            Self::String => "CHAR or BINARY",
            Self::Geometry => "GEOMETRY",
            Self::Uuid => "UUID",
        })
    }
}

/// One column of a table map. A caller who knows better than the log may fill in what the log leaves open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The type; what the log hides behind STRING is already told apart into String, Enum and Set.
    pub ty: ColumnType,
    /// What the type needs besides, 0 if nothing: for DECIMAL `precision << 8 | scale` in digits, for BIT
    /// `whole bytes << 8 | bits over`, for VARCHAR and CHAR the longest value in bytes, for ENUM and SET the size in
    /// bytes, for BLOB, JSON and their like the size of the length in bytes, for times the digits of the fraction, for
    /// FLOAT and DOUBLE the size in bytes.
    pub meta: u16,
    /// Whether the column may be NULL.
    pub nullable: bool,
    /// Whether a number is UNSIGNED; `None` if the log does not say.
    pub unsigned: Option<bool>,
    /// The id of a text's collation, 63 for binary; `None` if the log does not say.
    pub collation: Option<u16>,
    /// The name, if the log has it (`binlog_row_metadata=FULL`).
    pub name: Option<String>,
}

/// How many bytes a value takes in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Bytes of the length in front of it, 0 if the type has none.
    pub prefix: usize,
    /// Bytes of the value itself.
    pub len: usize,
}

impl Column {
    /// The extent of this column's value at the beginning of `data`, without looking at the value. `index` is for
    /// errors. Sizes as in `calc_field_size` in the server's `libs/mysql/binlog/event/binary_log_funcs.cpp`.
    pub fn extent(&self, index: usize, data: &[u8]) -> Result<Extent, DecodeError> {
        let [high, low] = self.meta.to_be_bytes().map(usize::from);
        let extent = match self.ty {
            ColumnType::Null => Extent { prefix: 0, len: 0 },
            ColumnType::Tiny | ColumnType::Year => Extent { prefix: 0, len: 1 },
            ColumnType::Short => Extent { prefix: 0, len: 2 },
            ColumnType::Int24 | ColumnType::Date | ColumnType::NewDate | ColumnType::Time => {
                Extent { prefix: 0, len: 3 }
            }
            ColumnType::Long | ColumnType::Timestamp => Extent { prefix: 0, len: 4 },
            ColumnType::LongLong | ColumnType::DateTime => Extent { prefix: 0, len: 8 },
            ColumnType::Float | ColumnType::Double | ColumnType::Enum | ColumnType::Set => {
                Extent { prefix: 0, len: low }
            }
            ColumnType::Time2 => Extent { prefix: 0, len: 3 + fraction_bytes(low) },
            ColumnType::Timestamp2 => Extent { prefix: 0, len: 4 + fraction_bytes(low) },
            ColumnType::DateTime2 => Extent { prefix: 0, len: 5 + fraction_bytes(low) },
            ColumnType::Bit => Extent { prefix: 0, len: high + usize::from(low > 0) },
            ColumnType::NewDecimal => {
                let len = decimal_bytes(high, low).ok_or_else(|| self.bad_metadata(index))?;
                Extent { prefix: 0, len }
            }
            ColumnType::String
            | ColumnType::Uuid
            | ColumnType::VarChar
            | ColumnType::VarString
            | ColumnType::VarCharCompressed => self.prefixed(index, data, if self.meta > 255 { 2 } else { 1 })?,
            ColumnType::TinyBlob
            | ColumnType::MediumBlob
            | ColumnType::LongBlob
            | ColumnType::Blob
            | ColumnType::BlobCompressed
            | ColumnType::Json
            | ColumnType::Vector
            | ColumnType::Geometry => self.prefixed(index, data, low)?,
        };
        Ok(extent)
    }

    /// Splits this column's value off `data`: the value without its length, and what follows it.
    pub fn split<'a>(&self, index: usize, data: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), DecodeError> {
        let Extent { prefix, len } = self.extent(index, data)?;
        let value = data.get(prefix..).and_then(|body| body.split_at_checked(len));
        value.ok_or_else(|| self.truncated(index, prefix.saturating_add(len), data.len()))
    }

    fn prefixed(&self, index: usize, data: &[u8], prefix: usize) -> Result<Extent, DecodeError> {
        let length = data.get(..prefix).ok_or_else(|| self.truncated(index, prefix, data.len()))?;
        let len = usize::try_from(le_u64(length)).map_err(|_| self.truncated(index, usize::MAX, data.len()))?;
        Ok(Extent { prefix, len })
    }

    fn truncated(&self, column: usize, needed: usize, left: usize) -> DecodeError {
        DecodeError::ValueTruncated { column, ty: self.ty, needed, left }
    }

    pub(super) fn bad_metadata(&self, column: usize) -> DecodeError {
        DecodeError::BadMetadata { column, ty: self.ty, meta: self.meta }
    }

    /// Refuses metadata that no server writes.
    pub(super) fn check(&self, index: usize) -> Result<(), DecodeError> {
        let [high, low] = self.meta.to_be_bytes();
        let good = match self.ty {
            ColumnType::Float => low == 4,
            ColumnType::Double => low == 8,
            ColumnType::Enum => matches!(self.meta, 1 | 2),
            ColumnType::Set => matches!(self.meta, 1..=4 | 8),
            ColumnType::Time2 | ColumnType::Timestamp2 | ColumnType::DateTime2 => low <= 6,
            ColumnType::Bit => low < 8 && high <= 8 && u16::from(high) * 8 + u16::from(low) <= 64,
            ColumnType::NewDecimal => decimal_bytes(high.into(), low.into()).is_some(),
            ColumnType::TinyBlob
            | ColumnType::MediumBlob
            | ColumnType::LongBlob
            | ColumnType::Blob
            | ColumnType::BlobCompressed
            | ColumnType::Json
            | ColumnType::Vector
            | ColumnType::Geometry => matches!(low, 1..=4),
            _ => true,
        };
        if good { Ok(()) } else { Err(self.bad_metadata(index)) }
    }
}
