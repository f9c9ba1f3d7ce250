//! One workload, worked off by everyone in turn, as often as there are runs.

use crate::alone::{self, Alone, Taken};
use crate::debezium::{Debezium, Layout, Profile};
use crate::drain::{Drain, watch};
use crate::stage::Database;
use crate::topic::{Ends, check};
use crate::workload::Workload;

use super::{Bench, Loaded};

/// What each took, run by run.
#[derive(Default)]
pub(crate) struct Race {
    pub(crate) outboxd: Vec<Drain>,
    /// The best of the ways, by throughput, and by processor.
    pub(crate) alone_rate: Vec<f64>,
    pub(crate) alone_cpu: Vec<f64>,
    /// Debezium, one connector for each table.
    pub(crate) each: Vec<Drain>,
    /// Debezium, one connector for all tables.
    pub(crate) one: Vec<Drain>,
    /// The mean length of a value, in bytes.
    pub(crate) value: f64,
    pub(crate) notes: Vec<String>,
}

/// With Debezium in these layouts.
pub(crate) async fn race(bench: &Bench, workload: Workload, layouts: &[Layout]) -> Race {
    let mut database = Database::start(workload.tables).await;
    let mut connectors = Vec::new();
    for &layout in layouts {
        let place = (&mut database, &bench.kafka);
        connectors.push(Debezium::settle(place, (workload.tables, layout), (Profile::Tuned, bench.path())).await);
    }
    let loaded = Loaded::into(database, workload).await;
    loaded.warm_up(bench, false).await;
    let mut race = Race::default();
    for run in 0..bench.scale.runs {
        eprintln!("  run {} of {}", run + 1, bench.scale.runs);
        let (drain, topic, found) = loaded.drain(bench, false, false).await;
        race.outboxd.push(drain);
        race.value = found.value;
        if run == 0 {
            race.notes.push(format!("Values are {:.0} bytes long on the average.", found.value));
        }
        let mut ways: Vec<Taken> = Vec::new();
        for way in bench.scale.alone {
            ways.push(alone(bench, &loaded, &topic, *way).await);
        }
        race.alone_rate.push(ways.iter().map(Taken::rate).fold(0.0, f64::max));
        race.alone_cpu.push(ways.iter().map(Taken::cpu_each).fold(f64::INFINITY, f64::min));
        bench.kafka.delete(&topic).await;
        for (layout, debezium) in layouts.iter().zip(&connectors) {
            let (drain, duplicates) = connect(bench, &loaded, debezium).await;
            if duplicates > 0 {
                race.notes.push(format!("Debezium repeated {duplicates} events in run {}.", run + 1));
            }
            match layout {
                Layout::Each => race.each.push(drain),
                Layout::One => race.one.push(drain),
            }
        }
    }
    race
}

async fn alone(bench: &Bench, loaded: &Loaded, source: &str, (producers, linger): (usize, u32)) -> Taken {
    let target = bench.kafka.topic().await;
    let (kafka, source) = (bench.kafka.address(), source.to_owned());
    let taken = alone::run(&Alone { kafka, source, target: target.clone(), producers, linger });
    check(&bench.kafka.address(), &target, &loaded.expected(false));
    bench.kafka.delete(&target).await;
    taken
}

async fn connect(bench: &Bench, loaded: &Loaded, debezium: &Debezium) -> (Drain, u64) {
    let topic = bench.kafka.topic().await;
    debezium.go_back();
    let mut running = debezium.spawn(&loaded.database, &bench.kafka, &topic);
    let ends = Ends::of(&bench.kafka.address(), &topic);
    // Rows by which another layout learned its place may come first.
    let (expected, others) = (loaded.expected(false), debezium.events_before(&loaded.from));
    let drain = watch(&mut running, expected.count() + others, || ends.count());
    drop(running);
    let found = check(&bench.kafka.address(), &topic, &expected);
    bench.kafka.delete(&topic).await;
    (drain, found.duplicates)
}
