//! MariaDB, whose positions are the last transaction of each domain.

use mysql_async::prelude::Queryable;

use super::cluster::Cluster;
use crate::order::event;
use crate::stage::Stage;

async fn planned(server: &'static str) {
    let cluster = Cluster::mariadb(server, Stage::of(), 1).await;
    let writing = cluster.write(60).await;
    let daemon = cluster.run(&[0, 1], &[]);
    daemon.ready().await;
    writing.more(300).await;
    for (from, to) in [(0, 1), (1, 0)] {
        cluster.switch_over(from, to).await;
        writing.more(300).await;
    }
    let journal = writing.stop().await;
    let verdict = cluster.judge(&journal, None, daemon).await;
    assert_eq!(verdict.total.duplicates, 0, "{verdict}");
}

async fn killed(server: &'static str) {
    let mut cluster = Cluster::mariadb(server, Stage::of(), 1).await;
    let writing = cluster.write(61).await;
    let daemon = cluster.run(&[0, 1], &[]);
    daemon.ready().await;
    writing.more(500).await;
    cluster.tell(0, "kill");
    cluster.applied(1).await;
    cluster.promote(1).await;
    daemon.logs("server_changed").await;
    writing.more(300).await;
    let journal = writing.stop().await;
    cluster.tell(0, "start");
    cluster.judge(&journal, Some(0), daemon).await;
}

/// Given transactions that only the old primary had, when the new one gives their sequence numbers to others, then those
/// are relayed.
async fn lagging(server: &'static str) {
    let mut cluster = Cluster::mariadb(server, Stage::of(), 1).await;
    let writing = cluster.write(62).await;
    let daemon = cluster.run(&[0, 1], &[]);
    daemon.ready().await;
    writing.more(300).await;
    let mut journal = writing.stop().await;
    cluster.caught_up(1, 0).await;
    cluster.sql(1, ["STOP SLAVE IO_THREAD"]).await;
    let mut conn = cluster.connect(0).await;
    for n in 0..5 {
        conn.query_drop(event(1 + n % 4, &format!("lost-{n}"), &format!("lost-{n}"))).await.unwrap();
    }
    let last: String = conn.query_first("SELECT @@last_gtid").await.unwrap().unwrap();
    for n in 0..5 {
        cluster.stage.delivered(&format!("lost-{n}")).await;
    }
    cluster.tell(0, "kill");
    // More than were lost, so that their numbers are taken before the daemon comes.
    cluster.sql(1, (0..50).map(|n| event(1 + n % 4, &format!("new-{n}"), &format!("new-{n}")))).await;
    cluster.promote(1).await;
    // The last one was the first table's.
    daemon.logs("transactions_lost_by_failover table=delivery.delivery-outbox1 ").await;
    let log = daemon.log();
    let (_, told) = log.split_once("transactions_lost_by_failover table=delivery.delivery-outbox1 lost=").unwrap();
    let number = |gtid: &str| gtid.rsplit(['-', '.']).next().unwrap().parse::<u64>().unwrap();
    let named = told.split(' ').next().unwrap();
    assert!(number(named) >= number(&last), "{last} is named: {named}");
    for n in 0..50 {
        cluster.stage.delivered(&format!("new-{n}")).await;
    }
    let writing = cluster.write(63).await;
    writing.more(300).await;
    journal.absorb(writing.stop().await);
    let verdict = cluster.stage.verdict(&journal).await;
    let found = verdict.total;
    assert_eq!((found.missing, found.ghosts, found.out_of_order, found.duplicates), (0, 0, 0, 0), "{verdict}");
    assert_eq!(found.unexpected, 55, "{verdict}");
    assert_eq!(daemon.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_grants_of_the_readme_are_enough_on_mariadb() {
    let stage = Stage::of().server("mariadb-11.8").shards(1).up().await;
    stage
        .sql([
            "CREATE USER reader IDENTIFIED BY 'x'",
            "GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO reader",
            "GRANT SELECT ON delivery.* TO reader",
            "GRANT SELECT, INSERT, UPDATE ON outboxd.outboxd_positions TO reader",
        ])
        .await;
    let url = format!("mysql://reader@127.0.0.1:{}", stage.mysql.port());
    let keys = [("MYSQL__URL", url.as_str()), ("MYSQL__PASSWORD", "x"), ("MYSQL__ROLE", "primary")];
    let daemon = stage.run_with(&keys);
    stage.sql([event(1, "first", "k")]).await;
    stage.delivered("first").await;
    stage.kill_readers().await;
    stage.sql([event(1, "second", "k")]).await;
    stage.delivered("second").await;
    assert_eq!(daemon.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_switchover_of_mariadb_and_back_loses_nothing_and_doubles_nothing() {
    planned("mariadb-10.11").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_of_mariadb_is_killed_under_load_and_what_survives_is_relayed() {
    killed("mariadb-11.8").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sequence_numbers_of_lost_transactions_of_mariadb_are_given_again_and_relayed() {
    lagging("mariadb-10.11").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_they_are_on_mariadb_11_8() {
    lagging("mariadb-11.8").await;
}
