//! Going on where a Debezium connector has stopped.

use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::util::Timeout;

use crate::order::{event, ids};
use crate::stage::{Setup, Stage};

/// What Connect writes into its topic of offsets.
fn leave_offset(stage: &Stage, topic: &str, connector: &str, offset: &str) {
    let config = [("bootstrap.servers".to_owned(), stage.bootstrap())];
    let producer: BaseProducer = ClientConfig::from_iter(config).create().unwrap();
    let key = format!(r#"["{connector}",{{"server":"{connector}"}}]"#);
    producer.send(BaseRecord::to(topic).key(&key).payload(offset)).map_err(|(error, _)| error).unwrap();
    producer.flush(Timeout::After(Duration::from_secs(30))).unwrap();
}

/// The exit code, and all that is said.
fn import(stage: &Stage, topic: &str, more: &[&str]) -> (Option<i32>, String) {
    let output = stage.outboxd(&[&["import-debezium", "--topic", topic], more].concat()).output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code(), text)
}

/// A daemon relays what comes next of both tables, and nothing else.
async fn next_is_relayed(stage: &Stage) {
    let daemon = stage.run();
    stage.delivered("next-1").await;
    stage.delivered("next-2").await;
    assert_eq!(daemon.terminate().await, Some(0));
    let records = stage.records().await;
    let mut ids = ids(&records);
    ids.sort_unstable();
    assert_eq!(ids, ["next-1", "next-2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_go_on_where_a_connector_has_stopped() {
    let mariadb = Stage::of().server("mariadb-11.8");
    for (setup, kind) in [(Stage::of(), "gtid="), (Stage::of().without_gtids(), "file="), (mariadb, "domains=")] {
        goes_on(setup, kind).await;
    }
}

async fn goes_on(setup: Setup, kind: &str) {
    let stage = setup.shards(2).up().await;
    let topic = format!("connect-offsets-{}", fastrand::u32(..));
    stage.create(&topic).await;
    stage.sql([event(1, "published-1", "k"), event(2, "published-2", "k")]).await;
    let logs: Vec<mysql_async::Row> = {
        use mysql_async::prelude::Queryable;
        stage.connect().await.query("SHOW BINARY LOGS").await.unwrap()
    };
    let (file, pos): (String, u64) = (logs.last().unwrap().get(0).unwrap(), logs.last().unwrap().get(1).unwrap());
    let gtids = match kind {
        "gtid=" => stage.ask("SELECT @@GLOBAL.gtid_executed").await,
        "domains=" => stage.ask("SELECT @@GLOBAL.gtid_binlog_pos").await,
        _ => String::new(),
    };
    let gtids = if gtids.is_empty() { String::new() } else { format!(r#","gtids":"{}""#, gtids.replace('\n', "")) };
    let offset = format!(
        r#"{{"transaction_id":null,"ts_sec":1,"file":"{file}","pos":{pos}{gtids},"row":1,"server_id":1,"event":2}}"#
    );
    leave_offset(&stage, &topic, "delivery", &offset.replace(&file, "binlog.000000"));
    leave_offset(&stage, &topic, "delivery", &offset);
    leave_offset(&stage, &topic, "snapshotting", &offset.replace("\"row\"", "\"snapshot\":\"INITIAL\",\"row\""));
    stage.sql([event(1, "next-1", "k"), event(2, "next-2", "k")]).await;

    let import = |more: &[&str]| import(&stage, &topic, more);
    let several = import(&[]);
    assert!(several.0 == Some(65) && several.1.contains("delivery, snapshotting"), "{several:?}");
    let unfinished = import(&["--connector", "snapshotting"]);
    assert!(unfinished.0 == Some(65) && unfinished.1.contains("has not finished its snapshot"), "{unfinished:?}");
    let all = ["--connector", "delivery", "--table", "delivery.delivery-outbox{1..2}"];
    let dry = import(&[&all[..], &["--dry-run"]].concat());
    assert!(dry.0 == Some(0) && dry.1.contains(kind) && dry.1.contains("would start there"), "{dry:?}");
    assert!(!stage.positions().contains(kind), "nothing is saved: {}", stage.positions());
    let imported = import(&all);
    assert!(imported.0 == Some(0) && imported.1.matches(": starts there").count() == 2, "{imported:?}");
    let again = import(&["--connector", "delivery"]);
    assert!(again.0 == Some(0) && again.1.matches("left alone").count() == 2, "{again:?}");

    next_is_relayed(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_table_goes_on_where_its_own_connector_has_stopped() {
    // Given a connector per table, and the second one stopped before the first.
    let stage = Stage::of().shards(2).up().await;
    let topic = format!("connect-offsets-{}", fastrand::u32(..));
    stage.create(&topic).await;
    let stopped = async |connector: &str| {
        let gtids = stage.ask("SELECT @@GLOBAL.gtid_executed").await.replace('\n', "");
        leave_offset(&stage, &topic, connector, &format!(r#"{{"file":"binlog.000001","pos":4,"gtids":"{gtids}"}}"#));
    };
    stage.sql([event(2, "published-2", "k")]).await;
    stopped("c2").await;
    stage.sql([event(2, "next-2", "k"), event(1, "published-1", "k")]).await;
    stopped("c1").await;
    stage.sql([event(1, "next-1", "k")]).await;

    // When each is imported; without its table it is refused, and nothing is saved.
    let import = |more: &[&str]| import(&stage, &topic, more);
    let refused = import(&["--connector", "c1"]);
    assert!(refused.0 == Some(64) && refused.1.contains("(c1, c2)") && refused.1.contains("--table"), "{refused:?}");
    assert!(!stage.positions().contains("gtid="), "nothing is saved: {}", stage.positions());
    for (connector, table) in [("c1", "delivery.delivery-outbox1"), ("c2", "delivery.delivery-outbox2")] {
        let imported = import(&["--connector", connector, "--table", table]);
        let starts = format!("{table}: starts there");
        assert!(imported.0 == Some(0) && imported.1.contains(&starts), "{imported:?}");
        assert_eq!(imported.1.matches(": starts there").count(), 1, "{imported:?}");
    }

    // Then nothing of either is left out or repeated.
    next_is_relayed(&stage).await;
}
