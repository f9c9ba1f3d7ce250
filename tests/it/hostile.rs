//! Names and values out of a database whose writers mean ill: they arrive as they are, and nowhere else do they do anything.

use crate::daemon::Daemon;
use crate::routing::texts;
use crate::stage::{Stage, free_port};

/// What clears a screen, sets its title, and begins a line that looks like one of ours.
const NAME: &str = "delivery-outbox-\u{1b}[2J\u{7}\n2026-01-01T00:00:00Z ERROR forged\u{202e}";

/// Lines that are ours, and no control characters in them.
fn is_harmless(text: &str) -> bool {
    !text.chars().any(|character| (character.is_control() && character != '\n') || character == '\u{202e}')
        && !text.lines().any(|line| line.starts_with("2026-01-01T00:00:00Z"))
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_and_values_reach_no_terminal_and_forge_no_line() {
    let stage = Stage::of().shards(1).partitions(1).set("KAFKA__CREATE_TOPICS", "true").up().await;
    let first = stage.outboxes[0].quoted();
    stage
        .sql([
            format!(
                "ALTER TABLE {first} MODIFY payload LONGTEXT, MODIFY aggregateid VARCHAR(255), MODIFY id VARCHAR(255)"
            ),
            format!("CREATE TABLE delivery.`{NAME}` LIKE {first}"),
        ])
        .await;
    let insert = |table: &str, id: &str, payload: &str| {
        let columns = "id, aggregatetype, aggregateid, type, payload";
        format!("INSERT INTO {table} ({columns}) VALUES ('{id}', 'a', '{NAME}', 'T\u{1b}]0;title\u{7}', '{payload}')")
    };
    for (format, round) in [("text", 1), ("json", 2)] {
        let listen = format!("127.0.0.1:{}", free_port());
        let keys = [
            ("OUTBOX__0__TABLES", "delivery.delivery-outbox*"),
            ("OUTBOX__0__PAYLOAD_FORMAT", "json"),
            ("DELIVERY__ON_POISON", "dead_letter"),
            ("LOG__FORMAT", format),
            ("LOG__LEVEL", "debug"),
            ("ADMIN__LISTEN", &listen),
        ];
        let daemon = stage.run_with(&keys);
        let id = format!("{NAME}-{round}");
        stage
            .sql([
                insert(&first, &format!("{id}-bad"), "{no"),
                insert(&first, &format!("{id}-first"), "{}"),
                insert(&format!("delivery.`{NAME}`"), &format!("{id}-other"), "{}"),
            ])
            .await;
        daemon.logs("dead_letter_leaves_hole_in_order").await;
        stage.delivered(&format!("{id}-first")).await;
        stage.delivered(&format!("{id}-other")).await;
        if format == "text" {
            shows_nothing(&stage, &daemon, &listen);
        }
        daemon.signal("TERM");
        daemon.logs("relay_drained").await;
        // To a program, a letter that turns the direction is one like others.
        let log = if format == "json" { daemon.log().replace('\u{202e}', "") } else { daemon.log() };
        assert!(is_harmless(&log), "{log:?}");
        assert!(log.contains("forged"), "the table is named: {log}");
        if format == "json" {
            for line in log.lines() {
                serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            }
        }
    }
    // To consumers it goes as it is: what is in a row is theirs.
    let arrived = texts(&stage, &stage.topic, 4);
    assert!(
        arrived.iter().all(|record| record.contains(NAME) && record.contains("T\u{1b}]0;title\u{7}")),
        "{arrived:?}"
    );
}

/// Pages and commands that name the tables.
fn shows_nothing(stage: &Stage, daemon: &Daemon, listen: &str) {
    for arguments in [&["status"][..], &["check"], &["position", "show"], &["verify"]] {
        let mut command = stage.outboxd(arguments);
        command.env("OUTBOXD__OUTBOX__0__TABLES", "delivery.delivery-outbox*").env("OUTBOXD__ADMIN__LISTEN", listen);
        let output = command.output().unwrap();
        let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(is_harmless(&told), "{arguments:?}: {told:?}");
    }
    let (_, metrics) = daemon.page("/metrics").unwrap();
    let sample = regex::Regex::new(r#"^[a-z_]+(\{([a-z_]+="([^"\\]|\\.)*",?)*\})? [0-9.eE+-]+$"#).unwrap();
    let odd = metrics.lines().find(|line| !line.starts_with('#') && !sample.is_match(line));
    assert_eq!(odd, None, "a label has broken out");
    let (_, tables) = daemon.page("/api/v1/tables").unwrap();
    let tables: serde_json::Value = serde_json::from_str(&tables).unwrap();
    assert_eq!(tables.as_array().unwrap().len(), 2, "{tables}");
}
