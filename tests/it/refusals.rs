//! Records that the broker refuses for good, while others are on their way behind them.

use std::collections::BTreeSet;
use std::time::Duration;

use outboxd::kafka::Producers;
use outboxd::kafka::settings::KafkaSettings;
use outboxd::outbox::{Header, Record};
use outboxd::outlet::{Limit, Publish};
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use tokio::time::timeout;

use crate::order::{event, ids};
use crate::stage::{PATIENCE, Stage};

async fn limit(stage: &Stage, bytes: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", format!("127.0.0.1:{}", stage.kafka_port())).create().unwrap();
    let change = AlterConfig::new(ResourceSpecifier::Topic(&stage.topic)).set("max.message.bytes", bytes);
    admin.alter_configs([&change], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
}

/// Text that does not become smaller by compression.
fn noise(bytes: usize) -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(bytes).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_behind_a_refused_record_does_not_arrive_before_it() {
    let stage = Stage::of().shards(1).partitions(1).up().await;
    limit(&stage, "2000").await;
    let servers = format!("127.0.0.1:{}", stage.kafka_port());
    // A request for each record.
    let properties = [("batch.num.messages".to_owned(), "1".to_owned())].into_iter().collect();
    let settings = KafkaSettings { bootstrap_servers: servers, properties, ..KafkaSettings::default() };
    let producers = Producers::new(&settings);
    // The broker knows nothing of the first producer's numbers; later it does of the partition, but of no new producer.
    for round in 0..20_u32 {
        let publisher = producers.publisher("refusals", Limit::new(1 << 20)).unwrap();
        for n in 0..10_u32 {
            let value = noise(if n == 0 { 5000 } else { 10 });
            let id = format!("{round}.{n}");
            let record = Record {
                topic: &stage.topic,
                key: b"k",
                partition: None,
                value: Some(value.as_bytes()),
                timestamp_millis: 1_700_000_000_000,
                headers: &[Header { name: "id", value: Some(id.as_bytes()) }],
            };
            if publisher.publish(&record, n.into()).is_err() {
                break;
            }
            // Some go together, some apart.
            std::thread::sleep(Duration::from_micros(fastrand::u64(0..3000)));
        }
        let mut settled = Vec::new();
        timeout(PATIENCE, publisher.settled(&mut settled)).await.unwrap();
    }
    assert_eq!(ids(&stage.records().await), Vec::<&str>::new(), "the refused records were overtaken");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_record_is_refused_halts_in_order_and_alone_and_goes_on_once_it_is_cured() {
    let batches = "KAFKA__PROPERTIES__BATCH_NUM_MESSAGES";
    let stage = Stage::of().shards(2).partitions(1).set(batches, "3").up().await;
    let daemon = stage.run();
    daemon.ready().await;
    stage.sql([event(1, "warm-1", "k"), event(2, "warm-2", "k")]).await;
    stage.delivered("warm-2").await;
    limit(&stage, "20000").await;
    let mut expected = vec!["warm-1".to_owned()];
    let mut statements = vec!["BEGIN".to_owned()];
    for n in 0..400 {
        let id = format!("one-{n:03}");
        let size = if n == 200 { 50_000 } else { 100 };
        statements.push(format!(
            "INSERT INTO delivery.`delivery-outbox1` (id, aggregatetype, aggregateid, type, payload) VALUES ('{id}', \
             'delivery', 'k', 'T', '\"{}\"')",
            noise(size)
        ));
        expected.push(id);
    }
    statements.push("COMMIT".to_owned());
    stage.sql(statements).await;
    daemon.logs("relay_halted table=delivery.delivery-outbox1 reason=\"record_too_large\"").await;
    // The other table notices nothing.
    stage.sql([event(2, "other", "k")]).await;
    stage.delivered("other").await;
    assert_eq!(daemon.terminate().await, Some(1));
    let before: Vec<_> = stage.records().await;
    let beyond = ids(&before).into_iter().filter(|id| *id >= "one-200" && id.starts_with("one")).count();
    assert_eq!(beyond, 0, "later events overtook the refused one: {:?}", ids(&before));
    limit(&stage, "1000000").await;
    let daemon = stage.run();
    stage.delivered("one-399").await;
    assert_eq!(daemon.terminate().await, Some(0));
    let records = stage.records().await;
    let mut seen = BTreeSet::new();
    let first: Vec<_> =
        ids(&records).into_iter().filter(|id| (id.starts_with("one") || *id == "warm-1") && seen.insert(*id)).collect();
    assert_eq!(first, expected);
}
