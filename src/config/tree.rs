//! The layers laid over each other: one tree of values, and where each of them comes from.

use std::collections::BTreeMap;

use figment::value::{Dict, Tag, Value};

use super::error::Source;

/// Values, and their sources by path.
pub(super) struct Tree {
    pub(super) root: Value,
    sources: BTreeMap<Vec<String>, Source>,
}

/// A list has no element before the one that is to be set.
pub(super) struct Gap {
    /// The index that would be next.
    pub(super) next: usize,
}

impl Tree {
    pub(super) fn new(defaults: Value) -> Self {
        Self { root: defaults, sources: BTreeMap::new() }
    }

    /// Where the value at a path comes from.
    pub(super) fn source(&self, path: &[String]) -> Source {
        (0..=path.len()).rev().find_map(|length| self.sources.get(&path[..length])).cloned().unwrap_or(Source::Default)
    }

    /// Lays a value over what is at a path: tables are merged, everything else is replaced.
    pub(super) fn lay(&mut self, path: &[String], value: Value, source: &Source) -> Result<(), Gap> {
        let slot = slot(&mut self.root, path)?;
        match value {
            Value::Dict(_, entries) => {
                if slot.as_dict().is_none() {
                    *slot = Dict::new().into();
                    self.forget(path);
                }
                for (key, value) in entries {
                    self.lay(&[path, &[key]].concat(), value, source)?;
                }
            }
            value => {
                *slot = value;
                self.forget(path);
                self.sources.insert(path.to_vec(), source.clone());
            }
        }
        Ok(())
    }

    /// The value at a path.
    pub(super) fn get(&self, path: &[String]) -> Option<&Value> {
        path.iter().try_fold(&self.root, |value, level| match value {
            Value::Dict(_, entries) => entries.get(level),
            Value::Array(_, items) => items.get(level.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// Takes a value out, so that its default is used; says whether it was there.
    pub(super) fn remove(&mut self, path: &[String]) -> bool {
        let Some((last, parents)) = path.split_last() else { return false };
        let parent = parents.iter().try_fold(&mut self.root, |value, level| match value {
            Value::Dict(_, entries) => entries.get_mut(level),
            Value::Array(_, items) => items.get_mut(level.parse::<usize>().ok()?),
            _ => None,
        });
        match parent {
            Some(Value::Dict(_, entries)) => entries.remove(last).is_some(),
            // The others keep their indices; nothing but texts stand alone in lists.
            Some(Value::Array(_, items)) => match last.parse::<usize>().ok().and_then(|index| items.get_mut(index)) {
                Some(item) if item.as_str() != Some("") => {
                    *item = String::new().into();
                    true
                }
                _ => false,
            },
            _ => false,
        }
    }

    fn forget(&mut self, path: &[String]) {
        self.sources.retain(|known, _| !known.starts_with(path));
    }
}

/// The place of a path, made if it is not there. Paths have been checked: a number stands where a list belongs.
fn slot<'a>(root: &'a mut Value, path: &[String]) -> Result<&'a mut Value, Gap> {
    let mut value = root;
    for (depth, level) in path.iter().enumerate() {
        let index = level.parse::<usize>().ok().filter(|_| is_list(&path[..depth]));
        if index.is_some() {
            if value.as_array().is_none() {
                // One pattern alone is a list of one.
                let alone = Some(std::mem::replace(value, Dict::new().into())).filter(|alone| alone.as_str().is_some());
                *value = Value::Array(Tag::Default, alone.into_iter().collect());
            }
        } else if value.as_dict().is_none() {
            *value = Dict::new().into();
        }
        value = match (value, index) {
            (Value::Array(_, items), Some(index)) => {
                let next = items.len();
                if index == next {
                    items.push(Dict::new().into());
                }
                items.get_mut(index).ok_or(Gap { next })?
            }
            (Value::Dict(_, entries), _) => entries.entry(level.clone()).or_insert_with(|| Dict::new().into()),
            _ => return Err(Gap { next: 0 }),
        };
    }
    Ok(value)
}

/// Where the configuration has lists: `outbox`, and the `tables` and `columns.headers` and `columns.envelope` of its elements.
fn is_list(path: &[String]) -> bool {
    let path: Vec<_> = path.iter().map(String::as_str).collect();
    matches!(path[..], ["outbox"] | ["outbox", _, "tables"] | ["outbox", _, "columns", "headers" | "envelope"])
}
