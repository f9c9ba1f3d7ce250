//! `outboxd check` on servers that are set up wrongly, one thing at a time: it finds that, and its cure cures it.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use rdkafka::Message;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use crate::daemon::Daemon;
use crate::stage::{self, PATIENCE, Stage, free_port};

type Environment<'a> = &'a [(&'a str, &'a str)];

/// What came out: the exit code, and everything that was printed.
struct Outcome {
    code: Option<i32>,
    shown: Value,
}

impl Outcome {
    fn of(stage: &Stage, environment: Environment<'_>) -> Self {
        let output = stage.outboxd(&["check", "--format", "json"]).envs(environment.iter().copied()).output().unwrap();
        let shown = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        Self { code: output.status.code(), shown }
    }

    /// Name, status and cure of what did not pass; but for the one replica of a cluster of one broker.
    fn found(&self) -> Vec<[String; 3]> {
        let checks = self.shown["checks"].as_array().unwrap();
        let text = |check: &Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
        let all = checks.iter().map(|check| ["name", "status", "cure"].map(|key| text(check, key)));
        all.filter(|[name, status, _]| status != "passed" && name != "replication_factor").collect()
    }

    /// The only thing that did not pass has this name and status; gives its cure.
    #[track_caller]
    fn only(&self, name: &str, status: &str) -> String {
        let found = self.found();
        assert!(matches!(&found[..], [one] if one[0] == name && one[1] == status), "{found:#?}");
        assert_eq!(self.code, Some(if status == "failed" { 78 } else { 0 }));
        found[0][2].clone()
    }
}

async fn run(conn: &mut Conn, sql: &str) {
    conn.query_drop(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// A cure begins with the statement; advice may follow it.
fn statement(cure: &str) -> &str {
    cure.split("; ").next().unwrap()
}

fn admin(stage: &Stage) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", format!("127.0.0.1:{}", stage.kafka_port())).create().unwrap()
}

fn start(stage: &Stage, environment: Environment<'_>) -> Daemon {
    Daemon::spawn(stage.outboxd(&["run"]).envs(environment.iter().copied()))
}

/// Checks until the outcome is as it should become.
async fn until(stage: &Stage, environment: Environment<'_>, good: impl Fn(&Outcome) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let outcome = Outcome::of(stage, environment);
        if good(&outcome) {
            return;
        }
        assert!(Instant::now() < deadline, "{:#}", outcome.shown);
        sleep(std::time::Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_found_and_its_cure_cures_it() {
    let stage = Stage::of().own_kafka().topic("delivery").up().await;
    let mut conn = Conn::new(stage.opts()).await.unwrap();

    // A fresh stage: JSON columns are wider than records may be. The shape is for scripts.
    let fresh = Outcome::of(&stage, &[]);
    let cure = fresh.only("max_message_bytes", "warned");
    assert_eq!(fresh.shown["verdict"], "warned");
    assert_eq!(fresh.shown["unavailable"], Value::Array(Vec::new()));
    let log_bin = fresh.shown["checks"].as_array().unwrap().iter().find(|check| check["name"] == "log_bin").unwrap();
    assert_eq!(
        log_bin.to_string(),
        r#"{"cure":null,"expected":"ON","found":"ON","name":"log_bin","setting":"log_bin","status":"passed"}"#
    );
    let bytes = cure.split("max.message.bytes=").nth(1).unwrap().split(';').next().unwrap().to_owned();
    assert!(cure.contains(&format!("\"message.max.bytes\" = {bytes}")), "{cure}");
    let alter = AlterConfig::new(ResourceSpecifier::Topic("delivery")).set("max.message.bytes", &bytes);
    admin(&stage).alter_configs([&alter], &AdminOptions::new()).await.unwrap();
    let wide = [("OUTBOXD__KAFKA__PROPERTIES__MESSAGE_MAX_BYTES", bytes.as_str())];
    until(&stage, &wide, |outcome| outcome.found().is_empty()).await;

    // Statements break it, and statements cure it.
    for (wrong, name) in [
        ("SET GLOBAL binlog_row_image = 'MINIMAL'", "binlog_row_image"),
        ("ALTER TABLE delivery.`delivery-outbox1` DROP COLUMN payload", "columns"),
        ("ALTER TABLE delivery.`delivery-outbox2` ENGINE = MyISAM", "engine"),
    ] {
        run(&mut conn, wrong).await;
        let cure = Outcome::of(&stage, &wide).only(name, "failed");
        if name == "engine" {
            let only = ("OUTBOXD__OUTBOX__0__TABLES", "delivery.delivery-outbox2");
            let mut refused = start(&stage, &[only]);
            assert_eq!(refused.ended().await, Some(78), "run refuses too when no other table is left");
            let text = String::from_utf8(stage.outboxd(&["check"]).output().unwrap().stdout).unwrap();
            let told = "✗ failed: engine of delivery.delivery-outbox2\n";
            assert!(text.contains(told) && !text.contains('\u{1b}'), "{text}");
        }
        run(&mut conn, statement(&cure)).await;
        assert!(Outcome::of(&stage, &wide).found().is_empty(), "{cure}");
    }
    run(&mut conn, "DROP TABLE delivery.`delivery-outbox3`").await;
    assert_eq!(Outcome::of(&stage, &wide).only("table", "failed"), "outboxd migrate");
    assert!(stage.outboxd(&["migrate"]).status().unwrap().success());
    assert!(Outcome::of(&stage, &wide).found().is_empty());

    // Somebody without grants; what is granted by the cures is enough.
    run(&mut conn, "CREATE USER poor IDENTIFIED BY 'poor-secret'").await;
    let url = format!("mysql://poor@127.0.0.1:{}", stage.mysql.port());
    let poor = [wide[0], ("OUTBOXD__MYSQL__URL", url.as_str()), ("OUTBOXD__MYSQL__PASSWORD", "poor-secret")];
    let outcome = Outcome::of(&stage, &poor);
    let names: Vec<_> = outcome.found().into_iter().map(|[name, ..]| name).collect();
    assert_eq!(names, ["grants", "grants", "table", "table", "table", "table", "position_table"]);
    assert!(!outcome.shown.to_string().contains("poor-secret"));
    for [_, _, cure] in outcome.found() {
        run(&mut conn, statement(&cure)).await;
    }
    assert_eq!(Outcome::of(&stage, &poor).found(), Vec::<[String; 3]>::new());

    // A position from before everything that is purged.
    run(
        &mut conn,
        "INSERT INTO outboxd.outboxd_positions (table_name, epoch, owner, position) VALUES ('delivery.delivery-outbox4', 1, \
         '', 'gtid=')",
    )
    .await;
    run(&mut conn, "FLUSH BINARY LOGS").await;
    let logs: Vec<(String, u64, String)> = conn.query("SHOW BINARY LOGS").await.unwrap();
    run(&mut conn, &format!("PURGE BINARY LOGS TO '{}'", logs.last().unwrap().0)).await;
    let cure = Outcome::of(&stage, &wide).only("position", "failed");
    let told: Vec<_> = cure.split_once("outboxd ").unwrap().1.split(' ').chain(["--yes"]).collect();
    assert!(stage.outboxd(&told).envs(wide).status().unwrap().success(), "{cure}");
    assert!(Outcome::of(&stage, &wide).found().is_empty(), "{cure}");

    // Ids: the server's own; a live daemon's, which may be ours; a killed daemon's, which the server forgets.
    let own: Option<u32> = conn.query_first("SELECT @@server_id").await.unwrap();
    let own = own.unwrap().to_string();
    let cure = Outcome::of(&stage, &[wide[0], ("OUTBOXD__MYSQL__SERVER_ID", &own)]).only("server_id", "failed");
    assert!(cure.contains("leave it out"), "{cure}");
    let as_77 = [wide[0], ("OUTBOXD__MYSQL__SERVER_ID", "77"), ("OUTBOXD__MYSQL__HEARTBEAT", "1s")];
    let is_warned =
        |outcome: &Outcome| matches!(&outcome.found()[..], [one] if one[0] == "server_id" && one[1] == "warned");
    let daemon = start(&stage, &as_77);
    until(&stage, &as_77, is_warned).await;
    daemon.kill();
    let again = start(&stage, &as_77);
    until(&stage, &as_77, is_warned).await;
    assert_eq!(again.terminate().await, Some(0));

    // A topic that is not there is created by a start only, and only when that is wanted.
    let other = [wide[0], ("OUTBOXD__OUTBOX__0__TOPIC", "other")];
    let created = [other[0], other[1], ("OUTBOXD__KAFKA__CREATE_TOPICS", "true")];
    let cure = Outcome::of(&stage, &other).only("topic", "failed");
    assert!(cure.contains("kafka.create_topics = true"), "{cure}");
    assert_eq!(Outcome::of(&stage, &created).found(), Vec::<[String; 3]>::new());
    Outcome::of(&stage, &other).only("topic", "failed");
    let none = [created[0], created[1], created[2], ("OUTBOXD__KAFKA__REPLICATION_FACTOR", "3")];
    let cure = Outcome::of(&stage, &none).only("topic", "failed");
    assert!(cure.contains("kafka.replication_factor (3, of 1 brokers)"), "{cure}");
    let daemon = start(&stage, &created);
    until(&stage, &other, |outcome| outcome.found().iter().all(|[name, ..]| name != "topic")).await;
    assert_eq!(daemon.terminate().await, Some(0));

    // Who does not answer is named, and the others are asked all the same.
    let nobody = format!("127.0.0.1:{}", free_port());
    let url = format!("mysql://outboxd@{nobody}");
    for (variable, value, server, other) in [
        ("OUTBOXD__KAFKA__BOOTSTRAP_SERVERS", nobody.as_str(), format!("kafka {nobody}"), "log_bin"),
        ("OUTBOXD__MYSQL__URL", url.as_str(), format!("mysql {nobody}"), "topic"),
    ] {
        let outcome = Outcome::of(&stage, &[(variable, value)]);
        assert_eq!((outcome.code, &outcome.shown["verdict"]), (Some(69), &Value::from("unavailable")));
        assert_eq!(outcome.shown["unavailable"][0]["server"], server);
        assert!(outcome.shown["checks"].as_array().unwrap().iter().any(|check| check["name"] == other));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_passes_and_relays_text_whose_character_set_the_log_does_not_tell() {
    for (server, topic) in [("mariadb-10.11", "from-10.11"), ("mariadb-11.8", "from-11.8")] {
        let stage = Stage::of().server(server).shards(1).own_kafka().servers().await;
        let mut conn = Conn::new(stage.opts()).await.unwrap();
        let admin = [
            ("OUTBOXD__OUTBOX__0__TABLES", "delivery.delivery-outbox1"),
            ("OUTBOXD__OUTBOX__0__TOPIC", topic),
            ("OUTBOXD__KAFKA__CREATE_TOPICS", "true"),
            ("OUTBOXD__KAFKA__PROPERTIES__MESSAGE_MAX_BYTES", "20000000"),
        ];
        assert!(stage.outboxd(&["migrate"]).envs(admin).status().unwrap().success());
        for sql in [
            "CREATE USER relay IDENTIFIED BY 'relay'",
            "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO relay",
            "GRANT SELECT ON delivery.* TO relay",
            "GRANT SELECT, INSERT, UPDATE ON outboxd.outboxd_positions TO relay",
        ] {
            run(&mut conn, sql).await;
        }
        let url = format!("mysql://relay@127.0.0.1:{}", stage.mysql.port());
        let relay = [
            admin[0],
            admin[1],
            admin[2],
            admin[3],
            ("OUTBOXD__MYSQL__URL", &url),
            ("OUTBOXD__MYSQL__PASSWORD", "relay"),
        ];
        let cure = Outcome::of(&stage, &relay).only("gtid_strict_mode", "warned");
        run(&mut conn, statement(&cure)).await;
        assert_eq!(Outcome::of(&stage, &relay).found(), Vec::<[String; 3]>::new(), "{topic}");

        run(&mut conn, "SET GLOBAL log_bin_compress = ON").await;
        run(&mut conn, "SET GLOBAL binlog_row_metadata = 'NO_LOG'").await;
        Outcome::of(&stage, &relay).only("binlog_row_metadata", "warned");

        run(&mut conn, "ALTER TABLE delivery.`delivery-outbox1` MODIFY aggregateid CHAR(20) NOT NULL").await;
        run(&mut conn, &crate::order::event(1, "e1", "k1")).await;
        let daemon = start(&stage, &relay);
        until(&stage, &relay[..], |outcome| {
            outcome.shown["checks"]
                .as_array()
                .unwrap()
                .iter()
                .any(|check| check["name"] == "topic" && check["found"] == "1 partitions, 1 replicas")
        })
        .await;
        let consumer: StreamConsumer = ClientConfig::new()
            .set("bootstrap.servers", format!("127.0.0.1:{}", stage.kafka_port()))
            .set("group.id", "test")
            .create()
            .unwrap();
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
        consumer.assign(&from).unwrap();
        let record = timeout(PATIENCE, consumer.recv()).await.unwrap().unwrap();
        assert_eq!(record.key(), Some(&b"k1"[..]), "{topic}");
        assert_eq!(daemon.terminate().await, Some(0));
    }
}

/// Given a server that does not mind the letter case, when a table is configured in another one than the log has, then it
/// is refused with the name that the log has, and relayed by that.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_in_another_letter_case_is_refused_with_the_spelling_that_the_log_has() {
    let stage = Stage::of().server("mariadb-11.8").setting("lower_case_table_names=1").shards(1).up().await;
    let written = [("OUTBOXD__OUTBOX__0__TABLES", "Delivery.Delivery-Outbox1")];
    let outcome = Outcome::of(&stage, &written);
    let failed: Vec<_> = outcome.found().into_iter().filter(|[_, status, _]| status == "failed").collect();
    assert!(matches!(&failed[..], [[name, ..]] if name == "table"), "{:#}", outcome.shown);
    assert_eq!(outcome.code, Some(78));
    let spelling = "delivery.delivery-outbox1";
    assert!(failed[0][2].contains(&format!("[[outbox]] tables = [\"{spelling}\"]")), "{failed:?}");
    let mut refused = start(&stage, &written);
    assert_eq!(refused.ended().await, Some(78), "its events would be passed over");
    let daemon = start(&stage, &[("OUTBOXD__OUTBOX__0__TABLES", spelling)]);
    run(&mut stage.connect().await, &crate::order::event(1, "e1", "k1")).await;
    stage.delivered("e1").await;
    assert_eq!(daemon.terminate().await, Some(0));
}

/// Makes what is saved as a table's position something that is none.
async fn garble(stage: &Stage, table: &str) {
    let row = format!("(table_name, epoch, owner, position) VALUES ('{table}', 1, '', 'x')");
    let sql = format!("INSERT INTO outboxd.outboxd_positions {row} ON DUPLICATE KEY UPDATE position = 'x'");
    stage.sql([sql]).await;
}

/// Waits until the daemon's tables are in these states.
async fn are(daemon: &Daemon, states: [&str; 4]) {
    stage::until(&format!("the tables are {states:?}"), async || {
        let Some((_, body)) = daemon.page("/api/v1/tables") else { return false };
        let tables: Vec<Value> = serde_json::from_str(&body).unwrap();
        tables.iter().map(|table| table["state"].as_str().unwrap()).eq(states)
    })
    .await;
}

/// R8: given saved positions that are not readable, when a daemon starts, then their tables halt alone, and of a table that is
/// not configured it harms nobody; what others need goes on, and an operator's position cures it, with a daemon and without.
#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_is_not_readable_halts_its_table_alone() {
    let stage = Stage::of().up().await;
    let listen = format!("127.0.0.1:{}", free_port());
    let here = [("OUTBOXD__ADMIN__LISTEN", listen.as_str())];
    // Standard output, standard error, and the exit code.
    let told = |arguments: &[&str]| {
        let output = stage.outboxd(arguments).envs(here).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr), output.status.code())
    };
    let failed = || {
        let outcome = Outcome::of(&stage, &here);
        let failed = outcome.found().into_iter().filter(|[_, status, _]| status == "failed");
        (outcome.code, failed.map(|[name, _, cure]| (name, cure)).collect::<Vec<_>>())
    };
    let (third, fourth) = ("delivery.delivery-outbox3", "delivery.delivery-outbox4");
    garble(&stage, "elsewhere.outbox").await;
    assert_eq!(failed(), (Some(0), Vec::new()));
    let daemon = start(&stage, &here);
    are(&daemon, ["running"; 4]).await;
    assert_eq!(daemon.terminate().await, Some(0));
    let (shown, ..) = told(&["position", "show"]);
    let reason = "the stored position is not readable: `x` is not a position";
    assert!(shown.contains(&format!("elsewhere.outbox: {reason}")) && shown.contains("gtid="), "{shown}");
    let (shown, ..) = told(&["status"]);
    assert!(shown.contains(reason) && shown.contains("gtid="), "{shown}");

    garble(&stage, third).await;
    garble(&stage, fourth).await;
    let (code, checks) = failed();
    assert!(code == Some(78) && checks.len() == 2, "{checks:?}");
    for ((name, cure), table) in checks.iter().zip([third, fourth]) {
        assert!(name == "position" && cure.contains(&format!("outboxd position set {table} --to ")), "{cure}");
    }
    let daemon = start(&stage, &here);
    are(&daemon, ["running", "running", "halted", "halted"]).await;
    let (_, notes, code) = told(&["retry", third]);
    assert!(code == Some(77) && notes.contains("not readable"), "{notes}");
    // One is cured and the other is not.
    for command in [&["position", "set", third, "--to", "earliest", "--yes"][..], &["retry", third], &["reload"]] {
        let (_, notes, code) = told(command);
        assert_eq!(code, Some(0), "{command:?}: {notes}");
    }
    are(&daemon, ["running", "running", "running", "halted"]).await;
    stage.sql([crate::order::event(1, "e1", "k1"), crate::order::event(3, "e3", "k3")]).await;
    stage.delivered("e1").await;
    stage.delivered("e3").await;
    assert_eq!(daemon.terminate().await, Some(1), "one has halted");

    let (shown, notes, code) = told(&["position", "set", fourth, "--to", "earliest", "--yes"]);
    assert!(code == Some(0) && shown.contains("nobody can read where it stood"), "{shown}{notes}");
    assert_eq!(failed(), (Some(0), Vec::new()));
    let daemon = start(&stage, &here);
    are(&daemon, ["running"; 4]).await;
    assert_eq!(daemon.terminate().await, Some(0));
}
