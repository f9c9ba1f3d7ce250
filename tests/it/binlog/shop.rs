//! The harness of these tests: a held server, a session, and a log read from where the test began.

use std::any::Any;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, Weak};
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts};
use outboxd::mysql::MysqlSource;
use outboxd::mysql::connect::Endpoint;
use outboxd::position::{Position, TxnId};
use outboxd::source::{
    BatchBuilder, Fault, ForeignDml, LogEvent, LogSource, LogStream, RowSet, SourceError, Subscription, TableScan,
};
use outboxd::table::TableName;
use tokio::sync::{OnceCell, RwLock, oneshot};
use tokio::time::timeout;

use outboxd::services::Service;

use crate::stage::{PATIENCE, hold, until};

pub(crate) const MYSQL: &str = "mysql-9.7";
pub(crate) const MARIADBS: [&str; 2] = ["mariadb-10.11", "mariadb-11.8"];

/// One server of each name, as long as a test uses it.
static SERVERS: [(&str, OnceCell<Mutex<Weak<Service>>>); 3] =
    [(MYSQL, OnceCell::const_new()), (MARIADBS[0], OnceCell::const_new()), (MARIADBS[1], OnceCell::const_new())];

async fn server(name: &str) -> Arc<Service> {
    let (_, cell) = SERVERS.iter().find(|(known, _)| *known == name).unwrap();
    let weak = cell.get_or_init(|| async { Mutex::new(Weak::new()) }).await;
    let mut weak = weak.lock().unwrap();
    if let Some(service) = weak.upgrade() {
        return service;
    }
    // It has TLS then, with a certificate that it makes itself; the one before it cannot.
    let settings = if name == MARIADBS[1] { &["ssl=1"][..] } else { &[] };
    let service = Arc::new(tokio::task::block_in_place(|| hold(name, settings)));
    *weak = Arc::downgrade(&service);
    service
}

/// Held by every test of a server, alone by those that change what holds for all its sessions.
static SETTINGS: [(&str, LazyLock<Arc<RwLock<()>>>); 3] = [
    (MYSQL, LazyLock::new(Arc::default)),
    (MARIADBS[0], LazyLock::new(Arc::default)),
    (MARIADBS[1], LazyLock::new(Arc::default)),
];

fn settings(name: &str) -> Arc<RwLock<()>> {
    let (_, lock) = SETTINGS.iter().find(|(known, _)| *known == name).unwrap();
    Arc::clone(lock)
}

/// A table of a test, a session, and where the log stood when it began.
pub(crate) struct Shop {
    service: Arc<Service>,
    opts: Opts,
    pub(crate) conn: Conn,
    pub(crate) table: TableName,
    start: Position,
    columns: Arc<[String]>,
    settings: Arc<dyn Any + Send + Sync>,
}

/// What the log said of a test's table.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// Rows of committed transactions, in order; `None` is NULL.
    pub(crate) rows: Vec<Vec<Option<Vec<u8>>>>,
    pub(crate) foreign: Vec<ForeignDml>,
    pub(crate) faults: Vec<Fault>,
    /// The error that ended the stream, if one did.
    pub(crate) error: Option<String>,
    pub(crate) position: Position,
    /// How many events had rows.
    pub(crate) row_events: usize,
}

impl Heard {
    pub(crate) fn texts(&self, column: usize) -> Vec<String> {
        let text = |row: &Vec<Option<Vec<u8>>>| row[column].as_deref().map(String::from_utf8_lossy).map(String::from);
        self.rows.iter().map(|row| text(row).unwrap_or_else(|| "NULL".to_owned())).collect()
    }

    pub(crate) fn fault_names(&self) -> Vec<&'static str> {
        self.faults.iter().map(|fault| fault.name).collect()
    }

    /// Nothing but rows was heard.
    pub(crate) fn is_clean(&self) -> bool {
        self.faults.is_empty() && self.foreign.is_empty() && self.error.is_none()
    }
}

impl Shop {
    /// On the server `name`, with a schema of the test's own and a table `out-box` in it of these columns.
    pub(crate) async fn open(name: &str, test: &str, definition: &str, columns: &[&str]) -> Self {
        let shared = settings(name).read_owned().await;
        Self::open_with(name, test, definition, columns, Arc::new(shared)).await
    }

    /// As [`Shop::open`], while no other test uses the server.
    pub(crate) async fn open_alone(name: &str, test: &str, definition: &str, columns: &[&str]) -> Self {
        let alone = settings(name).write_owned().await;
        Self::open_with(name, test, definition, columns, Arc::new(alone)).await
    }

    /// As [`Shop::open`], on the same server beside this one: to ask for it anew would wait for a test that waits for this.
    pub(crate) async fn beside(&self, name: &str, test: &str, definition: &str, columns: &[&str]) -> Self {
        Self::open_with(name, test, definition, columns, Arc::clone(&self.settings)).await
    }

    async fn open_with(
        name: &str,
        test: &str,
        definition: &str,
        columns: &[&str],
        settings: Arc<dyn Any + Send + Sync>,
    ) -> Self {
        let service = server(name).await;
        let mut conn = connect(&service).await;
        conn.query_drop(format!("CREATE DATABASE `{test}`")).await.unwrap();
        conn.query_drop(format!("USE `{test}`")).await.unwrap();
        let table = TableName::new(test, "out-box");
        conn.query_drop(format!("CREATE TABLE {} ({definition})", table.quoted())).await.unwrap();
        conn.query_drop("CREATE TABLE mark (id BIGINT PRIMARY KEY)").await.unwrap();
        let start = source(opts(&service)).newest().await.unwrap();
        let columns = columns.iter().map(ToString::to_string).collect();
        let opts = opts(&service);
        Self { service, opts, conn, table, start, columns, settings }
    }

    /// Another session.
    pub(crate) async fn session(&self) -> Conn {
        let mut conn = connect(&self.service).await;
        conn.query_drop(format!("USE `{}`", self.table.schema())).await.unwrap();
        conn
    }

    pub(crate) async fn run(&mut self, statements: &[&str]) {
        for statement in statements {
            self.conn.query_drop(*statement).await.unwrap_or_else(|error| panic!("{statement:.200}: {error}"));
        }
    }

    /// Begins to listen here.
    pub(crate) async fn listen_from_now(&mut self) {
        self.start = source(self.opts.clone()).newest().await.unwrap();
    }

    pub(crate) fn listen_from(&mut self, position: Position) {
        self.start = position;
    }

    pub(crate) fn start(&self) -> &Position {
        &self.start
    }

    /// Reads the log up to a mark that is written now.
    pub(crate) async fn hear(&mut self) -> Heard {
        let mark = self.mark().await;
        let (open, _) = oneshot::channel();
        self.heard_up_to(&mark, open).await
    }

    /// As [`Shop::hear`], connected by these options.
    pub(crate) async fn hear_as(&mut self, opts: impl Into<Opts>) -> Heard {
        let shown = std::mem::replace(&mut self.opts, opts.into());
        let heard = self.hear().await;
        self.opts = shown;
        heard
    }

    /// The files of the log, whole: the server goes on in another.
    pub(crate) async fn files(&mut self) -> Vec<PathBuf> {
        self.run(&["FLUSH BINARY LOGS"]).await;
        let logs: Vec<mysql_async::Row> = self.conn.query("SHOW BINARY LOGS").await.unwrap();
        let (_, whole) = logs.split_last().unwrap();
        let data = self.service.dir().join("data");
        whole.iter().map(|row| data.join(row.get::<String, _>(0).unwrap())).collect()
    }

    /// How to connect as the administrator.
    pub(crate) fn opts(&self) -> &Opts {
        &self.opts
    }

    /// Opens the log, then runs the statements, and reads up to their end.
    pub(crate) async fn hear_while(&mut self, statements: &[&str]) -> Heard {
        let mark = fastrand::u32(..).to_string();
        let (open, opened) = oneshot::channel();
        let hearing = tokio::spawn(self.heard_up_to(&mark, open));
        opened.await.unwrap();
        self.run(statements).await;
        self.run(&[&format!("INSERT INTO mark VALUES ({mark})")]).await;
        hearing.await.unwrap()
    }

    /// Where the table starts when it is read itself.
    pub(crate) async fn snapshot(&self) -> Position {
        // Other tests of the server prepare transactions, which a start waits for.
        let mut started = None;
        until("nothing is prepared", async || {
            started = source(self.opts.clone()).snapshot(&self.subscription()).await.ok();
            started.is_some()
        })
        .await;
        started.unwrap()
    }

    fn subscription(&self) -> Subscription {
        Subscription { table: self.table.clone(), columns: Arc::clone(&self.columns) }
    }

    /// The rows of the table, read themselves from the beginning, one by one.
    pub(crate) async fn scanned(&self) -> Vec<Vec<Option<Vec<u8>>>> {
        let mut position = self.snapshot().await;
        let mut rows = Vec::new();
        while position.scan.is_some() {
            rows.extend(self.scan(&mut position, 1).await);
        }
        rows
    }

    /// Opens the table at the position, and reads so many steps of about a row or two, or all of them.
    pub(crate) async fn scan(&self, position: &mut Position, steps: usize) -> Vec<Vec<Option<Vec<u8>>>> {
        let subscription = self.subscription();
        let reading = async {
            let saved = position.to_string().parse().unwrap();
            let mut scan = source(self.opts.clone()).scan(&saved, &subscription, 1 << 20).await.unwrap();
            let mut rows = Vec::new();
            for _ in 0..steps {
                let mut batch = BatchBuilder::new(subscription.columns.len());
                let bytes = if steps == 1 { 1 } else { 10_000 };
                position.scan = scan.fill(&mut batch, bytes).await.unwrap().map(Box::new);
                let batch = batch.take(Arc::new(Position::default()));
                let row = |row: outboxd::source::Row<'_>| {
                    (0..subscription.columns.len()).map(|column| row.get(column).map(<[u8]>::to_vec)).collect()
                };
                rows.extend(batch.rows().map(row));
                if position.scan.is_none() {
                    break;
                }
            }
            rows
        };
        timeout(PATIENCE, reading).await.expect("the table is read in time")
    }

    async fn mark(&mut self) -> String {
        let mark = fastrand::u32(..).to_string();
        let mut session = self.session().await;
        session.query_drop(format!("INSERT INTO mark VALUES ({mark})")).await.unwrap();
        mark
    }

    fn heard_up_to(&self, mark: &str, open: oneshot::Sender<()>) -> impl Future<Output = Heard> + Send + 'static {
        let marks = TableName::new(self.table.schema(), "mark");
        let marks = Subscription { table: marks, columns: Arc::new(["id".to_owned()]) };
        let outbox = Subscription { table: self.table.clone(), columns: Arc::clone(&self.columns) };
        let (mut source, start, mark) = (source(self.opts.clone()), self.start.clone(), mark.to_owned());
        async move {
            let subscriptions = [outbox, marks];
            let hearing = hear(&mut source, &start, &subscriptions, &mark, open);
            timeout(PATIENCE, hearing).await.expect("the log says it in time")
        }
    }
}

fn source(opts: Opts) -> MysqlSource {
    let endpoint = Endpoint::new(opts, Duration::from_secs(10));
    MysqlSource::new(endpoint, fastrand::u32(1000..0x3fff_ffff), Duration::from_secs(1), Duration::from_secs(20))
}

/// Held rows of one transaction, as the relay's assembler holds them.
#[derive(Default)]
struct Held {
    rows: Vec<Vec<Option<Vec<u8>>>>,
    savepoints: Vec<(String, usize)>,
    marked: bool,
}

async fn hear(
    source: &mut MysqlSource,
    from: &Position,
    subscriptions: &[Subscription],
    last: &str,
    open: oneshot::Sender<()>,
) -> Heard {
    let mut heard = Heard { position: from.clone(), ..Heard::default() };
    let mut stream = match source.open(from, subscriptions).await {
        Ok(stream) => stream,
        Err(error) => return Heard { error: Some(error.to_string()), ..heard },
    };
    let mut open = Some(open);
    let mut held = Held::default();
    let mut prepared: Vec<(String, Held)> = Vec::new();
    let mut marked = false;
    while !marked {
        let event = match stream.next().await {
            Ok(event) => {
                // The server says first which file it reads; until then it may not have begun.
                open.take().map(|open| open.send(()));
                event
            }
            Err(SourceError::Transient(reason)) if reason.contains("defined anew") => {
                stream = source.open(&heard.position.clone(), subscriptions).await.unwrap();
                held = Held::default();
                continue;
            }
            Err(error) => {
                heard.error = Some(error.to_string());
                return heard;
            }
        };
        match event {
            LogEvent::Begin { txn, .. } => {
                held = Held::default();
                assert!(!matches!(txn, TxnId::File(_)) || from.point.kind() == "file");
            }
            LogEvent::Rows { slot, rows } => {
                let mut batch = BatchBuilder::new(subscriptions[slot].columns.len());
                if let Err(fault) = rows.append_to(&mut batch) {
                    heard.faults.push(fault);
                    continue;
                }
                let batch = batch.take(Arc::new(Position::default()));
                if slot == 1 {
                    held.marked |= batch.rows().any(|row| row.get(0) == Some(last.as_bytes()));
                    continue;
                }
                heard.row_events += 1;
                let row = |row: outboxd::source::Row<'_>| {
                    (0..subscriptions[0].columns.len()).map(|column| row.get(column).map(<[u8]>::to_vec)).collect()
                };
                held.rows.extend(batch.rows().map(row));
            }
            LogEvent::Foreign { slot: 0, kind } => heard.foreign.push(kind),
            LogEvent::Savepoint { name } => held.savepoints.push((name, held.rows.len())),
            LogEvent::RollbackTo { name } => {
                let (_, rows) = held.savepoints.iter().rfind(|(known, _)| *known == name).unwrap();
                held.rows.truncate(*rows);
            }
            LogEvent::Prepare { xid } => prepared.push((xid, std::mem::take(&mut held))),
            LogEvent::Settle { xid, commit } => {
                let at = prepared.iter().position(|(known, _)| *known == xid).unwrap();
                let (_, rows) = prepared.remove(at);
                if commit {
                    held.rows.extend(rows.rows);
                }
            }
            LogEvent::Commit => {
                heard.rows.append(&mut held.rows);
                marked = held.marked;
            }
            LogEvent::Fault { slot: None | Some(0), fault } => heard.faults.push(fault),
            LogEvent::Fault { .. }
            | LogEvent::Foreign { .. }
            | LogEvent::Rollback
            | LogEvent::XaStart
            | LogEvent::Progress => {}
        }
        heard.position = stream.position().clone();
    }
    heard
}

fn opts(service: &Service) -> Opts {
    Opts::from_url(&format!("mysql://admin:admin@127.0.0.1:{}", service.port())).unwrap()
}

async fn connect(service: &Service) -> Conn {
    Conn::new(opts(service)).await.unwrap()
}
