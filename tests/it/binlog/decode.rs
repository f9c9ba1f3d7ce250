//! `outboxd decode` on the log files of real servers, compared with SELECT.

use std::process::Command;

use mysql_async::prelude::Queryable;
use serde_json::Value;

use super::shop::{MARIADBS, MYSQL, Shop};

const OUTBOX: &str = "id BIGINT UNSIGNED PRIMARY KEY, kind ENUM('a','b'), at DATETIME(6), amount DECIMAL(12,3), \
                      note VARCHAR(200) CHARACTER SET latin1, payload LONGTEXT";

#[tokio::test(flavor = "multi_thread")]
async fn given_the_files_of_a_server_when_decoded_then_the_rows_are_those_of_select() {
    for server in [MYSQL, MARIADBS[1]] {
        let mut shop = Shop::open(server, "archived", OUTBOX, &["id"]).await;
        let values: Vec<String> = (1..=2000)
            .map(|id| format!("({id}, {}, NOW(6), {id}.125, 'né {id}', REPEAT('{id} ü ', {}))", id % 2 + 1, id % 50))
            .collect();
        let compress = if server == MYSQL {
            "SET SESSION binlog_transaction_compression = ON"
        } else {
            "SET GLOBAL log_bin_compress = ON"
        };
        shop.run(&[
            &format!("INSERT INTO `out-box` VALUES {}", values.join(",")),
            "BEGIN",
            "INSERT INTO `out-box` (id) VALUES (3000)",
            "ROLLBACK",
            "XA START 'archived'",
            "INSERT INTO `out-box` (id, payload) VALUES (3001, 'xa')",
            "XA END 'archived'",
            "XA PREPARE 'archived'",
        ])
        .await;
        // Its outcome stands in another file.
        shop.session().await.query_drop("FLUSH BINARY LOGS").await.unwrap();
        shop.run(&[
            "XA COMMIT 'archived'",
            "XA START 'undone'",
            "INSERT INTO `out-box` (id, payload) VALUES (3002, 'undone')",
            "XA END 'undone'",
            "XA PREPARE 'undone'",
            "XA ROLLBACK 'undone'",
            "INSERT INTO `out-box` (id, payload) VALUES (3003, REPEAT('long', 3000000))",
            compress,
            "INSERT INTO `out-box` (id, payload) VALUES (3004, REPEAT('packed', 10000)), (3005, 'more')",
            if server == MYSQL { "DO 0" } else { "SET GLOBAL log_bin_compress = OFF" },
        ])
        .await;
        let files = shop.files().await;
        let output = Command::new(env!("CARGO_BIN_EXE_outboxd"))
            .arg("decode")
            .args(&files)
            .args(["--tables", "archived.out-box"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{server}: {}", String::from_utf8_lossy(&output.stderr));
        let decoded: Vec<Vec<Option<String>>> = std::str::from_utf8(&output.stdout)
            .unwrap()
            .lines()
            .map(|line| {
                let line: Value = serde_json::from_str(line).unwrap();
                let text = |name: &&str| match &line["columns"][name] {
                    Value::Null => None,
                    Value::String(text) => Some(text.clone()),
                    other => Some(other.to_string()),
                };
                ["id", "kind", "at", "amount", "note", "payload"].iter().map(text).collect()
            })
            .collect();
        let question = "SELECT CAST(id AS CHAR), CAST(kind + 0 AS CHAR), CAST(at AS CHAR), CAST(amount AS CHAR), note, \
                        payload FROM `out-box` ORDER BY id";
        let selected: Vec<mysql_async::Row> = shop.conn.query(question).await.unwrap();
        let selected: Vec<Vec<Option<String>>> =
            selected.iter().map(|row| (0..6).map(|column| row.get(column).unwrap()).collect()).collect();
        assert_eq!(decoded.len(), selected.len(), "{server}");
        assert!(decoded == selected, "{server}");
    }
}
