//! A table's indexes: by which of them its rows can be read one after the other.
//!
//! Promise: what is said of them is what the server's dictionary says. Two plain questions are asked of it; putting their
//! answers together here takes the server less than a join of its views.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};

use crate::position::Key;
use crate::table::TableName;

/// The primary key's index.
pub(super) const PRIMARY: &str = "PRIMARY";

/// The indexes of one table.
#[derive(Debug, Clone, Default)]
pub(super) struct Indexes {
    /// Those of one index behind one another, in its order.
    parts: Vec<Part>,
    /// The column with `AUTO_INCREMENT`, if it is a whole number.
    counter: Option<String>,
}

/// A column of an index; `None` for an expression.
#[derive(Debug, Clone)]
struct Part {
    index: String,
    is_unique: bool,
    /// Counted from 1.
    place: u64,
    column: Option<String>,
}

impl Indexes {
    /// Asks the server. A table that does not exist has none.
    pub(super) async fn read(conn: &mut Conn, table: &TableName) -> Result<Self, Error> {
        let names = (table.schema(), table.table());
        let rows: Vec<(String, bool, u64, Option<String>)> = conn
            .exec(
                "SELECT INDEX_NAME, NON_UNIQUE = 0, SEQ_IN_INDEX, COLUMN_NAME FROM information_schema.STATISTICS WHERE \
                 TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY INDEX_NAME, SEQ_IN_INDEX",
                names,
            )
            .await?;
        let counter = conn
            .exec_first(
                "SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? AND EXTRA LIKE \
                 '%auto_increment%' AND DATA_TYPE LIKE '%int'",
                names,
            )
            .await?;
        let part = |(index, is_unique, place, column)| Part { index, is_unique, place, column };
        Ok(Self { parts: rows.into_iter().map(part).collect(), counter })
    }

    /// The columns of the primary key.
    pub(super) fn primary(&self) -> Vec<String> {
        let parts = self.parts.iter().filter(|part| part.index == PRIMARY);
        parts.filter_map(|part| part.column.clone()).collect()
    }

    /// The column that numbers the rows as they are inserted, and the unique index that has it alone: the primary key, if
    /// it is one of several.
    pub(super) fn numbering(&self) -> Option<(&str, &str)> {
        let column = self.counter.as_deref()?;
        let is_alone = |index: &str| !self.parts.iter().any(|part| part.index == index && part.place > 1);
        let ours = self.parts.iter().filter(|part| {
            part.is_unique && part.place == 1 && part.column.as_deref() == Some(column) && is_alone(&part.index)
        });
        let index = ours.map(|part| part.index.as_str()).min_by_key(|index| *index != PRIMARY)?;
        Some((column, index))
    }

    /// The index by which rows are read one after the other, and its columns: that of the numbers, or the primary key. Of
    /// the two it is the one with the columns of these names, if one is.
    pub(super) fn reading(&self, saved: Option<&Key>) -> (&str, Vec<String>) {
        let is_saved =
            |columns: &[String]| saved.is_some_and(|saved| saved.is_named(columns.iter().map(String::as_str)));
        let primary = (PRIMARY, self.primary());
        match self.numbering().map(|(column, index)| (index, vec![column.to_owned()])) {
            Some(numbers) if is_saved(&numbers.1) || !is_saved(&primary.1) => numbers,
            _ => primary,
        }
    }

    /// The first column of each.
    pub(super) fn first(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter(|part| part.place == 1).filter_map(|part| part.column.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(index: &str, is_unique: bool, place: u64, column: &str) -> Part {
        Part { index: index.to_owned(), is_unique, place, column: Some(column.to_owned()) }
    }

    fn indexes(counter: &str, parts: &[(&str, bool, u64, &str)]) -> Indexes {
        let parts = parts.iter().map(|&(index, is_unique, place, column)| part(index, is_unique, place, column));
        Indexes { parts: parts.collect(), counter: Some(counter.to_owned()) }
    }

    #[test]
    fn given_a_counter_when_a_unique_index_has_it_alone_then_rows_are_numbered_by_that() {
        let found = indexes(
            "n",
            &[
                ("PRIMARY", true, 1, "id"),
                ("by_both", true, 1, "n"),
                ("by_both", true, 2, "id"),
                ("by_n", true, 1, "n"),
                ("slow", false, 1, "n"),
            ],
        );
        assert_eq!(found.numbering(), Some(("n", "by_n")));
        assert_eq!(found.primary(), ["id"]);
        assert_eq!(found.first().collect::<Vec<_>>(), ["id", "n", "n", "n"]);
    }

    #[test]
    fn given_a_counter_in_the_primary_key_when_another_index_has_it_too_then_the_primary_key_is_taken() {
        let found = indexes("n", &[("A", true, 1, "n"), ("PRIMARY", true, 1, "n")]);
        assert_eq!(found.numbering(), Some(("n", "PRIMARY")));
    }

    #[test]
    fn given_a_key_that_rows_were_read_by_when_numbers_are_indexed_meanwhile_then_they_are_read_by_it_further() {
        let found = indexes("n", &[("PRIMARY", true, 1, "id"), ("by_n", true, 1, "n")]);
        let saved = |names: &[&str]| Key::new(names.iter().map(|name| name.as_bytes().into()));
        let by_numbers = ("by_n", vec!["n".to_owned()]);
        assert_eq!(found.reading(None), by_numbers);
        assert_eq!(found.reading(Some(&saved(&["ID"]))), (PRIMARY, vec!["id".to_owned()]));
        for other in [&["n"][..], &["gone"], &["id", "n"]] {
            assert_eq!(found.reading(Some(&saved(other))), by_numbers, "{other:?}");
        }
        let unnumbered = indexes("n", &[("PRIMARY", true, 1, "id")]);
        assert_eq!(unnumbered.reading(Some(&saved(&["n"]))), (PRIMARY, vec!["id".to_owned()]));
    }

    #[test]
    fn given_a_counter_that_no_unique_index_has_alone_when_asked_then_rows_are_not_numbered() {
        assert_eq!(indexes("n", &[("PRIMARY", true, 1, "n"), ("PRIMARY", true, 2, "id")]).numbering(), None);
        assert_eq!(indexes("n", &[("PRIMARY", true, 1, "id"), ("slow", false, 1, "n")]).numbering(), None);
        assert_eq!(Indexes::default().numbering(), None);
    }
}
