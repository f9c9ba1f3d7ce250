//! MariaDB, the whole path.

use fastrand::Rng;

use crate::order::event;
use crate::stage::{Stage, seed};

async fn whole_path(server: &'static str) {
    let mut stage = Stage::of().server(server).up().await;
    let seed = seed();
    let mut rng = Rng::with_seed(seed);
    let writing = stage.write(seed).await;
    for _ in 0..5 {
        let daemon = stage.run();
        tokio::time::sleep(std::time::Duration::from_millis(rng.u64(20..900))).await;
        daemon.kill();
    }
    for _ in 0..2 {
        let daemon = stage.run();
        writing.more(200).await;
        assert_eq!(daemon.terminate().await, Some(0));
    }
    let daemon = stage.run();
    writing.more(100).await;
    stage.mysql.tell("kill").unwrap();
    stage.mysql.tell("start").unwrap();
    writing.more(200).await;
    // Transactions of another domain have a sequence of their own.
    let other = ["SET SESSION gtid_domain_id = 7".to_owned(), event(1, "of-another-domain", "k")];
    stage.sql(other).await;
    stage.delivered("of-another-domain").await;
    stage.sql(["DELETE FROM delivery.`delivery-outbox1` WHERE id = 'of-another-domain'"]).await;
    let journal = writing.stop().await;
    let verdict = stage.verdict(&journal).await;
    let found = verdict.total;
    assert_eq!((found.missing, found.ghosts, found.out_of_order, found.unexpected), (0, 0, 0, 1), "{verdict}");
    assert_eq!(daemon.terminate().await, Some(0));
    assert!(stage.positions().contains(",7-"), "{}", stage.positions());
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_10_11_is_relayed_through_kills_stops_and_restarts() {
    whole_path("mariadb-10.11").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_11_8_is_relayed_through_kills_stops_and_restarts() {
    whole_path("mariadb-11.8").await;
}

/// Given triggers and views that MariaDB keeps from the daemon's account, whose bodies it shows as NULL or empty, then the
/// table is relayed.
#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_may_not_be_read_is_no_trouble() {
    let stage = Stage::of().server("mariadb-11.8").shards(1).up().await;
    let trigger = "CREATE TRIGGER delivery.stamp BEFORE INSERT ON delivery.orders FOR EACH ROW SET NEW.id = NEW.id + 1";
    let view = "CREATE VIEW delivery.shown AS SELECT * FROM delivery.`delivery-outbox1`";
    stage.sql(["CREATE TABLE delivery.orders (id INT)", "GRANT SELECT ON delivery.orders TO outboxd", trigger]).await;
    stage.sql([view]).await;
    let daemon = stage.run();
    daemon.ready().await;
    stage.sql([event(1, "beside-a-trigger", "k")]).await;
    stage.delivered("beside-a-trigger").await;
    assert_eq!(daemon.terminate().await, Some(0));
}

/// Given `gtid_strict_mode=OFF` and a transaction whose number is below that of the one before it, when it is read, after
/// a start or under way, then every table halts by name; and from behind it, as the detail says, it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_goes_back_halts_by_name_and_is_never_passed_over() {
    let stage = Stage::of().server("mariadb-11.8").shards(1).partitions(1).up().await;
    let back = |number: u64, id: &str| {
        ["SET SESSION server_id = 4242".to_owned(), format!("SET SESSION gtid_seq_no = {number}"), event(1, id, "k")]
    };
    let daemon = stage.run();
    stage.sql([event(1, "first", "k")]).await;
    stage.delivered("first").await;
    assert_eq!(daemon.terminate().await, Some(0));
    stage.sql(back(1, "back-after-a-start")).await;
    let mut daemon = stage.run();
    assert_eq!(daemon.ended().await, Some(1));
    let log = daemon.log();
    assert!(log.contains("reason=\"gtid_out_of_order\"") && log.contains("0-4242-1 ("), "{log}");
    let behind = "domains=0-4242-1";
    assert!(log.contains(&format!(" to {behind};")), "{log}");
    let set = ["position", "set", "delivery.delivery-outbox1", "--to", behind, "--yes"];
    assert!(stage.outboxd(&set).status().unwrap().success());
    let mut daemon = stage.run();
    stage.sql([event(1, "behind", "k")]).await;
    stage.delivered("behind").await;
    stage.sql(back(2, "back-under-way")).await;
    assert_eq!(daemon.ended().await, Some(1));
    assert!(daemon.log().contains("reason=\"gtid_out_of_order\""), "{}", daemon.log());
    let records = stage.records().await;
    assert_eq!(crate::order::ids(&records), ["first", "behind"]);
}
