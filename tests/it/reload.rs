//! A configuration that is taken over while relays run, on real servers under load.

use std::fs::write;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::stage::{PATIENCE, Setup, Stage, free_port, until, until_within};

/// Daemons whose tables and limits stand in a file.
struct Bench {
    stage: Stage,
    folder: TempDir,
    listen: String,
}

impl Bench {
    async fn new(setup: Setup) -> Self {
        let stage = setup.up().await;
        Self { stage, folder: tempfile::tempdir().unwrap(), listen: format!("127.0.0.1:{}", free_port()) }
    }

    /// Writes the file: these tables to the stage's topic, and what comes in front of them.
    fn configure(&self, name: &str, settings: &str, tables: &str) {
        let topic = &self.stage.topic;
        let block = format!("{settings}\n[[outbox]]\ntables = [{tables}]\ntopic = \"{topic}\"\nstart = \"earliest\"\n");
        write(self.folder.path().join(name), block).unwrap();
    }

    fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = self.stage.outboxd_of(&self.folder.path().join(name), arguments);
        command.env("OUTBOXD__ADMIN__LISTEN", &self.listen);
        command
    }

    fn run(&self) -> Daemon {
        Daemon::spawn(&self.command("outboxd.toml", &["run"]))
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        self.command("outboxd.toml", arguments).output().unwrap()
    }

    /// Standard output of a command that succeeds.
    fn told(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Standard error of one that is refused.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(77), "{told}");
        told
    }
}

/// The shards that a daemon relays, by their numbers, in its order.
fn shards(daemon: &Daemon) -> Vec<u32> {
    let Some((_, body)) = daemon.page("/api/v1/tables") else { return Vec::new() };
    let tables: Vec<Value> = serde_json::from_str(&body).unwrap();
    let number =
        |table: &Value| table["table"].as_str().unwrap().trim_start_matches("delivery.delivery-outbox").parse();
    tables.iter().map(|table| number(table).unwrap()).collect()
}

fn claims(daemon: &Daemon, shard: u32) -> usize {
    daemon.log().matches(&format!("table_claimed table=delivery.delivery-outbox{shard} ")).count()
}

const ONE_TO_THREE: &str = r#""delivery.delivery-outbox{1..3}""#;

/// Given writers at load, when tables join and leave and limits change, then the others notice nothing, and every event is
/// there once: a table that has left can be relayed by another daemon at once.
async fn tables_come_and_go(setup: Setup, seed: u64) {
    let bench = Bench::new(setup).await;
    let writing = bench.stage.write(seed).await;
    bench.configure("outboxd.toml", "", ONE_TO_THREE);
    let daemon = bench.run();
    daemon.ready().await;
    writing.more(200).await;
    bench.configure("outboxd.toml", "", r#""delivery.delivery-outbox4", "delivery.delivery-outbox{1..3}""#);
    let told = bench.told(&["reload", "--dry-run"]);
    assert!(told.contains("delivery.delivery-outbox4 joins\n"), "{told}");
    assert_eq!(shards(&daemon), [1, 2, 3], "a rehearsal changes nothing");
    daemon.signal("HUP");
    until("four tables are relayed", async || shards(&daemon) == [1, 2, 3, 4]).await;
    writing.more(200).await;
    let limits = "[relay]\nmax_unsaved_events = 500\ncatch_up_readers = 1\nin_flight_bytes = \"1MiB\"\n";
    bench.configure("outboxd.toml", limits, r#""delivery.delivery-outbox{3..4}", "delivery.delivery-outbox1""#);
    let told = bench.told(&["reload"]);
    assert!(told.contains("relay.max_unsaved_events: 50000 -> 500\n"), "{told}");
    assert!(told.ends_with("delivery.delivery-outbox2 leaves\n"), "{told}");
    assert_eq!(shards(&daemon), [1, 3, 4]);
    assert_eq!([1, 3, 4].map(|shard| claims(&daemon, shard)), [1; 3], "the others are not touched");
    bench.configure("other.toml", "", r#""delivery.delivery-outbox2""#);
    let mut other = bench.command("other.toml", &["run"]);
    let other = Daemon::spawn(other.env("OUTBOXD__ADMIN__LISTEN", "127.0.0.1:0"));
    other.ready().await;
    writing.more(200).await;
    // It comes back with what has come meanwhile, from where the other one was.
    assert_eq!(other.terminate().await, Some(0));
    bench.configure("outboxd.toml", limits, r#""delivery.delivery-outbox{1..4}""#);
    assert_eq!(bench.told(&["reload"]).lines().last(), Some("delivery.delivery-outbox2 joins"));
    let audits = daemon.log().matches("outboxd::audit: audit action=\"reload\"").count();
    assert_eq!(audits, 3, "each change is written down, a rehearsal is none");
    let journal = writing.stop().await;
    let verdict = bench.stage.judge(&journal, daemon).await;
    assert_eq!(verdict.total.duplicates, 0, "{verdict}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_come_and_go_while_others_are_relayed_on_mysql() {
    tables_come_and_go(Stage::of(), crate::stage::seed()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_come_and_go_while_others_are_relayed_exactly_once_on_mariadb() {
    let own = format!("reload-{}", free_port());
    let setup = Stage::of().server("mariadb-11.8").set("DELIVERY__GUARANTEE", "exactly_once");
    let setup = setup.set("POSITIONS__TOPIC", &own).set("DELIVERY__TRANSACTIONAL_ID", &own);
    tables_come_and_go(setup.set("KAFKA__CREATE_TOPICS", "true"), crate::stage::seed()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_taken_over_is_refused_by_name_and_changes_nothing() {
    let bench = Bench::new(Stage::of()).await;
    bench.configure("outboxd.toml", "", ONE_TO_THREE);
    let daemon = bench.run();
    daemon.ready().await;
    let file = bench.folder.path().join("outboxd.toml");
    let to_the_daemon = ["reload", "--address", &bench.listen];
    for (content, words) in [
        ("[relay]\nmax_unsaved_event = 1\n", vec!["relay.max_unsaved_event", "max_unsaved_events"]),
        ("[relay\n", vec!["line 1"]),
        (
            "[mysql]\nheartbeat = \"1s\"\n[relay]\nbatch_bytes = \"1KiB\"\n",
            vec!["restart", "mysql.heartbeat", "relay.batch_bytes"],
        ),
        ("[kafka.properties]\n\"sasl.password\" = \"geheim-1\"\n", vec!["restart", "kafka.properties.sasl.password"]),
    ] {
        bench.configure("outboxd.toml", content, ONE_TO_THREE);
        let told = bench.refused(&to_the_daemon);
        assert!(words.iter().all(|word| told.contains(word)) && !told.contains("geheim"), "{content}: {told}");
        assert!(bench.refused(&["reload", "--dry-run", "--address", &bench.listen]).contains(words[0]));
    }
    std::fs::remove_file(&file).unwrap();
    assert!(bench.refused(&to_the_daemon).contains("outboxd.toml"));
    let by_signal = daemon.log().matches("reload_refused").count() + 1;
    daemon.signal("HUP");
    until("the signal is refused too", async || daemon.log().matches("reload_refused").count() == by_signal).await;
    // A table that is not there, and a topic; while others would join.
    bench.configure("outboxd.toml", "", r#""delivery.delivery-outbox{1..4}", "delivery.none""#);
    let told = bench.refused(&["reload"]);
    assert!(told.contains("delivery.none") && told.contains("outboxd migrate"), "{told}");
    let topic = &bench.stage.topic;
    let others =
        format!("tables = [{ONE_TO_THREE}]\ntopic = \"{topic}\"\n[[outbox]]\ntables = [\"delivery.delivery-outbox4\"]");
    write(&file, format!("[[outbox]]\n{others}\ntopic = \"{topic}-none\"\n")).unwrap();
    let told = bench.refused(&["reload"]);
    assert!(told.contains(&format!("{topic}-none")), "{told}");
    assert_eq!(shards(&daemon), [1, 2, 3]);
    assert_eq!([1, 2, 3].map(|shard| claims(&daemon, shard)), [1; 3], "nothing was changed");
    assert!(!daemon.log().contains("geheim"));
    assert_eq!(daemon.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_to_be_relayed_another_way_goes_on_that_way_and_a_halted_one_is_tried_again() {
    let bench = Bench::new(Stage::of().shards(2).partitions(1)).await;
    let other = format!("{}-other", bench.stage.topic);
    bench.stage.create(&other).await;
    let topic = &bench.stage.topic;
    let file = bench.folder.path().join("outboxd.toml");
    let second = |rest: &str| {
        let first =
            format!("[[outbox]]\ntables = \"delivery.delivery-outbox1\"\ntopic = \"{topic}\"\nstart = \"earliest\"\n");
        let block = "[[outbox]]\ntables = \"delivery.delivery-outbox2\"\nstart = \"earliest\"";
        write(&file, format!("{first}{block}\n{rest}\n")).unwrap();
    };
    second(&format!("topic = \"{topic}\""));
    let daemon = bench.run();
    daemon.ready().await;
    let writing = bench.stage.write(crate::stage::seed()).await;
    writing.more(200).await;
    // Rows have no such column: the checks of a start say so, and the relay goes on as it was.
    second(&format!("topic = \"{other}\"\ncolumns.key = \"nobody\""));
    assert!(bench.refused(&["reload"]).contains("nobody"));
    second(&format!("topic = \"{other}\"\ncolumns.headers = [\"aggregatetype\"]"));
    let told = bench.told(&["reload"]);
    assert!(told.ends_with("delivery.delivery-outbox2 starts again\n"), "{told}");
    writing.more(200).await;
    let journal = writing.stop().await;
    bench.stage.verdict_of(&journal, &[topic, &other]).await;
    assert_eq!([1, 2].map(|shard| claims(&daemon, shard)), [1, 2]);
    // Its topic goes away, it halts, and another one is configured.
    bench.stage.delete(&other).await;
    let insert = "INSERT INTO delivery.`delivery-outbox2` (id, aggregatetype, aggregateid, type, payload) VALUES (UUID(), 'd', 'a', 't', '{}')";
    let halted = async || {
        bench.stage.sql([insert]).await;
        let (_, body) = daemon.page("/api/v1/tables/delivery.delivery-outbox2").unwrap();
        serde_json::from_str::<Value>(&body).unwrap()["state"] == "halted"
    };
    // The client library waits for half a minute for a topic to come back, and the next producer, which the loss of its
    // partitions may call for, does so again.
    until_within(2 * PATIENCE, "the table halts", halted).await;
    second(&format!("topic = \"{topic}\""));
    bench.told(&["reload"]);
    daemon.ready().await;
    assert_eq!(daemon.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_level_of_the_log_changes_for_single_rooms_and_with_a_reload() {
    let bench = Bench::new(Stage::of().shards(1)).await;
    bench.configure("outboxd.toml", "", r#""delivery.delivery-outbox1""#);
    let daemon = bench.run();
    daemon.ready().await;
    assert_eq!(bench.told(&["log"]), "info\n");
    assert_eq!(bench.told(&["log", "warn,outboxd::admin=info"]), "warn,outboxd::admin=info\n");
    assert!(bench.refused(&["log", "loud"]).contains("level"));
    assert_eq!(bench.told(&["log"]), "warn,outboxd::admin=info\n");
    bench.told(&["pause", "delivery.delivery-outbox1"]);
    bench.told(&["resume", "delivery.delivery-outbox1"]);
    assert!(!daemon.log().contains("relay_paused"), "it is of level info");
    assert_eq!(daemon.log().matches("outboxd::audit: audit").count(), 3, "changes are written down at every level");
    bench.configure("outboxd.toml", "[log]\nlevel = \"debug\"\n", r#""delivery.delivery-outbox1""#);
    bench.told(&["reload"]);
    assert_eq!(bench.told(&["log"]), "debug\n");
    bench.told(&["pause", "delivery.delivery-outbox1"]);
    daemon.logs("relay_paused").await;
    assert_eq!(daemon.terminate().await, Some(0));
}
