//! The report: what each section has found last, kept in files, so that sections can be run one after another.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::figures::{HEAD, table};
use crate::outboxd;
use crate::plot::draw;
use crate::sections::{Outcome, Scale, Section};
use crate::stage::{PARTITIONS, ROOT};

/// What a section has found, and when.
#[derive(Serialize, Deserialize)]
struct Kept {
    when: String,
    commit: String,
    machine: String,
    outcome: Outcome,
}

/// Where results are kept, and the page with its pictures is written.
pub(crate) struct Report {
    results: PathBuf,
    page: PathBuf,
    pictures: PathBuf,
    runs: usize,
}

impl Report {
    /// The page of a full run is part of the documentation; that of a quick one, or of another program, is not.
    pub(crate) fn new(quick: bool, runs: usize) -> Self {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or(Path::new(ROOT).join("target"), PathBuf::from);
        let kind = match (outboxd::other(), quick) {
            (Some(_), _) => "other",
            (None, true) => "quick",
            (None, false) => "full",
        };
        let docs = if kind == "full" { Path::new(ROOT).join("docs") } else { target.join("benchmarks").join(kind) };
        let (results, pictures) = (docs.join("benchmarks/results"), docs.join("benchmarks"));
        fs::create_dir_all(&results).unwrap();
        Self { results, page: docs.join("benchmarks.md"), pictures, runs }
    }

    pub(crate) fn keep(&self, section: Section, outcome: Outcome) {
        let kept = Kept {
            when: Timestamp::now().strftime("%F").to_string(),
            commit: said("git", &["rev-parse", "--short", "HEAD"]),
            machine: machine(),
            outcome,
        };
        fs::write(self.file(section), serde_json::to_string(&kept).unwrap() + "\n").unwrap();
    }

    fn file(&self, section: Section) -> PathBuf {
        self.results.join(format!("{}.json", section.name()))
    }

    fn kept(&self) -> Vec<(Section, Kept)> {
        let read = |section: &Section| {
            let text = fs::read_to_string(self.file(*section)).ok()?;
            Some((*section, serde_json::from_str(&text).unwrap()))
        };
        Section::value_variants().iter().filter_map(read).collect()
    }

    /// Prints every figure of these sections in one table, and says whether every bar is reached.
    #[allow(clippy::print_stdout, reason = "this is what it is run for")]
    pub(crate) fn print(&self, sections: &[Section]) -> bool {
        let kept: Vec<_> = self.kept().into_iter().filter(|(section, _)| sections.contains(section)).collect();
        let figures = || kept.iter().flat_map(|(_, kept)| &kept.outcome.figures);
        println!("{}", table(figures()));
        figures().all(|figure| figure.verdict() != Some(false))
    }

    /// Writes the page, with everything that was measured up to now.
    pub(crate) fn write(&self, mysql: &str) {
        let mut page = self.head(mysql);
        for (section, Kept { when, commit, machine, outcome }) in self.kept() {
            let _ = write!(page, "\n## {}\n\n", section.title());
            let _ = writeln!(page, "| {} |\n|---|---|---|---|---|", HEAD.join(" | "));
            for figure in &outcome.figures {
                let _ = writeln!(page, "| {} |", figure.cells().join(" | "));
            }
            for plot in &outcome.plots {
                draw(plot, &self.pictures).unwrap();
                let _ = write!(page, "\n![{}](benchmarks/{}.svg)\n", plot.title, plot.name);
            }
            let name = section.name();
            let measured = format!(
                "Measured {when} at commit {commit} on {machine}: [every run](benchmarks/results/{name}.json). \
                 `make bench ARGS=\"--only {name}\"` measures it again."
            );
            let notes: Vec<_> = outcome.notes.into_iter().chain([measured]).collect();
            let _ = writeln!(page, "\n{}", notes.join(" "));
        }
        fs::write(&self.page, page).unwrap();
    }

    fn head(&self, mysql: &str) -> String {
        format!(
            "# Benchmarks

`make bench` measures all of this on the machine that it runs on, with servers that it starts, and writes this page; `make bench-quick` takes
some three minutes and leaves the page alone. Others' figures come out of the same runs, each after the other in every round, with nothing else running.
Ratios are made within a round; figures are the median of {runs} rounds unless said otherwise, with the least and the most. Every topic is read
back: a benchmark fails that misses an event, or finds one out of order.

## How it is measured

- Everyone relays the same rows of the same log into fresh topics of {PARTITIONS} partitions, with lz4, acks=all and an idempotent producer. Rows have an id, three short
  texts and a nested JSON document with ids, coordinates, items, a trace and a note; each differs. Records have the key, the value, the timestamp
  and the headers `id` and `eventType`.
- What has arrived is asked of the broker every 20 ms; the consumer that checks comes afterwards, and is the same for all. Steady throughput is that of the
  second half, from a broker that has worked for {warm} s before the first round: until then its virtual machine compiles, on up to a quarter of two cores. CPU is user and system time of the process, from its start, by the events.
- outboxd runs with its defaults, for throughput and for latency alike; it is only told {settings}. Nobody encrypts.
- Debezium runs on Kafka Connect, standalone, with the settings in benches/relay/debezium, on a JVM with `-Xms2g -Xmx2g -XX:+UseParallelGC`. It begins behind a row of
  each table, by which a connector finds its place.
- librdkafka alone has all records in memory, as outboxd has published them, and sends them again with the daemon's properties. Of one producer, four, and one with
  `linger.ms=5`, the best counts each time. It and the bare loop allocate with glibc, the daemon with jemalloc.
- A bare loop reads the log by this package's own source and gives each row to one producer with `linger.ms=0`: no position, no acknowledgement, no limit.
- MySQL writes its log without waiting for the disk (`sync_binlog=0`, `innodb_flush_log_at_trx_commit=2`). Kafka is one broker with the options of its own start script
  ({jvm}). Both run on the same machine, as do writers and consumers while latency is measured.

| | |
|---|---|
| outboxd | {outboxd}, {build} |
| librdkafka | {librdkafka} |
| Debezium | {debezium} |
| Kafka | {kafka} |
| MySQL | {mysql} |
| Java | {java} |
",
            runs = self.runs,
            warm = Scale::full().warm.as_secs(),
            settings = outboxd::SETTINGS,
            jvm = std::env::var(crate::KAFKA_JVM).unwrap_or_default(),
            outboxd = outboxd::version(),
            build = if outboxd::by_profile() {
                "as it is released: compiled by [a profile of itself](performance.md#the-compiler)"
            } else {
                "release profile"
            },
            librdkafka = rdkafka::util::get_rdkafka_version().1,
            debezium = installed("debezium-3.5"),
            kafka = installed("kafka-4.1"),
            java = said("java", &["-version"]).lines().next().unwrap_or_default(),
        )
    }
}

fn installed(name: &str) -> String {
    let folder = std::env::var_os("OUTBOXD_SERVICES_DIR").map_or(Path::new(ROOT).join(".services"), PathBuf::from);
    fs::read_to_string(folder.join(name).join("VERSION")).unwrap_or_default().trim().to_owned()
}

/// What a program says, on either way out.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(ROOT).output();
    output.map_or_else(
        |_| String::new(),
        |output| {
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
                .trim()
                .to_owned()
        },
    )
}

fn machine() -> String {
    let read = |path: &str, name: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':'));
        line.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kib: u64 = read("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
    let kernel = said("uname", &["-sr"]);
    format!("{cores} cores of {}, {} GiB, {kernel}", read("/proc/cpuinfo", "model name"), kib >> 20)
}
