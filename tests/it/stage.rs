//! The stage of a test: private servers, shards, a topic, writers, and the daemon.

use std::num::NonZero;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts};
use outboxd::history::{Isolation, Journal, Reader, ReaderSettings, Seen, Verdict, Writer, WriterSettings};
use outboxd::services::Service;
use outboxd::table::TableName;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

const SHARDS: &str = "delivery.delivery-outbox{1..4}";

/// A private server by the scripts of this checkout.
pub(crate) fn hold(name: &str) -> Service {
    Service::hold(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/services")), name, &[]).unwrap()
}

/// MySQL, Kafka, four shards with hyphens in their names, and one topic.
pub(crate) struct Stage {
    pub(crate) mysql: Service,
    pub(crate) kafka: Service,
    pub(crate) outboxes: Vec<TableName>,
}

impl Stage {
    pub(crate) async fn set() -> Self {
        let kafka = std::thread::spawn(|| hold("kafka-4.1"));
        let mysql = hold("mysql-9.7");
        let kafka = kafka.join().unwrap();
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", format!("127.0.0.1:{}", kafka.port())).create().unwrap();
        let topic = NewTopic::new("delivery", 3, TopicReplication::Fixed(1));
        admin.create_topics([&topic], &AdminOptions::new()).await.unwrap();
        let outboxes = (1..=4).map(|n| TableName::new("delivery", &format!("delivery-outbox{n}"))).collect();
        let stage = Self { mysql, kafka, outboxes };
        let migrated = stage.outboxd(&["migrate"]).status().unwrap();
        assert!(migrated.success());
        stage
    }

    pub(crate) fn opts(&self) -> Opts {
        Opts::from_url(&format!("mysql://admin:admin@127.0.0.1:{}", self.mysql.port())).unwrap()
    }

    /// The command, configured by environment alone.
    pub(crate) fn outboxd(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outboxd"));
        command
            .args(arguments)
            .env("OUTBOXD__MYSQL__URL", format!("mysql://admin@127.0.0.1:{}", self.mysql.port()))
            .env("OUTBOXD__MYSQL__PASSWORD", "admin")
            .env("OUTBOXD__KAFKA__BOOTSTRAP_SERVERS", format!("127.0.0.1:{}", self.kafka.port()))
            .env("OUTBOXD__OUTBOX__0__TABLES", SHARDS)
            .env("OUTBOXD__OUTBOX__0__TOPIC", "delivery")
            .env("OUTBOXD__OUTBOX__0__START", "earliest")
            .env("OUTBOXD__ADMIN__LISTEN", "127.0.0.1:0")
            .env("NO_COLOR", "1")
            .env("OUTBOXD__RELAY__SHUTDOWN_GRACE", "20s");
        command
    }

    pub(crate) fn run(&self) -> Daemon {
        Daemon(self.outboxd(&["run"]).stderr(Stdio::inherit()).spawn().unwrap())
    }

    /// With the admin listener on this port.
    pub(crate) fn run_on(&self, port: u16) -> Watched {
        self.run_for(SHARDS, port)
    }

    /// Of these tables, with the admin listener on this port.
    pub(crate) fn run_for(&self, tables: &str, port: u16) -> Watched {
        let mut command = self.outboxd(&["run"]);
        command.env("OUTBOXD__OUTBOX__0__TABLES", tables).env("OUTBOXD__ADMIN__LISTEN", format!("127.0.0.1:{port}"));
        Watched { daemon: Daemon(command.spawn().unwrap()), port }
    }

    pub(crate) fn reader(&self) -> Reader {
        let settings = ReaderSettings {
            bootstrap_servers: format!("127.0.0.1:{}", self.kafka.port()),
            topics: vec!["delivery".to_owned()],
            isolation: Isolation::ReadCommitted,
        };
        Reader::new(&settings).unwrap()
    }

    /// Reads until every committed event has been seen, or patience ends; then judges.
    pub(crate) async fn verdict(&self, journal: &Journal) -> Verdict {
        let expected = journal.committed().count();
        let mut reader = self.reader();
        let all = |seen: &Seen| seen.distinct() >= expected;
        reader.read_until(Instant::now() + PATIENCE, all).await.unwrap();
        Verdict::of(journal, &reader.into_records())
    }
}

/// A port that nobody listens on at the moment.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A running daemon whose admin port is known.
pub(crate) struct Watched {
    pub(crate) daemon: Daemon,
    port: u16,
}

impl Watched {
    /// Waits until `/readyz` answers 200.
    pub(crate) async fn ready(&self) {
        assert!(self.answer("/readyz", |_| true).await, "the daemon is not ready");
    }

    /// Waits until a path answers 200 with a body that is wanted; gives whether it did before patience ended.
    pub(crate) async fn answer(&self, path: &str, wanted: impl Fn(&str) -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let asked = || ureq::get(&url).call().and_then(|mut answer| answer.body_mut().read_to_string());
        while !asked().is_ok_and(|body| wanted(&body)) {
            if Instant::now() >= deadline {
                return false;
            }
            sleep(Duration::from_millis(20)).await;
        }
        true
    }
}

/// A running `outboxd run`; killed when dropped.
pub(crate) struct Daemon(pub(crate) Child);

impl Daemon {
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// SIGTERM, and the exit code.
    pub(crate) fn terminate(mut self) -> Option<i32> {
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
pub(crate) fn write(stage: &Stage, seed: u64, stop: &CancellationToken) -> tokio::task::JoinHandle<Journal> {
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
pub(crate) async fn committed(stage: &Stage, rows: u64) {
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
