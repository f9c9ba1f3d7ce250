//! Instructions of the parts of what one event costs, counted by valgrind: other load on the machine does not change them.
//!
//! `make instructions` compares with the counts in `benches/instructions/counts.json`, and fails where a part has become more
//! than 5 % dearer; `make instructions ARGS=--write` writes the counts anew, which belongs into the change that makes the
//! difference. Another compiler may count a little differently: the file says which it was.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark fails by panicking and prints its figures")]

#[path = "../micro/parts.rs"]
mod parts;

use std::collections::BTreeMap;
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};
use comfy_table::{Table, presets};
use serde::{Deserialize, Serialize};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions/counts.json");

/// How much dearer a part may become.
const TOLERANCE: f64 = 0.05;

/// Runs over all events that the difference is taken of; what comes before and after them is the same for both.
const FEW: u32 = 2;
const MANY: u32 = 12;

#[derive(Parser)]
struct Arguments {
    /// Write the counts anew
    #[arg(long)]
    write: bool,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// What valgrind looks at.
    #[command(hide = true)]
    Part { name: String, runs: u32 },
}

/// Instructions for one event.
#[derive(Debug, Serialize, Deserialize)]
struct Counts {
    compiler: String,
    instructions: BTreeMap<String, f64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Part::Part { name, runs }) = arguments.part {
        let (_, mut run) = parts::all().into_iter().find(|(part, _)| *part == name).unwrap();
        (0..runs).for_each(|_| run());
        return ExitCode::SUCCESS;
    }
    let names: Vec<_> = parts::all().into_iter().map(|(name, _)| name).collect();
    // Two at a time: it is the waiting that takes long, and the counts do not mind.
    let counted: BTreeMap<_, _> = std::thread::scope(|scope| {
        let halves = names.chunks(names.len().div_ceil(2));
        let threads: Vec<_> = halves
            .map(|half| scope.spawn(|| half.iter().map(|name| ((*name).to_owned(), each(name))).collect::<Vec<_>>()))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let now = Counts { compiler: compiler(), instructions: counted };
    if arguments.write {
        std::fs::write(FILE, format!("{}\n", serde_json::to_string_pretty(&now).unwrap())).unwrap();
        println!("wrote {FILE}");
        return ExitCode::SUCCESS;
    }
    compare(&serde_json::from_str(&std::fs::read_to_string(FILE).unwrap()).unwrap(), &now)
}

fn compare(before: &Counts, now: &Counts) -> ExitCode {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(["instructions for one event", "committed", "now", ""]);
    let mut dearer = Vec::new();
    for (name, count) in &now.instructions {
        let committed = before.instructions.get(name);
        let change = committed.map(|committed| count / committed - 1.0);
        let told = change.map_or("not committed".to_owned(), |change| format!("{:+.1} %", change * 100.0));
        table.add_row([
            name.clone(),
            committed.map(|count| format!("{count:.0}")).unwrap_or_default(),
            format!("{count:.0}"),
            told,
        ]);
        if change.is_none_or(|change| change > TOLERANCE) {
            dearer.push(name.as_str());
        }
    }
    println!("{table}");
    if dearer.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("more than {:.0} % dearer than committed: {}", TOLERANCE * 100.0, dearer.join(", "));
    println!("if that is meant: make instructions ARGS=--write, and say in the commit what it buys");
    if before.compiler != now.compiler {
        println!("the counts were made by {}, this is {}", before.compiler, now.compiler);
    }
    ExitCode::FAILURE
}

/// Instructions of a part for one event.
fn each(part: &str) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    let difference = (count(part, MANY) - count(part, FEW)) as f64;
    (difference / f64::from((MANY - FEW) * parts::EVENTS) * 10.0).round() / 10.0
}

/// Instructions of a process that runs a part so often.
fn count(part: &str, runs: u32) -> u64 {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(std::env::current_exe().unwrap());
    let output = valgrind.args(["part", part, &runs.to_string()]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")).unwrap().1;
    collected.trim().parse().unwrap()
}

fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
