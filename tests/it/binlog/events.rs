//! Events of every kind, by MySQL 9.7 and MariaDB.

use mysql_async::prelude::Queryable;
use outboxd::source::ForeignDml;

use super::shop::{MARIADBS, MYSQL, Shop};

const OUTBOX: &str = "id BIGINT UNSIGNED PRIMARY KEY, payload LONGTEXT";
const COLUMNS: [&str; 2] = ["id", "payload"];

fn servers() -> impl Iterator<Item = &'static str> {
    std::iter::once(MYSQL).chain(MARIADBS)
}

#[tokio::test(flavor = "multi_thread")]
async fn given_compressed_transactions_when_read_then_every_row_of_every_event_comes_through() {
    let mut shop = Shop::open(MYSQL, "payload", OUTBOX, &COLUMNS).await;
    shop.run(&[
        "SET SESSION binlog_transaction_compression = ON, SESSION binlog_rows_query_log_events = ON",
        "CREATE TABLE other (id INT AUTO_INCREMENT PRIMARY KEY, text TEXT)",
        "INSERT INTO `out-box` VALUES (1, 'one')",
    ])
    .await;
    let values: Vec<String> = (2..=3000).map(|id| format!("({id}, REPEAT('{id} ', 100))")).collect();
    shop.run(&[
        "BEGIN",
        "INSERT INTO other (text) VALUES ('x'), ('y')",
        &format!("INSERT INTO `out-box` VALUES {}", values.join(",")),
        "SAVEPOINT s",
        "INSERT INTO `out-box` VALUES (9999, 'undone')",
        "ROLLBACK TO s",
        "COMMIT",
        "SET SESSION binlog_transaction_compression = OFF",
        "INSERT INTO `out-box` VALUES (3001, 'plain')",
        "SET SESSION binlog_transaction_compression = ON, SESSION binlog_transaction_compression_level_zstd = 22",
        "INSERT INTO `out-box` VALUES (3002, REPEAT('level 22 ', 1000))",
    ])
    .await;
    let status: mysql_async::Row = shop.conn.query_first("SHOW BINARY LOG STATUS").await.unwrap().unwrap();
    let file: String = status.get(0).unwrap();
    let events: Vec<mysql_async::Row> = shop.conn.query(format!("SHOW BINLOG EVENTS IN '{file}'")).await.unwrap();
    assert!(events.iter().any(|event| event.get::<String, _>(2).unwrap() == "Transaction_payload"));
    let heard = shop.hear().await;
    assert!(heard.is_clean(), "{:?} {:?}", heard.faults, heard.error);
    let mut expected = vec!["one".to_owned()];
    expected.extend((2..=3000).map(|id| format!("{id} ").repeat(100)));
    expected.extend(["plain".to_owned(), "level 22 ".repeat(1000)]);
    assert!(heard.texts(1) == expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn given_a_transaction_in_many_events_when_read_then_its_rows_are_whole_and_in_order() {
    for server in servers() {
        let mut shop = Shop::open(server, "split", OUTBOX, &COLUMNS).await;
        shop.run(&["CREATE TABLE a (id INT)", "CREATE TABLE b (id INT)"]).await;
        let values: Vec<String> = (1..=2000).map(|id| format!("({id}, REPEAT('x', 200))")).collect();
        shop.run(&[
            "BEGIN",
            "INSERT INTO a VALUES (1)",
            &format!("INSERT INTO `out-box` VALUES {}", values.join(",")),
            "INSERT INTO b VALUES (1)",
            "INSERT INTO `out-box` VALUES (2001, 'after')",
            "COMMIT",
            "FLUSH TABLES",
            "INSERT INTO `out-box` VALUES (2002, 'with another table id')",
            "FLUSH BINARY LOGS",
            "INSERT INTO `out-box` VALUES (2003, 'in another file')",
            // A statement with several table maps.
            "CREATE TRIGGER orders AFTER INSERT ON a FOR EACH ROW INSERT INTO `out-box` VALUES (NEW.id, 'by trigger')",
            "INSERT INTO a VALUES (3000), (3001)",
        ])
        .await;
        let heard = shop.hear().await;
        assert!(heard.is_clean(), "{server}: {:?} {:?}", heard.faults, heard.error);
        let ids: Vec<String> = (1..=2003).chain([3000, 3001]).map(|id: i32| id.to_string()).collect();
        assert_eq!(heard.texts(0), ids, "{server}");
        assert!(heard.row_events > 10, "{server}: rows were to be split into events");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn given_a_row_larger_than_a_packet_when_read_then_it_is_whole() {
    for server in servers() {
        let mut shop = Shop::open(server, "large", OUTBOX, &COLUMNS).await;
        let mut session = shop.session().await;
        session.query_drop("SET GLOBAL max_allowed_packet = 67108864").await.unwrap();
        shop.conn = shop.session().await;
        for (id, mib) in [(1, 15), (2, 16), (3, 20), (4, 33)] {
            shop.run(&[&format!("INSERT INTO `out-box` VALUES ({id}, REPEAT('{id}', {mib} * 1048576))")]).await;
        }
        // To the byte around the size at which a packet continues in another.
        let status = if server == MYSQL { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" };
        for off in 0..3 {
            let size = (1 << 24) - 60 + off;
            shop.run(&[&format!("INSERT INTO `out-box` VALUES ({}, REPEAT('y', {size}))", 10 + off)]).await;
        }
        let _: mysql_async::Row = shop.conn.query_first(status).await.unwrap().unwrap();
        let heard = shop.hear().await;
        assert!(heard.is_clean(), "{server}: {:?} {:?}", heard.faults, heard.error);
        let sizes: Vec<usize> = heard.rows.iter().map(|row| row[1].as_ref().unwrap().len()).collect();
        let mib = 1 << 20;
        let near = (1 << 24) - 60;
        assert_eq!(sizes, [15 * mib, 16 * mib, 20 * mib, 33 * mib, near, near + 1, near + 2], "{server}");
        assert!(heard.rows[3][1].as_ref().unwrap().iter().all(|byte| *byte == b'4'));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn given_another_checksum_when_switched_under_way_then_both_are_read() {
    for server in servers() {
        let mut shop = Shop::open(server, "checksum", OUTBOX, &COLUMNS).await;
        for (id, algorithm) in ["NONE", "CRC32", "NONE", "CRC32"].into_iter().enumerate() {
            shop.run(&[
                &format!("INSERT INTO `out-box` VALUES ({id}, 'before')"),
                &format!("SET GLOBAL binlog_checksum = {algorithm}"),
                &format!("INSERT INTO `out-box` VALUES ({id} + 10, '{algorithm}')"),
            ])
            .await;
            let heard = shop.hear().await;
            assert!(heard.is_clean(), "{server} {algorithm}: {:?} {:?}", heard.faults, heard.error);
            assert_eq!(heard.rows.len(), 2 * (id + 1), "{server}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn given_statement_format_when_it_touches_the_outbox_then_it_is_a_fault_by_name_and_otherwise_no_matter() {
    for server in servers() {
        let mut shop = Shop::open(server, "statements", OUTBOX, &COLUMNS).await;
        shop.run(&[
            "CREATE TABLE other (id INT)",
            "SET SESSION binlog_format = STATEMENT",
            "INSERT INTO other VALUES (1), (2)",
            "UPDATE other SET id = 3",
            // They only read it, or have its name as a text.
            "INSERT INTO other SELECT id FROM `out-box`",
            "UPDATE other SET id = 1 WHERE 'out-box' = 'x'",
            "DELETE FROM other WHERE id IN (SELECT id FROM `out-box`)",
            "SET SESSION binlog_format = MIXED",
            "INSERT INTO other VALUES (4)",
            "SET SESSION binlog_format = ROW",
            "INSERT INTO `out-box` VALUES (1, 'row')",
        ])
        .await;
        let heard = shop.hear().await;
        assert!(heard.is_clean() && heard.rows.len() == 1, "{server}: {:?} {:?}", heard.faults, heard.error);
        for (id, statement) in [
            (2, "INSERT INTO `out-box` VALUES (2, 'statement')"),
            (3, "REPLACE INTO `statements`.`out-box` VALUES (3, 'statement')"),
            (4, "INSERT INTO `out-box` SELECT 4, 'from' FROM other LIMIT 1"),
        ] {
            shop.listen_from_now().await;
            shop.run(&["SET SESSION binlog_format = STATEMENT", statement, "SET SESSION binlog_format = ROW"]).await;
            let heard = shop.hear().await;
            assert_eq!(heard.fault_names(), ["statement_format"], "{server} {id}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn given_a_trigger_on_another_table_when_it_fills_the_outbox_in_statement_format_then_it_is_a_fault() {
    for server in servers() {
        let mut shop = Shop::open(server, "triggers", OUTBOX, &COLUMNS).await;
        shop.run(&[
            "CREATE TABLE orders (id INT)",
            "CREATE TRIGGER fill AFTER INSERT ON orders FOR EACH ROW INSERT INTO `out-box` VALUES (NEW.id, 'trigger')",
            "CREATE PROCEDURE publish(n INT) INSERT INTO orders VALUES (n)",
        ])
        .await;
        shop.listen_from_now().await;
        shop.run(&["SET SESSION binlog_format = STATEMENT", "INSERT INTO orders VALUES (1)", "CALL publish(2)"]).await;
        let heard = shop.hear().await;
        assert_eq!(heard.fault_names(), ["statement_format", "statement_format"], "{server}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn given_triggers_functions_and_views_when_they_fill_the_outbox_in_statement_format_then_it_is_a_fault() {
    for server in servers() {
        let mut shop = Shop::open(server, "feeders", OUTBOX, &COLUMNS).await;
        shop.run(&[
            "CREATE TABLE other (id INT)",
            "CREATE FUNCTION announce(n INT) RETURNS INT DETERMINISTIC MODIFIES SQL DATA BEGIN INSERT INTO `out-box` \
             VALUES (n, 'by function'); RETURN n; END",
            "CREATE FUNCTION take_down(n INT) RETURNS INT DETERMINISTIC MODIFIES SQL DATA BEGIN INSERT INTO other VALUES \
             (n); RETURN n; END",
            "CREATE PROCEDURE publish(n INT) INSERT INTO `out-box` VALUES (n, 'by procedure')",
            "CREATE TABLE orders (id INT)",
            "CREATE TRIGGER fill AFTER INSERT ON orders FOR EACH ROW CALL publish(NEW.id)",
            "CREATE VIEW shown AS SELECT id, payload FROM `out-box`",
            "CREATE VIEW shown_again AS SELECT id, payload FROM shown",
        ])
        .await;
        let mut statements = vec![
            "SELECT announce(1)",
            "DO announce(2)",
            "SET @n = announce(3)",
            "INSERT INTO orders VALUES (4)",
            "INSERT INTO shown VALUES (5, 'by view')",
            "INSERT INTO shown_again VALUES (6, 'by view')",
            "INSERT/**/INTO/**/`out-box` VALUES (7, 'with comments')",
            "/*!50000 INSERT */ INTO `out-box` VALUES (8, 'in a comment that is run')",
            "INSERT INTO other VALUES (announce(10))",
        ];
        if server != MYSQL {
            statements.push("SET STATEMENT max_statement_time = 60 FOR INSERT INTO `out-box` VALUES (9, 'settings')");
        }
        // As rows they come through, however they were changed.
        shop.listen_from_now().await;
        shop.run(&statements).await;
        let heard = shop.hear().await;
        assert!(heard.is_clean(), "{server}: {:?} {:?}", heard.faults, heard.error);
        assert_eq!(heard.rows.len(), statements.len(), "{server}");
        shop.run(&["DELETE FROM `out-box`", "SET SESSION binlog_format = STATEMENT"]).await;
        for statement in statements {
            shop.listen_from_now().await;
            shop.run(&["SELECT take_down(1)", "DO take_down(2)", "INSERT INTO other VALUES (3)"]).await;
            shop.run(&["INSERT INTO other SELECT id FROM shown_again", statement]).await;
            let heard = shop.hear().await;
            assert_eq!(heard.fault_names(), ["statement_format"], "{server}: {statement}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn given_load_data_when_in_row_format_then_its_rows_come_through_and_in_statement_format_it_is_a_fault() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "1\tone\n2\ttwo\n").unwrap();
    std::os::unix::fs::PermissionsExt::set_mode(&mut file.as_file().metadata().unwrap().permissions(), 0o644);
    let load = format!("LOAD DATA INFILE '{}' INTO TABLE `out-box`", file.path().display());
    for server in servers() {
        let mut shop = Shop::open(server, "load", OUTBOX, &COLUMNS).await;
        shop.run(&[&load]).await;
        let heard = shop.hear().await;
        assert!(heard.is_clean(), "{server}: {:?} {:?}", heard.faults, heard.error);
        assert_eq!(heard.texts(1), ["one", "two"]);
        shop.run(&["DELETE FROM `out-box`"]).await;
        shop.listen_from_now().await;
        shop.run(&["SET SESSION binlog_format = STATEMENT", &load]).await;
        assert_eq!(shop.hear().await.fault_names(), ["statement_format"], "{server}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn given_changes_of_rows_when_read_then_they_are_told_as_what_they_are() {
    for server in servers() {
        let json = if server == MYSQL { "JSON" } else { "LONGTEXT" };
        let definition = format!("id BIGINT PRIMARY KEY, payload {json}");
        let mut shop = Shop::open(server, "changes", &definition, &COLUMNS).await;
        shop.run(&["INSERT INTO `out-box` VALUES (1, '{\"a\": [1, 2], \"b\": \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"}')"])
            .await;
        if server == MYSQL {
            shop.run(&["SET SESSION binlog_row_value_options = PARTIAL_JSON"]).await;
        }
        shop.run(&[
            "UPDATE `out-box` SET payload = JSON_SET(payload, '$.a[0]', 7)",
            "DELETE FROM `out-box`",
            "TRUNCATE TABLE `out-box`",
        ])
        .await;
        let heard = shop.hear().await;
        assert!(heard.faults.is_empty() && heard.error.is_none(), "{server}: {:?} {:?}", heard.faults, heard.error);
        assert_eq!(heard.foreign, [ForeignDml::Update, ForeignDml::Delete, ForeignDml::Truncate], "{server}");
        assert_eq!(heard.rows.len(), 1, "{server}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn given_row_images_when_not_full_then_rows_come_through_or_are_a_fault_by_name() {
    for server in servers() {
        let definition = "id BIGINT PRIMARY KEY, payload TEXT, note VARCHAR(10) DEFAULT 'x'";
        let mut shop = Shop::open(server, "images", definition, &["id", "payload", "note"]).await;
        for image in ["FULL", "NOBLOB", "MINIMAL"] {
            shop.listen_from_now().await;
            shop.run(&[
                "DELETE FROM `out-box`",
                &format!("SET SESSION binlog_row_image = {image}"),
                "INSERT INTO `out-box` VALUES (1, 'all', 'columns'), (2, NULL, NULL)",
            ])
            .await;
            let heard = shop.hear().await;
            assert!(heard.faults.is_empty() && heard.error.is_none(), "{server} {image}: {:?}", heard.faults);
            assert_eq!(heard.texts(2), ["columns", "NULL"], "{server} {image}");
        }
        shop.listen_from_now().await;
        shop.run(&["INSERT INTO `out-box` (id, payload) VALUES (3, 'a default is left out')"]).await;
        let heard = shop.hear().await;
        // MariaDB logs every column of an insert.
        if heard.rows.is_empty() {
            assert_eq!(heard.fault_names(), ["column_not_in_row_image"], "{server}");
        } else {
            assert_eq!(heard.texts(2), ["x"], "{server}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn given_files_and_offsets_when_the_log_is_opened_there_then_it_begins_there() {
    let mut shop = Shop::open_alone(MYSQL, "files", OUTBOX, &COLUMNS).await;
    shop.run(&["INSERT INTO `out-box` VALUES (1, 'before')"]).await;
    let status: mysql_async::Row = shop.conn.query_first("SHOW BINARY LOG STATUS").await.unwrap().unwrap();
    let (file, offset): (String, u64) = (status.get(0).unwrap(), status.get(1).unwrap());
    shop.listen_from(format!("file={file}:{offset}").parse().unwrap());
    shop.run(&[
        "INSERT INTO `out-box` VALUES (2, 'after')",
        "FLUSH BINARY LOGS",
        "INSERT INTO `out-box` VALUES (3, 'next')",
    ])
    .await;
    let heard = shop.hear().await;
    assert!(heard.is_clean(), "{:?} {:?}", heard.faults, heard.error);
    assert_eq!(heard.texts(0), ["2", "3"]);
    // The position it reached is the server's own.
    let status: mysql_async::Row = shop.conn.query_first("SHOW BINARY LOG STATUS").await.unwrap().unwrap();
    let (file, offset): (String, u64) = (status.get(0).unwrap(), status.get(1).unwrap());
    let server: Option<String> = shop.conn.query_first("SELECT @@server_uuid").await.unwrap();
    assert_eq!(heard.position.to_string(), format!("file={file}:{offset}@{}", server.unwrap()));
}

/// Flips a bit of the row that holds `needle`, in the file on disk that is closed by now.
async fn damage(shop: &mut Shop, file: &str, needle: &[u8]) {
    let base: Option<String> = shop.conn.query_first("SELECT @@log_bin_basename").await.unwrap();
    let path = std::path::Path::new(&base.unwrap()).with_file_name(file);
    let mut bytes = std::fs::read(&path).unwrap();
    // The statement itself may stand in front of its rows.
    let at = bytes.windows(needle.len()).rposition(|window| window == needle).unwrap();
    bytes[at + 5] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

async fn file_and_offset(shop: &mut Shop) -> (String, u64) {
    let logs: Vec<mysql_async::Row> = shop.conn.query("SHOW BINARY LOGS").await.unwrap();
    let last = logs.last().unwrap();
    (last.get(0).unwrap(), last.get(1).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn given_a_log_that_was_damaged_on_disk_when_read_then_it_is_a_fault_with_its_place_and_nothing_is_skipped() {
    for server in servers() {
        let mut shop = Shop::open_alone(server, "damaged", OUTBOX, &COLUMNS).await;
        shop.run(&["INSERT INTO `out-box` VALUES (1, 'good')"]).await;
        let (file, offset) = file_and_offset(&mut shop).await;
        shop.run(&[
            "INSERT INTO `out-box` VALUES (2, 'needle in the log')",
            "INSERT INTO `out-box` VALUES (3, 'good again')",
            "FLUSH BINARY LOGS",
        ])
        .await;
        damage(&mut shop, &file, b"needle in the log").await;
        let heard = shop.hear().await;
        assert_eq!(heard.texts(0), ["1"], "{server}");
        let error = heard.error.unwrap();
        assert!(error.starts_with("damaged_event at ") && error.contains("checksum"), "{server}: {error}");
        let at: u64 = error.split(&format!("{file}:")).nth(1).unwrap().split(')').next().unwrap().parse().unwrap();
        assert!(at > offset && at < offset + 1000, "{server}: {error} but the row is behind {offset}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn given_a_compressed_transaction_that_was_damaged_when_read_without_checksums_then_it_is_a_fault() {
    let mut shop = Shop::open_alone(MYSQL, "damaged-payload", OUTBOX, &COLUMNS).await;
    shop.run(&["SET GLOBAL binlog_checksum = NONE"]).await;
    shop.listen_from_now().await;
    let (file, _) = file_and_offset(&mut shop).await;
    shop.run(&[
        "INSERT INTO `out-box` VALUES (1, 'good')",
        "SET SESSION binlog_transaction_compression = ON",
        "INSERT INTO `out-box` VALUES (2, REPEAT('compressed ', 1000))",
        "SET SESSION binlog_transaction_compression = OFF",
        "INSERT INTO `out-box` VALUES (3, 'good again')",
        "FLUSH BINARY LOGS",
    ])
    .await;
    // The magic number that every zstd frame begins with.
    damage(&mut shop, &file, &[0x28, 0xb5, 0x2f, 0xfd]).await;
    let heard = shop.hear().await;
    shop.run(&["SET GLOBAL binlog_checksum = CRC32"]).await;
    assert_eq!(heard.texts(0), ["1"], "{:?}", heard.error);
    let error = heard.error.unwrap();
    assert!(error.starts_with("damaged_event at ") && error.contains(&file), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn given_tagged_gtids_when_read_then_the_position_is_what_the_server_has_executed() {
    let mut shop = Shop::open_alone(MYSQL, "tags", OUTBOX, &COLUMNS).await;
    shop.run(&[
        "SET gtid_next = 'AUTOMATIC:first_tag'",
        "INSERT INTO `out-box` VALUES (1, 'tagged')",
        "INSERT INTO `out-box` VALUES (2, 'tagged')",
        "SET gtid_next = 'AUTOMATIC:other'",
        "INSERT INTO `out-box` VALUES (3, 'tagged')",
        "SET gtid_next = 'AUTOMATIC'",
        "INSERT INTO `out-box` VALUES (4, 'untagged')",
    ])
    .await;
    let heard = shop.hear().await;
    assert!(heard.is_clean(), "{:?} {:?}", heard.faults, heard.error);
    assert_eq!(heard.texts(0), ["1", "2", "3", "4"]);
    shop.listen_from_now().await;
    assert_eq!(&heard.position, shop.start());
    shop.listen_from(heard.position);
    shop.run(&["SET gtid_next = 'AUTOMATIC:first_tag'", "INSERT INTO `out-box` VALUES (5, 'again')"]).await;
    assert_eq!(shop.hear().await.texts(0), ["5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn given_gtid_modes_when_switched_under_way_then_file_positions_go_on_and_sets_are_a_fault_by_name() {
    let mut shop = Shop::open_alone(MYSQL, "modes", OUTBOX, &COLUMNS).await;
    let by_gtid = shop.start().clone();
    let (file, offset) = file_and_offset(&mut shop).await;
    shop.listen_from(format!("file={file}:{offset}").parse().unwrap());
    let mut id = 0;
    for mode in ["ON", "ON_PERMISSIVE", "OFF_PERMISSIVE", "OFF", "OFF_PERMISSIVE", "ON_PERMISSIVE", "ON"] {
        id += 1;
        if id > 1 {
            shop.run(&[&format!("SET GLOBAL gtid_mode = {mode}")]).await;
        }
        shop.run(&[&format!("INSERT INTO `out-box` VALUES ({id}, '{mode}')")]).await;
        let heard = shop.hear().await;
        assert!(heard.is_clean(), "{mode}: {:?} {:?}", heard.faults, heard.error);
        assert_eq!(heard.texts(1), [mode]);
        shop.listen_from(heard.position);
    }
    // A set goes on for as long as there are GTIDs, whatever the mode allows besides.
    shop.listen_from_now().await;
    let heard = shop
        .hear_while(&[
            "SET GLOBAL gtid_mode = ON_PERMISSIVE",
            "INSERT INTO `out-box` VALUES (10, 'with GTID')",
            "SET GLOBAL gtid_mode = OFF_PERMISSIVE",
            "INSERT INTO `out-box` VALUES (11, 'anonymous')",
        ])
        .await;
    assert_eq!(heard.texts(0), ["10"]);
    // The server itself ends the stream.
    let error = heard.error.unwrap();
    assert!(error.starts_with("anonymous_transaction"), "{error}");
    shop.listen_from(heard.position);
    shop.run(&["FLUSH BINARY LOGS", "SET GLOBAL gtid_mode = ON_PERMISSIVE", "SET GLOBAL gtid_mode = ON"]).await;
    // The server would begin behind them, and say nothing.
    let refused = shop.hear().await.error.unwrap();
    assert!(refused.starts_with("anonymous_transaction"), "{refused}");
    shop.listen_from_now().await;
    shop.run(&["INSERT INTO `out-box` VALUES (12, 'with GTID')", "FLUSH BINARY LOGS", "FLUSH BINARY LOGS"]).await;
    let heard = shop.hear().await;
    assert_eq!((heard.texts(0), heard.error), (vec!["12".to_owned()], None));
    shop.listen_from(by_gtid);
    let heard = shop.hear().await;
    // It refuses, as long as it runs with GTIDs.
    let error = heard.error.unwrap();
    assert!(error.starts_with("anonymous_transaction"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn given_engines_without_transactions_and_implicit_commits_when_read_then_rows_are_what_was_committed() {
    for server in servers() {
        let mut shop = Shop::open(server, "engines", OUTBOX, &COLUMNS).await;
        if server != MYSQL {
            // MySQL refuses this mixture as long as it enforces consistent GTIDs.
            shop.run(&[
                "CREATE TABLE mixed (id INT) ENGINE=MyISAM",
                "BEGIN",
                "INSERT INTO `out-box` VALUES (1, 'rolled back')",
                "INSERT INTO mixed VALUES (1)",
                "ROLLBACK",
            ])
            .await;
        }
        shop.run(&[
            "BEGIN",
            "INSERT INTO `out-box` VALUES (2, 'committed by DDL')",
            "CREATE TABLE ddl (id INT)",
            "ROLLBACK",
            "CREATE TABLE copied AS SELECT * FROM `out-box`",
            "INSERT IGNORE INTO `out-box` VALUES (2, 'duplicate'), (3, 'new')",
            "BEGIN",
            "SAVEPOINT a",
            "INSERT INTO `out-box` VALUES (4, 'kept')",
            "SAVEPOINT `b c`",
            "INSERT INTO `out-box` VALUES (5, 'undone')",
            "ROLLBACK TO `b c`",
            "INSERT INTO `out-box` VALUES (6, 'kept')",
            "RELEASE SAVEPOINT a",
            "COMMIT",
        ])
        .await;
        let heard = shop.hear().await;
        assert!(heard.is_clean(), "{server}: {:?} {:?}", heard.faults, heard.error);
        assert_eq!(heard.texts(0), ["2", "3", "4", "6"], "{server}");
    }
    let mut shop = Shop::open(MYSQL, "blackhole", OUTBOX, &COLUMNS).await;
    shop.run(&["ALTER TABLE `out-box` ENGINE=BLACKHOLE", "INSERT INTO `out-box` VALUES (1, 'only in the log')"]).await;
    assert_eq!(shop.hear().await.texts(1), ["only in the log"]);
}
