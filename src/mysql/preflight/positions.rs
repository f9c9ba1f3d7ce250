//! The position table, and whether each table's saved position is still in the log.

use std::cmp::Ordering;
use std::collections::HashMap;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error};

use super::Wanted;
use super::facts::{Facts, Refusal, refusal};
use crate::mysql::store::is_owned;
use crate::position::{Point, Position};
use crate::preflight::{Check, Name, summed_up};
use crate::table::{TableName, quote};

/// What the server of the position table says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// The table, quoted.
    table: String,
    account: String,
    /// Why reading or writing does not work.
    refusals: Vec<(&'static str, Refusal)>,
    saved: HashMap<String, String>,
    /// Whether a live daemon has claimed one of the tables.
    pub(super) is_owned: bool,
}

impl Store {
    /// Asks for the position table `schema`.`table` and what it has about the outbox tables. Changes nothing.
    pub async fn ask(conn: &mut Conn, schema: &str, table: &str, wanted: &[Wanted]) -> Result<Self, Error> {
        let table = format!("{}.{}", quote(schema), quote(table));
        let account: Option<String> = conn.query_first("SELECT CURRENT_USER()").await?;
        let mut refusals = Vec::new();
        let mut saved = HashMap::new();
        let read = format!("SELECT table_name, epoch, owner, position, saved_at, paused, parked FROM {table} LIMIT 0");
        if let Some(refusal) = refusal(conn, &read).await? {
            refusals.push(("SELECT", refusal));
        } else {
            let rows: Vec<(String, Option<String>)> =
                conn.query(format!("SELECT table_name, position FROM {table}")).await?;
            saved.extend(rows.into_iter().filter_map(|(name, position)| Some((name, position?))));
        }
        // Rolled back, and about no row: the server only says whether it would.
        conn.query_drop("START TRANSACTION").await?;
        for (name, sql) in [
            (
                "INSERT",
                format!("INSERT INTO {table} (table_name, epoch, owner) SELECT '', 0, '' FROM DUAL WHERE FALSE"),
            ),
            ("UPDATE", format!("UPDATE {table} SET epoch = 0, position = '' WHERE FALSE")),
        ] {
            refusals.extend(refusal(conn, &sql).await?.map(|refusal| (name, refusal)));
        }
        conn.query_drop("ROLLBACK").await?;
        let mut owned = false;
        for wanted in wanted {
            owned = owned || is_owned(conn, &table, &wanted.table).await?;
        }
        let account = super::account(&account.unwrap_or_default());
        Ok(Self { table, account, refusals, saved, is_owned: owned })
    }

    /// Whether a table has a saved position.
    pub(super) fn has(&self, table: &TableName) -> bool {
        self.saved.contains_key(&table.to_string())
    }

    /// Whether positions can be kept there.
    pub fn check(&self) -> Check {
        let check = |found: &str| {
            let expected = "is there, with SELECT, INSERT and UPDATE granted";
            Check::passed(Name::PositionTable, format!("position table {}", self.table), expected, found)
        };
        let Some((_, first)) = self.refusals.first() else { return check("readable and writable") };
        let denied: Vec<_> =
            self.refusals.iter().filter(|(_, refusal)| refusal.is_denied()).map(|(name, _)| *name).collect();
        match first.code {
            _ if !denied.is_empty() => check(&format!("{} denied, or not there", denied.join(", "))).failed(format!(
                "GRANT SELECT, INSERT, UPDATE ON {} TO {}; and `outboxd migrate` if it is not there",
                self.table, self.account
            )),
            1049 | 1146 => check("not there").failed("outboxd migrate"),
            1054 | 1364 => check(&first.message).failed(
                "outboxd migrate; or name another under positions.schema and positions.table, if it is not outboxd's",
            ),
            // ER_OPTION_PREVENTS_STATEMENT, ER_READ_ONLY_MODE.
            1290 | 1836 => check("the server is read-only")
                .failed("set positions.url to a server that may be written to, or SET GLOBAL read_only = OFF"),
            _ => check(&first.message).failed("see the server's message"),
        }
    }

    #[cfg(test)]
    pub(super) fn of(saved: &[(&str, &str)]) -> Self {
        Self {
            table: "`outboxd`.`outboxd_positions`".to_owned(),
            account: "'u'@'%'".to_owned(),
            refusals: Vec::new(),
            saved: saved.iter().map(|(table, text)| ((*table).to_owned(), (*text).to_owned())).collect(),
            is_owned: false,
        }
    }
}

pub(super) fn check(facts: &Facts, wanted: &[Wanted], store: &Store) -> Vec<Check> {
    let mut checks = vec![store.check()];
    if !store.refusals.iter().any(|(name, _)| *name == "SELECT") {
        let expected = "still in the server's log";
        let of = |wanted: &Wanted| position(facts, wanted, store).of_table(&wanted.table);
        checks.extend(summed_up(Name::Position, "saved positions", expected, wanted.iter().map(of).collect()));
    }
    checks
}

fn position(facts: &Facts, wanted: &Wanted, store: &Store) -> Check {
    let table = &wanted.table;
    let check = |found: String| {
        Check::passed(Name::Position, format!("position of {table}"), "still in the server's log", found)
    };
    let Some(text) = store.saved.get(&table.to_string()) else { return unsaved(facts, wanted) };
    let Ok(saved) = text.parse::<Position>() else {
        return check(format!("`{text}`, which is not readable")).failed(format!(
            "outboxd position set {table} --to …, where it is known how far its events came; or outboxd position forget \
             {table}, and it begins anew"
        ));
    };
    let is_purged = facts.beginning.as_ref().is_some_and(|beginning| {
        let (saved, beginning) = (&saved.point, &beginning.point);
        saved.kind() == beginning.kind()
            && !matches!(beginning.partial_cmp(saved), Some(Ordering::Less | Ordering::Equal))
    });
    let has_key = facts.tables.iter().any(|known| known.name == *table && known.has_primary_key);
    let lost = |why: &str| {
        if wanted.recovers && is_purged && has_key {
            let cure = "it is read again from the table, if that shows no gap (on_purged); keep the log for longer";
            return check(format!("{saved}; {why}")).warned(cure);
        }
        check(format!("{saved}; {why}")).failed(format!(
            "read from a server that still has it (mysql.url); or go on with the rows of the table: outboxd position set {table} \
             --to table"
        ))
    };
    match (&saved.point, &facts.beginning, &facts.end) {
        (Point::Gtid(_), Some(Position { point: Point::File(_), .. }), _) => {
            check(format!("{saved}; gtid_mode is not ON"))
                .failed("SET PERSIST gtid_mode = ON, step by step from OFF_PERMISSIVE and ON_PERMISSIVE")
        }
        (Point::Gtid(saved_set), Some(Position { point: Point::Gtid(purged), .. }), end) => {
            let missing = purged.difference(saved_set);
            let ahead = match end {
                Some(Position { point: Point::Gtid(executed), .. }) => saved_set.difference(executed),
                _ => crate::position::GtidSet::default(),
            };
            if missing.is_empty() {
                check(saved.to_string()).or_warned(ahead.is_empty(), ahead_of_server(&ahead.to_string()))
            } else {
                lost(&format!("purged before it was relayed: {missing}"))
            }
        }
        (Point::Domains(point), Some(Position { point: Point::Domains(beginning), .. }), end) => {
            if beginning.partial_cmp(point).is_none_or(Ordering::is_gt) {
                return lost(&format!("the log begins after {beginning}"));
            }
            let behind = matches!(end, Some(Position { point: Point::Domains(end), .. }) if point <= end);
            check(saved.to_string()).or_warned(behind, ahead_of_server(&point.to_string()))
        }
        (Point::File(point), ..) => match &facts.logs {
            Some(logs) if !logs.iter().any(|(file, _)| *file == point.start().file) => {
                lost(&format!("{} is purged, or of another server", point.start().file))
            }
            Some(logs) => match logs.iter().find(|(file, _)| *file == point.at.file) {
                Some((_, size)) if *size >= point.at.offset => check(saved.to_string()),
                Some((_, size)) => lost(&format!("that file ends at {size}")),
                None => lost("that file is purged, or of another server"),
            },
            None => check(saved.to_string()),
        },
        (_, Some(_), _) => lost("it is of another kind of server"),
        (_, None, _) => check(saved.to_string()),
    }
}

fn ahead_of_server(what: &str) -> String {
    format!(
        "compare the topics with the tables: the server does not have {what}, after a failover or from an old backup"
    )
}

/// A table that has never saved a position.
fn unsaved(facts: &Facts, wanted: &Wanted) -> Check {
    let table = &wanted.table;
    let check = |found: &str| {
        let expected = "saved; or a primary key to read the table by, for start = \"snapshot\"";
        Check::passed(Name::Position, format!("position of {table}"), expected, found)
    };
    let has_key = facts.tables.iter().any(|known| known.name == *table && known.has_primary_key);
    if wanted.reads_table && !has_key {
        return check("none yet, and the table has no primary key").failed(format!(
            "ALTER TABLE {} ADD PRIMARY KEY …; or under [[outbox]], start = \"earliest\" publishes what the log has, start = \
             \"now\" what is inserted from now on",
            table.quoted()
        ));
    }
    check("none yet")
}
