//! `TABLE_MAP_EVENT`: what the columns of the row events behind it are.
//!
//! The layout is described at `Table_map_event` in the server's `libs/mysql/binlog/event/rows_event.h`.

use super::column::{Column, ColumnType};
use super::cursor::Cursor;
use super::error::DecodeError;

/// Whose log it is. The two count differently which columns have a character set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// `MySQL`, Percona Server.
    #[default]
    MySql,
    /// `MariaDB`.
    MariaDb,
}

/// Which table a table map is about, borrowed from the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableRef<'a> {
    /// The number that row events call the table by.
    pub table_id: u64,
    /// The schema's name.
    pub schema: &'a str,
    /// The table's name.
    pub table: &'a str,
}

/// A table as a row event sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableMap {
    /// The number that row events call the table by, 48 bits.
    pub table_id: u64,
    /// The schema's name.
    pub schema: String,
    /// The table's name.
    pub table: String,
    /// The columns, in the order of the table.
    pub columns: Vec<Column>,
}

/// Optional metadata fields (`Table_map_event::Optional_metadata_field_type`).
const SIGNEDNESS: u8 = 1;
const DEFAULT_CHARSET: u8 = 2;
const COLUMN_CHARSET: u8 = 3;
const COLUMN_NAME: u8 = 4;

/// Reads of the body of a `TABLE_MAP_EVENT` which table it is about, and nothing else.
pub fn peek_name(data: &[u8]) -> Result<TableRef<'_>, DecodeError> {
    head(&mut cursor(data))
}

fn cursor(data: &[u8]) -> Cursor<'_> {
    Cursor::new(data, "a TABLE_MAP event")
}

fn head<'a>(cursor: &mut Cursor<'a>) -> Result<TableRef<'a>, DecodeError> {
    let table_id = cursor.u48()?;
    let _flags = cursor.u16()?;
    Ok(TableRef { table_id, schema: name(cursor, "schema name")?, table: name(cursor, "table name")? })
}

/// A name: its length in bytes, the name, a zero.
fn name<'a>(cursor: &mut Cursor<'a>, part: &'static str) -> Result<&'a str, DecodeError> {
    let length = cursor.u8()?;
    let name = cursor.take(length.into())?;
    cursor.u8()?;
    std::str::from_utf8(name).map_err(|_| DecodeError::BadName { part })
}

impl TableMap {
    /// Parses the body of a `TABLE_MAP_EVENT` of `MySQL`.
    pub fn parse(data: &[u8]) -> Result<Self, DecodeError> {
        Self::parse_as(data, Dialect::MySql)
    }

    /// Parses the body of a `TABLE_MAP_EVENT` of either server.
    pub fn parse_as(data: &[u8], dialect: Dialect) -> Result<Self, DecodeError> {
        let mut cursor = cursor(data);
        let TableRef { table_id, schema, table } = head(&mut cursor)?;
        let count = cursor.lenenc()?;
        let types = cursor.take_u64(count)?;
        let mut metadata = Cursor::new(cursor.lenenc_bytes()?, "the column metadata of a TABLE_MAP event");
        let nulls = cursor.take(types.len().div_ceil(8))?;
        let mut columns = Vec::with_capacity(types.len());
        for (index, &code) in types.iter().enumerate() {
            columns.push(Column { nullable: bit(nulls, index), ..column(index, code, &mut metadata)? });
        }
        let mut map = Self { table_id, schema: schema.to_owned(), table: table.to_owned(), columns };
        map.optional(&mut cursor, dialect)?;
        Ok(map)
    }

    fn optional(&mut self, cursor: &mut Cursor<'_>, dialect: Dialect) -> Result<(), DecodeError> {
        while !cursor.is_empty() {
            let field = cursor.u8()?;
            let value = cursor.lenenc_bytes()?;
            match field {
                SIGNEDNESS => self.signedness(value)?,
                DEFAULT_CHARSET => self.default_charset(value, dialect)?,
                COLUMN_CHARSET => self.column_charsets(value, dialect)?,
                COLUMN_NAME => self.names(value)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// One bit for every numeric column, the first in the highest bit. YEAR counts as one
    /// (`has_signedess_information_type` in `sql/field_common_properties.h`).
    fn signedness(&mut self, bits: &[u8]) -> Result<(), DecodeError> {
        let misfit = self.misfit("SIGNEDNESS");
        for (place, column) in self.columns.iter_mut().filter(|column| is_numeric(column.ty)).enumerate() {
            let byte = bits.get(place / 8).ok_or_else(|| misfit.clone())?;
            column.unsigned = Some(byte << (place % 8) & 0x80 != 0);
        }
        Ok(())
    }

    /// The collation of most text columns, then pairs of a place among the text columns and another collation.
    fn default_charset(&mut self, value: &[u8], dialect: Dialect) -> Result<(), DecodeError> {
        let misfit = self.misfit("DEFAULT_CHARSET");
        let mut cursor = Cursor::new(value, "the DEFAULT_CHARSET of a TABLE_MAP event");
        let default = collation(&mut cursor, &misfit)?;
        let mut texts: Vec<_> = self.columns.iter_mut().filter(|column| is_text(column.ty, dialect)).collect();
        for column in &mut texts {
            column.collation = Some(default);
        }
        while !cursor.is_empty() {
            let place = usize::try_from(cursor.lenenc()?).map_err(|_| misfit.clone())?;
            let other = collation(&mut cursor, &misfit)?;
            texts.get_mut(place).ok_or_else(|| misfit.clone())?.collation = Some(other);
        }
        Ok(())
    }

    /// The collation of every text column.
    fn column_charsets(&mut self, value: &[u8], dialect: Dialect) -> Result<(), DecodeError> {
        let misfit = self.misfit("COLUMN_CHARSET");
        let mut cursor = Cursor::new(value, "the COLUMN_CHARSET of a TABLE_MAP event");
        for column in self.columns.iter_mut().filter(|column| is_text(column.ty, dialect)) {
            column.collation = Some(collation(&mut cursor, &misfit)?);
        }
        if cursor.is_empty() { Ok(()) } else { Err(misfit) }
    }

    /// The name of every column.
    fn names(&mut self, value: &[u8]) -> Result<(), DecodeError> {
        let misfit = self.misfit("COLUMN_NAME");
        let mut cursor = Cursor::new(value, "the COLUMN_NAME of a TABLE_MAP event");
        for column in &mut self.columns {
            let name = std::str::from_utf8(cursor.lenenc_bytes()?);
            let name = name.map_err(|_| DecodeError::BadName { part: "column name" })?;
            column.name = Some(name.to_owned());
        }
        if cursor.is_empty() { Ok(()) } else { Err(misfit) }
    }

    fn misfit(&self, field: &'static str) -> DecodeError {
        DecodeError::BadOptionalMetadata { field, columns: self.columns.len() }
    }
}

fn collation(cursor: &mut Cursor<'_>, misfit: &DecodeError) -> Result<u16, DecodeError> {
    u16::try_from(cursor.lenenc()?).map_err(|_| misfit.clone())
}

/// Whether bit `index` is set, counted from the lowest of the first byte.
pub(super) fn bit(bits: &[u8], index: usize) -> bool {
    bits.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1)
}

fn is_numeric(ty: ColumnType) -> bool {
    ty.is_integer() || matches!(ty, ColumnType::Year | ColumnType::Float | ColumnType::Double | ColumnType::NewDecimal)
}

/// Whether the character set fields count the column (`is_character_type` in `sql/log_event.cc`). In `MariaDB` all
/// columns with a character set are counted, GEOMETRY and compressed ones among them.
fn is_text(ty: ColumnType, dialect: Dialect) -> bool {
    match ty {
        ColumnType::String
        | ColumnType::VarString
        | ColumnType::VarChar
        | ColumnType::TinyBlob
        | ColumnType::MediumBlob
        | ColumnType::LongBlob
        | ColumnType::Blob
        | ColumnType::Vector => true,
        ColumnType::Geometry | ColumnType::BlobCompressed | ColumnType::VarCharCompressed => {
            dialect == Dialect::MariaDb
        }
        _ => false,
    }
}

/// One column out of its type code and its part of the metadata, whose size and byte order depend on the type
/// (`read_field_metadata` in the server's `libs/mysql/binlog/event/rows_event.h` and its callers).
fn column(index: usize, code: u8, metadata: &mut Cursor<'_>) -> Result<Column, DecodeError> {
    let mut ty = ColumnType::from_code(code).ok_or(DecodeError::UnknownType { column: index, code })?;
    let meta = match ty {
        ColumnType::Float
        | ColumnType::Double
        | ColumnType::Timestamp2
        | ColumnType::DateTime2
        | ColumnType::Time2
        | ColumnType::TinyBlob
        | ColumnType::MediumBlob
        | ColumnType::LongBlob
        | ColumnType::Blob
        | ColumnType::BlobCompressed
        | ColumnType::Vector
        | ColumnType::Json
        | ColumnType::Geometry => metadata.u8()?.into(),
        ColumnType::VarChar | ColumnType::VarCharCompressed | ColumnType::Bit => metadata.u16()?,
        ColumnType::NewDecimal => u16::from_be_bytes(metadata.array()?),
        ColumnType::Enum | ColumnType::Set => u16::from_be_bytes(metadata.array()?) & 0xff,
        ColumnType::String | ColumnType::VarString => {
            let [first, second] = metadata.array()?;
            let (real, length) = real_string(first, second);
            ty = match ColumnType::from_code(real) {
                Some(real @ (ColumnType::Enum | ColumnType::Set | ColumnType::String)) => real,
                Some(real @ ColumnType::VarString) if ty == real => real,
                _ => {
                    let meta = u16::from_be_bytes([first, second]);
                    return Err(DecodeError::BadMetadata { column: index, ty, meta });
                }
            };
            length
        }
        _ => 0,
    };
    let column = Column { ty, meta, nullable: false, unsigned: None, collation: None, name: None };
    column.check(index)?;
    Ok(column)
}

/// The type code that hides in the metadata of a STRING, and its length in bytes. Lengths from 256 have their upper two
/// bits, inverted, in bits 4 and 5 of the first byte, which are set in every type code that occurs.
fn real_string(first: u8, second: u8) -> (u8, u16) {
    let upper = u16::from((first & 0x30) ^ 0x30) << 4;
    (first | 0x30, upper | u16::from(second))
}
