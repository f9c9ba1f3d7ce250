//! The memory seams keep the contracts.

use tokio_util::task::AbortOnDropHandle;

use super::{outlet, source, store};
use crate::position::PositionStore;
use crate::table::TableName;
use crate::testing::broker::MemoryBroker;
use crate::testing::log::{MemoryLog, Step};
use crate::testing::outlet::{MemoryOutlet, MemoryTransactions};
use crate::testing::store::{MemoryPositions, MemoryStore};

impl store::Bench for MemoryPositions {
    type Store = MemoryStore;

    async fn session(&self) -> MemoryStore {
        MemoryPositions::session(self)
    }

    async fn sever(&self, session: &MemoryStore) {
        MemoryPositions::sever(self, session);
    }

    async fn garble(&self, table: &TableName) {
        MemoryPositions::garble(self, table);
    }
}

#[tokio::test]
async fn the_store_in_memory_keeps_the_contract() {
    store::keep(&MemoryPositions::default()).await;
}

struct Outlets(MemoryBroker, MemoryPositions);

impl outlet::Bench for Outlets {
    type Outlet = MemoryOutlet<MemoryStore>;
    type Store = MemoryStore;

    async fn outlet(&self, table: &TableName) -> Self::Outlet {
        let store = self.1.session();
        let claim = store.claim(table).await.unwrap().claim;
        MemoryOutlet::new(self.0.publisher(500), store, claim)
    }

    async fn store(&self) -> MemoryStore {
        self.1.session()
    }

    async fn failing(&self) -> String {
        self.0.fail_topic("failing");
        "failing".to_owned()
    }

    fn topic(&self) -> &'static str {
        "contract"
    }

    async fn delivered(&self, prefix: &str, _: usize) -> Vec<(String, String)> {
        let all = self.0.delivered().into_iter().filter(|record| record.id.starts_with(prefix));
        all.map(|record| (record.key, record.id)).collect()
    }
}

struct Transactions(Outlets);

impl outlet::Bench for Transactions {
    type Outlet = MemoryTransactions<MemoryStore>;
    type Store = MemoryStore;

    async fn outlet(&self, table: &TableName) -> Self::Outlet {
        let store = self.0.1.session();
        let claim = store.claim(table).await.unwrap().claim;
        MemoryTransactions::new(self.0.0.transactional(500), store, claim)
    }

    async fn store(&self) -> MemoryStore {
        outlet::Bench::store(&self.0).await
    }

    async fn failing(&self) -> String {
        outlet::Bench::failing(&self.0).await
    }

    fn topic(&self) -> &str {
        outlet::Bench::topic(&self.0)
    }

    async fn delivered(&self, prefix: &str, expected: usize) -> Vec<(String, String)> {
        outlet::Bench::delivered(&self.0, prefix, expected).await
    }
}

/// A broker that acknowledges a few records at a time.
fn acknowledging() -> (MemoryBroker, AbortOnDropHandle<()>) {
    let broker = MemoryBroker::new(3);
    broker.hold();
    let acknowledging = broker.clone();
    let acknowledge = async move {
        loop {
            (0..3).for_each(|partition| _ = acknowledging.acknowledge(partition, 7));
            tokio::task::yield_now().await;
        }
    };
    (broker, AbortOnDropHandle::new(tokio::spawn(acknowledge)))
}

#[tokio::test]
async fn the_outlet_in_memory_keeps_the_contract() {
    let (broker, _acknowledging) = acknowledging();
    outlet::keep(&Outlets(broker, MemoryPositions::default())).await;
}

#[tokio::test]
async fn the_transactions_in_memory_keep_the_contract() {
    let (broker, _acknowledging) = acknowledging();
    outlet::keep(&Transactions(Outlets(broker, MemoryPositions::default()))).await;
}

impl source::Bench for MemoryLog {
    type Source = MemoryLog;

    async fn source(&self) -> MemoryLog {
        self.clone()
    }

    fn tables(&self) -> [TableName; 2] {
        [TableName::new("contract", "a-1"), TableName::new("contract", "b-2")]
    }

    async fn play(&self, steps: Vec<Step>, commit: bool) {
        if commit {
            self.commit(steps)
        } else {
            self.roll_back(steps)
        };
    }

    async fn disconnect(&self) {
        MemoryLog::disconnect(self);
    }
}

#[tokio::test]
async fn the_log_in_memory_keeps_the_contract() {
    source::keep(&MemoryLog::default()).await;
}
