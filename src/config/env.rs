//! Keys that are set one by one: by environment variables and by `--set`.

use figment::providers::{Format, Toml};
use figment::value::{Dict, Value};

use super::error::{ConfigError, ErrorKind, Source, by_levels};
use super::tree::Tree;
use super::unknown::{Pruning, is_open};

/// What the names of the daemon's environment variables begin with.
pub const PREFIX: &str = "OUTBOXD__";

/// One key to set.
pub(super) struct Setting {
    path: Vec<String>,
    text: String,
    source: Source,
}

/// The settings among environment variables: tables before what is in them, lists in the order of their indices.
pub(super) fn from_environment(variables: &[(String, String)]) -> Vec<Setting> {
    let mut settings: Vec<Setting> = variables
        .iter()
        .filter_map(|(name, text)| {
            let path: Vec<String> = name.strip_prefix(PREFIX)?.to_lowercase().split("__").map(str::to_owned).collect();
            let path = with_open_end(path, |level| level.replace('_', "."));
            Some(Setting { path, text: text.clone(), source: Source::Environment(name.clone()) })
        })
        .collect();
    settings.sort_by(|a, b| by_levels(&a.path.join("."), &b.path.join(".")));
    settings
}

/// The settings of `--set key.path=value`, in the order they were given.
pub(super) fn from_flags(flags: &[String], errors: &mut Vec<ConfigError>) -> Vec<Setting> {
    let mut settings = Vec::new();
    for (index, flag) in flags.iter().enumerate() {
        if let Some((key, text)) = flag.split_once('=').filter(|(key, _)| !key.trim().is_empty()) {
            let path = key.trim().split('.').map(str::to_owned).collect();
            let path = with_open_end(path, ToOwned::to_owned);
            settings.push(Setting { path, text: text.to_owned(), source: Source::Flag(key.trim().to_owned()) });
        } else {
            errors.push(ConfigError {
                kind: ErrorKind::Type,
                key: String::new(),
                expected: "key.path=value".to_owned(),
                // What stands there might be a secret.
                found: "no `=` after a key".to_owned(),
                source: Source::Flag(format!("number {}", index + 1)),
            });
        }
    }
    settings
}

/// Below a level that takes any name, what follows is one name with dots in it.
fn with_open_end(mut path: Vec<String>, name: impl Fn(&str) -> String) -> Vec<String> {
    if path.len() > 2 && is_open(&path[..2]) {
        let rest: Vec<String> = path.drain(2..).map(|level| name(&level)).collect();
        path.push(rest.join("."));
    }
    path
}

/// Lays one setting over the tree.
pub(super) fn apply(tree: &mut Tree, template: &Value, setting: Setting, errors: &mut Vec<ConfigError>) {
    let Setting { path, text, source } = setting;
    let mut pruning = Pruning { template, source: &source, errors };
    let mut known = template;
    for (depth, level) in path.iter().enumerate() {
        let next = match known {
            Value::Dict(..) if is_open(&path[..depth]) => None,
            Value::Dict(_, entries) => Some(entries.get(level)),
            Value::Array(_, items) => Some(items.first().filter(|_| level.parse::<usize>().is_ok())),
            _ => Some(None),
        };
        match next {
            Some(Some(next)) => known = next,
            Some(None) => return pruning.unknown(&path[..=depth]),
            // The value of a property is a text.
            None => {
                let value = Value::from(text);
                return lay(tree, &path, value, &source, errors);
            }
        }
    }
    let value = if matches!(known, Value::String(..)) { Value::from(text) } else { parse(&text) };
    if let Some(value) = pruning.prune(&path, known, value) {
        lay(tree, &path, value, &source, errors);
    }
}

fn lay(tree: &mut Tree, path: &[String], value: Value, source: &Source, errors: &mut Vec<ConfigError>) {
    if let Err(gap) = tree.lay(path, value, source) {
        errors.push(ConfigError {
            kind: ErrorKind::Invalid,
            key: path.join("."),
            expected: format!("{} as the next index", gap.next),
            found: "a gap in the list".to_owned(),
            source: source.clone(),
        });
    }
}

/// A value as TOML writes it, or else the text itself.
fn parse(text: &str) -> Value {
    let parsed: Option<Dict> = Toml::from_str(&format!("v = {text}")).ok();
    parsed.filter(|all| all.len() == 1).and_then(|mut all| all.remove("v")).unwrap_or_else(|| Value::from(text))
}
