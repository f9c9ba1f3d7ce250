//! What the account may do on the whole server. Roles count when they are active as soon as one is connected.

use super::facts::Facts;
use crate::mysql::history::RECEIVED;
use crate::preflight::{Check, Name, summed_up};

pub(super) fn check(facts: &Facts) -> Vec<Check> {
    let has = |names: &[&str]| {
        let given = |name: &String| name == "ALL PRIVILEGES" || names.contains(&name.as_str());
        facts.privileges.iter().any(given)
    };
    let client = if facts.flavor.mariadb { "BINLOG MONITOR" } else { "REPLICATION CLIENT" };
    let privileges = [
        ("REPLICATION SLAVE", has(&["REPLICATION SLAVE", "REPLICATION REPLICA"])),
        (client, has(&["REPLICATION CLIENT", "BINLOG MONITOR", "SUPER"])),
    ];
    let one = |(name, granted): (&str, bool)| {
        let cure = format!(
            "GRANT {name} ON *.* TO {}; a role that has it must be a default role of the account",
            facts.account
        );
        Check::passed(
            Name::Grants,
            format!("grant {name}"),
            "granted on *.*",
            if granted { "granted" } else { "not granted" },
        )
        .or_failed(granted, cure)
    };
    let checks = privileges.into_iter().map(one).collect();
    let mut checks = summed_up(Name::Grants, "grants on *.*", &format!("REPLICATION SLAVE and {client}"), checks);
    checks.extend(facts.unreceived.as_ref().map(|refusal| {
        let expected = "granted, as the server is of a replication group";
        let cure = format!(
            "GRANT SELECT ON {RECEIVED} TO {}; without it, what a new primary has yet to apply is taken for lost, and \
             published again",
            facts.account
        );
        Check::passed(Name::Grants, format!("grant SELECT on {RECEIVED}"), expected, &refusal.message).warned(cure)
    }));
    checks
}
