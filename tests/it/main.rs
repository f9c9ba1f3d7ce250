//! The daemon between a real MySQL and a real Kafka, judged by the history checker.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod servers;

use std::num::NonZero;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts};
use outboxd::history::{Isolation, Journal, Reader, ReaderSettings, Seen, Verdict, Writer, WriterSettings};
use outboxd::table::TableName;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use servers::Server;

const PATIENCE: Duration = Duration::from_mins(1);

/// MySQL, Kafka, four shards with hyphens in their names, and one topic.
struct Stage {
    mysql: Server,
    kafka: Server,
    outboxes: Vec<TableName>,
}

impl Stage {
    async fn set() -> Self {
        let kafka = std::thread::spawn(|| Server::hold("kafka-4.1"));
        let mysql = Server::hold("mysql-9.7");
        let kafka = kafka.join().unwrap();
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", format!("127.0.0.1:{}", kafka.port)).create().unwrap();
        let topic = NewTopic::new("delivery", 3, TopicReplication::Fixed(1));
        admin.create_topics([&topic], &AdminOptions::new()).await.unwrap();
        let outboxes = (1..=4).map(|n| TableName::new("delivery", &format!("delivery-outbox{n}"))).collect();
        let stage = Self { mysql, kafka, outboxes };
        let migrated = stage.outboxd(&["migrate"]).status().unwrap();
        assert!(migrated.success());
        stage
    }

    fn opts(&self) -> Opts {
        Opts::from_url(&format!("mysql://admin:admin@127.0.0.1:{}", self.mysql.port)).unwrap()
    }

    /// The command, configured by environment alone.
    fn outboxd(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outboxd"));
        command
            .args(arguments)
            .env("OUTBOXD__MYSQL__URL", format!("mysql://admin@127.0.0.1:{}", self.mysql.port))
            .env("OUTBOXD__MYSQL__PASSWORD", "admin")
            .env("OUTBOXD__KAFKA__BOOTSTRAP_SERVERS", format!("127.0.0.1:{}", self.kafka.port))
            .env("OUTBOXD__OUTBOX__0__TABLES", "delivery.delivery-outbox{1..4}")
            .env("OUTBOXD__OUTBOX__0__TOPIC", "delivery")
            .env("OUTBOXD__OUTBOX__0__START", "earliest")
            .env("OUTBOXD__ADMIN__LISTEN", "127.0.0.1:0")
            .env("NO_COLOR", "1")
            .env("OUTBOXD__RELAY__SHUTDOWN_GRACE", "20s");
        command
    }

    fn run(&self) -> Daemon {
        Daemon(self.outboxd(&["run"]).stderr(Stdio::inherit()).spawn().unwrap())
    }

    /// With the admin listener on this port.
    fn run_on(&self, port: u16) -> Watched {
        let mut command = self.outboxd(&["run"]);
        command.env("OUTBOXD__ADMIN__LISTEN", format!("127.0.0.1:{port}"));
        Watched { daemon: Daemon(command.spawn().unwrap()), port }
    }

    fn reader(&self) -> Reader {
        let settings = ReaderSettings {
            bootstrap_servers: format!("127.0.0.1:{}", self.kafka.port),
            topics: vec!["delivery".to_owned()],
            isolation: Isolation::ReadCommitted,
        };
        Reader::new(&settings).unwrap()
    }

    /// Reads until every committed event has been seen, or patience ends; then judges.
    async fn verdict(&self, journal: &Journal) -> Verdict {
        let expected = journal.committed().count();
        let mut reader = self.reader();
        let all = |seen: &Seen| seen.distinct() >= expected;
        reader.read_until(Instant::now() + PATIENCE, all).await.unwrap();
        Verdict::of(journal, &reader.into_records())
    }
}

/// A port that nobody listens on at the moment.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A running daemon whose admin port is known.
struct Watched {
    daemon: Daemon,
    port: u16,
}

impl Watched {
    /// Waits until `/readyz` answers 200.
    async fn ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        let url = format!("http://127.0.0.1:{}/readyz", self.port);
        while ureq::get(&url).call().is_err() {
            assert!(Instant::now() < deadline, "the daemon is not ready");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A running `outboxd run`; killed when dropped.
struct Daemon(Child);

impl Daemon {
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// SIGTERM, and the exit code.
    fn terminate(mut self) -> Option<i32> {
        Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status().unwrap();
        self.0.wait().unwrap().code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs writers until `stop`, and gives their journal.
fn write(stage: &Stage, seed: u64, stop: &CancellationToken) -> tokio::task::JoinHandle<Journal> {
    let mut settings = WriterSettings::new(stage.opts(), stage.outboxes.clone(), seed);
    settings.rate = NonZero::new(300);
    let stop = stop.clone();
    tokio::spawn(async move {
        let writer = Writer::new(settings).unwrap();
        writer.prepare().await.unwrap();
        let mut journal = writer.run(stop).await.unwrap();
        writer.resolve(&mut journal).await.unwrap();
        journal
    })
}

/// Waits until so many events are in the outbox tables.
async fn committed(stage: &Stage, rows: u64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Ok(mut conn) = Conn::new(stage.opts()).await {
            let mut all = 0;
            for table in &stage.outboxes {
                let count: Option<u64> =
                    conn.query_first(format!("SELECT COUNT(*) FROM {}", table.quoted())).await.unwrap();
                all += count.unwrap_or(0);
            }
            if all >= rows {
                return;
            }
        }
        assert!(Instant::now() < deadline, "{rows} rows are not there");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_it_loses_and_reorders_nothing() {
    let stage = Stage::set().await;
    let stop = CancellationToken::new();
    let writing = write(&stage, 1, &stop);
    for kills in 1..=5 {
        let daemon = stage.run();
        committed(&stage, kills * 500).await;
        daemon.kill();
    }
    let daemon = stage.run();
    stop.cancel();
    let journal = writing.await.unwrap();
    let verdict = stage.verdict(&journal).await;
    assert!(verdict.is_clean() && verdict.unresolved == 0, "{verdict}");
    assert_eq!(daemon.terminate(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_under_load_leaves_no_duplicate() {
    let stage = Stage::set().await;
    let stop = CancellationToken::new();
    let writing = write(&stage, 2, &stop);
    for stops in 1..=3 {
        let daemon = stage.run();
        committed(&stage, stops * 500).await;
        assert_eq!(daemon.terminate(), Some(0));
    }
    let daemon = stage.run();
    stop.cancel();
    let journal = writing.await.unwrap();
    let verdict = stage.verdict(&journal).await;
    assert!(verdict.is_clean() && verdict.total.duplicates == 0, "{verdict}");
    assert_eq!(daemon.terminate(), Some(0));
    // With nothing to do, a restart publishes nothing.
    let before = verdict.records;
    let idle = stage.run_on(free_port());
    idle.ready().await;
    assert_eq!(idle.daemon.terminate(), Some(0));
    assert_eq!(stage.verdict(&journal).await.records, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_and_kafka_go_away_and_come_back_and_nothing_is_lost() {
    let mut stage = Stage::set().await;
    let stop = CancellationToken::new();
    let writing = write(&stage, 3, &stop);
    let daemon = stage.run();
    committed(&stage, 300).await;
    stage.kafka.tell("kill");
    committed(&stage, 600).await;
    stage.kafka.tell("start");
    committed(&stage, 900).await;
    stage.mysql.tell("kill");
    stage.mysql.tell("start");
    committed(&stage, 1200).await;
    stop.cancel();
    let journal = writing.await.unwrap();
    let verdict = stage.verdict(&journal).await;
    assert!(verdict.is_clean() && verdict.unresolved == 0, "{verdict}");
    assert_eq!(daemon.terminate(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_for_the_same_tables_is_refused() {
    let stage = Stage::set().await;
    let stop = CancellationToken::new();
    let writing = write(&stage, 4, &stop);
    let first = stage.run();
    committed(&stage, 200).await;
    stop.cancel();
    let journal = writing.await.unwrap();
    stage.verdict(&journal).await;
    let second = stage.outboxd(&["run"]).status().unwrap();
    assert_eq!(second.code(), Some(1), "every relay of the second halts by name");
    assert_eq!(first.terminate(), Some(0));
}
