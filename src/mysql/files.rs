//! The files of a server's log, as positions: where each of them begins.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row};

use super::connect::Flavor;
use super::servers::Servers;
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
        let point = if mariadb {
            let list: Option<String> = conn.exec_first("SELECT BINLOG_GTID_POS(?, 4)", (&file,)).await?;
            Point::Domains(list.unwrap_or_default().parse().map_err(|error| unreadable(&error))?)
        } else if gtids {
            // What was restored from a backup is in no file.
            Point::Gtid(before(&mut conn, &file).await?.union(&purged))
        } else {
            Point::File(FilePoint { file, offset: 4, server: None }.into())
        };
        starts.push(point.into());
    }
    Ok(starts)
}

/// What all files before this one have, as its head says.
async fn before(conn: &mut Conn, file: &str) -> Result<GtidSet, Error> {
    // The statement takes no placeholders. Names of logs are the server's own.
    let quoted = file.replace('\\', "\\\\").replace('\'', "''");
    let head: Vec<Row> = conn.query(format!("SHOW BINLOG EVENTS IN '{quoted}' LIMIT 3")).await?;
    let found = head.iter().find(|row| row.get::<String, _>("Event_type").as_deref() == Some("Previous_gtids"));
    set(found.and_then(|row| row.get("Info")))
}

fn set(text: Option<String>) -> Result<GtidSet, Error> {
    let text: String = text.unwrap_or_default().split_whitespace().collect();
    text.parse().map_err(|error| unreadable(&error))
}

fn unreadable(error: &dyn std::fmt::Display) -> Error {
    Error::Io(std::io::Error::new(std::io::ErrorKind::InvalidData, error.to_string()).into())
}
