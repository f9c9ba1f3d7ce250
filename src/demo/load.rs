//! The delivery platform alone, on a server that is already there: something to look at on dashboards.
//!
//! Promise: it holds no more in memory however long it writes, and it waits for a server that is away.

use std::num::NonZeroU32;

use mysql_async::Opts;
use tokio_util::sync::CancellationToken;

use super::DemoError;
use super::stage::Stage;
use crate::history::{Writer, WriterSettings};

/// Transactions of each writer before its journal, which nobody reads here, is thrown away.
const ROUND: u64 = 1000;

/// Writes to the shards of the demo on this server, which are created if they are missing, until told to stop. Gives the
/// number of events that were committed.
pub async fn write(server: Opts, rate: NonZeroU32, stop: CancellationToken) -> Result<u64, DemoError> {
    let mut events = 0;
    while !stop.is_cancelled() {
        let mut settings = WriterSettings::new(server.clone(), Stage::outboxes(), fastrand::u64(..));
        settings.rate = Some(rate);
        settings.limit = Some(ROUND);
        let writer = Writer::new(settings)?;
        writer.prepare().await?;
        let progress = writer.progress();
        writer.run(stop.clone()).await?;
        events += progress.events();
    }
    Ok(events)
}
