//! Places in the log as operators write them.

use jiff::Zoned;

use super::moment::moment;
use crate::cli::server;
use crate::config::Config;
use crate::daemon::{self, DaemonError};
use crate::mysql::servers::Servers;
use crate::mysql::settings::MysqlSettings;
use crate::mysql::{MysqlSource, files, preflight};
use crate::position::Position;
use crate::relay::places;
use crate::relay::supervisor::Table;
use crate::source::{Lapse, LogSource, SourceError, Subscription};
use crate::table::TableName;

/// The server's log, to find places in.
pub(in crate::cli) struct Log {
    source: MysqlSource,
    endpoint: Servers,
    tables: Vec<Subscription>,
}

impl Log {
    /// The log at this address, for these tables.
    pub(in crate::cli) fn new(config: &Config, endpoint: Servers, tables: Vec<Subscription>) -> Self {
        let mysql = &config.mysql;
        let server_id = MysqlSettings::fresh_server_id();
        let source = MysqlSource::new(endpoint.clone(), server_id, mysql.heartbeat, mysql.silence_deadline);
        Self { source, endpoint, tables }
    }

    /// `earliest`, `newest`, a position, or a time.
    pub(in crate::cli) async fn place(&mut self, text: &str) -> Result<Position, DaemonError> {
        match text {
            "earliest" => self.source.oldest().await.map_err(unreachable),
            "newest" => self.source.newest().await.map_err(unreachable),
            text if text.split_once('=').is_some() => text
                .parse()
                .map_err(|error: crate::position::PositionError| DaemonError::Configuration(error.to_string())),
            text => self.at(text).await,
        }
    }

    /// Where a table goes on with its own rows, and then with what the log still has.
    pub(in crate::cli) async fn of_table(&mut self, table: &TableName) -> Result<Position, DaemonError> {
        let missing = || DaemonError::Configuration(format!("{table} is not configured"));
        let wanted = self.tables.iter().find(|wanted| wanted.table == *table).ok_or_else(missing)?.clone();
        Ok(self.source.recover(&wanted, &Lapse::default()).await.map_err(unreachable)?.from)
    }

    /// Before what was committed at a time.
    pub(in crate::cli) async fn at(&mut self, time: &str) -> Result<Position, DaemonError> {
        let time = moment(time, &Zoned::now()).map_err(DaemonError::Configuration)?;
        let starts = files::starts(&self.endpoint).await.map_err(|error| server(&error))?;
        let micros = u64::try_from(time.as_microsecond()).unwrap_or(0);
        places::at_time(&mut self.source, &self.tables, &starts, micros).await.map_err(unreachable)
    }

    /// Whether a relay can go on from there; the error says why not.
    pub(in crate::cli) async fn can_resume(&mut self, at: &Position) -> Result<(), String> {
        places::can_resume(&mut self.source, at).await
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it is what a result is mapped by")]
fn unreachable(error: SourceError) -> DaemonError {
    DaemonError::Server(format!("mysql: {error}"))
}

/// The tables that the configuration selects.
pub(in crate::cli) async fn configured(config: &Config, log: &Servers) -> Result<Vec<Table>, DaemonError> {
    let mut conn = log.connect().await.map_err(|error| server(&error))?;
    let existing = preflight::tables(&mut conn).await.map_err(|error| server(&error))?;
    daemon::select(config, &existing)
}
