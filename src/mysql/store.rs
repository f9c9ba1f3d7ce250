//! The position store in a MySQL table.
//!
//! Promise: as the seam says: one owner at a time, no save under an old epoch, none backwards. A live owner holds a
//! named lock of the server for each table (`GET_LOCK`), which the server drops together with the connection, and with one
//! on which it has heard nothing for [`SILENCE`]; the epoch guards what the lock cannot: a process that was paused while
//! another took over.

use std::cmp::Ordering::{Equal, Less};
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Value};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;
use tracing::info;

use super::error::{self, Verdict, is_transient};
use super::servers::Servers;
use crate::planted::{self, Bug};
use crate::position::{
    Claim, Claimed, Parked, Pause, Position, PositionError, PositionStore, Saved, StoreError, table_of_row,
};
use crate::table::{TableName, quote};

/// A lock's name on the server, made from one that may be longer than the server takes.
const LOCK: &str = "CONCAT('outboxd:', LEFT(SHA2(?, 256), 40))";

/// How long one attempt to get a lock back waits on the server.
const LOCK_WAIT: Duration = Duration::from_secs(1);

/// After so long without a word the server ends the connection (`wait_timeout`): a host that vanished does not close it, and
/// would keep its claims for as long as TCP takes to notice, two hours. Whoever wants these tables waits for longer.
const SILENCE: Duration = Duration::from_secs(30);

/// How often an owner says a word, so that it keeps its locks when it has nothing to save.
const WORD_EVERY: Duration = Duration::from_secs(10);

/// Positions in a table of a MySQL server. Cheap to clone; the clones share one connection.
#[derive(Clone)]
pub struct MysqlStore {
    servers: Servers,
    table: String,
    owner: String,
    lock_wait: Duration,
    session: Arc<Mutex<Session>>,
}

/// A row: name, position, epoch, owner, when it was saved, pause, parked aggregates.
type Stored = (String, Option<String>, u64, String, u64, Option<String>, Option<String>);

/// What a claim reads of a row: epoch, position, pause, parked aggregates.
type Claimable = (u64, Option<String>, Option<String>, Option<String>);

#[derive(Default)]
struct Session {
    conn: Option<Conn>,
    /// To which of the servers.
    server: usize,
    /// The id of the connection before, which may hold our locks for as long as the server has not noticed its end.
    before: Option<u32>,
    claimed: HashMap<TableName, Held>,
    /// Keeps the connection, whichever it is, from being silent.
    alive: Option<AbortOnDropHandle<()>>,
}

/// A claimed table.
struct Held {
    /// Only the owner moves it, so it need not be asked for. Nothing is saved over what is not readable.
    durable: Result<Option<Position>, StoreError>,
    /// The same goes for these.
    parked: Parked,
    /// The epoch of our claim.
    epoch: u64,
    /// The lock was lost with a connection, and somebody else has it.
    lost: bool,
}

enum Failure {
    Server(Error),
    Store(StoreError),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Server(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl MysqlStore {
    /// The store in `schema`.`table` of the server. After a connection was lost, its locks are waited for up to
    /// `lock_wait`, all together.
    pub fn new(servers: impl Into<Servers>, schema: &str, table: &str, lock_wait: Duration) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self {
            servers: servers.into(),
            table: format!("{}.{}", quote(schema), quote(table)),
            owner: format!("{}:{}", host.trim(), std::process::id()),
            lock_wait,
            session: Arc::default(),
        }
    }

    /// Runs a request on the store's connection, opening it again if it is gone, with every lock that we hold.
    async fn with<T>(
        &self,
        request: impl AsyncFnOnce(&mut Conn, &mut HashMap<TableName, Held>) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let mut session = self.session.lock().await;
        // Taken out: a request that is given up half-way must not leave its answer to the next.
        let result = async {
            // Positions are kept where the log is: when that moves, so do they.
            let here = session.server == self.servers.chosen();
            let mut conn = match session.conn.take().filter(|_| here) {
                Some(conn) => conn,
                None => self.reconnect(&mut session).await?,
            };
            session.before = Some(conn.id());
            let result = self.servers.patiently(request(&mut conn, &mut session.claimed)).await?;
            // With the connection go the locks of all tables: a row that somebody has locked is no reason.
            if !matches!(&result, Err(Failure::Server(error)) if error::of(error) == Verdict::Retry) {
                session.conn = Some(conn);
            }
            result
        }
        .await;
        result.map_err(|failure| match failure {
            Failure::Store(error) => error,
            Failure::Server(error) if is_transient(&error) => StoreError::Unavailable(error.to_string()),
            Failure::Server(error) => StoreError::Refused(format!(
                "{}: {error}; run `outboxd migrate`, or grant SELECT, INSERT, UPDATE on it",
                self.table
            )),
        })
    }

    async fn reconnect(&self, session: &mut Session) -> Result<Conn, Failure> {
        let mut conn = self.servers.connect().await?;
        session.server = self.servers.chosen();
        let silence = SILENCE.as_secs();
        // Every table's requests go over this connection: one whose row somebody has locked must not hold up the others.
        let set = format!(
            "SET SESSION wait_timeout = {silence}, time_zone = '+00:00', innodb_lock_wait_timeout = 1, lock_wait_timeout = 1"
        );
        let set = conn.query_drop(set);
        self.servers.patiently(set).await??;
        if session.alive.is_none() {
            let alive = keep_alive(Arc::downgrade(&self.session), self.servers.clone());
            session.alive = Some(AbortOnDropHandle::new(tokio::spawn(alive)));
        }
        let deadline = Instant::now() + self.lock_wait;
        for (table, held) in &mut session.claimed {
            held.lost = !self.relock(&mut conn, table, session.before, deadline).await?;
        }
        for (table, held) in session.claimed.iter_mut().filter(|(_, held)| !held.lost) {
            self.servers.patiently(self.restore(&mut conn, table, held)).await??;
        }
        Ok(conn)
    }

    /// Takes the lock of a claimed table on a new connection; `false` if somebody else has it, and still has at the deadline.
    async fn relock(
        &self,
        conn: &mut Conn,
        table: &TableName,
        before: Option<u32>,
        deadline: Instant,
    ) -> Result<bool, Failure> {
        let mut wait = Duration::ZERO;
        loop {
            match self.servers.patiently(self.lock(conn, table, wait)).await? {
                Ok(()) => return Ok(true),
                Err(Failure::Store(StoreError::Owned { .. })) => {}
                Err(failure) => return Err(failure),
            }
            let ours = self.servers.patiently(self.end_before(conn, table, before)).await??;
            if Instant::now() >= deadline {
                let Some(id) = ours else { return Ok(false) };
                // What a server waits for may keep it from ending a connection, such as room on its disk.
                let reason = format!("the server has not ended our connection {id} of before");
                return Err(StoreError::Unavailable(reason).into());
            }
            wait = LOCK_WAIT;
        }
    }

    /// A server that was behind when the one before it was lost does not know our claim yet, or what we saved last: makes
    /// both good, unless somebody else has been there meanwhile. Called under the table's lock.
    async fn restore(&self, conn: &mut Conn, table: &TableName, held: &mut Held) -> Result<(), Failure> {
        // What was not readable is nothing to bring back.
        let Ok(ours) = held.durable.clone() else { return Ok(()) };
        let name = table.to_string();
        let sql = format!("SELECT epoch, owner, position, parked FROM {} WHERE table_name = ?", self.table);
        let row: Option<(u64, String, Option<String>, Option<String>)> = conn.exec_first(sql, (&name,)).await?;
        if let Some((epoch, owner, position, parked)) = row {
            let found = read(table, position.as_deref())
                .and_then(|position| Ok((position, read_parked(table, parked.as_deref())?)));
            let (theirs, parked) = match found {
                Ok(found) => found,
                // The other tables of this connection go on.
                Err(unreadable) => {
                    held.durable = Err(unreadable);
                    return Ok(());
                }
            };
            let same = theirs == ours && parked == held.parked;
            let order = theirs.as_ref().map_or(Some(Less), |theirs| theirs.partial_cmp(ours.as_ref()?));
            match (epoch.cmp(&held.epoch), owner == self.owner) {
                // A save whose answer was lost may have brought it further than we know.
                (Equal, true) if same || order != Some(Less) && theirs != ours => return Ok(()),
                (Equal | Less, true) => {}
                (Less, false) if matches!(order, Some(Less | Equal)) => {}
                _ => {
                    // No save of ours succeeds any more.
                    held.epoch = 0;
                    return Ok(());
                }
            }
        }
        info!(%table, server = %self.servers, epoch = held.epoch, "claim_restored");
        let position = ours.as_ref().map(ToString::to_string);
        conn.exec_drop(
            format!(
                "INSERT INTO {} (table_name, epoch, owner, position, parked, saved_at) VALUES (?, ?, ?, ?, ?, NOW(6)) ON DUPLICATE \
                 KEY UPDATE epoch = VALUES(epoch), owner = VALUES(owner), position = VALUES(position), \
                 parked = VALUES(parked), saved_at = VALUES(saved_at)",
                self.table
            ),
            (&name, held.epoch, &self.owner, position, held.parked.text()),
        )
        .await?;
        Ok(())
    }

    /// Ends our own connection of before, if it is the one that still has the table's lock, and gives its id. Whoever has the
    /// lock afterwards also knows that no request of that connection is still under way.
    async fn end_before(
        &self,
        conn: &mut Conn,
        table: &TableName,
        before: Option<u32>,
    ) -> Result<Option<u32>, Failure> {
        let holder: Option<(Option<u32>, String)> = conn
            .exec_first(
                format!("SELECT IS_USED_LOCK({LOCK}), owner FROM {} WHERE table_name = ?", self.table),
                (lock_name(&self.table, table), table.to_string()),
            )
            .await?;
        let (Some((Some(holder), owner)), Some(before)) = (holder, before) else { return Ok(None) };
        if holder != before || owner != self.owner {
            return Ok(None);
        }
        // It may be gone by now.
        let _ = conn.query_drop(format!("KILL {holder}")).await;
        Ok(Some(holder))
    }

    async fn lock(&self, conn: &mut Conn, table: &TableName, wait: Duration) -> Result<(), Failure> {
        let got: Option<Option<i64>> =
            conn.exec_first(
                // A lock that is taken twice would have to be released twice.
                format!("SELECT IF(IS_USED_LOCK(n.name) <=> CONNECTION_ID(), 1, GET_LOCK(n.name, ?)) FROM (SELECT {LOCK} AS name) n"),
                (wait.as_secs(), lock_name(&self.table, table)),
            )
            .await?;
        if got.flatten() == Some(1) {
            return Ok(());
        }
        let owner: Option<String> = conn
            .exec_first(format!("SELECT owner FROM {} WHERE table_name = ?", self.table), (table.to_string(),))
            .await?;
        Err(StoreError::Owned { table: table.clone(), owner: owner.unwrap_or_else(|| "another process".to_owned()) }
            .into())
    }

    async fn unlock(&self, conn: &mut Conn, table: &TableName) -> Result<(), Failure> {
        conn.exec_drop(format!("DO RELEASE_LOCK({LOCK})"), (lock_name(&self.table, table),)).await?;
        Ok(())
    }
}

/// Says a word on the session's connection now and then, until the store is dropped. A connection that is lost is opened
/// again by the next request.
async fn keep_alive(session: Weak<Mutex<Session>>, servers: Servers) {
    loop {
        sleep(WORD_EVERY).await;
        let Some(session) = session.upgrade() else { return };
        let mut session = session.lock().await;
        if let Some(mut conn) = session.conn.take()
            && let Ok(Ok(())) = servers.patiently(conn.ping()).await
        {
            session.conn = Some(conn);
        }
    }
}

impl MysqlStore {
    /// A table that is ours to change; a lock that was lost with a connection is taken back.
    async fn own<'h>(
        &self,
        conn: &mut Conn,
        claimed: &'h mut HashMap<TableName, Held>,
        Claim { table, epoch }: &Claim,
    ) -> Result<&'h mut Held, Failure> {
        let theirs = claimed.get(table).map_or(0, |held| held.epoch);
        let fenced = StoreError::Fenced { table: table.clone(), ours: *epoch, theirs };
        let held = claimed.get_mut(table).filter(|_| theirs == *epoch).ok_or(fenced)?;
        if held.lost {
            if !planted::is(Bug::FenceIgnored) {
                self.lock(conn, table, Duration::ZERO).await?;
            }
            held.lost = false;
        }
        Ok(held)
    }

    /// Changes columns of the table's row under the claim.
    async fn update(&self, conn: &mut Conn, claim: &Claim, what: &str, to: &[Option<String>]) -> Result<(), Failure> {
        let Claim { table, epoch } = claim;
        let fence = if planted::is(Bug::FenceIgnored) { "0 < ?" } else { "epoch = ?" };
        let sql = format!("UPDATE {} SET {what} WHERE table_name = ? AND {fence}", self.table);
        let mut parameters: Vec<Value> = to.iter().map(Value::from).collect();
        parameters.extend([Value::from(table.to_string()), Value::from(epoch)]);
        conn.exec_drop(sql, parameters).await?;
        if conn.affected_rows() == 0 {
            let theirs: Option<u64> = conn
                .exec_first(format!("SELECT epoch FROM {} WHERE table_name = ?", self.table), (table.to_string(),))
                .await?;
            let theirs = theirs.unwrap_or(0);
            if theirs != *epoch {
                return Err(StoreError::Fenced { table: table.clone(), ours: *epoch, theirs }.into());
            }
        }
        Ok(())
    }
}

/// Whether a live process has claimed the table in the position table of this (quoted) name.
pub(super) async fn is_owned(conn: &mut Conn, positions: &str, table: &TableName) -> Result<bool, Error> {
    let owner: Option<Option<u64>> = conn
        .exec_first("SELECT IS_USED_LOCK(CONCAT('outboxd:', LEFT(SHA2(?, 256), 40)))", (lock_name(positions, table),))
        .await?;
    Ok(owner.flatten().is_some())
}

fn lock_name(positions: &str, table: &TableName) -> String {
    format!("{positions} {table}")
}

fn read_pause(table: &TableName, text: Option<&str>) -> Result<Option<Pause>, StoreError> {
    let unreadable = |error: serde_json::Error| StoreError::unreadable(table, format_args!("column paused: {error}"));
    text.map(|text| serde_json::from_str(text).map_err(unreadable)).transpose()
}

fn read_parked(table: &TableName, text: Option<&str>) -> Result<Parked, StoreError> {
    Parked::read(text).map_err(|error| StoreError::unreadable(table, format_args!("column parked: {error}")))
}

/// What is kept beside a position.
fn read_rest(
    table: &TableName,
    pause: Option<&str>,
    parked: Option<&str>,
) -> Result<(Option<Pause>, Parked), StoreError> {
    Ok((read_pause(table, pause)?, read_parked(table, parked)?))
}

fn read(table: &TableName, text: Option<&str>) -> Result<Option<Position>, StoreError> {
    text.map(|text| text.parse().map_err(|error: PositionError| StoreError::unreadable(table, error))).transpose()
}

/// A row as it is told of, whatever is in it.
fn saved((name, position, epoch, owner, saved_micros, pause, parked): Stored) -> Saved {
    let (table, named) = table_of_row(&name);
    let (position, pause, parked) = match read_rest(&table, pause.as_deref(), parked.as_deref()) {
        Ok((pause, parked)) => (named.and_then(|()| read(&table, position.as_deref())), pause, parked),
        Err(unreadable) => (Err(unreadable), None, Parked::default()),
    };
    Saved { table, position, epoch, owner, saved_micros, pause, parked }
}

impl PositionStore for MysqlStore {
    async fn claim(&self, table: &TableName) -> Result<Claimed, StoreError> {
        self.with(async |conn, claimed| {
            self.lock(conn, table, Duration::ZERO).await?;
            let name = table.to_string();
            conn.exec_drop(
                format!(
                    "INSERT INTO {} (table_name, epoch, owner) VALUES (?, 1, ?) ON DUPLICATE KEY UPDATE epoch = epoch + 1, \
                     owner = VALUES(owner)",
                    self.table
                ),
                (&name, &self.owner),
            )
            .await?;
            let sql = format!("SELECT epoch, position, paused, parked FROM {} WHERE table_name = ?", self.table);
            let row: Option<Claimable> =
                conn.exec_first(sql, (&name,)).await?;
            let (epoch, position, pause, parked) = row.ok_or_else(|| StoreError::Unavailable(format!("the row of {table} is gone")))?;
            let (pause, parked) = match read_rest(table, pause.as_deref(), parked.as_deref()) {
                Ok(rest) => rest,
                Err(unreadable) => {
                    // Without a claim, nobody could give the lock back.
                    claimed.remove(table);
                    self.unlock(conn, table).await?;
                    return Err(unreadable.into());
                }
            };
            let position = read(table, position.as_deref());
            let held = Held { durable: position.clone(), parked: parked.clone(), epoch, lost: false };
            claimed.insert(table.clone(), held);
            Ok(Claimed { claim: Claim { table: table.clone(), epoch }, position, pause, parked })
        })
        .await
    }

    async fn keep(&self, claim: &Claim, position: &Position, parked: Option<&Parked>) -> Result<(), StoreError> {
        self.with(async |conn, claimed| {
            let table = &claim.table;
            let held = self.own(conn, claimed, claim).await?;
            let forward = |durable: &Position| durable.partial_cmp(position).is_some_and(std::cmp::Ordering::is_le);
            let durable = held.durable.as_ref().map_err(Clone::clone)?;
            if let Some(durable) = durable.as_ref().filter(|durable| !forward(durable)) {
                let (from, to) = (durable.to_string(), position.to_string());
                return Err(StoreError::Backwards { table: table.clone(), from, to }.into());
            }
            let position_text = Some(position.to_string());
            match parked {
                None => self.update(conn, claim, "position = ?, saved_at = NOW(6)", &[position_text]).await?,
                Some(parked) => {
                    let both = [position_text, parked.text()];
                    self.update(conn, claim, "position = ?, parked = ?, saved_at = NOW(6)", &both).await?;
                    held.parked = parked.clone();
                }
            }
            held.durable = Ok(Some(position.clone()));
            Ok(())
        })
        .await
    }

    async fn set(&self, claim: &Claim, position: &Position) -> Result<(), StoreError> {
        self.with(async |conn, claimed| {
            let held = self.own(conn, claimed, claim).await?;
            self.update(conn, claim, "position = ?, saved_at = NOW(6)", &[Some(position.to_string())]).await?;
            held.durable = Ok(Some(position.clone()));
            Ok(())
        })
        .await
    }

    async fn forget(&self, claim: &Claim) -> Result<(), StoreError> {
        self.with(async |conn, claimed| {
            let held = self.own(conn, claimed, claim).await?;
            self.update(conn, claim, "position = ?, saved_at = NOW(6)", &[None]).await?;
            held.durable = Ok(None);
            Ok(())
        })
        .await
    }

    async fn pause(&self, claim: &Claim, pause: Option<&Pause>) -> Result<(), StoreError> {
        let text = pause.map(serde_json::to_string).transpose();
        let text = text.map_err(|error| StoreError::Refused(error.to_string()))?;
        self.with(async |conn, claimed| {
            self.own(conn, claimed, claim).await?;
            self.update(conn, claim, "paused = ?", &[text]).await
        })
        .await
    }

    async fn release(&self, claim: &Claim) -> Result<(), StoreError> {
        self.with(async |conn, claimed| {
            claimed.remove(&claim.table);
            self.unlock(conn, &claim.table).await
        })
        .await
    }

    async fn list(&self) -> Result<Vec<Saved>, StoreError> {
        self.with(async |conn, _| {
            let rows: Vec<Stored> = conn
                .query(format!(
                    "SELECT table_name, position, epoch, owner, CAST(UNIX_TIMESTAMP(saved_at) * 1000000 AS UNSIGNED), paused, \
                     parked FROM {} ORDER BY table_name",
                    self.table
                ))
                .await?;
            Ok(rows.into_iter().map(saved).collect())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::SILENCE;
    use crate::relay::supervisor::CLAIM_WAIT;

    #[test]
    fn an_heir_waits_for_longer_than_a_server_keeps_the_claims_of_a_host_that_vanished() {
        // What the server takes to end a connection comes on top.
        assert!(CLAIM_WAIT >= SILENCE + SILENCE / 4, "{CLAIM_WAIT:?} {SILENCE:?}");
    }
}
