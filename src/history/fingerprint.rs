//! Stable hashes: which shard an aggregate belongs to, and whether a payload is the one that was written.

use std::fmt;

use serde_json::Value;

/// FNV-1a, 64 bits: simple, and the same on every machine and in every release.
struct Fnv(u64);

impl Fnv {
    const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// Length first, so that neighbours cannot run into one another.
    fn feed_text(&mut self, tag: u8, text: &str) {
        self.feed(&[tag]);
        self.feed(&(text.len() as u64).to_le_bytes());
        self.feed(text.as_bytes());
    }

    fn feed_json(&mut self, value: &Value) {
        match value {
            Value::Null => self.feed(b"z"),
            Value::Bool(flag) => self.feed(if *flag { b"t" } else { b"f" }),
            Value::Number(number) => {
                if let Some(whole) = number.as_i64() {
                    self.feed(b"i");
                    self.feed(&whole.to_le_bytes());
                } else if let Some(whole) = number.as_u64() {
                    self.feed(b"u");
                    self.feed(&whole.to_le_bytes());
                } else {
                    self.feed(b"d");
                    self.feed(&number.as_f64().unwrap_or(f64::NAN).to_bits().to_le_bytes());
                }
            }
            Value::String(text) => self.feed_text(b's', text),
            Value::Array(items) => {
                self.feed(b"[");
                for item in items {
                    self.feed_json(item);
                }
                self.feed(b"]");
            }
            Value::Object(members) => {
                let mut names: Vec<&String> = members.keys().collect();
                names.sort_unstable();
                self.feed(b"{");
                for name in names {
                    self.feed_text(b'k', name);
                    self.feed_json(&members[name.as_str()]);
                }
                self.feed(b"}");
            }
        }
    }
}

/// A payload's identity, 64 bits.
///
/// Two texts of the same JSON value have the same fingerprint, because MySQL stores the value and not the text: blanks
/// and the order of members do not count, everything else does. What is not JSON counts byte for byte; a null payload
/// has a fingerprint of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// The fingerprint of a payload.
    pub fn of(payload: Option<&[u8]>) -> Self {
        match payload.map(|bytes| (bytes, serde_json::from_slice::<Value>(bytes))) {
            None => Self::hash(|hash| hash.feed(b"n")),
            Some((_, Ok(value))) => Self::of_json(&value),
            Some((bytes, Err(_))) => Self::hash(|hash| {
                hash.feed(b"b");
                hash.feed(bytes);
            }),
        }
    }

    /// The fingerprint of a payload that is at hand as a value.
    pub fn of_json(value: &Value) -> Self {
        Self::hash(|hash| {
            hash.feed(b"j");
            hash.feed_json(value);
        })
    }

    fn hash(feed: impl FnOnce(&mut Fnv)) -> Self {
        let mut hash = Fnv::new();
        feed(&mut hash);
        Self(hash.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The shard of an aggregate, from 0: FNV-1a (64 bits) of the id, modulo the number of shards. With no shards, 0.
pub fn shard_of(aggregate: &str, shards: usize) -> usize {
    let mut hash = Fnv::new();
    hash.feed(aggregate.as_bytes());
    let shard = hash.0.checked_rem(shards as u64).unwrap_or(0);
    usize::try_from(shard).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Fingerprint {
        Fingerprint::of(Some(text.as_bytes()))
    }

    #[test]
    fn the_value_counts_and_not_its_text() {
        assert_eq!(of(r#"{"a": 1, "bb": [1.50, "ü"]}"#), of(r#"{"bb":[1.5,"\u00fc"],"a":1}"#));
        for other in [r#"{"a":2,"bb":[1.5,"ü"]}"#, r#"{"a":1,"bb":["ü",1.5]}"#, r#"{"a":1,"bb":[1.5,"u"]}"#, "no json"]
        {
            assert_ne!(of(r#"{"a":1,"bb":[1.5,"ü"]}"#), of(other), "{other}");
        }
        assert_ne!(of("null"), Fingerprint::of(None));
        assert_ne!(of(r#"["a","b"]"#), of(r#"["ab"]"#));
    }

    #[test]
    fn shards_are_stable_and_all_used() {
        assert_eq!(shard_of("", 7), usize::try_from(0xcbf2_9ce4_8422_2325_u64 % 7).unwrap());
        let used: std::collections::HashSet<_> = (0..200).map(|n| shard_of(&format!("d-{n}"), 8)).collect();
        assert_eq!(used.len(), 8);
        assert_eq!(shard_of("x", 0), 0);
    }
}
