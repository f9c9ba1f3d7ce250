//! What a QUERY event means for transactions and for outbox tables. Nothing is parsed beyond what that takes.

use std::fmt;

use super::decode::{Cursor, DecodeError};
use crate::table::TableName;

/// The identity of an XA transaction, in the form in which the server writes it: `X'67',X'62',1`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Xid(String);

impl Xid {
    fn of_text(text: &str) -> Self {
        let text = text.trim().trim_end_matches(';');
        Self(text.chars().filter(|c| !c.is_ascii_whitespace()).collect::<String>().to_ascii_lowercase())
    }

    /// Reads the body of an `XA_PREPARE` event: whether it commits in one phase, and which transaction it is.
    pub(super) fn of_event(body: &[u8]) -> Result<(bool, Self), DecodeError> {
        let mut cursor = Cursor::new(body, "an XA_PREPARE event");
        let one_phase = cursor.u8()? != 0;
        let format = cursor.u32()?.cast_signed();
        let (global, branch) = (cursor.u32()?, cursor.u32()?);
        let hex = |bytes: &[u8]| bytes.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        let (global, branch) = (hex(cursor.take_u64(global.into())?), hex(cursor.take_u64(branch.into())?));
        Ok((one_phase, Self(format!("x'{global}',x'{branch}',{format}"))))
    }
}

impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The meaning of a statement in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Statement<'a> {
    Begin,
    Commit,
    Rollback,
    Savepoint(&'a str),
    RollbackTo(&'a str),
    /// `XA START` opens a group whose rows end with an `XA_PREPARE` event.
    XaStart,
    XaEnd,
    /// A prepared transaction's outcome.
    XaCommit(Xid),
    /// A prepared transaction's outcome.
    XaRollback(Xid),
    /// Rows changed in statement format: the rows themselves are not in the log.
    Dml,
    /// A table loses rows that the log does not have: all, or those of a partition.
    Truncate,
    /// DDL and the rest.
    Other,
}

impl<'a> Statement<'a> {
    pub(super) fn classify(text: &'a str) -> Self {
        // Every transaction has it, just so.
        if text == "BEGIN" {
            return Self::Begin;
        }
        let text = strip(text);
        let mut words = text.split_ascii_whitespace();
        let first = words.next().unwrap_or_default().trim_end_matches(';').to_ascii_uppercase();
        let second = words.next().unwrap_or_default().to_ascii_uppercase();
        match (first.as_str(), second.as_str()) {
            ("BEGIN", _) | ("START", "TRANSACTION") => Self::Begin,
            ("COMMIT", _) => Self::Commit,
            ("SAVEPOINT", _) => Self::Savepoint(name(text, 1)),
            ("ROLLBACK", "TO") => {
                let savepoint = words.next().is_some_and(|word| word.eq_ignore_ascii_case("savepoint"));
                Self::RollbackTo(name(text, if savepoint { 3 } else { 2 }))
            }
            ("ROLLBACK", _) => Self::Rollback,
            ("XA", "START" | "BEGIN") => Self::XaStart,
            ("XA", "END") => Self::XaEnd,
            ("XA", "COMMIT") => Self::XaCommit(Xid::of_text(name(text, 2))),
            ("XA", "ROLLBACK") => Self::XaRollback(Xid::of_text(name(text, 2))),
            ("INSERT" | "REPLACE" | "UPDATE" | "DELETE" | "LOAD" | "WITH", _) => Self::Dml,
            ("TRUNCATE", _) => Self::Truncate,
            ("ALTER", "TABLE") if takes_partitions(text) => Self::Truncate,
            _ => Self::Other,
        }
    }
}

/// Whether an ALTER TABLE takes rows away with their partitions.
fn takes_partitions(text: &str) -> bool {
    let words: Vec<_> = text.split_ascii_whitespace().collect();
    words.windows(2).any(|pair| {
        ["DROP", "TRUNCATE", "EXCHANGE"].iter().any(|word| pair[0].eq_ignore_ascii_case(word))
            && pair[1].eq_ignore_ascii_case("partition")
    })
}

/// Whether a statement run in `schema` may concern the table. Errs on the side of yes: a table's name in a literal counts.
pub(super) fn mentions(text: &str, schema: &str, table: &TableName) -> bool {
    let (text, name) = (text.to_lowercase(), table.table().to_lowercase());
    // A schema's name is often the beginning of its tables' names: it has to stand besides them.
    let elsewhere = || text.replace(&name, "").contains(&table.schema().to_lowercase());
    text.contains(&name) && (schema.eq_ignore_ascii_case(table.schema()) || elsewhere())
}

/// Whether a statement may define what changes tables behind other statements' backs: a trigger or a function.
pub(super) fn feeds(text: &str) -> bool {
    let mut words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.any(|word| word.eq_ignore_ascii_case("trigger") || word.eq_ignore_ascii_case("function"))
}

/// Cuts comments in front off.
fn strip(text: &str) -> &str {
    let mut text = text.trim_start();
    loop {
        text = if let Some(rest) = text.strip_prefix("/*").filter(|rest| !rest.starts_with(['!', 'M'])) {
            rest.split_once("*/").map_or("", |(_, rest)| rest)
        } else if let Some(rest) = text.strip_prefix("-- ").or_else(|| text.strip_prefix('#')) {
            rest.split_once('\n').map_or("", |(_, rest)| rest)
        } else {
            return text;
        }
        .trim_start();
    }
}

/// The identifier after so many words, as the server wrote it, without quotes.
fn name(text: &str, words: usize) -> &str {
    let mut rest = text;
    for _ in 0..words {
        rest = rest.trim_start().split_once(char::is_whitespace).map_or("", |(_, rest)| rest);
    }
    rest.trim().trim_end_matches(';').trim_matches(['`', '"'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_told_apart_by_their_first_words() {
        for (text, meaning) in [
            ("BEGIN", Statement::Begin),
            ("COMMIT /* x */", Statement::Commit),
            ("SAVEPOINT `a b`", Statement::Savepoint("a b")),
            ("ROLLBACK TO `a b`", Statement::RollbackTo("a b")),
            ("rollback to savepoint s", Statement::RollbackTo("s")),
            ("ROLLBACK", Statement::Rollback),
            ("XA START X'01',X'',1", Statement::XaStart),
            ("XA COMMIT X'0A', X'',1", Statement::XaCommit(Xid("x'0a',x'',1".into()))),
            ("XA ROLLBACK X'0a',X'',1", Statement::XaRollback(Xid("x'0a',x'',1".into()))),
            ("/* hint */ -- more\n insert into t values (1)", Statement::Dml),
            ("TRUNCATE TABLE x", Statement::Truncate),
            ("ALTER TABLE x DROP PARTITION p0", Statement::Truncate),
            ("alter table `x`\n exchange partition p0 with table y", Statement::Truncate),
            ("ALTER TABLE x DROP COLUMN `partition`", Statement::Other),
            ("CREATE TABLE begin_x (a int)", Statement::Other),
        ] {
            assert_eq!(Statement::classify(text), meaning, "{text}");
        }
    }

    #[test]
    fn an_xid_is_the_same_in_event_and_statement() {
        let body = [0, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0x61, 0xfe, 0x62];
        let (one_phase, xid) = Xid::of_event(&body).unwrap();
        assert!(!one_phase);
        assert_eq!(xid, Xid::of_text(" X'61FE',X'62',1"));
        for end in 0..body.len() {
            assert!(Xid::of_event(&body[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn a_table_is_mentioned_with_its_schema_or_within_it() {
        let table = TableName::new("delivery", "delivery-outbox1");
        assert!(mentions("INSERT INTO `Delivery-Outbox1` VALUES (1)", "delivery", &table));
        assert!(mentions("INSERT INTO delivery.`delivery-outbox1` VALUES (1)", "other", &table));
        assert!(!mentions("INSERT INTO `delivery-outbox1` VALUES (1)", "other", &table));
        assert!(!mentions("INSERT INTO t VALUES (1)", "delivery", &table));
    }
}
