//! The programs of docs/writing.md, in each language: what they commit arrives, in order, by the rule of the shards, and nothing
//! of what they roll back.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use outboxd::history::Delivered;
use tempfile::TempDir;
use uuid::Uuid;

use crate::pages::statements;
use crate::stage::{Stage, until};

/// Deliveries that a program writes about, and the events of each.
const DELIVERIES: usize = 20;
const TYPES: [&str; 3] = ["DeliveryCreated", "DeliveryPickedUp", "DeliveryCompleted"];

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/writing/examples")
}

/// Runs a command to its end and gives what it prints; fails with what it complains of.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; `make setup` installs it"));
    let (text, notes) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{text}\n{notes}", output.status);
    text.into_owned()
}

/// Given the tables of the page and a daemon that watches the shards, when a program has written, then the topic has exactly
/// what it has committed. `prepare` builds it in a folder, and gives the command that runs it.
async fn writes(prepare: impl FnOnce(&Path) -> Command + Send + 'static) {
    let setup = Stage::of().set("OUTBOX__0__SHARD", "crc32(aggregateid) % 4");
    let stage = setup.set("OUTBOX__0__COLUMNS__TIMESTAMP", "created_at").servers().await;
    stage.create_topic().await;
    stage.sql(statements(&fs::read_to_string(examples().join("schema.sql")).unwrap())).await;
    stage.migrate();
    let daemon = stage.run();
    daemon.ready().await;

    let port = stage.mysql.port().to_string();
    let work = move || {
        let folder = TempDir::new().unwrap();
        let mut program = prepare(folder.path());
        program.envs([("DB_HOST", "127.0.0.1"), ("DB_PORT", &port), ("DB_USER", "shop"), ("DB_PASSWORD", "shop")]);
        run(&mut program)
    };
    let printed = tokio::task::spawn_blocking(work).await.unwrap();
    let ids: Vec<Uuid> = printed.split_whitespace().map(|id| id.parse().unwrap()).collect();
    assert_eq!(ids.len(), DELIVERIES * TYPES.len(), "{printed}");
    assert!(ids.iter().all(|id| id.get_version_num() == 7 && id.get_variant() == uuid::Variant::RFC4122), "{printed}");
    let milliseconds: Vec<_> = ids.iter().map(|id| id.as_u128() >> 80).collect();
    assert!(milliseconds.is_sorted(), "{printed}");

    until("everything is delivered", async || stage.records().await.len() >= ids.len()).await;
    assert!(daemon.metric("outboxd_misrouted_events_total") < 1.0);
    assert_eq!(daemon.terminate().await, Some(0));
    let mut by_aggregate: BTreeMap<Arc<str>, Vec<Delivered>> = BTreeMap::new();
    for record in stage.records().await {
        by_aggregate.entry(Arc::clone(&record.key)).or_default().push(record);
    }
    assert_eq!(by_aggregate.len(), DELIVERIES);
    for written in ids.chunks(TYPES.len()) {
        let of_it = |records: &&Vec<Delivered>| *records[0].event_id == written[0].to_string();
        let records = by_aggregate.values().find(of_it).expect("the first event of an aggregate comes first");
        let found: Vec<_> = records.iter().map(|record| (record.event_id.to_string(), &*record.event_type)).collect();
        let expected: Vec<_> = written.iter().map(Uuid::to_string).zip(TYPES).collect();
        assert_eq!(found, expected);
        // The time of the event is the writer's, whose id tells it too.
        for (record, id) in records.iter().zip(written) {
            let written = i64::try_from(id.as_u128() >> 80).unwrap();
            assert!((record.timestamp_millis.unwrap() - written).abs() < 60_000, "{record:?}");
        }
    }
    for table in &stage.outboxes {
        assert_ne!(stage.ask(&format!("SELECT COUNT(*) FROM {}", table.quoted())).await, "0", "{table} is used");
    }
    let statuses = stage.ask("SELECT GROUP_CONCAT(DISTINCT status) FROM delivery.deliveries").await;
    assert_eq!(statuses, "completed", "nothing was lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_in_java_writes_events() {
    writes(|folder| {
        let libraries = folder.join("lib");
        run(Command::new("mvn")
            .args(["--batch-mode", "--quiet", "dependency:copy-dependencies", "-DincludeScope=runtime"])
            .arg(format!("-DoutputDirectory={}", libraries.display()))
            .current_dir(examples().join("java")));
        let sources = fs::read_dir(examples().join("java/shop")).unwrap().map(|entry| entry.unwrap().path());
        let libraries = format!("{}/*", libraries.display());
        run(Command::new("javac").args(["-cp", &libraries, "-d"]).arg(folder).args(sources));
        let mut java = Command::new("java");
        java.arg("-cp").arg(format!("{}:{libraries}", folder.display())).arg("shop.Writer");
        java
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_in_go_writes_events() {
    writes(|folder| {
        let program = folder.join("writer");
        run(Command::new("go").args(["build", "-o"]).arg(&program).arg(".").current_dir(examples().join("go")));
        Command::new(program)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_in_node_writes_events() {
    writes(|folder| {
        for file in ["package.json", "package-lock.json", "writer.js"] {
            fs::copy(examples().join("node").join(file), folder.join(file)).unwrap();
        }
        run(Command::new("npm").args(["ci", "--silent", "--no-audit", "--no-fund"]).current_dir(folder));
        let mut node = Command::new("node");
        node.arg(folder.join("writer.js"));
        node
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_in_python_writes_events() {
    writes(|folder| {
        let python = examples().join("python");
        let install = ["-m", "pip", "install", "--quiet", "--no-input", "--target"];
        let wanted = python.join("requirements.txt");
        run(Command::new("python3").args(install).arg(folder).arg("--requirement").arg(wanted));
        let mut program = Command::new("python3");
        program.arg("-B").arg(python.join("writer.py")).env("PYTHONPATH", folder);
        program
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_in_rust_writes_events() {
    writes(|_| {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--example", "writer"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        if cfg!(feature = "otel") {
            build.arg("--all-features");
        }
        run(&mut build);
        Command::new(Path::new(env!("CARGO_BIN_EXE_outboxd")).with_file_name("examples").join("writer"))
    })
    .await;
}
