//! The store of positions that the configuration names, and moving positions from one to the other.
//!
//! Promise: a table's position is in force in one store. A move saves it in the new one before the old one forgets it,
//! under claims of both, so that no daemon works on either meanwhile; one that is cut short is finished by the next.

use std::cmp::Ordering;
use std::time::Duration;

use super::{DaemonError, preflight, select, servers};
use crate::config::Config;
use crate::kafka::KafkaStore;
use crate::mysql::MysqlStore;
use crate::mysql::servers::Servers;
use crate::mysql::settings::Keeper;
use crate::position::{Claim, Claimed, Parked, Pause, Position, PositionStore, Saved, StoreError};
use crate::preflight::{Check, Name, Unavailable};
use crate::relay::supervisor::Table;
use crate::table::TableName;

/// One of the stores. Cheap to clone.
#[derive(Clone)]
pub enum Store {
    /// In a table.
    Mysql(MysqlStore),
    /// In a topic.
    Kafka(KafkaStore),
}

impl Store {
    /// The store in force. After a connection to MySQL was lost, its locks are waited for up to `lock_wait`.
    pub fn new(config: &Config, lock_wait: Duration) -> Result<Self, DaemonError> {
        Self::of(config, config.keeper(), lock_wait)
    }

    /// The same, on the servers that others use too: positions that are kept beside the log are where the log is.
    pub(super) fn at(config: &Config, positions: Servers, lock_wait: Duration) -> Self {
        match config.keeper() {
            Keeper::Kafka => Self::Kafka(kafka(config)),
            Keeper::Mysql => Self::mysql(config, positions, lock_wait),
        }
    }

    fn of(config: &Config, keeper: Keeper, lock_wait: Duration) -> Result<Self, DaemonError> {
        Ok(match keeper {
            Keeper::Kafka => Self::Kafka(kafka(config)),
            Keeper::Mysql => Self::mysql(config, servers(config)?.1, lock_wait),
        })
    }

    fn mysql(config: &Config, servers: Servers, lock_wait: Duration) -> Self {
        Self::Mysql(MysqlStore::new(servers, &config.positions.schema, &config.positions.table, lock_wait))
    }
}

/// The store in the topic of the configuration.
pub(super) fn kafka(config: &Config) -> KafkaStore {
    let delivery = &config.delivery;
    KafkaStore::new(&config.kafka, &config.positions.topic, &delivery.transactional_id, delivery.transaction_timeout)
}

impl PositionStore for Store {
    async fn claim(&self, table: &TableName) -> Result<Claimed, StoreError> {
        match self {
            Self::Mysql(store) => store.claim(table).await,
            Self::Kafka(store) => store.claim(table).await,
        }
    }

    async fn keep(&self, claim: &Claim, position: &Position, parked: Option<&Parked>) -> Result<(), StoreError> {
        match self {
            Self::Mysql(store) => store.keep(claim, position, parked).await,
            Self::Kafka(store) => store.keep(claim, position, parked).await,
        }
    }

    async fn set(&self, claim: &Claim, position: &Position) -> Result<(), StoreError> {
        match self {
            Self::Mysql(store) => store.set(claim, position).await,
            Self::Kafka(store) => store.set(claim, position).await,
        }
    }

    async fn forget(&self, claim: &Claim) -> Result<(), StoreError> {
        match self {
            Self::Mysql(store) => store.forget(claim).await,
            Self::Kafka(store) => store.forget(claim).await,
        }
    }

    async fn pause(&self, claim: &Claim, pause: Option<&Pause>) -> Result<(), StoreError> {
        match self {
            Self::Mysql(store) => store.pause(claim, pause).await,
            Self::Kafka(store) => store.pause(claim, pause).await,
        }
    }

    fn leave(&self, table: &TableName) {
        match self {
            Self::Mysql(store) => store.leave(table),
            Self::Kafka(store) => store.leave(table),
        }
    }

    async fn release(&self, claim: &Claim) -> Result<(), StoreError> {
        match self {
            Self::Mysql(store) => store.release(claim).await,
            Self::Kafka(store) => store.release(claim).await,
        }
    }

    async fn list(&self) -> Result<Vec<Saved>, StoreError> {
        match self {
            Self::Mysql(store) => store.list().await,
            Self::Kafka(store) => store.list().await,
        }
    }
}

fn other(keeper: Keeper) -> Keeper {
    match keeper {
        Keeper::Mysql => Keeper::Kafka,
        Keeper::Kafka => Keeper::Mysql,
    }
}

/// A table with a position, whether that is readable or not.
type Positioned = (TableName, Result<Position, StoreError>);

/// Every table with a position. A store that was never made has none.
async fn positioned(store: &Store) -> Result<Vec<Positioned>, StoreError> {
    match store.list().await {
        Ok(saved) => {
            Ok(saved.into_iter().filter_map(|saved| Some((saved.table, saved.position.transpose()?))).collect())
        }
        Err(StoreError::Refused(_)) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// A failed check for every table whose position is in the store that is not in force: it would begin anew.
pub(super) async fn left_behind(
    config: &Config,
    positions: &Servers,
    tables: &[Table],
) -> Result<Result<Vec<Check>, Unavailable>, DaemonError> {
    let keeper = config.keeper();
    let unavailable = |error: StoreError| {
        let transient = matches!(error, StoreError::Unavailable(_));
        Unavailable { server: "positions".to_owned(), reason: error.to_string(), transient }
    };
    let here = match positioned(&Store::at(config, positions.clone(), Duration::ZERO)).await {
        Ok(here) => here,
        Err(error) => return Ok(Err(unavailable(error))),
    };
    let names = || tables.iter().map(|table| &table.subscription.table);
    let is_here = |table: &TableName| here.iter().any(|(name, _)| name == table);
    if names().all(is_here) {
        return Ok(Ok(Vec::new()));
    }
    let there = match positioned(&Store::of(config, other(keeper), Duration::ZERO)?).await {
        Ok(there) => there,
        Err(error) => return Ok(Err(unavailable(error))),
    };
    let left = there.iter().filter(|(table, _)| !is_here(table) && names().any(|name| name == table));
    let check = |(table, position): &Positioned| {
        let expected = format!("in the store in force ({keeper})");
        let position = position.as_ref().map_or_else(ToString::to_string, ToString::to_string);
        let found = format!("in the other one ({}): {position}", other(keeper));
        Check::passed(Name::Position, format!("position of {table}"), expected, found)
            .failed(format!("stop the daemon that still uses it, then outboxd position migrate --to {keeper}"))
            .of_table(table)
    };
    Ok(Ok(left.map(check).collect()))
}

/// Moves the positions of the configured tables into a store; gives those that were moved.
pub async fn migrate(config: &Config, to: Keeper) -> Result<Vec<(TableName, Position)>, DaemonError> {
    let (old, new) = (Store::of(config, other(to), Duration::ZERO)?, Store::of(config, to, Duration::ZERO)?);
    let saved = positioned(&old).await?;
    let known: Vec<_> = saved.iter().map(|(table, _)| table.clone()).collect();
    let wanted = select(config, &known)?;
    let is_wanted = |table: &TableName| wanted.iter().any(|one| one.subscription.table == *table);
    let saved = saved.into_iter().filter(|(table, _)| is_wanted(table));
    // Left where it is, a table would begin anew.
    let tables: Vec<_> = saved.map(|(table, position)| position.map(|_| table)).collect::<Result<_, _>>()?;
    let mut moved = Vec::new();
    for table in tables {
        if let Some(position) = one(&old, &new, &table).await? {
            moved.push((table, position));
        }
    }
    Ok(moved)
}

async fn one(old: &Store, new: &Store, table: &TableName) -> Result<Option<Position>, StoreError> {
    let from = old.claim(table).await?;
    // Whoever saved last before the claim has said where the table is.
    let Some(position) = from.position? else { return Ok(None) };
    let to = new.claim(table).await?;
    let there = to.position?;
    let ahead = there.as_ref().and_then(|there| there.partial_cmp(&position)).is_some_and(Ordering::is_ge);
    let durable = if let Some(there) = there.filter(|_| ahead) {
        there
    } else {
        new.keep(&to.claim, &position, Some(&from.parked)).await?;
        position
    };
    if from.pause != to.pause {
        new.pause(&to.claim, from.pause.as_ref()).await?;
    }
    old.forget(&from.claim).await?;
    old.release(&from.claim).await?;
    new.release(&to.claim).await?;
    Ok(Some(durable))
}

/// What became of a table that was to start somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adopted {
    /// Its position is saved now.
    Saved,
    /// It has one of its own.
    Had(Position),
}

/// Saves a position for those of the configured tables that are chosen and have none; with `dry_run` it only tells
/// which these are. The choice sees the tables with the positions that they have; it may refuse, and nothing is saved.
pub async fn adopt(
    config: &Config,
    position: &Position,
    choose: impl FnOnce(&[(TableName, Option<Position>)]) -> Result<Vec<TableName>, DaemonError>,
    dry_run: bool,
) -> Result<Vec<(TableName, Adopted)>, DaemonError> {
    let asker = preflight::Asker { server_id: config.mysql.resolve_server_id(), relays: false, creates: false };
    let survey = preflight::survey(config, asker).await?;
    if let Some(away) = survey.report.unavailable.first() {
        return Err(DaemonError::Server(away.to_string()));
    }
    let store = Store::new(config, Duration::ZERO)?;
    let saved = positioned(&store).await?;
    let own = |table: TableName| {
        let of = saved.iter().find(|(name, _)| *name == table).map(|(_, position)| position.clone());
        of.transpose().map(|position| (table, position))
    };
    let tables = survey.tables.into_iter().map(|table| own(table.subscription.table)).collect::<Result<Vec<_>, _>>()?;
    let chosen = choose(&tables)?;
    let mut adopted = Vec::new();
    for (table, mut own) in tables.into_iter().filter(|(table, _)| chosen.contains(table)) {
        if own.is_none() && !dry_run {
            let claimed = store.claim(&table).await?;
            match claimed.position? {
                Some(position) => own = Some(position),
                None => store.save(&claimed.claim, position).await?,
            }
            store.release(&claimed.claim).await?;
        }
        adopted.push((table, own.map_or(Adopted::Saved, Adopted::Had)));
    }
    Ok(adopted)
}
