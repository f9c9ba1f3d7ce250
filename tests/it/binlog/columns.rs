//! Values of every type, and tables of every form, compared with what the server answers to a SELECT.

use mysql_async::prelude::Queryable;
use outboxd::source::ForeignDml;
use outboxd::table::TableName;

use super::shop::{MARIADBS, MYSQL, Shop};

fn servers() -> impl Iterator<Item = &'static str> {
    std::iter::once(MYSQL).chain(MARIADBS)
}

/// What the server answers, in bytes, in the order of `id`.
async fn selected(shop: &mut Shop, columns: &[&str]) -> Vec<Vec<Option<Vec<u8>>>> {
    let columns: Vec<String> = columns.iter().map(|column| format!("CAST({column} AS BINARY)")).collect();
    let select = format!("SELECT {} FROM `out-box` ORDER BY id", columns.join(", "));
    let rows: Vec<mysql_async::Row> = shop.conn.query(select).await.unwrap();
    rows.into_iter().map(|row| (0..row.len()).map(|at| row.get(at).unwrap()).collect()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn given_columns_of_every_type_when_read_then_they_are_what_the_server_answers() {
    // Definition, expression that the server answers with, values.
    let cases: &[(&str, &str, &[&str])] = &[
        ("CHAR(36)", "", &["'3e11fa47-71ca-11e1-9e33-c80aa9429562'", "''", "NULL", "'é€😀'"]),
        ("VARCHAR(64)", "", &["'a b'", "''", "NULL", "'\\0\\n\\\\'"]),
        ("VARCHAR(600)", "", &["REPEAT('é', 600)", "'x'"]),
        ("BINARY(16)", "", &["X'00112233445566778899aabbccddee00'", "X'00'", "NULL"]),
        ("VARBINARY(300)", "", &["X'00ff00'", "X''", "NULL", "REPEAT(X'fe', 300)"]),
        ("BIGINT", "", &["-9223372036854775808", "9223372036854775807", "0", "-1", "NULL"]),
        ("BIGINT UNSIGNED", "", &["18446744073709551615", "0"]),
        ("INT", "", &["-2147483648", "2147483647"]),
        ("INT UNSIGNED", "", &["4294967295"]),
        ("MEDIUMINT", "", &["-8388608", "8388607"]),
        ("SMALLINT UNSIGNED", "", &["65535"]),
        ("TINYINT", "", &["-128", "127"]),
        ("TINYTEXT", "", &["'t'", "''", "NULL"]),
        ("TEXT", "", &["REPEAT('ü', 20000)"]),
        ("MEDIUMTEXT", "", &["REPEAT('m', 70000)"]),
        ("LONGTEXT", "", &["REPEAT('l', 70000)"]),
        ("TINYBLOB", "", &["X'00ff'"]),
        ("BLOB", "", &["X'00ff'", "X''", "NULL"]),
        ("MEDIUMBLOB", "", &["REPEAT(X'80', 70000)"]),
        ("LONGBLOB", "", &["X'01'"]),
        ("DECIMAL(20, 6)", "", &["-12345678901234.000001", "0", "0.5", "NULL"]),
        ("DATE", "", &["'2024-02-29'", "'1000-01-01'", "'9999-12-31'"]),
        ("DATETIME", "", &["'2024-02-29 23:59:59'"]),
        ("DATETIME(3)", "", &["'2024-02-29 23:59:59.123'"]),
        ("DATETIME(6)", "", &["'1000-01-01 00:00:00.000001'", "'9999-12-31 23:59:59.999999'"]),
        ("TIMESTAMP(0)", "", &["'2024-02-29 23:59:59'", "'2038-01-19 03:14:07'", "NULL"]),
        ("TIMESTAMP(5)", "", &["'1970-01-01 00:00:01.00001'"]),
        ("TIME(2)", "", &["'-838:59:58.99'", "'12:00:00.5'"]),
        ("YEAR", "", &["2024", "0"]),
        ("ENUM('a', 'b')", "number", &["'a'", "'b'", "NULL"]),
        ("SET('a', 'b', 'c')", "number", &["'a,c'", "''"]),
        ("BIT(10)", "bits", &["b'1010101010'", "b'0'"]),
        ("DOUBLE", "", &["1.5", "-0.25", "1e100"]),
    ];
    // One table with a column for each; one row for each place in the lists of values.
    let names: Vec<String> = (0..cases.len()).map(|number| format!("c{number}")).collect();
    let null = |kind: &str| if kind.starts_with("TIMESTAMP") { " NULL" } else { "" };
    let columns = names.iter().zip(cases).map(|(name, (kind, ..))| format!("{name} {kind}{}", null(kind)));
    let definition = format!("{}, id INT PRIMARY KEY", columns.collect::<Vec<_>>().join(", "));
    let answers: Vec<String> = names
        .iter()
        .zip(cases)
        .map(|(name, (_, answer, _))| match *answer {
            "number" => format!("{name} + 0"),
            "bits" => format!("UNHEX(LPAD(HEX({name}), 4, '0'))"),
            _ => name.clone(),
        })
        .collect();
    let most = cases.iter().map(|(.., values)| values.len()).max().unwrap();
    for server in servers() {
        let wanted: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut shop = Shop::open(server, "types", &definition, &wanted).await;
        for row in 0..most {
            let values = cases.iter().map(|(.., values)| *values.get(row).unwrap_or(&values[0]));
            let values = values.collect::<Vec<_>>().join(", ");
            shop.run(&[&format!("INSERT INTO `out-box` VALUES ({values}, {row})")]).await;
        }
        let heard = shop.hear().await;
        assert!(heard.is_clean(), "{server}: {:?} {:?}", heard.faults, heard.error);
        let answers: Vec<&str> = answers.iter().map(String::as_str).collect();
        let expected = selected(&mut shop, &answers).await;
        assert_eq!(heard.rows.len(), most);
        for (row, expected) in heard.rows.iter().zip(&expected) {
            for ((got, expected), (kind, ..)) in row.iter().zip(expected).zip(cases) {
                assert!(got == expected, "{server} {kind}: {got:?} is not {expected:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn given_a_time_zone_of_the_session_when_a_timestamp_is_written_then_it_is_read_in_utc() {
    for server in servers() {
        let mut shop =
            Shop::open(server, "zones", "id INT PRIMARY KEY, c TIMESTAMP(6) NULL, d DATETIME(6)", &["c", "d"]).await;
        shop.run(&[
            "SET time_zone = '+05:30'",
            "INSERT INTO `out-box` VALUES (1, '2024-06-01 12:00:00.25', '2024-06-01 12:00:00.25')",
            "SET time_zone = '-11:00'",
            "INSERT INTO `out-box` VALUES (2, '2024-06-01 12:00:00', NULL)",
            "SET time_zone = '+00:00'",
        ])
        .await;
        let heard = shop.hear().await;
        assert!(heard.is_clean(), "{server}: {:?} {:?}", heard.faults, heard.error);
        assert_eq!(heard.texts(0), ["2024-06-01 06:30:00.250000", "2024-06-01 23:00:00.000000"], "{server}");
        assert!(heard.rows == selected(&mut shop, &["c", "d"]).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn given_mariadb_uuids_of_every_version_when_read_then_they_are_text_as_the_server_prints_them() {
    for server in MARIADBS {
        for metadata in ["FULL", "NO_LOG"] {
            let test = format!("uuid-{metadata}");
            let mut shop =
                Shop::open_alone(server, &test, "id UUID PRIMARY KEY, payload JSON", &["id", "payload"]).await;
            shop.run(&[&format!("SET GLOBAL binlog_row_metadata = {metadata}")]).await;
            shop.run(&[
                "INSERT INTO `out-box` VALUES (UUID(), '{\"a\": 1}')",
                "INSERT INTO `out-box` VALUES ('3e11fa47-71ca-11e1-9e33-c80aa9429562', '[]')",
                "INSERT INTO `out-box` VALUES ('f81d4fae-7dec-41d0-a765-00a0c91e6bf6', '4')",
                "INSERT INTO `out-box` VALUES ('01890a5d-ac96-774b-bcce-b302099a8057', '7')",
                "INSERT INTO `out-box` VALUES ('00000000-0000-0000-0000-000000000000', '0')",
                "INSERT INTO `out-box` VALUES ('ffffffff-ffff-ffff-ffff-ffffffffffff', '9')",
                "INSERT INTO `out-box` VALUES ('3e11fa47-71ca-51e1-8000-c80aa9420000', '5')",
            ])
            .await;
            let heard = shop.hear().await;
            shop.run(&["SET GLOBAL binlog_row_metadata = FULL"]).await;
            assert!(heard.is_clean(), "{server}: {:?} {:?}", heard.faults, heard.error);
            let mut rows = heard.rows;
            rows.sort();
            let mut expected = selected(&mut shop, &["CAST(id AS CHAR)", "payload"]).await;
            expected.sort();
            assert_eq!(rows, expected, "{server}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn given_generated_invisible_and_hidden_columns_beside_the_outboxes_when_read_then_these_are_found() {
    for metadata in ["FULL", "MINIMAL"] {
        let mut shop = Shop::open_alone(
            MYSQL,
            &format!("forms-{metadata}"),
            "e ENUM('x','y') DEFAULT 'y', payload JSON, v INT AS (JSON_LENGTH(payload)) VIRTUAL, \
             s VARCHAR(100) AS (CONCAT(id, '!')) STORED, id VARCHAR(36) NOT NULL, hidden INT INVISIBLE DEFAULT 7, \
             INDEX ((CONCAT(id, 'x')))",
            &["id", "payload"],
        )
        .await;
        shop.run(&[
            &format!("SET GLOBAL binlog_row_metadata = {metadata}"),
            "SET SESSION sql_generate_invisible_primary_key = ON",
            "CREATE TABLE keyless (payload TEXT, id BIGINT)",
            "INSERT INTO `out-box` (id, payload) VALUES ('a', '[1, 2]'), ('b', NULL)",
        ])
        .await;
        let heard = shop.hear().await;
        assert!(heard.is_clean(), "{metadata}: {:?} {:?}", heard.faults, heard.error);
        assert_eq!(heard.texts(0), ["a", "b"]);
        assert_eq!(heard.texts(1), ["[1,2]", "NULL"]);
        shop.table = TableName::new(shop.table.schema(), "keyless");
        shop.listen_from_now().await;
        shop.run(&["INSERT INTO keyless VALUES ('payload', 5)"]).await;
        let heard = shop.hear().await;
        shop.run(&["SET GLOBAL binlog_row_metadata = FULL"]).await;
        assert!(heard.is_clean(), "{metadata}: {:?} {:?}", heard.faults, heard.error);
        assert_eq!((heard.texts(0), heard.texts(1)), (vec!["5".to_owned()], vec!["payload".to_owned()]));
    }
    for server in MARIADBS {
        let mut shop = Shop::open(
            server,
            "forms",
            "e ENUM('x','y') DEFAULT 'y', payload JSON, v INT AS (JSON_LENGTH(payload)) VIRTUAL, \
             s VARCHAR(100) AS (CONCAT(id, '!')) PERSISTENT, id VARCHAR(36) PRIMARY KEY, hidden INT INVISIBLE DEFAULT 7",
            &["id", "payload"],
        )
        .await;
        shop.run(&[
            "INSERT INTO `out-box` (id, payload) VALUES ('a', '[1, 2]')",
            "ALTER TABLE `out-box` ADD SYSTEM VERSIONING",
            "INSERT INTO `out-box` (id, payload) VALUES ('b', '[3]')",
        ])
        .await;
        let heard = shop.hear().await;
        assert!(heard.is_clean(), "{server}: {:?} {:?}", heard.faults, heard.error);
        assert_eq!(
            (heard.texts(0), heard.texts(1)),
            (vec!["a".into(), "b".into()], vec!["[1, 2]".into(), "[3]".into()])
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn given_a_table_altered_between_rows_when_the_log_has_names_then_every_row_is_read_by_its_own_form() {
    for server in servers() {
        let mut shop =
            Shop::open(server, "altered", "id INT PRIMARY KEY, payload VARCHAR(20)", &["id", "payload"]).await;
        let instant = if server == MYSQL { ", ALGORITHM=INSTANT" } else { "" };
        shop.run(&[
            "INSERT INTO `out-box` VALUES (1, 'plain')",
            &format!("ALTER TABLE `out-box` ADD COLUMN last INT DEFAULT 5{instant}"),
            "INSERT INTO `out-box` VALUES (2, 'last', 1)",
            &format!("ALTER TABLE `out-box` ADD COLUMN first INT FIRST{instant}"),
            "INSERT INTO `out-box` VALUES (0, 3, 'first', 1)",
            "ALTER TABLE `out-box` ADD COLUMN middle INT AFTER id",
            "INSERT INTO `out-box` VALUES (0, 4, 9, 'middle', 1)",
            &format!("ALTER TABLE `out-box` DROP COLUMN middle{instant}"),
            "ALTER TABLE `out-box` MODIFY COLUMN payload LONGTEXT AFTER last",
            "INSERT INTO `out-box` VALUES (0, 5, 1, 'widened and moved')",
            "RENAME TABLE `out-box` TO away",
            "CREATE TABLE `out-box` (payload TEXT, id BIGINT)",
            "INSERT INTO `out-box` VALUES ('new', 6)",
            "RENAME TABLE `out-box` TO ghost, away TO `out-box`",
            "INSERT INTO `out-box` VALUES (0, 7, 1, 'back')",
            "DROP TABLE `out-box`",
            "CREATE TABLE `out-box` (payload CHAR(5), id VARCHAR(5))",
            "INSERT INTO `out-box` VALUES ('again', '8')",
        ])
        .await;
        let heard = shop.hear().await;
        assert!(heard.faults.is_empty() && heard.error.is_none(), "{server}: {:?} {:?}", heard.faults, heard.error);
        assert_eq!(heard.foreign, [ForeignDml::Drop; 3], "{server}");
        assert_eq!(heard.texts(0), ["1", "2", "3", "4", "5", "6", "7", "8"], "{server}");
        let payloads = ["plain", "last", "first", "middle", "widened and moved", "new", "back", "again"];
        assert_eq!(heard.texts(1), payloads, "{server}");
        shop.run(&["ALTER TABLE `out-box` RENAME COLUMN payload TO body", "INSERT INTO `out-box` VALUES ('x', '9')"])
            .await;
        assert_eq!(shop.hear().await.fault_names(), ["missing_column"], "{server}");
    }
}

/// The sets that are converted, a collation of each, and whether characters take up to two bytes.
const CHARSETS: [(&str, u16, bool); 22] = [
    ("ascii", 11, false),
    ("cp1250", 26, false),
    ("cp1251", 51, false),
    ("cp1256", 57, false),
    ("cp1257", 59, false),
    ("cp866", 36, false),
    ("cp932", 95, true),
    ("euckr", 19, true),
    ("gb2312", 24, true),
    ("gbk", 28, true),
    ("greek", 25, false),
    ("hebrew", 16, false),
    ("koi8r", 7, false),
    ("koi8u", 22, false),
    ("latin1", 8, false),
    ("latin2", 9, false),
    ("latin7", 41, false),
    ("macroman", 39, false),
    ("sjis", 13, true),
    ("ucs2", 35, true),
    ("utf16", 54, true),
    ("utf16le", 56, true),
];

#[tokio::test(flavor = "multi_thread")]
async fn given_every_character_of_every_set_when_converted_then_it_is_what_the_server_makes_of_it() {
    let mut shop = Shop::open(MYSQL, "charsets", "id INT PRIMARY KEY", &["id"]).await;
    shop.run(&["SET SESSION cte_max_recursion_depth = 70000"]).await;
    for (name, collation, double) in CHARSETS {
        let (first, last) = if double { (if name.starts_with('u') { 0 } else { 32 }, 65535) } else { (0, 255) };
        let rows: Vec<(Vec<u8>, Option<Vec<u8>>)> = shop
            .conn
            .query(format!(
                "WITH RECURSIVE codes (n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM codes WHERE n < {last}), bytes \
                 (b) AS (SELECT {} FROM codes) SELECT b, CAST(CONVERT(CONVERT(b USING {name}) USING utf8mb4) AS BINARY) \
                 FROM bytes WHERE CONVERT(b USING {name}) IS NOT NULL",
                if matches!(name, "ucs2" | "utf16" | "utf16le") { "UNHEX(LPAD(HEX(n), 4, '0'))" } else { "CHAR(n USING binary)" },
            ))
            .await
            .unwrap();
        let charset = outboxd::mysql::decode::Charset::of(collation).unwrap();
        let mut wrong = Vec::new();
        let mut right = 0;
        for (bytes, expected) in rows {
            // The server has no character for this code, so nothing can be expected.
            let Some(expected) = expected.filter(|text| !text.contains(&b'?') || bytes.contains(&b'?')) else {
                continue;
            };
            let mut text = Vec::new();
            if charset.write(&mut text, &bytes) && text == expected {
                right += 1;
            } else {
                wrong.push(format!(
                    "{bytes:02x?} {:?} not {:?}",
                    String::from_utf8_lossy(&text),
                    String::from_utf8_lossy(&expected)
                ));
            }
        }
        assert!(wrong.is_empty() && right > 100, "{name}: {right} right, wrong are {wrong:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn given_text_in_every_set_when_read_then_it_is_utf8_and_other_sets_are_a_fault_by_name() {
    let texts = [
        ("utf8mb4", "'é€😀'"),
        ("utf8mb3", "'é€'"),
        ("latin1", "'é€'"),
        ("ascii", "'plain'"),
        ("ucs2", "'é€'"),
        ("utf16", "'é€😀'"),
        ("utf16le", "'é€😀'"),
        ("utf32", "'é€😀'"),
        ("gbk", "'你好'"),
        ("euckr", "'안녕'"),
        ("sjis", "'こんにちは'"),
    ];
    let columns =
        texts.map(|(set, _)| format!("c_{set} VARCHAR(20) CHARACTER SET {set}, t_{set} TEXT CHARACTER SET {set}"));
    let names: Vec<String> = texts.iter().flat_map(|(set, _)| [format!("c_{set}"), format!("t_{set}")]).collect();
    for server in servers() {
        let definition = format!("{}, id CHAR(4) CHARACTER SET gbk PRIMARY KEY", columns.join(", "));
        let wanted: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut shop = Shop::open(server, "texts", &definition, &wanted).await;
        let values = texts.map(|(_, text)| format!("{text}, {text}")).join(", ");
        shop.run(&["SET NAMES utf8mb4", &format!("INSERT INTO `out-box` VALUES ({values}, 'id')")]).await;
        let heard = shop.hear().await;
        assert!(heard.is_clean(), "{server}: {:?} {:?}", heard.faults, heard.error);
        for (place, (set, text)) in texts.iter().enumerate() {
            let expected = text.trim_matches('\'');
            assert_eq!(heard.texts(2 * place), [expected], "{server} {set}");
            assert_eq!(heard.texts(2 * place + 1), [expected], "{server} {set}");
        }
        let mut shop = shop.beside(server, "sets", "id INT, payload TEXT CHARACTER SET big5", &["payload"]).await;
        shop.run(&["INSERT INTO `out-box` VALUES (1, 'x')"]).await;
        assert_eq!(shop.hear().await.fault_names(), ["undecodable_row"], "{server}");
    }
}

/// Moves the server's clock to another second, which is what definitions are dated by.
async fn another_second(shop: &mut Shop) {
    shop.run(&["DO SLEEP(1.1)"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn given_a_log_without_names_when_the_table_was_altered_since_then_older_rows_are_a_fault_and_none_is_guessed() {
    let swap = "ALTER TABLE `out-box` RENAME COLUMN payload TO note, RENAME COLUMN note TO payload";
    for (server, off) in [(MYSQL, "MINIMAL"), (MARIADBS[0], "NO_LOG"), (MARIADBS[1], "NO_LOG")] {
        for (number, ddl) in [
            swap,
            "ALTER TABLE `out-box` MODIFY COLUMN note VARCHAR(50) AFTER id",
            "ALTER TABLE `out-box` MODIFY COLUMN payload VARCHAR(60)",
            "ALTER TABLE `out-box` ADD COLUMN more INT",
        ]
        .into_iter()
        .enumerate()
        {
            let definition = "id BIGINT UNSIGNED PRIMARY KEY, payload VARCHAR(50), note VARCHAR(50)";
            let columns = ["id", "payload", "note"];
            let mut shop = Shop::open_alone(server, &format!("minimal{number}"), definition, &columns).await;
            shop.run(&[&format!("SET GLOBAL binlog_row_metadata = {off}")]).await;
            shop.run(&["INSERT INTO `out-box` VALUES (1, 'payload', 'note')"]).await;
            assert_eq!(shop.hear().await.texts(1), ["payload"], "{server} {ddl}");
            another_second(&mut shop).await;
            shop.run(&[ddl, "INSERT INTO `out-box` (id, payload, note) VALUES (2, 'payload', 'note')"]).await;
            let heard = shop.hear().await;
            assert_eq!(heard.fault_names(), ["table_definition_changed"], "{server} {ddl}");
            assert_eq!(heard.texts(1), ["payload"], "{server} {ddl}: the row of its own definition");
            shop.run(&["SET GLOBAL binlog_row_metadata = FULL"]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn given_a_log_without_names_when_the_table_is_altered_under_a_live_stream_then_the_definition_is_read_anew() {
    for (server, off) in [(MYSQL, "MINIMAL"), (MARIADBS[0], "NO_LOG"), (MARIADBS[1], "NO_LOG")] {
        let definition = "id BIGINT UNSIGNED PRIMARY KEY, payload VARCHAR(50), note VARCHAR(50)";
        let mut shop = Shop::open_alone(server, "live", definition, &["id", "payload", "note"]).await;
        shop.run(&[&format!("SET GLOBAL binlog_row_metadata = {off}")]).await;
        shop.listen_from_now().await;
        let heard = shop
            .hear_while(&[
                "INSERT INTO `out-box` VALUES (1, 'payload', 'note')",
                "DO SLEEP(0.5)",
                "ALTER TABLE `out-box` MODIFY COLUMN note VARCHAR(50) AFTER id",
                "INSERT INTO `out-box` VALUES (2, 'note', 'payload')",
                "INSERT INTO `out-box` VALUES (3, 'note', 'payload')",
            ])
            .await;
        shop.run(&["SET GLOBAL binlog_row_metadata = FULL"]).await;
        assert!(heard.is_clean(), "{server}: {:?} {:?}", heard.faults, heard.error);
        assert_eq!(heard.texts(1), ["payload"; 3], "{server}");
        assert_eq!(heard.texts(2), ["note"; 3], "{server}");
    }
}
