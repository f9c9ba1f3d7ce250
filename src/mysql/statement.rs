//! What a QUERY event means for transactions and for outbox tables. Nothing is parsed beyond what that takes.

use crate::table::TableName;

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
    /// Rows changed in statement format: the rows themselves are not in the log.
    Dml,
    Truncate,
    /// Tables are made, changed, renamed or dropped.
    Definition,
    Other,
}

impl<'a> Statement<'a> {
    pub(super) fn classify(text: &'a str) -> Self {
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
            ("INSERT" | "REPLACE" | "UPDATE" | "DELETE" | "LOAD" | "WITH", _) => Self::Dml,
            ("TRUNCATE", _) => Self::Truncate,
            ("ALTER" | "CREATE" | "DROP" | "RENAME", _) => Self::Definition,
            _ => Self::Other,
        }
    }
}

/// Whether a statement run in `schema` may concern the table. Errs on the side of yes: a table's name in a literal counts.
pub(super) fn mentions(text: &str, schema: &str, table: &TableName) -> bool {
    let (text, name) = (text.to_lowercase(), table.table().to_lowercase());
    // A schema's name is often the beginning of its tables' names: it has to stand besides them.
    let elsewhere = || text.replace(&name, "").contains(&table.schema().to_lowercase());
    text.contains(&name) && (schema.eq_ignore_ascii_case(table.schema()) || elsewhere())
}

/// Schema and text of an `EXECUTE_LOAD_QUERY` event's body, which is `LOAD DATA` in statement format
/// (`mysql::binlog::event::Execute_load_query_event`: a QUERY event whose fixed part has 13 bytes more).
pub(super) fn of_load(body: &[u8]) -> Option<(String, String)> {
    const FIXED: usize = 13 + 13;
    let schema = usize::from(*body.get(8)?);
    let variables = usize::from(u16::from_le_bytes(*body.get(11..13)?.first_chunk()?));
    let rest = body.get(FIXED + variables..)?;
    let (schema, text) = (rest.get(..schema)?, rest.get(schema + 1..)?);
    let text_of = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Some((text_of(schema), text_of(text)))
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
            ("/* hint */ -- more\n insert into t values (1)", Statement::Dml),
            ("TRUNCATE TABLE x", Statement::Truncate),
            ("CREATE TABLE begin_x (a int)", Statement::Definition),
            ("FLUSH TABLES", Statement::Other),
        ] {
            assert_eq!(Statement::classify(text), meaning, "{text}");
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
