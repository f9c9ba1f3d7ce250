//! The store of positions that the configuration names.

use std::time::Duration;

use super::{DaemonError, endpoints};
use crate::config::Config;
use crate::kafka::KafkaStore;
use crate::mysql::MysqlStore;
use crate::mysql::settings::Keeper;
use crate::position::{PositionStore, Saved, StoreError};

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

    /// One of the stores, whether it is in force or not.
    pub fn of(config: &Config, keeper: Keeper, lock_wait: Duration) -> Result<Self, DaemonError> {
        Ok(match keeper {
            Keeper::Kafka => Self::Kafka(kafka(config)),
            Keeper::Mysql => {
                let (_, endpoint) = endpoints(config)?;
                Self::Mysql(MysqlStore::new(endpoint, &config.positions.schema, &config.positions.table, lock_wait))
            }
        })
    }

    /// The store in a topic: exactly once has no other.
    pub(super) fn kafka(self, config: &Config) -> KafkaStore {
        match self {
            Self::Kafka(store) => store,
            Self::Mysql(_) => kafka(config),
        }
    }

    /// Every stored position, by table name.
    pub async fn list(&self) -> Result<Vec<Saved>, StoreError> {
        match self {
            Self::Mysql(store) => store.list().await,
            Self::Kafka(store) => store.list().await,
        }
    }
}

fn kafka(config: &Config) -> KafkaStore {
    let delivery = &config.delivery;
    KafkaStore::new(&config.kafka, &config.positions.topic, &delivery.transactional_id, delivery.transaction_timeout)
}
