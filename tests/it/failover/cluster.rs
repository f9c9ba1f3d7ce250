//! Several servers that replicate, and a name that leads writers to the primary.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts};
use outboxd::history::{Journal, Outcome, Verdict};
use outboxd::services::{Front, Service};

use crate::account;
use crate::daemon::Daemon;
use crate::stage::{Setup, Stage, Writing, hold, until};

/// Servers 0, 1, …, of which 0 is the primary and the others replicate from it.
pub(super) struct Cluster {
    pub(super) stage: Stage,
    others: Vec<Service>,
    front: Front,
    primary: Arc<AtomicU16>,
    mariadb: bool,
}

pub(super) fn opts(port: u16) -> Opts {
    // The driver would go on over the server's socket, past the name that moves.
    Opts::from_url(&format!("mysql://admin:admin@127.0.0.1:{port}?prefer_socket=false")).unwrap()
}

impl Cluster {
    /// With so many replicas of MySQL.
    pub(super) async fn mysql(setup: Setup, replicas: usize, settings: &'static [&'static str]) -> Self {
        Self::of("mysql-9.7", setup, replicas, settings).await
    }

    /// With so many replicas of a `MariaDB`.
    pub(super) async fn mariadb(server: &'static str, setup: Setup, replicas: usize) -> Self {
        Self::of(server, setup.grant("SLAVE MONITOR ON *.*"), replicas, &["log_slave_updates=ON"]).await
    }

    async fn of(server: &'static str, setup: Setup, replicas: usize, settings: &'static [&'static str]) -> Self {
        let cluster = Self::apart(server, setup, replicas, settings).await;
        for replica in 1..=replicas {
            cluster.follow(replica, 0).await;
        }
        cluster.stage.create_topic().await;
        cluster.stage.migrate();
        cluster
    }

    /// So many members of MySQL, which are not a group yet.
    pub(super) async fn group(setup: Setup, members: usize, settings: &'static [&'static str]) -> Self {
        Self::apart("mysql-9.7", setup, members - 1, settings).await
    }

    async fn apart(server: &'static str, setup: Setup, replicas: usize, settings: &'static [&'static str]) -> Self {
        let setup = settings.iter().fold(setup.server(server), |setup, setting| setup.setting(*setting));
        let stage = setup.servers().await;
        let more = tokio::task::spawn_blocking(move || (0..replicas).map(|_| hold(server, settings)).collect());
        let others: Vec<Service> = more.await.unwrap();
        for other in &others {
            account::create(other, &stage.outboxes, &stage.grants).await;
        }
        let front = Front::before(stage.mysql.port()).await.unwrap();
        let mariadb = server.starts_with("mariadb");
        Self { stage, others, front, primary: Arc::default(), mariadb }
    }

    fn service(&mut self, server: usize) -> &mut Service {
        if server == 0 { &mut self.stage.mysql } else { &mut self.others[server - 1] }
    }

    pub(super) fn port(&self, server: usize) -> u16 {
        if server == 0 { self.stage.mysql.port() } else { self.others[server - 1].port() }
    }

    pub(super) fn tell(&mut self, server: usize, command: &str) {
        self.service(server).tell(command).unwrap();
    }

    pub(super) async fn connect(&self, server: usize) -> Conn {
        Conn::new(opts(self.port(server))).await.unwrap()
    }

    /// Runs statements on one server.
    pub(super) async fn sql<S: AsRef<str>>(&self, server: usize, statements: impl IntoIterator<Item = S>) {
        let mut conn = self.connect(server).await;
        for sql in statements {
            conn.query_drop(sql.as_ref()).await.unwrap_or_else(|error| panic!("{}: {error}", sql.as_ref()));
        }
        conn.disconnect().await.unwrap();
    }

    /// The first column of the first row.
    pub(super) async fn ask(&self, server: usize, question: &str) -> String {
        let row: Option<mysql_async::Row> = self.connect(server).await.query_first(question).await.unwrap();
        row.and_then(|mut row| row.take::<Option<String>, _>(0).flatten()).unwrap_or_default()
    }

    /// A value of the one replication channel.
    async fn channel(&self, server: usize, name: &str) -> String {
        let status = if self.mariadb { "SHOW SLAVE STATUS" } else { "SHOW REPLICA STATUS" };
        let row: Option<mysql_async::Row> = self.connect(server).await.query_first(status).await.unwrap();
        row.and_then(|row| row.get::<Option<String>, _>(name).flatten()).unwrap_or_default()
    }

    /// Makes a server a read-only replica of another; of `MariaDB`, one that was a primary too.
    pub(super) async fn follow(&self, replica: usize, source: usize) {
        let port = self.port(source);
        if self.mariadb {
            let demoted = !self.ask(replica, "SELECT @@gtid_binlog_pos").await.is_empty();
            let demote = if demoted { ", MASTER_DEMOTE_TO_SLAVE=1" } else { "" };
            self.sql(replica, [
                "SET GLOBAL read_only = ON".to_owned(),
                "STOP SLAVE".to_owned(),
                format!(
                    "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='admin', MASTER_PASSWORD='admin', \
                     MASTER_CONNECT_RETRY=1, MASTER_SSL=0, MASTER_USE_GTID=slave_pos{demote}"
                ),
                "START SLAVE".to_owned(),
            ])
            .await;
        } else {
            self.sql(replica, [
                "SET GLOBAL super_read_only = ON".to_owned(),
                "STOP REPLICA".to_owned(),
                format!(
                    "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={port}, SOURCE_USER='admin', \
                     SOURCE_PASSWORD='admin', SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1, SOURCE_CONNECT_RETRY=1"
                ),
                "START REPLICA".to_owned(),
            ])
            .await;
        }
    }

    /// Waits until a server has everything that another has committed.
    pub(super) async fn caught_up(&self, server: usize, with: usize) {
        let wait = if self.mariadb {
            format!("SELECT MASTER_GTID_WAIT('{}', 60)", self.ask(with, "SELECT @@gtid_binlog_pos").await)
        } else {
            format!(
                "SELECT WAIT_FOR_EXECUTED_GTID_SET('{}', 60)",
                self.ask(with, "SELECT @@GLOBAL.gtid_executed").await
            )
        };
        assert_eq!(self.ask(server, &wait).await, "0", "{server} catches up with {with}");
    }

    /// Waits until a replica has applied all that it has received.
    pub(super) async fn applied(&self, replica: usize) {
        let stopped = if self.mariadb { "STOP SLAVE IO_THREAD" } else { "STOP REPLICA IO_THREAD" };
        self.sql(replica, [stopped]).await;
        let state = if self.mariadb { "Slave_SQL_Running_State" } else { "Replica_SQL_Running_State" };
        until("the relay log is applied", async || {
            let state = self.channel(replica, state).await;
            state.contains("has read all relay log")
        })
        .await;
    }

    /// Makes a replica a primary, and leads the writers to it.
    pub(super) async fn promote(&self, replica: usize) {
        let statements: &[&str] = if self.mariadb {
            &["STOP SLAVE", "RESET SLAVE ALL", "SET GLOBAL read_only = OFF"]
        } else {
            &["STOP REPLICA", "RESET REPLICA ALL", "SET GLOBAL super_read_only = OFF", "SET GLOBAL read_only = OFF"]
        };
        self.sql(replica, statements).await;
        self.lead_to(replica);
    }

    /// Leads the writers to a server that is the primary.
    pub(super) fn lead_to(&self, replica: usize) {
        self.primary.store(u16::try_from(replica).unwrap(), Relaxed);
        self.front.lead_to(self.port(replica));
    }

    /// A planned switchover: no more writes, everything replicated, roles exchanged.
    pub(super) async fn switch_over(&self, from: usize, to: usize) {
        let read_only = if self.mariadb { "SET GLOBAL read_only = ON" } else { "SET GLOBAL super_read_only = ON" };
        self.sql(from, [read_only]).await;
        if self.mariadb {
            // The writers may write to a read-only server.
            self.front.lead_to(1);
            until("nothing is written any more", async || {
                let before = self.ask(from, "SELECT @@gtid_binlog_pos").await;
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                before == self.ask(from, "SELECT @@gtid_binlog_pos").await
            })
            .await;
        }
        self.caught_up(to, from).await;
        self.promote(to).await;
        self.follow(from, to).await;
    }

    pub(super) fn front(&self) -> u16 {
        self.front.port()
    }

    /// Writers that follow the primary.
    pub(super) async fn write(&self, seed: u64) -> Writing {
        self.stage.write_to(opts(self.front.port()), seed).await
    }

    /// The daemon on these servers, in this order, with further keys.
    pub(super) fn run(&self, servers: &[usize], keys: &[(&str, &str)]) -> Daemon {
        let url = account::url(self.port(servers[0]));
        let others: Vec<_> =
            servers[1..].iter().map(|server| format!("\"127.0.0.1:{}\"", self.port(*server))).collect();
        let others = format!("[{}]", others.join(", "));
        let ours = [("MYSQL__URL", url.as_str()), ("MYSQL__ADDRESSES", &others), ("MYSQL__HEARTBEAT", "300ms")];
        self.stage.run_with(&[&ours[..], keys].concat())
    }

    /// The ids of all events in the outbox tables of a server.
    async fn ids(&self, server: usize) -> HashSet<String> {
        let mut conn = self.connect(server).await;
        let mut ids = HashSet::new();
        for table in &self.stage.outboxes {
            ids.extend(conn.query::<String, _>(format!("SELECT id FROM {}", table.quoted())).await.unwrap());
        }
        ids
    }

    /// The journal as it is after a failover: what the new primary has must have been delivered; what only a lost primary
    /// had may have been.
    pub(super) async fn history(&self, journal: &Journal, lost_primary: Option<usize>) -> Journal {
        let now = self.ids(self.primary.load(Relaxed).into()).await;
        let before = match lost_primary {
            Some(server) => self.ids(server).await,
            None => HashSet::new(),
        };
        let all = self.stage.records().await;
        let delivered: HashSet<&str> = all.iter().map(|record| &*record.event_id).collect();
        let mut history = Journal::default();
        for transaction in journal.transactions() {
            let mut transaction = transaction.clone();
            for event in &mut transaction.events {
                let id = &*event.id;
                event.kept = now.contains(id) || (before.contains(id) && delivered.contains(id));
            }
            if transaction.kept().next().is_some() {
                transaction.outcome = Outcome::Committed;
            }
            history.record(transaction);
        }
        history
    }

    /// The ending of most tests: every event of the new primary arrives, and nothing that nobody committed.
    pub(super) async fn judge(&self, journal: &Journal, lost_primary: Option<usize>, daemon: Daemon) -> Verdict {
        // What is there must arrive; then what was lost and has arrived is known.
        self.stage.verdict(&self.history(journal, None).await).await;
        self.stage.judge(&self.history(journal, lost_primary).await, daemon).await
    }
}
