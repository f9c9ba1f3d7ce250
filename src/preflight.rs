//! What is asked of the servers before anything is relayed, and what they answered.
//!
//! Promise: a check says what was asked for, what there is, and, unless it passed, what cures it; no secret is in any of
//! them. The rooms of MySQL and Kafka make checks; `outboxd check` shows all. A failed one keeps the daemon from
//! relaying the tables that it is about, and from starting when none is left.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

use crate::table::TableName;

/// The name of a check: stable, for scripts. `docs/checks.md` has a line for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
#[allow(missing_docs, reason = "docs/checks.md explains each")]
pub enum Name {
    Tls,
    Version,
    LogBin,
    BinlogFormat,
    BinlogRowImage,
    BinlogRowMetadata,
    BinlogFilters,
    BinlogExpiry,
    ReplicaUpdates,
    ReplicaCommitOrder,
    GtidMode,
    GtidStrictMode,
    ServerId,
    Clock,
    Grants,
    Table,
    Engine,
    Columns,
    KeyOrder,
    Cleanup,
    PositionTable,
    Position,
    PositionTopic,
    KafkaTls,
    KafkaLogin,
    Brokers,
    Topic,
    TopicSettings,
    ReplicationFactor,
    MinInsyncReplicas,
    CleanupPolicy,
    MaxMessageBytes,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As it should be.
    Passed,
    /// It works, but something is weaker than it should be.
    Warned,
    /// Events would be lost, or relays would halt: what it is about is not relayed.
    Failed,
}

/// Whom a check is about: who cannot go on when it fails.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Scope {
    /// Every table.
    #[default]
    All,
    /// One table.
    Table(TableName),
    /// The tables whose events go to this topic.
    Topic(String),
}

/// One question and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Which check this is.
    pub name: Name,
    /// The setting, grant, table, column or topic that was looked at.
    pub setting: String,
    /// How it came out.
    pub status: Status,
    /// What is wanted.
    pub expected: String,
    /// What there is.
    pub found: String,
    /// The statement, command or key that cures it; `None` for a check that passed.
    pub cure: Option<String>,
    /// Whom it is about.
    #[serde(skip)]
    pub scope: Scope,
}

impl Check {
    /// A check that passed.
    pub fn passed(
        name: Name,
        setting: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self {
            name,
            setting: setting.into(),
            status: Status::Passed,
            expected: expected.into(),
            found: found.into(),
            cure: None,
            scope: Scope::All,
        }
    }

    /// The same, about one table only.
    #[must_use]
    pub fn of_table(self, table: &TableName) -> Self {
        Self { scope: Scope::Table(table.clone()), ..self }
    }

    /// The same, about the tables of one topic only.
    #[must_use]
    pub fn of_topic(self, topic: &str) -> Self {
        Self { scope: Scope::Topic(topic.to_owned()), ..self }
    }

    /// The same, but weaker than it should be.
    #[must_use]
    pub fn warned(self, cure: impl Into<String>) -> Self {
        Self { status: Status::Warned, cure: Some(cure.into()), ..self }
    }

    /// The same, but not as it must be.
    #[must_use]
    pub fn failed(self, cure: impl Into<String>) -> Self {
        Self { status: Status::Failed, cure: Some(cure.into()), ..self }
    }

    /// As it is if `holds`, failed otherwise.
    #[must_use]
    pub fn or_failed(self, holds: bool, cure: impl Into<String>) -> Self {
        if holds { self } else { self.failed(cure) }
    }

    /// As it is if `holds`, warned otherwise.
    #[must_use]
    pub fn or_warned(self, holds: bool, cure: impl Into<String>) -> Self {
        if holds { self } else { self.warned(cure) }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, expected, found, .. } = self;
        write!(f, "{setting}: expected {expected}, found {found}")?;
        self.cure.as_ref().map_or(Ok(()), |cure| write!(f, "; cure: {cure}"))
    }
}

/// A server that could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unavailable {
    /// Which: `mysql HOST:PORT`, `positions HOST:PORT`, `kafka BROKERS`.
    pub server: String,
    /// What came instead of an answer.
    pub reason: String,
    /// Whether waiting may help; a refused login, for one, stays refused.
    #[serde(skip)]
    pub transient: bool,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.server, self.reason)
    }
}

/// Everything that was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The answers, in the order of asking.
    pub checks: Vec<Check>,
    /// Who did not answer; what only they know is not among the checks.
    pub unavailable: Vec<Unavailable>,
}

impl Report {
    /// The checks that came out like this.
    pub fn with(&self, status: Status) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(move |check| check.status == status)
    }

    /// Whether a check failed.
    pub fn refuses(&self) -> bool {
        self.with(Status::Failed).next().is_some()
    }

    /// What failed that a table needs whose events go to `topic`, a name or a template.
    pub fn failed_for(&self, table: &TableName, topic: &str) -> Vec<&Check> {
        let concerns = |check: &&Check| match &check.scope {
            Scope::All => true,
            Scope::Table(of) => of == table,
            Scope::Topic(of) => of == topic,
        };
        self.with(Status::Failed).filter(concerns).collect()
    }
}

/// What passed for many alike is one line; what did not keeps a line of its own.
pub fn summed_up(name: Name, alike: &str, expected: &str, checks: Vec<Check>) -> Vec<Check> {
    let total = checks.len();
    let mut found: Vec<String> = Vec::new();
    let (passed, mut rest): (Vec<_>, Vec<_>) = checks.into_iter().partition(|check| check.status == Status::Passed);
    for check in &passed {
        if !found.contains(&check.found) {
            found.push(check.found.clone());
        }
    }
    match passed.len() {
        0 => {}
        1 if total == 1 => rest.extend(passed),
        some => {
            let of = if some == total { format!("{total} {alike}") } else { format!("{some} of {total} {alike}") };
            let shown = if found.len() > 3 { "different for each".to_owned() } else { found.join("; ") };
            rest.insert(0, Check::passed(name, of, expected, shown));
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(setting: &str, found: &str) -> Check {
        Check::passed(Name::Engine, setting, "InnoDB", found)
    }

    #[test]
    fn given_many_alike_when_summed_up_then_only_what_did_not_pass_keeps_its_line() {
        let checks = vec![check("a", "InnoDB"), check("b", "MyISAM").failed("x"), check("c", "InnoDB")];
        let summed = summed_up(Name::Engine, "tables", "InnoDB", checks);
        assert_eq!(summed.len(), 2);
        assert_eq!(summed[0], check("2 of 3 tables", "InnoDB"));
        assert_eq!(summed[1].to_string(), "b: expected InnoDB, found MyISAM; cure: x");
        let one = summed_up(Name::Engine, "tables", "InnoDB", vec![check("a", "InnoDB")]);
        assert_eq!(one, [check("a", "InnoDB")]);
        assert!(summed_up(Name::Engine, "tables", "InnoDB", Vec::new()).is_empty());
    }

    #[test]
    fn given_failures_when_asked_for_a_table_then_only_those_that_concern_it_are_told() {
        let [one, two] = [1, 2].map(|n| TableName::new("d", &format!("t{n}")));
        let failed = |setting: &str| check(setting, "x").failed("cure");
        let checks = vec![failed("one").of_table(&one), failed("topic").of_topic("events"), check("fine", "x")];
        let mut report = Report { checks, unavailable: Vec::new() };
        let told = |report: &Report, table, topic| {
            report.failed_for(table, topic).into_iter().map(|check| check.setting.clone()).collect::<Vec<_>>()
        };
        assert_eq!(told(&report, &one, "events"), ["one", "topic"]);
        assert_eq!(told(&report, &two, "events"), ["topic"]);
        assert_eq!(told(&report, &two, "others"), [""; 0]);
        report.checks.push(failed("all"));
        assert_eq!(told(&report, &two, "others"), ["all"]);
    }

    #[test]
    fn given_every_name_when_looked_up_then_the_page_of_checks_has_a_line_for_it() {
        let page = include_str!("../docs/checks.md");
        for name in Name::value_variants() {
            assert!(
                page.lines().any(|line| line.starts_with(&format!("| `{name}` |"))),
                "{name} is not in docs/checks.md"
            );
            assert_eq!(serde_json::to_string(name).unwrap(), format!("\"{name}\""));
        }
    }
}
