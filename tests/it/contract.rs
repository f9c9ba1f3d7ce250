//! The real log, outlet and position store keep the contracts of their seams, as the ones in memory do.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts};
use outboxd::kafka::settings::KafkaSettings;
use outboxd::kafka::{AtLeastOnce, ExactlyOnce, KafkaStore, Producers};
use outboxd::mysql::connect::Endpoint;
use outboxd::mysql::{MysqlSource, MysqlStore};
use outboxd::outbox::Record;
use outboxd::outlet::{DeliveryError, Limit, Outlet, Settled};
use outboxd::position::{
    Aggregate, Claim, Claimed, Parked, Parking, Pause, Position, PositionStore, Saved, StoreError,
};
use outboxd::source::ForeignDml;
use outboxd::table::TableName;
use outboxd::testing::contract::{outlet, source, store};
use outboxd::testing::log::{Step, after};
use rdkafka::Message;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers;
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio::time::Instant;

use crate::account;
use crate::stage::{PATIENCE, Stage};

const CONNECT: Duration = Duration::from_secs(10);

async fn admin(stage: &Stage) -> Conn {
    Conn::new(stage.opts()).await.unwrap()
}

/// Each session is a user of its own, so that its connections can be told from all others.
struct Store<'s> {
    stage: &'s Stage,
    users: AtomicU32,
}

/// A session and its user.
struct Session(MysqlStore, String);

impl PositionStore for Session {
    async fn claim(&self, table: &TableName) -> Result<Claimed, StoreError> {
        self.0.claim(table).await
    }

    async fn keep(&self, claim: &Claim, position: &Position, parked: Option<&Parked>) -> Result<(), StoreError> {
        self.0.keep(claim, position, parked).await
    }

    async fn set(&self, claim: &Claim, position: &Position) -> Result<(), StoreError> {
        self.0.set(claim, position).await
    }

    async fn forget(&self, claim: &Claim) -> Result<(), StoreError> {
        self.0.forget(claim).await
    }

    async fn pause(&self, claim: &Claim, pause: Option<&Pause>) -> Result<(), StoreError> {
        self.0.pause(claim, pause).await
    }

    async fn release(&self, claim: &Claim) -> Result<(), StoreError> {
        self.0.release(claim).await
    }

    async fn list(&self) -> Result<Vec<Saved>, StoreError> {
        self.0.list().await
    }
}

async fn session(stage: &Stage, user: &str) -> MysqlStore {
    let mut conn = admin(stage).await;
    conn.query_drop(format!("CREATE USER '{user}'@'%' IDENTIFIED BY 'x'")).await.unwrap();
    for grant in account::grants(user) {
        conn.query_drop(grant).await.unwrap();
    }
    let opts = Opts::from_url(&format!("mysql://{user}:x@127.0.0.1:{}", stage.mysql.port())).unwrap();
    MysqlStore::new(Endpoint::new(opts, CONNECT), "outboxd", "outboxd_positions", Duration::from_secs(1))
}

/// Ends all connections of the users whose names begin so.
async fn kill(stage: &Stage, users: &str) {
    let mut conn = admin(stage).await;
    let of =
        format!("SELECT ID FROM information_schema.PROCESSLIST WHERE USER LIKE '{users}' AND ID <> CONNECTION_ID()");
    let ids: Vec<u64> = conn.query(&of).await.unwrap();
    for id in ids {
        match conn.query_drop(format!("KILL {id}")).await {
            // It has ended by itself since.
            Err(mysql_async::Error::Server(error)) if error.code == 1094 => {}
            killed => killed.unwrap(),
        }
    }
    let deadline = Instant::now() + PATIENCE;
    while conn.query::<u64, _>(&of).await.unwrap().into_iter().next().is_some() {
        assert!(Instant::now() < deadline, "connections of {users} stay");
        tokio::task::yield_now().await;
    }
}

impl store::Bench for Store<'_> {
    type Store = Session;

    async fn session(&self) -> Session {
        let user = format!("store{}", self.users.fetch_add(1, Relaxed));
        Session(session(self.stage, &user).await, user)
    }

    async fn sever(&self, Session(_, user): &Session) {
        kill(self.stage, user).await;
    }

    async fn garble(&self, table: &TableName) {
        let sql = "UPDATE outboxd.outboxd_positions SET position = 'x' WHERE table_name = ?";
        admin(self.stage).await.exec_drop(sql, (table.to_string(),)).await.unwrap();
    }
}

struct Outlets<'s> {
    stage: &'s Stage,
    producers: Producers,
    users: AtomicU32,
}

impl outlet::Bench for Outlets<'_> {
    type Outlet = AtLeastOnce<MysqlStore>;
    type Store = MysqlStore;

    async fn outlet(&self, table: &TableName) -> Self::Outlet {
        let store = outlet::Bench::store(self).await;
        let claim = store.claim(table).await.unwrap().claim;
        AtLeastOnce::new(self.producers.publisher("contract", Limit::new(64 << 10)).unwrap(), store, claim)
    }

    async fn store(&self) -> MysqlStore {
        session(self.stage, &format!("outlet{}", self.users.fetch_add(1, Relaxed))).await
    }

    /// Its records are larger than it takes.
    async fn failing(&self) -> String {
        narrow(self.stage, "narrow").await
    }

    fn topic(&self) -> &'static str {
        "delivery"
    }

    async fn delivered(&self, prefix: &str, expected: usize) -> Vec<(String, String)> {
        delivered(self.stage, prefix, expected)
    }
}

/// Sessions of the store in a topic.
struct Positions<'s> {
    stage: &'s Stage,
    topic: &'static str,
}

impl Positions<'_> {
    fn session(&self) -> KafkaStore {
        KafkaStore::new(&settings(self.stage), self.topic, self.topic, Duration::from_mins(1))
    }
}

impl store::Bench for Positions<'_> {
    type Store = KafkaStore;
    const TAKES_OVER: bool = true;

    async fn session(&self) -> KafkaStore {
        Positions::session(self)
    }

    /// It keeps nothing for a connection.
    async fn sever(&self, _: &KafkaStore) {}

    async fn garble(&self, table: &TableName) {
        let producer: FutureProducer =
            ClientConfig::new().set("bootstrap.servers", self.stage.bootstrap()).create().unwrap();
        let (key, entry) = (table.to_string(), r#"{"position":"x","epoch":1,"owner":"","instance":""}"#);
        let record = FutureRecord::to(self.topic).partition(0).key(&key).payload(entry);
        producer.send(record, PATIENCE).await.unwrap();
    }
}

/// Exactly once.
struct Transactions<'s>(Positions<'s>);

impl outlet::Bench for Transactions<'_> {
    type Outlet = ExactlyOnce;
    type Store = KafkaStore;
    const TAKES_OVER: bool = true;

    async fn outlet(&self, table: &TableName) -> ExactlyOnce {
        let store = self.0.session();
        let claim = store.claim(table).await.unwrap().claim;
        ExactlyOnce::new(store, claim, Limit::new(64 << 10)).unwrap()
    }

    async fn store(&self) -> KafkaStore {
        self.0.session()
    }

    async fn failing(&self) -> String {
        narrow(self.0.stage, "narrow-transactions").await
    }

    fn topic(&self) -> &str {
        &self.0.stage.topic
    }

    async fn delivered(&self, prefix: &str, expected: usize) -> Vec<(String, String)> {
        delivered(self.0.stage, prefix, expected)
    }
}

/// At least once, with positions in a topic.
struct Mixed<'s>(Positions<'s>);

impl outlet::Bench for Mixed<'_> {
    type Outlet = AtLeastOnce<KafkaStore>;
    type Store = KafkaStore;
    const TAKES_OVER: bool = true;

    async fn outlet(&self, table: &TableName) -> AtLeastOnce<KafkaStore> {
        let store = self.0.session();
        let claim = store.claim(table).await.unwrap().claim;
        AtLeastOnce::new(
            Producers::new(&settings(self.0.stage)).publisher("contract", Limit::new(64 << 10)).unwrap(),
            store,
            claim,
        )
    }

    async fn store(&self) -> KafkaStore {
        self.0.session()
    }

    async fn failing(&self) -> String {
        narrow(self.0.stage, "narrow-mixed").await
    }

    fn topic(&self) -> &str {
        &self.0.stage.topic
    }

    async fn delivered(&self, prefix: &str, expected: usize) -> Vec<(String, String)> {
        delivered(self.0.stage, prefix, expected)
    }
}

fn settings(stage: &Stage) -> KafkaSettings {
    KafkaSettings { bootstrap_servers: format!("127.0.0.1:{}", stage.kafka_port()), ..KafkaSettings::default() }
}

async fn create(stage: &Stage, topic: NewTopic<'_>) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", format!("127.0.0.1:{}", stage.kafka_port())).create().unwrap();
    admin.create_topics([&topic], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
}

/// A topic that takes no record of a contract.
async fn narrow(stage: &Stage, name: &str) -> String {
    create(stage, NewTopic::new(name, 1, TopicReplication::Fixed(1)).set("max.message.bytes", "50")).await;
    name.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_in_a_topic_and_transactions_keep_the_contracts() {
    let stage = Stage::of().up().await;
    for topic in ["contract-store", "contract-transactions", "contract-mixed"] {
        create(&stage, NewTopic::new(topic, 1, TopicReplication::Fixed(1)).set("cleanup.policy", "compact")).await;
    }
    let of = |topic| Positions { stage: &stage, topic };
    store::keep(&of("contract-store")).await;
    outlet::keep(&Transactions(of("contract-transactions"))).await;
    let stage = Stage::of().up().await;
    outlet::keep(&Mixed(Positions { stage: &stage, topic: "contract-mixed" })).await;
}

/// So many aggregates, which take some 500 bytes each, also compressed.
fn parked(aggregates: u32) -> Parked {
    let mut parked = Parked::default();
    for number in 0..aggregates {
        let parking = Parking {
            run: format!("e{number}"),
            reason: std::iter::repeat_with(fastrand::alphanumeric).take(400).collect(),
            since: jiff::Timestamp::UNIX_EPOCH,
            position: after(1).to_string(),
            topics: ["outboxd.parked.t".to_owned()].into(),
            events: 1,
            released: 0,
            bytes: 100,
        };
        parked.put(Aggregate::new(&number.to_be_bytes()), parking);
    }
    parked
}

/// Given more parked aggregates than the producer sends in one record, or than the topic takes, when they are kept, then that
/// is refused for good, by the limit; exactly once, what was published with it has failed for the same reason; and what was
/// durable stays, and can be followed.
#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_is_larger_than_a_record_may_be_is_refused_for_good_and_the_one_before_stays() {
    let stage = Stage::of().up().await;
    for (topic, limit, aggregates) in [("wide-positions", "5000000", 3000), ("narrow-positions", "20000", 100)] {
        let of_positions = NewTopic::new(topic, 1, TopicReplication::Fixed(1)).set("cleanup.policy", "compact");
        create(&stage, of_positions.set("max.message.bytes", limit)).await;
        let (table, parked) = (TableName::new("contract", topic), parked(aggregates));
        let store = Positions { stage: &stage, topic }.session();
        let refused = |error: &StoreError| matches!(error, StoreError::Refused(why) if why.contains(topic) && why.contains("max.message.bytes"));

        let claim = store.claim(&table).await.unwrap().claim;
        store.save(&claim, &after(1)).await.unwrap();
        let error = store.keep(&claim, &after(2), Some(&parked)).await.unwrap_err();
        assert!(refused(&error), "{error}");

        let claimed = store.claim(&table).await.unwrap();
        assert_eq!((claimed.position, claimed.parked.len()), (Ok(Some(after(1))), 0));
        let mut once = ExactlyOnce::new(store.clone(), claimed.claim, Limit::new(64 << 10)).unwrap();
        let (key, value) = (b"k".as_slice(), Some(b"{}".as_slice()));
        let record = Record {
            topic: &stage.topic,
            key,
            partition: None,
            value,
            timestamp_millis: 1_700_000_000_000,
            headers: &[],
        };
        once.publish(&record, 0).unwrap();
        let error = once.keep(&after(2), Some(&parked)).await.unwrap_err();
        assert!(refused(&error), "{error}");
        let mut settled = Vec::new();
        once.settled(&mut settled).await;
        let [Settled { chunk: 0, records: 1, outcome: Err(DeliveryError::Definite(refusal)) }] = settled.as_slice()
        else {
            panic!("{settled:?}");
        };
        assert_eq!(refusal.name, "store_refused");

        let claim = store.claim(&table).await.unwrap().claim;
        store.keep(&claim, &after(3), Some(&self::parked(2))).await.unwrap();
        assert_eq!(store.claim(&table).await.unwrap().position, Ok(Some(after(3))));
    }
}

/// Records of committed transactions, and those outside of transactions.
fn delivered(stage: &Stage, prefix: &str, expected: usize) -> Vec<(String, String)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", format!("127.0.0.1:{}", stage.kafka_port()))
        .set("group.id", format!("contract-{}", fastrand::u64(..)))
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&[&stage.topic]).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut all = Vec::new();
    while all.len() < expected && Instant::now() < deadline {
        let Some(message) = tokio::task::block_in_place(|| consumer.poll(Duration::from_millis(100))) else {
            continue;
        };
        let message = message.unwrap();
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap()).into_owned();
        let id = text(message.headers().unwrap().iter().find(|header| header.key == "id").unwrap().value);
        if id.starts_with(prefix) {
            all.push((text(message.key()), id));
        }
    }
    all
}

/// Readers are a user of their own, so that their connections can be told from all others.
struct Log<'s>(&'s Stage);

const READER: &str = "reader";

impl source::Bench for Log<'_> {
    type Source = MysqlSource;

    async fn source(&self) -> MysqlSource {
        let opts = Opts::from_url(&format!("mysql://{READER}:x@127.0.0.1:{}", self.0.mysql.port())).unwrap();
        let endpoint = Endpoint::new(opts, CONNECT);
        MysqlSource::new(endpoint, fastrand::u32(1000..), Duration::from_secs(1), Duration::from_secs(10))
    }

    fn tables(&self) -> [TableName; 2] {
        [self.0.outboxes[0].clone(), self.0.outboxes[1].clone()]
    }

    async fn play(&self, steps: Vec<Step>, commit: bool) {
        let mut conn = admin(self.0).await;
        conn.query_drop("START TRANSACTION").await.unwrap();
        for step in steps {
            match step {
                Step::Insert(table, inserts) => {
                    let statement = format!(
                        "INSERT INTO {} (id, aggregatetype, aggregateid, type, payload) VALUES (?, 'test', ?, 'test', ?)",
                        table.quoted()
                    );
                    for insert in inserts {
                        conn.exec_drop(&statement, (insert.id, insert.key, insert.payload)).await.unwrap();
                    }
                }
                Step::Foreign(table, ForeignDml::Update) => {
                    let statement = format!("UPDATE {} SET type = UUID() ORDER BY id LIMIT 1", table.quoted());
                    conn.query_drop(statement).await.unwrap();
                }
                Step::Delete(table, ids) => {
                    let ids: Vec<_> = ids.iter().map(|id| format!("'{id}'")).collect();
                    let statement = format!("DELETE FROM {} WHERE id IN ({})", table.quoted(), ids.join(","));
                    conn.query_drop(statement).await.unwrap();
                }
                Step::Savepoint(name) => conn.query_drop(format!("SAVEPOINT {name}")).await.unwrap(),
                Step::RollbackTo(name) => conn.query_drop(format!("ROLLBACK TO {name}")).await.unwrap(),
                other => panic!("{other:?} cannot be played"),
            }
        }
        conn.query_drop(if commit { "COMMIT" } else { "ROLLBACK" }).await.unwrap();
    }

    async fn disconnect(&self) {
        kill(self.0, READER).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_log_outlet_and_store_keep_the_contracts() {
    let stage = Stage::of().own_kafka().topic("delivery").up().await;
    store::keep(&Store { stage: &stage, users: AtomicU32::new(0) }).await;
    let bootstrap = format!("127.0.0.1:{}", stage.kafka_port());
    let settings = KafkaSettings { bootstrap_servers: bootstrap, ..KafkaSettings::default() };
    let producers = Producers::new(&settings);
    outlet::keep(&Outlets { stage: &stage, producers, users: AtomicU32::new(0) }).await;
    session(&stage, READER).await;
    source::keep(&Log(&stage)).await;
}
