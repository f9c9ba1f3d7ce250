//! The configuration: defaults, then a file, then the environment, then flags.
//!
//! Promise: a configuration that loads is complete and consistent; one that does not is told in full, every error with
//! its key, what was expected, what was found and where; no secret is shown anywhere.
//!
//! The rooms own their settings and never see this one.

mod changes;
mod env;
mod error;
mod outbox;
mod tree;
mod unknown;
mod validate;

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use figment::error::Kind;
use figment::providers::{Format, Toml};
use figment::value::{Dict, Value};
use serde::{Deserialize, Serialize};

pub use self::changes::{KeyChange, is_live};
pub use self::env::PREFIX;
pub use self::error::{ConfigError, ConfigErrors, ErrorKind, Source};
pub use self::outbox::{OutboxSettings, Route};
use self::tree::Tree;
use self::unknown::{Pruning, may_hide, type_of};
use crate::admin::settings::AdminSettings;
use crate::kafka::delivery::{DeliverySettings, Guarantee};
use crate::kafka::settings::KafkaSettings;
use crate::mysql::cleanup::settings::CleanupSettings;
use crate::mysql::settings::{Keeper, MysqlSettings, PositionsSettings};
use crate::relay::settings::RelaySettings;
use crate::telemetry::settings::{LogSettings, OtelSettings};

/// Everything that can be set. Serialized without secrets.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The server whose binlog is relayed.
    pub mysql: MysqlSettings,
    /// Where positions are kept.
    pub positions: PositionsSettings,
    /// The cluster records are delivered to.
    pub kafka: KafkaSettings,
    /// How firmly records are delivered.
    pub delivery: DeliverySettings,
    /// What every relay keeps to.
    pub relay: RelaySettings,
    /// Which tables are relayed, and to which topics.
    pub outbox: Vec<OutboxSettings>,
    /// Which rows of the tables are deleted.
    pub cleanup: CleanupSettings,
    /// The HTTP listener of metrics and health.
    pub admin: AdminSettings,
    /// The log.
    pub log: LogSettings,
    /// Spans to OpenTelemetry.
    pub otel: OtelSettings,
}

impl Config {
    /// What keeps the positions.
    pub fn keeper(&self) -> Keeper {
        self.positions.store.unwrap_or(match self.delivery.guarantee {
            Guarantee::AtLeastOnce => Keeper::Mysql,
            Guarantee::ExactlyOnce => Keeper::Kafka,
        })
    }
}

/// Where a configuration is read from.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The file that was asked for; it has to be there.
    pub file: Option<PathBuf>,
    /// Otherwise the first of these that is there, if any.
    pub search: Vec<PathBuf>,
    /// Environment variables; those that do not begin with [`PREFIX`] are left alone.
    pub env: Vec<(String, String)>,
    /// `key.path=value`, the last one wins.
    pub sets: Vec<String>,
}

impl Options {
    /// The usual places: `./outboxd.toml`, `/etc/outboxd/outboxd.toml`, and the environment of the process.
    pub fn of_process(file: Option<PathBuf>, sets: Vec<String>) -> Self {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        Self {
            file,
            search: vec!["outboxd.toml".into(), "/etc/outboxd/outboxd.toml".into()],
            env: std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect(),
            sets,
        }
    }
}

/// A configuration that is complete and consistent.
pub struct Loaded {
    /// What is configured.
    pub config: Config,
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
    tree: Tree,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The tree holds secrets.
        f.debug_struct("Loaded").field("config", &self.config).field("file", &self.file).finish_non_exhaustive()
    }
}

/// One key as it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveKey {
    /// The key, levels separated by dots.
    pub key: String,
    /// Its value as TOML writes it; `***` for a secret, `unset` for nothing.
    pub value: String,
    /// Where it comes from.
    pub source: Source,
}

impl Loaded {
    /// Every key in force with its source, secrets as `***`.
    pub fn effective(&self) -> Vec<EffectiveKey> {
        let key = |(path, value): (Vec<String>, Value)| {
            let source = self.tree.source(&path);
            EffectiveKey { key: path.join("."), value: shown(&value), source }
        };
        self.leaves().into_iter().map(key).collect()
    }

    /// Every path in force with its value, secrets as `***`.
    fn leaves(&self) -> Vec<(Vec<String>, Value)> {
        let mut leaves = Vec::new();
        if let Ok(value) = Value::serialize(&self.config) {
            collect(&mut Vec::new(), value, &mut leaves);
        }
        leaves
    }
}

fn collect(path: &mut Vec<String>, value: Value, leaves: &mut Vec<(Vec<String>, Value)>) {
    let children: Vec<(String, Value)> = match value {
        Value::Dict(_, entries) => entries.into_iter().collect(),
        Value::Array(_, items) if items.iter().any(|item| item.as_dict().is_some()) => {
            items.into_iter().enumerate().map(|(index, item)| (index.to_string(), item)).collect()
        }
        value => return leaves.push((path.clone(), value)),
    };
    for (key, value) in children {
        path.push(key);
        collect(path, value, leaves);
        path.pop();
    }
}

/// A value as TOML writes it.
fn shown(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("{text:?}"),
        Value::Char(_, char) => format!("{:?}", char.to_string()),
        Value::Bool(_, is) => is.to_string(),
        Value::Num(_, number) => number
            .to_i128()
            .map(|number| number.to_string())
            .or_else(|| number.to_u128().map(|number| number.to_string()))
            .or_else(|| number.to_f64().map(|number| number.to_string()))
            .unwrap_or_default(),
        Value::Empty(..) => "unset".to_owned(),
        Value::Array(_, items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
        Value::Dict(..) => type_of(value).to_owned(),
    }
}

/// Reads, merges and checks a configuration; every error at once.
pub fn load(options: &Options) -> Result<Loaded, ConfigErrors> {
    let mut errors = Vec::new();
    let (mut tree, file) = merge(options, &mut errors);
    let config = extract(&mut tree, &mut errors);
    // What could not be read would only be found missing again.
    let unread = errors.iter().any(|error| error.kind == ErrorKind::Unreadable);
    let told: Vec<String> = errors.iter().map(|error| error.key.clone()).collect();
    for problem in validate::problems(&config) {
        let key = problem.path.join(".");
        let again = told.iter().any(|told| key == *told || key.starts_with(&format!("{told}.")));
        if again || unread && problem.kind == ErrorKind::Missing {
            continue;
        }
        let source = tree.source(&problem.path);
        errors.push(ConfigError { kind: problem.kind, key, expected: problem.expected, found: problem.found, source });
    }
    if errors.is_empty() { Ok(Loaded { config, file, tree }) } else { Err(ConfigErrors::new(errors)) }
}

/// Where the daemon answers: `[admin]` alone, whatever is wrong elsewhere in what a daemon that runs has not read again.
pub fn load_admin(options: &Options) -> Result<AdminSettings, ConfigErrors> {
    let mut errors = Vec::new();
    let (mut tree, _) = merge(options, &mut errors);
    if let Value::Dict(_, entries) = &mut tree.root {
        entries.retain(|key, _| key == "admin");
    }
    let config = extract(&mut tree, &mut errors);
    // Those without a key are of the whole file.
    errors.retain(|error| ["", "admin"].contains(&error.key.split('.').next().unwrap_or_default()));
    if errors.is_empty() { Ok(config.admin) } else { Err(ConfigErrors::new(errors)) }
}

/// The layers laid over each other, and the file that was read.
fn merge(options: &Options, errors: &mut Vec<ConfigError>) -> (Tree, Option<PathBuf>) {
    let template = unknown::template();
    let mut tree = Tree::new(Value::serialize(Config::default()).unwrap_or_else(|_| Dict::new().into()));
    let file = options.file.clone().or_else(|| options.search.iter().find(|path| path.exists()).cloned());
    if let Some(path) = &file {
        let source = Source::File(path.clone());
        let content = read(path, &source).map_err(|error| errors.push(error)).unwrap_or_default();
        let mut pruning = Pruning { template: &template, source: &source, errors };
        if let Some(content) = pruning.prune(&[], &template, content.into()) {
            // A whole file sets no list by index, so there are no gaps.
            let _ = tree.lay(&[], content, &source);
        }
    }
    let flags = env::from_flags(&options.sets, errors);
    for setting in env::from_environment(&options.env).into_iter().chain(flags) {
        env::apply(&mut tree, &template, setting, errors);
    }
    (tree, file)
}

fn read(path: &Path, source: &Source) -> Result<Dict, ConfigError> {
    let unreadable = |expected: &str, found: String| ConfigError {
        kind: ErrorKind::Unreadable,
        key: String::new(),
        expected: expected.to_owned(),
        found,
        source: source.clone(),
    };
    let text = std::fs::read_to_string(path).map_err(|error| unreadable("a file", error.to_string()))?;
    Toml::from_str(&text).map_err(|error| {
        // The error's own text quotes the line, which may be that of a password.
        let line = error.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
        unreadable("TOML", format!("on line {line}: {}", error.message()))
    })
}

/// Brings the tree into types; what does not fit is reported and left at its default.
fn extract(tree: &mut Tree, errors: &mut Vec<ConfigError>) -> Config {
    loop {
        let error = match tree.root.deserialize::<Config>() {
            Ok(config) => return config,
            Err(error) => error,
        };
        let expected = match error.kind {
            Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) if expected == "a duration" => {
                "a duration such as \"10s\" or \"500ms\"".to_owned()
            }
            Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => expected,
            Kind::UnknownVariant(_, known) => {
                known.iter().map(|one| format!("\"{one}\"")).collect::<Vec<_>>().join(" or ")
            }
            // Of types whose values are no secrets: addresses.
            Kind::Message(message) if !may_hide(&error.path) => format!("a valid value ({message})"),
            _ => "another type".to_owned(),
        };
        let found = match tree.get(&error.path) {
            Some(value) if may_hide(&error.path) => format!("{} that is not shown", type_of(value)),
            Some(value) => shown(value),
            None => "nothing".to_owned(),
        };
        let source = tree.source(&error.path);
        errors.push(ConfigError { kind: ErrorKind::Type, key: error.path.join("."), expected, found, source });
        if !tree.remove(&error.path) {
            return Config::default();
        }
    }
}
