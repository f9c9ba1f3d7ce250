//! `outboxd doctor`: what somebody needs to know who is to help, in one file.
//!
//! Promise: whatever can be had is in it, and what cannot is said in its place: a server that is away costs its own part
//! only. Secrets are not in it, nor is anything of what events carry.

use std::collections::VecDeque;
use std::fmt::{Display, Write as _};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use mysql_async::prelude::Queryable;
use tokio::time::timeout;

use super::whereabouts::Whereabouts;
use super::{check, code, config, position, say, show};
use crate::admin::settings::AdminSettings;
use crate::config::{ConfigErrors, Loaded};
use crate::daemon::preflight::{self, Asker};
use crate::daemon::{DaemonError, servers};
use crate::kafka;
use crate::terminal::text::harmless;

/// How long each part may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many lines of the log belong into it.
const LINES: usize = 500;

/// How long the daemon may take for an answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Collect what a bug report needs into one text file: versions, configuration without secrets, checks, positions, states, the
/// latest happenings and metrics, and on request the log
#[derive(Args)]
pub(super) struct DoctorArguments {
    /// Where to write it; - is standard output
    #[arg(short, long, value_name = "FILE", default_value = "outboxd-doctor.txt")]
    output: PathBuf,
    /// The file that the daemon's log goes to, whose last 500 lines belong into the report; where it is in the journal:
    /// <(journalctl --unit outboxd --lines 500)
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    #[command(flatten)]
    whereabouts: Whereabouts,
}

/// The report so far.
#[derive(Default)]
struct Report(String);

impl Report {
    fn part(&mut self, title: &str, body: Result<impl Display, impl Display>) {
        let body = match body {
            Ok(body) => body.to_string(),
            Err(why) => format!("not to be had: {why}"),
        };
        let lines = body.lines().map(harmless).collect::<Vec<_>>().join("\n");
        let _ = write!(self.0, "== {title} ==\n\n{}\n\n", lines.trim_end());
    }
}

pub(super) async fn doctor(
    DoctorArguments { output, log, whereabouts }: DoctorArguments,
    admin: Result<AdminSettings, ConfigErrors>,
    loaded: Result<Loaded, ConfigErrors>,
) -> Result<u8, DaemonError> {
    let mut report = Report::default();
    report.part("outboxd", Ok::<_, &str>(here()));
    match &loaded {
        Ok(loaded) => {
            report.part("configuration", Ok::<_, &str>(config::table(loaded)));
            report.part("versions of servers", patiently(versions(loaded)).await);
            let server_id = loaded.config.mysql.resolve_server_id();
            let asker = Asker { server_id, relays: false, creates: false };
            let survey = patiently(preflight::survey(&loaded.config, asker)).await;
            report.part("checks", survey.map(|survey| check::text(&survey.report)));
            report.part("positions", patiently(position::table(loaded)).await);
        }
        Err(errors) => report.part("configuration", Err::<&str, _>(errors)),
    }
    match whereabouts.client(admin.as_ref(), ANSWER) {
        Ok(client) => {
            for (title, page) in [
                ("the daemon: readiness", "readyz"),
                ("the daemon: tables, reader, happenings", "api/v1/overview"),
                ("the daemon: what is logged", "api/v1/log"),
                ("the daemon: metrics", "metrics"),
            ] {
                report.part(title, client.text(page).await.map(pretty));
            }
        }
        Err(error) => report.part("the daemon", Err::<&str, _>(error)),
    }
    if let Some(log) = log {
        report.part("the log", latest(&log).map_err(|error| format!("{}: {error}", log.display())));
    }
    if output.as_os_str() == "-" {
        show(&report.0);
    } else {
        let unwritten = |error| DaemonError::Configuration(format!("{}: {error}", output.display()));
        std::fs::write(&output, report.0).map_err(unwritten)?;
        say(&format!("written to {}; look through it before you give it away", output.display()));
    }
    Ok(code::CLEAN)
}

async fn patiently<T>(part: impl Future<Output = Result<T, DaemonError>>) -> Result<T, String> {
    let part = timeout(PATIENCE, Box::pin(part)).await;
    part.map_err(|_| format!("no answer within {PATIENCE:?}"))?.map_err(|error| error.to_string())
}

/// This program, and what it runs on.
fn here() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let release = read("/etc/os-release");
    let system = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("?").trim_matches('"');
    let otel = if cfg!(feature = "otel") { "otel" } else { "none" };
    format!(
        "written    {}\nversion    {}\nfeatures   {otel}\nlibrdkafka {}\nsystem     {system}\nkernel     {} {}\nprocessors {}",
        jiff::Timestamp::now(),
        env!("CARGO_PKG_VERSION"),
        kafka::library_version(),
        read("/proc/sys/kernel/osrelease"),
        std::env::consts::ARCH,
        std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
    )
}

/// What the server of the log says of itself.
async fn versions(loaded: &Loaded) -> Result<String, DaemonError> {
    let (log, _) = servers(&loaded.config)?;
    let answer = async {
        let mut conn = log.connect().await?;
        let facts: Option<(String, String)> = conn.query_first("SELECT @@version, @@version_comment").await?;
        conn.disconnect().await?;
        Ok::<_, mysql_async::Error>(facts.unwrap_or_default())
    };
    let (version, comment) = answer.await.map_err(|error| super::server(&error))?;
    Ok(format!("{log}: {version} ({comment})"))
}

/// The last lines of a log, which may be long, or come through a pipe.
fn latest(log: &Path) -> io::Result<String> {
    let mut lines = VecDeque::new();
    for line in BufReader::new(File::open(log)?).split(b'\n') {
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(String::from_utf8_lossy(&line?).into_owned());
    }
    Ok(Vec::from(lines).join("\n"))
}

/// JSON is laid out, everything else stays as it is.
fn pretty(text: String) -> String {
    let json: Result<serde_json::Value, _> = serde_json::from_str(&text);
    json.and_then(|value| serde_json::to_string_pretty(&value)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_had_is_said_in_its_place() {
        let mut report = Report::default();
        report.part("one", Ok::<_, &str>("a\u{1b}[31m\nb\n"));
        report.part("two", Err::<&str, _>("gone"));
        assert!(!report.0.contains('\u{1b}'));
        assert!(report.0.starts_with("== one ==\n\na"));
        assert!(report.0.ends_with("\nb\n\n== two ==\n\nnot to be had: gone\n\n"), "{}", report.0);
        let log = tempfile::NamedTempFile::new().unwrap();
        let lines: Vec<_> = (0..1000).map(|line| format!("line {line}")).collect();
        std::fs::write(log.path(), lines.join("\n") + "\n").unwrap();
        let latest = latest(log.path()).unwrap();
        assert!(latest.starts_with("line 500\n") && latest.ends_with("\nline 999"), "{latest}");
        assert_eq!(pretty("{\"a\":1}".to_owned()), "{\n  \"a\": 1\n}");
        assert_eq!(pretty("ready\n".to_owned()), "ready\n");
    }
}
