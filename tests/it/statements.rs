//! Statements other than the plain INSERT.

use crate::order::{event, ids};
use crate::stage::{Stage, until};

/// The ids that leave for these statements, of two shards and one partition.
async fn relayed(server: &'static str, statements: &[String]) -> Vec<String> {
    let stage = Stage::of().server(server).shards(2).partitions(1).up().await;
    let daemon = stage.run();
    stage.sql(statements).await;
    stage.sql([event(1, "end", "k")]).await;
    stage.delivered("end").await;
    assert_eq!(daemon.terminate().await, Some(0));
    ids(&stage.records().await).into_iter().map(str::to_owned).collect()
}

const T: &str = "delivery.`delivery-outbox1`";

#[tokio::test(flavor = "multi_thread")]
async fn deletes_are_ignored_and_an_insert_that_is_deleted_at_once_leaves() {
    let truncate = format!("TRUNCATE {T}");
    for server in ["mysql-9.7", "mariadb-11.8"] {
        let statements = [
            event(1, "a", "k"),
            format!("DELETE FROM {T}"),
            // Publishing without a table that grows.
            "BEGIN".into(),
            event(1, "b", "k"),
            event(1, "c", "k"),
            format!("DELETE FROM {T} WHERE id IN ('b', 'c')"),
            "COMMIT".into(),
            event(1, "d", "k"),
            truncate.clone(),
            event(1, "e", "k"),
        ];
        assert_eq!(relayed(server, &statements).await, ["a", "b", "c", "d", "e", "end"], "{server}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replace_and_upsert_publish_what_they_insert_and_not_what_they_change() {
    let values = |verb: &str, id: &str, tail: &str| {
        format!(
            "{verb} INTO {T} (id, aggregatetype, aggregateid, type, payload) VALUES ('{id}', 'a', 'k', 'T', '1') {tail}"
        )
    };
    let upsert = "ON DUPLICATE KEY UPDATE payload = '2'";
    let statements = [
        values("REPLACE", "new-1", ""),
        values("INSERT", "new-2", upsert),
        values("INSERT", "new-2", upsert),
        values("INSERT IGNORE", "new-2", ""),
        values("INSERT IGNORE", "new-3", ""),
        format!(
            "INSERT INTO {T} (id, aggregatetype, aggregateid, type, payload) SELECT CONCAT(id, '-copy'), aggregatetype, aggregateid, type, payload FROM {T} WHERE id = 'new-3'"
        ),
    ];
    assert_eq!(relayed("mysql-9.7", &statements).await, ["new-1", "new-2", "new-3", "new-3-copy", "end"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_may_gain_columns_be_rebuilt_and_be_made_anew() {
    for setting in ["binlog_row_metadata=FULL", "binlog_row_metadata=MINIMAL"] {
        let stage = Stage::of().shards(2).partitions(1).setting(setting).up().await;
        let daemon = stage.run();
        let copy = "delivery.`delivery-outbox2`";
        let statements = [
            event(1, "a", "k"),
            format!("ALTER TABLE {T} ADD COLUMN note VARCHAR(20) NOT NULL DEFAULT 'x' FIRST"),
            event(1, "b", "k"),
            format!("ALTER TABLE {T} DROP COLUMN note, ADD COLUMN at DATETIME DEFAULT NOW() AFTER id"),
            event(1, "c", "k"),
            format!("ALTER TABLE {T} ENGINE = InnoDB"),
            event(1, "d", "k"),
            format!("DROP TABLE {T}"),
            format!("CREATE TABLE {T} LIKE {copy}"),
            event(1, "e", "k"),
            format!("RENAME TABLE {T} TO delivery.old"),
            format!("CREATE TABLE {T} LIKE {copy}"),
            event(1, "f", "k"),
        ];
        // One by one: without names in the log, rows are understood by the table's definition at the time.
        for (index, sql) in statements.iter().enumerate() {
            stage.sql([sql]).await;
            if sql.starts_with("INSERT") {
                let id = ["a", "", "b", "", "c", "", "d", "", "", "e", "", "", "f"][index];
                stage.delivered(id).await;
            }
        }
        assert_eq!(daemon.terminate().await, Some(0));
        assert_eq!(ids(&stage.records().await), ["a", "b", "c", "d", "e", "f"], "{setting}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_made_with_rows_is_relayed_without_names_in_the_log_and_holds_no_other_up() {
    for (server, metadata) in [("mysql-9.7", "MINIMAL"), ("mariadb-11.8", "NO_LOG")] {
        let setting = format!("binlog_row_metadata={metadata}");
        let stage = Stage::of().server(server).shards(2).partitions(1).setting(setting).up().await;
        let daemon = stage.run();
        stage.sql([event(1, "before", "k"), event(2, "other-before", "k")]).await;
        stage.delivered("before").await;
        stage.delivered("other-before").await;
        // The rows are in the transaction that makes the table.
        let made = format!(
            "CREATE TABLE {T} (id CHAR(36) PRIMARY KEY, payload VARCHAR(50), aggregatetype VARCHAR(255), aggregateid \
             VARCHAR(255), type VARCHAR(255)) AS SELECT 'made' AS id, '2' AS payload, 'a' AS aggregatetype, 'k' AS \
             aggregateid, 'T' AS type"
        );
        stage.sql([format!("DROP TABLE {T}"), made]).await;
        stage.sql([event(2, "other-after", "k"), event(1, "after", "k")]).await;
        for id in ["made", "other-after", "after"] {
            stage.delivered(id).await;
        }
        assert_eq!(daemon.terminate().await, Some(0), "{server}");
        let records = stage.records().await;
        assert_eq!(records.len(), 5, "{server}: {:?}", ids(&records));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_made_with_rows_and_is_another_by_now_halts_by_name_and_holds_no_other_up() {
    for (server, metadata) in [("mysql-9.7", "MINIMAL"), ("mariadb-11.8", "NO_LOG")] {
        let setting = format!("binlog_row_metadata={metadata}");
        let stage = Stage::of().server(server).shards(2).partitions(1).setting(setting).up().await;
        let daemon = stage.run();
        daemon.ready().await;
        assert_eq!(daemon.terminate().await, Some(0), "{server}");
        // Nobody reads the log before the table is altered.
        let made = format!("CREATE TABLE {T} AS SELECT * FROM delivery.`delivery-outbox2`");
        let altered = format!("ALTER TABLE {T} ADD COLUMN more INT");
        let copied = [event(2, "other-before", "k"), format!("DROP TABLE {T}"), made, altered];
        stage.sql(copied).await;
        let daemon = stage.run();
        daemon.logs("table_definition_changed").await;
        stage.sql([event(2, "other-after", "k")]).await;
        stage.delivered("other-after").await;
        assert_eq!(daemon.terminate().await, Some(1), "{server}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_column_halts_the_table_by_name() {
    let stage = Stage::of().shards(2).setting("binlog_row_metadata=FULL").up().await;
    let daemon = stage.run();
    daemon.ready().await;
    stage.sql([format!("ALTER TABLE {T} DROP COLUMN payload")]).await;
    stage.sql([format!("INSERT INTO {T} (id, aggregatetype, aggregateid, type) VALUES ('x', 'a', 'k', 'T')")]).await;
    daemon.logs("missing_column").await;
    stage.sql([event(2, "other", "k")]).await;
    stage.delivered("other").await;
    assert_eq!(daemon.terminate().await, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_load_data_leave_in_their_order() {
    let stage = Stage::of().shards(1).partitions(1).up().await;
    let daemon = stage.run();
    let file = tempfile::NamedTempFile::new().unwrap();
    let lines: Vec<_> = (0..1000).map(|n| format!("row-{n:04}\ta\tk\tT\t{{}}")).collect();
    std::fs::write(file.path(), lines.join("\n") + "\n").unwrap();
    stage
        .sql([
            format!(
                "LOAD DATA INFILE '{}' INTO TABLE {T} (id, aggregatetype, aggregateid, type, payload)",
                file.path().display()
            ),
            event(1, "end", "k"),
        ])
        .await;
    stage.delivered("end").await;
    assert_eq!(daemon.terminate().await, Some(0));
    let records = stage.records().await;
    assert_eq!(records.len(), 1001);
    assert!(ids(&records).is_sorted_by(|a, b| a < b || *b == "end"));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_not_in_the_log_halt_the_table_by_name() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "x\ta\tk\tT\t{}\n").unwrap();
    let load = format!(
        "LOAD DATA INFILE '{}' INTO TABLE {T} (id, aggregatetype, aggregateid, type, payload)",
        file.path().display()
    );
    for server in ["mysql-9.7", "mariadb-11.8"] {
        for statement in [event(1, "unseen", "k"), load.clone()] {
            let stage = Stage::of().server(server).shards(2).up().await;
            let daemon = stage.run();
            stage.sql([&event(1, "seen", "k"), "SET SESSION binlog_format = STATEMENT", &statement]).await;
            daemon.logs("statement_format").await;
            stage.sql([event(2, "other", "k")]).await;
            stage.delivered("other").await;
            stage.delivered("seen").await;
            assert_eq!(daemon.terminate().await, Some(1), "{server}: {statement}");
        }
    }
}

/// Sets the first table's position to what the halt tells that has ended the daemon.
fn go_past(stage: &Stage, log: &str) {
    let (_, told) = log.split_once("to go past this transaction, ").unwrap_or_else(|| panic!("no way past it: {log}"));
    let place = told.split('\'').nth(1).unwrap_or_else(|| panic!("no place behind it: {told}"));
    let set = ["position", "set", "delivery.delivery-outbox1", "--to", place, "--yes"];
    assert!(stage.outboxd(&set).status().unwrap().success(), "{place}");
}

/// Given a transaction that halts its table whenever it is read, when the position is set to what the detail tells, then the
/// table goes on right behind it, by GTIDs as by file and offset.
#[tokio::test(flavor = "multi_thread")]
async fn a_halt_tells_the_way_past_a_transaction_that_no_setting_cures_any_more() {
    for setup in [Stage::of(), Stage::of().without_gtids(), Stage::of().server("mariadb-11.8")] {
        let stage = setup.shards(1).partitions(1).up().await;
        let mut daemon = stage.run();
        stage.sql([&event(1, "seen", "k"), "SET SESSION binlog_format = STATEMENT", &event(1, "unseen", "k")]).await;
        stage.sql([event(1, "later", "k")]).await;
        assert_eq!(daemon.ended().await, Some(1));
        let mut daemon = stage.run();
        assert_eq!(daemon.ended().await, Some(1), "later rows are in row format, and it halts all the same");
        go_past(&stage, &daemon.log());
        let daemon = stage.run();
        stage.delivered("later").await;
        assert_eq!(daemon.terminate().await, Some(0));
        assert_eq!(ids(&stage.records().await), ["seen", "later"]);
    }
}

/// Given a transaction that is damaged in the log, whose end is not read, then the detail tells the place behind it all the
/// same, where it has a GTID.
#[tokio::test(flavor = "multi_thread")]
async fn a_halt_tells_the_way_past_a_damaged_transaction() {
    for server in ["mysql-9.7", "mariadb-11.8"] {
        let stage = Stage::of().server(server).shards(1).partitions(1).up().await;
        stage.sql([event(1, "seen", "k"), event(1, "to-be-damaged", "k"), event(1, "later", "k")]).await;
        let file = stage.mysql.dir().join("data").join(stage.newest_log().await);
        stage.sql(["FLUSH BINARY LOGS"]).await;
        let mut bytes = std::fs::read(&file).unwrap();
        let at = bytes.windows(13).rposition(|text| text == b"to-be-damaged").unwrap();
        bytes[at] ^= 1;
        std::fs::write(&file, &bytes).unwrap();
        let mut daemon = stage.run();
        assert_eq!(daemon.ended().await, Some(1), "{server}");
        assert!(daemon.log().contains("reason=\"damaged_event\""), "{server}: {}", daemon.log());
        go_past(&stage, &daemon.log());
        let daemon = stage.run();
        stage.delivered("later").await;
        assert_eq!(daemon.terminate().await, Some(0));
        assert_eq!(ids(&stage.records().await), ["seen", "later"], "{server}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_are_counted_and_warned_of_once_and_nothing_leaves_for_them() {
    let stage = Stage::of().shards(2).partitions(1).up().await;
    let daemon = stage.run();
    let mut statements: Vec<String> = (0..20).map(|n| event(1, &format!("e-{n:02}"), "k")).collect();
    statements.extend((0..20).map(|n| format!("UPDATE {T} SET payload = '{n}' WHERE id = 'e-{n:02}'")));
    statements.push(event(1, "end", "k"));
    stage.sql(&statements).await;
    stage.delivered("end").await;
    until("updates are counted", async || daemon.metric("outboxd_updates_ignored_total") >= 20.0).await;
    assert_eq!(daemon.log().matches("update_ignored").count(), 1, "{}", daemon.log());
    assert_eq!(daemon.terminate().await, Some(0));
    assert_eq!(stage.records().await.len(), 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_halt_the_table_where_that_is_asked_for() {
    let stage = Stage::of().shards(2).set("RELAY__ON_UPDATE", "halt").up().await;
    let daemon = stage.run();
    stage.sql([event(1, "before", "k"), format!("UPDATE {T} SET payload = '2'"), event(1, "after", "k")]).await;
    daemon.logs("update_on_outbox").await;
    stage.sql([event(2, "other", "k")]).await;
    stage.delivered("other").await;
    stage.delivered("before").await;
    assert_eq!(daemon.terminate().await, Some(1));
    // The operator decides to go on.
    let daemon = stage.run_with(&[("RELAY__ON_UPDATE", "warn")]);
    stage.delivered("after").await;
    assert_eq!(daemon.terminate().await, Some(0));
}
