//! The log on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::settings::{LogFormat, LogSettings};

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

/// Begins to log to standard error. To be called once, by the program and not by the library.
pub fn init(settings: &LogSettings) -> Result<(), LoggingError> {
    let builder =
        tracing_subscriber::fmt().with_env_filter(audited(filter(&settings.level)?)).with_writer(std::io::stderr);
    match settings.format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(LoggingError::Twice)
}

#[cfg(test)]
mod tests {
    use super::*;

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
