//! Names of outbox tables, and the patterns by which a configuration selects them.
//!
//! A name is always the pair of schema and table, written `schema.table`. Hyphens are normal in both parts, so
//! everything that reaches SQL goes through [`TableName::quoted`].

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use globset::{GlobBuilder, GlobMatcher};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A table's full name. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    schema: Arc<str>,
    table: Arc<str>,
}

impl TableName {
    /// A name from its two parts.
    pub fn new(schema: &str, table: &str) -> Self {
        Self { schema: schema.into(), table: table.into() }
    }

    /// The schema (MySQL calls it database).
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// The table's own name.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The number at the end of the table's own name: 4 of `delivery-outbox4`.
    pub fn number(&self) -> Option<u32> {
        self.table.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }

    /// The name as SQL wants it: both parts in backticks, backticks inside doubled.
    pub fn quoted(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.table))
    }
}

/// One identifier in backticks, as MySQL and MariaDB quote it.
pub fn quote(identifier: &str) -> String {
    format!("`{}`", identifier.replace('`', "``"))
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

impl fmt::Debug for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TableName {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('.') {
            Some((schema, table)) if !schema.is_empty() && !table.is_empty() => Ok(Self::new(schema, table)),
            _ => Err(PatternError::NoSchema { pattern: text.to_owned() }),
        }
    }
}

impl Serialize for TableName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TableName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Why a table name or pattern cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// There is no `schema.` in front.
    #[error("`{pattern}` names no schema; write it as `schema.table`")]
    NoSchema {
        /// The text as it was given.
        pattern: String,
    },
    /// A brace expression is not closed, empty, or not a range.
    #[error("`{pattern}` has a brace expression that is neither a range such as {{1..4}} nor a list such as {{a,b}}")]
    Braces {
        /// The text as it was given.
        pattern: String,
    },
    /// The range expands to more tables than one daemon can serve.
    #[error("`{pattern}` expands to more than {limit} tables")]
    TooMany {
        /// The text as it was given.
        pattern: String,
        /// The most that one pattern may expand to.
        limit: usize,
    },
    /// The wildcard expression is not valid.
    #[error("`{pattern}` is not a valid wildcard pattern: {reason}")]
    Glob {
        /// The text as it was given.
        pattern: String,
        /// What the matcher says.
        reason: String,
    },
}

/// What one entry of `tables` selects: names that are written out (also by braces), or a wildcard over what exists.
#[derive(Debug, Clone)]
pub enum TablePattern {
    /// These tables, whether they exist or not.
    Names(Vec<TableName>),
    /// Every existing base table whose `schema.table` matches; `*` and `?` do not cross the dot.
    Wildcard(GlobMatcher),
}

/// More tables than one pattern may expand to; a typing error such as `{1..40000}` should not become a plan.
const MOST_TABLES: usize = 4096;

impl TablePattern {
    /// Reads `schema.table`, `schema.table{1..4}`, `schema.{a,b}` or a wildcard such as `schema.*-outbox?`.
    pub fn parse(pattern: &str) -> Result<Self, PatternError> {
        let expanded = expand_braces(pattern)?;
        if pattern.contains(['*', '?', '[']) {
            if !pattern.contains('.') {
                return Err(PatternError::NoSchema { pattern: pattern.to_owned() });
            }
            // The matcher knows lists but not ranges, so braces are expanded here for both kinds of pattern.
            let glob =
                if let [one] = expanded.as_slice() { one.clone() } else { format!("{{{}}}", expanded.join(",")) };
            let matcher = GlobBuilder::new(&glob.replace('.', "/"))
                .literal_separator(true)
                .build()
                .map_err(|error| PatternError::Glob { pattern: pattern.to_owned(), reason: error.kind().to_string() })?
                .compile_matcher();
            return Ok(Self::Wildcard(matcher));
        }
        expanded.iter().map(|name| name.parse()).collect::<Result<_, _>>().map(Self::Names)
    }

    /// Whether an existing table is selected.
    pub fn matches(&self, table: &TableName) -> bool {
        match self {
            Self::Names(names) => names.contains(table),
            Self::Wildcard(matcher) => matcher.is_match(format!("{}/{}", table.schema(), table.table())),
        }
    }
}

fn expand_braces(pattern: &str) -> Result<Vec<String>, PatternError> {
    let Some(open) = pattern.find('{') else {
        return match pattern.find('}') {
            Some(_) => Err(PatternError::Braces { pattern: pattern.to_owned() }),
            None => Ok(vec![pattern.to_owned()]),
        };
    };
    let bad = || PatternError::Braces { pattern: pattern.to_owned() };
    let close = pattern[open..].find('}').map(|at| open + at).ok_or_else(bad)?;
    let (head, inner, tail) = (&pattern[..open], &pattern[open + 1..close], &pattern[close + 1..]);
    let choices = if let Some((from, to)) = inner.split_once("..") {
        let (first, last) = (from.parse::<u64>().map_err(|_| bad())?, to.parse::<u64>().map_err(|_| bad())?);
        if last < first {
            return Err(bad());
        }
        if last - first >= MOST_TABLES as u64 {
            return Err(PatternError::TooMany { pattern: pattern.to_owned(), limit: MOST_TABLES });
        }
        // `{01..12}` keeps its leading zeros, as a shell does.
        let width = if from.starts_with('0') { from.len() } else { 0 };
        (first..=last).map(|n| format!("{n:0width$}")).collect::<Vec<_>>()
    } else if inner.is_empty() || inner.split(',').any(str::is_empty) {
        return Err(bad());
    } else {
        inner.split(',').map(str::to_owned).collect()
    };
    let rests = expand_braces(tail)?;
    if choices.len() * rests.len() > MOST_TABLES {
        return Err(PatternError::TooMany { pattern: pattern.to_owned(), limit: MOST_TABLES });
    }
    Ok(choices.iter().flat_map(|choice| rests.iter().map(move |rest| format!("{head}{choice}{rest}"))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pattern: &str) -> Vec<String> {
        match TablePattern::parse(pattern).unwrap() {
            TablePattern::Names(names) => names.iter().map(ToString::to_string).collect(),
            TablePattern::Wildcard(_) => panic!("{pattern} is a wildcard"),
        }
    }

    #[test]
    fn a_range_names_every_shard_in_order() {
        assert_eq!(
            names("delivery.delivery-outbox{1..3}"),
            ["delivery.delivery-outbox1", "delivery.delivery-outbox2", "delivery.delivery-outbox3"]
        );
        assert_eq!(names("d.o{08..10}"), ["d.o08", "d.o09", "d.o10"]);
        assert_eq!(names("{a,b}.o{1..2}"), ["a.o1", "a.o2", "b.o1", "b.o2"]);
        assert_eq!(names("d.plain-name"), ["d.plain-name"]);
    }

    #[test]
    fn a_wildcard_stays_within_its_schema() {
        let pattern = TablePattern::parse("delivery.*-outbox{1..2}").unwrap();
        assert!(pattern.matches(&TableName::new("delivery", "order-outbox2")));
        assert!(!pattern.matches(&TableName::new("delivery", "order-outbox3")));
        assert!(!pattern.matches(&TableName::new("other", "order-outbox2")));
        assert!(TablePattern::parse("*").is_err());
        assert!(!TablePattern::parse("d*.x").unwrap().matches(&TableName::new("other", "x")));
    }

    #[test]
    fn patterns_that_mean_nothing_are_refused() {
        for bad in ["nodot", ".x", "x.", "d.o{", "d.o}", "d.o{}", "d.o{4..1}", "d.o{a..b}", "d.o{a,}"] {
            assert!(TablePattern::parse(bad).is_err(), "{bad}");
        }
        assert!(matches!(TablePattern::parse("d.o{1..99999}"), Err(PatternError::TooMany { .. })));
    }

    #[test]
    fn quoting_survives_hyphens_and_backticks() {
        assert_eq!(TableName::new("a-b", "c`d").quoted(), "`a-b`.`c``d`");
    }
}
