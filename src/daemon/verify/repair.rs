//! Publishing what is missing.
//!
//! Promise: each record is the one that the relay would have published, with a header that says that it comes late. The
//! relay publishes none of them, for its durable position covers them all, and it does not go back by itself.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tracing::info;

use super::{DaemonError, Progress, Shard, Verified, servers, source, temporary};
use crate::config::Config;
use crate::kafka::{Producers, Publisher};
use crate::outbox::{Header, REPAIR_HEADER, Record};
use crate::outlet::{Limit, Publish, PublishError, Settled};
use crate::source::{BatchBuilder, LogSource, Row, TableScan};
use crate::verify::{Event, LogReader, Missing, Reading};

/// What a missing event takes that is looked for in a table, in bytes.
const EVENT_BYTES: usize = 64;

/// How long Kafka may take for an acknowledgement.
const PATIENCE: Duration = Duration::from_mins(2);

impl Verified {
    /// Publishes the missing events, table by table: those that only the table has in the order of its key, then those that
    /// the log has in commit order. Gives how many.
    pub async fn repair(&mut self, progress: &Arc<dyn Progress>) -> Result<u64, DaemonError> {
        progress.begin("publishing", self.verdict.of_tables(|table| table.missing));
        let mut published = self.repair_from_tables(progress).await?;
        let mut next = self.next()?;
        while let Some((table, _)) = next {
            let shard = self.shards[usize::from(table)].clone();
            let before = published;
            next = self.publish(&shard, next, &mut published, progress).await?;
            let user = std::env::var("USER").unwrap_or_default();
            let (table, events) = (&shard.subscription.table, published - before);
            info!(%table, events, %user, until = %self.until, "repair_published");
        }
        Ok(published)
    }

    /// Publishes what only the tables have. As many at once as memory has room for.
    async fn repair_from_tables(&mut self, progress: &Arc<dyn Progress>) -> Result<u64, DaemonError> {
        let room = (self.memory / EVENT_BYTES).max(1);
        let mut published = 0;
        let mut next = self.missing.next_beyond_log().map_err(|error| temporary(&error))?;
        while let Some((table, first)) = next {
            let mut wanted = HashSet::from([first]);
            next = loop {
                match self.missing.next_beyond_log().map_err(|error| temporary(&error))? {
                    Some((same, event)) if same == table && wanted.len() < room => _ = wanted.insert(event),
                    other => break other,
                }
            };
            let shard = self.shards[usize::from(table)].clone();
            let events = self.publish_from_table(&shard, wanted).await?;
            published += events;
            progress.reach(published);
            let user = std::env::var("USER").unwrap_or_default();
            info!(table = %shard.subscription.table, events, %user, "repair_published");
        }
        Ok(published)
    }

    /// Reads a table as a snapshot does, and publishes those of its rows that are wanted.
    async fn publish_from_table(&self, shard: &Shard, mut wanted: HashSet<u128>) -> Result<u64, DaemonError> {
        let (endpoint, _) = servers(&self.config)?;
        let (mut source, relay) = (source(&self.config, &endpoint), &self.config.relay);
        let mut way = Way::open(&self.config, size(relay.in_flight_bytes))?;
        let from = source.snapshot(&shard.subscription).await?;
        if from.scan.is_some() {
            let mut scan = source.scan(&from, &shard.subscription, size(relay.snapshot_keys_bytes)).await?;
            let (mut batch, at) = (BatchBuilder::new(shard.subscription.columns.len()), Arc::new(from));
            let mut more = true;
            while more && !wanted.is_empty() {
                more = scan.fill(&mut batch, size(relay.batch_bytes)).await?.is_some();
                for row in batch.take(Arc::clone(&at)).rows() {
                    if self.event_of(shard, row).is_some_and(|event| wanted.remove(&event)) {
                        way.send(shard, row).await?;
                    }
                }
            }
        }
        while way.acknowledged < way.sent {
            way.settle().await?;
        }
        if wanted.is_empty() {
            return Ok(way.acknowledged);
        }
        let table = &shard.subscription.table;
        Err(DaemonError::Internal(format!(
            "{table}: it no longer has {} of the missing rows; compare again",
            wanted.len()
        )))
    }

    /// Which event a row is.
    fn event_of(&self, shard: &Shard, row: Row<'_>) -> Option<u128> {
        let event = |record: &Record<'_>| {
            let topic = self.topics.iter().position(|(name, _)| name == record.topic)?;
            let id = record.headers.first()?.value.unwrap_or_default();
            Some(Missing::is_of(&Event { topic: u16::try_from(topic).ok()?, key: record.key, id }))
        };
        shard.mapping.with_record(row, None, event).ok().flatten()
    }

    fn next(&mut self) -> Result<Option<(u16, u64)>, DaemonError> {
        self.missing.next().map_err(|error| temporary(&error))
    }

    /// Reads one table's rows again, and publishes those that are wanted; gives the first that is wanted of another table.
    async fn publish(
        &mut self,
        shard: &Shard,
        mut next: Option<(u16, u64)>,
        published: &mut u64,
        progress: &Arc<dyn Progress>,
    ) -> Result<Option<(u16, u64)>, DaemonError> {
        let of = next.map(|(table, _)| table);
        let (endpoint, _) = servers(&self.config)?;
        let relay = &self.config.relay;
        let (hold, limit) = (size(relay.transaction_hold_bytes), size(relay.in_flight_bytes));
        let mut way = Way::open(&self.config, limit)?;
        let reading = vec![Reading { subscription: shard.subscription.clone(), durable: shard.durable.clone() }];
        let source = source(&self.config, &endpoint);
        let mut log = LogReader::new(source, reading, self.from.clone(), self.until.clone(), hold);
        while let Some(rows) = log.next().await? {
            for (row, number) in rows.batch.rows().zip(rows.first..) {
                if next == of.map(|table| (table, number)) {
                    way.send(shard, row).await?;
                    next = self.next()?;
                }
            }
            progress.reach(*published + way.acknowledged);
            if next.map(|(table, _)| table) != of {
                break;
            }
        }
        while way.acknowledged < way.sent {
            way.settle().await?;
        }
        *published += way.acknowledged;
        if next.is_some_and(|(table, _)| Some(table) == of) {
            let table = &shard.subscription.table;
            return Err(DaemonError::Internal(format!("{table}: the log no longer has what it had; compare again")));
        }
        Ok(next)
    }
}

fn size(size: bytesize::ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}

/// One table's records on their way.
struct Way {
    publisher: Publisher,
    sent: u64,
    acknowledged: u64,
}

impl Way {
    fn open(config: &Config, limit: usize) -> Result<Self, DaemonError> {
        let publisher = Producers::new(&config.kafka).publisher("repair", Limit::new(limit));
        let publisher = publisher.map_err(|error| DaemonError::Server(error.to_string()))?;
        Ok(Self { publisher, sent: 0, acknowledged: 0 })
    }

    async fn send(&mut self, shard: &Shard, row: Row<'_>) -> Result<(), DaemonError> {
        loop {
            let repaired = Header { name: REPAIR_HEADER, value: Some(b"1") };
            let mapped = shard.mapping.with_record(row, Some(repaired), |record| self.publisher.publish(record, 0));
            match mapped.map_err(|error| DaemonError::Internal(error.to_string()))? {
                Ok(()) => break,
                // A partition takes one record first, and there are so many bytes in flight.
                Err(PublishError::Full) if self.sent == self.acknowledged => self.publisher.room().await,
                Err(PublishError::Full) => self.settle().await?,
                Err(PublishError::Refused(error)) => return Err(DaemonError::Server(format!("kafka: {error}"))),
            }
        }
        self.sent += 1;
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), DaemonError> {
        let mut settled: Vec<Settled> = Vec::new();
        let waited = timeout(PATIENCE, self.publisher.settled(&mut settled)).await;
        waited.map_err(|_| DaemonError::Server(format!("kafka: no acknowledgement for {PATIENCE:?}")))?;
        for Settled { records, outcome, .. } in settled {
            outcome.map_err(|error| DaemonError::Server(format!("kafka: {error}")))?;
            self.acknowledged += records;
        }
        Ok(())
    }
}
