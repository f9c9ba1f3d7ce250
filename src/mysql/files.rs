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

/// Where the log's files begin, in order, in the kind of the server's positions.
pub async fn starts(endpoint: &Servers) -> Result<Vec<Position>, Error> {
    let mut conn = endpoint.connect().await?;
    let mariadb = Flavor::of(&mut conn).await?.mariadb;
    let gtids =
        !mariadb && conn.query_first::<String, _>("SELECT @@GLOBAL.gtid_mode").await?.is_some_and(|mode| mode == "ON");
    let purged = if gtids { set(conn.query_first("SELECT @@GLOBAL.gtid_purged").await?)? } else { GtidSet::default() };
    let files: Vec<Row> = conn.query("SHOW BINARY LOGS").await?;
    let mut starts = Vec::with_capacity(files.len());
    for file in files.iter().filter_map(|row| row.get::<String, _>(0)) {
        let point = if mariadb || gtids {
            let after = begins_after(&mut conn, mariadb, &file).await?;
            if mariadb {
                Point::Domains(after.unwrap_or_default().parse().map_err(|error| other(&error))?)
            } else {
                // What was restored from a backup is in no file.
                Point::Gtid(set(after)?.union(&purged))
            }
        } else {
            Point::File(FilePoint { file, offset: 4, server: None }.into())
        };
        starts.push(point.into());
    }
    Ok(starts)
}

/// The last file that was begun before this time, in seconds since the Unix epoch: where it begins, and when it was begun.
/// `None` when the oldest was begun later, or the server does not say.
pub async fn begun_before(endpoint: &Servers, seconds: i64) -> Result<Option<(Position, i64)>, Error> {
    let names: Vec<Row> = endpoint.connect().await?.query("SHOW BINARY LOGS").await?;
    let starts = starts(endpoint).await?;
    let names: Vec<String> = names.iter().filter_map(|row| row.get(0)).collect();
    let (mut found, mut low, mut high) = (None, 0, names.len().min(starts.len()));
    while low < high {
        let middle = usize::midpoint(low, high);
        let time = endpoint.patiently(begun(endpoint.in_use(), &names[middle])).await??;
        match time.and_then(|time| i64::try_from(time).ok()).filter(|time| *time < seconds) {
            Some(time) => (found, low) = (Some((starts[middle].clone(), time)), middle + 1),
            None => high = middle,
        }
    }
    Ok(found)
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
