//! Rows larger than any limit of memory, up to what a server sends at all.

use std::process::Command;

use mysql_async::prelude::Queryable;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;

use crate::stage::Stage;

/// What the daemon takes besides one row that is larger than every limit.
const BOUND: u64 = 160 << 20;

/// Bytes of a payload that no broker takes. `OUTBOXD_TEST_ROW` plays another size.
const HUGE: u64 = 300 << 20;

fn huge() -> u64 {
    std::env::var("OUTBOXD_TEST_ROW").map_or(HUGE, |size| size.parse().unwrap())
}

async fn insert(stage: &Stage, shard: usize, id: &str, bytes: u64) {
    let table = stage.outboxes[shard].quoted();
    // A session of its own, for what it may take is settled when it begins.
    let mut conn = stage.connect().await;
    let row = format!(
        "INSERT INTO {table} (id, aggregatetype, aggregateid, type, payload) VALUES ('{id}', 'a', 'k', 'T', REPEAT('x', {bytes}))"
    );
    conn.query_drop(row).await.unwrap();
    conn.disconnect().await.unwrap();
}

async fn with_long_texts(server: &'static str) -> Stage {
    let stage = Stage::of().server(server).shards(2).setting("max_allowed_packet=1G").up().await;
    stage.sql(stage.outboxes.iter().map(|t| format!("ALTER TABLE {} MODIFY payload LONGTEXT", t.quoted()))).await;
    stage
}

async fn a_huge_row_halts_its_table_alone(server: &'static str) {
    let (stage, size) = (with_long_texts(server).await, huge());
    insert(&stage, 0, "huge", size).await;
    insert(&stage, 1, "next", 10).await;
    let daemon = stage.run();
    daemon.logs("relay_halted table=delivery.delivery-outbox1 reason=\"record_too_large\"").await;
    stage.delivered("next").await;
    let peak = daemon.peak_memory();
    eprintln!("{server}: a row of {} MiB: peak {} MiB", size >> 20, peak >> 20);
    assert!(peak < 2 * size + BOUND, "{} MiB", peak >> 20);
    assert_eq!(daemon.terminate().await, Some(1));

    is_whole_in_the_files(&stage, size).await;
}

/// `outboxd decode` prints all of a row, whose payload is the only place where there are so many letters. MariaDB 11.8 makes
/// a file of its own of a large transaction.
async fn is_whole_in_the_files(stage: &Stage, size: u64) {
    stage.sql(["FLUSH BINARY LOGS"]).await;
    let logs: Vec<mysql_async::Row> = stage.connect().await.query("SHOW BINARY LOGS").await.unwrap();
    let data = stage.mysql.dir().join("data");
    let (_, whole) = logs.split_last().unwrap();
    let files = whole.iter().map(|log| data.join(log.get::<String, _>(0).unwrap()));
    let mut decode = Command::new(env!("CARGO_BIN_EXE_outboxd"));
    let decoded = decode.arg("decode").args(files).args(["--tables", "*.*box1"]).output().unwrap();
    assert_eq!(decoded.status.code(), Some(0), "{}", String::from_utf8_lossy(&decoded.stderr));
    let written = std::str::from_utf8(&decoded.stdout).unwrap().matches('x').count();
    assert!(written as u64 >= size && (written as u64) < size + 100, "{written}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_larger_than_kafka_takes_halts_its_table_by_name_and_no_other_on_mysql() {
    a_huge_row_halts_its_table_alone("mysql-9.7").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_larger_than_kafka_takes_halts_its_table_by_name_and_no_other_on_mariadb() {
    a_huge_row_halts_its_table_alone("mariadb-11.8").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_larger_than_every_limit_of_memory_travel_one_by_one() {
    let stage = with_long_texts("mysql-9.7").await;
    let bytes = (40_u32 << 20).to_string();
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", format!("127.0.0.1:{}", stage.kafka_port())).create().unwrap();
    let alter = AlterConfig::new(ResourceSpecifier::Topic(&stage.topic)).set("max.message.bytes", &bytes);
    admin.alter_configs([&alter], &AdminOptions::new()).await.unwrap();
    // Larger than relay.queue_bytes, relay.in_flight_bytes and relay.transaction_hold_bytes.
    for n in 0..6 {
        insert(&stage, 0, &format!("large-{n}"), 20 << 20).await;
        insert(&stage, 0, &format!("small-{n}"), 10).await;
    }
    let daemon = stage.run_with(&[("KAFKA__PROPERTIES__MESSAGE_MAX_BYTES", &bytes)]);
    stage.delivered("small-5").await;
    let peak = daemon.peak_memory();
    eprintln!("rows of 20 MiB: peak {} MiB", peak >> 20);
    assert!(peak < BOUND + (60 << 20), "{} MiB", peak >> 20);
    assert_eq!(daemon.terminate().await, Some(0));
    let records = stage.records().await;
    let ids: Vec<_> = records.iter().map(|record| record.event_id.to_string()).collect();
    let expected: Vec<_> = (0..6).flat_map(|n| [format!("large-{n}"), format!("small-{n}")]).collect();
    assert_eq!(ids, expected);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes and gigabytes"]
async fn an_event_that_the_server_does_not_send_halts_by_name() {
    for server in ["mysql-9.7", "mariadb-11.8"] {
        let stage = with_long_texts(server).await;
        insert(&stage, 0, "before", 10).await;
        insert(&stage, 0, "huge", 1 << 30).await;
        let daemon = stage.run();
        stage.delivered("before").await;
        daemon.logs("relay_halted table=delivery.delivery-outbox1 reason=\"event_too_large\"").await;
        daemon.logs("relay_halted table=delivery.delivery-outbox2 reason=\"event_too_large\"").await;
        is_whole_in_the_files(&stage, 1 << 30).await;
    }
}
