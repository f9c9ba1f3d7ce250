//! What a QUERY event means for transactions and for outbox tables. Nothing is parsed beyond what that takes.

mod reach;

use std::borrow::Cow;
use std::fmt;

pub(super) use self::reach::{Replaced, replaced, target};
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
    /// Rows changed in statement format: the rows themselves are not in the log. In a transaction that is everything that
    /// is not known for something else, for a function may be called by any statement.
    Dml,
    /// A table is made with rows that are not in the log: the statement up to where they come from.
    Filled(&'a str),
    /// A table that stays loses rows that the log does not have: all, or those of a partition.
    Truncate,
    /// DDL and the rest, which may take tables away ([`replaced`]).
    Other,
}

impl<'a> Statement<'a> {
    /// Of a text without comments ([`plain`]). `begun`: a transaction has begun that it stands in.
    pub(super) fn classify(text: &'a str, begun: bool) -> Self {
        let text = without_settings(text);
        let mut words = bare(text).map(|(word, _)| word);
        let first = words.next().unwrap_or_default().to_ascii_uppercase();
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
            ("INSERT" | "REPLACE" | "UPDATE" | "DELETE" | "LOAD" | "WITH", _) | ("SET", "STATEMENT") => Self::Dml,
            ("TRUNCATE", _) => Self::Truncate,
            ("ALTER", "TABLE" | "ONLINE" | "OFFLINE" | "IGNORE") if takes_rows(text) => Self::Truncate,
            ("CREATE", _) => filled(text).map_or(Self::Other, Self::Filled),
            _ if begun && !CHANGES_NO_ROWS.contains(&first.as_str()) => Self::Dml,
            _ => Self::Other,
        }
    }
}

/// What statements begin with, besides CREATE, that may stand in a transaction and change no rows. Nothing at all is what is
/// left of a comment; ANALYZE runs the statement behind it in `MariaDB`, and otherwise stands alone.
const CHANGES_NO_ROWS: [&str; 11] =
    ["", "ALTER", "DROP", "FLUSH", "GRANT", "OPTIMIZE", "RELEASE", "RENAME", "REPAIR", "REVOKE", "XA"];

/// What `MariaDB`'s `SET STATEMENT ... FOR` runs; any other statement is itself.
fn without_settings(text: &str) -> &str {
    let mut words = bare(text);
    let mut begins = |word| words.next().is_some_and(|(next, _)| is_one(next, &[word]));
    if !(begins("SET") && begins("STATEMENT")) {
        return text;
    }
    words.find(|(word, _)| is_one(word, &["FOR"])).map_or(text, |(_, behind)| behind)
}

/// What stands in a CREATE TABLE in front of the SELECT, or the table, whose rows it takes.
fn filled(text: &str) -> Option<&str> {
    let mut words = bare(text).skip(1).skip_while(|(word, _)| is_one(word, &["OR", "REPLACE", "TEMPORARY"]));
    words.next().filter(|(word, _)| is_one(word, &["TABLE"]))?;
    let (word, behind) = words.find(|(word, _)| is_one(word, &["SELECT", "TABLE"]))?;
    text.get(..text.len() - behind.len() - word.len())
}

fn is_one(word: &str, of: &[&str]) -> bool {
    of.iter().any(|known| word.eq_ignore_ascii_case(known))
}

/// Whether an ALTER TABLE takes rows away, with their partitions or their file.
fn takes_rows(text: &str) -> bool {
    let words: Vec<_> = text.split_ascii_whitespace().collect();
    words.windows(2).any(|pair| {
        let of_partition = is_one(pair[0], &["CONVERT", "DISCARD", "DROP", "EXCHANGE", "TRUNCATE"]);
        let of_table = is_one(pair[0], &["DISCARD"]) && is_one(pair[1], &["TABLESPACE"])
            || is_one(pair[0], &["CONVERT"]) && is_one(pair[1], &["TABLE"]);
        of_table || of_partition && is_one(pair[1], &["PARTITION"])
    })
}

/// What cleaning writes into its statements, which the log keeps: the rows that they take away are acknowledged.
pub(super) const CLEANING: &str = "/* outboxd cleans: these rows are acknowledged */";

/// Whether a statement, with its comments, is one of cleaning.
pub(super) fn cleans(text: &str) -> bool {
    text.contains(CLEANING)
}

/// Whether a statement without comments, run in `schema`, has the table's name, whole, where a table's name can be. Letters
/// are large or small.
pub(super) fn names(text: &str, schema: &str, table: &TableName) -> bool {
    let [text, schema, of, name] = [text, schema, table.schema(), table.table()].map(str::to_lowercase);
    let (mut before, mut qualifier): (Option<String>, Option<String>) = (None, None);
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        if let Some((found, behind)) = identifier(rest) {
            if found == name && *qualifier.as_ref().unwrap_or(&schema) == of {
                return true;
            }
            (before, qualifier, rest) = (Some(found), None, behind);
            continue;
        }
        if first == '.' {
            qualifier = before.take();
        } else if !first.is_whitespace() {
            (before, qualifier) = (None, None);
        }
        rest = rest.split_at(quoted(rest).max(first.len_utf8())).1;
    }
    false
}

/// The identifier that a text begins with, without its quotes, and what follows it.
fn identifier(text: &str) -> Option<(String, &str)> {
    let Some(quote) = text.chars().next().filter(|first| ['`', '"'].contains(first)) else {
        let is_within = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || c == '_' || c == '$';
        let (name, behind) = text.split_at(text.find(|c: char| !is_within(c)).unwrap_or(text.len()));
        return Some((name.to_owned(), behind)).filter(|_| !name.is_empty());
    };
    let (mut name, mut rest) = (String::new(), &text[1..]);
    loop {
        let (part, behind) = rest.split_once(quote)?;
        name.push_str(part);
        // Two of them stand for one within the name.
        let Some(more) = behind.strip_prefix(quote) else { return Some((name, behind)) };
        name.push(quote);
        rest = more;
    }
}

/// Whether a statement run in `schema` may concern the table. Errs on the side of yes: a table's name in a literal counts.
pub(super) fn mentions(text: &str, schema: &str, table: &TableName) -> bool {
    let (text, name) = (text.to_lowercase(), table.table().to_lowercase());
    // A schema's name is often the beginning of its tables' names: it has to stand besides them.
    let elsewhere = || text.replace(&name, "").contains(&table.schema().to_lowercase());
    text.contains(&name) && (schema.eq_ignore_ascii_case(table.schema()) || elsewhere())
}

/// Whether a statement may define what changes tables behind other statements' backs: a trigger, a function or what one
/// calls, a view.
pub(super) fn feeds(text: &str) -> bool {
    let mut words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.any(|word| is_one(word, &["TRIGGER", "FUNCTION", "PROCEDURE", "VIEW"]))
}

/// The text without its comments. What stands in one that servers run, `/*! */` or `/*M! */`, is no comment, whichever
/// version it is for.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    if !["/*", "--", "#"].iter().any(|begin| text.contains(begin)) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let (mut rest, mut run) = (text, 0_usize);
    while let Some(first) = rest.chars().next() {
        let quoted = quoted(rest);
        if quoted > 0 {
            let (quoted, behind) = rest.split_at(quoted);
            plain.push_str(quoted);
            rest = behind;
            continue;
        }
        let (to, behind) = if let Some(behind) = rest.strip_prefix("/*!").or_else(|| rest.strip_prefix("/*M!")) {
            run += 1;
            (' ', behind.trim_start_matches(|c: char| c.is_ascii_digit()))
        } else if let Some(behind) = rest.strip_prefix("*/").filter(|_| run > 0) {
            run -= 1;
            (' ', behind)
        } else if let Some(comment) = rest.strip_prefix("/*") {
            (' ', comment.split_once("*/").map_or("", |(_, behind)| behind))
        } else if is_comment_line(rest) {
            (' ', rest.split_once('\n').map_or("", |(_, behind)| behind))
        } else {
            (first, rest.split_at(first.len_utf8()).1)
        };
        plain.push(to);
        rest = behind;
    }
    Cow::Owned(plain)
}

fn is_comment_line(text: &str) -> bool {
    let behind = text.strip_prefix("--");
    text.starts_with('#') || behind.is_some_and(|text| text.chars().next().is_none_or(|c| c.is_ascii_whitespace()))
}

/// How many bytes the quoted string or name takes that the text begins with; 0 if it begins with none.
fn quoted(text: &str) -> usize {
    let bytes = text.as_bytes();
    let Some(quote @ (b'\'' | b'"' | b'`')) = bytes.first().copied() else { return 0 };
    let mut at = 1;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        if byte == quote {
            return at;
        }
        if byte == b'\\' && quote != b'`' {
            at += 1;
        }
    }
    bytes.len()
}

/// The words of a text without comments that stand in no quotes, each with what follows it.
fn bare(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        while let Some(first) = rest.chars().next() {
            let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '$').unwrap_or(rest.len());
            if word > 0 {
                let (word, behind) = rest.split_at(word);
                rest = behind;
                return Some((word, behind));
            }
            rest = rest.split_at(quoted(rest).max(first.len_utf8())).1;
        }
        None
    })
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
            ("ALTER IGNORE TABLE x DROP PARTITION p0", Statement::Truncate),
            ("ALTER TABLE x CONVERT PARTITION p0 TO TABLE y", Statement::Truncate),
            ("ALTER TABLE x DISCARD TABLESPACE", Statement::Truncate),
            ("ALTER TABLE y CONVERT TABLE x TO PARTITION p0 VALUES LESS THAN (9)", Statement::Truncate),
            ("ALTER TABLE x IMPORT TABLESPACE", Statement::Other),
            ("ALTER TABLE x DROP COLUMN `partition`", Statement::Other),
            ("CREATE TABLE begin_x (a int)", Statement::Other),
        ] {
            for begun in [false, true] {
                assert_eq!(Statement::classify(&plain(text), begun), meaning, "{text}");
            }
        }
    }

    #[test]
    fn in_a_transaction_a_statement_changes_rows_unless_it_is_known_not_to() {
        let of = |text: &str, begun| match Statement::classify(&plain(text), begun) {
            Statement::Dml => true,
            Statement::Other => false,
            other => panic!("{text}: {other:?}"),
        };
        for text in [
            "SELECT `delivery`.`publish_event`(1)",
            "select(publish_event(1))",
            "DO publish_event(1)",
            "SET @x = publish_event(1)",
            "CALL publish(1)",
            "VALUES ROW(publish_event(1))",
            "HANDLER of servers to come",
            "ANALYZE INSERT INTO x VALUES (publish_event(1))",
        ] {
            assert!(of(text, true), "{text}");
            assert!(!of(text, false), "{text}: a statement of its own that is not known defines something");
        }
        for text in [
            "CREATE TABLE `x` (`select` int, b int DEFAULT '1 SELECT 2') START TRANSACTION",
            "CREATE TEMPORARY TABLE x LIKE y",
            "CREATE VIEW v AS SELECT * FROM t",
            "CREATE DEFINER=`root`@`%` TRIGGER t AFTER INSERT ON a FOR EACH ROW INSERT INTO b SELECT 1",
            "DROP TEMPORARY TABLE IF EXISTS `x` /* generated by server */",
            "RELEASE SAVEPOINT a",
            "XA PREPARE X'01',X'',1",
            "GRANT SELECT ON *.* TO a",
            "# Dummy event replacing event type 160 that slave cannot handle.",
            "-- nothing",
            "",
        ] {
            assert!(!of(text, true) && !of(text, false), "{text}");
        }
    }

    #[test]
    fn changes_of_rows_are_known_through_comments_and_settings() {
        for text in [
            "INSERT/**/INTO t VALUES (1)",
            "/*!80000 INSERT */ INTO t VALUES (1)",
            "/*!INSERT INTO t /* within */ VALUES (1)*/",
            "/*M!100100 REPLACE */ t VALUES (1)",
            "/*M is a comment */ INSERT INTO t VALUES (1)",
            "--\tcomment\n#another\nUPDATE`t`SET a = 1",
            "SET STATEMENT max_statement_time = 60, sql_mode = ' FOR ' FOR INSERT INTO t VALUES (1)",
            "set/**/statement a=1 for/**/delete from t",
            "SET STATEMENT a = 1",
        ] {
            for begun in [false, true] {
                assert_eq!(Statement::classify(&plain(text), begun), Statement::Dml, "{text}");
            }
        }
        for (text, meaning) in [
            ("SET STATEMENT a = 1 FOR TRUNCATE t", Statement::Truncate),
            ("SET STATEMENT a = 1 FOR ALTER TABLE t ADD b INT", Statement::Other),
            ("TRUNCATE`t`", Statement::Truncate),
            ("ALTER/**/TABLE t DROP/**/PARTITION p0", Statement::Truncate),
            ("SAVEPOINT `a -- #/*b*/`", Statement::Savepoint("a -- #/*b*/")),
            ("/* x */ ROLLBACK TO `savepoint`", Statement::RollbackTo("savepoint")),
        ] {
            assert_eq!(Statement::classify(&plain(text), true), meaning, "{text}");
        }
    }

    #[test]
    fn a_table_that_is_made_with_rows_is_known_by_where_they_come_from() {
        for (text, made) in [
            ("CREATE TABLE t AS SELECT 1", "CREATE TABLE t AS "),
            (
                "create or replace temporary table `select` (a)select 1",
                "create or replace temporary table `select` (a)",
            ),
            ("CREATE TABLE t TABLE u", "CREATE TABLE t "),
        ] {
            for begun in [false, true] {
                assert_eq!(Statement::classify(text, begun), Statement::Filled(made), "{text}");
            }
        }
    }

    #[test]
    fn comments_are_cut_and_what_is_quoted_is_left_alone() {
        for (text, expected) in [
            ("a /* b */ c", "a   c"),
            ("a/* b", "a "),
            ("a -- b\nc # d\ne --", "a  c  e  "),
            ("a--1 */ b", "a--1 */ b"),
            ("'/* a */' \"-- b\" `# c`", "'/* a */' \"-- b\" `# c`"),
            (r"'it\'s /* a */' /* b */", r"'it\'s /* a */'  "),
            ("'it''s -- a' -- b", "'it''s -- a'  "),
            (r"`a\` /* b */", r"`a\`  "),
            ("'/* é", "'/* é"),
            ("é /*!50100 ü /* x */ 'ö*/' */ /*! z", "é   ü   'ö*/'     z"),
        ] {
            assert_eq!(plain(text), expected, "{text}");
        }
        assert!(matches!(plain("no comment"), Cow::Borrowed("no comment")));
        assert!(feeds("CREATE/**/VIEW v AS SELECT 1") && !feeds("ALTER TABLE trigger_log ADD a INT"));
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
    fn a_table_is_named_by_its_whole_name_and_in_its_schema_only() {
        let table = TableName::new("delivery", "delivery-outbox1");
        for text in [
            "TRUNCATE `delivery-outbox1`",
            "truncate table`Delivery`.`Delivery-Outbox1`",
            "ALTER TABLE delivery . \"delivery-outbox1\" DROP PARTITION p",
            "ALTER TABLE `a``b`.t EXCHANGE PARTITION p WITH TABLE `delivery-outbox1` WITHOUT VALIDATION",
            "SET STATEMENT sql_mode = 'it''s' FOR TRUNCATE `delivery-outbox1`",
        ] {
            assert!(names(text, "delivery", &table), "{text}");
        }
        for text in [
            "ALTER TABLE `delivery-outbox10` DROP PARTITION p",
            "TRUNCATE `old-delivery-outbox1`",
            "TRUNCATE other.`delivery-outbox1`",
            "TRUNCATE `delivery-outbox1``x`",
            "ALTER TABLE t COMMENT 'delivery-outbox1', DROP PARTITION p",
            "TRUNCATE `delivery-outbox1",
            "",
        ] {
            assert!(!names(text, "delivery", &table), "{text}");
        }
        assert!(names("TRUNCATE delivery.`delivery-outbox1`", "other", &table));
        assert!(!names("TRUNCATE `delivery-outbox1`", "other", &table));
        let plain = TableName::new("d", "outbox1");
        assert!(names("ALTER TABLE outbox1 DROP PARTITION p", "d", &plain));
        assert!(names("TRUNCATE outbox1;", "D", &plain));
        assert!(!names("ALTER TABLE outbox10 DROP PARTITION p", "d", &plain));
        assert!(!names("TRUNCATE ü.outbox1", "d", &plain) && names("TRUNCATE ü", "d", &TableName::new("d", "Ü")));
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
