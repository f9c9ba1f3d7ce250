//! `outboxd check`: whether the servers are set up as they must be.

use super::{code, server, show};
use crate::config::Loaded;
use crate::daemon::{self, DaemonError};
use crate::mysql::preflight;

pub(super) async fn check(loaded: &Loaded) -> Result<u8, DaemonError> {
    let (log, _) = daemon::endpoints(&loaded.config)?;
    let mut conn = log.connect().await.map_err(|error| server(&error))?;
    let existing = preflight::tables(&mut conn).await.map_err(|error| server(&error))?;
    let subscriptions: Vec<_> =
        daemon::select(&loaded.config, &existing)?.into_iter().map(|table| table.subscription).collect();
    let server_id = loaded.config.mysql.resolve_server_id();
    let findings = preflight::check(&mut conn, &subscriptions, server_id).await.map_err(|error| server(&error))?;
    if !findings.is_empty() {
        return Err(DaemonError::Preflight(findings));
    }
    show(&format!("{} tables, nothing to cure", subscriptions.len()));
    Ok(code::CLEAN)
}
