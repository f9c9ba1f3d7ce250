//! One round: servers, a daemon, writers at load, faults, and the verdict.

use std::collections::HashMap;
use std::fmt;
use std::fmt::Write as _;
use std::time::Duration;

use clap::ValueEnum;
use fastrand::Rng;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, Row};
use outboxd::planted::Bug;
use outboxd::position::Position;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::clock::Clock;
use super::faults::{Change, Fault, Line};
use super::summary::Summary;
use crate::account;
use crate::daemon::Daemon;
use crate::exactly_once::exactly_once;
use crate::proxy::Proxy;
use crate::stage::{Stage, Writing, until};

/// Events that may be published and not covered, for each table.
const MAX_UNSAVED: u64 = 200;

/// Events that fit into a batch, which is published whole.
const BATCH: u64 = 100;

/// The most memory that the daemon may take.
const MEMORY: u64 = 256 << 20;

/// What a seed makes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) exactly_once: bool,
    /// The server, by its number.
    pub(super) server: u8,
    /// The tables have rows that the log has lost.
    pub(super) snapshot: bool,
    pub(super) faults: u32,
    pub(super) bug: Option<Bug>,
}

impl Plan {
    pub(super) fn of(seed: u64, exactly_once: Option<bool>) -> Self {
        let mut rng = Rng::with_seed(seed);
        let drawn = rng.bool();
        let (server, snapshot, faults) = (rng.u8(0..4), rng.u8(0..3) == 0, rng.u32(5..10));
        Self { seed, exactly_once: exactly_once.unwrap_or(drawn), server, snapshot, faults, bug: None }
    }

    fn server(&self) -> &'static str {
        ["MySQL 9.7", "MySQL 9.7 without GTIDs", "MariaDB 10.11", "MariaDB 11.8"][usize::from(self.server)]
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guarantee = if self.exactly_once { "exactly once" } else { "at least once" };
        let start = if self.snapshot { "snapshot" } else { "earliest" };
        write!(f, "{guarantee}, {}, start {start}, {} faults", self.server(), self.faults)
    }
}

/// What happened when; printed if the round fails.
struct Timeline {
    plan: Plan,
    begun: Instant,
    text: String,
}

impl Timeline {
    fn tell(&mut self, what: &str) {
        let _ = writeln!(self.text, "{:>8.3} s  {what}", self.begun.elapsed().as_secs_f64());
    }
}

impl Drop for Timeline {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("CHAOS_SEED={} {}\n{}", self.plan.seed, self.plan, self.text);
        }
    }
}

/// A round under way.
pub(super) struct Round {
    timeline: Timeline,
    plan: Plan,
    rng: Rng,
    stage: Stage,
    mysql: Proxy,
    kafka: Proxy,
    clock: Clock,
    daemon: Option<Daemon>,
    /// Beside the one that counts.
    other: Option<Daemon>,
    /// Whether a daemon that is frozen had its tables.
    owned: bool,
    /// Where its configuration is.
    folder: TempDir,
    /// Holds the lock on the table of positions.
    locked: Option<Conn>,
    writing: Writing,
    watch: Watch,
    summary: Summary,
}

impl Round {
    /// Servers, tables and writers.
    pub(super) async fn begin(plan: Plan) -> Self {
        let kafka = Proxy::ahead().await;
        let setup = match plan.server {
            0 => Stage::of(),
            1 => Stage::of().without_gtids(),
            2 => Stage::of().server("mariadb-10.11"),
            _ => Stage::of().server("mariadb-11.8"),
        };
        let setup = setup
            .own_kafka()
            .kafka_setting(format!("advertised.listeners=PLAINTEXT://127.0.0.1:{}", kafka.port()))
            .set("RELAY__MAX_UNSAVED_EVENTS", &MAX_UNSAVED.to_string())
            .set("RELAY__BATCH_BYTES", "16 KiB")
            .set("RELAY__QUEUE_BYTES", "64 KiB")
            .set("RELAY__TRANSACTION_HOLD_BYTES", "1 KiB")
            .set("RELAY__CHECKPOINT_INTERVAL", "50ms")
            .set("RELAY__RETRY_MAX", "500ms")
            .set("MYSQL__HEARTBEAT", "300ms")
            .set("MYSQL__SILENCE_DEADLINE", "2s")
            .set("MYSQL__CONNECT_TIMEOUT", "2s")
            .set("KAFKA__CREATE_TOPICS", "true");
        let setup = if plan.exactly_once { exactly_once(setup) } else { setup };
        let stage = setup.servers().await;
        kafka.lead_to(stage.kafka_port());
        stage.create_topic().await;
        stage.migrate();
        let mysql = Proxy::to(stage.mysql.port()).await;
        let writing = stage.write_in_bulk(plan.seed).await;
        if plan.snapshot {
            writing.more(1_000).await;
            stage.sql(["FLUSH BINARY LOGS"]).await;
            stage.purge().await;
        }
        let mut round = Self {
            timeline: Timeline { plan, begun: Instant::now(), text: String::new() },
            plan,
            rng: Rng::with_seed(plan.seed ^ 0x5eed),
            mysql,
            kafka,
            clock: Clock::new(),
            daemon: None,
            other: None,
            owned: false,
            folder: tempfile::tempdir().unwrap(),
            locked: None,
            writing,
            watch: Watch::over(stage.opts(), plan.exactly_once),
            summary: Summary::default(),
            stage,
        };
        round.configure(None);
        round.daemon = Some(round.spawn());
        round
    }

    /// Writes what the daemon is to relay, in another way or as it was.
    fn configure(&self, change: Option<Change>) {
        let limits = if change == Some(Change::Limits) {
            "[relay]\nidle_checkpoint_interval = \"1s\"\n[delivery]\ncommit_events = 20\n"
        } else {
            ""
        };
        let last = if change == Some(Change::Table) { 3 } else { 4 };
        let start = if self.plan.snapshot { "snapshot" } else { "earliest" };
        let headers = if change == Some(Change::Header) { "columns.headers = [\"aggregatetype\"]\n" } else { "" };
        let topic = &self.stage.topic;
        let tables = format!("tables = \"delivery.delivery-outbox{{1..{last}}}\"\ntopic = \"{topic}\"");
        let text = format!("{limits}[[outbox]]\n{tables}\nstart = \"{start}\"\n{headers}");
        std::fs::write(self.folder.path().join("outboxd.toml"), text).unwrap();
    }

    /// Waits until the daemon has taken over the configuration as it was.
    async fn taken_over(&mut self) {
        let daemon = self.daemon.as_ref().expect("a daemon runs");
        daemon.logs("admin_listening").await;
        let reloads = || daemon.log().matches("configuration_reloaded").count();
        let before = reloads();
        until("the configuration is taken over", async || {
            // It refuses while a server is away.
            daemon.signal("HUP");
            sleep(Duration::from_millis(200)).await;
            let tables = daemon.page("/api/v1/tables").map(|(_, body)| body.matches("\"table\":").count());
            reloads() > before && tables == Some(4)
        })
        .await;
    }

    fn spawn(&mut self) -> Daemon {
        self.summary.starts += 1;
        let mut command = self.stage.outboxd_of(&self.folder.path().join("outboxd.toml"), &["run"]);
        command
            .env("OUTBOXD__MYSQL__URL", account::url(self.mysql.port()))
            .env("OUTBOXD__KAFKA__BOOTSTRAP_SERVERS", format!("127.0.0.1:{}", self.kafka.port()));
        if let Some(bug) = self.plan.bug.and_then(|bug| bug.to_possible_value()) {
            command.env("OUTBOXD_PLANTED_BUG", bug.get_name());
        }
        self.clock.rule(&mut command);
        Daemon::spawn(&command)
    }

    fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().expect("a daemon runs")
    }

    /// What a daemon that ends has to tell.
    fn note(&mut self, daemon: &Daemon) {
        self.summary.restarts += beginnings(daemon);
        if let Some(peak) = daemon.try_peak_memory() {
            self.summary.peak_memory = self.summary.peak_memory.max(peak);
        }
    }

    fn kill(&mut self, daemon: Daemon) {
        self.note(&daemon);
        daemon.kill();
    }

    /// Faults, recoveries, and the verdict.
    pub(super) async fn play(mut self) -> Summary {
        for _ in 0..self.plan.faults {
            let pause = Duration::from_millis(self.rng.u64(0..1_500));
            sleep(pause).await;
            let fault = Fault::draw(&mut self.rng, self.plan.exactly_once);
            let lasts = fault.duration(&mut self.rng);
            let beside = Some(Fault::draw(&mut self.rng, self.plan.exactly_once));
            let beside = beside.filter(|beside| self.rng.u8(0..3) == 0 && fault.goes_with(*beside));
            self.start(fault).await;
            if let Some(beside) = beside {
                let lasts = beside.duration(&mut self.rng);
                self.start(beside).await;
                sleep(lasts).await;
                if !beside.ends_with_servers() {
                    self.end(beside).await;
                }
            }
            sleep(lasts).await;
            self.end(fault).await;
            if let Some(beside) = beside.filter(|beside| beside.ends_with_servers()) {
                self.end(beside).await;
            }
            if self.rng.bool() {
                self.recovered(fault).await;
            }
        }
        self.judge().await
    }

    async fn start(&mut self, fault: Fault) {
        self.timeline.tell(&format!("{fault}"));
        self.summary.fault(fault.kind());
        match fault {
            Fault::RelayKilled => {
                let daemon = self.daemon.take().expect("a daemon runs");
                self.kill(daemon);
            }
            Fault::RelayRestarted => self.daemon().signal("TERM"),
            Fault::RelayFrozen => self.daemon().signal("STOP"),
            Fault::RelayReplaced => {
                self.owned = self.daemon().page("/readyz").is_some_and(|(status, _)| status == 200);
                self.daemon().signal("STOP");
                self.other = Some(self.spawn());
            }
            Fault::SecondRelay => self.other = Some(self.spawn()),
            Fault::ClockJump(seconds) => self.clock.jump(seconds),
            Fault::Reloaded(change) => {
                self.configure(Some(change));
                // Before its first words, a signal does what the system does with it.
                if self.daemon().log().contains("admin_listening") {
                    self.daemon().signal("HUP");
                }
            }
            Fault::MysqlKilled => self.stage.mysql.tell("kill").unwrap(),
            Fault::MysqlFrozen => self.stage.mysql.tell("pause").unwrap(),
            Fault::KafkaKilled => self.stage.kafka().tell("kill").unwrap(),
            Fault::KafkaFrozen => self.stage.kafka().tell("pause").unwrap(),
            Fault::Cut(line) => self.line(line).cut(),
            Fault::HalfOpen(line) => self.line(line).freeze(),
            Fault::Slow(line, millis) => self.line(line).delay(Duration::from_millis(millis.into())),
            Fault::Throttled(line, rate) => self.line(line).throttle(rate),
            Fault::Damaged(millis) => {
                self.kafka.delay(Duration::from_millis(millis.into()));
                self.kafka.damage();
            }
            Fault::ConnectionsKilled => self.end_connections().await,
            Fault::LogRotated => self.stage.sql(["FLUSH BINARY LOGS"]).await,
            Fault::StoreLocked => {
                let mut conn = self.stage.connect().await;
                conn.query_drop("LOCK TABLES outboxd.outboxd_positions WRITE").await.unwrap();
                self.locked = Some(conn);
            }
            Fault::StoreFull => {
                let full = "CREATE TRIGGER outboxd.full BEFORE UPDATE ON outboxd.outboxd_positions FOR EACH ROW SIGNAL SQLSTATE \
                            'HY000' SET MYSQL_ERRNO = 1114, MESSAGE_TEXT = 'The table ''outboxd_positions'' is full'";
                self.stage.sql([full]).await;
            }
        }
    }

    async fn end(&mut self, fault: Fault) {
        match fault {
            Fault::RelayKilled => self.daemon = Some(self.spawn()),
            Fault::RelayRestarted => {
                let mut daemon = self.daemon.take().expect("a daemon runs");
                daemon.ended().await;
                self.note(&daemon);
                self.daemon = Some(self.spawn());
            }
            Fault::RelayFrozen => self.daemon().signal("CONT"),
            Fault::RelayReplaced if self.owned => {
                let mut zombie = self.daemon.take().expect("a daemon runs");
                self.daemon = self.other.take();
                self.daemon().ready().await;
                zombie.signal("CONT");
                // The commits of what its heir publishes tell it, or the server at its next one.
                assert_eq!(zombie.ended().await, Some(1), "a zombie halts: {}", zombie.log());
                self.note(&zombie);
            }
            // One that was frozen before it had its tables takes them when it wakes up.
            Fault::RelayReplaced | Fault::SecondRelay => {
                // Whichever has the tables now, and whether the other is gone already.
                for daemon in [self.other.take(), self.daemon.take()].into_iter().flatten() {
                    self.kill(daemon);
                }
                self.daemon = Some(self.spawn());
            }
            Fault::ClockJump(_) => self.clock.jump(0),
            Fault::Reloaded(_) => {
                self.configure(None);
                self.taken_over().await;
            }
            Fault::MysqlKilled => self.stage.mysql.tell("start").unwrap(),
            Fault::MysqlFrozen => self.stage.mysql.tell("resume").unwrap(),
            Fault::KafkaKilled => self.stage.kafka().tell("start").unwrap(),
            Fault::KafkaFrozen => self.stage.kafka().tell("resume").unwrap(),
            Fault::Cut(_) | Fault::ConnectionsKilled | Fault::LogRotated => {}
            Fault::HalfOpen(line) | Fault::Slow(line, _) | Fault::Throttled(line, _) => self.line(line).thaw(),
            Fault::Damaged(_) => self.kafka.thaw(),
            Fault::StoreLocked => drop(self.locked.take()),
            Fault::StoreFull => self.stage.sql(["DROP TRIGGER outboxd.full"]).await,
        }
        self.timeline.tell(&format!("  {fault} is over"));
    }

    fn line(&self, line: Line) -> &Proxy {
        match line {
            Line::Mysql => &self.mysql,
            Line::Kafka => &self.kafka,
        }
    }

    /// Every connection ends, those of the writers too, as by a server that runs out of patience.
    async fn end_connections(&self) {
        let mut conn = self.stage.connect().await;
        // The server's own threads are not of this account; what the connections do may be unfit to show.
        let all: Vec<Row> = conn.query("SHOW PROCESSLIST").await.unwrap();
        let ours = all.iter().filter(|row| row.get::<String, _>("User").is_some_and(|user| user == account::USER));
        let own = u64::from(conn.id());
        for id in ours.filter_map(|row| row.get::<u64, _>("Id")).filter(|id| *id != own) {
            // Some have ended by themselves.
            let _ = conn.query_drop(format!("KILL {id}")).await;
        }
    }

    /// Waits until every table is relayed as fast as it is written, and notes how long that took.
    async fn recovered(&mut self, fault: Fault) {
        let since = Instant::now();
        let daemon = self.daemon.as_ref().expect("a daemon runs");
        let before = daemon.try_metric("outboxd_events_total").unwrap_or(0.0);
        let what = format!("it recovers from {fault}");
        until(&what, async || {
            daemon.page("/readyz").is_some_and(|(status, _)| status == 200)
                && daemon.try_metric("outboxd_events_total").is_some_and(|events| events > before + 20.0)
                && daemon.try_metric("outboxd_lag_seconds").is_some_and(|lag| lag < 1.0)
        })
        .await;
        let took = since.elapsed();
        self.timeline.tell(&format!("  recovered in {:.3} s", took.as_secs_f64()));
        self.summary.recoveries.push(took);
    }

    async fn judge(mut self) -> Summary {
        self.timeline.tell("the faults are over");
        self.writing.more(100).await;
        let journal = self.writing.stop().await;
        let daemon = self.daemon.take().expect("a daemon runs");
        self.stage.verdict(&journal).await;
        self.summary.restarts += beginnings(&daemon);
        let peak = daemon.peak_memory();
        self.summary.peak_memory = self.summary.peak_memory.max(peak);
        self.timeline.tell("every event has arrived");
        let verdict = self.stage.judge(&journal, daemon).await;
        self.watch.end().await;
        self.timeline.tell("judged");
        let bound = if self.plan.exactly_once {
            0
        } else {
            let tables = self.stage.outboxes.len() as u64;
            (self.summary.starts * tables + self.summary.restarts) * (MAX_UNSAVED + BATCH)
        };
        assert!(verdict.total.duplicates <= bound, "R4: at most {bound} duplicates: {verdict}");
        assert!(self.summary.peak_memory < MEMORY, "R5: {} bytes", self.summary.peak_memory);
        self.summary.rounds = 1;
        self.summary.events = verdict.total.committed;
        self.summary.duplicates = verdict.total.duplicates;
        self.summary.bound = bound;
        self.summary
    }
}

/// How often relays of a daemon have begun again.
fn beginnings(daemon: &Daemon) -> u64 {
    let log = daemon.log();
    [" relay_restarts ", " relay_renewed ", " relay_left "].iter().map(|event| log.matches(event).count() as u64).sum()
}

/// Looks at every position that is saved: R3.
struct Watch {
    stop: CancellationToken,
    task: Option<AbortOnDropHandle<()>>,
}

impl Watch {
    fn over(server: Opts, in_kafka: bool) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = (!in_kafka).then(|| AbortOnDropHandle::new(tokio::spawn(watch(server, stopped))));
        Self { stop, task }
    }

    async fn end(&mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            task.await.unwrap();
        }
    }
}

async fn watch(server: Opts, stop: CancellationToken) {
    let mut seen: HashMap<String, Position> = HashMap::new();
    while !stop.is_cancelled() {
        sleep(Duration::from_millis(100)).await;
        let look = async {
            let mut conn = Conn::new(server.clone()).await.ok()?;
            let rows: Vec<(String, Option<String>)> =
                conn.query("SELECT table_name, position FROM outboxd.outboxd_positions").await.ok()?;
            let _ = conn.disconnect().await;
            Some(rows)
        };
        // A frozen server answers later, or not at all.
        let Some(Some(rows)) = stop.run_until_cancelled(look).await else { continue };
        for (table, position) in rows {
            let Some(position) = position else { continue };
            let position: Position = position.parse().unwrap();
            let before = seen.insert(table.clone(), position.clone());
            let forwards = before.as_ref().is_none_or(|before| *before <= position);
            assert!(forwards, "R3: {table} is at {position} after {before:?}");
        }
    }
}
