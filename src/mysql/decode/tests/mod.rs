//! Tests of the decoder with bytes put together by hand.
#![allow(clippy::unwrap_used)]

mod captured;
mod events;
mod hostile;
mod json;
mod json_encoder;
mod row;
mod table;
mod value;

use super::{Column, ColumnType};

/// A column without optional metadata.
fn column(ty: ColumnType, meta: u16) -> Column {
    Column { ty, meta, nullable: true, unsigned: None, collation: None, name: None }
}

/// The body of a table map of `outbox.events` with table id 7; everything in `optional` is appended.
fn table_map(types: &[u8], metadata: &[u8], nulls: &[u8], optional: &[u8]) -> Vec<u8> {
    let mut body = vec![7, 0, 0, 0, 0, 0, 1, 0, 6];
    body.extend_from_slice(b"outbox\0\x06events\0");
    body.push(u8::try_from(types.len()).unwrap());
    body.extend_from_slice(types);
    body.push(u8::try_from(metadata.len()).unwrap());
    body.extend_from_slice(metadata);
    body.extend_from_slice(nulls);
    body.extend_from_slice(optional);
    body
}
