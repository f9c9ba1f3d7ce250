//! `outboxd status`: what every relay is doing.
//!
//! Promise: the running daemon is asked first; what the position store says instead is never shown as if it were the
//! daemon's word.

use std::io::IsTerminal;
use std::time::Duration;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use tokio::signal::unix::SignalKind;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::whereabouts::Whereabouts;
use super::{code, say, show_on, signals};
use crate::admin::pages::TableStatus;
use crate::admin::settings::AdminSettings;
use crate::config::{Config, ConfigErrors, Loaded};
use crate::daemon::DaemonError;
use crate::daemon::behind::{Counted, behind};
use crate::daemon::store::Store;
use crate::position::{PositionStore, Saved};
use crate::relay::stats::{now_micros, seconds_since};
use crate::status::Line;
use crate::status::client::Client;
use crate::status::layout::{self, Layout};
use crate::status::rates::Rates;
use crate::terminal::{self, Screen};

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long the log may be read for what is in it, and how long that is good for.
const COUNTING: Duration = Duration::from_secs(5);
const RECENT: Duration = Duration::from_secs(30);

/// Over how long events per second are counted.
const WINDOW: Duration = Duration::from_secs(5);

#[derive(Args)]
pub(super) struct StatusArguments {
    /// Ask every second until Ctrl-C; on a terminal, the table is redrawn in place
    #[arg(short, long)]
    watch: bool,
    /// A table for people, or JSON for programs (with --watch one object a line)
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    whereabouts: Whereabouts,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Table,
    Json,
}

/// Who said it.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum Source {
    Daemon,
    Store,
}

#[derive(Serialize)]
struct Report {
    source: Source,
    tables: Vec<Line>,
    /// What there is to say beside it: why it is not the daemon that said it, or why it has no tables.
    #[serde(skip)]
    note: Option<String>,
}

impl Report {
    fn code(&self) -> u8 {
        if self.tables.iter().any(|line| line.state == "halted") { code::HALTED } else { code::CLEAN }
    }
}

/// All of those who could be asked.
struct Sources {
    daemon: Client,
    store: Result<Store, String>,
    /// For a look into the log.
    config: Option<Config>,
    counted: Option<(Instant, Result<Counted, String>)>,
    rates: Rates,
    started: Instant,
}

impl Sources {
    /// The daemon's word, or else the store's. An error says why neither answers.
    async fn ask(&mut self) -> Result<Report, String> {
        let silent = match self.daemon.tables().await {
            Ok(tables) => {
                let mut line = |status: TableStatus| {
                    let rate = self.rates.look(&status, self.started.elapsed());
                    Line::of_daemon(status, rate)
                };
                let tables: Vec<_> = tables.into_iter().map(&mut line).collect();
                let waiting = if tables.is_empty() { self.daemon.ready().await.err() } else { None };
                let note = waiting.map(|waiting| format!("the daemon has no tables yet: {}", waiting.reason));
                return Ok(Report { source: Source::Daemon, tables, note });
            }
            Err(silent) => silent,
        };
        let saved = match &self.store {
            Ok(store) => store.list().await.map_err(|error| error.to_string()),
            Err(reason) => Err(reason.clone()),
        };
        match saved {
            Ok(saved) => {
                let said = format!("{silent}; this is what the position store says");
                let counted = self.count(&saved).await;
                let mut tables: Vec<_> = saved.into_iter().map(Line::of_store).collect();
                let note = match counted {
                    Ok(counted) => {
                        for line in &mut tables {
                            tell(line, counted);
                        }
                        let more = ", and the log, as far as it could be read in time: there is more behind";
                        if counted.whole { said } else { said + more }
                    }
                    Err(reason) => format!("{said}; what is behind is not known: {reason}"),
                };
                Ok(Report { source: Source::Store, tables, note: Some(note) })
            }
            Err(reason) => Err(format!("{silent}; and {reason}")),
        }
    }

    /// What tables have before them, as of a while ago at most.
    async fn count(&mut self, saved: &[Saved]) -> Result<&Counted, &String> {
        let counted = match self.counted.take().filter(|(at, _)| at.elapsed() < RECENT) {
            Some(counted) => counted,
            None => (Instant::now(), self.look(saved).await),
        };
        self.counted.insert(counted).1.as_ref()
    }

    async fn look(&self, saved: &[Saved]) -> Result<Counted, String> {
        let config = self.config.as_ref().ok_or("the configuration does not say where the log is")?;
        Box::pin(behind(config, saved, COUNTING)).await.map_err(|error| error.to_string())
    }
}

/// Says of a table how far it is behind.
fn tell(line: &mut Line, counted: &Counted) {
    let Some(behind) = counted.tables.get(&line.table) else { return };
    line.behind = Some(behind.events);
    line.lag_seconds = Some(seconds_since(behind.oldest_micros.unwrap_or(0), now_micros()));
}

/// Asks once, or again and again. The rest of the configuration is needed where no daemon answers.
pub(super) async fn status(
    arguments: StatusArguments,
    admin: Result<AdminSettings, ConfigErrors>,
    loaded: Result<Loaded, ConfigErrors>,
) -> Result<u8, DaemonError> {
    let daemon = arguments.whereabouts.client(admin.as_ref(), PATIENCE)?;
    let store = match &loaded {
        Ok(loaded) => store(loaded),
        Err(errors) => Err(format!("the configuration does not say where positions are: {errors}")),
    };
    let config = loaded.ok().map(|loaded| loaded.config);
    let mut sources =
        Sources { daemon, store, config, counted: None, rates: Rates::new(WINDOW), started: Instant::now() };
    if arguments.watch {
        return watch(sources, arguments.format).await;
    }
    match sources.ask().await {
        Ok(report) => {
            if let Some(note) = &report.note {
                say(note);
            }
            print(&report, arguments.format)?;
            Ok(report.code())
        }
        Err(reason) => Err(DaemonError::Server(reason)),
    }
}

fn store(loaded: &Loaded) -> Result<Store, String> {
    Store::new(&loaded.config, Duration::ZERO).map_err(|error| error.to_string())
}

/// Asks every second until told to stop, or until nobody reads it; the exit code is that of the last answer.
async fn watch(mut sources: Sources, format: Format) -> Result<u8, DaemonError> {
    let mut signals = signals::heard(&[SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()])?;
    let mut screen = if format == Format::Table { Screen::open() } else { None };
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut code = code::UNAVAILABLE;
    let mut noted = None;
    loop {
        let answer = tokio::select! {
            _ = signals.recv() => return Ok(code),
            answer = async { ticks.tick().await; sources.ask().await } => answer,
        };
        code = answer.as_ref().map_or(code::UNAVAILABLE, Report::code);
        let note = answer.as_ref().map_or_else(|reason| Some(reason.clone()), |report| report.note.clone());
        if let Some(screen) = &mut screen {
            let size = terminal::size();
            let mut lines: Vec<_> = note.into_iter().collect();
            if let Ok(report) = &answer {
                lines.extend(layout::table(&report.tables, &layout(Some(size.0), terminal::colour())));
            }
            screen.draw(lines, size).map_err(|error| DaemonError::Internal(error.to_string()))?;
            continue;
        }
        if let Some(note) = note.as_ref().filter(|note| noted.as_ref() != Some(*note)) {
            say(note);
        }
        noted = note;
        if let Ok(report) = &answer
            && !print(report, format)?
        {
            return Ok(code);
        }
    }
}

/// Says whether somebody still reads.
fn print(report: &Report, format: Format) -> Result<bool, DaemonError> {
    match format {
        Format::Table => {
            let width = std::io::stdout().is_terminal().then(|| terminal::size().0);
            let colour = width.is_some() && terminal::colour();
            show_on(&layout::table(&report.tables, &layout(width, colour)).join("\n"))
        }
        Format::Json => {
            let text = serde_json::to_string(report).map_err(|error| DaemonError::Internal(error.to_string()))?;
            show_on(&text)
        }
    }
}

fn layout(width: Option<usize>, colour: bool) -> Layout {
    Layout { width, colour, now: Timestamp::now(), zone: TimeZone::system() }
}
