//! One writer's connection: transactions played on it, and questions asked after it broke.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Opts};
use tokio::time::timeout;

use super::journal::{Outcome, Transaction};
use super::plan::{Change, Plan, Stage};
use crate::table::TableName;

/// How long the server may take for one transaction's statements, for COMMIT, or for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a session came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error(transparent)]
    Server(#[from] Error),
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Silent,
}

impl Broken {
    /// Whether trying again brings the same: no such table, no such right, a duplicate id, a value too long.
    pub(super) fn is_definite(&self) -> bool {
        let Self::Server(Error::Server(error)) = self else { return false };
        ["22", "23", "28", "42"].iter().any(|class| error.state.starts_with(class))
    }
}

async fn patiently<T>(work: impl Future<Output = mysql_async::Result<T>>) -> Result<T, Broken> {
    timeout(PATIENCE, work).await.map_err(|_| Broken::Silent)?.map_err(Broken::from)
}

pub(super) async fn connect(opts: &Opts) -> Result<Conn, Broken> {
    patiently(Conn::new(opts.clone())).await
}

/// Plays a plan. Gives how it ended and, where the connection is no longer of use, why.
pub(super) async fn play(conn: &mut Conn, plan: &Plan, data: &TableName) -> (Outcome, Option<Broken>) {
    match patiently(write(conn, plan, data)).await {
        Err(broken) => (Outcome::RolledBack, Some(broken)), // COMMIT was never sent
        Ok(()) if !plan.commit => (Outcome::RolledBack, patiently(conn.query_drop("ROLLBACK")).await.err()),
        Ok(()) => match patiently(conn.query_drop("COMMIT")).await {
            Ok(()) => (Outcome::Committed, None),
            Err(broken) => (Outcome::Unknown, Some(broken)),
        },
    }
}

async fn write(conn: &mut Conn, plan: &Plan, data: &TableName) -> mysql_async::Result<()> {
    conn.query_drop("START TRANSACTION").await?;
    for part in &plan.parts {
        if !part.kept {
            conn.query_drop("SAVEPOINT part").await?;
        }
        for change in &part.changes {
            insert(conn, change, data).await?;
        }
        if !part.kept {
            conn.query_drop("ROLLBACK TO SAVEPOINT part").await?;
        }
    }
    Ok(())
}

/// The data and the event.
async fn insert(conn: &mut Conn, change: &Change, data: &TableName) -> mysql_async::Result<()> {
    let event = &change.event;
    let statement = if change.stage == Stage::Created {
        format!("INSERT INTO {} (status, version, id) VALUES (?, ?, ?)", data.quoted())
    } else {
        format!("UPDATE {} SET status = ?, version = ? WHERE id = ?", data.quoted())
    };
    conn.exec_drop(statement, (change.stage.name(), event.sequence, &*event.aggregate)).await?;
    let statement = format!(
        "INSERT INTO {} (id, aggregatetype, aggregateid, type, payload) VALUES (?, 'delivery', ?, ?, ?)",
        event.table.quoted()
    );
    conn.exec_drop(statement, (&*event.id, &*event.aggregate, &*event.event_type, &change.payload)).await
}

/// Which of a transaction's events the database has.
///
/// Locking reads: they wait for a transaction that the server has not ended yet, so the answer is final.
pub(super) async fn ask(conn: &mut Conn, transaction: &Transaction) -> Result<HashSet<String>, Broken> {
    let mut by_table: BTreeMap<&TableName, Vec<&str>> = BTreeMap::new();
    for event in transaction.kept() {
        by_table.entry(&event.table).or_default().push(&event.id);
    }
    let mut found = HashSet::new();
    for (table, ids) in by_table {
        let marks = vec!["?"; ids.len()].join(", ");
        let question = format!("SELECT id FROM {} WHERE id IN ({marks}) LOCK IN SHARE MODE", table.quoted());
        found.extend(patiently(conn.exec::<String, _, _>(question, ids)).await?);
    }
    Ok(found)
}
