//! Reconciliation of tables with their topics, between real servers.
//!
//! Promise: as [`crate::verify`] says. The servers are only read; [`Verified::repair`] alone publishes, and only what the
//! relay is done with.

mod repair;

use std::cmp::Ordering;
use std::io;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::store::Store;
use super::{DaemonError, select, servers};
use crate::config::Config;
use crate::kafka::readback::{self, Extent, ReadbackError};
use crate::mysql::MysqlSource;
use crate::mysql::files;
use crate::mysql::preflight;
use crate::mysql::scan::{self, ScanError};
use crate::mysql::servers::Servers;
use crate::mysql::settings::MysqlSettings;
use crate::outbox::{Mapping, OnPoison, Record, TopicTemplate};
use crate::position::{Parked, Point, Position, PositionStore};
use crate::source::{LogSource, Row, SourceError, Subscription};
use crate::table::{TableName, TablePattern};
use crate::verify::{
    CLOCKS, Committed, Comparison, Delivered, Duty, Event, LogReader, Missing, Reading, Room, Scope, TopicScope, Turn,
    Verdict,
};

/// What is said of missing events where a topic has lost its beginning and events may be parked.
const RELEASED: &str = "a topic has lost its beginning, and released events have the times of their commits: if one is \
                        the first record that a partition still has, events may be called missing whose records have \
                        expired";

/// How often progress is told, in rows or records.
const OFTEN: u64 = 4096;

/// From where on.
#[derive(Debug, Clone)]
pub enum Since {
    /// Right after this place of the log.
    Position(Position),
    /// What was committed then or later, in milliseconds since the Unix epoch.
    Millis(i64),
}

/// What to compare, and how.
#[derive(Debug, Clone)]
pub struct Request {
    /// Which tables; none are all that are configured.
    pub tables: Vec<TablePattern>,
    /// From where on; otherwise everything that the log and the tables have.
    pub since: Option<Since>,
    /// How many findings of each kind to keep.
    pub examples: usize,
    /// Memory and temporary files.
    pub room: Room,
}

/// Who is told how far it is.
pub trait Progress: Send + Sync {
    /// Something begins; `total` is how much it is, roughly.
    fn begin(&self, what: &str, total: u64);
    /// So much of it is done.
    fn reach(&self, done: u64);
}

/// One table of a comparison.
#[derive(Debug, Clone)]
struct Shard {
    subscription: Subscription,
    mapping: Mapping,
    durable: Option<Point>,
    /// Aggregates whose events are not in their topics for now.
    parked: Parked,
    /// Whether it is asked after; otherwise it only shares a topic with one that is.
    asked: bool,
}

impl Shard {
    /// What is not in its topic on purpose.
    fn note(&self) -> Option<String> {
        let table = &self.subscription.table;
        let (parked, aside) = (&self.parked, self.mapping.aside());
        if !self.asked {
            return None;
        }
        if !parked.is_empty() {
            return Some(format!(
                "{table}: {} events of {} aggregates are parked (outboxd parked list): events of these aggregates that are not in \
                 their topic count as in flight",
                parked.events(),
                parked.len()
            ));
        }
        let letters = || format!("{table}: dead letters count as missing: look for them in {}", aside.dead_letters);
        (aside.on_poison == OnPoison::DeadLetter).then(letters)
    }
}

/// The outcome of a comparison.
pub struct Verified {
    config: Config,
    shards: Vec<Shard>,
    from: Position,
    until: Position,
    missing: Missing,
    /// Memory for a repair, in bytes.
    memory: usize,
    /// The topics, by number, and whether each was looked at: one that a template may mean, but that no row goes to, is not.
    pub topics: Vec<(String, bool)>,
    /// What was found.
    pub verdict: Verdict,
    /// What else there is to say.
    pub notes: Vec<String>,
    /// Tables that could not be read to the end of the log, and why.
    pub faults: Vec<(TableName, String)>,
}

impl Verified {
    /// The tables, by number, and whether each was asked after.
    pub fn tables(&self) -> impl ExactSizeIterator<Item = (&TableName, bool)> {
        self.shards.iter().map(|shard| (&shard.subscription.table, shard.asked))
    }
}

/// Compares what is committed with what is in Kafka.
pub async fn verify(config: &Config, request: Request, progress: Arc<dyn Progress>) -> Result<Verified, DaemonError> {
    let (endpoint, _) = servers(config)?;
    let mut source = source(config, &endpoint);
    let (from, begun) = match &request.since {
        Some(Since::Position(position)) => (position.clone(), None),
        Some(Since::Millis(since)) => beginning(&endpoint, &mut source, since.saturating_sub(CLOCKS)).await?,
        None => (source.oldest().await?, None),
    };
    // In this order: see the room's documentation.
    let shards = shards(config, &endpoint, &request.tables).await?;
    let templates: Vec<TopicTemplate> = shards.iter().map(|shard| shard.mapping.topic().clone()).collect();
    let extents = readback::extents(&config.kafka, &templates).await?;
    let mut run = Run::new(shards, extents, &request, progress);
    run.tables(&endpoint, &from).await?;
    let until = source.newest().await?;
    if until.point.kind() != from.point.kind() {
        let (from, until) = (from.point.kind(), until.point.kind());
        return Err(DaemonError::Configuration(format!(
            "the position since which to compare is one of kind {from}, and the server's log has {until}"
        )));
    }
    let known_since = run.log(config, source, &from, &until, begun).await?;
    let known_since = if run.lacks_published(&until) { i64::MAX } else { known_since };
    run.judge(config, from, until, known_since).await
}

/// Where the last file of the log begins that was begun before this time, and when that was; else where the log begins.
async fn beginning(
    endpoint: &Servers,
    source: &mut MysqlSource,
    millis: i64,
) -> Result<(Position, Option<i64>), DaemonError> {
    match files::begun_before(endpoint, millis.div_euclid(1000)).await.map_err(|error| server(&error))? {
        Some((from, seconds)) => Ok((from, Some(seconds.saturating_mul(1000)))),
        None => Ok((source.oldest().await?, None)),
    }
}

pub(super) fn source(config: &Config, endpoint: &Servers) -> MysqlSource {
    let mysql = &config.mysql;
    MysqlSource::new(endpoint.clone(), MysqlSettings::fresh_server_id(), mysql.heartbeat, mysql.silence_deadline)
}

pub(super) fn server(error: &mysql_async::Error) -> DaemonError {
    DaemonError::Server(format!("mysql: {error}"))
}

impl From<SourceError> for DaemonError {
    fn from(error: SourceError) -> Self {
        Self::Server(format!("mysql: {error}"))
    }
}

impl From<ReadbackError> for DaemonError {
    fn from(error: ReadbackError) -> Self {
        match error {
            ReadbackError::Taking(error) => temporary(&error),
            error => Self::Server(error.to_string()),
        }
    }
}

impl From<ScanError> for DaemonError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Taking(error) => temporary(&error),
            error @ ScanError::Server(_) => Self::Server(error.to_string()),
        }
    }
}

fn temporary(error: &io::Error) -> DaemonError {
    DaemonError::Internal(format!("temporary files: {error}"))
}

/// The tables that are asked after, and those whose records may be in the same topics.
async fn shards(config: &Config, endpoint: &Servers, patterns: &[TablePattern]) -> Result<Vec<Shard>, DaemonError> {
    let mut conn = endpoint.connect().await.map_err(|error| server(&error))?;
    let existing = preflight::tables(&mut conn).await.map_err(|error| server(&error))?;
    let tables = select(config, &existing)?;
    let asked = |name: &TableName| patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(name));
    let wanted: Vec<_> = tables.iter().filter(|table| asked(&table.subscription.table)).collect();
    if wanted.is_empty() {
        return Err(DaemonError::Configuration("no configured table is one of those given".to_owned()));
    }
    let is_shared = |topic: &TopicTemplate| wanted.iter().any(|table| overlap(table.mapping.topic(), topic));
    let mut shards: Vec<_> = tables
        .iter()
        .filter(|table| is_shared(table.mapping.topic()))
        .map(|table| Shard {
            subscription: table.subscription.clone(),
            mapping: table.mapping.clone(),
            durable: None,
            parked: Parked::default(),
            asked: asked(&table.subscription.table),
        })
        .collect();
    for saved in Store::new(config, std::time::Duration::ZERO)?.list().await? {
        let found = shards.iter_mut().find(|shard| shard.subscription.table == saved.table);
        let Some(shard) = found else { continue };
        shard.parked = saved.parked;
        match saved.position {
            // Of a transaction that is relayed in part, nothing is due yet; nor of a table whose rows are still read.
            Ok(position) => {
                let position = position.filter(|position| position.scan.is_none());
                shard.durable = position.map(|position| position.point);
            }
            Err(unreadable) if shard.asked => return Err(unreadable.into()),
            Err(_) => {}
        }
    }
    Ok(shards)
}

/// Whether records of both may be in one topic.
fn overlap(a: &TopicTemplate, b: &TopicTemplate) -> bool {
    match (a.fixed(), b.fixed()) {
        (Some(a), _) => b.may_be(a),
        (None, Some(b)) => a.may_be(b),
        (None, None) => true,
    }
}

/// A topic that records may go to.
struct Topic {
    extent: Extent,
    /// Whether it is certain that some do: a template may mean any topic.
    is_named: bool,
}

/// A comparison under way.
struct Run {
    shards: Vec<Shard>,
    /// The topics that there are; then those that only rows name.
    topics: Vec<Topic>,
    comparison: Comparison,
    since: Option<Since>,
    examples: usize,
    memory: usize,
    progress: Arc<dyn Progress>,
    notes: Vec<String>,
    faults: Vec<(TableName, String)>,
    /// The tables, by number, of which the log could not be read to the end.
    unread: Vec<usize>,
}

impl Run {
    fn new(shards: Vec<Shard>, extents: Vec<Extent>, request: &Request, progress: Arc<dyn Progress>) -> Self {
        let (comparison, since) = (Comparison::new(request.room.clone()), request.since.clone());
        let (notes, faults) = (shards.iter().filter_map(Shard::note).collect(), Vec::new());
        let is_fixed =
            |extent: &Extent| shards.iter().any(|shard| shard.mapping.topic().fixed() == Some(&extent.topic));
        let topic = |extent| Topic { is_named: is_fixed(&extent), extent };
        let topics = extents.into_iter().map(topic).collect();
        let (examples, memory) = (request.examples, request.room.memory);
        let unread = Vec::new();
        Self { shards, topics, comparison, since, examples, memory, progress, notes, faults, unread }
    }

    /// Takes in the rows that the tables have.
    async fn tables(&mut self, endpoint: &Servers, from: &Position) -> Result<(), DaemonError> {
        for slot in 0..self.shards.len() {
            let Shard { subscription, mapping, durable, asked, .. } = self.shards[slot].clone();
            let table = &subscription.table;
            let covers = durable.as_ref().is_some_and(|durable| *durable >= from.point);
            match &durable {
                None if asked => {
                    self.notes.push(format!("{table} has no saved position, or its older rows are still being read: nothing of it is due yet"));
                }
                Some(_) if asked && !covers && self.since.is_none() => {
                    self.notes
                        .push(format!("{table} is behind the beginning of the log: its older rows are not checked"));
                }
                _ => {}
            }
            let duty = match (asked && self.since.is_none(), covers) {
                (false, _) => Duty::Known,
                (true, true) => Duty::Due,
                (true, false) => Duty::InFlight,
            };
            let total = scan::guess(endpoint, &subscription).await.map_err(|error| server(&error))?;
            self.progress.begin(&format!("rows of {table}"), total);
            let mut done = 0;
            let telling = mapping.clone();
            let scanned = scan::scan(
                endpoint,
                &subscription,
                |place| telling.is_telling(place),
                |batch| {
                    for row in batch.rows() {
                        self.row(slot, &mapping, row, None, duty)?;
                    }
                    done += batch.len() as u64;
                    self.progress.reach(done);
                    Ok(())
                },
            );
            scanned.await?;
        }
        Ok(())
    }

    /// Takes in what the log has, from a file that was begun at that time; gives since when every committed row is known.
    async fn log(
        &mut self,
        config: &Config,
        source: MysqlSource,
        from: &Position,
        until: &Position,
        begun: Option<i64>,
    ) -> Result<i64, DaemonError> {
        let hold = usize::try_from(config.relay.transaction_hold_bytes.as_u64()).unwrap_or(usize::MAX);
        let reading =
            |shard: &Shard| Reading { subscription: shard.subscription.clone(), durable: shard.durable.clone() };
        let readings = self.shards.iter().map(reading).collect();
        let mut log = LogReader::new(source, readings, from.clone(), until.clone(), hold);
        let total = from.point.lacks(&until.point).unwrap_or_default();
        self.progress.begin("binlog", total);
        let mappings: Vec<_> = self.shards.iter().map(|shard| shard.mapping.clone()).collect();
        let mut told = 0;
        while let Some(rows) = log.next().await? {
            for (row, order) in rows.batch.rows().zip(rows.first..) {
                let early = matches!(self.since, Some(Since::Millis(since)) if is_before(row.commit_micros(), since));
                let duty = match (self.shards[rows.slot].asked && !early, rows.covered) {
                    (false, _) => Duty::Known,
                    (true, true) => Duty::Due,
                    (true, false) => Duty::InFlight,
                };
                self.row(rows.slot, &mappings[rows.slot], row, Some(order), duty).map_err(|error| temporary(&error))?;
            }
            if self.comparison.count() - told >= OFTEN {
                told = self.comparison.count();
                let left = log.position().point.lacks(&until.point).unwrap_or_default();
                self.progress.reach(total.saturating_sub(left));
            }
        }
        self.unread = log.faults().keys().copied().collect();
        for (slot, fault) in log.faults() {
            self.faults.push((self.shards[*slot].subscription.table.clone(), fault.to_string()));
        }
        let begins = begun.or_else(|| log.begins_micros().and_then(|micros| i64::try_from(micros / 1000).ok()));
        if let (Some(Since::Millis(since)), Some(begins)) = (&self.since, begins)
            && begins > *since
            && !from.is_beginning()
        {
            let begins = jiff::Timestamp::from_millisecond(begins).map_or_else(|_| String::new(), |at| at.to_string());
            self.notes.push(format!("the log begins at {begins} only: what was committed before is not checked"));
        }
        Ok(if !self.faults.is_empty() {
            i64::MAX
        } else if from.is_beginning() {
            i64::MIN
        } else {
            begins.map_or(i64::MAX, |begins| begins.saturating_add(CLOCKS))
        })
    }

    /// Whether more of a table is published than this server's log has, as of a replica that is behind: such records have
    /// no row here, and were committed all the same.
    fn lacks_published(&mut self, until: &Position) -> bool {
        let is_ahead = |durable: &Point| durable.partial_cmp(&until.point).is_none_or(Ordering::is_gt);
        let ahead = self.shards.iter().find(|shard| shard.durable.as_ref().is_some_and(is_ahead));
        let Some(table) = ahead.map(|shard| &shard.subscription.table) else { return false };
        self.notes.push(format!(
            "the server's log does not have all that is published of {table}, it may be a replica that is behind: records \
             without a row are not checked"
        ));
        true
    }

    fn row(&mut self, slot: usize, mapping: &Mapping, row: Row<'_>, order: Option<u64>, duty: Duty) -> io::Result<()> {
        let Self { topics, comparison, .. } = self;
        let is_parked = self.shards[slot].parked.get(mapping.key(row).unwrap_or_default()).is_some();
        let duty = if is_parked && duty == Duty::Due { Duty::InFlight } else { duty };
        let mapped = mapping.with_record(row, None, |record: &Record<'_>| {
            let topic = number(topics, record.topic)?;
            let [id, ..] = record.headers else { return Ok(()) };
            let partition = record.partition.or_else(|| topics[usize::from(topic)].extent.partition_of(record.key));
            comparison.committed(&Committed {
                event: Event { topic, key: record.key, id: id.value.unwrap_or_default() },
                table: u16::try_from(slot).map_err(io::Error::other)?,
                order,
                duty,
                millis: (order.is_some() || !mapping.has_commit_times()).then_some(record.timestamp_millis),
                partition,
            })
        });
        match mapped {
            Ok(taken) => taken,
            Err(_) if is_parked || mapping.aside().on_poison == OnPoison::DeadLetter => Ok(()),
            Err(error) => {
                let table = &self.shards[slot].subscription.table;
                if self.faults.iter().all(|(faulty, _)| faulty != table) {
                    self.faults.push((table.clone(), format!("unmappable_event: {error}")));
                }
                Ok(())
            }
        }
    }

    /// Takes in what the topics have.
    async fn records(&mut self, config: &Config) -> Result<Vec<TopicScope>, DaemonError> {
        let mut scopes = Vec::new();
        let extents: Vec<_> = self.topics.iter().map(|topic| topic.is_named.then(|| topic.extent.clone())).collect();
        for (number, extent) in (0_u16..).zip(extents) {
            let Some(extent) = extent else {
                scopes.push(TopicScope::default());
                continue;
            };
            let tables = self.shards.iter().filter(|shard| shard.mapping.topic().may_be(&extent.topic));
            let has_commit_times = tables.into_iter().all(|shard| shard.mapping.has_commit_times());
            let since = match self.since {
                Some(Since::Millis(since)) if has_commit_times => Some(since.saturating_sub(CLOCKS)),
                _ => None,
            };
            self.progress.begin(&format!("topic {}", extent.topic), extent.len());
            let (progress, settings) = (Arc::clone(&self.progress), config.kafka.clone());
            let has_commit_times = has_commit_times && !extent.has_append_times;
            let compacted = extent.compacted;
            let mut comparison = std::mem::replace(
                &mut self.comparison,
                Comparison::new(Room { folder: std::path::PathBuf::new(), memory: 0 }),
            );
            let read = tokio::task::spawn_blocking(move || {
                let mut done = 0;
                let horizons = readback::read(&settings, &extent, since, &CancellationToken::new(), |seen, _| {
                    done += 1;
                    if done % OFTEN == 0 {
                        progress.reach(done);
                    }
                    let readback::Seen { partition, offset, millis, key, id, again, scanned } = *seen;
                    let event = Event { topic: number, key, id };
                    let turn = match (again, scanned) {
                        (true, _) => Turn::Again,
                        (false, true) => Turn::Table,
                        (false, false) => Turn::Log,
                    };
                    comparison.delivered(&Delivered { event, partition, offset, millis, turn })
                });
                horizons.map(|horizons| (horizons, comparison))
            });
            let read = read.await.map_err(|error| DaemonError::Internal(error.to_string()))?;
            let (horizons, comparison) = read?;
            self.comparison = comparison;
            scopes.push(TopicScope { compacted, horizons, has_commit_times });
        }
        Ok(scopes)
    }

    async fn judge(
        mut self,
        config: &Config,
        from: Position,
        until: Position,
        known_since: i64,
    ) -> Result<Verified, DaemonError> {
        let scopes = self.records(config).await?;
        let Self { shards, topics, comparison, examples, memory, progress, mut notes, faults, unread, .. } = self;
        progress.begin("comparison", comparison.count());
        // Nothing tells such a record from one that came in its turn.
        let parks = shards.iter().any(|shard| shard.asked && shard.mapping.aside().on_poison == OnPoison::Park);
        let has_lost = scopes.iter().any(|topic| topic.horizons.iter().any(Option::is_some));
        let scope = Scope { tables: shards.len(), topics: scopes, known_since, unread, examples };
        let judged = tokio::task::spawn_blocking(move || comparison.judge(&scope, |done| progress.reach(done))).await;
        let judged = judged.map_err(|error| DaemonError::Internal(error.to_string()))?;
        let judgement = judged.map_err(|error| temporary(&error))?;
        let topics = topics.into_iter().map(|topic| (topic.extent.topic, topic.is_named)).collect();
        let (verdict, missing) = (judgement.verdict, judgement.missing);
        if parks && has_lost && verdict.of_tables(|table| table.missing) > 0 {
            notes.push(RELEASED.to_owned());
        }
        let config = config.clone();
        Ok(Verified { config, shards, from, until, missing, memory, topics, verdict, notes, faults })
    }
}

/// Whether a commit was before this time, as far as the server tells: some tell whole seconds only.
fn is_before(commit_micros: u64, millis: i64) -> bool {
    let whole = commit_micros.is_multiple_of(1_000_000);
    let since = if whole { millis - millis.rem_euclid(1000) } else { millis };
    i64::try_from(commit_micros / 1000).is_ok_and(|committed| committed < since)
}

/// The number of a topic that a row goes to; it is new where there is no such topic.
fn number(topics: &mut Vec<Topic>, name: &str) -> io::Result<u16> {
    let found = topics.iter().position(|topic| topic.extent.topic == name);
    let found = found.unwrap_or_else(|| {
        let (topic, partitions) = (name.to_owned(), Vec::new());
        let extent = Extent { topic, partitions, compacted: false, has_append_times: false };
        topics.push(Topic { extent, is_named: true });
        topics.len() - 1
    });
    topics[found].is_named = true;
    u16::try_from(found).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_whole_seconds_when_compared_with_a_time_then_the_second_that_it_is_in_is_not_before() {
        assert!(is_before(999_999, 1_000) && !is_before(1_000_001, 1_000));
        assert!(is_before(1_200_000, 1_500), "it says more than the second");
        assert!(!is_before(1_000_000, 1_500) && is_before(1_000_000, 2_000));
    }

    #[test]
    fn given_topics_and_templates_when_asked_then_it_is_known_which_may_share_a_topic() {
        let shared = |a: &str, b: &str| {
            let topic = |text| TopicTemplate::parse(text).unwrap();
            assert_eq!(overlap(&topic(a), &topic(b)), overlap(&topic(b), &topic(a)));
            overlap(&topic(a), &topic(b))
        };
        assert!(shared("a", "a") && !shared("a", "b"));
        assert!(shared("x.{aggregatetype}", "x.a") && !shared("x.{aggregatetype}", "y.a"));
        assert!(shared("x.{aggregatetype}", "y.{aggregatetype}"), "their types are not known");
    }
}
