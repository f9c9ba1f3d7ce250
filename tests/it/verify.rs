//! `outboxd verify`: what is missing, duplicate, out of order or unexpected is found, and nothing else is.

use std::process::Output;

use mysql_async::prelude::Queryable;
use outboxd::table::TableName;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

use crate::order::{event, ids};
use crate::stage::{PATIENCE, Setup, Stage};

/// What it says, and the exit code.
struct Said {
    code: Option<i32>,
    report: Value,
    stderr: String,
}

impl Said {
    fn of(output: &Output) -> Self {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
        Self { code: output.status.code(), report, stderr }
    }

    /// The sum of a count over all tables.
    fn sum(&self, count: &str) -> u64 {
        let tables = self.report["tables"].as_array().unwrap();
        tables.iter().map(|table| table[count].as_u64().unwrap()).sum()
    }

    /// The same over all topics.
    fn of_topics(&self, count: &str) -> u64 {
        let topics = self.report["topics"].as_array().unwrap();
        topics.iter().map(|topic| topic[count].as_u64().unwrap()).sum()
    }

    /// Missing, duplicate, out of order, unexpected.
    fn differences(&self) -> [u64; 4] {
        [self.sum("missing"), self.sum("duplicates"), self.sum("out_of_order"), self.of_topics("unexpected")]
    }

    /// Ids of the findings of a kind.
    fn found(&self, kind: &str) -> Vec<&str> {
        let findings = self.report["findings"].as_array().unwrap().iter();
        findings.filter(|finding| finding["kind"] == kind).map(|finding| finding["id"].as_str().unwrap()).collect()
    }

    #[track_caller]
    fn is_clean(&self) {
        assert_eq!(
            (self.code, &self.report["verdict"]),
            (Some(0), &"clean".into()),
            "{}\n{}",
            self.report,
            self.stderr
        );
    }
}

async fn verify(stage: &Stage, arguments: &[&str]) -> Said {
    let mut command = stage.outboxd(&["verify", "--format", "json"]);
    command.args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    Said::of(&output)
}

/// The relay takes everything up to here for published.
async fn pass_over(stage: &Stage) {
    let mut conn = stage.connect().await;
    let version: String = conn.query_first("SELECT VERSION()").await.unwrap().unwrap();
    let position = if version.contains("MariaDB") {
        format!("domains={}", stage.ask("SELECT @@GLOBAL.gtid_binlog_pos").await)
    } else if stage.ask("SELECT @@GLOBAL.gtid_mode").await == "ON" {
        format!("gtid={}", stage.ask("SELECT REPLACE(@@GLOBAL.gtid_executed, '\\n', '')").await)
    } else {
        let end: mysql_async::Row = conn.query_first("SHOW BINARY LOG STATUS").await.unwrap().unwrap();
        format!("file={}:{}", end.get::<String, _>(0).unwrap(), end.get::<u64, _>(1).unwrap())
    };
    let moved = format!("UPDATE outboxd.outboxd_positions SET position = '{position}'");
    conn.query_drop(moved).await.unwrap();
    conn.disconnect().await.unwrap();
}

/// Relays these events, and stops.
async fn relay(stage: &Stage, events: &[(&str, &str)]) {
    let daemon = stage.run();
    daemon.ready().await;
    stage.sql(events.iter().map(|(id, key)| event(1, id, key))).await;
    for (id, _) in events {
        stage.delivered(id).await;
    }
    assert_eq!(daemon.terminate().await, Some(0));
}

/// Commits events that the relay never sees.
async fn lose(stage: &Stage, events: &[(&str, &str)]) {
    stage.sql(events.iter().map(|(id, key)| event(1, id, key))).await;
    pass_over(stage).await;
}

/// A record that no relay made.
async fn produce(stage: &Stage, id: &str, key: &str) {
    let bootstrap = format!("127.0.0.1:{}", stage.kafka_port());
    let producer: FutureProducer = ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    let headers = OwnedHeaders::new().insert(Header { key: "id", value: Some(id) });
    let record = FutureRecord::to(&stage.topic).key(key).payload("{}").headers(headers);
    producer.send(record, PATIENCE).await.unwrap();
}

fn admin(stage: &Stage) -> AdminClient<DefaultClientContext> {
    let bootstrap = format!("127.0.0.1:{}", stage.kafka_port());
    ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap()
}

fn one(setup: Setup) -> Setup {
    setup.shards(1).partitions(1)
}

/// Given writers and a relay at work, when compared meanwhile and afterwards, then there is no difference.
async fn finds_nothing(setup: Setup, seed: u64) {
    let stage = setup.up().await;
    let writing = stage.write(seed).await;
    let daemon = stage.run();
    daemon.ready().await;
    for _ in 0..3 {
        writing.more(200).await;
        let meanwhile = verify(&stage, &[]).await;
        meanwhile.is_clean();
        assert!(meanwhile.sum("committed") > 0);
    }
    let journal = writing.stop().await;
    stage.judge(&journal, daemon).await;
    let said = verify(&stage, &["--table", "delivery.*"]).await;
    said.is_clean();
    let all = journal.committed().count() as u64;
    assert_eq!((said.sum("committed"), said.sum("delivered"), said.sum("in_flight")), (all, all, 0));
    assert_eq!((said.differences(), said.of_topics("unknown")), ([0; 4], 0));
    // One of the tables: the records of the others are expected all the same.
    let some = verify(&stage, &["--table", "delivery.delivery-outbox2"]).await;
    some.is_clean();
    assert_eq!(some.report["tables"].as_array().unwrap().len(), 1);
    assert!(some.sum("committed") < all && some.of_topics("records") == all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_at_work_has_no_difference() {
    finds_nothing(Stage::of(), 71).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_at_work_has_no_difference_on_mariadb() {
    finds_nothing(Stage::of().server("mariadb-11.8"), 72).await;
}

/// Given one of each, when compared, then each is told; when repaired, then nothing is missing.
async fn finds_each(setup: Setup) {
    let stage = one(setup).up().await;
    relay(&stage, &[("first", "k"), ("second", "k")]).await;
    lose(&stage, &[("lost", "k"), ("early", "p"), ("late", "p")]).await;
    produce(&stage, "late", "p").await;
    produce(&stage, "early", "p").await;
    relay(&stage, &[("newer", "k")]).await;
    produce(&stage, "first", "k").await;
    produce(&stage, "ghost", "k").await;
    stage.sql([event(1, "waiting", "k")]).await;
    let said = verify(&stage, &[]).await;
    assert_eq!((said.code, said.differences()), (Some(2), [1, 1, 1, 1]), "{}", said.report);
    assert_eq!((said.sum("committed"), said.sum("in_flight"), said.sum("overtaken")), (7, 1, 1));
    let found = ["missing", "duplicate", "out_of_order", "unexpected"].map(|kind| said.found(kind));
    assert_eq!(found, [["lost"], ["first"], ["early"], ["ghost"]]);
    let finding = &said.report["findings"][0];
    assert_eq!((&finding["aggregate"], &finding["table"]), (&"k".into(), &"delivery.delivery-outbox1".into()));
    // Nobody says yes.
    let asked = verify(&stage, &["--repair"]).await;
    assert_eq!((asked.code, asked.report["repaired"].as_u64()), (Some(2), Some(0)));
    assert!(asked.stderr.contains("--yes"), "{}", asked.stderr);
    let repaired = verify(&stage, &["--repair", "--yes"]).await;
    assert_eq!((repaired.code, repaired.report["repaired"].as_u64()), (Some(2), Some(1)), "the others stay");
    assert!(repaired.stderr.contains("repair_published"), "{}", repaired.stderr);
    let records = stage.records().await;
    let (lost, newer) = (records.last().unwrap(), &records[4]);
    assert_eq!((&*lost.event_id, &*lost.key, lost.payload), ("lost", "k", newer.payload));
    assert!(lost.timestamp_millis <= newer.timestamp_millis, "it has the time of its commit");
    let again = verify(&stage, &[]).await;
    assert_eq!((again.code, again.differences(), again.sum("published_again")), (Some(2), [0, 1, 1, 1], 1));
    // The relay goes on where it was.
    relay(&stage, &[("after", "k")]).await;
    assert_eq!(ids(&stage.records().await).iter().filter(|id| **id == "lost").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_difference_is_found_and_what_is_missing_is_repaired() {
    finds_each(Stage::of()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_difference_is_found_without_gtids() {
    finds_each(Stage::of().without_gtids()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_difference_is_found_on_mariadb() {
    finds_each(Stage::of().server("mariadb-10.11")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_repaired_and_then_there_is_no_difference() {
    let stage = one(Stage::of()).up().await;
    relay(&stage, &[("a", "k")]).await;
    // More than is in flight at once, in a transaction that is larger than what is held.
    let many: Vec<_> = (0..3_000).map(|number| format!("lost-{number:05}")).collect();
    let inserts = many.iter().map(|id| event(1, id, "k"));
    stage.sql(["BEGIN".to_owned()].into_iter().chain(inserts).chain(["COMMIT".to_owned()])).await;
    pass_over(&stage).await;
    relay(&stage, &[("b", "other")]).await;
    let said = verify(&stage, &["--repair", "--yes", "--examples", "2"]).await;
    said.is_clean();
    assert_eq!((said.report["repaired"].as_u64(), said.sum("overtaken")), (Some(3_000), 0));
    assert_eq!(said.found("missing").len(), 2);
    let records = stage.records().await;
    assert_eq!(ids(&records)[2..], many, "in commit order");
    verify(&stage, &[]).await.is_clean();
}

/// Given keys that the server shows in another way than the log has them, when compared, then they are the same.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_shown_with_zeros_are_those_of_the_log() {
    for server in ["mysql-9.7", "mariadb-11.8"] {
        let stage = one(Stage::of().server(server)).up().await;
        stage.sql(["ALTER TABLE delivery.`delivery-outbox1` MODIFY aggregateid INT(9) ZEROFILL NOT NULL"]).await;
        relay(&stage, &[("first", "42"), ("second", "42"), ("third", "7")]).await;
        let said = verify(&stage, &[]).await;
        said.is_clean();
        assert_eq!((said.sum("committed"), said.sum("delivered")), (3, 3), "{server}");
        // Only the table has them.
        stage.sql(["FLUSH BINARY LOGS"]).await;
        relay(&stage, &[("fourth", "42")]).await;
        stage.purge().await;
        let said = verify(&stage, &[]).await;
        assert_eq!((said.code, said.differences()), (Some(0), [0; 4]), "{server}: {}", said.report);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_neither_log_nor_table_nor_topic_still_has_is_not_guessed() {
    let stage = one(Stage::of()).up().await;
    relay(&stage, &[("cleaned-1", "k"), ("cleaned-2", "k"), ("kept", "k")]).await;
    lose(&stage, &[("lost", "k")]).await;
    stage.sql(["DELETE FROM delivery.`delivery-outbox1` WHERE id LIKE 'cleaned%'"]).await;
    // What was deleted from the table is known from the log.
    let said = verify(&stage, &[]).await;
    assert_eq!((said.code, said.sum("committed"), said.differences()), (Some(2), 4, [1, 0, 0, 0]));
    assert_eq!(said.found("missing"), ["lost"]);
    // Only the table has what was committed before.
    stage.sql(["FLUSH BINARY LOGS"]).await;
    relay(&stage, &[("newest", "k")]).await;
    stage.purge().await;
    let said = verify(&stage, &[]).await;
    assert_eq!((said.code, said.found("missing")), (Some(2), vec!["lost"]));
    assert_eq!((said.sum("missing_beyond_log"), said.of_topics("unknown"), said.of_topics("unexpected")), (1, 2, 0));
    // Nor does the topic have it any more.
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&stage.topic, 0, Offset::Offset(2)).unwrap();
    admin(&stage).delete_records(&list, &AdminOptions::new()).await.unwrap();
    let said = verify(&stage, &[]).await;
    said.is_clean();
    assert_eq!((said.sum("expired"), said.sum("delivered")), (1, 2));
}

/// Given missing rows that the table alone has, and one that the log has, when repaired, then each comes once, as the relay
/// would have published it, with the mark of a repair.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_table_has_is_repaired_from_there() {
    for setup in [Stage::of(), Stage::of().without_gtids(), Stage::of().server("mariadb-11.8")] {
        let stage = one(setup).up().await;
        relay(&stage, &[("a", "k")]).await;
        let many: Vec<_> = (0..500).map(|number| format!("lost-{number:03}")).collect();
        let lost: Vec<_> = many.iter().map(|id| (id.as_str(), "p")).collect();
        lose(&stage, &lost).await;
        stage.sql(["FLUSH BINARY LOGS"]).await;
        relay(&stage, &[("b", "k")]).await;
        stage.purge().await;
        lose(&stage, &[("late", "p")]).await;
        let said = verify(&stage, &["--repair", "--yes"]).await;
        assert_eq!(
            (said.code, said.sum("missing"), said.sum("missing_beyond_log")),
            (Some(0), 501, 500),
            "{}",
            said.stderr
        );
        assert_eq!(said.report["repaired"].as_u64(), Some(501));
        let records = stage.records().await;
        assert_eq!(ids(&records)[2..502], many, "in the order of the table's key");
        assert_eq!((ids(&records)[502], records.len()), ("late", 503));
        assert_eq!(records[2].payload, records[502].payload);
        let said = verify(&stage, &[]).await;
        said.is_clean();
        assert_eq!((said.sum("published_again"), said.sum("duplicates")), (501, 0));
    }
}

/// Given a table that began with its rows while the log has them too, when compared, then the order of those rows, which is
/// that of their keys, is no difference.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_first_start_have_no_order_to_be_compared() {
    let stage = one(Stage::of()).set("OUTBOX__0__START", "snapshot").up().await;
    let numbered = |seq: u32, id: &str| {
        event(1, id, "k").replace("(id,", "(seq, id,").replace("VALUES (", &format!("VALUES ({seq}, "))
    };
    stage.sql([numbered(3, "first"), numbered(2, "second"), numbered(1, "third")]).await;
    relay(&stage, &[("last", "k")]).await;
    assert_eq!(ids(&stage.records().await), ["third", "second", "first", "last"]);
    let said = verify(&stage, &[]).await;
    said.is_clean();
    assert_eq!((said.sum("committed"), said.sum("out_of_order")), (4, 0));
}

/// Given an older file of the log that is damaged, when compared since a time after it, then it is not read.
#[tokio::test(flavor = "multi_thread")]
async fn older_files_of_the_log_are_not_read_when_a_time_is_given() {
    for setup in [Stage::of(), Stage::of().without_gtids(), Stage::of().server("mariadb-10.11")] {
        let stage = one(setup).up().await;
        relay(&stage, &[("to-be-damaged", "k")]).await;
        let file = stage.mysql.dir().join("data").join(stage.newest_log().await);
        stage.sql(["FLUSH BINARY LOGS"]).await;
        relay(&stage, &[("b", "k")]).await;
        verify(&stage, &["--since", "1h"]).await.is_clean();
        let mut bytes = std::fs::read(&file).unwrap();
        let at = bytes.windows(13).rposition(|text| text == b"to-be-damaged").unwrap();
        bytes[at] ^= 1;
        std::fs::write(&file, &bytes).unwrap();
        let read = stage.outboxd(&["verify", "--since", "1h"]).output().unwrap();
        assert!(String::from_utf8_lossy(&read.stderr).contains("damaged_event"), "{read:?}");
        let later = verify(&stage, &["--since", "2100-01-01T00:00:00Z"]).await;
        later.is_clean();
        assert_eq!((later.sum("committed"), later.of_topics("unexpected")), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_lost_records_is_not_taken_for_one_that_never_had_them() {
    // This server lets a session say when it commits: the beginning is lost further back than commit times may interleave.
    let stage = one(Stage::of().server("mariadb-11.8")).up().await;
    let daemon = stage.run();
    daemon.ready().await;
    let past = "SET timestamp = UNIX_TIMESTAMP() - 3600".to_owned();
    stage.sql([past, event(1, "old", "k"), event(1, "next", "k")]).await;
    stage.delivered("next").await;
    assert_eq!(daemon.terminate().await, Some(0));
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&stage.topic, 0, Offset::Offset(1)).unwrap();
    admin(&stage).delete_records(&list, &AdminOptions::new()).await.unwrap();
    lose(&stage, &[("lost", "k")]).await;
    relay(&stage, &[("newest", "k")]).await;
    let said = verify(&stage, &[]).await;
    assert_eq!((said.code, said.found("missing"), said.sum("expired")), (Some(2), vec!["lost"], 1));
    let topic = ResourceSpecifier::Topic(&stage.topic);
    let compact = AlterConfig::new(topic).set("cleanup.policy", "compact");
    admin(&stage).alter_configs([&compact], &AdminOptions::new()).await.unwrap();
    let said = verify(&stage, &[]).await;
    said.is_clean();
    assert_eq!((said.sum("compacted"), said.sum("expired")), (1, 1));
}

/// Given a transaction that is only prepared, when compared, then it is not waited for; when it is committed, then it is in
/// flight.
async fn leaves_out_what_is_prepared(setup: Setup) {
    let stage = one(setup).up().await;
    relay(&stage, &[("a", "k")]).await;
    stage.sql(["XA START 'x'", &event(1, "prepared", "k"), "XA END 'x'", "XA PREPARE 'x'"]).await;
    let said = verify(&stage, &[]).await;
    said.is_clean();
    assert_eq!(said.sum("committed"), 1);
    stage.sql(["XA COMMIT 'x'"]).await;
    let said = verify(&stage, &[]).await;
    said.is_clean();
    assert_eq!((said.sum("committed"), said.sum("in_flight")), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_transaction_is_not_waited_for() {
    leaves_out_what_is_prepared(Stage::of()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_transaction_is_not_waited_for_on_mariadb() {
    leaves_out_what_is_prepared(Stage::of().server("mariadb-11.8")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_before_the_time_or_position_given_is_not_asked_after() {
    let stage = one(Stage::of()).up().await;
    relay(&stage, &[("a", "k")]).await;
    lose(&stage, &[("lost", "k")]).await;
    let position = format!("gtid={}", stage.ask("SELECT REPLACE(@@GLOBAL.gtid_executed, '\\n', '')").await);
    let time = jiff::Timestamp::now().to_string();
    relay(&stage, &[("b", "k"), ("c", "k")]).await;
    assert_eq!(verify(&stage, &["--since", "1h"]).await.found("missing"), ["lost"]);
    let by_time = verify(&stage, &["--since", &time]).await;
    by_time.is_clean();
    assert_eq!((by_time.sum("committed"), by_time.of_topics("unexpected")), (2, 0));
    let by_position = verify(&stage, &["--since", &position]).await;
    by_position.is_clean();
    assert_eq!((by_position.sum("committed"), by_position.of_topics("unexpected")), (2, 0));
    let wrong = stage.outboxd(&["verify", "--since", "domains=0-1-1"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(64), "{}", String::from_utf8_lossy(&wrong.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_of_a_template_are_compared_and_duplicates_are_differences_exactly_once() {
    let tables = vec![TableName::new("delivery", "delivery-outbox1")];
    let setup = Stage::of()
        .own_kafka()
        .topic("delivery")
        .partitions(1)
        .tables("delivery.delivery-outbox1", tables)
        .set("OUTBOX__0__TOPIC", "{aggregatetype}")
        .set("KAFKA__CREATE_TOPICS", "true")
        .set("KAFKA__REPLICATION_FACTOR", "1")
        .set("DELIVERY__GUARANTEE", "exactly_once");
    let stage = setup.up().await;
    relay(&stage, &[("a", "k"), ("b", "k")]).await;
    let said = verify(&stage, &["--memory", "4MiB"]).await;
    said.is_clean();
    assert_eq!((said.sum("delivered"), said.of_topics("records")), (2, 2));
    produce(&stage, "a", "k").await;
    let said = verify(&stage, &[]).await;
    assert_eq!((said.code, said.differences(), said.found("duplicate")), (Some(2), [0, 1, 0, 0], vec!["a"]));
    let text = String::from_utf8(stage.outboxd(&["verify"]).output().unwrap().stdout).unwrap();
    assert!(text.contains("duplicate") && text.contains("✗ what is committed and what is in Kafka differ"), "{text}");
}
