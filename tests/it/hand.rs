//! The operator's hand: pause, resume, retry, positions, on real servers under load.

use std::net::TcpListener;
use std::process::Output;

use serde_json::Value;

use crate::daemon::Daemon;
use crate::exactly_once::exactly_once;
use crate::poison::limit_of;
use crate::stage::{Stage, free_port, until};

const FIRST: &str = "delivery.delivery-outbox1";

/// A stage whose daemons answer at a port that the commands know.
struct Bench {
    stage: Stage,
    listen: String,
}

impl Bench {
    fn new(stage: Stage) -> Self {
        Self { stage, listen: format!("127.0.0.1:{}", free_port()) }
    }

    fn run(&self) -> Daemon {
        self.stage.run_with(&[("ADMIN__LISTEN", &self.listen)])
    }

    fn command(&self, arguments: &[&str]) -> Output {
        self.stage.outboxd(arguments).env("OUTBOXD__ADMIN__LISTEN", &self.listen).output().unwrap()
    }

    /// Standard output of a command that succeeds.
    fn told(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Standard error and the exit code of one that does not.
    fn refused(&self, arguments: &[&str]) -> (String, Option<i32>) {
        let output = self.command(arguments);
        (String::from_utf8(output.stderr).unwrap(), output.status.code())
    }

    /// What the daemon says of a table.
    fn status(daemon: &Daemon, table: &str) -> Value {
        daemon
            .page(&format!("/api/v1/tables/{table}"))
            .map_or(Value::Null, |(_, body)| serde_json::from_str(&body).unwrap())
    }

    async fn becomes(daemon: &Daemon, table: &str, state: &str) {
        until(&format!("{table} is {state}"), async || Self::status(daemon, table)["state"] == state).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_table_rests_under_load_over_a_kill_and_goes_on_without_loss() {
    let bench = Bench::new(Stage::of().up().await);
    let daemon = bench.run();
    daemon.ready().await;
    let writing = bench.stage.write(71).await;
    writing.more(200).await;

    // Given a daemon under load, when two tables are paused, then they stand still and the others go on.
    let told = bench.told(&["pause", "delivery.delivery-outbox[12]", "--reason", "the topic moves", "--by", "ann"]);
    assert_eq!(
        told.lines().collect::<Vec<_>>(),
        ["delivery.delivery-outbox1: running -> paused", "delivery.delivery-outbox2: running -> paused"]
    );
    let stood = Bench::status(&daemon, FIRST);
    assert!(stood["reason"].as_str().unwrap().starts_with("by ann at 20"), "{stood}");
    assert_eq!(daemon.page("/readyz").unwrap().0, 200, "as somebody wants it");
    let others = |daemon: &Daemon| Bench::status(daemon, "delivery.delivery-outbox3")["events"].as_u64().unwrap();
    let before = others(&daemon);
    writing.more(300).await;
    until("another table goes on", async || others(&daemon) > before).await;
    let stands = Bench::status(&daemon, FIRST);
    assert_eq!((&stands["events"], &stands["position"]), (&stood["events"], &stood["position"]));
    assert!(
        daemon.log().contains("audit action=\"pause\" table=delivery.delivery-outbox1 by=\"ann\""),
        "{}",
        daemon.log()
    );

    // Given a kill, when the daemon is back, then they are paused still; and so says the store without it.
    daemon.kill();
    let shown = bench.told(&["status"]);
    assert!(shown.contains(" delivery.delivery-outbox1  paused "), "{shown}");
    let daemon = bench.run();
    daemon.ready().await;
    Bench::becomes(&daemon, FIRST, "paused").await;
    writing.more(100).await;
    let (notes, code) = bench.refused(&["resume", "delivery.delivery-outbox3"]);
    assert_eq!(code, Some(77), "{notes}");
    assert!(notes.contains("(not_paused)"), "{notes}");

    // Given that somebody resumes them, then nothing is missing and everything is in order.
    bench.told(&["resume", "delivery.delivery-outbox{1..2}"]);
    Bench::becomes(&daemon, FIRST, "running").await;
    writing.more(200).await;
    let journal = writing.stop().await;
    bench.stage.judge(&journal, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_once_survives_pauses() {
    let stage = Stage::of().set("DELIVERY__GUARANTEE", "exactly_once").own_kafka().set("KAFKA__CREATE_TOPICS", "true");
    let bench = Bench::new(stage.up().await);
    let daemon = bench.run();
    daemon.ready().await;
    let writing = bench.stage.write(72).await;
    for _ in 0..3 {
        writing.more(150).await;
        bench.told(&["pause", "delivery.*"]);
        bench.told(&["resume", "delivery.*"]);
    }
    bench.told(&["pause", FIRST]);
    daemon.kill();
    let daemon = bench.run();
    Bench::becomes(&daemon, FIRST, "paused").await;
    bench.told(&["resume", FIRST]);
    writing.more(100).await;
    let journal = writing.stop().await;
    let verdict = bench.stage.judge(&journal, daemon).await;
    assert_eq!(verdict.total.duplicates, 0, "{verdict}");
}

/// Given a paused table whose position Kafka refuses, when the cause is cured, then the table is resumed without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_resume_that_was_refused_succeeds_once_the_cause_is_cured() {
    let setup = exactly_once(Stage::of()).set("KAFKA__CREATE_TOPICS", "true").shards(1).partitions(1);
    let bench = Bench::new(setup.up().await);
    let topic = bench.stage.setting("POSITIONS__TOPIC");
    let daemon = bench.run();
    daemon.ready().await;
    bench.told(&["pause", FIRST]);
    limit_of(&bench.stage, (&topic, "compact"), "100").await;
    let (notes, code) = bench.refused(&["resume", FIRST]);
    assert!(code == Some(77) && notes.contains("max.message.bytes"), "{notes}");
    limit_of(&bench.stage, (&topic, "compact"), "1048588").await;
    assert_eq!(bench.told(&["resume", FIRST]).trim(), "delivery.delivery-outbox1: paused -> starting");
    daemon.ready().await;
    assert_eq!(daemon.terminate().await, Some(0));
}

/// Given a paused table whose position is kept in Kafka, when somebody resumes it while Kafka is away, then that fails; and
/// when Kafka is back, the table is resumed without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_resume_that_has_failed_while_kafka_was_away_succeeds_when_it_is_back() {
    let stage = Stage::of().set("DELIVERY__GUARANTEE", "exactly_once").own_kafka().set("KAFKA__CREATE_TOPICS", "true");
    // For so long is the record of a position tried.
    let stage = stage.set("DELIVERY__TRANSACTION_TIMEOUT", "1s").shards(1).partitions(1);
    let mut bench = Bench::new(stage.up().await);
    let daemon = bench.run();
    daemon.ready().await;
    bench.insert(&["a1"]).await;
    Bench::acknowledged(&daemon, 1).await;
    bench.told(&["pause", FIRST]);
    bench.stage.kafka().tell("kill").unwrap();
    let (notes, code) = bench.refused(&["resume", FIRST]);
    assert!(code == Some(77) && notes.contains("(position_store)"), "{notes}");
    assert_eq!(Bench::status(&daemon, FIRST)["state"], "paused");
    bench.stage.kafka().tell("start").unwrap();
    bench.insert(&["a2"]).await;
    assert_eq!(bench.told(&["resume", FIRST]).trim(), "delivery.delivery-outbox1: paused -> starting");
    Bench::acknowledged(&daemon, 2).await;
    assert_eq!(bench.ids().await, ["a1", "a2"]);
    assert_eq!(daemon.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_halted_table_is_retried_when_its_cause_is_cured_and_no_sooner() {
    let stage = Stage::of().blocks(2).set("OUTBOX__0__TABLES", "delivery.delivery-outbox{1..3}");
    let stage = stage.set("OUTBOX__1__TABLES", "delivery.delivery-outbox4").set("OUTBOX__1__START", "earliest");
    let bench = Bench::new(stage.up().await);
    let late = format!("{}-late", bench.stage.topic);
    let daemon = bench.stage.run_with(&[("ADMIN__LISTEN", &bench.listen), ("OUTBOX__1__TOPIC", &late)]);
    let fourth = "delivery.delivery-outbox4";
    Bench::becomes(&daemon, fourth, "halted").await;
    Bench::becomes(&daemon, FIRST, "running").await;
    bench
        .stage
        .sql(["INSERT INTO delivery.`delivery-outbox4` (id, aggregatetype, aggregateid, type, payload) \
        VALUES ('late-1', 'delivery', 'k', 'created', '{}')"])
        .await;
    let (notes, code) = bench.refused(&["retry", fourth]);
    assert!(code == Some(77) && notes.contains("(unfit)") && notes.contains(&late), "{notes}");
    let (notes, code) = bench.refused(&["retry", FIRST]);
    assert!(code == Some(77) && notes.contains("(not_halted)"), "{notes}");
    bench.stage.create(&late).await;
    assert_eq!(bench.told(&["retry", fourth]).trim(), "delivery.delivery-outbox4: halted -> starting");
    Bench::becomes(&daemon, fourth, "running").await;
    until("its event is acknowledged", async || Bench::status(&daemon, fourth)["events"] == 1).await;
    daemon.ready().await;
    assert_eq!(daemon.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_need_the_token_where_there_is_one_and_secrets_stay_out_of_the_log() {
    use std::os::unix::fs::PermissionsExt;

    let bench = Bench::new(Stage::of().shards(1).up().await);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "correct-horse-battery\n").unwrap();
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
    let path = file.path().to_str().unwrap();
    let daemon = bench.stage.run_with(&[("ADMIN__LISTEN", &bench.listen), ("ADMIN__TOKEN_FILE", path)]);
    daemon.ready().await;
    let (notes, code) = bench.refused(&["pause", FIRST]);
    assert!(code == Some(77) && notes.contains("(token_missing)"), "{notes}");
    let mut wrong = bench.stage.outboxd(&["pause", FIRST, "--address", &bench.listen]);
    let output = wrong.env("OUTBOXD_ADMIN_TOKEN", "wrong-horse-battery").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("(token_wrong)"));
    bench.told(&["pause", FIRST, "--token-file", path]);
    let with = ["--set", &format!("admin.token_file={path}"), "resume", FIRST].map(ToOwned::to_owned);
    bench.told(&with.each_ref().map(String::as_str));
    let log = daemon.log();
    assert!(log.contains("change_refused") && !log.contains("horse"), "{log}");
    assert_eq!(daemon.terminate().await, Some(0));
    let (notes, code) = bench.refused(&["pause", FIRST]);
    assert!(code == Some(69) && notes.contains("no daemon answers"), "{notes}");
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let (notes, code) = bench.refused(&["--set", &format!("admin.token_file={path}"), "config"]);
    assert!(code == Some(64) && notes.contains("chmod o-rwx"), "{notes}");
    drop(TcpListener::bind(&bench.listen).unwrap());
}

impl Bench {
    /// Inserts events with these ids into the first table, each in a transaction of its own.
    async fn insert(&self, ids: &[&str]) {
        let sql = |id: &&str| {
            let table = self.stage.outboxes[0].quoted();
            format!(
                "INSERT INTO {table} (id, aggregatetype, aggregateid, type, payload) VALUES ('{id}', 'd', 'k', 'c', '{{}}')"
            )
        };
        self.stage.sql(ids.iter().map(sql)).await;
    }

    /// The ids in the topic, in order.
    async fn ids(&self) -> Vec<String> {
        self.stage.records().await.into_iter().map(|record| record.event_id.to_string()).collect()
    }

    /// Waits until the daemon has had so many events acknowledged.
    async fn acknowledged(daemon: &Daemon, events: u64) {
        until("events are acknowledged", async || Self::status(daemon, FIRST)["events"] == events).await;
    }

    /// A time between what was committed before and what is committed afterwards, of a server that counts whole seconds.
    async fn moment(&self) -> String {
        let now = async || self.stage.ask("SELECT DATE_FORMAT(UTC_TIMESTAMP(), '%Y-%m-%dT%H:%i:%sZ')").await;
        let before = now().await;
        until("a second has passed", async || now().await > before).await;
        let moment = now().await;
        until("another second has passed", async || now().await > moment).await;
        moment
    }
}

async fn positions_are_moved(setup: crate::stage::Setup) {
    let bench = Bench::new(setup.shards(1).partitions(1).up().await);
    bench.insert(&["a1", "a2"]).await;
    bench.stage.sql(["FLUSH BINARY LOGS"]).await;
    bench.insert(&["a3"]).await;
    let moment = bench.moment().await;
    bench.insert(&["b1"]).await;
    bench.stage.sql(["FLUSH BINARY LOGS"]).await;
    bench.insert(&["b2"]).await;
    let daemon = bench.run();
    Bench::acknowledged(&daemon, 5).await;
    assert_eq!(daemon.terminate().await, Some(0));

    // Given no yes, then nothing is moved.
    let saved = bench.stage.positions();
    let (notes, code) = bench.refused(&["position", "set", FIRST, "--to-time", &moment]);
    assert!(code == Some(77) && notes.contains("nobody said yes"), "{notes}");
    assert_eq!(bench.stage.positions(), saved);

    // Given a time, when the position is set there, then everything since is repeated and nothing else.
    let output = bench.command(&["position", "set", FIRST, "--to-time", &moment, "--yes"]);
    let (told, notes) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(told.contains("(no daemon relays it at the moment)") && told.contains("REPEATS"), "{told}{notes}");
    assert!(notes.contains("audit action=\"position_set\" table=delivery.delivery-outbox1"), "{notes}");
    let daemon = bench.run();
    Bench::acknowledged(&daemon, 2).await;
    assert_eq!(bench.ids().await, ["a1", "a2", "a3", "b1", "b2", "b1", "b2"]);

    // Given a daemon that runs, when the position is set to the beginning, then it goes on from there.
    let told = bench.told(&["position", "set", FIRST, "--to", "earliest", "--yes"]);
    assert!(!told.contains("no daemon") && told.contains("REPEATS"), "{told}");
    Bench::acknowledged(&daemon, 7).await;
    let (notes, code) = bench.refused(&["position", "set", FIRST, "--to", "file=no-such.000001:4", "--yes"]);
    assert!(code == Some(77) && notes.contains("no place to resume"), "{notes}");

    // Given a daemon that answers elsewhere, then its table is not taken from it.
    let nowhere = format!("127.0.0.1:{}", free_port());
    let (notes, code) = bench.refused(&["position", "set", FIRST, "--to", "newest", "--yes", "--address", &nowhere]);
    assert!(code == Some(77) && notes.contains("is relayed by"), "{notes}");
    assert_eq!(daemon.terminate().await, Some(0));

    // Given the end of the log, then what lies between is never published.
    bench.insert(&["c1"]).await;
    let told = bench.told(&["position", "set", "delivery.*", "--to", "newest", "--yes"]);
    assert!(told.contains("SKIPS"), "{told}");
    let daemon = bench.run();
    daemon.ready().await;
    bench.insert(&["d1"]).await;
    Bench::acknowledged(&daemon, 1).await;
    assert_eq!(bench.ids().await.split_off(7), ["a1", "a2", "a3", "b1", "b2", "d1"]);
    assert_eq!(daemon.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_are_moved_back_and_forward_in_gtids() {
    positions_are_moved(Stage::of()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_are_moved_back_and_forward_in_files() {
    positions_are_moved(Stage::of().without_gtids()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_are_moved_back_and_forward_in_domains() {
    positions_are_moved(Stage::of().server("mariadb-11.8")).await;
}

/// The value of a header, for each record of the topic that has it.
fn replayed(stage: &Stage) -> Vec<(String, String)> {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::message::Headers;
    use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", format!("127.0.0.1:{}", stage.kafka_port()))
        .set("group.id", "replayed")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(&stage.topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&partitions).unwrap();
    let mut found = Vec::new();
    loop {
        let message = match consumer.poll(std::time::Duration::from_secs(30)).expect("the topic answers") {
            Ok(message) => message,
            Err(rdkafka::error::KafkaError::PartitionEOF(_)) => return found,
            Err(error) => panic!("{error}"),
        };
        let headers = message.headers().unwrap();
        let value = |name: &str| {
            let header = headers.iter().find(|header| header.key == name)?;
            Some(String::from_utf8(header.value.unwrap().to_vec()).unwrap())
        };
        if let Some(run) = value("outboxd-replay") {
            found.push((value("id").unwrap(), run));
        }
    }
}

async fn events_are_replayed(setup: crate::stage::Setup) {
    // Otherwise a save that came before the test looked would be the last for a minute.
    let setup = setup.set("RELAY__IDLE_CHECKPOINT_INTERVAL", "1s");
    let bench = Bench::new(setup.shards(1).partitions(1).up().await);
    let daemon = bench.run();
    daemon.ready().await;
    bench.insert(&["a1", "a2"]).await;
    bench.stage.sql(["FLUSH BINARY LOGS"]).await;
    let moment = bench.moment().await;
    bench.insert(&["b1", "b2", "b3"]).await;
    Bench::acknowledged(&daemon, 5).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
    let saved = async || u128::from(Bench::status(&daemon, FIRST)["saved_micros"].as_u64().unwrap()) > now;
    until("all of it is saved", saved).await;
    let (notes, code) = bench.refused(&["replay", FIRST, "--from", &moment]);
    assert!(code == Some(77) && notes.contains("nobody said yes"), "{notes}");

    // Given a time, when replayed from there, then what was committed since comes again, in order, with the header.
    let told = bench.told(&["replay", FIRST, "--from", &moment, "--yes", "--rate", "500/s"]);
    let run = told.lines().last().unwrap().rsplit_once(' ').unwrap().1.to_owned();
    assert!(told.contains("3 events published again"), "{told}");
    let expected = ["b1", "b2", "b3"].map(|id| (id.to_owned(), run.clone()));
    assert_eq!(replayed(&bench.stage), expected);

    // Given ids, then only those; and what comes later comes after them, once.
    let told = bench.told(&["replay", FIRST, "--id", "a2", "--id", "b2", "--yes"]);
    assert!(told.contains("2 events published again"), "{told}");
    bench.insert(&["c1"]).await;
    until("the next event is there", async || bench.ids().await.contains(&"c1".to_owned())).await;
    assert_eq!(bench.ids().await, ["a1", "a2", "b1", "b2", "b3", "b1", "b2", "b3", "a2", "b2", "c1"]);
    let (notes, code) = bench.refused(&["replay", FIRST, "--aggregate", "k", "--from", "newest", "--yes"]);
    assert!(code == Some(77) && notes.contains("(no_replay)"), "{notes}");
    assert!(daemon.log().contains("audit action=\"replay\""));
    assert_eq!(daemon.terminate().await, Some(0));
    let daemon = bench.run();
    daemon.ready().await;
    bench.insert(&["d1"]).await;
    Bench::acknowledged(&daemon, 1).await;
    assert_eq!(bench.ids().await.len(), 12, "nothing of it comes again");
    assert_eq!(daemon.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_replayed_in_gtids() {
    events_are_replayed(Stage::of()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_replayed_in_domains() {
    events_are_replayed(Stage::of().server("mariadb-11.8")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_replayed_in_transactions() {
    let setup = Stage::of().set("DELIVERY__GUARANTEE", "exactly_once").own_kafka().set("KAFKA__CREATE_TOPICS", "true");
    events_are_replayed(setup).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_under_load_keeps_the_order() {
    let bench = Bench::new(Stage::of().up().await);
    let daemon = bench.run();
    daemon.ready().await;
    let writing = bench.stage.write(73).await;
    let place = async |table: &str| Bench::status(&daemon, table)["position"].clone();
    let unmoved = (place(FIRST).await, place("delivery.delivery-outbox2").await);
    writing.more(300).await;
    // What is published lies before the durable position.
    until("both positions have moved", async || {
        place(FIRST).await != unmoved.0 && place("delivery.delivery-outbox2").await != unmoved.1
    })
    .await;
    bench.told(&["replay", "delivery.delivery-outbox[12]", "--from", "earliest", "--yes", "--rate", "2000"]);
    writing.more(100).await;
    let journal = writing.stop().await;
    let verdict = bench.stage.verdict(&journal).await;
    assert_eq!((verdict.total.missing, verdict.total.ghosts), (0, 0), "{verdict}");
    assert!(verdict.total.duplicates > 0, "{verdict}");
    assert_eq!(daemon.terminate().await, Some(0));
}
