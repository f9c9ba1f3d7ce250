// Writes each event in the transaction of what it tells of. Node 20.15 or later, for zlib.crc32.
import { randomBytes } from "node:crypto";
import { crc32 } from "node:zlib";
import mysql from "mysql2/promise";

const SHARDS = 4;

// ANCHOR: outbox
/** Milliseconds in front, so that ids ascend; the rest is random (RFC 9562). */
function uuid7() {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(Date.now(), 0, 6);
  bytes[6] = (bytes[6] & 0x0f) | 0x70; // the version
  bytes[8] = (bytes[8] & 0x3f) | 0x80; // the variant
  return bytes.toString("hex").replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, "$1-$2-$3-$4-$5");
}

/** An aggregate's events always go to the same table. */
function tableOf(aggregateId) {
  return `\`delivery-outbox${(crc32(aggregateId) % SHARDS) + 1}\``;
}

/** Leaves an event for the relay, in the transaction that the connection is in. */
async function publish(connection, aggregateId, type, payload) {
  const id = uuid7();
  await connection.execute(
    `INSERT INTO ${tableOf(aggregateId)} (id, aggregatetype, aggregateid, type, payload, created_at)
     VALUES (?, 'delivery', ?, ?, ?, UTC_TIMESTAMP(6))`,
    [id, aggregateId, type, JSON.stringify(payload)],
  );
  return id;
}
// ANCHOR_END: outbox

// ANCHOR: business
async function transaction(pool, work) {
  const connection = await pool.getConnection();
  try {
    await connection.beginTransaction();
    const result = await work(connection);
    await connection.commit();
    return result;
  } catch (error) {
    await connection.rollback();
    throw error;
  } finally {
    connection.release();
  }
}

function changeStatus(pool, delivery, status, type) {
  return transaction(pool, async (connection) => {
    await connection.execute(
      "INSERT INTO deliveries (id, status) VALUES (?, ?) AS new ON DUPLICATE KEY UPDATE status = new.status",
      [delivery, status],
    );
    const id = await publish(connection, delivery, type, { delivery, status });
    if (status === "lost") {
      throw new RangeError("a delivery is never lost"); // neither the row nor the event remains
    }
    return id;
  });
}
// ANCHOR_END: business

const pool = mysql.createPool({
  host: process.env.DB_HOST,
  port: Number(process.env.DB_PORT),
  user: process.env.DB_USER,
  password: process.env.DB_PASSWORD,
  database: "delivery",
});
for (let number = 1; number <= 20; number++) {
  const delivery = `node-${number}`;
  console.log(await changeStatus(pool, delivery, "created", "DeliveryCreated"));
  console.log(await changeStatus(pool, delivery, "picked_up", "DeliveryPickedUp"));
  try {
    await changeStatus(pool, delivery, "lost", "DeliveryLost");
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
  }
  console.log(await changeStatus(pool, delivery, "completed", "DeliveryCompleted"));
}
await pool.end();
