//! How fast the relay is, beside what else does its job, on real servers that this program starts.
//!
//! `make bench` runs everything and writes [docs/benchmarks.md](../../docs/benchmarks.md); `make bench-quick` runs a little of
//! everything. Every topic is read back: a benchmark that loses an event, or finds one out of order, fails.
//!
//! ```text
//! sections: what is measured        stage: MySQL, Kafka; workload: the rows
//!    |                                 |
//!    +-- drain, latency ---------------+-- topic: what has arrived, and whether it is right
//!    |
//!    +-- outboxd, debezium, alone (librdkafka), direct (a bare loop), raw (the log): who is measured
//!    +-- figures, plot, report
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a benchmark fails by panicking and says how far it is"
)]

mod alone;
mod debezium;
mod direct;
mod drain;
mod figures;
mod latency;
mod outboxd;
mod plot;
mod process;
mod raw;
mod report;
mod sections;
mod stage;
mod topic;
mod workload;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand, ValueEnum};

use self::alone::Alone;
use self::direct::Direct;
use self::report::Report;
use self::sections::{Bench, Rival, Scale, Section};
use self::stage::{Database, Kafka};

/// The environment's name of what `scripts/services` starts Kafka's JVM with.
const KAFKA_JVM: &str = "OUTBOXD_KAFKA_JVM";

/// What Kafka's own start script gives it.
const KAFKA_JVM_OPTIONS: &str =
    "-Xms1g -Xmx1g -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:InitiatingHeapOccupancyPercent=35";

#[derive(Parser)]
#[command(
    about = "Measures outboxd beside Debezium and librdkafka alone, on servers that it starts",
    after_help = "OUTBOXD_PROGRAM=PATH in the environment: another build of it is measured. What it brings is printed, and kept \
                  apart from the documentation."
)]
struct Arguments {
    /// A little of everything
    #[arg(long)]
    quick: bool,
    /// Only these sections
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Section>,
    /// How often each is measured [default: 5; quick: 1]
    #[arg(long)]
    runs: Option<usize>,
    /// Events of the long backlog [default: 10,000,000; quick: 200,000]
    #[arg(long)]
    backlog: Option<u64>,
    /// Leave Debezium out
    #[arg(long)]
    no_debezium: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What runs in a process of its own.
#[derive(Subcommand)]
enum Part {
    #[command(hide = true)]
    Alone(Alone),
    #[command(hide = true)]
    Direct(Direct),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let parts = tokio::runtime::Runtime::new().unwrap();
    match &arguments.part {
        Some(Part::Alone(alone)) => {
            alone::part(alone);
            return ExitCode::SUCCESS;
        }
        Some(Part::Direct(direct)) => {
            parts.block_on(direct::part(direct));
            return ExitCode::SUCCESS;
        }
        None => {}
    }
    if std::env::var_os(KAFKA_JVM).is_none() {
        // The script that starts Kafka reads it, and environments are not to be changed within a process.
        let this = std::env::current_exe().unwrap();
        panic!("{}", Command::new(this).args(std::env::args_os().skip(1)).env(KAFKA_JVM, KAFKA_JVM_OPTIONS).exec());
    }
    parts.block_on(measure(&arguments))
}

async fn measure(arguments: &Arguments) -> ExitCode {
    let mut scale = if arguments.quick { Scale::quick() } else { Scale::full() };
    scale.runs = arguments.runs.unwrap_or(scale.runs);
    if arguments.no_debezium {
        scale.debezium = Rival::Nowhere;
    }
    scale.backlog = arguments.backlog.unwrap_or(scale.backlog);
    let report = Report::new(arguments.quick, scale.runs);
    let all = Section::value_variants();
    let sections = if arguments.only.is_empty() { all } else { &arguments.only[..] };
    let mysql = Database::start(1).await.version().await;
    let folder = tempfile::Builder::new().prefix("outboxd-bench.").tempdir().unwrap();
    let bench = Bench { scale, kafka: Kafka::start(), folder, warm: Default::default() };
    for section in sections {
        eprintln!("{}", section.title());
        report.keep(*section, sections::run(*section, &bench).await);
        report.write(&mysql);
    }
    // A missed bar is a figure; only what is lost or out of order is a failure.
    if !report.print(sections) {
        eprintln!("Not every bar is reached.");
    }
    ExitCode::SUCCESS
}
