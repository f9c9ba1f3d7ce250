//! Events that cannot be delivered, on real servers: parked with their aggregate, released in order, or set aside alone.

use std::process::{Output, Stdio};
use std::time::Duration;

use fastrand::Rng;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::daemon::Daemon;
use crate::exactly_once::exactly_once;
use crate::routing::texts;
use crate::stage::{PATIENCE, Setup, Stage, free_port, seed, until};

const TABLE: &str = "delivery.delivery-outbox1";

/// One table whose payloads have to be JSON, and daemons that answer at a port that the commands know.
struct Bench {
    stage: Stage,
    listen: String,
}

fn parking(setup: Setup) -> Setup {
    let setup = setup.shards(1).set("KAFKA__CREATE_TOPICS", "true");
    setup.set("OUTBOX__0__PAYLOAD_FORMAT", "json").set("DELIVERY__ON_POISON", "park")
}

impl Bench {
    async fn up(setup: Setup) -> Self {
        let stage = setup.up().await;
        stage.sql(["ALTER TABLE delivery.`delivery-outbox1` MODIFY payload LONGTEXT"]).await;
        Self { stage, listen: format!("127.0.0.1:{}", free_port()) }
    }

    fn run(&self, keys: &[(&str, &str)]) -> Daemon {
        self.stage.run_with(&[&[("ADMIN__LISTEN", self.listen.as_str())], keys].concat())
    }

    fn command(&self, arguments: &[&str]) -> Output {
        self.stage.outboxd(arguments).env("OUTBOXD__ADMIN__LISTEN", &self.listen).output().unwrap()
    }

    async fn insert(&self, id: &str, key: &str, payload: &str) {
        let sql = "INSERT INTO delivery.`delivery-outbox1` (id, aggregatetype, aggregateid, type, payload)";
        self.stage.sql([format!("{sql} VALUES ('{id}', 'delivery', '{key}', 'T', '{payload}')")]).await;
    }

    /// The parked aggregates: key, number of events, why.
    fn parked(&self) -> Vec<(String, u64, String)> {
        let output = self.command(&["parked", "list", "--format", "json"]);
        let Ok(list) = serde_json::from_slice::<Value>(&output.stdout) else { return Vec::new() };
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let one = |one: &Value| (text(&one["aggregate"]), one["events"].as_u64().unwrap(), text(&one["reason"]));
        list["parked"].as_array().unwrap().iter().map(one).collect()
    }

    async fn holds(&self, aggregates: &[(&str, u64)]) {
        until(&format!("parked are {aggregates:?}"), async || {
            let parked = self.parked();
            parked.iter().map(|(key, events, _)| (key.as_str(), *events)).eq(aggregates.iter().copied())
        })
        .await;
    }

    /// The exit code, and all that is said.
    fn release(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.command(&[&["parked", "release", TABLE], arguments].concat());
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    }

    /// The ids of a key's records by their first arrival, and how many came again.
    async fn of(&self, key: &str) -> (Vec<String>, usize) {
        let records = self.stage.records().await;
        let ids: Vec<_> =
            records.iter().filter(|record| &*record.key == key).map(|record| record.event_id.to_string()).collect();
        let mut first: Vec<String> = Vec::new();
        for id in &ids {
            if !first.contains(id) {
                first.push(id.clone());
            }
        }
        let again = ids.len() - first.len();
        (first, again)
    }
}

pub(crate) fn limit(stage: &Stage, bytes: &str) -> impl Future<Output = ()> {
    limit_of(stage, (&stage.topic, "delete"), bytes)
}

/// Of a topic with this policy, which the change would reset.
pub(crate) fn limit_of(stage: &Stage, (topic, policy): (&str, &str), bytes: &str) -> impl Future<Output = ()> + use<> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", stage.bootstrap()).create().unwrap();
    let (topic, policy, bytes) = (topic.to_owned(), policy.to_owned(), bytes.to_owned());
    async move {
        let change = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("max.message.bytes", &bytes);
        let change = change.set("cleanup.policy", &policy);
        admin.alter_configs([&change], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    }
}

/// Text that does not become smaller by compression, as JSON.
pub(crate) fn noise(bytes: usize) -> String {
    format!("\"{}\"", std::iter::repeat_with(fastrand::alphanumeric).take(bytes).collect::<String>())
}

/// Given an event that is no JSON, when it is relayed, then it and what follows of its aggregate is parked, other aggregates go
/// on, a kill forgets nothing, a release before the cure is refused by name, and one after it puts everything back in order.
async fn parked_killed_and_released(setup: Setup, once: bool) {
    let bench = Bench::up(parking(setup)).await;
    let daemon = bench.run(&[]);
    bench.insert("a1", "a", "1").await;
    bench.insert("a2", "a", "{no").await;
    bench.insert("b1", "b", "1").await;
    bench.insert("a3", "a", "3").await;
    bench.insert("b2", "b", "2").await;
    bench.stage.delivered("b2").await;
    bench.holds(&[("a", 2)]).await;
    assert!(bench.parked()[0].2.starts_with("unmappable_event: column `payload` does not hold JSON"));
    daemon.kill();
    bench.insert("a4", "a", "4").await;
    let daemon = bench.run(&[]);
    bench.insert("b3", "b", "3").await;
    bench.stage.delivered("b3").await;
    bench.holds(&[("a", 3)]).await;
    assert_eq!(bench.of("a").await.0, ["a1"]);
    assert!(daemon.metric("outboxd_parked_aggregates") > 0.5);

    let (code, said) = bench.release(&["--aggregate", "a"]);
    assert_eq!(code, Some(77), "{said}");
    assert!(said.contains("event 0 is still none that can be delivered: unmappable_event"), "{said}");
    daemon.kill();

    let daemon = bench.run(&[("OUTBOX__0__PAYLOAD_FORMAT", "as_is")]);
    daemon.ready().await;
    bench.holds(&[("a", 3)]).await;
    let (code, said) = bench.release(&["--all"]);
    assert_eq!((code, said.contains("released: 3 events")), (Some(0), true), "{said}");
    bench.insert("a5", "a", "5").await;
    bench.stage.delivered("a5").await;
    bench.holds(&[]).await;
    assert_eq!(daemon.terminate().await, Some(0));
    let (order, again) = bench.of("a").await;
    assert_eq!(order, ["a1", "a2", "a3", "a4", "a5"]);
    assert!(!once || again == 0 && bench.of("b").await.1 == 0, "{again} came again");
    let there = texts(&bench.stage, &format!("outboxd.parked.{}", bench.stage.topic), 3);
    let (first, headers) = (&there[0], format!("outboxd-topic={} ", bench.stage.topic));
    assert!(
        first.starts_with("a {no id=a2 eventType=T outboxd-aside=parked outboxd-reason=unmappable_event"),
        "{first}"
    );
    assert!(first.contains(&headers) && first.contains(" outboxd-number=0 "), "{first}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_aggregate_survives_a_kill_and_is_released_in_order_at_least_once_on_mysql() {
    parked_killed_and_released(Stage::of().partitions(1), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_aggregate_survives_a_kill_and_is_released_in_order_at_least_once_on_mariadb() {
    parked_killed_and_released(Stage::of().server("mariadb-11.8").partitions(1), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_aggregate_survives_a_kill_and_is_released_in_order_exactly_once() {
    let setup = exactly_once(Stage::of()).partitions(1);
    parked_killed_and_released(setup, true).await;
}

/// Given events that are larger than the topic takes, among others in the same batches, or larger than the producer sends, when
/// they are relayed, then those alone are parked, in parts; once both limits are raised they are put back whole.
async fn too_large_for_the_topic_and_for_the_producer(setup: Setup, once: bool) {
    let bench = Bench::up(parking(setup)).await;
    let daemon = bench.run(&[]);
    daemon.ready().await;
    limit(&bench.stage, "20000").await;
    let (large, huge) = (noise(50_000), noise(1_500_000));
    let mut statements = vec!["BEGIN".to_owned()];
    let mut expected = Vec::new();
    for n in 0..300 {
        let (key, payload) = match n {
            100 => ("large", large.as_str()),
            200 => ("huge", huge.as_str()),
            n if n % 3 == 0 => ("large", "1"),
            n if n % 3 == 1 => ("huge", "1"),
            _ => ("small", "1"),
        };
        statements.push(format!(
            "INSERT INTO delivery.`delivery-outbox1` (id, aggregatetype, aggregateid, type, payload) VALUES ('e{n:03}', \
             'delivery', '{key}', 'T', '{payload}')"
        ));
        expected.push((key, format!("e{n:03}")));
    }
    statements.push("COMMIT".to_owned());
    bench.stage.sql(statements).await;
    bench.stage.delivered("e299").await;
    let of = |wanted: &str, from: usize| {
        let late = expected[from..].iter().filter(|(key, _)| *key == wanted);
        late.map(|(_, id)| id.clone()).collect::<Vec<_>>()
    };
    bench.holds(&[("huge", of("huge", 200).len() as u64), ("large", of("large", 100).len() as u64)]).await;
    assert!(bench.parked().iter().all(|(.., reason)| reason.starts_with("record_too_large")), "{:?}", bench.parked());
    // What was sent together is refused together, so it may take one more time until it is told why.
    until("the release is refused by name", async || {
        let (code, said) = bench.release(&["--aggregate", "large"]);
        assert_eq!(code, Some(77), "{said}");
        said.contains("record_too_large")
    })
    .await;
    assert_eq!(daemon.terminate().await, Some(0));

    limit(&bench.stage, "3000000").await;
    let daemon = bench.run(&[("KAFKA__PROPERTIES__MESSAGE_MAX_BYTES", "3000000")]);
    daemon.ready().await;
    let (code, said) = bench.release(&["--all"]);
    assert_eq!(code, Some(0), "{said}");
    bench.holds(&[]).await;
    assert_eq!(daemon.terminate().await, Some(0));
    for key in ["small", "large", "huge"] {
        let (order, again) = bench.of(key).await;
        assert_eq!(order, of(key, 0), "{key}");
        assert!(!once || again == 0, "{key}: {again} came again");
    }
    let payloads = texts(&bench.stage, &bench.stage.topic, bench.stage.records().await.len());
    let whole = |wanted: &str| payloads.iter().any(|record| record.contains(&format!(" {wanted} ")));
    assert!(whole(&large) && whole(&huge));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_are_too_large_are_parked_whole_and_alone_at_least_once() {
    too_large_for_the_topic_and_for_the_producer(Stage::of().partitions(1), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_are_too_large_are_parked_whole_and_alone_exactly_once() {
    let setup = exactly_once(Stage::of()).partitions(1);
    too_large_for_the_topic_and_for_the_producer(setup, true).await;
}

/// Given aggregates with poison among their events, when the daemon is killed again and again while they are written, then
/// everything is delivered or parked; and once it is cured and released, in the order of each aggregate.
async fn killed_at_random_while_parking(setup: Setup, once: bool) {
    let bench = Bench::up(parking(setup)).await;
    let mut rng = Rng::with_seed(seed());
    let mut expected: Vec<Vec<String>> = vec![Vec::new(); 5];
    for round in 0..8 {
        let daemon = bench.run(&[]);
        if rng.bool() {
            daemon.logs("table_claimed").await;
        }
        for n in 0..rng.usize(1..30) {
            let key = rng.usize(0..5);
            let id = format!("{round}-{n:02}");
            let payload = if key < 2 && rng.u32(0..5) == 0 { "{no" } else { "1" };
            bench.insert(&id, &format!("k{key}"), payload).await;
            expected[key].push(id);
        }
        sleep(Duration::from_millis(rng.u64(0..700))).await;
        daemon.kill();
    }
    let daemon = bench.run(&[("OUTBOX__0__PAYLOAD_FORMAT", "as_is")]);
    daemon.ready().await;
    bench.insert("last", "last", "1").await;
    bench.stage.delivered("last").await;
    let (code, said) = bench.release(&["--all"]);
    assert_eq!(code, Some(0), "{said}");
    bench.holds(&[]).await;
    assert_eq!(daemon.terminate().await, Some(0));
    for (key, expected) in expected.iter().enumerate() {
        let (order, again) = bench.of(&format!("k{key}")).await;
        assert_eq!(&order, expected, "k{key}");
        assert!(!once || again == 0, "k{key}: {again} came again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_moments_no_parked_aggregate_is_forgotten_or_overtaken_at_least_once() {
    killed_at_random_while_parking(Stage::of().partitions(1), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_moments_no_parked_aggregate_is_forgotten_or_overtaken_exactly_once() {
    let setup = exactly_once(Stage::of()).partitions(1);
    killed_at_random_while_parking(setup, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_set_aside_alone_and_the_hole_is_said() {
    let bench = Bench::up(parking(Stage::of().partitions(1)).set("DELIVERY__ON_POISON", "dead_letter")).await;
    let daemon = bench.run(&[]);
    for (id, payload) in [("a1", "1"), ("a2", "{no"), ("a3", "3")] {
        bench.insert(id, "a", payload).await;
    }
    bench.stage.delivered("a3").await;
    daemon.logs("dead_letter_leaves_hole_in_order").await;
    assert!(daemon.metric("outboxd_dead_letters_total") > 0.5);
    let letters = texts(&bench.stage, &format!("outboxd.dead.{}", bench.stage.topic), 1);
    assert!(letters[0].starts_with("a {no id=a2 ") && letters[0].contains(" outboxd-order-hole=1 "), "{}", letters[0]);
    let log = daemon.log();
    assert!(!log.contains("{no"), "payloads never reach the log: {log}");
    assert_eq!(daemon.terminate().await, Some(0));
    assert_eq!(bench.of("a").await.0, ["a1", "a3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_aggregate_more_than_may_be_parked_halts_the_table_by_name() {
    let bench = Bench::up(parking(Stage::of().partitions(1)).set("DELIVERY__PARKED_AGGREGATES", "1")).await;
    let mut daemon = bench.run(&[]);
    bench.insert("a1", "a", "{no").await;
    bench.insert("a2", "a", "{no").await;
    bench.holds(&[("a", 2)]).await;
    bench.insert("b1", "b", "{no").await;
    daemon.logs("relay_halted table=delivery.delivery-outbox1 reason=\"parked_limit\"").await;
    assert_eq!(daemon.ended().await, Some(1));
    assert_eq!(bench.of("b").await.0, Vec::<String>::new());
}

/// Given a topic of positions, when more aggregates are parked than fit into one of its records, then the table halts by name, at
/// once, instead of beginning anew for ever; and with a higher limit it goes on, and nothing that was to be parked is missing.
async fn more_is_parked_than_a_position_can_hold(setup: Setup) {
    let setup = parking(setup).set("KAFKA__PROPERTIES__COMPRESSION_TYPE", "none");
    let bench = Bench::up(setup.set("DELIVERY__PARKED_AGGREGATES", "100000")).await;
    let topic = bench.stage.setting("POSITIONS__TOPIC");
    let mut daemon = bench.run(&[]);
    daemon.ready().await;
    limit_of(&bench.stage, (&topic, "compact"), "5000").await;
    let mut events = 0;
    until("the table halts", async || {
        bench.insert(&format!("e{events}"), &format!("k{events}"), "{no").await;
        events += 1;
        daemon.log().contains("relay_halted")
    })
    .await;
    assert_eq!(daemon.ended().await, Some(1));
    let log = daemon.log();
    assert!(log.contains("relay_halted table=delivery.delivery-outbox1 reason=\"store_refused\""), "{log}");
    assert!(log.contains(&format!("topic {topic}: ")) && log.contains("max.message.bytes"), "{log}");
    assert!(!log.contains("relay_restarts"), "{log}");

    limit_of(&bench.stage, (&topic, "compact"), "1048588").await;
    let daemon = bench.run(&[]);
    until("all are parked", async || bench.parked().len() == events).await;
    assert_eq!(daemon.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_is_parked_than_a_position_in_kafka_can_hold_at_least_once() {
    let setup = exactly_once(Stage::of()).set("DELIVERY__GUARANTEE", "at_least_once");
    more_is_parked_than_a_position_can_hold(setup.set("POSITIONS__STORE", "kafka").partitions(1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_is_parked_than_a_position_in_kafka_can_hold_exactly_once() {
    more_is_parked_than_a_position_can_hold(exactly_once(Stage::of()).partitions(1)).await;
}

/// How many of Kafka's clients the daemon has: each has a thread of this name.
fn clients(daemon: &Daemon) -> usize {
    let threads = std::fs::read_dir(format!("/proc/{}/task", daemon.id())).unwrap();
    let names = threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() == "rdk:main").count()
}

/// Waits until that number fits, and is the same for a while: some clients come and go. Gives it.
async fn steady_clients(daemon: &Daemon, name: &str, fits: impl Fn(usize) -> bool) -> usize {
    let (mut found, mut looks) = (0, 0);
    until(name, async || {
        let now = clients(daemon);
        looks = if now == found && fits(now) { looks + 1 } else { 0 };
        found = now;
        looks > 50
    })
    .await;
    found
}

/// Given a release that waits for a transaction that somebody has open in the parking topic, when the daemon is told to stop,
/// then it does not wait for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_until_parked_events_are_read() {
    let bench = Bench::up(parking(Stage::of().partitions(1)).set("RELAY__SHUTDOWN_GRACE", "5s")).await;
    let mut daemon = bench.run(&[]);
    bench.insert("a1", "a", "{no").await;
    bench.holds(&[("a", 1)]).await;
    let topic = format!("outboxd.parked.{}", bench.stage.topic);
    let somebody: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bench.stage.bootstrap())
        .set("transactional.id", &topic)
        .set("transaction.timeout.ms", "300000")
        .create()
        .unwrap();
    somebody.init_transactions(PATIENCE).unwrap();
    somebody.begin_transaction().unwrap();
    somebody.send(BaseRecord::<str, str>::to(&topic).partition(0).key("b").payload("1")).unwrap();
    somebody.flush(PATIENCE).unwrap();

    let before = steady_clients(&daemon, "the daemon is at rest", |clients| clients > 0).await;
    let mut release = bench.stage.outboxd(&["parked", "release", TABLE, "--all"]);
    release.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut release = release.env("OUTBOXD__ADMIN__LISTEN", &bench.listen).spawn().unwrap();
    steady_clients(&daemon, "the parked events are being read", |clients| clients > before).await;
    let began = Instant::now();
    daemon.signal("TERM");
    assert_eq!(daemon.ended().await, Some(0));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert!(!release.wait().unwrap().success(), "it was not done");
    somebody.abort_transaction(PATIENCE).unwrap();
}
