//! Reading a table itself, for what the log after a position does not bring.
//!
//! Promise: every row that was committed before the position's point, and is beyond the scan's last key, is given once; no
//! row that the log after the point brings is; and nobody waits for it. A row that was deleted since is given as the log
//! has it.
//!
//! # How
//!
//! A consistent view of the table is opened, and then the log is read from the point up to where it ends: the view shows
//! nothing from behind that. The keys inserted there are left out of the view, for the log brings these rows in their
//! order. What is left is what was committed before the point. The same serves a first start and the way on after a crash;
//! only the log between is longer then. Keys are remembered up to a limit. Beyond it the table halts: a row that is not left
//! out would be ahead of rows of its aggregate that are.
//!
//! A table whose log is purged goes on from where the log begins, by the same step: its rows from before, those that the log
//! shows being deleted, and then the log.
//!
//! [`layout`] knows the columns, [`point`] where a table starts, [`window`] reads the log between, [`remains`] tells whether
//! a table still has all of its rows.

pub(super) mod layout;
pub(super) mod point;
mod remains;
mod window;

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Params, Row, Value};
use tokio::time::timeout;

use self::layout::Layout;
pub(super) use self::point::settled;
use self::window::Window;
use super::connect::{Endpoint, Flavor};
use super::error::{self, Verdict};
use super::source::{MysqlSource, classify, start as oldest};
use crate::position::{Key, Position, Scan};
use crate::source::{BatchBuilder, BatchFull, Fault, Lapse, LogSource, Recovery, SourceError, Subscription, TableScan};

/// How long the server may take for some rows: it may have to read them from a disk.
const ANSWER: Duration = Duration::from_mins(5);

/// Rows that are asked for first.
const FIRST_ROWS: u64 = 64;

/// The most rows that are asked for at once.
const MOST_ROWS: u64 = 10_000;

/// Keys that the server is asked about at once.
const KEYS: usize = 100;

/// A table that is being read.
pub struct MysqlScan {
    conn: Conn,
    layout: Layout,
    window: Window,
    scan: Scan,
    /// Rows to ask for next.
    rows: u64,
    total: u64,
    /// When the view was opened, in microseconds since the Unix epoch, by the server's clock.
    micros: u64,
}

/// Where a table starts that is to be read itself.
pub(super) async fn start(endpoint: &Endpoint, wanted: &Subscription) -> Result<Position, SourceError> {
    let at = wanted.table.to_string();
    let failed = |error: Error| refused(&error, &at);
    let (mut conn, flavor, layout) = session(endpoint, wanted, &at, None).await?;
    let point = point::point(&mut conn, flavor).await.map_err(failed)?.ok_or_else(|| no_binlog(&at))?;
    settled(&mut conn).await?;
    // Asked for after the point: a row from before it is not beyond.
    let until = patiently(point::highest(&mut conn, &layout)).await.map_err(failed)?;
    let _ = conn.disconnect().await;
    Ok(Position { scan: until.map(|until| Box::new(layout.scan(until))), ..point.into() })
}

/// Where a table goes on whose log is purged.
pub(super) async fn recover(
    endpoint: &Endpoint,
    wanted: &Subscription,
    lapse: &Lapse,
) -> Result<Recovery, SourceError> {
    let at = wanted.table.to_string();
    let failed = |error: Error| refused(&error, &at);
    let (mut conn, _, layout) = session(endpoint, wanted, &at, None).await?;
    let oldest = oldest(&mut conn, true).await.map_err(failed)?.ok_or_else(|| no_binlog(&at))?;
    // What was prepared before, and is committed from here on, the log does not have.
    settled(&mut conn).await?;
    let until = patiently(point::highest(&mut conn, &layout)).await.map_err(failed)?;
    // The log may show rows of an empty table being deleted; they need a scan too.
    let until = until.unwrap_or_else(|| layout.key_of(|_| None));
    let remains = remains::remains(&mut conn, &wanted.table, lapse).await.map_err(failed)?;
    let _ = conn.disconnect().await;
    Ok(Recovery { from: Position { scan: Some(Box::new(layout.scan(until))), ..oldest }, remains })
}

/// A session that reads a table itself, and what is asked of it: by the key with columns of the names that are saved, if it
/// can be.
async fn session(
    endpoint: &Endpoint,
    wanted: &Subscription,
    at: &str,
    saved: Option<&Key>,
) -> Result<(Conn, Flavor, Layout), SourceError> {
    let failed = |error: Error| refused(&error, at);
    let mut conn = endpoint.connect().await.map_err(failed)?;
    let flavor = Flavor::of(&mut conn).await.map_err(failed)?;
    point::prepare(&mut conn, flavor).await.map_err(failed)?;
    let layout = Layout::read(&mut conn, wanted, saved).await.map_err(failed)?.map_err(SourceError::Definite)?;
    Ok((conn, flavor, layout))
}

fn no_binlog(at: &str) -> SourceError {
    let detail = "the server writes no binlog; set log_bin".to_owned();
    SourceError::Definite(Fault { name: "no_binlog", detail, at: at.to_owned() })
}

impl MysqlScan {
    /// Opens the table at a position with a scan; `log` reads what came after its point.
    pub(super) async fn open(
        endpoint: &Endpoint,
        mut log: MysqlSource,
        from: &Position,
        wanted: &Subscription,
        keys_bytes: usize,
    ) -> Result<Self, SourceError> {
        let at = format!("{} {from}", wanted.table);
        let failed = |error: Error| refused(&error, &at);
        let scan = from.scan.as_deref().cloned();
        let scan = scan.ok_or_else(|| SourceError::Transient(format!("{from} asks for no rows of the table")))?;
        let (mut conn, flavor, layout) = session(endpoint, wanted, &at, scan.by.as_ref()).await?;
        if let Some(detail) = layout.refuses(&scan) {
            return Err(SourceError::Definite(Fault { name: "position_mismatch", detail, at }));
        }
        let (micros, total) = async {
            conn.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await?;
            // From here on nobody alters the table.
            conn.query_drop(format!("SELECT 1 {} LIMIT 0", layout.from())).await?;
            let micros: Option<u64> =
                conn.query_first("SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS UNSIGNED)").await?;
            let names = (wanted.table.schema(), wanted.table.table());
            let total: Option<Option<u64>> = conn
                .exec_first(
                    "SELECT TABLE_ROWS FROM information_schema.TABLES WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?",
                    names,
                )
                .await?;
            Ok((micros.unwrap_or(0), total.flatten().unwrap_or(0)))
        }
        .await
        .map_err(failed)?;
        let end = point::end(&mut conn, flavor).await.map_err(failed)?;
        let columns = layout.columns.iter().map(|asked| asked.name.clone()).collect();
        let all = Subscription { table: wanted.table.clone(), columns };
        let mut stream = log.open(&from.point.clone().into(), std::slice::from_ref(&all)).await?;
        stream.keep_deleted();
        // They were read after the end of the window was asked for, and nobody has altered the table since.
        stream.keep_definitions();
        let window = Window::new(stream, end, all.columns.len(), keys_bytes);
        Ok(Self { conn, layout, window, scan, rows: FIRST_ROWS, total, micros })
    }

    /// Takes on deleted rows that the log has, as far as they had not been relayed before.
    async fn take_gone(&mut self, batch: &mut BatchBuilder) -> Result<(), SourceError> {
        let gone = self.window.take_gone();
        let mut rows = Vec::new();
        for (number, row) in gone.rows().enumerate() {
            let key = self.layout.key_of(|place| row.get(place));
            let seen = gone.first + number as u64;
            if gone.is_later[number] {
                continue;
            }
            // A DELETE is in the log before the view shows it: such a row is given here, and not by the view once more.
            self.window.remember(&key, &self.layout).map_err(SourceError::Definite)?;
            if seen >= self.scan.gone {
                rows.push((row, key));
            }
        }
        let keys: Vec<&Key> = rows.iter().map(|(_, key)| key).collect();
        let failed = |error: Error| refused(&error, "rows that were deleted");
        let ahead = beyond(&mut self.conn, &self.layout, self.scan.last.as_ref(), &keys).await.map_err(failed)?;
        for ((row, _), ahead) in rows.iter().zip(ahead) {
            if ahead {
                append(batch, self.layout.wanted, |place, out| {
                    row.get(place).map(|value| out.extend_from_slice(value))
                })?;
            }
        }
        self.scan.gone = self.scan.gone.max(gone.first + gone.rows().len() as u64);
        Ok(())
    }

    /// Reads the next rows of the view; `false` when there is none.
    async fn take_present(&mut self, batch: &mut BatchBuilder, bytes: usize) -> Result<bool, SourceError> {
        let mut parameters = Vec::new();
        let mut conditions = Vec::new();
        if let Some(last) = &self.scan.last {
            conditions.push(self.layout.behind(last, false, &mut parameters));
        }
        conditions.push(self.layout.behind(&self.scan.until, true, &mut parameters));
        parameters.push(Value::UInt(self.rows));
        let sql = format!(
            "SELECT {} {} WHERE {} ORDER BY {} LIMIT ?",
            self.layout.expressions(),
            self.layout.from(),
            conditions.join(" AND "),
            self.layout.order("ASC")
        );
        let at = self.layout.table.to_string();
        let failed = |error: Error| refused(&error, &at);
        let mut answer = patiently(self.conn.exec_iter(sql, Params::Positional(parameters))).await.map_err(failed)?;
        let (mut read, mut size) = (0_u64, 0_usize);
        while let Some(row) = patiently(answer.next()).await.map_err(failed)? {
            // Larger rows than those before. They are asked for again; to hold them all might take too much.
            if size >= 2 * bytes && read > 0 {
                break;
            }
            let row = row.unwrap();
            size += row.iter().map(Value::bin_len).map(|length| usize::try_from(length).unwrap_or(0)).sum::<usize>();
            let key = self.layout.key_with(self.layout.key.iter().map(|part| &row[part.place]));
            read += 1;
            if !self.window.is_later(&key) {
                let columns = &self.layout.columns;
                append(batch, self.layout.wanted, |place, out| columns[place].write(&row[place], out).then_some(()))?;
            }
            self.scan.rows += 1;
            self.scan.last = Some(key);
        }
        patiently(answer.drop_result()).await.map_err(failed)?;
        let fit = (bytes as u64).saturating_mul(read) / (size as u64).max(1);
        self.rows = fit.clamp(1, MOST_ROWS).min(self.rows.saturating_mul(4));
        Ok(read > 0)
    }
}

/// Appends a row; `write` appends a column's value, and gives none for NULL.
fn append(
    batch: &mut BatchBuilder,
    columns: usize,
    write: impl Fn(usize, &mut Vec<u8>) -> Option<()>,
) -> Result<(), SourceError> {
    let full = |_: BatchFull| {
        let (detail, at) = (BatchFull.to_string(), "the table".to_owned());
        SourceError::Definite(Fault { name: "batch_full", detail, at })
    };
    let mut row = batch.row();
    let mut value = Vec::new();
    for column in 0..columns {
        value.clear();
        if write(column, &mut value).is_some() {
            row.set(column, |out| {
                out.extend_from_slice(&value);
                Ok::<_, BatchFull>(())
            })
            .map_err(full)?;
        }
    }
    row.finish();
    Ok(())
}

/// Which of these keys come behind `last`. The server knows.
async fn beyond(conn: &mut Conn, layout: &Layout, last: Option<&Key>, keys: &[&Key]) -> Result<Vec<bool>, Error> {
    let Some(last) = last else { return Ok(vec![true; keys.len()]) };
    let mut all = Vec::with_capacity(keys.len());
    for some in keys.chunks(KEYS) {
        let mut parameters = Vec::new();
        let questions: Vec<_> = some.iter().map(|key| layout.one_behind(key, last, &mut parameters)).collect();
        let sql = format!("SELECT {}", questions.join(", "));
        let row: Option<Row> = patiently(conn.exec_first(sql, Params::Positional(parameters))).await?;
        let answers = row.map(Row::unwrap).unwrap_or_default();
        all.extend(answers.iter().map(|answer| *answer == Value::Int(1)));
    }
    Ok(all)
}

/// Waits for rows as long as a slow disk may take.
async fn patiently<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(ANSWER, answer).await.map_err(|_| {
        let reason = format!("no answer within {}", humantime::format_duration(ANSWER));
        Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, reason).into())
    })?
}

/// What an error means for a table that is read.
fn refused(error: &Error, at: &str) -> SourceError {
    match (error::of(error), error) {
        // It was altered between the view and the first look at it.
        (Verdict::Redefined, _) => SourceError::Transient(error.to_string()),
        (Verdict::Missing | Verdict::Log | Verdict::Refused, Error::Server(_)) => {
            SourceError::Definite(Fault { name: "table_not_readable", detail: error.to_string(), at: at.to_owned() })
        }
        _ => classify(error, at),
    }
}

impl TableScan for MysqlScan {
    async fn fill(&mut self, batch: &mut BatchBuilder, bytes: usize) -> Result<Option<Scan>, SourceError> {
        batch.set_commit_micros(self.micros);
        if self.window.read(&self.layout, bytes).await? {
            self.take_gone(batch).await?;
            return Ok(Some(self.scan.clone()));
        }
        Ok(self.take_present(batch, bytes).await?.then(|| self.scan.clone()))
    }

    fn total(&self) -> u64 {
        self.total
    }
}
