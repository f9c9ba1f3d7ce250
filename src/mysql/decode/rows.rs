//! `WRITE_ROWS_EVENT`: the rows that were inserted.
//!
//! The layout is described at `Rows_event` in the server's `libs/mysql/binlog/event/rows_event.h`.

use super::cursor::Cursor;
use super::error::DecodeError;
use super::table_map::{TableMap, bit};
use super::value::{ColumnValue, RawValue};

/// `WRITE_ROWS_EVENT_V1`, which `MariaDB` writes.
pub const WRITE_ROWS_V1: u8 = 23;

/// `WRITE_ROWS_EVENT`, which `MySQL` has written since 5.6: version 1 with extra data in front of the columns.
pub const WRITE_ROWS_V2: u8 = 30;

/// What stands in front of the rows of an event.
pub(super) struct Head<'a> {
    table_id: u64,
    flags: u16,
    columns: usize,
    present: &'a [u8],
    /// The rows.
    pub(super) rest: &'a [u8],
}

impl<'a> Head<'a> {
    pub(super) fn parse(type_code: u8, data: &'a [u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(data, "a WRITE_ROWS event");
        let table_id = cursor.u48()?;
        let flags = cursor.u16()?;
        if type_code == WRITE_ROWS_V2 {
            let length = cursor.u16()?;
            let extra = length.checked_sub(2).ok_or(DecodeError::BadExtraData { length })?;
            cursor.take(extra.into())?;
        }
        let columns = cursor.lenenc()?;
        let present = cursor.take_u64(columns.div_ceil(8))?;
        // The bitmap is there, so the number of columns is not larger than eight times what memory holds.
        let columns = usize::try_from(columns).unwrap_or(usize::MAX);
        Ok(Self { table_id, flags, columns, present, rest: cursor.rest() })
    }
}

/// The rows of one event, read one after another by [`RowsEvent::next_row`].
#[derive(Debug, Clone)]
pub struct RowsEvent<'a> {
    /// The number by which the table map names the table, 48 bits.
    pub table_id: u64,
    /// Flags, of which bit 0 says that the statement ends here (`STMT_END_F`).
    pub flags: u16,
    columns: usize,
    present: &'a [u8],
    present_count: usize,
    rest: &'a [u8],
}

impl<'a> RowsEvent<'a> {
    /// Parses the body of an event with the type code of its header.
    pub fn parse(type_code: u8, data: &'a [u8]) -> Result<Self, DecodeError> {
        if !matches!(type_code, WRITE_ROWS_V1 | WRITE_ROWS_V2) {
            return Err(DecodeError::NotWriteRows { code: type_code });
        }
        let Head { table_id, flags, columns, present, rest } = Head::parse(type_code, data)?;
        let present_count = (0..columns).filter(|&column| bit(present, column)).count();
        Ok(Self { table_id, flags, columns, present, present_count, rest })
    }

    /// How many columns the table has.
    pub fn column_count(&self) -> usize {
        self.columns
    }

    /// Whether the rows have this column (`binlog_row_image`).
    pub fn is_present(&self, column: usize) -> bool {
        column < self.columns && bit(self.present, column)
    }

    /// The bitmap of the columns that the rows have, the first in the lowest bit of the first byte.
    pub fn present(&self) -> &'a [u8] {
        self.present
    }

    /// The bytes of the rows that have not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Reads one row. `wanted` has for every column of the table the place it takes in the output, `None` or nothing for
    /// a column to skip; `out` is called once for every wanted column, in the order of the table, with its place and
    /// its value, with [`ColumnValue::Absent`] if the image leaves the column out.
    ///
    /// Returns `false` when there are no more rows. An error ends the event: what follows it is not read.
    pub fn next_row<E: From<DecodeError>>(
        &mut self,
        table: &TableMap,
        wanted: &[Option<usize>],
        out: &mut impl FnMut(usize, ColumnValue<'_>) -> Result<(), E>,
    ) -> Result<bool, E> {
        self.check(table)?;
        if self.rest.is_empty() {
            return Ok(false);
        }
        let row = std::mem::take(&mut self.rest);
        let nulls_len = self.present_count.div_ceil(8);
        let (nulls, mut row) = row.split_at_checked(nulls_len).ok_or(DecodeError::Truncated {
            part: "the NULL bitmap of a row",
            offset: 0,
            needed: nulls_len as u64,
            left: row.len(),
        })?;
        let mut place = 0;
        for (index, column) in table.columns.iter().enumerate() {
            let target = wanted.get(index).copied().flatten();
            let value = if bit(self.present, index) {
                let null = bit(nulls, place);
                place += 1;
                if null {
                    ColumnValue::Null
                } else {
                    let (value, behind) = column.split(index, row)?;
                    row = behind;
                    ColumnValue::Value(RawValue::new(column, index, value))
                }
            } else {
                ColumnValue::Absent
            };
            if let Some(target) = target {
                out(target, value)?;
            }
        }
        self.rest = row;
        Ok(true)
    }

    fn check(&self, table: &TableMap) -> Result<(), DecodeError> {
        if self.table_id != table.table_id || self.columns != table.columns.len() {
            return Err(DecodeError::WrongTable {
                rows_id: self.table_id,
                rows_columns: self.columns,
                table_id: table.table_id,
                table_columns: table.columns.len(),
            });
        }
        // Such rows take no bytes at all, so they would pass for none, or without end.
        if self.present_count == 0 {
            return Err(DecodeError::EmptyImage { table_id: self.table_id });
        }
        Ok(())
    }
}
