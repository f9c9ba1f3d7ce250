//! Tables that are read themselves: the same rows as the log has them, for every type of value and of key.

use super::shop::{MARIADBS, MYSQL, Shop};

fn sorted<T: Ord>(mut rows: Vec<T>) -> Vec<T> {
    rows.sort();
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn given_values_of_every_type_when_the_table_is_read_then_they_are_as_the_log_has_them() {
    // Of both: definition, value. The first value goes to one row and the second to another.
    const COMMON: &[(&str, &str, &str)] = &[
        ("CHAR(36)", "'é€😀'", "''"),
        ("VARCHAR(64) CHARACTER SET latin1", "'é€'", "NULL"),
        ("TEXT CHARACTER SET utf16", "'é€😀'", "'\\0\\n'"),
        ("VARCHAR(9) CHARACTER SET sjis", "'こんにちは'", "'x'"),
        ("BINARY(16)", "X'00112233445566778899aabbccddee00'", "X'00'"),
        ("VARBINARY(300)", "X'00ff00'", "NULL"),
        ("LONGBLOB", "REPEAT(X'fe', 70000)", "X''"),
        ("BIGINT", "-9223372036854775808", "9223372036854775807"),
        ("BIGINT UNSIGNED", "18446744073709551615", "0"),
        ("INT(9) ZEROFILL", "42", "0"),
        ("MEDIUMINT", "-8388608", "8388607"),
        ("TINYINT UNSIGNED", "255", "NULL"),
        ("DECIMAL(20, 6)", "-12345678901234.000001", "0.5"),
        ("DECIMAL(8, 2) ZEROFILL", "1.5", "0"),
        ("FLOAT", "0.1", "-3.4e38"),
        ("DOUBLE", "0.1", "1e100"),
        ("DATE", "'2024-02-29'", "'1000-01-01'"),
        ("DATETIME(3)", "'2024-02-29 23:59:59.123'", "NULL"),
        ("DATETIME", "'9999-12-31 23:59:59'", "'1000-01-01'"),
        ("TIMESTAMP(5) NULL", "'1970-01-02 00:00:01.00001'", "NULL"),
        ("TIMESTAMP NULL", "'2024-06-01 12:00:00'", "'2037-01-01'"),
        ("TIME(2)", "'-838:59:58.99'", "'12:00:00.5'"),
        ("YEAR", "2024", "0"),
        ("ENUM('a', 'b')", "'b'", "NULL"),
        ("SET('a', 'b', 'c')", "'a,c'", "''"),
        ("BIT(10)", "b'1010101010'", "b'0'"),
        ("GEOMETRY", "ST_GeomFromText('POINT(1 2)')", "NULL"),
        (
            "JSON",
            r#"'{"b": [1, -2, 1.0, 0.1, 1e20, 18446744073709551615, true, null], "a b": "c, \\"d\\\\: €\\u0001\\/", "": {}}'"#,
            "'[]'",
        ),
    ];
    const OF_MYSQL: &[(&str, &str, &str)] = &[
        (
            "JSON",
            "JSON_OBJECT('d', CAST(1.50 AS DECIMAL(5,2)), 't', CAST('2024-01-01 12:00:00.5' AS DATETIME(6)), 'x', \
             CAST(X'00ff' AS BINARY), 'f', 1e0, 'day', CURRENT_DATE, 'time', CAST('-12:00:01' AS TIME))",
            "'\"text\"'",
        ),
        ("VECTOR(3)", "STRING_TO_VECTOR('[1,2.5,-3]')", "NULL"),
    ];
    const OF_MARIADB: &[(&str, &str, &str)] =
        &[("UUID", "'3e11fa47-71ca-11e1-9e33-c80aa9429562'", "NULL"), ("INET6", "'2001:db8::ff00'", "'::'")];
    for server in std::iter::once(MYSQL).chain(MARIADBS) {
        let own = if server == MYSQL { OF_MYSQL } else { OF_MARIADB };
        let cases: Vec<_> = COMMON.iter().chain(own).collect();
        let names: Vec<String> = (0..cases.len()).map(|number| format!("c{number}")).collect();
        let columns: Vec<_> = names.iter().zip(&cases).map(|(name, (kind, ..))| format!("{name} {kind}")).collect();
        let definition = format!("{}, id INT PRIMARY KEY", columns.join(", "));
        let wanted: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut shop = Shop::open(server, "scan-types", &definition, &wanted).await;
        let row = |of: fn(&(&'static str, &'static str, &'static str)) -> &'static str, id: u8| {
            let values: Vec<_> = cases.iter().map(|case| of(case)).collect();
            format!("INSERT INTO `out-box` VALUES ({}, {id})", values.join(", "))
        };
        shop.run(&["SET time_zone = '+05:30'", &row(|case| case.1, 1), &row(|case| case.2, 2)]).await;
        let heard = shop.hear().await;
        assert!(heard.is_clean(), "{server}: {:?} {:?}", heard.faults, heard.error);
        let scanned = shop.scanned().await;
        assert_eq!((scanned.len(), heard.rows.len()), (2, 2));
        for (scanned, heard) in scanned.iter().zip(&heard.rows) {
            for ((scanned, heard), (kind, value, other)) in scanned.iter().zip(heard).zip(&cases) {
                let text =
                    |value: &Option<Vec<u8>>| value.as_ref().map(|value| String::from_utf8_lossy(value).into_owned());
                assert!(
                    scanned == heard,
                    "{server} {kind} {value} {other}: the table has {:?}, the log {:?}",
                    text(scanned),
                    text(heard)
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn given_keys_of_every_type_when_the_table_is_read_step_by_step_then_no_row_is_missed_or_twice() {
    let cases: &[(&str, &[&str])] = &[
        ("BIGINT", &["-5", "3", "10", "200"]),
        ("BIGINT UNSIGNED", &["1", "9223372036854775807", "9223372036854775808", "18446744073709551615"]),
        ("VARCHAR(20) COLLATE utf8mb4_general_ci", &["'b'", "'A'", "'é'", "'Z'", "'a,b %'", "''"]),
        ("VARCHAR(20) COLLATE utf8mb4_bin", &["'b'", "'A'", "'a'", "'Z'"]),
        ("CHAR(9) CHARACTER SET ascii", &["'b'", "'A'", "'c d'", "'0'"]),
        ("VARCHAR(20) CHARACTER SET latin1", &["'ä'", "'b'", "'z'", "'o'"]),
        ("BINARY(3)", &["X'00ff10'", "X'ff0000'", "X'7f0000'", "X'000000'"]),
        ("VARBINARY(8)", &["X''", "X'00'", "X'ff80'", "X'41'"]),
        ("DECIMAL(10, 3)", &["-1.5", "0", "2.25", "10"]),
        ("DATETIME(3)", &["'2024-02-29 23:59:59.123'", "'2024-02-29 23:59:59.124'", "'1999-01-01'"]),
        ("TIMESTAMP(6)", &["'2024-02-29 23:59:59.000001'", "'2024-02-29 23:59:59'", "'1999-01-01'"]),
        ("DATE", &["'2024-02-29'", "'1999-01-01'", "'9999-12-31'"]),
        ("YEAR", &["1999", "2024", "2000"]),
        ("ENUM('z', 'a', 'm')", &["'a'", "'z'", "'m'"]),
        ("INT, l CHAR(3) DEFAULT 'x', PRIMARY KEY (k, l)", &["1", "2", "3"]),
    ];
    let uuids: &[&str] = &[
        "'3e11fa47-71ca-11e1-9e33-c80aa9429562'",
        "'f81d4fae-7dec-41d0-a765-00a0c91e6bf6'",
        "'01890a5d-ac96-774b-bcce-b302099a8057'",
        "'00000000-0000-0000-0000-000000000000'",
    ];
    let generated: &[&str] = &["1", "2", "3", "4"];
    let of_mysql: &[(&str, &[&str])] = &[("INT, l INT AS (n % 2) STORED, PRIMARY KEY (l, k)", generated)];
    for server in [MYSQL, MARIADBS[1]] {
        let own = if server == MYSQL { of_mysql } else { &[("UUID", uuids)] };
        for (number, (kind, keys)) in cases.iter().chain(own).enumerate() {
            let primary = if kind.contains("PRIMARY KEY") { "" } else { " PRIMARY KEY" };
            let definition = format!("n INT, k {kind}{primary}");
            let mut shop = Shop::open(server, &format!("scan-keys-{number}"), &definition, &["n", "k"]).await;
            shop.run(&["SET time_zone = '+00:00'"]).await;
            for (n, key) in keys.iter().enumerate() {
                shop.run(&[&format!("INSERT INTO `out-box` (n, k) VALUES ({n}, {key})")]).await;
            }
            let heard = shop.hear().await;
            assert!(heard.is_clean(), "{server} {kind}: {:?} {:?}", heard.faults, heard.error);
            let scanned = shop.scanned().await;
            assert_eq!(sorted(scanned.clone()), sorted(heard.rows), "{server} {kind}");
            // The first row is read; then all are deleted.
            let mut position = shop.snapshot().await;
            let first = shop.scan(&mut position, 1).await;
            assert_eq!(first, scanned[..1], "{server} {kind}");
            shop.run(&["DELETE FROM `out-box`"]).await;
            let gone = shop.scan(&mut position, usize::MAX).await;
            assert_eq!(sorted(gone), sorted(scanned[1..].to_vec()), "{server} {kind}");
            assert!(shop.snapshot().await.scan.is_none(), "nothing is left");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn given_a_generated_primary_key_or_rows_of_very_different_sizes_when_read_then_they_come_all() {
    let mut shop = Shop::open(MYSQL, "scan-sizes", "id INT PRIMARY KEY, payload LONGBLOB", &["id", "payload"]).await;
    for block in 0..4 {
        let rows: Vec<_> = (0..300)
            .map(|n| format!("({}, REPEAT('x', {}))", block * 300 + n, if block % 2 == 0 { 10 } else { 20_000 }))
            .collect();
        shop.run(&[&format!("INSERT INTO `out-box` VALUES {}", rows.join(", "))]).await;
    }
    let mut position = shop.snapshot().await;
    let rows = shop.scan(&mut position, usize::MAX).await;
    let ids: Vec<_> = rows.iter().map(|row| String::from_utf8(row[0].clone().unwrap()).unwrap()).collect();
    assert_eq!(ids, (0..1200).map(|n: u32| n.to_string()).collect::<Vec<_>>());
    shop.run(&[
        "SET SESSION sql_generate_invisible_primary_key = ON",
        "DROP TABLE `out-box`",
        "CREATE TABLE `out-box` (id INT, payload TEXT)",
        "INSERT INTO `out-box` VALUES (2, 'b'), (1, 'a')",
    ])
    .await;
    assert_eq!(shop.scanned().await.len(), 2);
}
