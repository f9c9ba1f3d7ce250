//! Debezium on Kafka Connect, with the settings that stand in `benches/relay/debezium`.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::Running;
use crate::stage::{Database, Kafka, ROOT, Start, insert};
use crate::topic::Ends;
use crate::workload::write_row;

const WORKER: &str = include_str!("debezium/worker.properties");
const CONNECTOR: &str = include_str!("debezium/connector.properties");

/// How its connectors divide the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One for each.
    Each,
    /// One for all.
    One,
}

/// What is said of it where it is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Tuned,
    TunedForLatency,
}

impl Profile {
    fn settings(self) -> &'static str {
        match self {
            Self::Tuned => include_str!("debezium/tuned.properties"),
            Self::TunedForLatency => include_str!("debezium/tuned-latency.properties"),
        }
    }
}

const JVM: [&str; 4] = ["-Xms2g", "-Xmx2g", "-XX:+UseParallelGC", "-XX:-UsePerfData"];

/// How long it may take to start, with one core at times.
const PATIENCE: Duration = Duration::from_mins(3);

/// A worker with its connectors, and what it remembers between two runs.
pub(crate) struct Debezium {
    folder: PathBuf,
    profile: Profile,
    /// The tables of each connector, counted from 0.
    layout: Vec<Vec<usize>>,
    /// Names are the connectors' memory; those of another layout are others.
    name: String,
    /// How many events each table had when the connectors had found their place.
    relayed: Vec<u64>,
}

impl Debezium {
    /// Connectors for so many tables. The place where it will start is the end of the log, which it learns by a row of each
    /// table.
    pub(crate) async fn settle(
        (database, kafka): (&mut Database, &Kafka),
        (tables, layout): (usize, Layout),
        (profile, parent): (Profile, &Path),
    ) -> Self {
        let layout = match layout {
            Layout::Each => (0..tables).map(|table| vec![table]).collect(),
            Layout::One => vec![(0..tables).collect()],
        };
        let name = kafka.fresh_name("debezium");
        let folder = parent.join(&name);
        fs::create_dir_all(&folder).unwrap();
        let mut debezium = Self { folder, profile, layout, name, relayed: Vec::new() };
        let topic = kafka.topic().await;
        let mut running = debezium.spawn(database, kafka, &topic);
        let connectors = debezium.layout.len();
        // Rows from before a connector has found its place are not its own.
        let streams = |running: &Running| running.log().matches("Keepalive thread is running").count() >= connectors;
        running.until("every connector reads the log", PATIENCE, streams);
        for table in 0..tables {
            let numbers = database.take_numbers(table, 1);
            let mut sql = String::new();
            insert(table, &mut sql);
            write_row(table, numbers.start, 100, &mut sql);
            database.run(&sql).await;
        }
        let ends = Ends::of(&kafka.address(), &topic);
        running.until("a row of each table arrives", PATIENCE, |_| ends.count() >= tables as u64);
        // With its end it saves how far it has come.
        running.stop();
        fs::copy(debezium.folder.join("offsets"), debezium.folder.join("offsets.settled")).unwrap();
        kafka.delete(&topic).await;
        debezium.relayed = database.mark().await.written;
        debezium
    }

    /// Events between where the connectors are and another place: rows by which other connectors found theirs.
    pub(crate) fn events_before(&self, place: &Start) -> u64 {
        place.written.iter().zip(&self.relayed).map(|(written, relayed)| written - relayed).sum()
    }

    /// Forgets what it has relayed since it was settled.
    pub(crate) fn go_back(&self) {
        fs::copy(self.folder.join("offsets.settled"), self.folder.join("offsets")).unwrap();
    }

    /// Starts the worker, whose connectors write to this topic.
    pub(crate) fn spawn(&self, database: &Database, kafka: &Kafka, topic: &str) -> Running {
        let installed =
            std::env::var_os("OUTBOXD_SERVICES_DIR").map_or(Path::new(ROOT).join(".services"), PathBuf::from);
        let root = installed.join("debezium-3.5/root");
        let rest_port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let common = |text: &str| {
            text.replace("{kafka}", &kafka.address())
                .replace("{rest_port}", &rest_port.to_string())
                .replace("{folder}", &self.folder.display().to_string())
                .replace("{plugins}", &root.join("plugins").display().to_string())
                .replace("{mysql_port}", &database.port().to_string())
                .replace("{topic}", topic)
        };
        let mut command = Command::new("java");
        command.args(JVM).arg("-cp").arg(root.join("libs/*"));
        command.arg("org.apache.kafka.connect.cli.ConnectStandalone");
        let worker = self.folder.join("worker.properties");
        fs::write(&worker, common(WORKER)).unwrap();
        command.arg(worker);
        for (number, tables) in self.layout.iter().enumerate() {
            let names: Vec<_> = tables.iter().map(|table| format!("delivery.delivery-outbox{}", table + 1)).collect();
            let text = common(CONNECTOR)
                .replace("{name}", &format!("{}-{number}", self.name))
                .replace("{server_id}", &(7000 + number).to_string())
                .replace("{tables}", &names.join(","));
            let path = self.folder.join(format!("connector-{number}.properties"));
            fs::write(&path, format!("{text}{}", self.profile.settings())).unwrap();
            command.arg(path);
        }
        Running::spawn(&command, self.folder.join("connect.log"))
    }
}
