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

#[tokio::test(flavor = "multi_thread")]
async fn given_xa_transactions_on_mysql_when_settled_then_rows_leave_in_the_order_of_their_commits() {
    let mut shop = Shop::open(MYSQL, "xa", OUTBOX, &COLUMNS).await;
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
    assert!(heard.is_clean(), "{:?} {:?}", heard.faults, heard.error);
    assert_eq!(heard.texts(0), ["4", "2", "5", "1", "6"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn given_a_prepared_transaction_when_the_log_is_opened_again_before_its_outcome_then_it_is_read_again() {
    let mut shop = Shop::open(MYSQL, "xa-restart", OUTBOX, &COLUMNS).await;
    shop.run(&["SET SESSION binlog_transaction_compression = ON", "CREATE TABLE other (id INT PRIMARY KEY)"]).await;
    prepare(&mut shop, "'later'", 1).await;
    prepare(&mut shop, "'never'", 2).await;
    shop.run(&["INSERT INTO `out-box` VALUES (3, 'plain')"]).await;
    let heard = shop.hear().await;
    assert_eq!(heard.texts(0), ["3"]);
    shop.listen_from(heard.position);
    shop.run(&["INSERT INTO `out-box` VALUES (4, 'plain')", "XA ROLLBACK 'never'"]).await;
    let heard = shop.hear().await;
    assert_eq!(heard.texts(0), ["4"], "nothing again and nothing early");
    shop.listen_from(heard.position);
    shop.run(&["XA COMMIT 'later'", "INSERT INTO `out-box` VALUES (5, 'plain')"]).await;
    let heard = shop.hear().await;
    assert!(heard.is_clean(), "{:?} {:?}", heard.faults, heard.error);
    assert_eq!(heard.texts(0), ["1", "5"]);
    shop.listen_from(heard.position);
    shop.run(&["INSERT INTO `out-box` VALUES (6, 'plain')"]).await;
    assert_eq!(shop.hear().await.texts(0), ["6"], "what is settled is covered");
}

#[tokio::test(flavor = "multi_thread")]
async fn given_xa_on_mariadb_when_prepared_with_rows_of_the_outbox_then_it_is_a_fault_and_otherwise_no_matter() {
    for server in MARIADBS {
        let mut shop = Shop::open(server, "xa", OUTBOX, &COLUMNS).await;
        shop.run(&[
            "CREATE TABLE other (id INT PRIMARY KEY)",
            "XA START 'one'",
            "INSERT INTO `out-box` VALUES (1, 'one phase')",
            "XA END 'one'",
            "XA COMMIT 'one' ONE PHASE",
            "XA START 'other'",
            "INSERT INTO other VALUES (1)",
            "XA END 'other'",
            "XA PREPARE 'other'",
            "XA COMMIT 'other'",
        ])
        .await;
        let heard = shop.hear().await;
        assert!(heard.is_clean(), "{server}: {:?} {:?}", heard.faults, heard.error);
        assert_eq!(heard.texts(0), ["1"], "{server}");
        shop.listen_from_now().await;
        prepare(&mut shop, "'two'", 2).await;
        shop.run(&["XA ROLLBACK 'two'"]).await;
        assert_eq!(shop.hear().await.fault_names(), ["xa_prepared"], "{server}");
    }
}
