//! A table whose topic takes nothing, for it is not there yet: the others do not notice, and it comes back by itself.

use std::sync::{Arc, Mutex};

use outboxd::history::{Isolation, Journal, Reader, ReaderSettings, Verdict};
use outboxd::table::TableName;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::Message;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::daemon::Daemon;
use crate::stage::{PATIENCE, Setup, Stage, until};

const STUCK_TABLE: &str = "delivery.delivery-outbox4";

/// Three tables to one topic, the fourth to another; queues so small that an outage of seconds fills them.
struct Scene {
    stage: Stage,
    stuck: String,
    admin: AdminClient<DefaultClientContext>,
}

impl Scene {
    async fn set(setup: Setup, prefix: &str) -> Self {
        let names = (1..=4).map(|n| TableName::new("delivery", &format!("delivery-outbox{n}"))).collect();
        let setup = setup
            .tables("delivery.delivery-outbox{1..3}", names)
            .set("OUTBOX__1__TABLES", STUCK_TABLE)
            // Which topics a template has is not checked at start; a producer waits for one this long.
            .set("OUTBOX__1__TOPIC", &format!("{prefix}.{{aggregatetype}}"))
            .set("KAFKA__PROPERTIES__TOPIC_METADATA_PROPAGATION_MAX_MS", "600000")
            .set("OUTBOX__1__START", "earliest")
            .set("RELAY__BATCH_BYTES", "16 KiB")
            .set("RELAY__QUEUE_BYTES", "64 KiB")
            .set("RELAY__IN_FLIGHT_BYTES", "64 KiB");
        let stage = setup.up().await;
        let admin: AdminClient<_> = client(&stage).create().unwrap();
        Self { stage, stuck: format!("{prefix}.delivery"), admin }
    }

    /// The topic takes records from now on.
    async fn create_topic(&self) {
        let topic = NewTopic::new(&self.stuck, 3, TopicReplication::Fixed(1));
        self.admin.create_topics([&topic], &AdminOptions::new()).await.unwrap();
    }

    async fn verdict(&self, journal: &Journal) -> Verdict {
        let settings = ReaderSettings {
            bootstrap_servers: format!("127.0.0.1:{}", self.stage.kafka_port()),
            topics: vec![self.stage.topic.clone(), self.stuck.clone()],
            isolation: Isolation::ReadCommitted,
        };
        let mut reader = Reader::new(&settings).unwrap();
        reader.read_until(Instant::now() + PATIENCE, journal.has_arrived()).await.unwrap();
        reader.read_to_end(Instant::now() + PATIENCE).await.unwrap();
        Verdict::of(journal, &reader.into_records())
    }
}

fn client(stage: &Stage) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", format!("127.0.0.1:{}", stage.kafka_port()));
    config
}

/// What the daemon says of its tables.
fn tables(daemon: &Daemon) -> Vec<Value> {
    daemon.page("/api/v1/tables").map_or_else(Vec::new, |(_, body)| serde_json::from_str(&body).unwrap())
}

fn is(daemon: &Daemon, state: &str) -> bool {
    tables(daemon).iter().any(|status| status["table"] == STUCK_TABLE && status["state"] == state)
}

/// From commit to arrival of a topic's records, in milliseconds, as they come.
struct Latencies {
    seen: Arc<Mutex<Vec<i64>>>,
    _watching: AbortOnDropHandle<()>,
}

impl Latencies {
    fn of(stage: &Stage) -> Self {
        let consumer: StreamConsumer = client(stage).set("group.id", &stage.topic).create().unwrap();
        consumer.subscribe(&[&stage.topic]).unwrap();
        let seen: Arc<Mutex<Vec<i64>>> = Arc::default();
        let into = Arc::clone(&seen);
        let watching = tokio::spawn(async move {
            while let Ok(message) = consumer.recv().await {
                let committed = message.timestamp().to_millis().unwrap();
                into.lock().unwrap().push(jiff::Timestamp::now().as_millisecond() - committed);
            }
        });
        Self { seen, _watching: AbortOnDropHandle::new(watching) }
    }

    /// Waits for so many, and gives the median, the 99th percentile and the longest.
    async fn take(&self, least: usize) -> (i64, i64, i64) {
        until("records arrive", async || self.seen.lock().unwrap().len() >= least).await;
        let mut taken = std::mem::take(&mut *self.seen.lock().unwrap());
        taken.sort_unstable();
        (taken[taken.len() / 2], taken[taken.len() * 99 / 100], taken[taken.len() - 1])
    }
}

/// Given a table whose topic is not there, when its queue is full, then it is detached and the others go on; when the topic
/// is there, then the table catches up under load and the tail feeds it; and nothing is missing, twice, or out of order.
async fn play(scene: &Scene, seed: u64) {
    let writing = scene.stage.write(seed).await;
    let daemon = scene.stage.run();
    daemon.ready().await;
    until("the table is detached", async || is(&daemon, "detached")).await;
    writing.more(1_500).await;
    daemon.ready().await;
    // With queues as small as these, a busy machine detaches one of the others for a moment.
    let expected = |status: &Value| if status["table"] == STUCK_TABLE { "detached" } else { "running" };
    let others = async || tables(&daemon).iter().all(|status| status["state"] == expected(status));
    until("the others run, and that table does not", others).await;
    assert!(daemon.metric("outboxd_table_detached_seconds") > 1.0);
    scene.create_topic().await;
    until("the table is back", async || is(&daemon, "running")).await;
    writing.more(300).await;
    assert!(daemon.metric("outboxd_table_detaches_total") >= 1.0);
    let journal = writing.stop().await;
    scene.verdict(&journal).await;
    assert_eq!(daemon.terminate().await, Some(0));
    let verdict = scene.verdict(&journal).await;
    assert!(verdict.is_clean() && verdict.total.duplicates == 0, "{verdict}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_topic_takes_nothing_is_detached_and_comes_back_without_a_duplicate() {
    play(&Scene::set(Stage::of(), "stuck-gtid").await, 51).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_detached_and_comes_back_where_positions_are_files_and_offsets() {
    play(&Scene::set(Stage::of().without_gtids(), "stuck-files").await, 52).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_detached_and_comes_back_on_mariadb() {
    play(&Scene::set(Stage::of().server("mariadb-11.8"), "stuck-domains").await, 53).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_table_is_stuck_the_others_go_on() {
    let scene = Scene::set(Stage::of(), "stuck-latency").await;
    let writing = scene.stage.write(54).await;
    let daemon = scene.stage.run();
    daemon.ready().await;
    let latencies = Latencies::of(&scene.stage);
    latencies.take(1).await;
    until("the table is detached", async || is(&daemon, "detached")).await;
    latencies.take(200).await;
    let count = std::env::var("OUTBOXD_DETACHED_RECORDS").map_or(2_000, |text| text.parse().unwrap());
    let stuck = latencies.take(count).await;
    assert!(is(&daemon, "detached"), "all of these came while the table was stuck");
    scene.create_topic().await;
    until("the table is back", async || is(&daemon, "running")).await;
    let meanwhile = latencies.take(1).await;
    let free = latencies.take(count).await;
    eprintln!("ms (median, p99, longest): stuck {stuck:?}, coming back {meanwhile:?}, free {free:?}");
    let journal = writing.stop().await;
    scene.verdict(&journal).await;
    assert_eq!(daemon.terminate().await, Some(0));
    assert!(scene.verdict(&journal).await.is_clean());
}
