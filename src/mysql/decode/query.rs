//! `QUERY_EVENT` and its like: a statement, and the schema it ran in.
//!
//! The layout is described at `Query_event` in the server's `libs/mysql/binlog/event/statement_events.h`; that of
//! `EXECUTE_LOAD_QUERY_EVENT` has 13 bytes more in front of the variables.

use std::borrow::Cow;

use super::compressed::uncompress;
use super::cursor::Cursor;
use super::error::DecodeError;
use super::event::kind;

/// A statement in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryEvent<'a> {
    /// How long the statement had run when it was logged, in seconds after the event's time; negative where the session had
    /// its clock set ahead.
    pub seconds: i32,
    /// The schema that was the session's default.
    pub schema: Cow<'a, str>,
    /// The statement; bytes that are not UTF-8 are replaced.
    pub text: Cow<'a, str>,
}

impl<'a> QueryEvent<'a> {
    /// Parses the body of an event of type `QUERY`, `EXECUTE_LOAD_QUERY` or `MARIADB_QUERY_COMPRESSED`.
    pub fn parse(type_code: u8, body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(body, "a QUERY event");
        let _thread = cursor.u32()?;
        let seconds = cursor.u32()?.cast_signed();
        let schema_length = cursor.u8()?;
        let _error = cursor.u16()?;
        let variables_length = cursor.u16()?;
        if type_code == kind::EXECUTE_LOAD_QUERY {
            cursor.take(13)?;
        }
        cursor.take(variables_length.into())?;
        let schema = String::from_utf8_lossy(cursor.take(schema_length.into())?);
        cursor.u8()?;
        let text = if type_code == kind::MARIADB_QUERY_COMPRESSED {
            let mut text = Vec::new();
            uncompress(cursor.rest(), &mut text)?;
            Cow::Owned(String::from_utf8_lossy(&text).into_owned())
        } else {
            String::from_utf8_lossy(cursor.rest())
        };
        Ok(Self { seconds, schema, text })
    }
}
