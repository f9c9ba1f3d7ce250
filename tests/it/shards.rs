//! The number of shards is changed while applications write, step by step as docs/operations.md has it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fastrand::Rng;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts};
use outboxd::history::{Event, Fingerprint, Journal, Outcome, Transaction};
use outboxd::table::TableName;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::daemon::Daemon;
use crate::exactly_once::exactly_once;
use crate::stage::{Stage, until};

/// What the applications write by: the tables of each generation, and how many transactions they have committed.
struct Application {
    server: Opts,
    generations: [Vec<TableName>; 2],
    committed: AtomicU64,
}

impl Application {
    /// One instance with aggregates of its own. In every transaction it asks for the generation and holds on to it.
    async fn write(self: Arc<Self>, instance: usize, stop: CancellationToken) -> Journal {
        let mut conn = Conn::new(self.server.clone()).await.unwrap();
        let (mut journal, mut sequences) = (Journal::default(), vec![0_u64; 25]);
        let mut rng = Rng::with_seed(instance as u64);
        while !stop.is_cancelled() {
            let chosen = rng.usize(..sequences.len());
            sequences[chosen] += 1;
            let (aggregate, sequence) = (format!("a-{instance}-{chosen}"), sequences[chosen]);
            conn.query_drop("START TRANSACTION").await.unwrap();
            let row: Option<u64> =
                conn.query_first("SELECT generation FROM delivery.outbox_generation FOR SHARE").await.unwrap();
            let tables = &self.generations[usize::try_from(row.unwrap()).unwrap() - 1];
            let table = &tables[crc32fast::hash(aggregate.as_bytes()) as usize % tables.len()];
            let id = format!("{aggregate}-{sequence}");
            let payload = format!("{{\"sequence\": {sequence}}}");
            let row = format!("('{id}', 'delivery', '{aggregate}', 'Changed', '{payload}')");
            conn.query_drop(format!(
                "INSERT INTO {} (id, aggregatetype, aggregateid, type, payload) VALUES {row}",
                table.quoted()
            ))
            .await
            .unwrap();
            conn.query_drop("COMMIT").await.unwrap();
            journal.record(Transaction {
                id: sequence,
                events: vec![Event {
                    id: id.into(),
                    table: table.clone(),
                    aggregate: aggregate.into(),
                    sequence,
                    event_type: "Changed".into(),
                    payload: Fingerprint::of(Some(payload.as_bytes())),
                    kept: true,
                }],
                outcome: Outcome::Committed,
                unanswered: false,
            });
            self.committed.fetch_add(1, Ordering::Relaxed);
        }
        journal
    }

    /// The events that are in the tables of a generation.
    async fn held(&self, generation: usize) -> HashSet<String> {
        let mut conn = Conn::new(self.server.clone()).await.unwrap();
        let mut held = HashSet::new();
        for table in &self.generations[generation] {
            held.extend(conn.query::<String, _>(format!("SELECT id FROM {}", table.quoted())).await.unwrap());
        }
        assert!(!held.is_empty());
        held
    }

    async fn more(&self, transactions: u64) {
        let all = self.committed.load(Ordering::Relaxed) + transactions;
        until("the applications go on", async || self.committed.load(Ordering::Relaxed) >= all).await;
    }
}

/// Runs a command of the operator's to its end.
async fn told(stage: &Stage, daemon: &Daemon, keys: &[(&str, &str)], arguments: &[&str]) -> String {
    let mut command = stage.outboxd(arguments);
    command.env("OUTBOXD__ADMIN__LISTEN", daemon.address().unwrap());
    command.envs(keys.iter().map(|(key, value)| (format!("OUTBOXD__{key}"), value)));
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

async fn from_four_to_six(once: bool) {
    let setup =
        Stage::of().set("RELAY__IDLE_CHECKPOINT_INTERVAL", "1s").set("OUTBOX__0__SHARD", "crc32(aggregateid) % 4");
    let setup = if once { exactly_once(setup).set("KAFKA__CREATE_TOPICS", "true") } else { setup };
    let stage = setup.up().await;
    let new = (1..=6).map(|n| TableName::new("delivery", &format!("delivery-b-outbox{n}"))).collect();
    stage.sql(["CREATE TABLE delivery.outbox_generation (generation INT NOT NULL) SELECT 1 AS generation"]).await;
    let generations = [stage.outboxes.clone(), new];
    let application = Arc::new(Application { server: stage.opts(), generations, committed: AtomicU64::new(0) });
    let (stop, mut instances) = (CancellationToken::new(), JoinSet::new());
    for instance in 0..4 {
        instances.spawn(Arc::clone(&application).write(instance, stop.clone()));
    }
    let daemon = stage.run();
    daemon.ready().await;
    application.more(200).await;

    // 1. The new tables, and a daemon that knows both generations.
    let both = [
        ("OUTBOX__1__TABLES", "delivery.delivery-b-outbox{1..6}"),
        ("OUTBOX__1__TOPIC", &stage.topic),
        ("OUTBOX__1__SHARD", "crc32(aggregateid) % 6"),
    ];
    told(&stage, &daemon, &both, &["migrate"]).await;
    assert_eq!(daemon.terminate().await, Some(0));
    let daemon = stage.run_with(&both);
    daemon.ready().await;
    // 2. The new tables wait.
    let (old, new) = ("delivery.delivery-outbox{1..4}", "delivery.delivery-b-outbox{1..6}");
    told(&stage, &daemon, &both, &["pause", new, "--reason", "six shards"]).await;
    // 3. The applications go over, all with the same commit.
    application.more(200).await;
    stage.sql(["UPDATE delivery.outbox_generation SET generation = 2"]).await;
    application.more(200).await;
    let held = application.held(1).await;
    let before = stage.records().await;
    assert!(before.iter().all(|record| !held.contains(&*record.event_id)), "the new tables wait");
    // A crash on the way changes nothing.
    daemon.kill();
    let daemon = stage.run_with(&both);
    daemon.logs("table_claimed").await;
    // 4. What went to the old ones is acknowledged. 5. The new ones go on.
    told(&stage, &daemon, &both, &["position", "wait", old]).await;
    told(&stage, &daemon, &both, &["resume", new]).await;
    daemon.ready().await;
    application.more(200).await;
    stop.cancel();
    let mut journal = Journal::default();
    instances.join_all().await.into_iter().for_each(|one| journal.absorb(one));
    assert!(daemon.metric("outboxd_misrouted_events_total") < 1.0);
    let verdict = stage.judge(&journal, daemon).await;
    assert!(!once || verdict.total.duplicates == 0, "{verdict}");
    let moved = journal.committed().filter(|event| event.table.to_string().contains("-b-")).count();
    assert!(moved > 200, "aggregates went over: {moved}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_shards_is_changed_under_load_and_order_holds() {
    from_four_to_six(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_shards_is_changed_under_load_and_every_event_is_seen_once() {
    from_four_to_six(true).await;
}
