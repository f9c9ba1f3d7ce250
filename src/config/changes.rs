//! What differs between two configurations, and what of it a running daemon can take over.
//!
//! Promise: nothing that differs is passed over, secrets included, which are not shown.

use std::collections::BTreeMap;

use figment::value::Value;
use serde::{Deserialize, Serialize};

use super::unknown::may_hide;
use super::{Loaded, shown};

/// A key whose value is another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChange {
    /// The key, levels separated by dots.
    pub key: String,
    /// As it was, as TOML writes it; `***` for a secret, `unset` for nothing.
    pub before: String,
    /// As it is now.
    pub after: String,
    /// Whether it counts from the next start on only.
    pub needs_restart: bool,
}

impl std::fmt::Display for KeyChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} -> {}", self.key, self.before, self.after)
    }
}

/// Whether a running daemon takes a new value of this key over.
pub fn is_live<S: AsRef<str>>(path: &[S]) -> bool {
    match path.iter().map(AsRef::as_ref).collect::<Vec<_>>()[..] {
        ["outbox" | "cleanup", ..] | ["log", "level"] | ["mysql", "purge_warning"] => true,
        ["relay", key] => [
            "in_flight_bytes",
            "catch_up_readers",
            "snapshot_readers",
            "max_unsaved_events",
            "checkpoint_interval",
            "idle_checkpoint_interval",
            "shutdown_grace",
        ]
        .contains(&key),
        ["delivery", key] => !["guarantee", "transactional_id", "transaction_timeout"].contains(&key),
        _ => false,
    }
}

impl Loaded {
    /// Every key that has another value in `next`.
    pub fn changes(&self, next: &Self) -> Vec<KeyChange> {
        let (old, new) = (self.leaves(), next.leaves());
        let (old, new): (BTreeMap<_, _>, BTreeMap<_, _>) = (old.into_iter().collect(), new.into_iter().collect());
        let mut paths: Vec<&Vec<String>> = old.keys().chain(new.keys()).collect();
        paths.sort();
        paths.dedup();
        let text = |value: Option<&Value>| value.map_or_else(|| "unset".to_owned(), shown);
        let change = |path: &Vec<String>| {
            let (before, after) = (text(old.get(path)), text(new.get(path)));
            let other_secret = may_hide(path) && self.tree.get(path) != next.tree.get(path);
            let differs = before != after || other_secret;
            differs.then(|| KeyChange { key: path.join("."), before, after, needs_restart: !is_live(path) })
        };
        paths.into_iter().filter_map(change).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Options, load};

    fn loaded(sets: &[&str]) -> Loaded {
        let usual = ["mysql.url=mysql://u@h", "kafka.bootstrap_servers=h:1", "outbox.0.tables=d.t", "outbox.0.topic=t"];
        let sets = usual.iter().chain(sets).map(ToString::to_string).collect();
        load(&Options { sets, ..Options::default() }).unwrap()
    }

    fn changes(before: &[&str], after: &[&str]) -> Vec<String> {
        let changes = loaded(before).changes(&loaded(after));
        let said = |change: KeyChange| format!("{change}{}", if change.needs_restart { " (restart)" } else { "" });
        changes.into_iter().map(said).collect()
    }

    #[test]
    fn what_differs_is_told_with_whether_it_needs_a_restart() {
        assert_eq!(changes(&[], &[]), [""; 0]);
        assert_eq!(changes(&["relay.retry_max=30s"], &["relay.retry_max=30000ms"]), [""; 0], "the same value");
        assert_eq!(
            changes(
                &[],
                &["relay.max_unsaved_events=7", "relay.batch_bytes=1KiB", "log.level=debug", "cleanup.interval=1h"]
            ),
            [
                "cleanup.interval: \"1m\" -> \"1h\"",
                "log.level: \"info\" -> \"debug\"",
                "relay.batch_bytes: \"256 KiB\" -> \"1 KiB\" (restart)",
                "relay.max_unsaved_events: 50000 -> 7",
            ]
        );
        let more = changes(&[], &["outbox.1.tables=d.t2", "outbox.1.topic=t2"]);
        assert!(more.contains(&"outbox.1.topic: unset -> \"t2\"".to_owned()), "{more:?}");
        assert!(more.iter().all(|change| change.starts_with("outbox.1.")), "{more:?}");
    }

    #[test]
    fn another_secret_is_noticed_and_not_shown() {
        assert_eq!(
            changes(&["mysql.password=one"], &["mysql.password=two"]),
            ["mysql.password: \"***\" -> \"***\" (restart)"]
        );
        let property = |text| format!("kafka.properties.sasl.password={text}");
        let told = changes(&[&property("one")], &[&property("two")]);
        assert_eq!(told.len(), 1);
        assert!(!told[0].contains("one") && !told[0].contains("two"), "{told:?}");
        let told = changes(&["positions.url=mysql://u:one@h"], &["positions.url=mysql://u:two@h"]);
        assert!(told.len() == 1 && !told[0].contains("two") && told[0].ends_with("(restart)"), "{told:?}");
    }
}
