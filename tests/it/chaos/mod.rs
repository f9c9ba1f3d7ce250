//! The campaign: whole daemons on real servers, under faults drawn at random, judged by the history checker.
//!
//! `make chaos` plays rounds for `CHAOS_SECONDS`, from `CHAOS_SEED` on, in both guarantees in turns or in
//! `CHAOS_GUARANTEE`. A round that fails prints its seed and what happened when; `CHAOS_SEED=… CHAOS_SECONDS=1` plays the
//! same faults again.
//!
//! Each round asks after R1, R4, R6 and R7 of the whole history, after R3 of every position that is seen, after R5 of the
//! daemon's memory, and after R4 of the number of duplicates: none exactly once, and otherwise what each start may repeat.

mod clock;
mod faults;
mod round;
mod summary;

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use fastrand::Rng;
use futures::FutureExt;
use outboxd::planted::Bug;

use self::round::{Plan, Round};
use self::summary::Summary;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// Plays one round to its end; a violation is a panic.
async fn play(plan: Plan) -> Summary {
    Round::begin(plan).await.play().await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make chaos: ten minutes and more"]
async fn campaign() {
    let seconds = number("CHAOS_SECONDS").unwrap_or(600);
    let first = number("CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    let guarantee = std::env::var("CHAOS_GUARANTEE").ok();
    let wanted = guarantee.as_deref().map(|name| match name {
        "at_least_once" => false,
        "exactly_once" => true,
        other => panic!("CHAOS_GUARANTEE={other}: expected at_least_once or exactly_once"),
    });
    let begun = Instant::now();
    let mut summary = Summary::default();
    for seed in first.. {
        if begun.elapsed() >= Duration::from_secs(seconds) {
            break;
        }
        let plan = Plan::of(seed, wanted);
        eprintln!("CHAOS_SEED={seed} {plan}");
        summary.add(play(plan).await);
        eprintln!("{}", summary.line());
    }
    eprintln!("{}", summary.table());
    if let Ok(path) = std::env::var("CHAOS_REPORT") {
        std::fs::write(path, summary.page(first, begun.elapsed())).unwrap();
    }
}

/// One round of each guarantee, so that the campaign is known to work.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_round_of_each_guarantee() {
    let first = crate::stage::seed();
    for exactly_once in [false, true] {
        play(Plan { faults: 3, ..Plan::of(first, Some(exactly_once)) }).await;
    }
}

/// Bugs that a campaign over one server without replicas can meet; the others are the simulation's.
const FINDABLE: &[Bug] = &[
    Bug::SavedBeforeAck,
    Bug::RetryReorders,
    Bug::WindowOffByOne,
    Bug::RowOffsetForgotten,
    Bug::DetachDropsBatch,
    Bug::SnapshotSkipped,
];

/// Each planted bug is found by some round; `CHAOS_BUG` names one.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "make chaos-bugs: minutes for each"]
async fn every_planted_bug_is_found() {
    let wanted = std::env::var("CHAOS_BUG").ok().map(|name| Bug::from_str(&name, false).unwrap());
    let mut rng = Rng::with_seed(crate::stage::seed());
    for &bug in FINDABLE.iter().filter(|bug| wanted.is_none_or(|wanted| wanted == **bug)) {
        let mut rounds = 0;
        loop {
            rounds += 1;
            assert!(rounds <= 12, "{bug:?} is not found");
            // Where the position goes with the records, what it is taken from cannot be too far.
            let exactly_once = Some(matches!(bug, Bug::RowOffsetForgotten));
            let plan = Plan::of(rng.u64(..1 << 32), exactly_once);
            let snapshot = plan.snapshot || matches!(bug, Bug::SnapshotSkipped);
            let plan = Plan { bug: Some(bug), snapshot, ..plan };
            match AssertUnwindSafe(play(plan)).catch_unwind().await {
                Ok(summary) => eprintln!("{bug:?}, round {rounds}: {plan}: {}", summary.line()),
                Err(panic) => {
                    let what = panic.downcast_ref::<String>().map_or("a panic", String::as_str);
                    eprintln!("{bug:?} is found in round {rounds}: {what}");
                    break;
                }
            }
        }
    }
}
