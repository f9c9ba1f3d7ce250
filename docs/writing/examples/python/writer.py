"""Writes each event in the transaction of what it tells of."""

import json
import os
import secrets
import time
import uuid
import zlib
from contextlib import contextmanager

import pymysql

SHARDS = 4


# ANCHOR: outbox
def uuid7() -> str:
    """Milliseconds in front, so that ids ascend; the rest is random (RFC 9562)."""
    value = time.time_ns() // 1_000_000 << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76  # the version
    value = value & ~(0x3 << 62) | 0x2 << 62  # the variant
    return str(uuid.UUID(int=value))


def table_of(aggregate_id: str) -> str:
    """An aggregate's events always go to the same table."""
    return f"`delivery-outbox{zlib.crc32(aggregate_id.encode()) % SHARDS + 1}`"


def publish(cursor, aggregate_id: str, event_type: str, payload: dict) -> str:
    """Leaves an event for the relay, in the transaction that the cursor is in."""
    event_id = uuid7()
    cursor.execute(
        f"INSERT INTO {table_of(aggregate_id)} (id, aggregatetype, aggregateid, type, payload, created_at)"
        " VALUES (%s, 'delivery', %s, %s, %s, UTC_TIMESTAMP(6))",
        (event_id, aggregate_id, event_type, json.dumps(payload)),
    )
    return event_id
# ANCHOR_END: outbox


# ANCHOR: business
@contextmanager
def transaction(connection):
    connection.begin()
    try:
        with connection.cursor() as cursor:
            yield cursor
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def change_status(connection, delivery: str, status: str, event_type: str) -> str:
    with transaction(connection) as cursor:
        cursor.execute(
            "INSERT INTO deliveries (id, status) VALUES (%s, %s) AS new ON DUPLICATE KEY UPDATE status = new.status",
            (delivery, status),
        )
        event_id = publish(cursor, delivery, event_type, {"delivery": delivery, "status": status})
        if status == "lost":
            raise ValueError("a delivery is never lost")  # neither the row nor the event remains
    return event_id
# ANCHOR_END: business


def main() -> None:
    connection = pymysql.connect(
        host=os.environ["DB_HOST"],
        port=int(os.environ["DB_PORT"]),
        user=os.environ["DB_USER"],
        password=os.environ["DB_PASSWORD"],
        database="delivery",
    )
    for number in range(1, 21):
        delivery = f"python-{number}"
        print(change_status(connection, delivery, "created", "DeliveryCreated"))
        print(change_status(connection, delivery, "picked_up", "DeliveryPickedUp"))
        try:
            change_status(connection, delivery, "lost", "DeliveryLost")
        except ValueError:
            pass
        print(change_status(connection, delivery, "completed", "DeliveryCompleted"))
    connection.close()


if __name__ == "__main__":
    main()
