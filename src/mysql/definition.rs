//! A table as the server's data dictionary defines it, for what the log leaves out: the names of columns with
//! `binlog_row_metadata=MINIMAL`, and which of `MariaDB`'s columns are UUIDs.
//!
//! Promise: a definition is used for rows only where it is known to be theirs. It must not be younger than they are, no
//! statement of the log may have touched the table since it was read, and every column must be of the type the log says.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};

use super::collations::Collations;
use super::decode::{Column, ColumnType, TableMap};
use super::statement::mentions;
use crate::table::TableName;

/// A table's definition at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Definition {
    columns: Vec<Defined>,
    /// When it was last defined, in seconds since the Unix epoch.
    since: u64,
    /// Tables whose triggers fill this one, functions that do, and its views, as far as we may see them.
    pub(super) feeders: Vec<Feeder>,
    /// The log has a statement that may define the table and that came after this was read.
    pub(super) stale: bool,
}

/// What a statement may name that changes a table, besides the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Feeder {
    pub(super) name: TableName,
    /// It does so wherever a statement names it: a function, or a view that calls one. Other views, and tables with
    /// triggers, do so only as what a statement changes.
    pub(super) anywhere: bool,
}

#[derive(Debug, Clone, Default)]
struct Defined {
    name: String,
    /// Lower case, without length: `varchar`.
    data_type: String,
    /// As declared: `varchar(64)`, `int(10) unsigned`.
    column_type: String,
    collation: Option<u16>,
    /// The longest value in bytes.
    octets: Option<u64>,
    precision: Option<u64>,
    scale: Option<u64>,
    /// Digits of the fraction of a time.
    fraction: Option<u64>,
}

/// A row of `information_schema.COLUMNS`, in the order of the fields of [`Defined`].
type Row = (String, String, String, Option<String>, Option<u64>, Option<u64>, Option<u64>, Option<u64>);

impl Definition {
    /// Asks the server, for tables in this order. One that does not exist has no columns.
    pub(super) async fn read(conn: &mut Conn, tables: impl Iterator<Item = &TableName>) -> Result<Vec<Self>, Error> {
        let collations = Collations::read(conn).await?;
        let bodies = bodies(conn).await?;
        let mut all = Vec::with_capacity(tables.size_hint().0);
        for table in tables {
            all.push(Self { feeders: feeders(&bodies, table), ..Self::of(conn, table, &collations).await? });
        }
        Ok(all)
    }

    async fn of(conn: &mut Conn, table: &TableName, collations: &Collations) -> Result<Self, Error> {
        let names = (table.schema(), table.table());
        let since: Option<Option<u64>> = conn
            .exec_first(
                "SELECT CAST(UNIX_TIMESTAMP(CREATE_TIME) AS UNSIGNED) FROM information_schema.TABLES WHERE \
                 TABLE_SCHEMA = ? AND TABLE_NAME = ?",
                names,
            )
            .await?;
        let columns = "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, CHARACTER_SET_NAME, CHARACTER_OCTET_LENGTH, \
                       NUMERIC_PRECISION, NUMERIC_SCALE, DATETIME_PRECISION FROM information_schema.COLUMNS WHERE \
                       TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION";
        let columns: Vec<Row> = conn.exec(columns, names).await?;
        let columns =
            columns.into_iter().map(|(name, data_type, column_type, charset, octets, precision, scale, fraction)| {
                Defined {
                    name,
                    data_type: data_type.to_lowercase(),
                    column_type: column_type.to_lowercase(),
                    collation: collations.of(charset.as_deref()),
                    octets,
                    precision,
                    scale,
                    fraction,
                }
            });
        Ok(Self { columns: columns.collect(), since: since.flatten().unwrap_or(0), ..Self::default() })
    }

    /// Whether the server knew no such table.
    pub(super) fn is_absent(&self) -> bool {
        self.columns.is_empty()
    }

    /// Whether the log's description of the table does not suffice.
    pub(super) fn is_needed_for(&self, map: &TableMap) -> bool {
        let uuid = |column: &Column| {
            column.ty == ColumnType::String
                && column.meta == 16
                && self.columns.iter().any(|defined| defined.is_uuid() && Some(&defined.name) == column.name.as_ref())
        };
        map.columns.iter().any(|column| column.name.is_none() || uuid(column))
    }

    /// Adds to the log's description what it leaves out, for rows of a transaction that ended at this time or later, in
    /// seconds since the Unix epoch; or says why this cannot be their definition.
    pub(super) fn complete(&self, map: &mut TableMap, ended: u64) -> Result<(), String> {
        if self.stale {
            return Err("a statement in the log has changed the table's definition".to_owned());
        }
        if ended < self.since {
            return Err(
                "the table was defined anew after these rows were written, and the log has no column names".into()
            );
        }
        if self.columns.len() != map.columns.len() {
            let (logged, now) = (map.columns.len(), self.columns.len());
            return Err(format!("the log has {logged} columns without names, the table now has {now}"));
        }
        for (column, defined) in map.columns.iter_mut().zip(&self.columns) {
            if !defined.fits(column) {
                let (name, now) = (&defined.name, &defined.column_type);
                return Err(format!("the log has {} where the table now has `{name}` {now}", column.ty));
            }
            column.name.get_or_insert_with(|| defined.name.clone());
            column.unsigned = column.unsigned.or(Some(defined.column_type.contains("unsigned")));
            // Columns without a character set are binary.
            column.collation = column.collation.or(defined.collation).or(Some(63));
            if defined.is_uuid() {
                column.ty = ColumnType::Uuid;
            }
        }
        Ok(())
    }
}

/// What the server does beside what a statement says.
struct Body {
    /// What a statement names that has this done: the trigger's table, the routine, or the view.
    of: TableName,
    schema: String,
    text: String,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Trigger,
    Function,
    /// The log has what it does, and not its name. But it does not have what triggers and functions call.
    Procedure,
    View,
}

impl Body {
    fn changes(&self, table: &TableName) -> bool {
        mentions(&self.text, &self.schema, table)
    }
}

/// What a statement may name that changes the table, besides the table: what does so itself, and what does so by others.
fn feeders(bodies: &[Body], table: &TableName) -> Vec<Feeder> {
    let found = reaching(bodies.iter().collect(), vec![table.clone()]);
    let of = |kind: Kind| found.iter().copied().filter(move |body: &&Body| body.kind == kind);
    let functions: Vec<_> = of(Kind::Function).map(|body| body.of.clone()).collect();
    let calling = reaching(of(Kind::View).collect(), functions.clone());
    let mut feeders = Vec::new();
    for body in found.iter().filter(|body| body.kind != Kind::Procedure) {
        let anywhere = functions.contains(&body.of) || calling.iter().any(|view| view.of == body.of);
        let feeder = Feeder { name: body.of.clone(), anywhere };
        if !feeders.contains(&feeder) {
            feeders.push(feeder);
        }
    }
    feeders
}

/// Those that name one of these, or another one that does.
fn reaching(mut left: Vec<&Body>, mut names: Vec<TableName>) -> Vec<&Body> {
    let mut all: Vec<&Body> = Vec::new();
    while let Some(name) = names.pop() {
        let (found, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|body| body.changes(&name));
        left = others;
        names.extend(found.iter().map(|body| body.of.clone()));
        all.extend(found);
    }
    all
}

/// All of them that we may see. The server shows triggers to who has TRIGGER on their table, routines to who may see their
/// body, and views to who has SHOW VIEW on them; it shows a trigger or a view without its body to some who have not.
async fn bodies(conn: &mut Conn) -> Result<Vec<Body>, Error> {
    let rows: Vec<(String, String, String, i64)> = conn
        .query(
            "SELECT TRIGGER_SCHEMA, EVENT_OBJECT_TABLE, ACTION_STATEMENT, 0 FROM information_schema.TRIGGERS WHERE \
             ACTION_STATEMENT IS NOT NULL UNION ALL SELECT ROUTINE_SCHEMA, ROUTINE_NAME, ROUTINE_DEFINITION, \
             IF(ROUTINE_TYPE = 'PROCEDURE', 2, 1) FROM information_schema.ROUTINES WHERE ROUTINE_DEFINITION IS NOT \
             NULL",
        )
        .await?;
    // Asked for apart, for their names may be collated in another way.
    let views: Vec<(String, String, String)> = conn
        .query(
            "SELECT TABLE_SCHEMA, TABLE_NAME, VIEW_DEFINITION FROM information_schema.VIEWS WHERE TABLE_SCHEMA <> 'sys' \
             AND VIEW_DEFINITION IS NOT NULL",
        )
        .await?;
    let body =
        |schema: String, name: String, text, kind| Body { of: TableName::new(&schema, &name), schema, text, kind };
    let mut bodies = Vec::with_capacity(rows.len() + views.len());
    for (schema, name, text, kind) in rows {
        let kind = match kind {
            0 => Kind::Trigger,
            2 => Kind::Procedure,
            _ => Kind::Function,
        };
        bodies.push(body(schema, name, text, kind));
    }
    bodies.extend(views.into_iter().map(|(schema, name, text)| body(schema, name, text, Kind::View)));
    Ok(bodies)
}

#[cfg(test)]
impl Definition {
    /// Of a table whose columns have these names, declared types and longest values in bytes, last defined at this time.
    pub(super) fn told(columns: &[(&str, &str, Option<u64>)], since: u64) -> Self {
        let defined = |(name, column_type, octets): &(&str, &str, Option<u64>)| Defined {
            name: (*name).to_owned(),
            data_type: column_type.split(['(', ' ']).next().unwrap_or_default().to_owned(),
            column_type: (*column_type).to_owned(),
            octets: *octets,
            ..Defined::default()
        };
        Self { columns: columns.iter().map(defined).collect(), since, ..Self::default() }
    }
}

impl Defined {
    fn is_uuid(&self) -> bool {
        self.data_type == "uuid"
    }

    /// Whether the log may describe this column so.
    fn fits(&self, column: &Column) -> bool {
        let meta = u64::from(column.meta);
        let [high, low] = column.meta.to_be_bytes().map(u64::from);
        let octets = self.octets == Some(meta);
        let fraction = self.fraction.unwrap_or(0) == meta;
        let named = column.name.as_ref().is_none_or(|name| *name == self.name);
        named
            && match (self.data_type.as_str(), column.ty) {
                ("tinyint" | "boolean", ColumnType::Tiny)
                | ("smallint", ColumnType::Short)
                | ("mediumint", ColumnType::Int24)
                | ("int", ColumnType::Long)
                | ("bigint", ColumnType::LongLong)
                | ("float", ColumnType::Float)
                | ("double", ColumnType::Double)
                | ("year", ColumnType::Year)
                | ("date", ColumnType::Date | ColumnType::NewDate)
                | ("time", ColumnType::Time)
                | ("datetime", ColumnType::DateTime)
                | ("timestamp", ColumnType::Timestamp)
                | ("json", ColumnType::Json)
                | ("vector", ColumnType::Vector | ColumnType::VarChar)
                | ("enum", ColumnType::Enum)
                | ("set", ColumnType::Set)
                | (
                    "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon"
                    | "geometrycollection" | "geomcollection",
                    ColumnType::Geometry,
                ) => true,
                ("time", ColumnType::Time2)
                | ("datetime", ColumnType::DateTime2)
                | ("timestamp", ColumnType::Timestamp2) => fraction,
                ("decimal", ColumnType::NewDecimal) => self.precision == Some(high) && self.scale.unwrap_or(0) == low,
                ("bit", ColumnType::Bit) => self.precision == Some(high * 8 + low),
                ("char" | "binary", ColumnType::String)
                | ("varchar" | "varbinary", ColumnType::VarChar | ColumnType::VarCharCompressed) => octets,
                ("tinytext" | "tinyblob", ColumnType::Blob | ColumnType::BlobCompressed) => meta == 1,
                ("text" | "blob", ColumnType::Blob | ColumnType::BlobCompressed) => meta == 2,
                ("mediumtext" | "mediumblob", ColumnType::Blob | ColumnType::BlobCompressed) => meta == 3,
                ("longtext" | "longblob" | "json", ColumnType::Blob | ColumnType::BlobCompressed)
                | ("inet4", ColumnType::String) => meta == 4,
                ("uuid" | "inet6", ColumnType::String) => meta == 16,
                _ => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(ty: ColumnType, meta: u16) -> Column {
        Column { ty, meta, nullable: false, unsigned: None, collation: None, name: None }
    }

    fn map(columns: Vec<Column>) -> TableMap {
        TableMap { table_id: 1, schema: "s".into(), table: "t".into(), columns }
    }

    fn definition() -> Definition {
        Definition::told(&[("id", "bigint(20) unsigned", None), ("payload", "varchar(20)", Some(80))], 100)
    }

    #[test]
    fn what_changes_a_table_is_known_by_what_it_names_and_by_what_that_names() {
        let body = |kind, name: &str, text: &str| {
            let (of, text) = (TableName::new("shop", name), text.to_owned());
            Body { of, schema: "shop".to_owned(), text, kind }
        };
        let bodies = [
            body(Kind::View, "shown", "select `shop`.`out-box`.`id` AS `id` from `shop`.`out-box`"),
            body(Kind::View, "shown_again", "select `shop`.`shown`.`id` AS `id` from `shop`.`shown`"),
            body(Kind::Trigger, "orders", "CALL publish(NEW.id)"),
            body(Kind::Trigger, "orders", "INSERT INTO `OUT-BOX` VALUES (1)"),
            body(Kind::Procedure, "publish", "INSERT INTO `out-box` VALUES (n)"),
            body(Kind::Function, "announce", "BEGIN CALL publish(n); RETURN n; END"),
            // It is found by the table, and calls the function all the same.
            body(Kind::View, "calling", "select `shop`.`announce`(1) AS `n` from `shop`.`out-box`"),
            body(Kind::View, "calling_by_others", "select `shop`.`calling`.`n` AS `n` from `shop`.`calling`"),
            body(Kind::Trigger, "other", "INSERT INTO another VALUES (1)"),
            // It may not be read.
            body(Kind::Function, "hidden", ""),
        ];
        let mut found = feeders(&bodies, &TableName::new("shop", "out-box"));
        found.sort_by(|a, b| a.name.cmp(&b.name));
        let expected = [
            ("announce", true),
            ("calling", true),
            ("calling_by_others", true),
            ("orders", false),
            ("shown", false),
            ("shown_again", false),
        ];
        assert_eq!(found, expected.map(|(name, anywhere)| Feeder { name: TableName::new("shop", name), anywhere }));
        assert!(feeders(&bodies, &TableName::new("shop", "elsewhere")).is_empty());
    }

    #[test]
    fn given_a_log_without_names_when_the_definition_is_its_own_then_it_completes_the_log() {
        let mut map = map(vec![column(ColumnType::LongLong, 0), column(ColumnType::VarChar, 80)]);
        assert!(definition().is_needed_for(&map));
        definition().complete(&mut map, 100).unwrap();
        assert_eq!(map.columns[0].name.as_deref(), Some("id"));
        assert_eq!(map.columns[0].unsigned, Some(true));
        assert_eq!(map.columns[1].collation, Some(63));
        assert!(!definition().is_needed_for(&map));
    }

    #[test]
    fn given_a_definition_that_may_be_another_when_asked_then_it_says_so_and_guesses_nothing() {
        let good = vec![column(ColumnType::LongLong, 0), column(ColumnType::VarChar, 80)];
        assert!(definition().complete(&mut map(good.clone()), 99).unwrap_err().contains("defined anew after"));
        let stale = Definition { stale: true, ..definition() };
        assert!(stale.complete(&mut map(good.clone()), 100).is_err());
        assert!(definition().complete(&mut map(good[..1].to_vec()), 100).unwrap_err().contains("1 columns"));
        for other in [column(ColumnType::VarChar, 84), column(ColumnType::Blob, 2)] {
            let columns = vec![good[0].clone(), other];
            assert!(definition().complete(&mut map(columns), 100).unwrap_err().contains("`payload` varchar(20)"));
        }
    }
}
