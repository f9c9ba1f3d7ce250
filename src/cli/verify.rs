//! `outboxd verify`: whether everything that is committed is in Kafka, once, in order, and nothing else.

mod progress;
mod report;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use self::progress::Shown;
use self::report::Report;
use super::{say, show};
use crate::config::{Config, Loaded};
use crate::daemon::DaemonError;
use crate::daemon::verify::{self, Progress, Request, Since};
use crate::kafka::delivery::Guarantee;
use crate::position::Position;
use crate::table::TablePattern;
use crate::telemetry::logging;
use crate::verify::Room;

/// Less memory than this makes so many temporary runs that merging them takes for ever.
const LEAST_MEMORY: ByteSize = ByteSize::mib(4);

#[derive(Args)]
pub(super) struct VerifyArguments {
    /// Tables such as `schema.table{1..4}` or `schema.*` [default: all that are configured]
    #[arg(long = "table", value_name = "PATTERN", num_args = 1.., value_parser = TablePattern::parse)]
    tables: Vec<TablePattern>,
    /// Only what was committed since then: a time (`2026-01-31T10:30:00Z`, or local without Z), a duration ago (`2h`), or a
    /// position (`gtid=…`, `domains=…`, `file=…`) [default: all that the log and the tables have]
    #[arg(long, value_name = "TIME|POSITION", value_parser = since)]
    since: Option<Since>,
    /// Publish what is missing, after a question
    #[arg(long)]
    repair: bool,
    /// Do not ask
    #[arg(long, requires = "repair")]
    yes: bool,
    /// A table for people, or one JSON object for programs
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// How many findings of each kind to show
    #[arg(long, value_name = "N", default_value_t = 10)]
    examples: usize,
    /// Memory for comparing; what is more goes to temporary files
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = memory)]
    memory: ByteSize,
    /// Folder of temporary files, some 350 bytes an event [default: that of the system]
    #[arg(long, value_name = "FOLDER")]
    temporary: Option<PathBuf>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Table,
    Json,
}

fn memory(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse()?;
    if size < LEAST_MEMORY { Err(format!("it takes {LEAST_MEMORY} at least")) } else { Ok(size) }
}

fn since(text: &str) -> Result<Since, String> {
    since_at(text, Timestamp::now(), &TimeZone::system())
}

fn since_at(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Since, String> {
    if text.contains('=') {
        return text.parse::<Position>().map(Since::Position).map_err(|error| error.to_string());
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(Since::Millis(time.as_millisecond()));
    }
    if let Ok(local) = text.parse::<DateTime>() {
        let time = local.to_zoned(zone.clone()).map_err(|error| error.to_string())?;
        return Ok(Since::Millis(time.timestamp().as_millisecond()));
    }
    let wrong = "neither a time such as 2026-01-31T10:30:00Z, nor a duration such as 2h, nor a position such as gtid=…";
    let ago = humantime::parse_duration(text).ok().and_then(|ago| SignedDuration::try_from(ago).ok());
    let time = ago.and_then(|ago| now.checked_sub(ago).ok()).ok_or(wrong)?;
    Ok(Since::Millis(time.as_millisecond()))
}

pub(super) async fn verify(arguments: VerifyArguments, loaded: &Loaded) -> Result<u8, DaemonError> {
    let VerifyArguments { tables, since, repair, yes, format, examples, memory, temporary } = arguments;
    let config = &loaded.config;
    if repair {
        // Who repairs leaves a line in the log.
        logging::init(&config.log).map_err(|error| DaemonError::Configuration(error.to_string()))?;
    }
    let room = Room {
        folder: temporary.unwrap_or_else(std::env::temp_dir),
        memory: usize::try_from(memory.as_u64()).unwrap_or(usize::MAX),
    };
    let shown = Arc::new(Shown::new());
    let progress: Arc<dyn Progress> = Arc::<Shown>::clone(&shown);
    let verified = verify::verify(config, Request { tables, since, examples, room }, Arc::clone(&progress)).await;
    shown.end();
    let mut verified = verified?;
    let mut report = Report::of(&verified, tolerates_duplicates(config));
    let reparable = report.reparable();
    if repair && reparable > 0 && (yes || agreed(&report, format)?) {
        let published = verified.repair(&progress).await;
        shown.end();
        report.repaired(published?);
    }
    print(&report, format)?;
    Ok(report.code())
}

/// At least once, a crash publishes again what it does not know to have arrived.
fn tolerates_duplicates(config: &Config) -> bool {
    config.delivery.guarantee == Guarantee::AtLeastOnce
}

/// Shows what was found, and asks.
#[allow(clippy::print_stderr, reason = "this is the command line")]
fn agreed(report: &Report, format: Format) -> Result<bool, DaemonError> {
    if !std::io::stdin().is_terminal() {
        say("nothing was published: there is nobody to ask; --yes publishes without a question");
        return Ok(false);
    }
    if format == Format::Table {
        show(&report.text());
    }
    eprint!("{} Publish {} events? [y/N] ", report.warning(), report.reparable());
    let failed = |error: std::io::Error| DaemonError::Internal(error.to_string());
    std::io::stderr().flush().map_err(failed)?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(failed)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

fn print(report: &Report, format: Format) -> Result<(), DaemonError> {
    match format {
        Format::Table => show(&report.text()),
        Format::Json => {
            let text =
                serde_json::to_string_pretty(report).map_err(|error| DaemonError::Internal(error.to_string()))?;
            show(&text);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_a_time_a_duration_or_a_position_when_read_then_it_says_since_when() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let millis = |text: &str| match since_at(text, now, &zone) {
            Ok(Since::Millis(millis)) => Timestamp::from_millisecond(millis).unwrap().to_string(),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(millis("2026-01-31T10:30:00Z"), "2026-01-31T10:30:00Z");
        assert_eq!(millis("2026-01-31 10:30"), "2026-01-31T08:30:00Z");
        assert_eq!(millis("2026-01-31"), "2026-01-30T22:00:00Z");
        assert_eq!(millis("1h 30min"), "2026-01-31T10:30:00Z");
        assert!(matches!(since_at("file=bin.000001:4", now, &zone), Ok(Since::Position(_))));
        for wrong in ["", "soon", "gtid=x", "2026-13-01"] {
            assert!(since_at(wrong, now, &zone).is_err(), "{wrong}");
        }
        assert!(memory("1MiB").is_err() && memory("64MiB").is_ok() && memory("much").is_err());
    }
}
