//! The log source: opens the binlog of a server right after a position.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, GnoInterval, Sid};
use tokio::sync::oneshot;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;
use uuid::Uuid;

use super::anonymous;
use super::connect::{Endpoint, Flavor};
use super::decode::{Checksum, Dialect};
use super::definition::Definition;
use super::error::{self, Verdict};
use super::history::{self, Judged, Policy};
use super::servers::{Identity, Servers};
use super::settings::{OnLost, OnNewServer};
use super::snapshot::{self, MysqlScan};
use super::stream::{Elsewhere, Memory, MysqlStream, start_offset};
use super::tables::{Rows, Tables};
use super::wire::{Start, Wire};
use crate::position::{FilePoint, GtidSet, Point, Position};
use crate::source::{Fault, Lapse, LogSource, Place, Recovery, SourceError, Subscription};

/// How often a server tells that it is alive while its log is read to the end and no further.
const SOON: Duration = Duration::from_millis(250);

/// The binlog of the server in use.
pub struct MysqlSource {
    servers: Servers,
    server_id: u32,
    heartbeat: Duration,
    silence_deadline: Duration,
    policy: Policy,
    /// From one stream to the next.
    memory: Memory,
}

impl MysqlSource {
    /// Reads as the replica `server_id`, which no other replica of the server may use. The server shows that it is alive
    /// every `heartbeat`; silence beyond `silence_deadline` ends the connection.
    pub fn new(servers: impl Into<Servers>, server_id: u32, heartbeat: Duration, silence_deadline: Duration) -> Self {
        let policy = Policy { on_lost: OnLost::Report, on_new_server: OnNewServer::Halt };
        let memory = Memory::default();
        Self { servers: servers.into(), server_id, heartbeat, silence_deadline, policy, memory }
    }

    /// What to do after a failover where the history does not decide.
    #[must_use]
    pub fn with_policy(self, on_lost: OnLost, on_new_server: OnNewServer) -> Self {
        Self { policy: Policy { on_lost, on_new_server }, ..self }
    }

    /// The server in use.
    async fn chosen(&self, wanted: &Subscription) -> Result<Endpoint, SourceError> {
        let (conn, endpoint) =
            self.servers.choose().await.map_err(|error| classify(&error, &wanted.table.to_string()))?;
        let _ = endpoint.patiently(conn.disconnect()).await;
        Ok(endpoint.clone())
    }

    async fn end(&self, earliest: bool) -> Result<Position, SourceError> {
        let found = async { start(&mut self.servers.connect().await?, earliest).await }.await;
        let at = self.servers.to_string();
        found.map_err(|error| classify(&error, &at))?.ok_or_else(|| {
            let detail = "the server writes no binlog; set log_bin".to_owned();
            SourceError::Definite(Fault { name: "no_binlog", detail, at })
        })
    }
}

/// A place in the server's log: the oldest there is, or its end. `None` when the server writes no log.
pub(super) async fn start(conn: &mut Conn, earliest: bool) -> Result<Option<Position>, Error> {
    let flavor = Flavor::of(conn).await?;
    if !flavor.mariadb {
        let mode: Option<String> = conn.query_first("SELECT @@GLOBAL.gtid_mode").await?;
        if mode.as_deref() == Some("ON") {
            let variable = if earliest { "SELECT @@GLOBAL.gtid_purged" } else { "SELECT @@GLOBAL.gtid_executed" };
            let set: Option<String> = conn.query_first(variable).await?;
            let set: GtidSet = set.unwrap_or_default().parse().map_err(|error| other(&error))?;
            return Ok(Some(Point::Gtid(set).into()));
        }
    } else if !earliest {
        let list: Option<String> = conn.query_first("SELECT @@GLOBAL.gtid_binlog_pos").await?;
        return Ok(Some(Point::Domains(list.unwrap_or_default().parse().map_err(|error| other(&error))?).into()));
    }
    let logs: Vec<mysql_async::Row> = conn.query("SHOW BINARY LOGS").await?;
    let file = |row: &mysql_async::Row| row.get::<String, _>(0);
    let Some(oldest) = logs.first().and_then(file) else { return Ok(None) };
    if flavor.mariadb {
        // What the oldest file begins after; an empty list is the very beginning.
        let list: Option<Option<String>> = conn.exec_first("SELECT BINLOG_GTID_POS(?, 4)", (&oldest,)).await?;
        let Some(list) = list.flatten() else {
            return Err(other(&format!("{oldest} was purged while it was asked about")));
        };
        return Ok(Some(Point::Domains(list.parse().map_err(|error| other(&error))?).into()));
    }
    let (file, offset) = if earliest {
        (oldest, 4)
    } else {
        let newest = logs.last().and_then(|row| Some((file(row)?, row.get::<u64, _>(1)?)));
        newest.unwrap_or((oldest, 4))
    };
    let server = Uuid::parse_str(&Identity::of(conn).await?.name).ok();
    Ok(Some(Point::from(FilePoint { file, offset, server }).into()))
}

pub(super) fn other(error: &dyn std::fmt::Display) -> Error {
    Error::Io(std::io::Error::new(std::io::ErrorKind::InvalidData, error.to_string()).into())
}

/// What an error of the server or the connection means for the tail.
pub(super) fn classify(error: &Error, at: &str) -> SourceError {
    let fault =
        |name, cure: &str| SourceError::Definite(Fault { name, detail: format!("{error}; {cure}"), at: at.to_owned() });
    match (error::of(error), error) {
        // Purged, damaged, or another replica with our server id.
        (Verdict::Log, Error::Server(server)) => {
            let message = server.message.to_lowercase();
            let says = |words: &[&str]| words.iter().any(|words| message.contains(*words));
            if message.contains("same server_uuid")
                || message.contains("same server_id")
                || message.contains("server-id")
            {
                SourceError::Transient(format!("{error}; another replica uses mysql.server_id"))
            } else if message.contains("exceeded max_allowed_packet") {
                let cure = "no server sends an event of 1 GiB; only the file of the log has it (outboxd decode)";
                fault("event_too_large", cure)
            } else if message.contains("anonymous transaction when auto_position") {
                let cure = "a transaction without GTID follows the position, which is a GTID set; set gtid_mode = ON, and \
                            the position to the file and the place that are named";
                fault("anonymous_transaction", cure)
            } else if message.contains("gtid_mode") {
                let cure = "set it back to ON_PERMISSIVE until the tables have read what was written under another mode, \
                            then to ON";
                fault("gtid_mode", cure)
            } else if says(&["crc check", "bogus data in log event", "truncated in the middle of event"]) {
                let cure = "the server cannot read its log there; or no event begins where the position says";
                fault("damaged_event", cure)
            } else if says(&["could not open log file", "memory allocation failed reading log event"]) {
                SourceError::Transient(format!(
                    "{error}; the server is short of open files or of memory, or somebody has removed the file: then see \
                     “a position was purged” in docs/operations.md"
                ))
            } else {
                fault("log_not_available", "the position is purged or not in this server's log")
            }
        }
        (Verdict::Denied, _) => {
            fault("access_denied", "grant REPLICATION SLAVE, REPLICATION CLIENT on *.* and SELECT on the outbox tables")
        }
        (Verdict::Retry | Verdict::Locked, _) => SourceError::Transient(error.to_string()),
        (Verdict::Missing | Verdict::Redefined | Verdict::Log | Verdict::Refused, _) => {
            fault("log_refused", "see the server's message")
        }
    }
}

impl LogSource for MysqlSource {
    type Rows = Rows;
    type Stream = MysqlStream;
    type Scan = MysqlScan;

    async fn oldest(&mut self) -> Result<Position, SourceError> {
        self.end(true).await
    }

    async fn newest(&mut self) -> Result<Position, SourceError> {
        self.end(false).await
    }

    async fn settled(&mut self) -> Result<(), SourceError> {
        let conn = self.servers.connect().await;
        snapshot::settled(&mut conn.map_err(|error| classify(&error, &self.servers.to_string()))?).await
    }

    async fn place(&mut self, position: &Position) -> Result<Place, SourceError> {
        let classify = |error: Error| classify(&error, &position.to_string());
        let mut conn = self.servers.connect().await.map_err(classify)?;
        let identity =
            self.servers.patiently(Identity::of(&mut conn)).await.and_then(|known| known).map_err(classify)?;
        self.judge(&mut conn, &identity, position).await
    }

    async fn open(&mut self, from: &Position, subscriptions: &[Subscription]) -> Result<MysqlStream, SourceError> {
        let at = from.to_string();
        let classify = |error: Error| classify(&error, &at);
        let (mut conn, endpoint) = self.servers.choose().await.map_err(classify)?;
        let identity = endpoint.patiently(Identity::of(&mut conn)).await.and_then(|known| known).map_err(classify)?;
        self.servers.meet(&identity);
        let from = match self.judge(&mut conn, &identity, from).await? {
            Place::Same => from.clone(),
            // It had not said whose file it is in; the place is the same.
            Place::Moved { to, lost: None } if names_no_server(from) => to,
            Place::Moved { to, lost } => {
                let lost = lost.map_or_else(String::new, |lost| format!("; it does not have {}", lost.transactions));
                let server = identity.name;
                return Err(SourceError::Displaced(format!("{endpoint} ({server}) is to be read from {to}{lost}")));
            }
        };
        let prepared = endpoint.patiently(self.prepare(&mut conn, subscriptions)).await;
        let tables = prepared.and_then(|tables| tables).map_err(classify)?;
        endpoint.patiently(check_purged(&mut conn, &from)).await.map_err(classify)??;
        let dump = endpoint.patiently(self.dump(endpoint, &mut conn, &from)).await;
        let (wire, checksum) = dump.and_then(|dump| dump).map_err(classify)?;
        // Every question is answered; how the connection for them ends is of no matter.
        let _ = endpoint.patiently(conn.disconnect()).await;
        let elsewhere = self.watch(identity);
        let stream = MysqlStream::new(wire, checksum, tables, from, self.silence_deadline);
        Ok(stream.leaving(elsewhere).remembering(self.memory.clone()))
    }

    async fn snapshot(&mut self, subscription: &Subscription) -> Result<Position, SourceError> {
        let endpoint = self.chosen(subscription).await?;
        snapshot::start(&endpoint, subscription).await
    }

    async fn recover(&mut self, subscription: &Subscription, lapse: &Lapse) -> Result<Recovery, SourceError> {
        let endpoint = self.chosen(subscription).await?;
        snapshot::recover(&endpoint, subscription, lapse).await
    }

    async fn scan(
        &mut self,
        from: &Position,
        subscription: &Subscription,
        keys_bytes: usize,
    ) -> Result<MysqlScan, SourceError> {
        // A heartbeat is how a quiet server tells that there is nothing more up to the end.
        let heartbeat = self.heartbeat.min(SOON);
        // The view of one server goes with the log of the same.
        let endpoint = self.chosen(subscription).await?;
        let log = Self::new(endpoint.clone(), self.server_id, heartbeat, self.silence_deadline);
        let log = log.with_policy(self.policy.on_lost, self.policy.on_new_server);
        MysqlScan::open(&endpoint, log, from, subscription, keys_bytes).await
    }
}

impl MysqlSource {
    async fn judge(&self, conn: &mut Conn, identity: &Identity, position: &Position) -> Result<Place, SourceError> {
        let judged = self.servers.patiently(history::judge(conn, identity, position, self.policy)).await;
        match judged.and_then(|judged| judged).map_err(|error| classify(&error, &position.to_string()))? {
            Judged::Placed(place) => Ok(place),
            Judged::Behind { missing, wait: Some(why) } => {
                Err(SourceError::Transient(format!("{} has not got {missing} yet: {why}", self.servers)))
            }
            Judged::Behind { missing, wait: None } => {
                warn!(server = %self.servers, %missing, "server_is_behind");
                Ok(Place::Same)
            }
            Judged::Refused(fault) => Err(SourceError::Definite(fault)),
        }
    }

    /// Notices when the primary that is read from is one no more and there is another.
    fn watch(&self, reading: Identity) -> Option<Elsewhere> {
        if !self.servers.may_change() {
            return None;
        }
        let (servers, every) = (self.servers.clone(), self.heartbeat);
        let (tell, told) = oneshot::channel();
        let watching = tokio::spawn(async move {
            loop {
                sleep(every).await;
                if let Some(reason) = servers.better_than(&reading).await {
                    let _ = tell.send(reason);
                    return;
                }
            }
        });
        Some(Elsewhere { told, _watching: AbortOnDropHandle::new(watching) })
    }

    async fn prepare(&self, conn: &mut Conn, subscriptions: &[Subscription]) -> Result<Tables, Error> {
        let mariadb = Flavor::of(conn).await?.mariadb;
        if !mariadb {
            // The log has generated invisible primary keys; definitions are to have them too. Servers before 8.0.30
            // know neither.
            let _ = conn.query_drop("SET SESSION show_gipk_in_create_table_and_information_schema = ON").await;
        }
        let tables = subscriptions.iter().map(|subscription| &subscription.table);
        let definitions = Definition::read(conn, tables).await?;
        let dialect = if mariadb { Dialect::MariaDb } else { Dialect::MySql };
        let mut tables = Tables::new(dialect, subscriptions, definitions);
        tables.know_older(self.memory.recall());
        Ok(tables)
    }

    /// Asks for the log on a connection of its own. `conn` is for questions.
    async fn dump(&self, endpoint: &Endpoint, conn: &mut Conn, from: &Position) -> Result<(Wire, Checksum), Error> {
        let crc32: Option<String> = conn.query_first("SELECT @@GLOBAL.binlog_checksum").await?;
        let checksum = if crc32.as_deref() == Some("NONE") { Checksum::None } else { Checksum::Crc32 };
        let mariadb = Flavor::of(conn).await?.mariadb;
        let mut wire = endpoint.wire().await?;
        // Servers since 8.0.26 read the one name, all others the other.
        let algorithm = if checksum == Checksum::Crc32 { "CRC32" } else { "NONE" };
        let nanos = self.heartbeat.as_nanos();
        wire.run(&format!(
            "SET @master_binlog_checksum = '{algorithm}', @source_binlog_checksum = '{algorithm}', \
             @master_heartbeat_period = {nanos}, @source_heartbeat_period = {nanos}, SESSION net_write_timeout = 600"
        ))
        .await?;
        if mariadb {
            wire.run("SET @mariadb_slave_capability = 4").await?;
        }
        let start = match &from.point {
            Point::Gtid(set) => Start::Gtids(sids(set)),
            Point::Domains(point) => {
                // The text form has numbers and separators only.
                let start = point.start();
                wire.run(&format!("SET @slave_connect_state = '{start}', @slave_gtid_strict_mode = 0")).await?;
                Start::File("", 4)
            }
            Point::File(point) => Start::File(&point.start().file, start_offset(point.start())),
        };
        wire.dump(self.server_id, start).await?;
        Ok((wire, checksum))
    }
}

/// Whether it is a place in a file, of whichever server.
fn names_no_server(position: &Position) -> bool {
    matches!(&position.point, Point::File(point) if point.at.server.is_none())
}

/// A position that the server has purged fails by name, with what is missing; so does one that it would pass over
/// transactions from.
async fn check_purged(conn: &mut Conn, from: &Position) -> Result<(), SourceError> {
    let Point::Gtid(saved) = &from.point else { return Ok(()) };
    let purged: Option<String> =
        conn.query_first("SELECT @@GLOBAL.gtid_purged").await.map_err(|error| classify(&error, "gtid_purged"))?;
    let purged: GtidSet = match purged.unwrap_or_default().parse() {
        Ok(set) => set,
        Err(error) => return Err(SourceError::Transient(format!("gtid_purged: {error}"))),
    };
    let missing = purged.difference(saved);
    if missing.is_empty() {
        let anonymous = anonymous::passed_over(conn, saved).await.map_err(|error| classify(&error, "binary logs"))?;
        let Some(file) = anonymous else { return Ok(()) };
        let detail = format!(
            "{file} has transactions without GTIDs that came after the position; keep gtid_mode=ON, \
             publish their rows yourself, and begin anew after the next transaction with a GTID"
        );
        return Err(SourceError::Definite(Fault { name: "anonymous_transaction", detail, at: from.to_string() }));
    }
    let detail = format!("the server has purged transactions that are not relayed: {missing}");
    Err(SourceError::Definite(Fault { name: "position_purged", detail, at: from.to_string() }))
}

fn sids(set: &GtidSet) -> Vec<Sid<'static>> {
    set.origins()
        .filter_map(|(origin, intervals)| {
            let intervals = intervals.iter().map(|interval| GnoInterval::new(interval.start, interval.end)).collect();
            let sid = Sid::new(*origin.server.as_bytes()).with_intervals(intervals);
            match &origin.tag {
                None => Some(sid),
                // The tag was checked when it was read.
                Some(tag) => tag.to_string().try_into().ok().map(|tag| sid.with_tag(tag)),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_errors_of_the_dump_when_classified_then_each_reason_has_its_name() {
        let name = |code, message: &str| {
            let error = mysql_async::ServerError { code, state: "HY000".to_owned(), message: message.to_owned() };
            match classify(&Error::Server(error), "binlog.000001:4") {
                SourceError::Definite(fault) => fault.name,
                SourceError::Transient(_) => "transient",
                SourceError::Displaced(_) => "displaced",
            }
        };
        let too_large = "log event entry exceeded max_allowed_packet; Increase max_allowed_packet on source";
        for (code, message, expected) in [
            (1236, too_large, "event_too_large"),
            (1236, "Could not find first log file name in binary log index file", "log_not_available"),
            (1236, "could not find next log", "log_not_available"),
            (1236, "Could not open log file", "transient"),
            (1236, "A replica with the same server_uuid/server_id as this replica has connected", "transient"),
            (1045, "Access denied", "access_denied"),
            (1053, "Server shutdown in progress", "transient"),
            (1927, "Connection was killed", "transient"),
            (1064, "You have an error in your SQL syntax", "log_refused"),
        ] {
            assert_eq!(name(code, message), expected, "{message}");
        }
        for (reason, expected) in [
            ("event read from binlog did not pass crc check", "damaged_event"),
            ("bogus data in log event", "damaged_event"),
            ("binlog truncated in the middle of event; consider out of disk space on source", "damaged_event"),
            ("memory allocation failed reading log event", "transient"),
            ("I/O error reading log event", "log_not_available"),
        ] {
            let message =
                format!("{reason}; the first event 'b.000002' at 158, the last event read from './b.000002' at 126");
            assert_eq!(name(1236, &message), expected, "{message}");
        }
    }
}
