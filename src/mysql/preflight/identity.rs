//! Who we are to the server, and whether its clock is ours.

use std::time::Duration;

use mysql_async::{Conn, Error};
use tokio::time::{Instant, sleep};

use super::facts::{Facts, Replica, replicas};
use super::{ServerId, Store};
use crate::preflight::{Check, Name};

/// How long the server may take to notice that a replica is dead: it has to fail at sending it something twice.
const NOTICED_WITHIN: Duration = Duration::from_secs(15);

/// From here on lag, which compares the server's clock with ours, is worth little.
const MOST_SKEW: Duration = Duration::from_secs(1);

fn ours(replicas: Option<&[Replica]>, id: u32) -> Option<&Replica> {
    replicas?.iter().find(|replica| replica.server_id == id)
}

/// A daemon that was killed stays registered until the server notices: waits for that, unless a daemon is alive.
pub(super) async fn outwait_the_dead(
    conn: &mut Conn,
    facts: &mut Facts,
    server_id: ServerId,
    store: Option<&Store>,
) -> Result<(), Error> {
    let deadline = Instant::now() + NOTICED_WITHIN;
    while !server_id.is_shown
        && ours(facts.replicas.as_deref(), server_id.id).is_some()
        && store.is_some_and(|store| !store.is_owned)
        && Instant::now() < deadline
    {
        sleep(Duration::from_millis(500)).await;
        facts.replicas = replicas(conn, facts.flavor).await?;
    }
    Ok(())
}

pub(super) fn check(facts: &Facts, server_id: ServerId, store: Option<&Store>) -> [Check; 2] {
    [id(facts, server_id, store.is_some_and(|store| store.is_owned)), clock(facts)]
}

/// Two replicas with one id end each other's connection again and again.
fn id(facts: &Facts, ServerId { id, configured, is_shown }: ServerId, owned: bool) -> Check {
    let check = |found: String| {
        Check::passed(Name::ServerId, "mysql.server_id", "an id that neither the server nor a replica of it has", found)
    };
    let cure = "set mysql.server_id to another number, or leave it out for a random one";
    if facts.variable("server_id") == Some(&id.to_string()) {
        return check(format!("{id}, the server's own")).failed(cure);
    }
    if let Some(Replica { host, .. }) = ours(facts.replicas.as_deref(), id).filter(|_| !is_shown) {
        let host = if host.is_empty() { "an unnamed host" } else { host };
        return if owned {
            check(format!(
                "{id}, in use by a replica on {host}; a daemon relays these tables already, it may be that one"
            ))
            .warned("nothing if it is; otherwise set mysql.server_id to another number")
        } else {
            check(format!("{id}, in use by a replica on {host}")).failed(cure)
        };
    }
    let how = if configured { "configured" } else { "random" };
    match &facts.replicas {
        Some(replicas) => check(format!("{id} ({how}), not among {} replicas", replicas.len())),
        None if configured => check(format!("{id}; the replicas cannot be listed")).warned(format!(
            "leave mysql.server_id out for a random one, or GRANT {} ON *.* TO {}",
            if facts.flavor.mariadb { "REPLICATION MASTER ADMIN" } else { "REPLICATION SLAVE" },
            facts.account
        )),
        None => check(format!("{id} (random); the replicas cannot be listed")),
    }
}

fn clock(facts: &Facts) -> Check {
    let ahead = Duration::from_micros(facts.skew.ahead_micros.unsigned_abs());
    let direction = if facts.skew.ahead_micros < 0 { "behind" } else { "ahead" };
    let found = format!(
        "{:.3} s {direction}, give or take {:.3} s",
        ahead.as_secs_f64(),
        facts.skew.give_or_take.as_secs_f64()
    );
    Check::passed(Name::Clock, "the server's clock", "within 1 s of this machine's, for lag is their difference", found)
        .or_warned(
            ahead.saturating_sub(facts.skew.give_or_take) <= MOST_SKEW,
            "synchronise both machines' clocks (NTP); until then the lag metric is wrong by as much",
        )
}
