//! What `outboxd status` says, of a daemon that runs and of one that does not.

use serde_json::Value;

use crate::order::event;
use crate::stage::{PATIENCE, Stage, free_port, until, until_within};

/// Standard output, standard error, and the exit code.
fn status(stage: &Stage, port: u16, arguments: &[&str]) -> (String, String, Option<i32>) {
    let mut command = stage.outboxd(&["status"]);
    let output = command.args(arguments).env("OUTBOXD__ADMIN__LISTEN", format!("127.0.0.1:{port}")).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn status_asks_the_daemon_then_the_store_and_says_when_neither_answers() {
    let mut stage = Stage::of().up().await;
    let writing = stage.write(5).await;
    let port = free_port();
    let daemon = stage.run_with(&[("ADMIN__LISTEN", &format!("127.0.0.1:{port}"))]);
    writing.more(200).await;
    let journal = writing.stop().await;
    stage.verdict(&journal).await;

    // Given a daemon that has delivered everything, when it is asked, then it answers for every table.
    let (table, notes, code) = status(&stage, port, &[]);
    assert_eq!((code, notes.as_str()), (Some(0), ""));
    assert_eq!(table.lines().count(), 2 + 4, "{table}");
    assert!(table.contains(" delivery.delivery-outbox4  running "), "{table}");
    let (json, _, code) = status(&stage, port, &["--format", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &json["source"]), (Some(0), &Value::from("daemon")));
    let tables = json["tables"].as_array().unwrap();
    assert_eq!(tables[0]["table"], "delivery.delivery-outbox1");
    let events: u64 = tables.iter().map(|table| table["events"].as_u64().unwrap()).sum();
    assert_eq!(events, journal.committed().count() as u64);

    // Given another daemon that cannot have one of its tables, when it is asked, then the exit code is 1.
    let tables = "delivery.delivery-outbox{4..5}";
    let migrated = stage.outboxd(&["migrate"]).env("OUTBOXD__OUTBOX__0__TABLES", tables).status().unwrap();
    assert!(migrated.success());
    let other = free_port();
    let listen = format!("127.0.0.1:{other}");
    let second = stage.run_with(&[("OUTBOX__0__TABLES", tables), ("ADMIN__LISTEN", &listen)]);
    let halted = async || second.page("/api/v1/tables").is_some_and(|(_, body)| body.contains("not_claimed"));
    until_within(2 * PATIENCE, "the second daemon says that it is halted", halted).await;
    let (table, _, code) = status(&stage, other, &[]);
    assert_eq!(code, Some(1), "{table}");
    assert!(table.contains(" delivery.delivery-outbox4: not_claimed: "), "{table}");
    drop(second);

    // Given a daemon that is stopped, when it is asked, then the store says where the tables resume.
    // And how many events were committed since, deletes and other tables' rows not among them.
    assert_eq!(daemon.terminate().await, Some(0));
    let first = stage.outboxes[0].quoted();
    stage
        .sql([event(1, "later-1", "k"), event(1, "later-2", "k"), format!("DELETE FROM {first} WHERE id = 'later-1'")])
        .await;
    stage.sql([event(3, "later-3", "k")]).await;
    let (table, notes, code) = status(&stage, port, &[]);
    assert_eq!(code, Some(0), "{notes}");
    assert!(notes.contains(&format!("no daemon answers at 127.0.0.1:{port}: ")), "{notes}");
    assert!(notes.contains("this is what the position store says"), "{notes}");
    assert!(
        table
            .lines()
            .next()
            .unwrap()
            .split_whitespace()
            .eq(["table", "state", "lag", "behind", "position", "last", "save"])
    );
    assert!(!notes.contains("behind"), "{notes}");
    let (json, _, _) = status(&stage, port, &["--format", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["source"], &json["tables"][0]["events"]), (&Value::from("store"), &Value::Null));
    let behind: Vec<_> = json["tables"].as_array().unwrap().iter().map(|table| table["behind"].as_u64()).collect();
    assert_eq!(behind, [Some(2), Some(0), Some(1), Some(0), None], "the fifth is not configured here");
    let lag = |table: usize| json["tables"][table]["lag_seconds"].as_f64().unwrap();
    assert!(lag(0) > 0.0 && lag(1) == 0.0, "{json}");

    // Given a log that was purged, when it is asked, then it says what it can and why not more.
    stage.sql(["FLUSH BINARY LOGS"]).await;
    stage.purge().await;
    let (table, notes, code) = status(&stage, port, &[]);
    assert!(code == Some(0) && notes.contains("what is behind is not known: "), "{notes}");
    assert!(table.contains(" unknown  gtid="), "{table}");

    // Given no MySQL either, when it is asked, then there is nothing to show.
    stage.mysql.tell("kill").unwrap();
    let (table, notes, code) = status(&stage, port, &[]);
    assert_eq!((code, table.as_str()), (Some(69), ""), "{notes}");
    assert!(notes.contains("no daemon answers") && notes.contains("the position store is unavailable"), "{notes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_shows_what_changes_until_it_is_told_to_stop_or_nobody_reads() {
    let stage = Stage::of().up().await;
    let port = free_port();
    let daemon = stage.run_with(&[("ADMIN__LISTEN", &format!("127.0.0.1:{port}"))]);
    daemon.ready().await;
    let mut command = stage.outboxd(&["--set", &format!("admin.listen=127.0.0.1:{port}")]);
    command.args(["status", "--watch", "--format", "json"]).stdout(std::process::Stdio::piped());
    let mut watching = command.spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(watching.stdout.take().unwrap()));
    let answers: Vec<Value> = lines.take(2).map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    assert_eq!(answers[0]["tables"][0]["events_per_second"], Value::Null, "one look has no rate");
    assert_eq!(answers[1]["tables"][0]["events_per_second"], 0.0);
    assert!(std::process::Command::new("kill").arg(watching.id().to_string()).status().unwrap().success());
    assert_eq!(watching.wait().unwrap().code(), Some(0));

    // Given one that is read as `head` reads, when it has its line and goes, then the watching ends, too.
    let mut watching = command.spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(watching.stdout.take().unwrap()));
    assert!(lines.next().unwrap().unwrap().contains("\"source\":\"daemon\""));
    drop(lines);
    until("it ends when nobody reads", async || watching.try_wait().unwrap().is_some()).await;
    assert_eq!(watching.wait().unwrap().code(), Some(0));
}

/// Given a daemon, when a report is asked for, then it has every part and no secret; what is away costs its own part only.
#[tokio::test(flavor = "multi_thread")]
async fn a_report_has_everything_that_can_be_had_and_no_secret() {
    const PASSWORD: &str = "only-for-this-report";
    const PAYLOAD: &str = "confidential-route";
    let mut stage = Stage::of().shards(2).own_kafka().up().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.txt");
    let listen = format!("127.0.0.1:{}", free_port());
    let daemon = stage.run_with(&[("ADMIN__LISTEN", &listen)]);
    daemon.ready().await;
    let table = stage.outboxes[0].quoted();
    let columns = "(id, aggregatetype, aggregateid, type, payload)";
    stage.sql([format!("INSERT INTO {table} {columns} VALUES ('e-1', 'a', 'k', 'T', '\"{PAYLOAD}\"')")]).await;
    stage.delivered("e-1").await;
    let report = |stage: &Stage| {
        let mut command = stage.outboxd(&["doctor", "--output"]);
        command.arg(&file).env("OUTBOXD__ADMIN__LISTEN", &listen).env("OUTBOXD__KAFKA__SASL__PASSWORD", PASSWORD);
        command.env("OUTBOXD__KAFKA__SASL__MECHANISM", "plain").env("OUTBOXD__KAFKA__SASL__USERNAME", "relay");
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        std::fs::read_to_string(&file).unwrap()
    };
    let whole = report(&stage);
    for part in [
        "== outboxd ==",
        "librdkafka 2.",
        "kafka.bootstrap_servers",
        "MySQL",
        "== checks ==",
        "gtid=",
        "table_claimed",
        "outboxd_events_total{table=\"delivery.delivery-outbox1\"} 1",
        "\"state\": \"running\"",
    ] {
        assert!(whole.contains(part), "{part} is not in {whole}");
    }
    assert!(!whole.contains(PASSWORD) && !whole.contains(PAYLOAD), "{whole}");
    assert_eq!(daemon.terminate().await, Some(0));
    stage.mysql.tell("stop").unwrap();
    let part = report(&stage);
    assert!(part.contains("== positions ==\n\nnot to be had"), "{part}");
    assert!(
        part.contains(&format!("no daemon answers at {listen}")) && part.contains("kafka.bootstrap_servers"),
        "{part}"
    );
}
