//! The second MySQL, which takes the place of the first.

use std::collections::HashSet;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use tokio::time::{Instant, sleep};

use super::DemoError;
use super::stage::{opts, run};
use crate::history::{Delivered, Journal, Outcome};
use crate::services::{Front, Service};

/// Of both servers: a commit is answered once the replica has it, however long that takes.
pub(super) const SETTINGS: &[&str] = &[
    "plugin_load_add=semisync_source.so;semisync_replica.so",
    "loose-rpl_semi_sync_replica_enabled=ON",
    "loose-rpl_semi_sync_source_timeout=600000",
];

/// How long it may take to apply what it has received.
const PATIENCE: Duration = Duration::from_mins(1);

/// A replica, and the name by which writers reach whoever is the primary.
pub(super) struct Standby {
    service: Service,
    front: Front,
}

impl Standby {
    /// Makes a server the semi-synchronous replica of the one on this port.
    pub(super) async fn follow(service: Service, primary: u16) -> Result<Self, DemoError> {
        let source = format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={primary}, SOURCE_USER='admin', \
             SOURCE_PASSWORD='admin', SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1, SOURCE_CONNECT_RETRY=1"
        );
        run(service.port(), &["SET GLOBAL super_read_only = ON", &source, "START REPLICA"]).await?;
        run(primary, &["SET GLOBAL rpl_semi_sync_source_enabled = ON"]).await?;
        let front = Front::before(primary).await?;
        Ok(Self { service, front })
    }

    /// Where it listens on 127.0.0.1.
    pub(super) fn port(&self) -> u16 {
        self.service.port()
    }

    /// Where writers reach the primary.
    pub(super) fn front(&self) -> u16 {
        self.front.port()
    }

    /// Applies what it has received, becomes the primary, and has the writers.
    pub(super) async fn promote(&self) -> Result<(), DemoError> {
        run(self.port(), &["STOP REPLICA IO_THREAD"]).await?;
        let deadline = Instant::now() + PATIENCE;
        while !self.has_applied().await? {
            if Instant::now() > deadline {
                return Err(DemoError::Standby("it does not apply what it has received".to_owned()));
            }
            sleep(Duration::from_millis(50)).await;
        }
        let promote =
            ["STOP REPLICA", "RESET REPLICA ALL", "SET GLOBAL super_read_only = OFF", "SET GLOBAL read_only = OFF"];
        run(self.port(), &promote).await?;
        self.front.lead_to(self.port());
        Ok(())
    }

    async fn has_applied(&self) -> Result<bool, DemoError> {
        let mut conn = Conn::new(opts(self.port())).await.map_err(refused)?;
        let status: Option<Row> = conn.query_first("SHOW REPLICA STATUS").await.map_err(refused)?;
        conn.disconnect().await.map_err(refused)?;
        let state = status.and_then(|row| row.get::<Option<String>, _>("Replica_SQL_Running_State").flatten());
        Ok(state.is_some_and(|state| state.contains("has read all relay log")))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` has it")]
fn refused(error: mysql_async::Error) -> DemoError {
    DemoError::Standby(error.to_string())
}

/// The journal with the transactions that the failover lost and that were delivered, as committed as far as they were; and
/// how many these are.
///
/// A primary shows a transaction to whoever reads its log, the relay as well as the replica, before it answers its writer:
/// one that the relay was quicker to receive than the replica is relayed, and lost with the primary. Its writer was told
/// nothing.
pub(super) fn with_lost(journal: &Journal, records: &[Delivered]) -> (Journal, usize) {
    let delivered: HashSet<&str> = records.iter().map(|record| &*record.event_id).collect();
    let mut lost = 0;
    let mut history = Journal::default();
    for transaction in journal.transactions() {
        let mut transaction = transaction.clone();
        let is_lost = transaction.unanswered && transaction.outcome == Outcome::RolledBack;
        if is_lost && transaction.kept().any(|event| delivered.contains(&*event.id)) {
            lost += 1;
            transaction.outcome = Outcome::Committed;
            for event in &mut transaction.events {
                event.kept &= delivered.contains(&*event.id);
            }
        }
        history.record(transaction);
    }
    (history, lost)
}
