//! `outboxd pause`, `resume`, `retry`: the operator's hand on a running daemon, by its admin listener.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use secrecy::SecretString;
use serde_json::{Value, json};
use ureq::http::Method;

use super::whereabouts::Whereabouts;
use super::{code, say, show};
use crate::admin::settings::{AdminSettings, read_token};
use crate::config::ConfigErrors;
use crate::daemon::DaemonError;
use crate::status::client::{self, Client, Unchanged};
use crate::table::{TableName, TablePattern};

/// How long the daemon may take for one change; a little longer than it waits itself.
const PATIENCE: Duration = Duration::from_secs(65);

/// Which daemon, and as whom.
#[derive(Args)]
pub(super) struct Way {
    #[command(flatten)]
    whereabouts: Whereabouts,
    /// A file with the daemon's token [default: that of the configuration]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The daemon's token; goes before files
    #[arg(long, env = "OUTBOXD_ADMIN_TOKEN", hide_env_values = true, hide = true)]
    token: Option<SecretString>,
    /// Who asks, for the daemon's log [default: USER@HOST]
    #[arg(long)]
    by: Option<String>,
}

#[derive(Args)]
pub(super) struct HandArguments {
    /// Tables as the configuration writes them: names, ranges, lists, wildcards
    #[arg(required = true, value_name = "TABLE")]
    tables: Vec<String>,
    #[command(flatten)]
    way: Way,
}

#[derive(Args)]
pub(super) struct PauseArguments {
    #[command(flatten)]
    hand: HandArguments,
    /// Why, for whoever looks at it later
    #[arg(long)]
    reason: Option<String>,
}

/// A running daemon, and how to ask it for changes.
pub(super) struct Hand {
    pub(super) client: Client,
    token: Option<SecretString>,
    by: String,
}

impl Hand {
    /// By what the arguments say, and else the configuration.
    pub(super) fn new(way: Way, configured: Result<&AdminSettings, &ConfigErrors>) -> Result<Self, DaemonError> {
        let Way { whereabouts, token_file, token, by } = way;
        let client = whereabouts.client(configured, PATIENCE)?;
        let admin = configured.ok();
        let file = token_file.or_else(|| admin.and_then(|admin| admin.token_file.clone()));
        let token = match (token, file) {
            (Some(token), _) => Some(token),
            (None, Some(file)) => {
                let unread = |error| DaemonError::Configuration(format!("{}: {error}", file.display()));
                Some(read_token(&file).map_err(unread)?)
            }
            (None, None) => None,
        };
        Ok(Self { client, token, by: by.unwrap_or_else(somebody) })
    }

    pub(super) fn by(&self) -> &str {
        &self.by
    }

    /// Asks for a change of a table; the body says who.
    pub(super) async fn change(
        &self,
        method: Method,
        table: &TableName,
        what: &str,
        body: Value,
    ) -> Result<Value, Unchanged> {
        self.send(method, &client::page(table, what), body).await
    }

    /// Asks for a change at a page below `/api/v1`; the body says who.
    pub(super) async fn send(&self, method: Method, page: &str, mut body: Value) -> Result<Value, Unchanged> {
        body["by"] = Value::from(self.by.as_str());
        self.client.change(method, page, &body, self.token.as_ref()).await
    }

    /// The daemon's tables that these patterns select; each has to select one.
    pub(super) async fn select(&self, patterns: &[String]) -> Result<Vec<TableName>, DaemonError> {
        let tables = self.client.tables().await.map_err(|silent| DaemonError::Server(silent.to_string()))?;
        let tables: Vec<_> = tables.into_iter().map(|status| status.table).collect();
        chosen(patterns, &tables)
    }
}

/// The tables among those that are known which the patterns select, in that order; each pattern has to select one.
pub(super) fn chosen(patterns: &[String], known: &[TableName]) -> Result<Vec<TableName>, DaemonError> {
    let wrong = |text: String| DaemonError::Configuration(text);
    let mut chosen = Vec::new();
    for text in patterns {
        match TablePattern::parse(text).map_err(|error| wrong(error.to_string()))? {
            TablePattern::Names(names) => {
                if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
                    return Err(wrong(format!("no table {unknown} is relayed")));
                }
                chosen.extend(names);
            }
            wildcard @ TablePattern::Wildcard(_) => {
                let before = chosen.len();
                chosen.extend(known.iter().filter(|table| wildcard.matches(table)).cloned());
                if chosen.len() == before {
                    return Err(wrong(format!("{text} selects no table that is relayed")));
                }
            }
        }
    }
    let mut seen = std::collections::HashSet::new();
    chosen.retain(|table| seen.insert(table.clone()));
    Ok(chosen)
}

/// Whether somebody at the terminal says yes.
pub(super) fn confirmed() -> bool {
    if !std::io::stdin().is_terminal() {
        return false;
    }
    let mut answer = String::new();
    let asked = anstream::stderr().write_all(b"Go on? [y/N] ");
    asked.is_ok()
        && std::io::stdin().read_line(&mut answer).is_ok()
        && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

/// The user of this process, for people.
pub(super) fn somebody() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "somebody".to_owned());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{user}@{}", host.trim())
}

pub(super) async fn pause(
    PauseArguments { hand, reason }: PauseArguments,
    admin: Result<AdminSettings, ConfigErrors>,
) -> Result<u8, DaemonError> {
    each(hand, &admin, "pause", &json!({ "reason": reason })).await
}

pub(super) async fn resume(hand: HandArguments, admin: Result<AdminSettings, ConfigErrors>) -> Result<u8, DaemonError> {
    each(hand, &admin, "resume", &json!({})).await
}

pub(super) async fn retry(hand: HandArguments, admin: Result<AdminSettings, ConfigErrors>) -> Result<u8, DaemonError> {
    each(hand, &admin, "retry", &json!({})).await
}

/// Asks the same of every table; says what became of each.
async fn each(
    HandArguments { tables, way }: HandArguments,
    admin: &Result<AdminSettings, ConfigErrors>,
    what: &str,
    body: &Value,
) -> Result<u8, DaemonError> {
    let hand = Hand::new(way, admin.as_ref())?;
    let mut exit = code::CLEAN;
    for table in hand.select(&tables).await? {
        match hand.change(Method::POST, &table, what, body.clone()).await {
            Ok(changed) => show(&told(&table, &changed)),
            Err(Unchanged::Refused(failure)) => {
                say(&format!("{table}: {failure}"));
                exit = code::REFUSED;
            }
            Err(Unchanged::Silent(silent)) => return Err(DaemonError::Server(silent.to_string())),
        }
    }
    Ok(exit)
}

/// What a change has changed.
pub(super) fn told(table: &TableName, changed: &Value) -> String {
    let text = |name: &str| changed[name].as_str().unwrap_or_default().to_owned();
    format!("{table}: {} -> {}", text("before"), text("after"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_select_tables_that_are_there_each_once() {
        let known = ["d.a1", "d.a2", "d.b"].map(|name| name.parse::<TableName>().unwrap());
        let select = |patterns: &[&str]| {
            let patterns: Vec<_> = patterns.iter().map(ToString::to_string).collect();
            chosen(&patterns, &known).map(|tables| tables.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(select(&["d.b", "d.a*", "d.a{1..2}"]).unwrap(), "d.b d.a1 d.a2");
        for wrong in ["d.c", "d.a{1..3}", "x.*", "a"] {
            assert!(select(&[wrong]).is_err(), "{wrong}");
        }
    }
}
