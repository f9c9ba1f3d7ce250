//! Whole daemons over memory, under random troubles, judged after every step. A seed makes a run, the same every time.
//!
//! `OUTBOXD_SIMULATION_SEED=N` runs one seed and tells what it does; `OUTBOXD_SIMULATION_SEEDS=N` runs that many.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use bytesize::ByteSize;
use clap::ValueEnum;
use fastrand::Rng;

use super::stage::{Process, Stage, pass};
use super::*;
use crate::outbox::OnPoison;
use crate::outlet::DeliveryError;
use crate::planted::{self, Bug};
use crate::position::{Aggregate, Pause};
use crate::relay::control::Order;
use crate::relay::stats::State;
use crate::source::{ForeignDml, SourceError};
use crate::testing::log::{Insert, MemoryLog, Step, Terms};

const TABLES: usize = 3;
const PARTITIONS: usize = 3;

/// Runs, if nothing else is asked for.
const SEEDS: u64 = 200;

/// A committed row of one table, in commit order.
struct Row {
    id: String,
    key: String,
    txn: u64,
    /// Its place among the table's rows of the transaction.
    place: u64,
}

/// One run.
struct Simulation {
    random: Rng,
    stage: Stage,
    committed: Vec<Vec<Row>>,
    process: Process,
    /// Daemons that were cut off from the store and do not know it.
    zombies: Vec<Process>,
    checked_saves: usize,
    /// The last save of each table.
    saved: [Option<Position>; TABLES],
    /// Whether transactions leave in parts: then none is rolled back, for that halts by design.
    parts: bool,
    /// XA transactions whose outcome is open, and the rows that each has in the tables.
    prepared: Vec<(String, Vec<Vec<Row>>)>,
    blocked: [bool; TABLES],
    /// Events that Kafka does not take.
    poisoned: Vec<String>,
    /// How many were parked to the end.
    parked: u64,
    /// Of every daemon so far.
    stats: Vec<Arc<TableStats>>,
    story: String,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let mut stage = Stage::new(TABLES, PARTITIONS);
        stage.log =
            MemoryLog::new(*random.choice(&[Terms::Gtid, Terms::Replica, Terms::Domains, Terms::Files]).unwrap());
        stage.start = random.choice([Start::Earliest, Start::Snapshot]).unwrap();
        let parts = random.bool();
        stage.settings = RelaySettings {
            queue_bytes: ByteSize::kib(random.u64(1..8)),
            batch_bytes: ByteSize(random.u64(1..3000)),
            transaction_hold_bytes: ByteSize(if parts { random.u64(1..2000) } else { u64::MAX }),
            max_unsaved_events: random.u64(1..60),
            shutdown_grace: Duration::from_secs(5),
            retry_max: Duration::from_secs(1),
            detach_after: Duration::from_millis(*random.choice(&[0, 20, 200, 10_000]).unwrap()),
            catch_up_readers: random.usize(1..3),
            ..RelaySettings::default()
        };
        // Near is a few transactions or none, or bytes where the log is a file.
        let far = if stage.log.terms() == Terms::Files { 100 } else { 1024 };
        let some = |random: &mut Rng| far * random.u64(0..20);
        let turn = Duration::from_millis(*random.choice(&[5, 100, 30_000]).unwrap());
        stage.distances = Distances { together: some(&mut random), near: some(&mut random), turn };
        stage.in_flight = random.usize(1..40);
        stage.transactional = random.bool();
        stage.aside.on_poison = *random.choice(&[OnPoison::Halt, OnPoison::Park]).unwrap();
        stage.broker.hold();
        stage.broker.busy_beyond(*random.choice(&[0, 3, usize::MAX]).unwrap());
        // The rows in a table come in the order of their keys, which here is that of their commits.
        let committed = if stage.start == Start::Snapshot { fill(&mut random, &stage) } else { Vec::new() };
        let process = stage.run();
        let stats = process.stats.clone();
        Self {
            random,
            stage,
            committed: committed.into_iter().chain(std::iter::repeat_with(Vec::new)).take(TABLES).collect(),
            process,
            zombies: Vec::new(),
            checked_saves: 0,
            saved: [const { None }; TABLES],
            parts,
            prepared: Vec::new(),
            blocked: [false; TABLES],
            poisoned: Vec::new(),
            parked: 0,
            stats,
            story: String::new(),
        }
    }

    async fn play(&mut self) {
        for _ in 0..self.random.u32(20..120) {
            self.step().await;
            self.judge_saves();
        }
        self.settle().await;
        self.judge();
    }

    async fn step(&mut self) {
        match self.random.u32(0..100) {
            0..33 => self.transaction(),
            33..34 => self.outcome(),
            34..35 => self.hand().await,
            35..37 => self.poison(),
            37..38 => self.cure(),
            38..40 => self.release().await,
            40..60 => self.acknowledge(),
            60..65 => self.block(),
            65..80 => {
                let millis = *self.random.choice(&[0, 1, 10, 100, 1_000, 3_000]).unwrap();
                self.tell(format_args!("{millis} ms pass"));
                pass(millis).await;
            }
            80..83 => {
                self.tell(format_args!("the log's connections break"));
                self.stage.log.disconnect();
            }
            83..86 => {
                let events = self.random.u64(0..20);
                self.tell(format_args!("the log's connection breaks after {events} events"));
                self.stage.log.disconnect_after(events);
            }
            86..88 => {
                self.tell(format_args!("the log refuses twice"));
                self.stage.log.refuse(std::iter::repeat_n(SourceError::Transient("away".to_owned()), 2));
            }
            88..91 => {
                let requests = self.random.u64(1..8);
                self.tell(format_args!("the store fails {requests} times"));
                self.stage.positions.fail(requests);
            }
            91..95 => {
                let partition = self.random.usize(0..PARTITIONS);
                let error = DeliveryError::retriable("t", "on command");
                let failed = self.stage.broker.fail(partition, &error);
                self.tell(format_args!("partition {partition} fails: {failed}"));
            }
            95..97 => self.kill().await,
            97..98 => self.cut_off().await,
            98..99 => self.refuse(),
            _ => self.restart().await,
        }
    }

    /// An operator pauses a table, lets it go on, or has it relayed anew, and does not wait for the answer; or has it leave,
    /// and join again.
    async fn hand(&mut self) {
        let place = self.random.usize(0..TABLES);
        let table = self.stage.tables[place].clone();
        let order = match self.random.u32(0..7) {
            0..3 => Order::Resume,
            3..5 => pause(),
            5 => Order::Renew(Box::new(self.stage.table(&table))),
            _ => return self.leave_and_join(place).await,
        };
        self.tell(format_args!("{table}: {order:?}"));
        let control = self.process.control.clone();
        tokio::spawn(async move { control.order(&table, order).await });
        tokio::task::yield_now().await;
    }

    /// A table that leaves has given up everything; so it may join again.
    async fn leave_and_join(&mut self, place: usize) {
        let table = self.stage.tables[place].clone();
        let left = self.process.control.order(&table, Order::Leave).await;
        self.tell(format_args!("{table} leaves: {left:?}"));
        left.unwrap();
        let (control, orders) = self.process.control.without(std::slice::from_ref(&table)).with([&table]);
        let stats = Arc::new(TableStats::new(table.clone()));
        let joining = Supervised {
            table: self.stage.table(&table),
            stats: Arc::clone(&stats),
            orders: orders.into_iter().next().unwrap(),
            unfit: None,
        };
        self.process.joins.send(joining).await.unwrap();
        self.stats.push(Arc::clone(&stats));
        self.process.stats[place] = stats;
        self.process.control = control;
    }

    /// Kafka will not take some event, and perhaps has not yet.
    fn poison(&mut self) {
        let rows = &self.committed[self.random.usize(0..TABLES)];
        if self.stage.aside.on_poison == OnPoison::Park && !rows.is_empty() {
            // A late one rather than one that was delivered long ago.
            let back = self.random.usize(0..rows.len().min(20));
            let id = rows[rows.len() - 1 - back].id.clone();
            self.tell(format_args!("{id} is poison"));
            self.stage.broker.poison("t", &id, true);
            self.poisoned.push(id);
        }
    }

    /// It takes one of them from now on.
    fn cure(&mut self) {
        if !self.poisoned.is_empty() {
            let id = self.poisoned.swap_remove(self.random.usize(0..self.poisoned.len()));
            self.tell(format_args!("{id} is cured"));
            self.stage.broker.poison("t", &id, false);
        }
    }

    /// An operator has an aggregate put back, cured or not, and does not wait for the answer.
    async fn release(&mut self) {
        let table = self.random.usize(0..TABLES);
        let parked: Vec<Aggregate> =
            self.process.stats[table].parked().iter().map(|(aggregate, _)| aggregate.clone()).collect();
        if let Some(aggregate) = self.random.choice(&parked) {
            let (table, order) = (self.stage.tables[table].clone(), Order::Release(aggregate.clone()));
            self.tell(format_args!("{table}: {order:?}"));
            let control = self.process.control.clone();
            tokio::spawn(async move { control.order(&table, order).await });
            tokio::task::yield_now().await;
        }
    }

    /// Everything is cured, and put back.
    async fn release_all(&mut self) {
        while !self.poisoned.is_empty() {
            self.cure();
        }
        for stats in self.process.stats.clone() {
            for _ in 0..200 {
                let parked = stats.parked();
                let Some((aggregate, parking)) = parked.iter().next() else { break };
                self.parked += parking.left();
                let answer = self.process.control.order(&stats.table, Order::Release(aggregate.clone())).await;
                self.tell(format_args!("{}: {aggregate:?} is released: {answer:?}", stats.table));
                pass(1_000).await;
            }
            assert!(stats.parked().is_empty(), "{}: {:?} are still parked", stats.table, stats.parked());
        }
    }

    fn tell(&mut self, what: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.story, "{what}");
    }

    /// Some inserts into some tables, with what else may be in a transaction.
    fn transaction(&mut self) {
        let number = self.stage.log.transactions() + 1;
        let commit = self.parts || self.random.u32(0..8) > 0;
        let mut rows: Vec<Vec<Row>> = (0..TABLES).map(|_| Vec::new()).collect();
        let mut steps = Vec::new();
        let mut nth = 0;
        let mut insert = |random: &mut Rng, keep: bool, steps: &mut Vec<Step>| {
            let table = random.usize(0..TABLES);
            let count = if random.u32(0..10) == 0 { random.u64(1..40) } else { random.u64(1..4) };
            let inserts = (0..count).map(|_| {
                nth += 1;
                let row = Insert::new(&id(table, number, nth), &format!("key {}", random.u32(0..9)));
                if keep {
                    let place = rows[table].len() as u64;
                    rows[table].push(Row { id: row.id.clone(), key: row.key.clone(), txn: number, place });
                }
                row
            });
            steps.push(Step::Insert(self.stage.tables[table].clone(), inserts.collect()));
        };
        for _ in 0..self.random.u32(0..5) {
            match self.random.u32(0..8) {
                0 if !self.parts => {
                    steps.push(Step::Savepoint("s".to_owned()));
                    insert(&mut self.random, false, &mut steps);
                    steps.push(Step::RollbackTo("s".to_owned()));
                }
                1 => {
                    let kind = *self.random.choice(&[ForeignDml::Update, ForeignDml::Delete]).unwrap();
                    steps.push(Step::Foreign(self.stage.tables[self.random.usize(0..TABLES)].clone(), kind));
                }
                _ => insert(&mut self.random, true, &mut steps),
            }
        }
        let count: usize = rows.iter().map(Vec::len).sum();
        // What is held for XA is not to outgrow the limit, for that halts by design.
        if !self.parts && count > 0 && self.random.u32(0..10) == 0 {
            self.tell(format_args!("transaction {number}: {count} rows, prepared"));
            let xid = number.to_string();
            steps.push(Step::Prepare(xid.clone()));
            self.stage.log.commit(steps);
            self.prepared.push((xid, rows));
            return;
        }
        self.tell(format_args!("transaction {number}: {count} rows, committed: {commit}"));
        if commit {
            self.stage.log.commit(steps);
            self.committed.iter_mut().zip(rows).for_each(|(all, rows)| all.extend(rows));
        } else {
            self.stage.log.roll_back(steps);
        }
    }

    /// A prepared transaction is committed or rolled back.
    fn outcome(&mut self) {
        if self.prepared.is_empty() {
            return;
        }
        let (xid, rows) = self.prepared.remove(self.random.usize(0..self.prepared.len()));
        let commit = self.random.u32(0..4) > 0;
        self.tell(format_args!("transaction {}: {xid} is committed: {commit}", self.stage.log.transactions() + 1));
        self.stage.log.commit(vec![Step::Settle(xid, commit)]);
        if commit {
            self.committed.iter_mut().zip(rows).for_each(|(all, rows)| all.extend(rows));
        }
    }

    fn acknowledge(&mut self) {
        let (partition, records) = (self.random.usize(0..PARTITIONS), self.random.usize(1..30));
        let records = self.stage.broker.acknowledge(partition, records);
        self.tell(format_args!("partition {partition} acknowledges {records}"));
    }

    /// A table's outlet takes nothing more, or takes records again.
    fn block(&mut self) {
        let table = self.random.usize(0..TABLES);
        let stuck = !self.blocked[table];
        self.blocked[table] = stuck;
        self.tell(format_args!("table {table} is stuck: {stuck}"));
        self.stage.broker.block(&format!("{table}/"), stuck);
    }

    /// SIGKILL, and some of what was in flight arrives.
    async fn kill(&mut self) {
        self.tell(format_args!("killed"));
        let random = &mut self.random;
        // The zombies too: while nobody holds a table, one of them might take it back.
        for process in self.zombies.iter_mut().chain([&mut self.process]) {
            process.kill(&self.stage, |there| random.usize(0..=there)).await;
        }
        self.zombies.clear();
        self.process = self.start();
    }

    fn start(&mut self) -> Process {
        let process = self.stage.run();
        self.stats.extend(process.stats.iter().cloned());
        process
    }

    /// The daemon loses its hold on the store, another takes over, and the first goes on until it notices.
    async fn cut_off(&mut self) {
        // A relay that is about to claim might be quicker than the daemon that takes over; so might one that has failed and
        // does not know it yet.
        pass(1).await;
        if self.process.stats.iter().any(|stats| stats.state() != State::Running) {
            return;
        }
        self.tell(format_args!("cut off"));
        self.stage.positions.fail(0);
        self.stage.positions.sever(&self.process.session);
        let fresh = self.start();
        self.zombies.push(std::mem::replace(&mut self.process, fresh));
        tokio::task::yield_now().await;
    }

    /// The next record is refused for now.
    fn refuse(&mut self) {
        self.tell(format_args!("a record is refused"));
        let error = DeliveryError::retriable("t", "refused");
        self.stage.broker.refuse(error);
    }

    /// SIGTERM; acknowledgements come, or not in time.
    async fn restart(&mut self) {
        self.tell(format_args!("terminated"));
        for mut zombie in self.zombies.drain(..) {
            zombie.kill(&self.stage, |_| 0).await;
        }
        self.process.stop.cancel();
        if self.random.bool() {
            (0..PARTITIONS).for_each(|partition| _ = self.stage.broker.acknowledge(partition, usize::MAX));
        }
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while !self.process.running.is_finished() {
            assert!(tokio::time::Instant::now() < deadline, "a stop takes longer than the grace period");
            pass(100).await;
        }
        let ended = (&mut self.process.running).await;
        let reasons: Vec<_> = self.process.stats.iter().filter_map(|stats| stats.reason()).collect();
        assert_eq!(ended.unwrap().unwrap(), Summary { halted: 0 }, "{reasons:?}");
        self.process.forget(&self.stage, |_| 0);
        self.process = self.start();
    }

    /// R2: whatever is saved covers only what has arrived. R3: forwards only.
    fn judge_saves(&mut self) {
        let saves = self.stage.positions.saves();
        for (table, position) in &saves[self.checked_saves..] {
            let _ = writeln!(self.story, "{table} is saved at {position}");
            let index = self.stage.tables.iter().position(|name| name == table).unwrap();
            let arrived: HashSet<_> = self.stage.arrived(index).into_iter().collect();
            let covered = self.committed[index].iter().filter(|row| covers(self.stage.log.terms(), position, row));
            for row in covered {
                assert!(arrived.contains(&row.id), "R2: {position} is saved, and {} has not arrived", row.id);
            }
            let before = self.saved[index].replace(position.clone());
            let forwards = before.as_ref().is_none_or(|before| before <= position);
            assert!(forwards, "R3: {position} is saved after {before:?}");
        }
        self.checked_saves = saves.len();
    }

    /// All troubles end.
    async fn settle(&mut self) {
        self.tell(format_args!("all troubles end"));
        self.stage.positions.fail(0);
        (0..TABLES).for_each(|table| self.stage.broker.block(&format!("{table}/"), false));
        self.stage.broker.release();
        // Now and then, one stays prepared to the end.
        while self.prepared.len() > usize::from(self.random.bool()) {
            self.outcome();
        }
        pass(60_000).await;
        for stats in self.process.stats.clone() {
            if stats.state() == State::Paused {
                self.process.control.order(&stats.table, Order::Resume).await.unwrap();
            }
        }
        let all: usize = self.committed.iter().map(Vec::len).sum();
        for _ in 0..120 {
            pass(1_000).await;
            self.judge_saves();
            let distinct: HashSet<_> = self.stage.broker.ids().into_iter().collect();
            if distinct.len() >= all {
                break;
            }
        }
        pass(5_000).await;
        self.release_all().await;
        for zombie in self.zombies.drain(..) {
            zombie.stop.cancel();
            zombie.running.await.unwrap().unwrap();
        }
        for stats in &self.process.stats {
            // What the tail does not know to be prepared keeps a table with its own reader, in turns.
            let own_reader = matches!(stats.state(), State::CatchingUp | State::Detached);
            assert!(
                own_reader && !self.prepared.is_empty() || stats.state() == State::Running,
                "{}: {:?}",
                stats.table,
                stats.reason()
            );
        }
        self.process.stop.cancel();
        let ended = (&mut self.process.running).await;
        assert_eq!(ended.unwrap().unwrap(), Summary { halted: 0 });
        self.judge_saves();
    }

    /// R1, R4, R6, R7 over the whole run.
    fn judge(&self) {
        for (index, committed) in self.committed.iter().enumerate() {
            let saved = self.stage.saved(index);
            let uncovered = committed
                .iter()
                .find(|row| !saved.as_ref().is_some_and(|saved| covers(self.stage.log.terms(), saved, row)));
            assert!(uncovered.is_none(), "a clean stop saves everything");
            for partition in 0..PARTITIONS {
                let delivered: Vec<_> =
                    self.stage.broker.delivered().into_iter().filter(|record| record.topic == "t").collect();
                if self.stage.aside.on_poison == OnPoison::Park {
                    self.judge_keys(index, partition, &delivered);
                    continue;
                }
                let of = delivered.iter().filter(|record| record.partition == partition);
                let keys: HashSet<_> = of.map(|record| record.key.as_str()).collect();
                let first = first_ids(&delivered, index, partition);
                let expected =
                    committed.iter().filter(|row| keys.contains(row.key.as_str())).map(|row| row.id.as_str());
                assert_eq!(first, expected.collect::<Vec<_>>(), "R1, R7: table {index}, partition {partition}");
            }
            let arrivals = self.stage.delivered(index);
            let arrived: HashSet<_> = arrivals.iter().collect();
            assert_eq!(arrived.len(), committed.len(), "R6, R7: table {index}");
            assert!(!self.stage.transactional || arrivals.len() == arrived.len(), "R4: table {index}, exactly once");
        }
        if self.stage.aside.on_poison == OnPoison::Park {
            // What is put back is handed on between others.
            return;
        }
        let outlets = self.stage.outlets.lock().unwrap();
        for (handed, (table, durable)) in self.stage.broker.handed().iter().zip(outlets.iter()) {
            let index = self.stage.tables.iter().position(|name| name == table).unwrap();
            let committed = &self.committed[index];
            let resumed =
                |row: &Row| durable.as_ref().is_some_and(|durable| covers(self.stage.log.terms(), durable, row));
            let begin = committed.iter().position(|row| !resumed(row)).unwrap_or(committed.len());
            let run: Range<usize> = begin..(begin + handed.len()).min(committed.len());
            let expected: Vec<_> = committed[run].iter().map(|row| &row.id).collect();
            assert_eq!(handed.iter().collect::<Vec<_>>(), expected, "R1, R4: {table} from {durable:?} on");
        }
    }
}

impl Simulation {
    /// R1 where aggregates were parked: each by itself, in a partition.
    fn judge_keys(&self, table: usize, partition: usize, delivered: &[crate::testing::broker::Delivered]) {
        let keys: HashSet<_> = self.committed[table].iter().map(|row| row.key.as_str()).collect();
        for key in keys {
            let of: Vec<_> =
                delivered.iter().filter(|record| record.key == key && record.partition == partition).cloned().collect();
            let first = first_ids(&of, table, partition);
            let rows = self.committed[table].iter().filter(|row| row.key == key).map(|row| row.id.as_str());
            assert!(
                first.is_empty() || first == rows.collect::<Vec<_>>(),
                "R1, R7: table {table}, partition {partition}, {key}: {first:?}"
            );
        }
    }
}

/// An id, which comes behind those of earlier rows.
fn id(table: usize, number: u64, nth: u32) -> String {
    format!("{table}/{number:05}/{nth:05}")
}

/// Rows that are in the tables before the first start, some of which the log does not have any more.
fn fill(random: &mut Rng, stage: &Stage) -> Vec<Vec<Row>> {
    let mut committed: Vec<Vec<Row>> = (0..TABLES).map(|_| Vec::new()).collect();
    for txn in 1..=random.u64(0..60) {
        let table = random.usize(0..TABLES);
        let key = format!("key {}", random.u32(0..9));
        let rows: Vec<_> = (0..random.u32(1..5)).map(|nth| Insert::new(&id(table, txn, nth), &key)).collect();
        let row = |(place, row): (u64, &Insert)| Row { id: row.id.clone(), key: key.clone(), txn, place };
        committed[table].extend((0..).zip(&rows).map(row));
        stage.log.commit(vec![Step::Insert(stage.tables[table].clone(), rows)]);
    }
    stage.log.purge(random.u64(0..=stage.log.transactions()));
    committed
}

/// The ids of one table in one partition, by their first arrival.
fn first_ids(delivered: &[crate::testing::broker::Delivered], table: usize, partition: usize) -> Vec<&str> {
    let prefix = format!("{table}/");
    let mut seen = HashSet::new();
    let of = delivered.iter().filter(|record| record.partition == partition && record.id.starts_with(&prefix));
    of.map(|record| record.id.as_str()).filter(|id| seen.insert(*id)).collect()
}

fn covers(terms: Terms, position: &Position, row: &Row) -> bool {
    let txn = terms.transaction(row.txn);
    if let Some(scan) = &position.scan {
        let last = scan.last.as_ref().and_then(|key| key.columns().next());
        return position.point.covers(&txn) == Some(true) && Some(row.id.as_bytes()) <= last;
    }
    position.point.covers(&txn) == Some(true)
        || position.partial.as_ref().is_some_and(|partial| partial.txn == txn && row.place < partial.rows)
}

fn pause() -> Order {
    Order::Pause(Pause { by: "the simulation".to_owned(), at: jiff::Timestamp::UNIX_EPOCH, reason: None })
}

/// Gives how often tables were detached, and how many events were parked to the end.
fn run(seed: u64, tell: bool) -> (u64, u64) {
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut simulation = Simulation::new(seed);
        let result = AssertUnwindSafe(simulation.play());
        let result = futures::FutureExt::catch_unwind(result).await;
        if let Err(panic) = result {
            assert!(!tell, "{}", simulation.story);
            resume_unwind(panic);
        }
        let detaches = simulation.stats.iter().map(|stats| stats.detaches.load(std::sync::atomic::Ordering::Relaxed));
        (detaches.sum(), simulation.parked)
    })
}

/// Each bug that is planted on purpose is found, so the simulation would find one that is not.
#[test]
#[allow(clippy::print_stderr, reason = "which seed shows it")]
fn every_planted_bug_is_found() {
    for &bug in Bug::value_variants() {
        let found = (0..SEEDS).find(|&seed| planted::with(bug, || catch_unwind(|| run(seed, false)).is_err()));
        assert!(found.is_some(), "{bug:?} is not found by {SEEDS} seeds");
        eprintln!("{bug:?} is found by seed {found:?}");
    }
}

#[test]
fn under_random_troubles_every_committed_row_arrives_in_order_and_no_position_runs_ahead() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    if let Some(seed) = number("OUTBOXD_SIMULATION_SEED") {
        run(seed, true);
        return;
    }
    let (mut detaches, mut parked) = (0, 0);
    for seed in 0..number("OUTBOXD_SIMULATION_SEEDS").unwrap_or(SEEDS) {
        match catch_unwind(|| run(seed, false)) {
            Ok((times, events)) => (detaches, parked) = (detaches + times, parked + events),
            Err(panic) => {
                let what = panic.downcast_ref::<String>().map_or("a panic", String::as_str);
                panic!("replay with OUTBOXD_SIMULATION_SEED={seed}: {what}");
            }
        }
    }
    assert!(
        detaches > 0 && parked > 0,
        "{detaches} detached, {parked} parked: the simulation does not do what it is for"
    );
}
