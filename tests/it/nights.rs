//! The nights of `docs/operations.md`, step by step as they stand there. The failovers are played in `failover`.

use crate::daemon::Daemon;
use crate::order::event;
use crate::stage::{Setup, Stage};

const TABLE: &str = "delivery.delivery-outbox1";

/// One table that begins with its rows.
async fn up(setup: Setup) -> Stage {
    setup.set("OUTBOX__0__START", "snapshot").shards(1).partitions(1).up().await
}

/// Standard output of a command that succeeds.
#[track_caller]
fn told(stage: &Stage, arguments: &[&str]) -> String {
    let output = stage.outboxd(arguments).output().unwrap();
    let (out, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {out}{errors}");
    out
}

/// Relays these events, and stops.
async fn relay(stage: &Stage, ids: &[&str]) {
    let daemon = stage.run();
    daemon.ready().await;
    relayed(stage, daemon, ids).await;
}

async fn relayed(stage: &Stage, daemon: Daemon, ids: &[&str]) {
    stage.sql(ids.iter().map(|id| event(1, id, "k"))).await;
    for id in ids {
        stage.delivered(id).await;
    }
    assert_eq!(daemon.terminate().await, Some(0));
}

/// How often an event is in the topic.
async fn times(stage: &Stage, id: &str) -> usize {
    stage.records().await.iter().filter(|record| &*record.event_id == id).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_was_purged() {
    for setup in [Stage::of(), Stage::of().without_gtids(), Stage::of().server("mariadb-11.8")] {
        let stage = up(setup).await;
        relay(&stage, &["first"]).await;
        stage.sql(["FLUSH BINARY LOGS"]).await;
        let file = stage.newest_log().await;
        let gone = format!("DELETE FROM {} WHERE id = 'gone'", stage.outboxes[0].quoted());
        stage.sql([event(1, "kept", "k"), event(1, "gone", "k"), gone, "FLUSH BINARY LOGS".into()]).await;
        let archive = tempfile::tempdir().unwrap();
        let archived = archive.path().join(&file);
        std::fs::copy(stage.mysql.dir().join("data").join(&file), &archived).unwrap();
        stage.purge().await;
        let mut daemon = stage.run();
        assert_eq!(daemon.ended().await, Some(78), "{}", daemon.log());
        assert!(daemon.log().contains(&format!("outboxd position set {TABLE} --to table")), "{}", daemon.log());
        // The steps.
        let said = told(&stage, &["position", "set", TABLE, "--to", "table", "--yes"]);
        assert!(said.contains("REPEATS every row that is in the table") && said.contains("SKIPS what "), "{said}");
        let daemon = stage.run();
        stage.delivered("kept").await;
        relayed(&stage, daemon, &["last"]).await;
        told(&stage, &["verify"]);
        let decoded = told(&stage, &["decode", archived.to_str().unwrap(), "--tables", TABLE]);
        let lines = decoded.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let rows: Vec<_> = lines.map(|line| line["columns"].clone()).collect();
        assert_eq!(rows.iter().map(|row| row["id"].as_str().unwrap()).collect::<Vec<_>>(), ["kept", "gone"]);
        assert_eq!((times(&stage, "gone").await, times(&stage, "last").await), (0, 1));
        let payload = rows[1]["payload"].as_str().map_or_else(|| rows[1]["payload"].to_string(), ToOwned::to_owned);
        let values =
            ["id", "aggregatetype", "aggregateid", "type"].map(|name| rows[1][name].as_str().unwrap().to_owned());
        let insert = format!(
            "INSERT INTO {} (id, aggregatetype, aggregateid, type, payload) VALUES ('{}', '{payload}')",
            stage.outboxes[0].quoted(),
            values.join("', '")
        );
        let daemon = stage.run();
        stage.sql([insert]).await;
        stage.delivered("gone").await;
        assert_eq!(daemon.terminate().await, Some(0));
        told(&stage, &["verify"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn binlogs_were_reset() {
    for (setup, reset) in [
        (Stage::of(), "RESET BINARY LOGS AND GTIDS"),
        (Stage::of().without_gtids(), "RESET BINARY LOGS AND GTIDS"),
        (Stage::of().server("mariadb-11.8"), "RESET MASTER"),
    ] {
        let stage = up(setup).await;
        relay(&stage, &["first", "second"]).await;
        // What is reset while nobody looks: "away" is in the table only, and the numbers are given again.
        stage.sql([event(1, "away", "k"), reset.into(), event(1, "again", "k")]).await;
        // The steps.
        told(&stage, &["position", "forget", TABLE, "--yes"]);
        let daemon = stage.run();
        stage.delivered("away").await;
        stage.delivered("again").await;
        relayed(&stage, daemon, &["last"]).await;
        told(&stage, &["verify"]);
        // The same as planned.
        let before = stage.records().await.len();
        stage.sql([reset]).await;
        told(&stage, &["position", "set", TABLE, "--to", "newest", "--yes"]);
        relay(&stage, &["planned"]).await;
        told(&stage, &["verify"]);
        assert_eq!(stage.records().await.len(), before + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_was_moved_to_another_database() {
    let stage = up(Stage::of()).await;
    relay(&stage, &["before"]).await;
    // The steps: the daemon has stopped, nothing waits.
    told(&stage, &["position", "forget", TABLE, "--yes"]);
    stage.sql(["CREATE DATABASE moved", "RENAME TABLE delivery.`delivery-outbox1` TO moved.`delivery-outbox1`"]).await;
    stage.sql(["GRANT SELECT ON moved.* TO outboxd"]).await;
    let moved = |arguments: &[&str]| {
        let mut command = stage.outboxd(arguments);
        command.env("OUTBOXD__OUTBOX__0__TABLES", "moved.delivery-outbox1");
        command
    };
    let set = moved(&["position", "set", "moved.delivery-outbox1", "--to", "newest", "--yes"]).output().unwrap();
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    let daemon = Daemon::spawn(&moved(&["run"]));
    daemon.ready().await;
    stage.sql([event(1, "after", "k").replace("delivery.`", "moved.`")]).await;
    stage.delivered("after").await;
    assert_eq!(daemon.terminate().await, Some(0));
    let verified = moved(&["verify"]).output().unwrap();
    assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stdout));
    assert_eq!((times(&stage, "before").await, times(&stage, "after").await), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_was_restored() {
    let mut stage = up(Stage::of()).await;
    relay(&stage, &["first"]).await;
    let data = stage.mysql.dir().join("data");
    let backup = tempfile::tempdir().unwrap();
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        assert!(std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
    };
    stage.sql([event(1, "waiting", "k")]).await;
    stage.mysql.tell("stop").unwrap();
    copy(&data, &backup.path().join("data"));
    stage.mysql.tell("start").unwrap();
    relay(&stage, &["lost"]).await;
    stage.mysql.tell("stop").unwrap();
    std::fs::remove_dir_all(&data).unwrap();
    copy(&backup.path().join("data"), &data);
    stage.mysql.tell("start").unwrap();
    // The steps.
    told(&stage, &["position", "forget", TABLE, "--yes"]);
    let daemon = stage.run();
    relayed(&stage, daemon, &["after"]).await;
    assert_eq!((times(&stage, "first").await, times(&stage, "after").await), (2, 1));
    let verified = stage.outboxd(&["verify", "--format", "json"]).output().unwrap();
    let said: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!((verified.status.code(), &said["tables"][0]["missing"]), (Some(2), &0.into()), "{said}");
    // What is published again is no difference.
    let findings = said["findings"].as_array().unwrap().iter().filter(|one| one["kind"] != "duplicate");
    let findings: Vec<_> = findings.map(|one| (&one["kind"], &one["id"])).collect();
    assert_eq!(findings, [(&"unexpected".into(), &"lost".into())], "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_was_cloned_and_has_a_new_uuid() {
    for (setup, gtids) in [(Stage::of(), true), (Stage::of().without_gtids(), false)] {
        let mut stage = up(setup).await;
        relay(&stage, &["before"]).await;
        stage.sql([event(1, "waiting", "k")]).await;
        stage.mysql.tell("stop").unwrap();
        std::fs::remove_file(stage.mysql.dir().join("data/auto.cnf")).unwrap();
        stage.mysql.tell("start").unwrap();
        if !gtids {
            let mut daemon = stage.run();
            assert_eq!(daemon.ended().await, Some(1), "{}", daemon.log());
            assert!(daemon.log().contains("reason=\"other_server\""), "{}", daemon.log());
        }
        // The steps.
        let daemon = stage.run_with(if gtids { &[] } else { &[("MYSQL__ON_NEW_SERVER", "continue")] });
        relayed(&stage, daemon, &["after"]).await;
        relay(&stage, &["last"]).await;
        told(&stage, &["verify"]);
        assert_eq!(stage.records().await.len(), 4);
    }
}
