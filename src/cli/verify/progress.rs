//! How far it is: a bar on a terminal, a line for each step elsewhere.

use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::say;
use crate::daemon::verify::Progress;
use crate::terminal::text::harmless;

/// Shows progress on standard error.
pub(super) struct Shown {
    step: Mutex<Step>,
    terminal: bool,
}

struct Step {
    what: String,
    done: u64,
    bar: ProgressBar,
}

impl Shown {
    pub(super) fn new() -> Self {
        let step = Step { what: String::new(), done: 0, bar: ProgressBar::hidden() };
        Self { step: Mutex::new(step), terminal: std::io::stderr().is_terminal() }
    }

    fn step(&self) -> MutexGuard<'_, Step> {
        self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the terminal as it was.
    pub(super) fn end(&self) {
        let mut step = self.step();
        step.bar.finish_and_clear();
        step.what.clear();
    }
}

impl Progress for Shown {
    fn begin(&self, what: &str, total: u64) {
        // It names tables.
        let what = &*harmless(what);
        let mut step = self.step();
        step.bar.finish_and_clear();
        (step.what, step.done) = (what.to_owned(), 0);
        if !self.terminal {
            say(&format!("reading {what}, about {total}"));
            return;
        }
        step.bar = ProgressBar::new(total.max(1)).with_message(what.to_owned());
        let style = ProgressStyle::with_template("{msg:30!} {wide_bar} {percent:>3} %  {per_sec}, {eta} left");
        if let Ok(style) = style {
            step.bar.set_style(style);
        }
        step.bar.enable_steady_tick(Duration::from_millis(250));
    }

    fn reach(&self, done: u64) {
        let mut step = self.step();
        step.done = done;
        // What was said in advance is a guess.
        if step.bar.length().is_some_and(|length| length < done) {
            step.bar.set_length(done);
        }
        step.bar.set_position(done);
    }
}
