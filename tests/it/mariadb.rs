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

/// Given triggers whose bodies MariaDB keeps from the daemon's account, which it shows as NULL, then the table is relayed.
#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_may_not_be_read_is_no_trouble() {
    let stage = Stage::of().server("mariadb-11.8").shards(1).up().await;
    let trigger = "CREATE TRIGGER delivery.stamp BEFORE INSERT ON delivery.orders FOR EACH ROW SET NEW.id = NEW.id + 1";
    stage.sql(["CREATE TABLE delivery.orders (id INT)", "GRANT SELECT ON delivery.orders TO outboxd", trigger]).await;
    let daemon = stage.run();
    daemon.ready().await;
    stage.sql([event(1, "beside-a-trigger", "k")]).await;
    stage.delivered("beside-a-trigger").await;
    assert_eq!(daemon.terminate().await, Some(0));
}
