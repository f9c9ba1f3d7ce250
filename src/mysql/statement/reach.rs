//! How far a statement reaches: which part of it names the tables that it changes, and which tables it takes away.
//!
//! Promise: a table whose rows a statement changes is named in its target, or a trigger, a view or a function stands
//! between the two. A statement that is not understood is its own target, all of it.

use super::{bare, identifier, is_comment_line, is_one, quoted, without_settings};

/// The part of a statement, with its comments, that names the tables which it changes: an INSERT or REPLACE up to its
/// columns or rows, an UPDATE up to SET, a DELETE up to WHERE. What stands behind it is read, or called.
pub(in crate::mysql) fn target(text: &str) -> &str {
    let part = end_of_target(text).and_then(|end| text.get(..end));
    // With `NO_BACKSLASH_ESCAPES` a backslash is a letter, and quotes end elsewhere.
    part.filter(|part| !part.contains('\\')).unwrap_or(text)
}

/// What the target of a statement with this first word ends before. These words are reserved; VALUE is not, and has a
/// parenthesis behind it.
fn ends_of(verb: &str) -> Option<&'static [&'static str]> {
    match verb.to_ascii_uppercase().as_str() {
        "INSERT" | "REPLACE" => Some(&["(", "SELECT", "SET", "TABLE", "WITH"]),
        "UPDATE" => Some(&["SET"]),
        "DELETE" => Some(&["WHERE"]),
        _ => None,
    }
}

/// Where the target ends; `None` where that is not known for sure.
fn end_of_target(text: &str) -> Option<usize> {
    let mut ends: Option<&[&str]> = None;
    // Behind a period stands a name and behind an @ a variable, be it a reserved word.
    let (mut rest, mut depth, mut is_name) = (text, 0_usize, false);
    while let Some(first) = rest.chars().next() {
        let (here, quotes) = (text.len() - rest.len(), quoted(rest));
        let mut length = quotes.max(first.len_utf8());
        if let Some(comment) = rest.strip_prefix("/*") {
            // Some servers run it.
            if comment.starts_with(['!', 'M']) {
                return None;
            }
            length = "/**/".len() + comment.find("*/")?;
        } else if is_comment_line(rest) {
            length = rest.find('\n')?;
        } else if quotes == 0
            && let Some((word, _)) = identifier(rest)
        {
            match ends {
                None => ends = Some(ends_of(&word)?),
                Some(ends) if depth == 0 && !is_name && is_one(&word, ends) => return Some(here),
                Some(_) => {}
            }
            (length, is_name) = (word.len(), false);
        } else if !first.is_whitespace() {
            let ends = ends?;
            if depth == 0 && first == '(' && ends.contains(&"(") {
                return Some(here);
            }
            depth = match first {
                '(' => depth + 1,
                ')' => depth.checked_sub(1)?,
                _ => depth,
            };
            is_name = ['.', '@'].contains(&first);
        }
        rest = rest.get(length..)?;
    }
    None
}

/// What a statement takes away with its rows, or puts another in the place of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::mysql) enum Replaced<'a> {
    /// The tables that this part of it names.
    Tables(&'a str),
    /// All tables of the schema that this part of it names.
    Schema(&'a str),
}

/// What a statement without comments takes away, if that is tables.
pub(in crate::mysql) fn replaced(text: &str) -> Option<Replaced<'_>> {
    let text = without_settings(text);
    let words: Vec<String> = bare(text).take(4).map(|(word, _)| word.to_ascii_uppercase()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let behind = |words: usize| bare(text).nth(words - 1).map_or("", |(_, behind)| behind);
    match words.as_slice() {
        ["DROP" | "RENAME", "TABLE" | "TABLES", ..] => Some(Replaced::Tables(text)),
        ["DROP", "DATABASE" | "SCHEMA", ..] => Some(Replaced::Schema(behind(2))),
        ["ALTER", "TABLE", ..]
        | ["ALTER", "ONLINE" | "OFFLINE" | "IGNORE", "TABLE", ..]
        | ["ALTER", "ONLINE", "IGNORE", "TABLE"] => renames(text).then_some(Replaced::Tables(text)),
        ["CREATE", "OR", "REPLACE", "TABLE"] => Some(Replaced::Tables(first_name(behind(4)))),
        ["CREATE", "OR", "REPLACE", "DATABASE" | "SCHEMA"] => Some(Replaced::Schema(behind(4))),
        _ => None,
    }
}

/// Whether an ALTER TABLE gives the table another name, not only what is in it.
fn renames(text: &str) -> bool {
    let of_part = |behind: &str| bare(behind).next().is_some_and(|(word, _)| is_one(word, &["COLUMN", "INDEX", "KEY"]));
    bare(text).any(|(word, behind)| is_one(word, &["RENAME"]) && !of_part(behind))
}

/// The name of a table that a text begins with, and its schema if that is given; all of the text if it begins otherwise.
fn first_name(text: &str) -> &str {
    let behind = identifier(text.trim_start()).map(|(_, behind)| behind);
    let schema = behind.and_then(|behind| identifier(behind.trim_start().strip_prefix('.')?.trim_start()));
    let behind = schema.map(|(_, behind)| behind).or(behind);
    behind.and_then(|behind| text.get(..text.len() - behind.len())).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_of_a_statement_is_what_stands_before_its_rows_and_conditions() {
        for (text, expected) in [
            ("INSERT INTO other SELECT id FROM t", "INSERT INTO other "),
            ("insert ignore other(a, b) values ('t', 1)", "insert ignore other"),
            ("INSERT INTO value.`t` VALUE (1)", "INSERT INTO value.`t` VALUE "),
            ("INSERT INTO value SET a = 1", "INSERT INTO value "),
            ("INSERT INTO a.set TABLE t", "INSERT INTO a.set "),
            ("INSERT INTO a WITH c AS (SELECT 1) SELECT * FROM c", "INSERT INTO a "),
            ("INSERT INTO `a (b` VALUES (1)", "INSERT INTO `a (b` VALUES "),
            ("REPLACE/* x */INTO p.sums (t) SELECT 't' FROM t /*!99997*/", "REPLACE/* x */INTO p.sums "),
            ("-- SET\nUPDATE # SET\na SET b = 't' WHERE c = 't'", "-- SET\nUPDATE # SET\na "),
            (
                "UPDATE a, (SELECT CAST(b AS CHAR CHARACTER SET utf8) FROM u) c, t SET d = 1",
                "UPDATE a, (SELECT CAST(b AS CHAR CHARACTER SET utf8) FROM u) c, t ",
            ),
            ("UPDATE a JOIN t ON b = @set AND c = ' SET ' SET d = 1", "UPDATE a JOIN t ON b = @set AND c = ' SET ' "),
            ("DELETE FROM a WHERE b IN (SELECT b FROM t)", "DELETE FROM a "),
            (
                "DELETE a FROM (SELECT 1 FROM u WHERE TRUE) b JOIN a WHERE t = 1",
                "DELETE a FROM (SELECT 1 FROM u WHERE TRUE) b JOIN a ",
            ),
        ] {
            assert_eq!(target(text), expected, "{text}");
        }
    }

    #[test]
    fn a_statement_that_is_not_understood_is_all_target() {
        for text in [
            "WITH c AS (SELECT 1) UPDATE t SET a = 1",
            "CALL p((SELECT 1))",
            "SELECT f(1) FROM t WHERE TRUE",
            "LOAD DATA INFILE 'x' INTO TABLE t (a) SET b = 1",
            "SET STATEMENT a = 1 FOR INSERT INTO t VALUES (1)",
            "CREATE TABLE a SELECT 1",
            // Not every server runs what stands in it.
            "INSERT INTO /*!99999 a SELECT */ t VALUES (1)",
            "/*M!100100 INSERT */ INTO t VALUES (1)",
            // With or without escapes?
            r"UPDATE a JOIN b ON b.c = '\' OR b.d = ' SET ' JOIN t SET e = 1",
            "UPDATE a) SET b = 1",
            "DELETE FROM t",
            "INSERT INTO `t",
            "INSERT INTO /* t",
            "(INSERT INTO t SELECT 1)",
            "`INSERT` SELECT 1",
            "",
        ] {
            assert_eq!(target(text), text);
        }
    }

    #[test]
    fn tables_that_are_dropped_renamed_or_replaced_are_known_by_where_they_are_named() {
        for text in [
            "DROP TABLE IF EXISTS a, b",
            "drop tables a",
            "RENAME TABLE a TO b, c TO a",
            "RENAME TABLES a TO b",
            "ALTER TABLE a RENAME TO b",
            "ALTER TABLE a RENAME `key`",
            "ALTER TABLE a RENAME `b`, ADD KEY (c)",
            "ALTER TABLE a RENAME COLUMN b TO c, RENAME AS d",
            "ALTER IGNORE TABLE a RENAME b",
            "ALTER ONLINE IGNORE TABLE a RENAME b",
        ] {
            assert_eq!(replaced(text), Some(Replaced::Tables(text)));
        }
        for (text, expected) in [
            ("CREATE OR REPLACE TABLE a (b INT REFERENCES t)", Replaced::Tables(" a")),
            ("create or replace table `a b` . c LIKE t", Replaced::Tables(" `a b` . c")),
            ("CREATE OR REPLACE TABLE", Replaced::Tables("")),
            ("DROP DATABASE IF EXISTS `a-b`", Replaced::Schema(" IF EXISTS `a-b`")),
            ("DROP SCHEMA a", Replaced::Schema(" a")),
            ("CREATE OR REPLACE DATABASE a", Replaced::Schema(" a")),
            ("SET STATEMENT lock_wait_timeout = 1 FOR DROP TABLE a", Replaced::Tables(" DROP TABLE a")),
        ] {
            assert_eq!(replaced(text), Some(expected), "{text}");
        }
        for text in [
            "DROP TEMPORARY TABLE a",
            "DROP VIEW a",
            "RENAME USER a TO b",
            "ALTER TABLE a RENAME COLUMN b TO c, RENAME INDEX d TO e, RENAME KEY f TO g",
            "ALTER TABLE a COMMENT 'RENAME TO b'",
            "ALTER VIEW a AS SELECT 1",
            "CREATE OR REPLACE TEMPORARY TABLE a (b INT)",
            "CREATE OR REPLACE VIEW a AS SELECT 1",
            "CREATE TABLE a (b INT)",
            "CREATE DATABASE a",
            "",
        ] {
            assert_eq!(replaced(text), None, "{text}");
        }
    }
}
