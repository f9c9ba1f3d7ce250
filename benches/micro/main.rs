//! Times of the parts of what one event costs: `cargo bench --bench micro`, or one by its name behind `--`. Where the machine
//! is busy with others, instructions say more: `make instructions`.
//! [docs/performance.md](../../docs/performance.md) has the figures.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

mod parts;

use criterion::{Criterion, Throughput};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("100 events");
    group.throughput(Throughput::Elements(parts::EVENTS.into()));
    for (name, mut run) in parts::all().into_iter().chain([parts::others()]) {
        group.bench_function(name, |bencher| bencher.iter(&mut run));
    }
    group.finish();
    criterion.final_summary();
}
