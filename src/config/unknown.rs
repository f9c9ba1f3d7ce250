//! Which keys there are, taken from a configuration in which everything is set; and what is not among them.

use figment::value::{Dict, Value};
use secrecy::SecretString;

use super::error::{ConfigError, ErrorKind, Source};
use super::{Config, OutboxSettings, Route};
use crate::admin::settings::AdminSettings;
use crate::admin::tls::TlsSettings as AdminTlsSettings;
use crate::kafka::security::{Mechanism, SaslSettings, TlsSettings as KafkaTlsSettings};
use crate::kafka::settings::{KafkaSettings, is_secret};
use crate::mysql::servers::Role;
use crate::mysql::settings::{Keeper, MysqlSettings, PositionsSettings, ServerUrl};
use crate::mysql::tls::TlsSettings;
use crate::outbox::{CloudEvents, Columns};

/// A configuration with every key, whose values show their types.
pub(super) fn template() -> Value {
    let example = Config {
        mysql: MysqlSettings {
            password: Some(SecretString::from("")),
            password_file: Some("".into()),
            server_id: Some(1),
            tls: TlsSettings {
                ca: Some("".into()),
                cert: Some("".into()),
                key: Some("".into()),
                key_password: Some(SecretString::from("")),
                key_password_file: Some("".into()),
                ..TlsSettings::default()
            },
            addresses: vec![String::new()],
            role: Some(Role::Any),
            ..MysqlSettings::default()
        },
        kafka: KafkaSettings {
            tls: KafkaTlsSettings {
                ca: Some("".into()),
                cert: Some("".into()),
                key: Some("".into()),
                key_password: Some(SecretString::from("")),
                key_password_file: Some("".into()),
                ..KafkaTlsSettings::default()
            },
            sasl: SaslSettings {
                mechanism: Some(Mechanism::Plain),
                username: Some(String::new()),
                password: Some(SecretString::from("")),
                password_file: Some("".into()),
                token_url: Some(String::new()),
                token_ca: Some("".into()),
                client_id: Some(String::new()),
                client_secret: Some(SecretString::from("")),
                client_secret_file: Some("".into()),
                scope: Some(String::new()),
            },
            ..KafkaSettings::default()
        },
        positions: PositionsSettings {
            store: Some(Keeper::Mysql),
            url: Some(ServerUrl::default()),
            password: Some(SecretString::from("")),
            password_file: Some("".into()),
            ..PositionsSettings::default()
        },
        outbox: vec![OutboxSettings {
            tables: vec![String::new()],
            route: Some(Route::default()),
            cloudevents: Some(CloudEvents::default()),
            shard: Some(String::new()),
            columns: Columns {
                key: Some(String::new()),
                partition: Some(String::new()),
                timestamp: Some(String::new()),
                headers: vec![String::new().into()],
                header_object: Some(String::new()),
                envelope: vec![String::new().into()],
                ..Columns::default()
            },
            ..OutboxSettings::default()
        }],
        admin: AdminSettings {
            token_file: Some("".into()),
            tls: AdminTlsSettings {
                cert: Some("".into()),
                key: Some("".into()),
                key_password_file: Some("".into()),
                client_ca: Some("".into()),
            },
            ..AdminSettings::default()
        },
        ..Config::default()
    };
    // Nothing in the settings fails to serialize; a test sees to it.
    Value::serialize(example).unwrap_or_else(|_| Dict::new().into())
}

/// Whether the level takes keys of any name.
pub(super) fn is_open<S: AsRef<str>>(path: &[S]) -> bool {
    matches!(path, [a, b] if a.as_ref() == "kafka" && b.as_ref() == "properties")
}

/// Whether the key's value must not be shown.
pub(super) fn is_hidden<S: AsRef<str>>(path: &[S]) -> bool {
    match path {
        [a, b] => ["mysql", "positions"].contains(&a.as_ref()) && b.as_ref() == "password",
        [a, b, c] if a.as_ref() == "mysql" => b.as_ref() == "tls" && c.as_ref() == "key_password",
        [a, b, c] if a.as_ref() == "kafka" && ["tls", "sasl"].contains(&b.as_ref()) => {
            ["key_password", "password", "client_secret"].contains(&c.as_ref())
        }
        [a, b, name] => is_open(&[a.as_ref(), b.as_ref()]) && is_secret(name.as_ref()),
        _ => false,
    }
}

/// Whether the key's value may hold a secret besides what can be shown.
pub(super) fn may_hide<S: AsRef<str>>(path: &[S]) -> bool {
    is_hidden(path) || path.last().is_some_and(|last| last.as_ref() == "url")
}

/// Takes out of a layer what has no key or not the shape of its key, and reports it.
pub(super) struct Pruning<'a> {
    pub(super) template: &'a Value,
    pub(super) source: &'a Source,
    pub(super) errors: &'a mut Vec<ConfigError>,
}

impl Pruning<'_> {
    /// What is left of `value`, which stands at `path` and should look like `known`.
    pub(super) fn prune(&mut self, path: &[String], known: &Value, value: Value) -> Option<Value> {
        match (known, value) {
            (Value::Dict(..), Value::Dict(tag, entries)) if is_open(path) => {
                let mut flat = Dict::new();
                flatten("", entries, &mut flat);
                Some(Value::Dict(tag, flat))
            }
            (Value::Dict(_, known), Value::Dict(tag, entries)) => {
                let mut kept = Dict::new();
                for (key, value) in entries {
                    let path = [path, std::slice::from_ref(&key)].concat();
                    match known.get(&key) {
                        Some(known) => kept.extend(self.prune(&path, known, value).map(|value| (key, value))),
                        None => self.unknown(&path),
                    }
                }
                Some(Value::Dict(tag, kept))
            }
            (Value::Array(_, known), Value::Array(tag, items)) => {
                let items = items.into_iter().enumerate().map(|(index, item)| {
                    let path = [path, &[index.to_string()]].concat();
                    // The others keep their indices.
                    known.first().and_then(|known| self.prune(&path, known, item)).unwrap_or_else(|| Dict::new().into())
                });
                let items = items.collect();
                Some(Value::Array(tag, items))
            }
            (Value::Array(_, known), value) if known.iter().any(|known| known.as_dict().is_some()) => {
                self.shape(path, &format!("a list of tables, as `[[{}]]` writes it", path.join(".")), &value);
                None
            }
            (Value::Dict(..), value) => {
                self.shape(path, "a table", &value);
                None
            }
            (_, value) => Some(value),
        }
    }

    /// Reports a key that is not there.
    pub(super) fn unknown(&mut self, path: &[String]) {
        let nearest = nearest(self.template, path);
        self.errors.push(ConfigError {
            kind: ErrorKind::Unknown,
            key: path.join("."),
            expected: nearest.map_or_else(|| "a known key".to_owned(), |key| format!("a known key such as `{key}`")),
            found: "an unknown key".to_owned(),
            source: self.source.clone(),
        });
    }

    fn shape(&mut self, path: &[String], expected: &str, value: &Value) {
        self.errors.push(ConfigError {
            kind: ErrorKind::Type,
            key: path.join("."),
            expected: expected.to_owned(),
            found: type_of(value).to_owned(),
            source: self.source.clone(),
        });
    }
}

/// `a.b = 1` without quotes is a table within a table; properties mean the key `a.b`.
fn flatten(prefix: &str, entries: Dict, flat: &mut Dict) {
    for (key, value) in entries {
        let key = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
        match value {
            Value::Dict(_, entries) if !entries.is_empty() => flatten(&key, entries, flat),
            value => {
                flat.insert(key, value);
            }
        }
    }
}

/// What a value is, without saying which.
pub(super) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::String(..) | Value::Char(..) => "a string",
        Value::Bool(..) => "a boolean",
        Value::Num(..) => "a number",
        Value::Empty(..) => "nothing",
        Value::Dict(..) => "a table",
        Value::Array(..) => "a list",
    }
}

/// The known key that an unknown one was probably meant to be: a sibling of like name, else any key.
fn nearest(template: &Value, path: &[String]) -> Option<String> {
    let (last, parents) = path.split_last()?;
    let mut known = Vec::new();
    every_key(template, &mut Vec::new(), &mut known);
    let of_template = |path: &[String]| -> Vec<String> {
        path.iter().map(|level| if level.parse::<usize>().is_ok() { "0".to_owned() } else { level.clone() }).collect()
    };
    let close = |a: &str, b: &str| Some(strsim::osa_distance(a, b)).filter(|by| *by <= 1 + a.chars().count() / 3);
    let siblings = of_template(parents);
    let best = |among: &dyn Fn(&&Vec<String>) -> bool| {
        known
            .iter()
            .filter(among)
            .filter_map(|key| Some((close(last, key.last()?)?, key)))
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, key)| key)
    };
    let sibling = best(&|key| key.len() == path.len() && key.starts_with(&siblings));
    match sibling.or_else(|| best(&|_| true)) {
        Some(key) if key.starts_with(&siblings) && key.len() == path.len() => {
            Some([parents, &key[parents.len()..]].concat().join("."))
        }
        Some(key) => Some(key.join(".")),
        None => None,
    }
}

/// Every key of the template, tables too.
pub(super) fn every_key(value: &Value, path: &mut Vec<String>, keys: &mut Vec<Vec<String>>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Dict(_, entries) => entries.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(_, items) if items.iter().any(|item| item.as_dict().is_some()) => {
            items.iter().enumerate().map(|(index, item)| (index.to_string(), item)).collect()
        }
        _ => return,
    };
    for (key, value) in children {
        path.push(key);
        keys.push(path.clone());
        every_key(value, path, keys);
        path.pop();
    }
}
