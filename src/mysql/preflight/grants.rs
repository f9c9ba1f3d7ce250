//! What the account may do on the whole server. Roles count when they are active as soon as one is connected.

use super::facts::Facts;
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
    summed_up(Name::Grants, "grants on *.*", &format!("REPLICATION SLAVE and {client}"), checks)
}
