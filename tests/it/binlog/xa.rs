//! XA transactions.

use mysql_async::prelude::Queryable;

use tokio::time::Instant;

use super::shop::{MARIADBS, MYSQL, Shop};
use crate::stage::PATIENCE;

const OUTBOX: &str = "id BIGINT UNSIGNED PRIMARY KEY, payload LONGTEXT";
const COLUMNS: [&str; 2] = ["id", "payload"];

async fn prepare(shop: &mut Shop, xid: &str, id: u32) {
    let mut session = shop.session().await;
    for statement in [
        format!("XA START {xid}"),
        format!("INSERT INTO `out-box` VALUES ({id}, 'xa')"),
        format!("XA END {xid}"),
        format!("XA PREPARE {xid}"),
    ] {
        session.query_drop(statement).await.unwrap();
    }
    let id = session.id();
    session.disconnect().await.unwrap();
    // The server lets go of the transaction when the session's thread has ended.
    let there = format!("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = {id}");
    let deadline = Instant::now() + PATIENCE;
    while shop.conn.query_first::<u64, _>(&there).await.unwrap() != Some(0) {
        assert!(Instant::now() < deadline, "the session stays");
    }
}

/// A shop on each server, by its GTIDs and by file and offset.
async fn shops(test: &str) -> Vec<Shop> {
    let mut shops = Vec::new();
    for server in [MYSQL, MARIADBS[0], MARIADBS[1]] {
        let by_gtid = Shop::open(server, test, OUTBOX, &COLUMNS).await;
        let mut by_file = by_gtid.beside(server, &format!("{test}-file"), OUTBOX, &COLUMNS).await;
        shops.push(by_gtid);
        let logs: Vec<mysql_async::Row> = by_file.conn.query("SHOW BINARY LOGS").await.unwrap();
        let (file, offset): (String, u64) =
            (logs.last().unwrap().get(0).unwrap(), logs.last().unwrap().get(1).unwrap());
        by_file.listen_from(format!("file={file}:{offset}").parse().unwrap());
        shops.push(by_file);
    }
    shops
}

#[tokio::test(flavor = "multi_thread")]
async fn given_xa_transactions_when_settled_then_rows_leave_in_the_order_of_their_commits() {
    for mut shop in shops("xa").await {
        prepare(&mut shop, "'first', 'branch', 7", 1).await;
        prepare(&mut shop, "X'00ff27', ''", 2).await;
        prepare(&mut shop, "'undone'", 3).await;
        shop.run(&[
            "INSERT INTO `out-box` VALUES (4, 'plain')",
            "XA COMMIT X'00ff27', ''",
            "XA ROLLBACK 'undone'",
            "INSERT INTO `out-box` VALUES (5, 'plain')",
            "XA COMMIT 'first', 'branch', 7",
            "XA START 'one'",
            "INSERT INTO `out-box` VALUES (6, 'one phase')",
            "XA END 'one'",
            "XA COMMIT 'one' ONE PHASE",
        ])
        .await;
        let heard = shop.hear().await;
        assert!(heard.is_clean(), "{}: {:?} {:?}", heard.position, heard.faults, heard.error);
        assert_eq!(heard.texts(0), ["4", "2", "5", "1", "6"], "{}", heard.position);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn given_a_prepared_transaction_when_the_log_is_opened_again_before_its_outcome_then_it_is_read_again() {
    for mut shop in shops("xa-restart").await {
        if shop.start().point.kind() == "gtid" {
            shop.run(&["SET SESSION binlog_transaction_compression = ON"]).await;
        }
        prepare(&mut shop, "'later'", 1).await;
        prepare(&mut shop, "'never'", 2).await;
        shop.run(&["INSERT INTO `out-box` VALUES (3, 'plain')"]).await;
        let heard = shop.hear().await;
        assert_eq!(heard.texts(0), ["3"]);
        let left_out = heard.position.to_string().contains(" without ");
        assert_eq!(left_out, heard.position.point.kind() != "gtid", "{}", heard.position);
        // As it is saved.
        shop.listen_from(heard.position.to_string().parse().unwrap());
        shop.run(&["FLUSH BINARY LOGS", "INSERT INTO `out-box` VALUES (4, 'plain')", "XA ROLLBACK 'never'"]).await;
        let heard = shop.hear().await;
        assert_eq!(heard.texts(0), ["4"], "{}: nothing again and nothing early", heard.position);
        shop.listen_from(heard.position);
        shop.run(&["XA COMMIT 'later'", "INSERT INTO `out-box` VALUES (5, 'plain')"]).await;
        let heard = shop.hear().await;
        assert!(heard.is_clean(), "{}: {:?} {:?}", heard.position, heard.faults, heard.error);
        assert_eq!(heard.texts(0), ["1", "5"], "{}", heard.position);
        assert!(!heard.position.to_string().contains(" without "), "{}", heard.position);
        shop.listen_from(heard.position);
        shop.run(&["INSERT INTO `out-box` VALUES (6, 'plain')"]).await;
        assert_eq!(shop.hear().await.texts(0), ["6"], "what is settled is covered");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn given_another_domain_when_it_has_the_outcome_then_the_rows_leave_with_it() {
    for server in MARIADBS {
        let mut shop = Shop::open(server, "xa-domains", OUTBOX, &COLUMNS).await;
        prepare(&mut shop, "'elsewhere'", 1).await;
        shop.run(&["SET SESSION gtid_domain_id = 5", "INSERT INTO `out-box` VALUES (2, 'plain')"]).await;
        let heard = shop.hear().await;
        assert_eq!(heard.texts(0), ["2"], "{server}");
        shop.listen_from(heard.position);
        shop.run(&["INSERT INTO `out-box` VALUES (3, 'plain')", "XA COMMIT 'elsewhere'"]).await;
        let heard = shop.hear().await;
        assert!(heard.is_clean(), "{server}: {:?} {:?}", heard.faults, heard.error);
        assert_eq!(heard.texts(0), ["3", "1"], "{server}");
        shop.listen_from(heard.position);
        shop.run(&["SET SESSION gtid_domain_id = 0", "INSERT INTO `out-box` VALUES (4, 'plain')"]).await;
        assert_eq!(shop.hear().await.texts(0), ["4"], "{server}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn given_xa_on_other_tables_when_prepared_and_settled_then_it_is_no_matter() {
    for mut shop in shops("xa-other").await {
        shop.run(&["CREATE TABLE other (id INT PRIMARY KEY)", "INSERT INTO `out-box` VALUES (1, 'plain')"]).await;
        shop.run(&["XA START 'other'", "INSERT INTO other VALUES (1)", "XA END 'other'", "XA PREPARE 'other'"]).await;
        let heard = shop.hear().await;
        assert!(!heard.position.to_string().contains(" without "), "{}", heard.position);
        shop.run(&["XA COMMIT 'other'", "INSERT INTO `out-box` VALUES (2, 'plain')"]).await;
        let heard = shop.hear().await;
        assert!(heard.is_clean(), "{}: {:?} {:?}", heard.position, heard.faults, heard.error);
        assert_eq!(heard.texts(0), ["1", "2"], "{}", heard.position);
    }
}
