//! What the log says again and again.
//!
//! Promise: the same of the same is written a few times, then now and then, and how often it was not written is said; whatever
//! is said for the first time, and every change by hand, is always written. What is remembered is bounded.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// How often the same is written at once.
const BURST: u32 = 10;

/// After that, once in such a time.
const PACE: Duration = Duration::from_secs(10);

/// How often it is said what was not written.
const SUMMARY: Duration = Duration::from_secs(30);

/// How many different ones are told apart. More are written as they come.
const MOST: usize = 1024;

/// Said in other words each time; without its numbers it is the same.
const WORDS: [&str; 5] = ["message", "error", "reason", "detail", "refusal"];

/// Another one each time.
const PLACE: &str = "position";

/// A line of the code, and the hash of what it says, without what changes from one time to the next.
type Same = (Identifier, u64);

/// How often the same may be written, and was not.
#[derive(Debug)]
struct Allowance {
    left: u32,
    /// When the last of it was given back.
    at: Instant,
    event: String,
    about: String,
    unwritten: u64,
}

impl Allowance {
    fn take(&mut self, now: Instant) -> bool {
        let given_back = u32::try_from(now.duration_since(self.at).as_millis() / PACE.as_millis()).unwrap_or(BURST);
        if given_back > 0 {
            self.left = self.left.saturating_add(given_back).min(BURST);
            self.at = now;
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        self.unwritten += u64::from(!may);
        may
    }

    fn is_whole(&self, now: Instant) -> bool {
        self.unwritten == 0 && now.duration_since(self.at) > PACE * BURST
    }
}

/// How often something was not written.
#[derive(Debug, PartialEq, Eq)]
struct Unwritten {
    event: String,
    about: String,
    times: u64,
}

#[derive(Debug, Default)]
struct Known(Mutex<HashMap<Same, Allowance>>);

impl Known {
    /// Whether this is to be written.
    fn admits(&self, same: Same, seen: &Seen, now: Instant) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() == MOST && !known.contains_key(&same) {
            known.retain(|_, allowance| !allowance.is_whole(now));
            if known.len() == MOST {
                return true;
            }
        }
        let new =
            || Allowance { left: BURST, at: now, event: seen.event.clone(), about: seen.about.clone(), unwritten: 0 };
        known.entry(same).or_insert_with(new).take(now)
    }

    /// What was not written since this was asked.
    fn unwritten(&self) -> Vec<Unwritten> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let unwritten = known.values_mut().filter(|allowance| allowance.unwritten > 0);
        let taken = |all: &mut Allowance| Unwritten {
            event: all.event.clone(),
            about: all.about.clone(),
            times: std::mem::take(&mut all.unwritten),
        };
        unwritten.map(taken).collect()
    }
}

/// A layer that passes on to another what is not a mere repeat.
pub(super) struct Sparing<L> {
    lines: L,
    known: Arc<Known>,
    summing_up: Once,
}

impl<L> Sparing<L> {
    pub(super) fn new(lines: L) -> Self {
        Self { lines, known: Arc::default(), summing_up: Once::new() }
    }

    fn admits(&self, event: &Event<'_>) -> bool {
        if !may_be_spared(event.metadata()) {
            return true;
        }
        let mut seen = Seen::default();
        event.record(&mut seen);
        let same = (event.metadata().callsite(), seen.words.finish());
        let admits = self.known.admits(same, &seen, Instant::now());
        if !admits {
            self.summing_up.call_once(|| sum_up(Arc::clone(&self.known)));
        }
        admits
    }
}

/// Whoever looks closer than usual wants all of it.
fn may_be_spared(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO && metadata.target() != "outboxd::audit"
}

/// Says from time to time what was not written, for as long as the process lives.
fn sum_up(known: Arc<Known>) {
    let summing = move || {
        loop {
            std::thread::sleep(SUMMARY);
            for Unwritten { event, about, times } in known.unwritten() {
                tracing::info!(event, about, times, "repeats_not_written");
            }
        }
    };
    // Without it, the repeats are not counted, and still few.
    let _ = std::thread::Builder::new().name("log".to_owned()).spawn(summing);
}

impl<S: Subscriber, L: Layer<S>> Layer<S> for Sparing<L> {
    fn on_register_dispatch(&self, subscriber: &tracing::Dispatch) {
        self.lines.on_register_dispatch(subscriber);
    }

    fn on_layer(&mut self, subscriber: &mut S) {
        self.lines.on_layer(subscriber);
    }

    fn on_new_span(&self, attrs: &tracing::span::Attributes<'_>, id: &tracing::span::Id, ctx: Context<'_, S>) {
        self.lines.on_new_span(attrs, id, ctx);
    }

    fn on_record(&self, id: &tracing::span::Id, values: &tracing::span::Record<'_>, ctx: Context<'_, S>) {
        self.lines.on_record(id, values, ctx);
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        if self.admits(event) {
            self.lines.on_event(event, ctx);
        }
    }
}

/// What an event says.
#[derive(Default)]
struct Seen {
    words: DefaultHasher,
    event: String,
    about: String,
}

impl Visit for Seen {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            PLACE => return,
            "message" => value.clone_into(&mut self.event),
            "table" | "topic" | "server" => value.clone_into(&mut self.about),
            _ => {}
        }
        field.name().hash(&mut self.words);
        if WORDS.contains(&field.name()) {
            value.bytes().filter(|byte| !byte.is_ascii_digit()).for_each(|byte| byte.hash(&mut self.words));
        } else {
            value.hash(&mut self.words);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() != PLACE {
            self.record_str(field, &format!("{value:?}"));
        }
    }

    // Numbers say how often or how much.
    fn record_i64(&mut self, _: &Field, _: i64) {}
    fn record_u64(&mut self, _: &Field, _: u64) {}
    fn record_i128(&mut self, _: &Field, _: i128) {}
    fn record_u128(&mut self, _: &Field, _: u128) {}
    fn record_f64(&mut self, _: &Field, _: f64) {}
}

#[cfg(test)]
mod tests {
    use tracing::subscriber::with_default;
    use tracing::{debug, info, warn};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Lines {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut seen = Seen::default();
            event.record(&mut seen);
            self.0.lock().unwrap().push(format!("{} {}", seen.event, seen.about));
        }
    }

    /// How often what was written, and what was not.
    fn written(say: impl FnOnce()) -> (HashMap<String, usize>, Vec<Unwritten>) {
        let lines = Lines::default();
        let sparing = Sparing::new(lines.clone());
        let known = Arc::clone(&sparing.known);
        with_default(tracing_subscriber::registry().with(sparing), say);
        let mut counts = HashMap::new();
        for line in lines.0.lock().unwrap().drain(..) {
            *counts.entry(line).or_default() += 1;
        }
        (counts, known.unwritten())
    }

    #[test]
    fn the_same_of_the_same_is_written_a_few_times_and_counted() {
        let (counts, unwritten) = written(|| {
            for attempt in 0..50_u64 {
                let (position, reason) = (format!("gtid=1-{attempt}"), format!("no answer after {attempt} ms"));
                for table in ["d.a", "d.b"] {
                    warn!(table, position, reason, attempt, "log_unavailable");
                }
                warn!(target: "librdkafka", "broker 1 down after {attempt} ms");
            }
        });
        let burst = usize::try_from(BURST).unwrap();
        assert_eq!((counts["log_unavailable d.a"], counts["log_unavailable d.b"]), (burst, burst));
        assert_eq!(counts.values().sum::<usize>(), 3 * burst, "{counts:?}");
        assert_eq!(unwritten.iter().map(|all| all.times).sum::<u64>(), 3 * (50 - u64::from(BURST)));
        let of_a = Unwritten { event: "log_unavailable".to_owned(), about: "d.a".to_owned(), times: 40 };
        assert!(unwritten.contains(&of_a), "{unwritten:?}");
    }

    #[test]
    fn what_differs_is_always_written_and_so_are_changes_by_hand_and_details() {
        let (counts, unwritten) = written(|| {
            for number in 0..50 {
                warn!(table = "d.t", event = format!("id-{number}"), "aggregate_parked");
                info!(target: "outboxd::audit", action = "pause", table = "d.t", "audit");
                debug!("details");
            }
        });
        assert_eq!((counts["aggregate_parked d.t"], counts["audit d.t"], counts["details "]), (50, 50, 50));
        assert!(unwritten.is_empty());
    }

    #[test]
    fn what_was_said_often_is_said_again_later() {
        let start = Instant::now();
        let mut allowance =
            Allowance { left: BURST, at: start, event: String::new(), about: String::new(), unwritten: 0 };
        let first = (0..100).filter(|_| allowance.take(start)).count();
        let after = |seconds: u64, allowance: &mut Allowance| {
            (0..100).filter(|_| allowance.take(start + Duration::from_secs(seconds))).count()
        };
        assert_eq!((first, after(9, &mut allowance), after(10, &mut allowance)), (10, 0, 1));
        assert_eq!((after(31, &mut allowance), after(3600, &mut allowance)), (2, 10));
    }

    #[test]
    fn more_than_can_be_told_apart_is_written() {
        let known = Known::default();
        let now = Instant::now();
        let callsite = tracing::callsite::Identifier(&CALLSITE);
        let admitted =
            (0..MOST as u64 + 5).filter(|hash| known.admits((callsite.clone(), *hash), &Seen::default(), now));
        assert_eq!(admitted.count(), MOST + 5);
        assert!((0..50).all(|_| known.admits((callsite.clone(), u64::MAX), &Seen::default(), now)));
        let later = now + PACE * (BURST + 1);
        assert!(known.admits((callsite.clone(), u64::MAX), &Seen::default(), later));
        assert_eq!(known.0.lock().unwrap().len(), 1, "what was not said for long is forgotten");
    }

    struct Nowhere;
    static CALLSITE: Nowhere = Nowhere;

    impl tracing::Callsite for Nowhere {
        fn set_interest(&self, _: tracing::subscriber::Interest) {}
        fn metadata(&self) -> &Metadata<'_> {
            unreachable!("nobody asks")
        }
    }
}
