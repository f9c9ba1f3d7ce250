//! The demo, as a newcomer runs it.

use std::path::Path;
use std::process::{Command, Output};

use crate::daemon::Daemon;
use crate::stage::{Stage, until};

/// In a folder of its own for everything temporary.
fn demo(folder: &Path, directory: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outboxd"));
    command.arg("demo").args(arguments).current_dir(directory).env("TMPDIR", folder).output().unwrap()
}

/// What the verdict's table says of something.
fn figure(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(&format!("│ {name} "))).unwrap_or_else(|| panic!("{text}"));
    line.rsplit('┆').next().unwrap().trim_matches(['│', ' ']).parse().unwrap()
}

#[test]
fn the_demo_kills_the_relay_and_finds_that_nothing_is_missing() {
    let text = played(&["--seconds", "6"]);
    assert!(text.contains("is killed with SIGKILL") && text.contains("  4 killed; "), "{text}");
    assert!(text.contains("`outboxd run` again, process ") && text.contains("  4 running; "), "{text}");
}

#[test]
fn the_demo_kills_the_primary_and_finds_that_nothing_is_missing() {
    let text = played(&["--failover", "--seconds", "6"]);
    let told = ["is killed with SIGKILL", "is promoted, and the writers go there", "the relay has found it by itself"];
    let told: Vec<_> = told.map(|what| text.find(what).unwrap_or_else(|| panic!("{what}: {text}"))).into();
    assert!(told.is_sorted(), "{text}");
}

/// What a demo without a terminal tells that ends with a clean verdict and leaves nothing behind.
fn played(arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = demo(folder.path(), env!("CARGO_MANIFEST_DIR"), arguments);
    let (text, notes) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{text}{notes}");
    assert!(!text.contains('\u{1b}'), "plain without a terminal: {text}");
    assert!(figure(&text, "committed") > 100, "{text}");
    assert_eq!(figure(&text, "delivered"), figure(&text, "committed"));
    for none in ["missing", "from rolled-back transactions", "out of order"] {
        assert_eq!(figure(&text, none), 0, "{none}: {text}");
    }
    figure(&text, "duplicates");
    assert!(text.contains("Every committed event arrived, in order, and nothing of what was rolled back."), "{text}");
    // The folder of a held server goes a moment after the server.
    let deadline = std::time::Instant::now() + crate::stage::PATIENCE;
    while folder.path().read_dir().unwrap().next().is_some() {
        assert!(std::time::Instant::now() < deadline, "{:?} is left behind", folder.path().read_dir());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    text
}

#[test]
fn without_the_servers_script_the_demo_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let output = demo(folder.path(), folder.path().to_str().unwrap(), &[]);
    let notes = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{notes}");
    assert!(
        notes.contains("scripts/services is not there; run the demo in the folder of an outboxd checkout"),
        "{notes}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_writes_to_a_server_of_ours_until_it_is_told_to_stop() {
    let stage = Stage::of().up().await;
    // The application of docker compose, with what it is granted there.
    let granted = include_str!("../../config/mysql/local.sql").lines().filter(|line| line.contains("'app'@'%'"));
    stage.sql(granted).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_outboxd"));
    command.args(["demo", "--rate", "50"]);
    command.env("OUTBOXD_DEMO_WRITE_TO", format!("mysql://app:app@127.0.0.1:{}", stage.mysql.port()));
    let mut writer = Daemon::spawn(&command);
    until("every shard has rows", async || {
        let mut all = true;
        for table in &stage.outboxes {
            all &= stage.ask(&format!("SELECT COUNT(*) > 0 FROM {}", table.quoted())).await == "1";
        }
        all
    })
    .await;
    writer.signal("TERM");
    assert_eq!(writer.ended().await, Some(0), "{}", writer.log());
}
