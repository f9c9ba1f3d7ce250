//! The log on standard error.
//!
//! Promise: an event is one line, whatever names and errors of servers are in it, and does nothing to a terminal; what happens
//! again and again is written now and then, and counted (`repeats`).

use std::fmt;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::Field;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, reload};

use super::happenings::Happenings;
use super::repeats::Sparing;
use super::settings::{LogFormat, LogSettings};
use crate::terminal::text::harmless;

/// Logging cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The level is neither a level nor a list of directives.
    #[error("log.level: {0}")]
    Level(#[from] LevelError),
    /// Something logs already.
    #[error("logging has been set up before: {0}")]
    Twice(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A text is neither a level nor a list of directives.
#[derive(Debug, thiserror::Error)]
pub enum LevelError {
    /// A word that is no level. The parser would take it for the name of a module.
    #[error("`{0}` is none of error, warn, info, debug, trace, off")]
    Level(String),
    /// A directive that cannot be read.
    #[error(transparent)]
    Directive(#[from] tracing_subscriber::filter::ParseError),
}

/// Reads a level or a list of directives.
pub fn filter(level: &str) -> Result<EnvFilter, LevelError> {
    // The parser of levels takes nothing for `error`.
    let word = |part: &&str| part.is_empty() || !part.contains(['=', '[', ':']) && part.parse::<LevelFilter>().is_err();
    match level.split(',').map(str::trim).find(word) {
        Some(word) => Err(LevelError::Level(word.to_owned())),
        None => Ok(EnvFilter::builder().parse(level)?),
    }
}

/// Changes by hand are written down at every level.
fn audited(filter: EnvFilter) -> EnvFilter {
    match "outboxd::audit=info".parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    }
}

/// Fields in the usual form, `name=value`, without anything in a value that is more than text.
fn fields() -> impl for<'writer> FormatFields<'writer> + 'static {
    debug_fn(|writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug| {
        let value = format!("{value:?}");
        let value = harmless(&value);
        match (field.name(), writer.has_ansi_escapes()) {
            ("message", _) => write!(writer, "{value}"),
            (name, true) => write!(writer, "\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m{value}"),
            (name, false) => write!(writer, "{name}={value}"),
        }
    })
    .delimited(" ")
}

type Apply = Box<dyn Fn(EnvFilter) -> bool + Send + Sync>;

/// What is logged, which may change meanwhile. Cheap to clone.
#[derive(Clone)]
pub struct Levels(Arc<(Apply, Mutex<String>)>);

impl fmt::Debug for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Levels").field(&self.now()).finish()
    }
}

impl Levels {
    /// Of something that takes new filters; `false` when it is gone.
    pub fn of(level: &str, apply: impl Fn(EnvFilter) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new((Box::new(apply), Mutex::new(level.to_owned()))))
    }

    /// The level or the directives in force.
    pub fn now(&self) -> String {
        self.0.1.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Logs by this level, or these directives, from now on.
    pub fn set(&self, level: &str) -> Result<(), LevelError> {
        let filter = audited(filter(level)?);
        let mut now = self.0.1.lock().unwrap_or_else(PoisonError::into_inner);
        if self.0.0(filter) {
            level.clone_into(&mut now);
        }
        Ok(())
    }
}

/// Begins to log to standard error, and to keep what happens. To be called once, by the program and not by the library.
pub fn init(settings: &LogSettings) -> Result<(Levels, Happenings), LoggingError> {
    let (filter, handle) = reload::Layer::new(audited(filter(&settings.level)?));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match settings.format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).fmt_fields(fields()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let happenings = Happenings::default();
    // One filter for both. With one for each, whoever only asks whether something would be logged, as librdkafka's client does,
    // makes the layer that would not have it miss the next event.
    tracing_subscriber::registry()
        .with(filter)
        .with(Sparing::new(lines))
        .with(happenings.layer())
        .try_init()
        .map_err(|error| LoggingError::Twice(error.into()))?;
    Ok((Levels::of(&settings.level, move |filter| handle.reload(filter).is_ok()), happenings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_cannot_be_read_changes_nothing() {
        let applied = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&applied);
        let levels = Levels::of("info", move |filter| {
            all.lock().unwrap().push(filter.to_string());
            true
        });
        assert!(levels.set("loud").is_err());
        assert_eq!((levels.now().as_str(), applied.lock().unwrap().len()), ("info", 0));
        levels.set("warn,outboxd::kafka=debug").unwrap();
        assert_eq!(levels.now(), "warn,outboxd::kafka=debug");
        assert!(applied.lock().unwrap()[0].contains("outboxd::kafka=debug"));
        assert!(applied.lock().unwrap()[0].contains("outboxd::audit=info"), "changes by hand are always written down");
    }

    #[test]
    fn given_levels_and_directives_when_read_then_only_real_ones_pass() {
        for good in ["info", "WARN", "info,outboxd::relay=debug", "off"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in ["outboxd=loud", "a=b=c", "inof", "", "info,verbose"] {
            assert!(filter(bad).is_err(), "{bad}");
        }
    }
}
