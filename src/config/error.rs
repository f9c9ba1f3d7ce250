//! What is wrong with a configuration: every error with its key, what was expected and found, and where it stands.

use std::cmp::Ordering;
use std::fmt;
use std::path::PathBuf;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// This file.
    File(PathBuf),
    /// The environment variable of this name.
    Environment(String),
    /// A `--set` flag for this key.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(key) => write!(f, "--set {key}"),
        }
    }
}

/// What kind of error it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorKind {
    /// A file cannot be read, or is not TOML.
    Unreadable,
    /// There is no such key.
    Unknown,
    /// A required key is not set.
    Missing,
    /// The value is not of the key's type.
    Type,
    /// The value cannot be used.
    Invalid,
    /// The value would weaken a promise.
    Refused,
}

/// One error. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// What kind of error it is.
    pub kind: ErrorKind,
    /// The key, levels separated by dots; empty for a whole file.
    pub key: String,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
    /// Where it stands.
    pub source: Source,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, expected, found, source, .. } = self;
        if key.is_empty() {
            write!(f, "expected {expected}, found {found} ({source})")
        } else {
            write!(f, "{key}: expected {expected}, found {found} ({source})")
        }
    }
}

/// Every error of a configuration, in an order that does not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    pub(super) fn new(mut errors: Vec<ConfigError>) -> Self {
        errors.sort_by(|a, b| {
            (a.kind != ErrorKind::Unreadable)
                .cmp(&(b.kind != ErrorKind::Unreadable))
                .then_with(|| by_levels(&a.key, &b.key))
                .then_with(|| {
                    (a.kind, &a.source, &a.expected, &a.found).cmp(&(b.kind, &b.source, &b.expected, &b.found))
                })
        });
        errors.dedup();
        Self(errors)
    }

    /// The errors one by one.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &ConfigError> {
        self.0.iter()
    }
}

/// Orders keys level by level, list indices as numbers.
pub(super) fn by_levels(a: &str, b: &str) -> Ordering {
    let level = |level: &str| (level.parse::<usize>().unwrap_or(usize::MAX), level.to_owned());
    a.split('.').map(level).cmp(b.split('.').map(level))
}

/// One line per error.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            // A value may span lines; its error does not.
            f.write_str(&error.to_string().replace(['\n', '\r'], " "))?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
