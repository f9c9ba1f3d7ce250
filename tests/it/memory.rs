//! Memory is bounded by configuration, whatever the size of a transaction (R5).

use std::time::{Duration, Instant};

use crate::stage::{Stage, until};

/// What the daemon may take with its default limits and one table: 2 MiB each for the queue and in flight, and what
/// librdkafka, the allocator and the program itself need.
const BOUND: u64 = 160 << 20;

/// Rows and bytes of a payload of one transaction: 200 MB in all. `OUTBOXD_TEST_TRANSACTION=ROWSxBYTES` plays another size.
const SIZE: (u32, u32) = (100_000, 2000);

fn size() -> (u32, u32) {
    let Ok(size) = std::env::var("OUTBOXD_TEST_TRANSACTION") else { return SIZE };
    let (rows, bytes) = size.split_once('x').unwrap();
    (rows.parse().unwrap(), bytes.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn given_a_transaction_larger_than_memory_may_be_when_relayed_then_memory_stays_bounded() {
    let stage = Stage::of().shards(1).up().await;
    let daemon = stage.run();
    daemon.ready().await;
    let idle = daemon.peak_memory();
    let (rows, bytes) = size();
    let table = stage.outboxes[0].quoted();
    let insert = format!(
        "INSERT INTO {table} (id, aggregatetype, aggregateid, type, payload) WITH RECURSIVE n (n) AS (SELECT 1 UNION \
         ALL SELECT n + 1 FROM n WHERE n < {rows}) SELECT UUID(), 'delivery', n % 1000, 'assigned', JSON_OBJECT('n', n, \
         'text', RPAD(SHA2(n, 256), {bytes}, SHA2(n + 1, 256))) FROM n"
    );
    stage.sql([format!("SET GLOBAL cte_max_recursion_depth = {rows}")]).await;
    stage.sql(["USE delivery", &insert]).await;
    let written = Instant::now();
    // A transaction of gigabytes takes longer than a condition may.
    let patience = Duration::from_secs(u64::from(rows) * u64::from(bytes) / 4_000_000);
    let arrived = || daemon.metric("outboxd_events_total") >= f64::from(rows);
    while written.elapsed() < patience && !arrived() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    until("every event is acknowledged", async || arrived()).await;
    let peak = daemon.peak_memory();
    eprintln!(
        "{rows} rows of {bytes} bytes relayed in {:?}: peak {} MiB, idle {} MiB",
        written.elapsed(),
        peak >> 20,
        idle >> 20
    );
    assert!(peak < BOUND, "{} MiB", peak >> 20);
    assert_eq!(daemon.terminate().await, Some(0));
}
