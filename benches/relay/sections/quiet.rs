//! A daemon that has nothing to do, and its first event after a start.

use std::time::{Duration, Instant};

use super::{Bench, Loaded, Outcome};
use crate::figures::Figure;
use crate::outboxd::Daemon;
use crate::topic::{Ends, check};
use crate::workload::Workload;

pub(crate) async fn run(bench: &Bench) -> Outcome {
    let loaded = Loaded::new(Workload { rows: 1, ..Workload::of(4) }).await;
    let (mut first, mut share, mut fastest, mut woken) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut note = String::new();
    for run in 0..bench.scale.runs {
        let topic = bench.kafka.topic().await;
        let ends = Ends::of(&bench.kafka.address(), &topic);
        ends.count();
        let place = (&loaded.database, &bench.kafka);
        let mut daemon = Daemon::spawn(place, (&loaded.from, 4, &topic), (bench.path(), false)).await;
        while ends.count() == 0 {
            daemon.running.must_run();
            // Asking takes its share of the machine.
            std::thread::sleep(Duration::from_millis(5));
        }
        first.push(daemon.running.started.elapsed().as_secs_f64() * 1e3);
        daemon.running.until("all events arrive", Duration::from_mins(1), |_| ends.count() >= 4);
        daemon.ready();
        if run < 3 {
            let (busy, most, all, thread) = idle(&daemon, bench.scale.idle);
            share.push(busy * 100.0);
            fastest.push(most);
            woken.push(all);
            note = format!("The thread that wakes most often is `{thread}`.");
        }
        daemon.running.stop();
        check(&bench.kafka.address(), &topic, &loaded.expected(false));
        bench.kafka.delete(&topic).await;
    }
    let figures = vec![
        Figure::new("process start to the first event in Kafka", "ms", first).at_most(150.0),
        Figure::new("idle, 4 tables: of a core", "%", share).at_most(0.2),
        Figure::new("idle, 4 tables: wake-ups of the busiest thread", "Hz", fastest).at_most(10.0),
        Figure::new("idle, 4 tables: wake-ups of all threads", "Hz", woken),
    ];
    Outcome { figures, plots: Vec::new(), notes: vec![note] }
}

/// The share of a core, how often the busiest thread wakes up in a second, how often all do, and the name of that thread.
#[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn idle(daemon: &Daemon, duration: Duration) -> (f64, f64, f64, String) {
    // What a start leaves to be done.
    std::thread::sleep(Duration::from_secs(2));
    let (before, begin) = (daemon.running.threads(), Instant::now());
    std::thread::sleep(duration);
    let (after, seconds) = (daemon.running.threads(), begin.elapsed().as_secs_f64());
    let pairs = after.iter().filter_map(|after| Some((after, before.iter().find(|before| before.id == after.id)?)));
    let used: Vec<_> =
        pairs.map(|(after, before)| (after.waits - before.waits, after.nanos - before.nanos, &after.name)).collect();
    let most = used.iter().max_by_key(|(waits, ..)| *waits);
    let nanos: u64 = used.iter().map(|(_, nanos, _)| nanos).sum();
    let waits: u64 = used.iter().map(|(waits, ..)| waits).sum();
    let (fastest, name) = most.map_or((0, String::new()), |(waits, _, name)| (*waits, (*name).clone()));
    (nanos as f64 / 1e9 / seconds, fastest as f64 / seconds, waits as f64 / seconds, name)
}
