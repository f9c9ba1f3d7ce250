//! What must not be seen.

use mysql_async::prelude::Queryable;

use crate::account;
use crate::daemon::Daemon;
use crate::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn neither_password_nor_payload_show_anywhere_not_even_at_trace_level() {
    const PASSWORD: &str = "Tr0ub4dor-and-3";
    const PAYLOAD: &str = "confidential-route";
    let stage = Stage::of().shards(1).up().await;
    stage.sql(["CREATE USER relay IDENTIFIED BY 'Tr0ub4dor-and-3'"]).await;
    stage.sql(account::grants("relay")).await;
    let url = format!("mysql://relay:{PASSWORD}@127.0.0.1:{}", stage.mysql.port());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), PASSWORD).unwrap();
    let table = stage.outboxes[0].quoted();
    for (round, by_file) in [false, true].into_iter().enumerate() {
        let keys = [("MYSQL__URL", url.as_str()), ("LOG__LEVEL", "trace"), ("POSITIONS__URL", url.as_str())];
        let mut command = stage.outboxd(&["run"]);
        for (key, value) in keys {
            command.env(format!("OUTBOXD__{key}"), value);
        }
        command.env_remove("OUTBOXD__MYSQL__PASSWORD");
        if by_file {
            for of in ["MYSQL", "POSITIONS"] {
                command.env(format!("OUTBOXD__{of}__URL"), format!("mysql://relay@127.0.0.1:{}", stage.mysql.port()));
                command.env(format!("OUTBOXD__{of}__PASSWORD_FILE"), file.path());
            }
        }
        let daemon = crate::daemon::Daemon::spawn(&command);
        let id = format!("e-{round}");
        let row = format!(
            "INSERT INTO {table} (id, aggregatetype, aggregateid, type, payload) VALUES ('{id}', 'a', 'k', 'T', '{{\"r\": \"{PAYLOAD}\"}}')"
        );
        stage.sql([row, format!("UPDATE {table} SET payload = '\"{PAYLOAD}\"'")]).await;
        stage.delivered(&id).await;
        daemon.logs("update_ignored").await;
        let arguments = std::fs::read(format!("/proc/{}/cmdline", daemon.id())).unwrap();
        assert!(!String::from_utf8_lossy(&arguments).contains(PASSWORD));
        for page in ["/metrics", "/api/v1/tables", "/readyz"] {
            let (_, body) = daemon.page(page).unwrap();
            assert!(!body.contains(PASSWORD) && !body.contains(PAYLOAD), "{page}");
        }
        daemon.signal("TERM");
        daemon.logs("relay_drained").await;
        let log = daemon.log();
        assert!(log.contains("TRACE") || log.contains("DEBUG"), "the level is in force");
        assert!(!log.contains(PASSWORD), "the password is in the log");
        assert!(!log.contains(PAYLOAD), "the payload is in the log");
    }
    for arguments in [
        &["config"][..],
        &["check"],
        &["check", "--format", "json"],
        &["status"],
        &["position", "show"],
        &["parked", "list"],
        &["verify"],
    ] {
        let told = told(&stage, arguments, &url);
        assert!(!told.contains(PASSWORD), "{arguments:?}: {told}");
        assert!(arguments != ["config"] || told.contains("***"), "{told}");
    }
    // Nor where it is of no use: another server, another form, another port.
    for bad in [
        format!("mysql://relay:{PASSWORD}@127.0.0.1:1"),
        format!("mysql://relay:{PASSWORD}@127.0.0.1:port"),
        format!("postgres://relay:{PASSWORD}@127.0.0.1"),
        format!("mysql://relay:{PASSWORD}"),
        format!("mysql://nobody:{PASSWORD}@127.0.0.1:{}", stage.mysql.port()),
    ] {
        for arguments in [&["check"][..], &["config"], &["position", "show"]] {
            let told = told(&stage, arguments, &bad);
            assert!(!told.contains(PASSWORD), "{arguments:?}: {told}");
        }
    }
}

/// Both streams of a command that has its password from this URL alone.
fn told(stage: &Stage, arguments: &[&str], url: &str) -> String {
    let mut command = stage.outboxd(arguments);
    command.env_remove("OUTBOXD__MYSQL__PASSWORD").env("OUTBOXD__MYSQL__URL", url);
    let output = command.env("OUTBOXD__MYSQL__CONNECT_TIMEOUT", "2s").output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Given a password in a file, when it is changed at the server and in the file, then the next connection has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_in_a_file_is_read_for_every_connection() {
    let stage = Stage::of().shards(1).up().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let put = |password: &str| std::fs::write(file.path(), format!("{password}\n")).unwrap();
    put(account::PASSWORD);
    let mut command = stage.outboxd(&["run"]);
    let daemon =
        Daemon::spawn(command.env_remove("OUTBOXD__MYSQL__PASSWORD").env("OUTBOXD__MYSQL__PASSWORD_FILE", file.path()));
    daemon.ready().await;
    let mut conn = stage.connect().await;
    conn.query_drop("ALTER USER outboxd IDENTIFIED BY 'another-one'").await.unwrap();
    put("another-one");
    let threads = "SELECT id FROM information_schema.processlist WHERE user = 'outboxd' AND id <> CONNECTION_ID()";
    let all: Vec<u64> = conn.query(threads).await.unwrap();
    for thread in all {
        let _ = conn.query_drop(format!("KILL {thread}")).await;
    }
    let insert = "INSERT INTO delivery.`delivery-outbox1` (id, aggregatetype, aggregateid, type, payload) VALUES ('e-1', 'a', 'k', 'T', '{}')";
    conn.query_drop(insert).await.unwrap();
    stage.delivered("e-1").await;
    daemon.ready().await;
    assert!(!daemon.log().contains("another-one"));
    assert_eq!(daemon.terminate().await, Some(0));
}
