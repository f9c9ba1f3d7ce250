//! The files of a server's log, as positions: where each of them begins.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row};

use super::connect::{Endpoint, Flavor};
use super::decode::{Header, kind};
use super::servers::Servers;
use super::settings::MysqlSettings;
use super::source::other;
use super::wire::Start;
use crate::position::{FilePoint, GtidSet, Point, Position};

/// The log's files, each of which can be asked where it begins.
struct Files {
    conn: Conn,
    names: Vec<String>,
    kind: Kind,
}

/// The kind of the server's positions.
enum Kind {
    Domains,
    /// With what was restored from a backup, which is in no file.
    Gtid(GtidSet),
    File,
}

impl Files {
    async fn of(endpoint: &Servers) -> Result<Self, Error> {
        let mut conn = endpoint.connect().await?;
        let kind = if Flavor::of(&mut conn).await?.mariadb {
            Kind::Domains
        } else if conn.query_first::<String, _>("SELECT @@GLOBAL.gtid_mode").await?.as_deref() == Some("ON") {
            Kind::Gtid(set(conn.query_first("SELECT @@GLOBAL.gtid_purged").await?)?)
        } else {
            Kind::File
        };
        let files: Vec<Row> = conn.query("SHOW BINARY LOGS").await?;
        let names = files.iter().filter_map(|row| row.get(0)).collect();
        Ok(Self { conn, names, kind })
    }

    /// Where a file begins.
    async fn start(&mut self, index: usize) -> Result<Position, Error> {
        let (conn, file) = (&mut self.conn, &self.names[index]);
        let point = match &self.kind {
            Kind::Domains => {
                let after = begins_after(conn, true, file).await?;
                Point::Domains(after.unwrap_or_default().parse().map_err(|error| other(&error))?)
            }
            Kind::Gtid(purged) => Point::Gtid(set(begins_after(conn, false, file).await?)?.union(purged)),
            Kind::File => Point::File(FilePoint { file: file.clone(), offset: 4, server: None }.into()),
        };
        Ok(point.into())
    }
}

/// Where the log's files begin, in order, in the kind of the server's positions.
pub async fn starts(endpoint: &Servers) -> Result<Vec<Position>, Error> {
    let mut files = Files::of(endpoint).await?;
    let mut starts = Vec::with_capacity(files.names.len());
    for index in 0..files.names.len() {
        starts.push(files.start(index).await?);
    }
    Ok(starts)
}

/// The last file that was begun before this time, in seconds since the Unix epoch: where it begins, and when it was begun.
/// `None` when the oldest was begun later, or the server does not say.
pub async fn begun_before(endpoint: &Servers, seconds: i64) -> Result<Option<(Position, i64)>, Error> {
    let mut files = Files::of(endpoint).await?;
    let (mut found, mut low, mut high) = (None, 0, files.names.len());
    while low < high {
        let middle = usize::midpoint(low, high);
        let time = endpoint.patiently(begun(endpoint.in_use(), &files.names[middle])).await??;
        match time.and_then(|time| i64::try_from(time).ok()).filter(|time| *time < seconds) {
            Some(time) => (found, low) = (Some((middle, time)), middle + 1),
            None => high = middle,
        }
    }
    let Some((index, time)) = found else { return Ok(None) };
    Ok(Some((files.start(index).await?, time)))
}

/// When a file was begun, in seconds since the Unix epoch: its first event says so, and only a replica is shown that.
pub(super) async fn begun(endpoint: &Endpoint, file: &str) -> Result<Option<u64>, Error> {
    let mut wire = endpoint.wire().await?;
    wire.run("SET @master_binlog_checksum = 'CRC32', @source_binlog_checksum = 'CRC32'").await?;
    wire.dump(MysqlSettings::fresh_server_id(), Start::File(file, 4)).await?;
    loop {
        while let Some(packet) = wire.packet() {
            let event = wire.event(&packet)?;
            let (Some(time), Some(event_kind)) = (event.first_chunk::<4>(), event.get(4)) else { return Ok(None) };
            let time = u32::from_le_bytes(*time);
            if *event_kind != kind::ROTATE {
                return Ok((event.len() >= Header::LEN && time != 0).then(|| time.into()));
            }
        }
        wire.receive().await?;
    }
}

/// How many events stand before the first transaction of a file of MySQL: its description, and what it begins after.
pub(super) const HEAD: usize = 2;

/// What all files before this one have, in the server's words; `None` when it does not say.
pub(super) async fn begins_after(conn: &mut Conn, mariadb: bool, file: &str) -> Result<Option<String>, Error> {
    if mariadb {
        let list: Option<Option<String>> = conn.exec_first("SELECT BINLOG_GTID_POS(?, 4)", (file,)).await?;
        return Ok(list.flatten());
    }
    Ok(previous_gtids(&first_events(conn, file, HEAD).await?))
}

/// So many events of a file, from its beginning.
pub(super) async fn first_events(conn: &mut Conn, file: &str, events: usize) -> Result<Vec<Row>, Error> {
    // The statement takes no placeholders. Names of logs are the server's own.
    let literal = file.replace('\\', "\\\\").replace('\'', "''");
    conn.query(format!("SHOW BINLOG EVENTS IN '{literal}' LIMIT {events}")).await
}

/// The first of these events that is of a kind.
pub(super) fn of_kind<'e>(events: &'e [Row], kind: &str) -> Option<&'e Row> {
    events.iter().find(|row| row.get::<String, _>("Event_type").as_deref() == Some(kind))
}

/// The transactions that a file with these first events begins after.
pub(super) fn previous_gtids(events: &[Row]) -> Option<String> {
    of_kind(events, "Previous_gtids")?.get("Info")
}

fn set(text: Option<String>) -> Result<GtidSet, Error> {
    text.unwrap_or_default().parse().map_err(|error| other(&error))
}
