//! Writes each event in the transaction of what it tells of.

use std::env;
use std::error::Error;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder, Params, Transaction, TxOpts, params};
use serde_json::{Value, json};
use uuid::Uuid;

const SHARDS: u32 = 4;

// ANCHOR: outbox
/// An aggregate's events always go to the same table.
fn table_of(aggregate_id: &str) -> String {
    format!("`delivery-outbox{}`", crc32fast::hash(aggregate_id.as_bytes()) % SHARDS + 1)
}

/// Leaves an event for the relay, in the transaction.
async fn publish(
    transaction: &mut Transaction<'_>,
    aggregate_id: &str,
    event_type: &str,
    payload: &Value,
) -> mysql_async::Result<Uuid> {
    // Milliseconds in front, so that ids ascend.
    let id = Uuid::now_v7();
    let insert = format!(
        "INSERT INTO {} (id, aggregatetype, aggregateid, type, payload, created_at)
         VALUES (?, 'delivery', ?, ?, ?, UTC_TIMESTAMP(6))",
        table_of(aggregate_id)
    );
    let row = (id.to_string(), aggregate_id, event_type, payload.to_string());
    transaction.exec_drop(insert, row).await?;
    Ok(id)
}
// ANCHOR_END: outbox

// ANCHOR: business
/// `None` for a change that is not allowed.
async fn change_status(
    conn: &mut Conn,
    delivery: &str,
    status: &str,
    event_type: &str,
) -> mysql_async::Result<Option<Uuid>> {
    let mut transaction = conn.start_transaction(TxOpts::default()).await?;
    let changed: Params = params! { "id" => delivery, "status" => status };
    transaction
        .exec_drop(
            "INSERT INTO deliveries (id, status) VALUES (:id, :status) ON DUPLICATE KEY UPDATE status = :status",
            changed,
        )
        .await?;
    let payload = json!({ "delivery": delivery, "status": status });
    let id = publish(&mut transaction, delivery, event_type, &payload).await?;
    if status == "lost" {
        // Neither the row nor the event remains.
        transaction.rollback().await?;
        return Ok(None);
    }
    transaction.commit().await?;
    Ok(Some(id))
}
// ANCHOR_END: business

#[tokio::main(flavor = "current_thread")]
#[allow(clippy::print_stdout, reason = "the ids of what it has written")]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = OptsBuilder::default()
        .ip_or_hostname(env::var("DB_HOST")?)
        .tcp_port(env::var("DB_PORT")?.parse()?)
        .user(Some(env::var("DB_USER")?))
        .pass(Some(env::var("DB_PASSWORD")?))
        .db_name(Some("delivery"));
    let mut conn = Conn::new(server).await?;
    let steps = [
        ("created", "DeliveryCreated"),
        ("picked_up", "DeliveryPickedUp"),
        ("lost", "DeliveryLost"),
        ("completed", "DeliveryCompleted"),
    ];
    for number in 1..=20 {
        for (status, event_type) in steps {
            if let Some(id) = change_status(&mut conn, &format!("rust-{number}"), status, event_type).await? {
                println!("{id}");
            }
        }
    }
    conn.disconnect().await?;
    Ok(())
}
