//! What the server's log still keeps, and for how long.
//!
//! Promise: what is said of a position is never too good: a file counts as needed as soon as one transaction of it may be
//! missing, and as gone as soon as the server may delete it.
//!
//! A server deletes whole files, oldest first: those that were written to for the last time longer ago than it keeps them
//! (which is when the next one was begun), and those that make the log larger than it may be. It does so when it begins a
//! new file, so what is due may still be there for long.

use std::collections::HashMap;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row};

use super::connect::{Endpoint, Flavor};
use super::files;
use super::servers::{Identity, Servers};
use crate::position::{DomainPoint, GtidSet, Margin, Point, Position};

/// A file of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
struct LogFile {
    name: String,
    bytes: u64,
}

/// What the server says about its log as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Log {
    flavor: Flavor,
    files: Vec<LogFile>,
    /// How long a file is kept after its last change.
    keeps: Option<Duration>,
    /// How large the log may become, in bytes.
    limit: Option<u64>,
    /// The server's clock, in seconds since the Unix epoch.
    now: u64,
}

/// Looks at the log of the server in use again and again, and remembers what does not change.
pub struct Retention {
    servers: Servers,
    /// Whose files are remembered.
    of: String,
    /// What a file begins after.
    begins: HashMap<String, Point>,
    /// When a file was begun, in seconds since the Unix epoch.
    begun: HashMap<String, u64>,
}

/// What the log keeps for some positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// How long a file is kept after its last change; `None` for ever.
    pub keeps: Option<Duration>,
    /// For each position that was asked about.
    pub margins: Vec<Margin>,
}

impl Retention {
    /// Asks the one of these servers that is in use.
    pub fn new(servers: impl Into<Servers>) -> Self {
        Self { servers: servers.into(), of: String::new(), begins: HashMap::new(), begun: HashMap::new() }
    }

    /// What the log keeps for each of these positions.
    pub async fn look(&mut self, positions: &[&Position]) -> Result<Kept, Error> {
        let servers = self.servers.clone();
        let (mut conn, endpoint) = servers.choose().await?;
        let Identity { name, .. } = Identity::of(&mut conn).await?;
        if name != self.of {
            self.begins.clear();
            self.begun.clear();
            self.of = name;
        }
        let log = Log::ask(&mut conn).await?;
        let is_there = |name: &String| log.files.iter().any(|file| file.name == *name);
        self.begins.retain(|name, _| is_there(name));
        self.begun.retain(|name, _| is_there(name));
        let mut margins = Vec::with_capacity(positions.len());
        for position in positions {
            margins.push(self.margin(&mut conn, endpoint, &log, position).await?);
        }
        conn.disconnect().await?;
        Ok(Kept { keeps: log.keeps, margins })
    }

    async fn margin(
        &mut self,
        conn: &mut Conn,
        endpoint: &Endpoint,
        log: &Log,
        position: &Position,
    ) -> Result<Margin, Error> {
        let Some(needed) = self.needed(conn, log, position).await? else {
            return Ok(Margin { seconds: Some(0), bytes: Some(0), behind: None });
        };
        let closed = match log.files.get(needed + 1) {
            Some(next) => self.begun(endpoint, &next.name).await?,
            None => None,
        };
        Ok(log.margin(needed, closed, &position.point))
    }

    /// Which file has the first transaction after a position; `None` when it is gone.
    async fn needed(&mut self, conn: &mut Conn, log: &Log, position: &Position) -> Result<Option<usize>, Error> {
        if let Point::File(point) = &position.point {
            return Ok(log.files.iter().position(|file| file.name == point.start().file));
        }
        // Files begin after more and more; the needed one is the last whose beginning is covered.
        let (mut covered, mut beyond) = (None, log.files.len());
        while covered.map_or(0, |covered| covered + 1) < beyond {
            let from = covered.map_or(0, |covered| covered + 1);
            let middle = from + (beyond - from) / 2;
            let begins = self.begins(conn, log.flavor, &log.files[middle].name).await?;
            if begins.is_some_and(|begins| begins <= position.point) {
                covered = Some(middle);
            } else {
                beyond = middle;
            }
        }
        Ok(covered)
    }

    async fn begins(&mut self, conn: &mut Conn, flavor: Flavor, file: &str) -> Result<Option<Point>, Error> {
        if let Some(known) = self.begins.get(file) {
            return Ok(Some(known.clone()));
        }
        let after = files::begins_after(conn, flavor.mariadb, file).await?;
        let begins = after.and_then(|after| {
            if flavor.mariadb {
                after.parse::<DomainPoint>().ok().map(Point::Domains)
            } else {
                after.parse::<GtidSet>().ok().map(Point::Gtid)
            }
        });
        if let Some(begins) = &begins {
            self.begins.insert(file.to_owned(), begins.clone());
        }
        Ok(begins)
    }

    /// When a file was begun.
    async fn begun(&mut self, endpoint: &Endpoint, file: &str) -> Result<Option<u64>, Error> {
        if let Some(known) = self.begun.get(file) {
            return Ok(Some(*known));
        }
        let begun = endpoint.patiently(files::begun(endpoint, file)).await??;
        if let Some(begun) = begun {
            self.begun.insert(file.to_owned(), begun);
        }
        Ok(begun)
    }
}

impl Log {
    async fn ask(conn: &mut Conn) -> Result<Self, Error> {
        let flavor = Flavor::of(conn).await?;
        let variables: Vec<(String, String)> = conn
            .query(
                "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('binlog_expire_logs_auto_purge', \
                 'binlog_expire_logs_seconds', 'expire_logs_days', 'max_binlog_total_size', 'binlog_space_limit')",
            )
            .await?;
        let files: Vec<Row> = conn.query("SHOW BINARY LOGS").await?;
        let now: Option<u64> = conn.query_first("SELECT UNIX_TIMESTAMP()").await?;
        let file = |row: &Row| Some(LogFile { name: row.get(0)?, bytes: row.get(1)? });
        let variables: HashMap<_, _> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Ok(Self {
            flavor,
            files: files.iter().filter_map(file).collect(),
            keeps: keeps(&variables),
            // MariaDB since 11.4, Percona Server.
            limit: ["max_binlog_total_size", "binlog_space_limit"].iter().find_map(|name| number(&variables, name)),
            now: now.unwrap_or(0),
        })
    }

    /// For a position whose next transaction is in the file `needed`, which was written to until `closed`.
    fn margin(&self, needed: usize, closed: Option<u64>, point: &Point) -> Margin {
        let seconds = self.keeps.map(|keeps| match (needed + 1 < self.files.len(), closed) {
            (true, Some(closed)) => (closed + keeps.as_secs()).saturating_sub(self.now),
            // It could not be learnt.
            (true, None) => 0,
            (false, _) => keeps.as_secs(),
        });
        let from_there: u64 = self.files[needed..].iter().map(|file| file.bytes).sum();
        let within = if let Point::File(point) = point { point.start().offset } else { 0 };
        Margin {
            seconds,
            bytes: self.limit.map(|limit| limit.saturating_sub(from_there)),
            behind: Some(from_there.saturating_sub(within)),
        }
    }
}

/// A variable that is a number above zero.
fn number(variables: &HashMap<&str, &str>, name: &str) -> Option<u64> {
    variables.get(name)?.parse().ok().filter(|number| *number > 0)
}

/// How long files are kept; `None` for ever.
fn keeps(variables: &HashMap<&str, &str>) -> Option<Duration> {
    if variables.get("binlog_expire_logs_auto_purge") == Some(&"OFF") {
        return None;
    }
    if let Some(seconds) = number(variables, "binlog_expire_logs_seconds") {
        return Some(Duration::from_secs(seconds));
    }
    // Parts of a day since MariaDB 10.6.
    let days: f64 = variables.get("expire_logs_days")?.parse().ok()?;
    (days > 0.0).then(|| Duration::from_secs_f64(days * 86_400.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(keeps: Option<u64>, limit: Option<u64>) -> Log {
        let file = |number: u64| LogFile { name: format!("b.{number:06}"), bytes: 1000 };
        Log {
            flavor: Flavor { mariadb: false, version: (9, 7, 0) },
            files: (1..=3).map(file).collect(),
            keeps: keeps.map(Duration::from_secs),
            limit,
            now: 10_000,
        }
    }

    fn point(text: &str) -> Point {
        text.parse::<Position>().unwrap().point
    }

    #[test]
    fn a_file_goes_so_long_after_the_next_was_begun_and_the_newest_not_before_that_time() {
        let log = log(Some(600), None);
        let (here, seconds) = (point("gtid="), |margin: Margin| margin.seconds);
        assert_eq!(seconds(log.margin(0, Some(9_900), &here)), Some(500));
        assert_eq!(seconds(log.margin(0, Some(9_000), &here)), Some(0), "it may be gone at any moment");
        assert_eq!(seconds(log.margin(0, None, &here)), Some(0), "what is not known is not promised");
        assert_eq!(seconds(log.margin(2, None, &here)), Some(600));
        assert_eq!(seconds(self::log(None, None).margin(0, Some(9_000), &here)), None);
    }

    #[test]
    fn a_bounded_log_has_so_much_room_before_the_needed_file_goes() {
        let margin = log(None, Some(2_500)).margin(1, None, &point("file=b.000002:300"));
        assert_eq!((margin.bytes, margin.behind), (Some(500), Some(1_700)));
        assert_eq!(log(None, Some(2_500)).margin(0, None, &point("gtid=")).bytes, Some(0));
    }

    #[test]
    fn each_server_says_in_its_own_way_how_long_it_keeps_files() {
        let keeps = |variables: &[(&'static str, &'static str)]| keeps(&variables.iter().copied().collect());
        assert_eq!(keeps(&[("binlog_expire_logs_seconds", "2592000")]), Some(Duration::from_hours(720)));
        let days = [("binlog_expire_logs_seconds", "0"), ("expire_logs_days", "0.5")];
        assert_eq!(keeps(&days), Some(Duration::from_hours(12)));
        assert_eq!(keeps(&[("binlog_expire_logs_seconds", "0"), ("expire_logs_days", "0.000000")]), None);
        let off = [("binlog_expire_logs_seconds", "60"), ("binlog_expire_logs_auto_purge", "OFF")];
        assert_eq!(keeps(&off), None);
    }
}
