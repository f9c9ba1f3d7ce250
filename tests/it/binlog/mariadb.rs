//! What only MariaDB writes.

use mysql_async::prelude::Queryable;

use super::shop::{MARIADBS, Shop};

const OUTBOX: &str = "id BIGINT UNSIGNED PRIMARY KEY, payload LONGTEXT, note VARCHAR(200)";

/// Event types in the log from the file that is written now, as the server names them.
async fn event_types(shop: &mut Shop) -> Vec<String> {
    let status: mysql_async::Row = shop.conn.query_first("SHOW MASTER STATUS").await.unwrap().unwrap();
    let file: String = status.get(0).unwrap();
    let rows: Vec<mysql_async::Row> = shop.conn.query(format!("SHOW BINLOG EVENTS IN '{file}'")).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>(2).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn given_log_bin_compress_when_rows_and_statements_are_compressed_then_all_of_them_come_through() {
    for server in MARIADBS {
        let mut shop = Shop::open(server, "compress", OUTBOX, &["id", "payload", "note"]).await;
        shop.run(&["FLUSH BINARY LOGS"]).await;
        let mut session = shop.session().await;
        session.query_drop("SET GLOBAL log_bin_compress = ON, GLOBAL log_bin_compress_min_len = 10").await.unwrap();
        let values: Vec<String> = (1..=500).map(|id| format!("({id}, REPEAT('{id}é', {id}), NULL)")).collect();
        shop.run(&[
            &format!("INSERT INTO `out-box` VALUES {}", values.join(",")),
            "BEGIN",
            "INSERT INTO `out-box` VALUES (600, REPEAT('a', 3000000), 'large')",
            "SAVEPOINT `a savepoint with a name that is long enough to be compressed`",
            "INSERT INTO `out-box` VALUES (601, REPEAT('b', 300), 'undone')",
            "ROLLBACK TO `a savepoint with a name that is long enough to be compressed`",
            "INSERT INTO `out-box` VALUES (602, REPEAT('c', 300), 'kept')",
            "COMMIT",
            "UPDATE `out-box` SET note = REPEAT('u', 100) WHERE id < 3",
            "DELETE FROM `out-box` WHERE id = 1",
            "CREATE TABLE other (a INT) COMMENT 'a statement that is long enough to be compressed by the server'",
            "INSERT INTO `out-box` VALUES (603, REPEAT('d', 300), 'last')",
        ])
        .await;
        let types = event_types(&mut shop).await;
        for kind in ["Write_rows_compressed_v1", "Query_compressed", "Update_rows_compressed_v1"] {
            assert!(types.iter().any(|there| there == kind), "{server} wrote no {kind}: {types:?}");
        }
        session.query_drop("SET GLOBAL log_bin_compress = OFF").await.unwrap();
        let heard = shop.hear().await;
        assert!(heard.faults.is_empty() && heard.error.is_none(), "{server}: {:?} {:?}", heard.faults, heard.error);
        assert_eq!(heard.foreign.len(), 2, "{server}");
        let payloads = (1..=500).map(|id| format!("{id}é").repeat(id));
        let more = [("a", 3_000_000), ("c", 300), ("d", 300)].map(|(text, times)| text.repeat(times));
        assert!(heard.texts(1) == payloads.chain(more).collect::<Vec<_>>(), "{server}");
        let notes = heard.texts(2);
        assert_eq!(notes[499..], ["NULL", "large", "kept", "last"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn given_compressed_columns_when_read_then_their_values_are_those_of_select() {
    let definition = "id INT PRIMARY KEY, payload LONGTEXT COMPRESSED, latin VARCHAR(300) COMPRESSED CHARACTER SET latin1, \
                      raw VARBINARY(2000) COMPRESSED, short TINYBLOB COMPRESSED";
    let columns = ["id", "payload", "latin", "raw", "short"];
    for server in MARIADBS {
        let mut shop = Shop::open(server, "compressed-columns", definition, &columns).await;
        let insert = |id: i32| {
            format!(
                "INSERT INTO `out-box` VALUES ({id}, REPEAT('payload ü ', 20000), REPEAT('é', 200), REPEAT(x'00ff', 500), \
                 REPEAT('s', 200)), ({id} + 1, 'x', '', x'80', NULL), ({id} + 2, NULL, NULL, '', '')"
            )
        };
        shop.run(&[
            &insert(1),
            "SET SESSION column_compression_zlib_wrap = ON",
            &insert(11),
            "SET SESSION column_compression_zlib_wrap = OFF, SESSION column_compression_zlib_level = 0",
            &insert(21),
            "SET SESSION column_compression_zlib_level = DEFAULT",
        ])
        .await;
        let heard = shop.hear().await;
        assert!(heard.is_clean(), "{server}: {:?} {:?}", heard.faults, heard.error);
        let question = "SELECT CAST(id AS CHAR), CAST(CONVERT(payload USING utf8mb4) AS BINARY), \
                        CAST(CONVERT(latin USING utf8mb4) AS BINARY), raw, short FROM `out-box` ORDER BY id";
        let rows: Vec<mysql_async::Row> = shop.conn.query(question).await.unwrap();
        let selected: Vec<Vec<Option<Vec<u8>>>> =
            rows.iter().map(|row| (0..5).map(|column| row.get(column).unwrap()).collect()).collect();
        assert!(heard.rows == selected && selected.len() == 9, "{server}");
    }
}
