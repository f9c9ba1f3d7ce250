//! What has happened lately: the log's own events, the latest of them kept in memory for the status page.
//!
//! Promise: what is kept is bounded, whatever happens how often; the same happening again is counted, not kept twice; and
//! nothing is here that the log does not say too, at `info` or above, so there are neither payloads nor secrets.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::relay::stats::now_micros;

/// How many are kept.
const KEPT: usize = 200;

/// How far back the same happening is looked for.
const RECENT: usize = 16;

/// Longer values are cut, in characters.
const LONGEST: usize = 600;

/// Said often, and shown elsewhere.
const ELSEWHERE: [&str; 3] = ["admin_listening", "snapshot_progress", "topic_found"];

/// Something that the log says has happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happening {
    /// Its number since the process began.
    pub id: u64,
    /// When it happened last, microseconds since the Unix epoch.
    pub at_micros: u64,
    /// How often it has happened in a row.
    pub times: u64,
    /// `info`, `warn` or `error`.
    pub level: String,
    /// The event's stable name.
    pub event: String,
    /// The table that it is about, if it is about one.
    pub table: Option<String>,
    /// What the log says besides, by name.
    pub fields: BTreeMap<String, String>,
}

/// A happening, and the number of the latest change to it.
type Kept = (u64, Happening);

#[derive(Debug, Default)]
struct Ring {
    kept: VecDeque<Kept>,
    changes: u64,
    happened: u64,
}

/// The latest happenings of this process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Happenings(Arc<Mutex<Ring>>);

impl Happenings {
    /// What has changed after the change of this number, oldest first, and the number of the latest change.
    pub fn after(&self, change: u64) -> (Vec<Happening>, u64) {
        let ring = self.lock();
        let changed = ring.kept.iter().filter(|(changed, _)| *changed > change);
        (changed.map(|(_, happening)| happening.clone()).collect(), ring.changes)
    }

    /// The part of the log that takes them down.
    pub fn layer<S: Subscriber>(&self) -> impl Layer<S> + use<S> {
        Recorder(self.clone())
    }

    fn note(&self, level: Level, seen: Seen, at_micros: u64) {
        let Seen { event, table, fields } = seen;
        let is_name = !event.is_empty() && event.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if !is_name || ELSEWHERE.contains(&event.as_str()) {
            return;
        }
        let mut ring = self.lock();
        ring.changes += 1;
        let change = ring.changes;
        let same = |(_, kept): &&mut Kept| kept.event == event && kept.table == table && kept.fields == fields;
        if let Some((changed, again)) = ring.kept.iter_mut().rev().take(RECENT).find(same) {
            (*changed, again.at_micros, again.times) = (change, at_micros, again.times + 1);
            return;
        }
        if ring.kept.len() == KEPT {
            ring.kept.pop_front();
        }
        ring.happened += 1;
        let level = level.as_str().to_ascii_lowercase();
        let happening = Happening { id: ring.happened, at_micros, times: 1, level, event, table, fields };
        ring.kept.push_back((change, happening));
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_ours(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO && metadata.target().starts_with("outboxd::")
}

struct Recorder(Happenings);

impl<S: Subscriber> Layer<S> for Recorder {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if is_ours(event.metadata()) {
            let mut seen = Seen::default();
            event.record(&mut seen);
            self.0.note(*event.metadata().level(), seen, now_micros());
        }
    }
}

/// What an event has.
#[derive(Debug, Default)]
struct Seen {
    event: String,
    table: Option<String>,
    fields: BTreeMap<String, String>,
}

impl Visit for Seen {
    fn record_str(&mut self, field: &Field, value: &str) {
        let value: String = value.chars().take(LONGEST).collect();
        match field.name() {
            "message" => self.event = value,
            "table" => self.table = Some(value),
            // Whoever may read this page need not know from where others ask.
            "peer" => {}
            name => {
                self.fields.insert(name.to_owned(), value);
            }
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn told(say: impl FnOnce()) -> (Happenings, Vec<Happening>) {
        let happenings = Happenings::default();
        let log = tracing_subscriber::registry().with(happenings.layer());
        tracing::subscriber::with_default(log, say);
        let all = happenings.after(0).0;
        (happenings, all)
    }

    #[test]
    fn what_the_log_says_is_kept_and_what_is_no_happening_is_not() {
        let (_, all) = told(|| {
            let by = Some("ann");
            tracing::info!(target: "outboxd::audit", action = "pause", table = "d.t", ?by, peer = "10.0.0.7", "audit");
            tracing::warn!(reason = "gone", "log_unavailable");
            tracing::debug!("of_no_interest");
            tracing::info!("words for people");
            tracing::info!("snapshot_progress");
            tracing::error!(target: "librdkafka", "elsewhere");
        });
        assert_eq!(all.iter().map(|one| one.event.as_str()).collect::<Vec<_>>(), ["audit", "log_unavailable"]);
        assert_eq!(
            (all[0].table.as_deref(), all[0].level.as_str(), all[1].level.as_str()),
            (Some("d.t"), "info", "warn")
        );
        assert_eq!(all[0].fields.keys().collect::<Vec<_>>(), ["action", "by"], "and not from where");
    }

    #[test]
    fn the_same_again_is_counted_and_told_again() {
        let say = |reason: &'static str| tracing::warn!(reason, "log_unavailable");
        let (happenings, all) = told(|| ["a", "b", "a", "a"].into_iter().for_each(say));
        assert_eq!(all.iter().map(|one| (one.id, one.times)).collect::<Vec<_>>(), [(1, 3), (2, 1)]);
        let (later, change) = happenings.after(2);
        assert_eq!((later.len(), later[0].id, change), (1, 1, 4), "the one that has happened again since");
        assert!(happenings.after(change).0.is_empty());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (_, all) = told(|| {
            for number in 0..1_000 {
                tracing::warn!(number, detail = "x".repeat(10_000), "log_unavailable");
            }
        });
        assert_eq!((all.len(), all[0].id, all[0].fields["detail"].len()), (KEPT, 801, LONGEST));
    }
}
