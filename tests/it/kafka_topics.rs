//! What happens to topics and brokers while they are relayed to: partitions are added, topics deleted, limits lowered,
//! clients throttled, addresses wrong, and Kafka away for long.

use std::collections::{BTreeMap, HashSet};
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use outboxd::history::{Delivered, Verdict};
use rdkafka::admin::{AdminOptions, AlterConfig, NewPartitions, ResourceSpecifier};
use tokio::time::{Instant, sleep};

use crate::daemon::Daemon;
use crate::exactly_once::exactly_once;
use crate::kafka_admin::KafkaAdmin;
use crate::order::{event, ids};
use crate::stage::{PATIENCE, Stage, free_port, until, until_within};

/// What a daemon answers to a command of the operator's.
#[track_caller]
fn told(stage: &Stage, daemon: &Daemon, arguments: &[&str]) -> String {
    let address = daemon.address().unwrap();
    let output = stage.outboxd(arguments).args(["--address", &address]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What came before something and after it, as one history: within each of the two, every key keeps to its partition.
fn one_after_the_other(before: Vec<Delivered>, after: Vec<Delivered>) -> Vec<Delivered> {
    const LATER: i64 = 1 << 40;
    let mut all = Vec::new();
    for (records, later) in [(before, 0), (after, LATER)] {
        let mut homes = BTreeMap::new();
        for mut record in records {
            let home = *homes.entry(Arc::clone(&record.key)).or_insert(record.place.partition);
            assert_eq!(record.place.partition, home, "a key keeps to its partition: {}", record.key);
            record.place.partition = 0;
            record.place.offset += later;
            all.push(record);
        }
    }
    all
}

async fn partitions(stage: &Stage) -> usize {
    let (admin, topic) = (stage.kafka_admin(), stage.topic.clone());
    let asked = move || admin.inner().fetch_metadata(Some(&topic), Duration::from_secs(10)).unwrap();
    tokio::task::spawn_blocking(asked).await.unwrap().topics()[0].partitions().len()
}

/// Adds partitions, and waits until brokers say so.
async fn add_partitions(stage: &Stage, to: usize) {
    let new = NewPartitions::new(&stage.topic, to);
    stage.kafka_admin().create_partitions([&new], &AdminOptions::new()).await.unwrap();
    until("the partitions are there", async || partitions(stage).await == to).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_added_while_the_tables_are_paused_and_order_holds() {
    for once in [false, true] {
        let setup = Stage::of().partitions(2);
        let setup = if once { exactly_once(setup).set("KAFKA__CREATE_TOPICS", "true") } else { setup };
        let stage = setup.up().await;
        let writing = stage.write(81).await;
        let daemon = stage.run();
        daemon.ready().await;
        writing.more(300).await;
        // docs/kafka.md: pause, wait until consumers are at the end, add, resume.
        told(&stage, &daemon, &["pause", "delivery.*", "--reason", "partitions are added"]);
        until("every table is paused", async || told(&stage, &daemon, &["status"]).matches("paused").count() >= 4)
            .await;
        let before = stage.records().await;
        add_partitions(&stage, 6).await;
        assert_eq!(stage.records().await.len(), before.len(), "a paused table publishes nothing");
        told(&stage, &daemon, &["resume", "delivery.*"]);
        writing.more(300).await;
        let journal = writing.stop().await;
        stage.verdict(&journal).await;
        assert_eq!(daemon.terminate().await, Some(0));
        let old: HashSet<_> = before.iter().map(|record| record.place.clone()).collect();
        let mut after = stage.records().await;
        after.retain(|record| !old.contains(&record.place));
        assert!(after.iter().any(|record| record.place.partition > 1), "the new partitions are in use");
        let verdict = Verdict::of(&journal, &one_after_the_other(before, after));
        assert!(verdict.is_clean() && verdict.total.duplicates == 0, "{verdict}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_deleted_and_created_again_halts_its_tables_or_gets_what_is_not_acknowledged() {
    let stage = Stage::of().set("KAFKA__PROPERTIES__TOPIC_METADATA_REFRESH_INTERVAL_MS", "1000").up().await;
    let writing = stage.write(82).await;
    let daemon = stage.run();
    daemon.ready().await;
    writing.more(300).await;
    // What was acknowledged goes with the topic; so none of it is waited for later.
    told(&stage, &daemon, &["pause", "delivery.*"]);
    until("every table is paused", async || told(&stage, &daemon, &["status"]).matches("paused").count() >= 4).await;
    let before = stage.records().await;
    stage.delete(&stage.topic).await;
    told(&stage, &daemon, &["resume", "delivery.*"]);
    writing.more(200).await;
    // Up to twice the half minute for which the client library waits for a topic to come back.
    let halted = async || daemon.log().matches("reason=\"topic_missing\"").count() >= 4;
    until_within(2 * PATIENCE, "the tables halt", halted).await;
    let mut daemon = daemon;
    assert_eq!(daemon.ended().await, Some(1), "every table has halted");
    stage.create_topic().await;
    let daemon = stage.run();
    daemon.ready().await;
    writing.more(200).await;
    let journal = writing.stop().await;
    let expected = journal.committed().count();
    until("all that was not acknowledged is there", async || before.len() + stage.records().await.len() >= expected)
        .await;
    assert_eq!(daemon.terminate().await, Some(0));
    let verdict = Verdict::of(&journal, &one_after_the_other(before, stage.records().await));
    assert!(verdict.is_clean() && verdict.total.duplicates == 0, "{verdict}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_created_again_between_two_records_gets_what_comes_next_and_the_rest_is_told() {
    let stage = Stage::of().shards(1).up().await;
    let daemon = stage.run();
    daemon.ready().await;
    stage.sql(["old-1", "old-2"].map(|id| event(1, id, "k"))).await;
    stage.delivered("old-2").await;
    stage.delete(&stage.topic).await;
    stage.create_topic().await;
    stage.sql(["new-1", "new-2", "new-3"].map(|id| event(1, id, "k"))).await;
    stage.delivered("new-3").await;
    assert_eq!(ids(&stage.records().await), ["new-1", "new-2", "new-3"]);
    let told = stage.outboxd(&["verify"]).output().unwrap();
    let text = String::from_utf8(told.stdout).unwrap();
    assert!(
        text.contains("old-1") && text.contains("old-2") && !text.contains("new-1"),
        "{text}{}",
        String::from_utf8_lossy(&told.stderr)
    );
    assert_eq!(daemon.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_is_lowered_halts_by_name_and_goes_on_once_it_is_raised() {
    let stage = Stage::of().shards(1).partitions(1).up().await;
    let daemon = stage.run();
    daemon.ready().await;
    let table = stage.outboxes[0].quoted();
    let insert = |id: &str, bytes: usize| {
        format!(
            "INSERT INTO {table} (id, aggregatetype, aggregateid, type, payload) VALUES ('{id}', 'a', 'k', 'T', JSON_OBJECT('x', REPEAT('z', {bytes})))"
        )
    };
    stage.sql([insert("e-1", 20_000)]).await;
    stage.delivered("e-1").await;
    let limit = async |bytes: &str| {
        let config = AlterConfig::new(ResourceSpecifier::Topic(&stage.topic)).set("max.message.bytes", bytes);
        stage.kafka_admin().alter_configs([&config], &AdminOptions::new()).await.unwrap();
    };
    limit("10000").await;
    // The broker takes a moment to know.
    let mut daemon = daemon;
    let mut sent = 1;
    let deadline = Instant::now() + Duration::from_secs(20);
    while !daemon.log().contains("reason=\"record_too_large\"") {
        assert!(Instant::now() < deadline, "in vain: the table halts");
        sent += 1;
        // Random bytes, for compression would make them small.
        let random = vec!["TO_BASE64(RANDOM_BYTES(1024))"; 16].join(", ");
        let row = format!("('e-{sent}', 'a', 'k', 'T', JSON_OBJECT('x', CONCAT({random})))");
        stage.sql([format!("INSERT INTO {table} (id, aggregatetype, aggregateid, type, payload) VALUES {row}")]).await;
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(daemon.ended().await, Some(1));
    limit("1048588").await;
    let daemon = stage.run();
    stage.delivered(&format!("e-{sent}")).await;
    let ids: Vec<_> = stage.records().await.into_iter().map(|record| record.event_id.to_string()).collect();
    let expected: Vec<_> = (1..=sent).map(|n| format!("e-{n}")).collect();
    assert_eq!(ids, expected, "in order, none missing");
    assert_eq!(daemon.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_client_delivers_everything_in_bounded_memory() {
    const QUOTA: f64 = 40_000.0;
    let client = format!("throttled-{}", fastrand::u32(..));
    let setup =
        Stage::of().set("KAFKA__PROPERTIES__CLIENT_ID", &client).set("KAFKA__PROPERTIES__COMPRESSION_TYPE", "none");
    let setup = setup.set("RELAY__QUEUE_BYTES", "1 MiB").set("RELAY__IN_FLIGHT_BYTES", "1 MiB");
    let stage = setup.up().await;
    let admin = KafkaAdmin::at(stage.kafka_port());
    admin.throttle(&client, Some(QUOTA));
    let writing = stage.write_at(83, std::num::NonZero::new(500)).await;
    let daemon = stage.run();
    daemon.ready().await;
    until("the quota is felt", async || daemon.metric("outboxd_lag_seconds") > 3.0).await;
    let (began, memory) = (Instant::now(), daemon.memory());
    while began.elapsed() < Duration::from_secs(5) {
        writing.more(100).await;
    }
    assert!(daemon.memory() < memory + (32 << 20), "{memory} -> {}", daemon.memory());
    admin.throttle(&client, None);
    let journal = writing.stop().await;
    stage.judge(&journal, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_advertise_an_address_out_of_reach_are_named_and_waited_for() {
    let nobody = free_port();
    let advertised = format!("advertised.listeners=PLAINTEXT://127.0.0.1:{nobody},OTHER://127.0.0.1:{{port1}}");
    let kafka = tokio::task::spawn_blocking(move || {
        let settings = [
            "listeners=PLAINTEXT://127.0.0.1:{port},OTHER://127.0.0.1:{port1},CONTROLLER://127.0.0.1:{controller}",
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,OTHER:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name=OTHER",
            &advertised,
        ];
        outboxd::services::Service::hold_with_ports(crate::stage::script(), "kafka-4.1", &settings, 1).unwrap()
    });
    let kafka = kafka.await.unwrap();
    let stage = Stage::of().shards(1).brokers(&format!("127.0.0.1:{}", kafka.ports()[0])).up().await;
    let wrong = format!("127.0.0.1:{}", kafka.port());
    let checked = stage.outboxd(&["check"]).env("OUTBOXD__KAFKA__BOOTSTRAP_SERVERS", &wrong).output().unwrap();
    let text = String::from_utf8(checked.stdout).unwrap();
    let named = format!("no broker can be reached at the address it advertises: 127.0.0.1:{nobody}");
    assert!(
        checked.status.code() == Some(69) && text.contains(&named) && text.contains("advertised.listeners"),
        "{text}"
    );
    let daemon = stage.run_with(&[("KAFKA__BOOTSTRAP_SERVERS", &wrong)]);
    daemon.waits_for(&named).await;
    // The address comes to be.
    let front = tokio::net::TcpListener::bind(("127.0.0.1", nobody)).await.unwrap();
    let target = kafka.port();
    let serving = tokio::spawn(async move {
        while let Ok((mut client, _)) = front.accept().await {
            tokio::spawn(async move {
                let mut broker = tokio::net::TcpStream::connect(("127.0.0.1", target)).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut broker).await;
            });
        }
    });
    stage
        .sql([format!(
            "INSERT INTO {} (id, aggregatetype, aggregateid, type, payload) VALUES ('e-1', 'a', 'k', 'T', '{{}}')",
            stage.outboxes[0].quoted()
        )])
        .await;
    stage.delivered("e-1").await;
    assert_eq!(daemon.terminate().await, Some(0));
    serving.abort();
}

/// Kafka is away for so long, at so many transactions a second: memory stays what it was when every queue was full, and all
/// arrives afterwards.
async fn away_for(outage: Duration, rate: u32, seed: u64) {
    let setup = Stage::of().set("RELAY__QUEUE_BYTES", "256 KiB").set("RELAY__IN_FLIGHT_BYTES", "256 KiB");
    let setup = setup.set("RELAY__BATCH_BYTES", "16 KiB");
    let mut stage = setup.own_kafka().up().await;
    let writing = stage.write_at(seed, NonZero::new(rate)).await;
    let daemon = stage.run();
    daemon.ready().await;
    writing.more(300).await;
    tokio::task::block_in_place(|| stage.kafka().tell("kill")).unwrap();
    until("every queue is full", async || daemon.metric("outboxd_queue_bytes") > 4.0 * 200.0 * 1024.0).await;
    let (began, memory) = (Instant::now(), daemon.memory());
    let mut most = memory;
    while began.elapsed() < outage {
        sleep(Duration::from_millis(200)).await;
        most = most.max(daemon.memory());
        assert!(daemon.metric("outboxd_queue_bytes") <= 4.0 * 320.0 * 1024.0);
    }
    eprintln!("away for {outage:?}: {memory} bytes, at most {most}");
    assert!(most < memory + (24 << 20), "memory grows with the outage: {memory} -> {most}");
    assert!(!daemon.log().contains("relay_halted"));
    tokio::task::block_in_place(|| stage.kafka().tell("start")).unwrap();
    let journal = writing.stop().await;
    // What was written meanwhile takes its time; a table that reads on its own has moments without anything in flight.
    let committed = f64::from(u32::try_from(journal.committed().count()).unwrap());
    let returned = Instant::now();
    let caught_up = async || daemon.metric("outboxd_events_total") >= committed;
    until_within(PATIENCE + outage / 4, &format!("it catches up with {committed} events"), caught_up).await;
    eprintln!("{committed} events, caught up after {:?}", returned.elapsed());
    stage.judge(&journal, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_is_away_with_full_queues_and_memory_stays_flat() {
    away_for(Duration::from_secs(12), 300, 84).await;
}

/// `make outage`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "an hour"]
async fn kafka_is_away_for_an_hour_and_memory_stays_flat() {
    let seconds = std::env::var("OUTAGE_SECONDS").map_or(3600, |text| text.parse().unwrap());
    away_for(Duration::from_secs(seconds), 75, 85).await;
}
