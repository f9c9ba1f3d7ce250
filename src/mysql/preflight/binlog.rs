//! How the server writes its log.

use super::Wanted;
use super::facts::{Column, Facts, Table};
use crate::preflight::{Check, Name};

/// Below this a weekend's outage of Kafka may outlive the log.
const KEPT_SECONDS: f64 = 86_400.0;

pub(super) fn check(facts: &Facts, wanted: &[Wanted]) -> Vec<Check> {
    let mut checks = vec![version(facts), log_bin(facts)];
    if facts.variable("log_bin") == Some("ON") {
        checks.extend([format(facts), row_image(facts, wanted), row_metadata(facts), expiry(facts)]);
        checks.extend(filters(facts, wanted));
        checks.extend(replica_updates(facts));
        checks.extend(replica_commit_order(facts));
        checks.extend(gtid_mode(facts));
        checks.extend(gtid_strict_mode(facts));
    }
    checks
}

/// How a global variable is set for good.
fn set(facts: &Facts, name: &str, value: &str) -> String {
    if facts.flavor.mariadb || facts.flavor.version < (8, 0, 0) {
        format!("SET GLOBAL {name} = {value}; and the same in the server's configuration")
    } else {
        format!("SET PERSIST {name} = {value}")
    }
}

/// The same for one that open sessions keep.
fn set_for_sessions(facts: &Facts, name: &str, value: &str) -> String {
    format!("{}; then let applications reconnect", set(facts, name, value))
}

fn version(facts: &Facts) -> Check {
    let (mariadb, version) = (facts.flavor.mariadb, facts.flavor.version);
    let found = format!("{} {}.{}.{}", if mariadb { "MariaDB" } else { "MySQL" }, version.0, version.1, version.2);
    let known = version >= if mariadb { (10, 5, 2) } else { (8, 0, 0) };
    let cure = "upgrade the server; nothing is known to work with this version";
    Check::passed(Name::Version, "version", "MySQL 8.0 or MariaDB 10.5.2, or later", found).or_warned(known, cure)
}

fn log_bin(facts: &Facts) -> Check {
    let found = facts.variable("log_bin").unwrap_or("unset");
    let cure = "start the server with log_bin and a server_id in its configuration";
    Check::passed(Name::LogBin, "log_bin", "ON", found).or_failed(found == "ON", cure)
}

fn format(facts: &Facts) -> Check {
    // Servers that know ROW only have no such variable any more.
    let found = facts.variable("binlog_format").unwrap_or("ROW, the only one");
    Check::passed(Name::BinlogFormat, "binlog_format", "ROW", found)
        .or_failed(found.starts_with("ROW"), set_for_sessions(facts, "binlog_format", "'ROW'"))
}

/// FULL images have every column. The others leave out what an INSERT leaves out, NOBLOB only of the large types; such a
/// row cannot be relayed.
fn row_image(facts: &Facts, wanted: &[Wanted]) -> Check {
    let found = facts.variable("binlog_row_image").unwrap_or("FULL, the only one");
    let check = |found: String| Check::passed(Name::BinlogRowImage, "binlog_row_image", "FULL", found);
    if found.starts_with("FULL") {
        return check(found.to_owned());
    }
    let cure = set_for_sessions(facts, "binlog_row_image", "'FULL'");
    let left_out = |column: &&Column| {
        let large = ["blob", "text", "json", "geometry", "vector"].iter().any(|kind| column.kind.contains(kind));
        (column.nullable || column.has_default || column.generated) && (found != "NOBLOB" || large)
    };
    let example = read_columns(facts, wanted).find(|(_, column)| left_out(column));
    match example {
        Some((table, column)) => check(format!(
            "{found}, under which an INSERT that leaves out `{}` of {} halts the table",
            column.name, table.name
        ))
        .failed(cure),
        None => check(format!("{found}, which is enough as long as every INSERT names all columns")).warned(cure),
    }
}

/// The columns that are read, of all tables that are there.
pub(super) fn read_columns<'a>(
    facts: &'a Facts,
    wanted: &'a [Wanted],
) -> impl Iterator<Item = (&'a Table, &'a Column)> {
    wanted.iter().zip(&facts.tables).flat_map(|(wanted, table)| {
        let read = |column: &&Column| wanted.columns.iter().any(|read| read.name.eq_ignore_ascii_case(&column.name));
        table.columns.iter().filter(read).map(move |column| (table, column))
    })
}

/// Without names in the log, columns are matched by their place in the table as it is now. That they stood otherwise when
/// a row was written cannot always be told: RENAME TABLE leaves a table's age as it is, and an ALTER counts from its start.
fn row_metadata(facts: &Facts) -> Check {
    const UNTIL: &str = "until then do not reorder or rename columns of an outbox table, nor swap it or alter it \
                         online while it is behind; FULL has the names in the log";
    let found = facts.variable("binlog_row_metadata").unwrap_or("MINIMAL, the only one");
    let check = Check::passed(Name::BinlogRowMetadata, "binlog_row_metadata", "FULL", found);
    if facts.variable("binlog_row_metadata").is_none() {
        return check.warned(format!("upgrade the server; {UNTIL}"));
    }
    let cure = set(facts, "binlog_row_metadata", "'FULL'");
    check.or_warned(found == "FULL", format!("{cure}; {UNTIL}"))
}

fn expiry(facts: &Facts) -> Check {
    let number = |name| facts.variable(name).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    let seconds = match number("binlog_expire_logs_seconds") {
        0.0 => number("expire_logs_days") * KEPT_SECONDS,
        seconds => seconds,
    };
    let setting = match facts.variable("binlog_expire_logs_seconds") {
        Some(_) => "binlog_expire_logs_seconds",
        None => "expire_logs_days",
    };
    let never = seconds == 0.0 || facts.variable("binlog_expire_logs_auto_purge") == Some("OFF");
    let found = if never {
        "never purged by age".to_owned()
    } else {
        humantime::format_duration(std::time::Duration::from_secs_f64(seconds)).to_string()
    };
    let value = if setting == "expire_logs_days" { "7" } else { "604800" };
    Check::passed(Name::BinlogExpiry, setting, "a day or more, so that an outage does not outlive the log", found)
        .or_warned(never || seconds >= KEPT_SECONDS, set(facts, setting, value))
}

/// A schema that is not logged would be lost in silence.
fn filters(facts: &Facts, wanted: &[Wanted]) -> Option<Check> {
    let (only, not) = facts.filters.as_ref()?;
    let has = |list: &str, schema: &str| list.split(',').any(|one| one.trim().eq_ignore_ascii_case(schema));
    let lost = |schema: &str| !only.is_empty() && !has(only, schema) || has(not, schema);
    let missing = wanted.iter().map(|wanted| wanted.table.schema()).find(|schema| lost(schema));
    let found = match (only.as_str(), not.as_str()) {
        ("", "") => "every schema is logged".to_owned(),
        ("", not) => format!("all but {not} are logged"),
        (only, _) => format!("only {only} is logged"),
    };
    let cure = format!(
        "take binlog_do_db and binlog_ignore_db so out of the server's configuration that `{}` is logged",
        missing.unwrap_or_default()
    );
    let expected = "the schemas of all outbox tables are logged";
    let check = Check::passed(Name::BinlogFilters, "binlog_do_db, binlog_ignore_db", expected, found);
    Some(check.or_failed(missing.is_none(), cure))
}

/// Whether the server replicates from another; one that does not tell is taken for a replica if it is read-only.
fn is_replica(facts: &Facts) -> bool {
    let read_only = facts.variable("read_only").is_some_and(|value| !matches!(value, "OFF" | "0"));
    facts.is_replica.unwrap_or(read_only)
}

/// A replica that does not log what it replicates has none of the source's events.
fn replica_updates(facts: &Facts) -> Option<Check> {
    if !is_replica(facts) {
        return None;
    }
    let setting =
        if facts.variable("log_replica_updates").is_some() { "log_replica_updates" } else { "log_slave_updates" };
    let found = facts.variable(setting).unwrap_or("unset");
    let cure = format!("start the server with {setting} in its configuration, or read from its source (mysql.url)");
    let check = Check::passed(Name::ReplicaUpdates, setting, "ON, for this server is a replica", found);
    Some(check.or_failed(found == "ON", cure))
}

/// Several workers that commit as they come leave a log in which transactions have changed places, and with them events
/// of one aggregate. Those of one schema are applied by one worker where the type is DATABASE. `MariaDB` keeps the order
/// within a domain in every mode.
fn replica_commit_order(facts: &Facts) -> Option<Check> {
    if facts.flavor.mariadb || !is_replica(facts) {
        return None;
    }
    let is_new = facts.variable("replica_preserve_commit_order").is_some();
    let (prefix, word) = if is_new { ("replica", "REPLICA") } else { ("slave", "SLAVE") };
    let setting = format!("{prefix}_preserve_commit_order");
    let value = facts.variable(&setting).unwrap_or("unset");
    let workers = facts.variable(&format!("{prefix}_parallel_workers")).and_then(|text| text.parse().ok());
    let workers: u32 = workers.unwrap_or_default();
    let by_schema = facts.variable(&format!("{prefix}_parallel_type")) == Some("DATABASE");
    let of_type = if by_schema { ", each of them for its own schemas" } else { "" };
    let cure = set(facts, &setting, &format!("ON; START {word} SQL_THREAD"));
    let expected = "ON, for this server is a replica; or one worker";
    let found = format!("{value}, with {prefix}_parallel_workers = {workers}{of_type}");
    let check = Check::passed(Name::ReplicaCommitOrder, setting, expected, found);
    Some(check.or_failed(value == "ON" || workers <= 1 || by_schema, format!("STOP {word} SQL_THREAD; {cure}")))
}

/// Files and offsets are those of one server: after a failover they mean nothing. MariaDB has GTIDs always.
fn gtid_mode(facts: &Facts) -> Option<Check> {
    if facts.flavor.mariadb {
        return None;
    }
    let found = facts.variable("gtid_mode").unwrap_or("OFF");
    let cure = "SET PERSIST enforce_gtid_consistency = ON; SET PERSIST gtid_mode = OFF_PERMISSIVE; SET PERSIST gtid_mode = \
                ON_PERMISSIVE; SET PERSIST gtid_mode = ON; until then positions are files and offsets, which another server \
                does not understand after a failover";
    Some(Check::passed(Name::GtidMode, "gtid_mode", "ON", found).or_warned(found == "ON", cure))
}

/// Without it, a transaction may come behind one of its domain with a higher number; a position, which is a number for
/// each domain, cannot tell that it is not relayed.
fn gtid_strict_mode(facts: &Facts) -> Option<Check> {
    if !facts.flavor.mariadb {
        return None;
    }
    let found = facts.variable("gtid_strict_mode").unwrap_or("OFF");
    let cure = format!(
        "{}; until then a transaction whose number is not above that of its domain halts every table",
        set(facts, "gtid_strict_mode", "ON")
    );
    Some(Check::passed(Name::GtidStrictMode, "gtid_strict_mode", "ON", found).or_warned(found == "ON", cure))
}
