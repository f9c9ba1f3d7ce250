//! `outboxd reload`, `outboxd log`: a running daemon reads its configuration again, or logs otherwise.

use clap::Args;
use serde_json::{Value, json};
use ureq::http::Method;

use super::hand::{Hand, Way};
use super::{code, say, show};
use crate::admin::Failure;
use crate::admin::reload::{LogLevel, Reloaded};
use crate::admin::settings::AdminSettings;
use crate::config::ConfigErrors;
use crate::daemon::DaemonError;
use crate::status::client::Unchanged;
use crate::table::TableName;

/// Have the running daemon read its configuration again, as SIGHUP does
///
/// Tables that are new join, those that are gone are drained and leave, those that are to be relayed another way start
/// again from their saved positions; the others notice nothing. What takes a restart is refused, and then nothing changes.
#[derive(Args)]
pub(super) struct ReloadArguments {
    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    way: Way,
}

/// Show what the running daemon logs; or have it log otherwise until it is restarted or reloaded
#[derive(Args)]
pub(super) struct LogArguments {
    /// error, warn, info, debug, trace; or directives for single rooms: `info,outboxd::kafka=debug`
    level: Option<String>,
    #[command(flatten)]
    way: Way,
}

pub(super) async fn reload(
    ReloadArguments { dry_run, way }: ReloadArguments,
    admin: Result<AdminSettings, ConfigErrors>,
) -> Result<u8, DaemonError> {
    let hand = Hand::new(way, admin.as_ref())?;
    match hand.send(Method::POST, "reload", json!({ "rehearse": dry_run })).await {
        Ok(answer) => {
            let reloaded: Reloaded = understood(answer)?;
            show(&told(&reloaded));
            Ok(if reloaded.troubles.is_empty() { code::CLEAN } else { code::REFUSED })
        }
        Err(refused) => refusal(refused),
    }
}

pub(super) async fn log(
    LogArguments { level, way }: LogArguments,
    admin: Result<AdminSettings, ConfigErrors>,
) -> Result<u8, DaemonError> {
    let hand = Hand::new(way, admin.as_ref())?;
    let now = match level {
        None => hand.client.log_level().await.map_err(Unchanged::from),
        Some(level) => match hand.send(Method::PUT, "log", json!({ "level": level })).await {
            Ok(answer) => Ok(understood(answer)?),
            Err(refused) => Err(refused),
        },
    };
    match now {
        Ok(LogLevel { level }) => {
            show(&level);
            Ok(code::CLEAN)
        }
        Err(refused) => refusal(refused),
    }
}

fn understood<T: serde::de::DeserializeOwned>(answer: Value) -> Result<T, DaemonError> {
    serde_json::from_value(answer).map_err(|error| DaemonError::Server(format!("the daemon's answer: {error}")))
}

fn refusal(refused: Unchanged) -> Result<u8, DaemonError> {
    match refused {
        Unchanged::Refused(Failure { detail, .. }) => {
            say(&detail);
            Ok(code::REFUSED)
        }
        Unchanged::Silent(silent) => Err(DaemonError::Server(silent.to_string())),
    }
}

/// What has changed, a line each.
fn told(Reloaded { settings, joined, renewed, left, troubles }: &Reloaded) -> String {
    let keys = settings.iter().map(|setting| format!("{}: {} -> {}", setting.key, setting.before, setting.after));
    let tables = |word: &'static str, tables: &[TableName]| {
        tables.iter().map(|table| format!("{table} {word}")).collect::<Vec<_>>()
    };
    let lines: Vec<_> = keys
        .chain(tables("joins", joined))
        .chain(tables("starts again", renewed))
        .chain(tables("leaves", left))
        .chain(troubles.iter().cloned())
        .collect();
    if lines.is_empty() { "nothing has changed".to_owned() } else { lines.join("\n") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::reload::Setting;

    #[test]
    fn what_has_changed_is_told_a_line_each() {
        assert_eq!(told(&Reloaded::default()), "nothing has changed");
        let name = |text: &str| vec![text.parse::<TableName>().unwrap()];
        let text = |text: &str| text.to_owned();
        let reloaded = Reloaded {
            settings: vec![Setting { key: text("a.b"), before: text("1"), after: text("2") }],
            joined: name("d.t3"),
            renewed: name("d.t2"),
            left: name("d.t1"),
            troubles: vec![text("d.t2: has halted")],
        };
        assert_eq!(told(&reloaded), "a.b: 1 -> 2\nd.t3 joins\nd.t2 starts again\nd.t1 leaves\nd.t2: has halted");
    }
}
