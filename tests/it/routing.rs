//! Topics, headers and values out of columns, as consumers see them.

use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers;
use rdkafka::{Message, Offset, TopicPartitionList};
use tokio::time::Instant;

use crate::order::event;
use crate::stage::{PATIENCE, Stage, until};

/// Every record of a topic of one partition, once there are so many: key, value and headers as text.
pub(crate) fn texts(stage: &Stage, topic: &str, records: usize) -> Vec<String> {
    let config = [("bootstrap.servers", stage.bootstrap().as_str()), ("group.id", "routing")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()));
    let consumer: BaseConsumer = ClientConfig::from_iter(config).create().unwrap();
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&from).unwrap();
    let text =
        |bytes: Option<&[u8]>| bytes.map_or("null".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned());
    let (mut texts, deadline) = (Vec::new(), Instant::now() + PATIENCE);
    while texts.len() < records {
        assert!(Instant::now() < deadline, "in vain: {records} records in {topic}; {texts:#?}");
        let Some(record) = consumer.poll(Duration::from_millis(100)) else { continue };
        let record = record.unwrap();
        let headers = record.headers().unwrap().iter().map(|header| format!("{}={}", header.key, text(header.value)));
        let headers = headers.collect::<Vec<_>>().join(" ");
        texts.push(format!("{} {} {headers}", text(record.key()), text(record.payload())));
    }
    texts
}

#[tokio::test(flavor = "multi_thread")]
async fn topic_headers_and_value_are_made_of_the_columns_that_the_configuration_names() {
    for server in ["mysql-9.7", "mariadb-11.8"] {
        let prefix = format!("routed-{}", fastrand::u32(..));
        let setup = Stage::of()
            .server(server)
            .shards(1)
            .partitions(1)
            .set("OUTBOX__0__TOPIC", &format!("{prefix}.{{tenant}}.{{context}}"));
        let setup = setup
            .set("OUTBOX__0__ROUTE__REGEX", r"(?<context>\w+)\.\w+")
            .set("OUTBOX__0__COLUMNS__HEADERS__0", "trace:traceparent");
        let setup = setup
            .set("OUTBOX__0__COLUMNS__HEADER_OBJECT", "more")
            .set("OUTBOX__0__COLUMNS__ENVELOPE__0", "type:eventType");
        let setup = setup.set("OUTBOX__0__CLOUDEVENTS__SOURCE", "/shop").set("OUTBOX__0__COLUMNS__TIMESTAMP", "at");
        let stage =
            setup.set("OUTBOX__0__PAYLOAD_FORMAT", "json").set("OUTBOX__0__TOMBSTONE_ON_EMPTY", "true").up().await;
        let table = stage.outboxes[0].quoted();
        stage.sql([format!("ALTER TABLE {table} MODIFY payload LONGTEXT NULL, ADD tenant VARCHAR(20), ADD trace VARCHAR(60), ADD more JSON, ADD at DATETIME(3)")]).await;
        stage.create(&format!("{prefix}.acme.sales")).await;
        stage.create(&format!("{prefix}.zeta.sales")).await;
        let daemon = stage.run();
        let insert = |values: &str| {
            format!(
                "INSERT INTO {table} (id, aggregatetype, aggregateid, type, payload, tenant, trace, more, at) VALUES ({values}, '2026-11-21 10:00:00.250')"
            )
        };
        stage
            .sql([
                insert(r#"'1', 'sales.order', '7', 'Created', '{"a": [1]}', 'acme', '00-ab-cd-01', '{"tries": 2}'"#),
                insert("'2', 'sales.order', '7', 'Gone', '', 'acme', NULL, NULL"),
                insert("'3', 'sales.item', '8', 'Created', '0', 'zeta', NULL, '{}'"),
            ])
            .await;
        let events = "ce_specversion=1.0 ce_id=1 ce_source=/shop ce_type=Created ce_subject=7 ce_time=2026-11-21T10:00:00.25Z content-type=application/json";
        let acme = texts(&stage, &format!("{prefix}.acme.sales"), 2);
        assert_eq!(
            acme[0],
            format!(
                r#"7 {{"payload":{{"a": [1]}},"eventType":"Created"}} id=1 eventType=Created {events} traceparent=00-ab-cd-01 tries=2"#
            )
        );
        assert!(
            acme[1].starts_with("7 null id=2 eventType=Gone ") && acme[1].ends_with(" traceparent=null"),
            "{}",
            acme[1]
        );
        let zeta = texts(&stage, &format!("{prefix}.zeta.sales"), 1);
        assert!(zeta[0].starts_with(r#"8 {"payload":0,"eventType":"Created"} id=3"#), "{}", zeta[0]);

        // A payload that is no JSON halts the table by name, without a word of what is in it.
        stage.sql([insert("'4', 'sales.order', '7', 'Created', 'hunter2{', 'acme', NULL, NULL")]).await;
        daemon.logs("unmappable_event").await;
        let log = daemon.log();
        assert!(log.contains("column `payload` does not hold JSON") && !log.contains("hunter2"), "{log}");
        assert_eq!(daemon.terminate().await, Some(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_in_another_table_than_the_writers_rule_says_is_relayed_counted_and_named() {
    let stage = Stage::of().set("OUTBOX__0__SHARD", "crc32(aggregateid) % 4").up().await;
    let daemon = stage.run();
    for (number, key) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
        let shard: usize = stage.ask(&format!("SELECT CAST(CRC32('{key}') % 4 AS CHAR)")).await.parse().unwrap();
        stage.sql([event(shard + 1, &format!("right-{number}"), key)]).await;
        stage.delivered(&format!("right-{number}")).await;
        assert!((daemon.metric("outboxd_misrouted_events_total")).abs() < 0.5, "{key} is where it belongs");
    }
    let shard: usize = stage.ask("SELECT CAST(CRC32('a') % 4 AS CHAR)").await.parse().unwrap();
    stage.sql([event((shard + 1) % 4 + 1, "wrong", "a")]).await;
    stage.delivered("wrong").await;
    until("it is counted", async || daemon.metric("outboxd_misrouted_events_total") > 0.5).await;
    daemon.logs(&format!("event_in_wrong_shard table={} event=wrong seen=1", stage.outboxes[(shard + 1) % 4])).await;
    assert_eq!(daemon.terminate().await, Some(0));
}
