//! The servers: one Kafka for all, and a fresh MySQL for each workload.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use ::outboxd::services::Service;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use tokio::task::JoinSet;

use crate::outboxd;
use crate::workload::{Workload, write_row};

/// Partitions of every topic.
pub(crate) const PARTITIONS: i32 = 4;

/// A statement holds no more than so many bytes of rows.
const STATEMENT: usize = 4 << 20;

/// The checkout.
pub(crate) const ROOT: &str = env!("CARGO_MANIFEST_DIR");

pub(crate) fn script() -> PathBuf {
    Path::new(ROOT).join("scripts/services")
}

/// A server with its data on the disk, as in use.
fn hold(name: &str, settings: &[&str]) -> Service {
    Service::hold_in(&std::env::temp_dir(), &script(), name, settings).unwrap()
}

pub(crate) struct Kafka {
    service: Service,
    topics: AtomicU32,
}

impl Kafka {
    pub(crate) fn start() -> Self {
        // Logs are read once and deleted with their topic.
        let settings = ["log.segment.bytes=268435456", "message.max.bytes=10485760"];
        let service = hold("kafka-4.1", &settings);
        Self { service, topics: AtomicU32::new(1) }
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.service.port())
    }

    /// A name that nothing has yet.
    pub(crate) fn fresh_name(&self, kind: &str) -> String {
        format!("{kind}-{}", self.topics.fetch_add(1, Ordering::Relaxed))
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", self.address()).create().unwrap()
    }

    /// A new topic.
    pub(crate) async fn topic(&self) -> String {
        let name = self.fresh_name("delivery");
        self.create_topic(&name).await;
        name
    }

    /// The same with a name of one's own.
    pub(crate) async fn create_topic(&self, name: &str) {
        self.create(NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(1))).await;
    }

    /// A new topic for positions.
    pub(crate) async fn positions(&self) -> String {
        let name = self.fresh_name("positions");
        self.create(NewTopic::new(&name, 1, TopicReplication::Fixed(1)).set("cleanup.policy", "compact")).await;
        name
    }

    async fn create(&self, topic: NewTopic<'_>) {
        let answers = self.admin().create_topics([&topic], &AdminOptions::new()).await.unwrap();
        for answer in answers {
            answer.unwrap();
        }
    }

    /// Frees the disk.
    pub(crate) async fn delete(&self, topic: &str) {
        self.admin().delete_topics(&[topic], &AdminOptions::new()).await.unwrap();
    }
}

/// A place in the log before which nothing counts.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    pub(crate) gtids: String,
    /// The file that is written to, and how far it is.
    pub(crate) file: String,
    pub(crate) offset: u64,
    /// How many events each table has.
    pub(crate) written: Vec<u64>,
}

pub(crate) struct Database {
    service: Service,
    written: Vec<u64>,
}

impl Database {
    /// A fresh server with as many outbox tables, empty.
    pub(crate) async fn start(tables: usize) -> Self {
        let settings = ["innodb-buffer-pool-size=1G", "innodb-redo-log-capacity=2G", "max-binlog-size=1G"];
        let service = hold("mysql-9.7", &settings);
        let database = Self { service, written: vec![0; tables] };
        outboxd::migrate(&database, tables);
        let mut conn = database.connect().await;
        conn.query_drop("CREATE USER reader@'%' IDENTIFIED BY ''").await.unwrap();
        conn.query_drop("GRANT REPLICATION SLAVE ON *.* TO reader@'%'").await.unwrap();
        database
    }

    pub(crate) fn port(&self) -> u16 {
        self.service.port()
    }

    pub(crate) async fn connect(&self) -> Conn {
        connect(self.port()).await
    }

    pub(crate) async fn run(&self, sql: &str) {
        self.connect().await.query_drop(sql).await.unwrap();
    }

    pub(crate) async fn version(&self) -> String {
        self.connect().await.query_first("SELECT VERSION()").await.unwrap().unwrap_or_default()
    }

    /// The end of the log now.
    pub(crate) async fn mark(&self) -> Start {
        let row: (String, u64, String, String, String) =
            self.connect().await.query_first("SHOW BINARY LOG STATUS").await.unwrap().unwrap();
        let (file, offset, _, _, gtids) = row;
        Start { gtids: gtids.replace('\n', ""), file, offset, written: self.written.clone() }
    }

    /// Bytes of the log since then.
    pub(crate) async fn log_bytes(&self, since: &Start) -> u64 {
        let files: Vec<mysql_async::Row> = self.connect().await.query("SHOW BINARY LOGS").await.unwrap();
        let sizes = files.iter().map(|row| (row.get::<String, _>(0).unwrap(), row.get::<u64, _>(1).unwrap()));
        sizes.filter(|(file, _)| *file >= since.file).map(|(_, size)| size).sum::<u64>() - since.offset
    }

    /// The numbers that the next `count` events of a table have.
    pub(crate) fn take_numbers(&mut self, table: usize, count: u64) -> std::ops::Range<u64> {
        let from = self.written[table];
        self.written[table] += count;
        from..self.written[table]
    }

    /// Writes the events, each table by a connection of its own, sixteen at a time.
    pub(crate) async fn load(&mut self, workload: &Workload) {
        let mut writers = JoinSet::new();
        for table in 0..workload.tables {
            if writers.len() == 16 {
                writers.join_next().await.unwrap().unwrap();
            }
            let (port, numbers) = (self.port(), self.take_numbers(table, workload.each()));
            writers.spawn(write(port, table, numbers, *workload));
        }
        writers.join_all().await;
    }
}

pub(crate) async fn connect(port: u16) -> Conn {
    let opts = Opts::from_url(&format!("mysql://admin:admin@127.0.0.1:{port}?prefer_socket=false")).unwrap();
    Conn::new(opts).await.unwrap()
}

/// The name of a table, counted from 0.
pub(crate) fn quoted(table: usize) -> String {
    format!("`delivery-outbox{}`", table + 1)
}

async fn write(port: u16, table: usize, numbers: std::ops::Range<u64>, workload: Workload) {
    let mut conn = connect(port).await;
    let mut sql = String::new();
    let mut next = numbers.start;
    while next < numbers.end {
        let end = (next + workload.rows as u64).min(numbers.end);
        // A transaction of large rows takes several statements.
        let whole = workload.rows * (workload.bytes + 150) < STATEMENT;
        if !whole {
            conn.query_drop("BEGIN").await.unwrap();
        }
        while next < end {
            sql.clear();
            insert(table, &mut sql);
            while next < end && sql.len() < STATEMENT {
                write_row(table, next, workload.bytes, &mut sql);
                sql.push(',');
                next += 1;
            }
            sql.pop();
            conn.query_drop(sql.as_str()).await.unwrap();
        }
        if !whole {
            conn.query_drop("COMMIT").await.unwrap();
        }
    }
    conn.disconnect().await.unwrap();
}

/// What stands before rows.
pub(crate) fn insert(table: usize, sql: &mut String) {
    sql.push_str("INSERT INTO `delivery`.");
    sql.push_str(&quoted(table));
    sql.push_str(" (id, aggregatetype, aggregateid, type, payload) VALUES ");
}
