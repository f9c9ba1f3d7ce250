//! Measuring how a relay works off what is there.

use std::time::{Duration, Instant};

use crate::process::{Cpu, Running};

/// How often is looked.
const EVERY: Duration = Duration::from_millis(20);

/// A look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    /// Seconds since the process was started.
    pub(crate) at: f64,
    /// Records that had arrived.
    pub(crate) events: f64,
    pub(crate) cpu: Cpu,
    /// Bytes of memory.
    pub(crate) memory: f64,
}

/// From the start of a process to the last event.
#[derive(Debug, Clone)]
pub(crate) struct Drain {
    pub(crate) points: Vec<Point>,
    /// The most bytes of memory.
    pub(crate) peak: f64,
    events: f64,
}

/// Looks on until so many events have arrived; panics when nothing more comes for long, or when the program ends.
#[allow(clippy::cast_precision_loss, reason = "counts and bytes far below 2^52")]
pub(crate) fn watch(running: &mut Running, events: u64, mut count: impl FnMut() -> u64) -> Drain {
    let patience = Duration::from_mins(3);
    let (mut points, mut last, mut heard) = (Vec::new(), 0, Instant::now());
    loop {
        running.must_run();
        let arrived = count();
        let at = running.started.elapsed().as_secs_f64();
        points.push(Point { at, events: arrived as f64, cpu: running.cpu(), memory: running.resident() as f64 });
        if arrived >= events {
            return Drain { points, peak: running.peak() as f64, events: events as f64 };
        }
        if arrived > last {
            (last, heard) = (arrived, Instant::now());
        } else if heard.elapsed() > patience {
            running.fail(&format!("{arrived} of {events} events have arrived, and nothing more for {patience:?}"));
        }
        std::thread::sleep(EVERY);
    }
}

impl Drain {
    fn last(&self) -> Point {
        *self.points.last().unwrap()
    }

    /// Seconds from the start of the process to the last event.
    pub(crate) fn whole(&self) -> f64 {
        self.last().at
    }

    /// Seconds from the start of the process to the first event.
    pub(crate) fn first(&self) -> f64 {
        self.points.iter().find(|point| point.events > 0.0).map_or(0.0, |point| point.at)
    }

    /// The last look at which no more than a share of the events had arrived.
    fn at_share(&self, share: f64) -> Point {
        let arrived = |point: &&Point| point.events <= self.events * share;
        *self.points.iter().rev().find(arrived).unwrap_or(&self.points[0])
    }

    /// Events a second between two shares of the events.
    pub(crate) fn rate_between(&self, from: f64, to: f64) -> f64 {
        let (begin, end) = (self.at_share(from), if to >= 1.0 { self.last() } else { self.at_share(to) });
        (end.events - begin.events) / (end.at - begin.at).max(1e-3)
    }

    /// Events a second of the second half, when everything is warm.
    pub(crate) fn steady(&self) -> f64 {
        self.rate_between(0.5, 1.0)
    }

    /// Microseconds of processor an event, with the start of the process.
    pub(crate) fn cpu_each(&self) -> Cpu {
        let used = self.last().cpu;
        Cpu { user: used.user * 1e6 / self.events, system: used.system * 1e6 / self.events }
    }

    /// The same of the second half.
    pub(crate) fn steady_cpu_each(&self) -> f64 {
        let begin = self.at_share(0.5);
        self.last().cpu.since(begin.cpu).total() * 1e6 / (self.events - begin.events).max(1.0)
    }

    /// Events a second over time.
    pub(crate) fn throughput(&self) -> Vec<(f64, f64)> {
        let step = (self.whole() / 40.0).max(0.1);
        let mut rates = vec![(0.0, 0.0)];
        let mut begin = self.points[0];
        for point in &self.points {
            if point.at - begin.at >= step {
                rates.push((point.at, (point.events - begin.events) / (point.at - begin.at)));
                begin = *point;
            }
        }
        rates
    }

    /// MiB of memory over time.
    pub(crate) fn memory(&self) -> Vec<(f64, f64)> {
        let every = self.points.len().div_ceil(200);
        self.points.iter().step_by(every).map(|point| (point.at, point.memory / 1_048_576.0)).collect()
    }
}
