//! What the service manager is told.

use std::os::unix::net::UnixDatagram;

use crate::daemon::Daemon;
use crate::stage::{Stage, until};

#[tokio::test(flavor = "multi_thread")]
async fn it_is_told_why_a_start_takes_long_when_it_is_ready_and_when_it_stops() {
    let mut stage = Stage::of().shards(1).up().await;
    stage.mysql.tell("stop").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_nonblocking(true).unwrap();
    let mut command = stage.outboxd(&["run"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    let mut daemon = Daemon::spawn(&command);
    let mut told = String::new();
    let mut hears = async |text: &str| {
        until(&format!("the manager is told {text}"), async || {
            let mut message = [0; 4096];
            while let Ok(size) = manager.recv(&mut message) {
                told.push_str(&String::from_utf8_lossy(&message[..size]));
            }
            told.contains(text)
        })
        .await;
        std::mem::take(&mut told)
    };
    let waiting = hears("EXTEND_TIMEOUT_USEC=").await;
    assert!(waiting.contains("STATUS=waiting for mysql") && !waiting.contains("READY"), "{waiting}");
    stage.mysql.tell("start").unwrap();
    hears("READY=1").await;
    hears("WATCHDOG=1").await;
    daemon.signal("TERM");
    hears("STOPPING=1").await;
    assert_eq!(daemon.ended().await, Some(0));
}
