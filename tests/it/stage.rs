//! The stage of a test: private servers, shards, a topic, writers, and the daemon.

use std::cell::RefCell;
use std::num::NonZero;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, OnceLock, Weak};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts};
use outboxd::history::{
    Delivered, Isolation, Journal, Progress, Reader, ReaderSettings, Verdict, Writer, WriterSettings,
};
use outboxd::services::Service;
use outboxd::table::TableName;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::metadata::MetadataPartition;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::account;
use crate::daemon::Daemon;

/// How long a condition may take to hold.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Tests with stages at once. Each has a server of its own, and waits for something for half of its time.
static STAGES: LazyLock<Semaphore> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    Semaphore::new((2 * cores).clamp(2, 16))
});

thread_local! {
    /// What a test has already, on the thread that it blocks. It is one test with however many stages, or two that wait for
    /// their second one would wait for each other.
    static HELD: RefCell<Weak<SemaphorePermit<'static>>> = const { RefCell::new(Weak::new()) };
}

async fn permit() -> Arc<SemaphorePermit<'static>> {
    if let Some(held) = HELD.with_borrow(Weak::upgrade) {
        return held;
    }
    let permit = Arc::new(STAGES.acquire().await.unwrap());
    HELD.set(Arc::downgrade(&permit));
    permit
}

/// The Kafka that tests share, each with a topic of its own. Ends with the process.
static KAFKA: OnceLock<Service> = OnceLock::new();

/// Numbers topics.
static TOPICS: AtomicU32 = AtomicU32::new(1);

/// A private server by the scripts of this checkout.
pub(crate) fn hold(name: &str, settings: &[&str]) -> Service {
    Service::hold(script(), name, settings).unwrap()
}

/// The scripts of this checkout that hold servers.
pub(crate) fn script() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/services"))
}

/// What a stage is made of.
pub(crate) struct Setup {
    server: &'static str,
    disk: Option<u32>,
    settings: Vec<String>,
    grants: Vec<String>,
    own_kafka: bool,
    kafka_settings: Vec<String>,
    brokers: Option<String>,
    topic: Option<String>,
    partitions: i32,
    replicas: i32,
    tables: String,
    blocks: usize,
    outboxes: Vec<TableName>,
    environment: Vec<(String, String)>,
}

impl Setup {
    /// Another server than MySQL.
    pub(crate) fn server(mut self, name: &'static str) -> Self {
        self.server = name;
        self
    }

    /// On a disk of its own, of so many MiB.
    pub(crate) fn disk(mut self, mebibytes: u32) -> Self {
        self.disk = Some(mebibytes);
        self
    }

    /// A further setting of the server, as `KEY=VALUE`.
    pub(crate) fn setting(mut self, setting: impl Into<String>) -> Self {
        self.settings.push(setting.into());
        self
    }

    /// What the daemon's account may do beside what it always needs, such as `DELETE ON delivery.*`.
    pub(crate) fn grant(mut self, grant: &str) -> Self {
        self.grants.push(grant.to_owned());
        self
    }

    /// MySQL as it was before GTIDs: positions are files and offsets.
    pub(crate) fn without_gtids(self) -> Self {
        self.setting("gtid_mode=OFF").setting("enforce_gtid_consistency=OFF")
    }

    /// A Kafka that this test may stop.
    pub(crate) fn own_kafka(mut self) -> Self {
        self.own_kafka = true;
        self
    }

    /// A setting of that Kafka, as `KEY=VALUE`.
    pub(crate) fn kafka_setting(mut self, setting: String) -> Self {
        self.kafka_settings.push(setting);
        self
    }

    /// A cluster that the test holds itself.
    pub(crate) fn brokers(mut self, brokers: &str) -> Self {
        self.brokers = Some(brokers.to_owned());
        self
    }

    /// Replicas of the topic.
    pub(crate) fn replicas(mut self, replicas: i32) -> Self {
        self.replicas = replicas;
        self
    }

    /// Partitions of the topic; with one, all records have one order.
    pub(crate) fn partitions(mut self, partitions: i32) -> Self {
        self.partitions = partitions;
        self
    }

    /// The topic's name, on a Kafka of its own.
    pub(crate) fn topic(mut self, name: &str) -> Self {
        self.topic = Some(name.to_owned());
        self
    }

    /// Another number of shards than four.
    pub(crate) fn shards(self, shards: usize) -> Self {
        let names: Vec<_> = (1..=shards).map(|n| TableName::new("delivery", &format!("delivery-outbox{n}"))).collect();
        self.tables(&format!("delivery.delivery-outbox{{1..{shards}}}"), names)
    }

    /// These outbox tables, selected by this pattern.
    pub(crate) fn tables(mut self, pattern: &str, names: Vec<TableName>) -> Self {
        pattern.clone_into(&mut self.tables);
        self.outboxes = names;
        self
    }

    /// As many `[[outbox]]` blocks, all to the stage's topic.
    pub(crate) fn blocks(mut self, blocks: usize) -> Self {
        self.blocks = blocks;
        self
    }

    /// A key of the daemon's configuration, by its environment name without `OUTBOXD__`.
    pub(crate) fn set(mut self, key: &str, value: &str) -> Self {
        self.environment.push((format!("OUTBOXD__{key}"), value.to_owned()));
        self
    }

    /// Starts the servers, and creates the topic and the tables.
    pub(crate) async fn up(self) -> Stage {
        let stage = self.servers().await;
        stage.create_topic().await;
        stage.migrate();
        stage
    }

    /// Starts the servers only.
    pub(crate) async fn servers(self) -> Stage {
        let permit = permit().await;
        let (own_kafka, kafka_settings, has_brokers) = (self.own_kafka, self.kafka_settings, self.brokers.is_some());
        let kafka = tokio::task::spawn_blocking(move || {
            if own_kafka {
                return Some(hold("kafka-4.1", &kafka_settings.iter().map(String::as_str).collect::<Vec<_>>()));
            }
            if !has_brokers {
                KAFKA.get_or_init(|| hold("kafka-4.1", &[]));
            }
            None
        });
        let (server, settings, disk) = (self.server, self.settings, self.disk);
        let mysql = tokio::task::spawn_blocking(move || {
            let settings: Vec<_> = settings.iter().map(String::as_str).collect();
            match disk {
                Some(size) => Service::hold_on_disk(script(), server, &settings, size).unwrap(),
                None => hold(server, &settings),
            }
        });
        let mysql = mysql.await.unwrap();
        account::create(&mysql, &self.outboxes, &self.grants).await;
        Stage {
            mysql,
            own_kafka: kafka.await.unwrap(),
            brokers: self.brokers,
            outboxes: self.outboxes,
            grants: self.grants,
            topic: self.topic.unwrap_or_else(|| format!("delivery-{}", TOPICS.fetch_add(1, Ordering::Relaxed))),
            partitions: self.partitions,
            replicas: self.replicas,
            tables: self.tables,
            blocks: self.blocks,
            environment: self.environment,
            _permit: permit,
        }
    }
}

/// Servers, tables and a topic.
pub(crate) struct Stage {
    pub(crate) mysql: Service,
    pub(crate) outboxes: Vec<TableName>,
    pub(crate) topic: String,
    pub(crate) grants: Vec<String>,
    own_kafka: Option<Service>,
    brokers: Option<String>,
    partitions: i32,
    replicas: i32,
    tables: String,
    blocks: usize,
    environment: Vec<(String, String)>,
    _permit: Arc<SemaphorePermit<'static>>,
}

impl Stage {
    /// MySQL, four shards with hyphens in their names, a topic of three partitions on the shared Kafka.
    pub(crate) fn of() -> Setup {
        let setup = Setup {
            server: "mysql-9.7",
            disk: None,
            settings: Vec::new(),
            grants: Vec::new(),
            own_kafka: false,
            kafka_settings: Vec::new(),
            brokers: None,
            topic: None,
            partitions: 3,
            replicas: 1,
            tables: String::new(),
            blocks: 1,
            outboxes: Vec::new(),
            environment: Vec::new(),
        };
        setup.shards(4)
    }

    /// The Kafka that this test alone uses.
    pub(crate) fn kafka(&mut self) -> &mut Service {
        self.own_kafka.as_mut().expect("the setup asks for its own Kafka")
    }

    pub(crate) fn kafka_port(&self) -> u16 {
        self.own_kafka.as_ref().or(KAFKA.get()).map_or(0, Service::port)
    }

    pub(crate) fn bootstrap(&self) -> String {
        self.brokers.clone().unwrap_or_else(|| format!("127.0.0.1:{}", self.kafka_port()))
    }

    pub(crate) fn kafka_admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", self.bootstrap()).create().unwrap()
    }

    pub(crate) async fn create_topic(&self) {
        self.create(&self.topic).await;
    }

    /// Creates a topic like the stage's own.
    pub(crate) async fn create(&self, name: &str) {
        let admin = self.kafka_admin();
        let topic = NewTopic::new(name, self.partitions, TopicReplication::Fixed(self.replicas));
        let created = admin.create_topics([&topic], &AdminOptions::new()).await.unwrap();
        assert!(created.iter().all(Result::is_ok), "{created:?}");
        // A broker may answer for a moment as if it were not there.
        until("the topic is known", async || self.has_topic(name)).await;
    }

    /// Deletes a topic.
    pub(crate) async fn delete(&self, name: &str) {
        let deleted = self.kafka_admin().delete_topics(&[name], &AdminOptions::new()).await.unwrap();
        assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
        // A broker may acknowledge for a moment what goes with the topic.
        until("the topic is gone", async || !self.has_topic(name)).await;
    }

    /// Whether the broker knows a topic, and serves every partition of it.
    fn has_topic(&self, name: &str) -> bool {
        let admin = self.kafka_admin();
        let known = admin.inner().fetch_metadata(Some(name), PATIENCE).unwrap();
        // A partition is made known before it is there. Whoever sends to it meanwhile is refused.
        let served = |partition: &MetadataPartition| {
            partition.error().is_none() && admin.inner().fetch_watermarks(name, partition.id(), PATIENCE).is_ok()
        };
        known.topics().iter().all(|topic| {
            topic.error().is_none() && !topic.partitions().is_empty() && topic.partitions().iter().all(served)
        })
    }

    pub(crate) fn migrate(&self) {
        // However impatient the daemon is to be, this is not about it.
        let migrated = self.outboxd(&["migrate"]).env("OUTBOXD__MYSQL__CONNECT_TIMEOUT", "10s").output().unwrap();
        assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    }

    pub(crate) fn opts(&self) -> Opts {
        Opts::from_url(&format!("mysql://admin:admin@127.0.0.1:{}", self.mysql.port())).unwrap()
    }

    pub(crate) async fn connect(&self) -> Conn {
        Conn::new(self.opts()).await.unwrap()
    }

    /// Runs statements on a connection of their own.
    pub(crate) async fn sql<S: AsRef<str>>(&self, statements: impl IntoIterator<Item = S>) {
        let mut conn = self.connect().await;
        for sql in statements {
            conn.query_drop(sql.as_ref()).await.unwrap_or_else(|error| panic!("{}: {error}", sql.as_ref()));
        }
        conn.disconnect().await.unwrap();
    }

    /// Deletes every file of the log but the newest, and gives its name. Waits for readers that the server still counts.
    pub(crate) async fn purge(&self) -> String {
        let newest = self.newest_log().await;
        until("older files are gone", async || {
            self.sql([format!("PURGE BINARY LOGS TO '{newest}'")]).await;
            self.ask("SHOW BINARY LOGS").await == newest
        })
        .await;
        newest
    }

    /// The file that the server writes its log to.
    pub(crate) async fn newest_log(&self) -> String {
        let logs: Vec<mysql_async::Row> = self.connect().await.query("SHOW BINARY LOGS").await.unwrap();
        logs.last().unwrap().get(0).unwrap()
    }

    /// The first column of the first row.
    pub(crate) async fn ask(&self, question: &str) -> String {
        let mut conn = self.connect().await;
        let row: Option<mysql_async::Row> = conn.query_first(question).await.unwrap();
        row.and_then(|mut row| row.take::<Option<String>, _>(0).flatten()).unwrap_or_default()
    }

    /// The connection that holds the locks.
    pub(crate) async fn owner(&self) -> String {
        let name = format!("`outboxd`.`outboxd_positions` {}", self.outboxes[0]);
        let owner = format!("SELECT CAST(IS_USED_LOCK(CONCAT('outboxd:', LEFT(SHA2('{name}', 256), 40))) AS CHAR)");
        until("somebody has the lock", async || !self.ask(&owner).await.is_empty()).await;
        self.ask(&owner).await
    }

    /// Ends that connection, as a server does that loses the connection to a host that is cut off.
    pub(crate) async fn kill_owner(&self) {
        self.sql([format!("KILL {}", self.owner().await)]).await;
    }

    /// Ends every connection that reads the log.
    pub(crate) async fn kill_readers(&self) {
        let mut conn = self.connect().await;
        let all: Vec<mysql_async::Row> = conn.query("SHOW PROCESSLIST").await.unwrap();
        for row in all {
            if row.get::<String, _>("Command").is_some_and(|command| command.starts_with("Binlog Dump")) {
                conn.query_drop(format!("KILL {}", row.get::<u64, _>("Id").unwrap())).await.unwrap();
            }
        }
    }

    /// Saved positions, as `outboxd position show` tells.
    pub(crate) fn positions(&self) -> String {
        String::from_utf8(self.outboxd(&["position", "show"]).output().unwrap().stdout).unwrap()
    }

    /// The command, configured by environment alone. Tables are made by the administrator, all else is done with the
    /// account that the documents grant.
    pub(crate) fn outboxd(&self, arguments: &[&str]) -> Command {
        let (user, password) =
            if arguments.first() == Some(&"migrate") { ("admin", "admin") } else { (account::USER, account::PASSWORD) };
        let mut command = Command::new(env!("CARGO_BIN_EXE_outboxd"));
        command
            .args(arguments)
            .env("OUTBOXD__MYSQL__URL", format!("mysql://{user}@127.0.0.1:{}", self.mysql.port()))
            .env("OUTBOXD__MYSQL__PASSWORD", password)
            .env("OUTBOXD__KAFKA__BOOTSTRAP_SERVERS", self.bootstrap())
            .env("OUTBOXD__OUTBOX__0__TABLES", &self.tables)
            .envs((0..self.blocks).map(|block| (format!("OUTBOXD__OUTBOX__{block}__TOPIC"), &self.topic)))
            .env("OUTBOXD__OUTBOX__0__START", "earliest")
            .env("OUTBOXD__ADMIN__LISTEN", "127.0.0.1:0")
            .env("NO_COLOR", "1")
            .env("OUTBOXD__RELAY__SHUTDOWN_GRACE", "20s")
            .env("OUTBOXD__RELAY__RETRY_MAX", "2s")
            .envs(self.environment.iter().map(|(key, value)| (key, value)));
        command
    }

    /// The same, whose tables stand in a file: what stands in the environment cannot change.
    pub(crate) fn outboxd_of(&self, file: &Path, arguments: &[&str]) -> Command {
        let mut command = self.outboxd(arguments);
        for key in ["TABLES", "TOPIC", "START"] {
            command.env_remove(format!("OUTBOXD__OUTBOX__0__{key}"));
        }
        command.arg("--config").arg(file);
        command
    }

    pub(crate) fn run(&self) -> Daemon {
        Daemon::spawn(&self.outboxd(&["run"]))
    }

    /// With further keys, by their environment names without `OUTBOXD__`.
    pub(crate) fn run_with(&self, keys: &[(&str, &str)]) -> Daemon {
        let mut command = self.outboxd(&["run"]);
        for (key, value) in keys {
            command.env(format!("OUTBOXD__{key}"), value);
        }
        Daemon::spawn(&command)
    }

    /// Runs writers at a moderate rate.
    pub(crate) async fn write(&self, seed: u64) -> Writing {
        self.write_with(self.writer(seed)).await
    }

    /// The same, and now and then a transaction changes tens of deliveries.
    pub(crate) async fn write_in_bulk(&self, seed: u64) -> Writing {
        self.write_with(WriterSettings { bulk: true, ..self.writer(seed) }).await
    }

    /// Runs writers at so many transactions a second, or as fast as the server goes.
    pub(crate) async fn write_at(&self, seed: u64, rate: Option<NonZero<u32>>) -> Writing {
        self.write_with(WriterSettings { rate, ..self.writer(seed) }).await
    }

    /// Runs writers at a moderate rate, to another address.
    pub(crate) async fn write_to(&self, server: Opts, seed: u64) -> Writing {
        self.write_with(WriterSettings { server, ..self.writer(seed) }).await
    }

    fn writer(&self, seed: u64) -> WriterSettings {
        WriterSettings { rate: NonZero::new(300), ..WriterSettings::new(self.opts(), self.outboxes.clone(), seed) }
    }

    async fn write_with(&self, settings: WriterSettings) -> Writing {
        let writer = Writer::new(settings).unwrap();
        writer.prepare().await.unwrap();
        let (progress, stop) = (writer.progress(), CancellationToken::new());
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut journal = writer.run(stopped).await.unwrap();
            writer.resolve(&mut journal).await.unwrap();
            journal
        });
        Writing { progress, stop, task }
    }

    /// What the setup has set a key to.
    pub(crate) fn setting(&self, key: &str) -> String {
        let found = self.environment.iter().find(|(name, _)| name.strip_prefix("OUTBOXD__") == Some(key));
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    }

    fn reader(&self) -> Reader {
        self.reader_of(&[&self.topic])
    }

    fn reader_of(&self, topics: &[&str]) -> Reader {
        let settings = ReaderSettings {
            bootstrap_servers: self.bootstrap(),
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
            isolation: Isolation::ReadCommitted,
        };
        Reader::new(&settings).unwrap()
    }

    /// Every record that the topic has now.
    pub(crate) async fn records(&self) -> Vec<Delivered> {
        let mut reader = self.reader();
        reader.read_to_end(Instant::now() + PATIENCE).await.unwrap();
        reader.into_records()
    }

    /// Waits until the event with this id is in the topic.
    pub(crate) async fn delivered(&self, id: &str) {
        let found = self.reader().read_until(Instant::now() + PATIENCE, |seen| seen.contains(id)).await.unwrap();
        assert!(found, "{id} is not delivered");
    }

    /// Reads until every committed event has been seen, or patience ends; then judges all that the topic has.
    pub(crate) async fn verdict(&self, journal: &Journal) -> Verdict {
        self.verdict_of(journal, &[&self.topic]).await
    }

    /// The same of several topics.
    pub(crate) async fn verdict_of(&self, journal: &Journal, topics: &[&str]) -> Verdict {
        let mut reader = self.reader_of(topics);
        reader.read_until(Instant::now() + PATIENCE, journal.has_arrived()).await.unwrap();
        reader.read_to_end(Instant::now() + PATIENCE).await.unwrap();
        Verdict::of(journal, &reader.into_records())
    }

    /// The ending of most tests: everything arrives, the daemon stops clean, and the history has no fault.
    pub(crate) async fn judge(&self, journal: &Journal, daemon: Daemon) -> Verdict {
        self.judge_of(journal, daemon, &[&self.topic]).await
    }

    /// The same of several topics.
    pub(crate) async fn judge_of(&self, journal: &Journal, daemon: Daemon, topics: &[&str]) -> Verdict {
        self.verdict_of(journal, topics).await;
        assert_eq!(daemon.terminate().await, Some(0));
        let verdict = self.verdict_of(journal, topics).await;
        assert!(verdict.is_clean() && verdict.unresolved == 0 && verdict.unfinished == 0, "{verdict}");
        verdict
    }
}

/// Writers at work.
pub(crate) struct Writing {
    progress: Arc<Progress>,
    stop: CancellationToken,
    task: JoinHandle<Journal>,
}

impl Writing {
    /// Events committed so far.
    pub(crate) fn events(&self) -> u64 {
        self.progress.events()
    }

    /// Waits until so many more events are committed.
    pub(crate) async fn more(&self, events: u64) {
        let all = self.events() + events;
        until("the writers go on", async || self.events() >= all).await;
    }

    /// Ends the writers.
    pub(crate) async fn stop(self) -> Journal {
        self.stop.cancel();
        timeout(PATIENCE, self.task).await.expect("the writers end").unwrap()
    }
}

/// Waits until the condition holds; fails by its name.
pub(crate) async fn until(name: &str, holds: impl AsyncFnMut() -> bool) {
    until_within(PATIENCE, name, holds).await;
}

/// The same of what may take longer.
pub(crate) async fn until_within(patience: Duration, name: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !holds().await {
        assert!(Instant::now() < deadline, "in vain: {name}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A port that nobody listens on at the moment.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Seeds what a test does at random: printed, and taken from `OUTBOXD_TEST_SEED` to play the same again.
pub(crate) fn seed() -> u64 {
    let chosen = std::env::var("OUTBOXD_TEST_SEED").ok().map(|text| text.parse().unwrap());
    let seed = chosen.unwrap_or_else(|| fastrand::u64(..1 << 32));
    eprintln!("OUTBOXD_TEST_SEED={seed}");
    seed
}
