//! Decoding of row events, straight from the bytes of the binlog and without any I/O.
//!
//! Promise: every function here takes borrowed bytes, trusts no length or offset inside them, and answers malformed
//! input with a [`DecodeError`] that says what was wrong, never with a panic. Walking a row allocates nothing; values
//! are handed out undecoded and become text only when [`RawValue::write_text`] asks for it.
//!
//! Every parser wants the body of an event: what follows the 19 byte header, with the checksum already cut off.

mod base64;
mod charset;
mod column;
mod compressed;
mod cursor;
mod error;
mod event;
mod gtid;
mod json;
mod number;
mod query;
mod quote;
mod rows;
mod table_map;
mod temporal;
mod value;

#[cfg(test)]
mod tests;

pub(super) use base64::write as write_base64;
pub use charset::Charset;
pub use column::{Column, ColumnType, Extent};
pub use compressed::uncompress_rows;
pub use cursor::Cursor;
pub use error::DecodeError;
pub use event::{Checksum, Event, Header, event_size, kind};
pub use gtid::{GtidEvent, MariaDbGtid};
pub use json::{MAX_JSON_DEPTH, write_json};
pub(super) use number::write_float;
pub use query::QueryEvent;
pub use rows::{RowsEvent, WRITE_ROWS_V1, WRITE_ROWS_V2};
pub use table_map::{Dialect, TableMap, TableRef, peek_name};
pub use value::{ColumnValue, RawValue};
