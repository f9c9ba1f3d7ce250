//! Group replication, with a single primary and with several.

use mysql_async::prelude::Queryable;

use super::cluster::Cluster;
use crate::order::{event, ids};
use crate::stage::{Stage, until};

const SETTINGS: &[&str] = &[
    "plugin_load_add=group_replication.so",
    "report_host=127.0.0.1",
    "performance_schema=ON",
    "loose-group_replication_group_name=aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
    "loose-group_replication_start_on_boot=OFF",
    "loose-group_replication_communication_stack=MYSQL",
    "loose-group_replication_recovery_get_public_key=ON",
    "loose-group_replication_member_expel_timeout=0",
    "loose-group_replication_unreachable_majority_timeout=5",
];

const PRIMARY: &str = "SELECT CAST(MEMBER_PORT AS CHAR) FROM performance_schema.replication_group_members WHERE MEMBER_ROLE = \
                       'PRIMARY' AND MEMBER_STATE = 'ONLINE'";

const ONLINE: &str =
    "SELECT CAST(COUNT(*) AS CHAR) FROM performance_schema.replication_group_members WHERE MEMBER_STATE = 'ONLINE'";

/// Makes the servers a group of which 0 is the primary, with the tables and the topic.
async fn form(cluster: &Cluster) {
    let seeds = (0..3).map(|server| format!("127.0.0.1:{}", cluster.port(server))).collect::<Vec<_>>().join(",");
    for server in 0..3 {
        let bootstrap = if server == 0 { "ON" } else { "OFF" };
        cluster
            .sql(server, [
                "CHANGE REPLICATION SOURCE TO SOURCE_USER='admin', SOURCE_PASSWORD='admin' FOR CHANNEL 'group_replication_recovery'"
                    .to_owned(),
                format!("SET GLOBAL group_replication_local_address = '127.0.0.1:{}'", cluster.port(server)),
                format!("SET GLOBAL group_replication_group_seeds = '{seeds}'"),
                format!("SET GLOBAL group_replication_bootstrap_group = {bootstrap}"),
                "START GROUP_REPLICATION".to_owned(),
                "SET GLOBAL group_replication_bootstrap_group = OFF".to_owned(),
            ])
            .await;
    }
    until("three members are online", async || cluster.ask(0, ONLINE).await == "3").await;
    cluster.stage.create_topic().await;
    cluster.stage.migrate();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_primary_of_a_group_is_killed_under_load_and_nothing_is_lost() {
    let mut cluster = Cluster::group(Stage::of(), 3, SETTINGS).await;
    form(&cluster).await;
    let writing = cluster.write(80).await;
    let daemon = cluster.run(&[0, 1, 2], &[]);
    daemon.ready().await;
    writing.more(300).await;
    cluster.tell(0, "kill");
    until("another is the primary", async || {
        let port = cluster.ask(1, PRIMARY).await;
        !port.is_empty() && port != cluster.port(0).to_string()
    })
    .await;
    let primary = if cluster.ask(1, PRIMARY).await == cluster.port(1).to_string() { 1 } else { 2 };
    until("it may be written to", async || cluster.ask(primary, "SELECT @@super_read_only").await == "0").await;
    cluster.lead_to(primary);
    writing.more(300).await;
    // And a planned change of the primary, which a member does by itself.
    let other = 3 - primary;
    let uuid = cluster.ask(other, "SELECT @@server_uuid").await;
    cluster.sql(primary, [format!("DO group_replication_set_as_primary('{uuid}')")]).await;
    cluster.lead_to(other);
    writing.more(300).await;
    let journal = writing.stop().await;
    let verdict = cluster.judge(&journal, None, daemon).await;
    let written = journal.committed().count();
    assert!(verdict.total.committed >= written as u64, "{written} acknowledged: {verdict}");
    assert!(verdict.total.duplicates == 0, "{verdict}");
}

/// Given a member that has received what the daemon has relayed and cannot apply it, when the other one is lost, then that is
/// waited for: not reported as lost, and not relayed again.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_primary_of_a_group_has_yet_to_apply_is_not_lost() {
    let setup = Stage::of().shards(1).grant("SELECT ON performance_schema.replication_connection_status");
    let mut cluster = Cluster::group(setup, 3, SETTINGS).await;
    for server in 0..3 {
        // Each of them may be written to, whatever it has to apply.
        cluster.sql(server, ["SET GLOBAL group_replication_single_primary_mode = OFF"]).await;
    }
    form(&cluster).await;
    let daemon = cluster.run(&[0, 1], &[]);
    cluster.sql(0, [event(1, "before", "k")]).await;
    cluster.stage.delivered("before").await;
    cluster.caught_up(1, 0).await;
    let mut holder = cluster.connect(1).await;
    holder.query_drop("LOCK TABLES delivery.`delivery-outbox1` READ").await.unwrap();
    // More than its workers begin with at once: those they count as their own.
    let queued: Vec<_> = (1..=12).map(|number| format!("queued-{number}")).collect();
    cluster.sql(0, queued.iter().map(|id| event(1, id, "k"))).await;
    cluster.stage.delivered("queued-12").await;
    cluster.tell(0, "kill");
    cluster.lead_to(1);
    daemon.logs("server_is_behind").await;
    holder.query_drop("UNLOCK TABLES").await.unwrap();
    // A number it gives before it has applied all may be one of theirs: then it is rolled back, and written again.
    until("a transaction gets past those that are still applied", async || {
        holder.query_drop(event(1, "after", "k")).await.is_ok()
    })
    .await;
    cluster.stage.delivered("after").await;
    assert!(!daemon.log().contains("transactions_lost"), "{}", daemon.log());
    assert_eq!(daemon.terminate().await, Some(0));
    let records = cluster.stage.records().await;
    let mut expected: Vec<_> = queued.iter().map(String::as_str).collect();
    expected.insert(0, "before");
    expected.push("after");
    assert_eq!(ids(&records), expected);
}
