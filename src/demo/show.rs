//! What the audience sees: on a terminal one live table, without one plain lines.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::DemoError;
use crate::admin::pages::TableStatus;
use crate::history::Progress;
use crate::status::Line;
use crate::status::client::Client;
use crate::status::layout::{self, Layout};
use crate::status::rates::Rates;
use crate::terminal::text::{count, lag};
use crate::terminal::{self, Screen};

const TICK: Duration = Duration::from_millis(250);

/// How many ticks lie between two plain lines.
const PLAIN_TICKS: u32 = 4;

/// Over how long events per second are counted.
const WINDOW: Duration = Duration::from_secs(2);

/// What the show is about at the moment.
pub(super) struct Show {
    started: Instant,
    stop: CancellationToken,
    screen: Option<Screen>,
    client: Option<Client>,
    rates: Rates,
    lines: Vec<Line>,
    progress: Arc<Progress>,
    /// What a relay is that does not answer.
    silent: &'static str,
    ticks: u32,
}

impl Show {
    /// A show that `stop` ends.
    pub(super) fn new(stop: CancellationToken) -> Self {
        Self {
            started: Instant::now(),
            stop,
            screen: Screen::open(),
            client: None,
            rates: Rates::new(WINDOW),
            lines: Vec::new(),
            progress: Arc::default(),
            silent: "starting",
            ticks: 0,
        }
    }

    /// From now on the daemon at this address and these writers are shown.
    pub(super) fn watch(&mut self, address: &str, progress: Arc<Progress>) {
        self.client = Some(Client::new(address, TICK));
        self.progress = progress;
    }

    /// What relays are called while the daemon does not answer.
    pub(super) fn call_silence(&mut self, state: &'static str) {
        self.silent = state;
    }

    /// Shows what goes on until the work is done, or the show is stopped.
    pub(super) async fn during<T>(
        &mut self,
        what: &str,
        work: impl Future<Output = Result<T, DemoError>>,
    ) -> Result<T, DemoError> {
        let stop = self.stop.clone();
        if self.screen.is_none() {
            self.say(what)?;
        }
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(DemoError::Interrupted),
                done = &mut work => return done,
                _ = ticks.tick() => {}
            }
            // The work goes on while the daemon is asked.
            tokio::select! {
                () = stop.cancelled() => return Err(DemoError::Interrupted),
                done = &mut work => return done,
                () = self.look() => self.draw(what)?,
            }
        }
    }

    /// A line that stays.
    pub(super) fn say(&mut self, what: &str) -> io::Result<()> {
        let line = format!("{}  {what}", clock(self.started.elapsed()));
        match &mut self.screen {
            Some(screen) => screen.say(&line, terminal::size()),
            None => plain(&line),
        }
    }

    /// Draws the last frame, which stays, and gives the cursor back. What is written after it is plain.
    pub(super) fn end(&mut self, what: &str) -> io::Result<()> {
        match self.screen {
            Some(_) => self.frame(what)?,
            None => self.say(what)?,
        }
        self.screen = None;
        Ok(())
    }

    /// Asks the daemon; one that is silent has no figures of now, but its positions are still those.
    async fn look(&mut self) {
        let Some(client) = &self.client else { return };
        match client.tables().await {
            Ok(tables) => {
                let at = self.started.elapsed();
                let line = |status: TableStatus| {
                    let rate = self.rates.look(&status, at);
                    let line = Line::of_daemon(status, rate);
                    Line { events: Some(rate.total), in_flight: None, ..line }
                };
                self.lines = tables.into_iter().map(line).collect();
            }
            Err(_) => {
                for line in &mut self.lines {
                    self.silent.clone_into(&mut line.state);
                    (line.events_per_second, line.lag_seconds) = (None, None);
                }
            }
        }
    }

    fn draw(&mut self, what: &str) -> io::Result<()> {
        self.ticks += 1;
        if self.screen.is_some() {
            return self.frame(what);
        }
        if self.lines.is_empty() || !self.ticks.is_multiple_of(PLAIN_TICKS) {
            return Ok(());
        }
        let line = summary(&self.lines);
        let said = format!("{line}; {}", written(&self.progress));
        self.say(&said)
    }

    fn frame(&mut self, what: &str) -> io::Result<()> {
        let size = terminal::size();
        let mut frame = vec![String::new(), format!("{}  {what}", clock(self.started.elapsed())), String::new()];
        if !self.lines.is_empty() {
            let layout = Layout {
                width: Some(size.0),
                colour: terminal::colour(),
                now: Timestamp::now(),
                zone: TimeZone::system(),
            };
            frame.extend(layout::table(&self.lines, &layout));
            frame.extend([String::new(), format!(" {}", written(&self.progress))]);
        }
        match &mut self.screen {
            Some(screen) => screen.draw(frame, size),
            None => Ok(()),
        }
    }
}

/// A line on standard output, at once.
pub(super) fn plain(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Minutes and seconds: `01:05`.
pub(super) fn clock(elapsed: Duration) -> String {
    format!("{:02}:{:02}", elapsed.as_secs() / 60, elapsed.as_secs() % 60)
}

/// All tables in one line.
pub(super) fn summary(lines: &[Line]) -> String {
    let mut states: Vec<(&str, usize)> = Vec::new();
    for line in lines {
        match states.iter_mut().find(|(state, _)| *state == line.state) {
            Some((_, tables)) => *tables += 1,
            None => states.push((&line.state, 1)),
        }
    }
    let states: Vec<_> = states.into_iter().map(|(state, tables)| format!("{tables} {state}")).collect();
    let acknowledged: u64 = lines.iter().filter_map(|line| line.events).sum();
    let rates: Option<Vec<f64>> = lines.iter().map(|line| line.events_per_second).collect();
    let lags: Option<Vec<f64>> = lines.iter().map(|line| line.lag_seconds).collect();
    let rates = rates.map(|rates| format!(", {:.0} a second", rates.iter().sum::<f64>())).unwrap_or_default();
    let lags = lags.map(|lags| format!("; lag {}", lag(lags.into_iter().fold(0.0, f64::max)))).unwrap_or_default();
    format!("{}; {} events acknowledged{rates}{lags}", states.join(", "), count(acknowledged))
}

fn written(progress: &Progress) -> String {
    format!(
        "committed {} transactions, {} events; rolled back {}",
        count(progress.committed()),
        count(progress.events()),
        count(progress.rolled_back())
    )
}
