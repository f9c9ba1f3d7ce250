//! The shard guard: whether a row is in the table that the writers' own rule says.
//!
//! Promise: a row in the wrong table is noticed. Order holds within a table only, so two events of one aggregate in two
//! tables may change places, and nothing else would tell.

use std::fmt;

use super::murmur2::murmur2;

/// What is made of the column before the remainder is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hash {
    /// The number that the column holds.
    Number,
    /// As `MySQL`'s `CRC32()`.
    Crc32,
    /// As Kafka's partitioner, its sign bit cleared.
    Murmur2,
    /// FNV-1a of 32 bits.
    Fnv,
}

/// A writers' rule: `crc32(aggregateid) % 4`, or `crc32(aggregateid) % 4 + 1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardRule {
    text: String,
    hash: Hash,
    /// The column, as written.
    pub(super) column: String,
    shards: u32,
    plus: u32,
}

/// A text is not such a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not such as crc32(aggregateid) % 4; there are crc32, murmur2, fnv, and the column itself for a number"
)]
pub struct ShardRuleError(String);

impl fmt::Display for ShardRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl ShardRule {
    /// Reads a rule.
    pub fn parse(text: &str) -> Result<Self, ShardRuleError> {
        let wrong = || ShardRuleError(text.to_owned());
        let (of, modulo) = text.rsplit_once('%').ok_or_else(wrong)?;
        let (shards, plus) = modulo.split_once('+').unwrap_or((modulo, "0"));
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| wrong());
        let (hash, column) = match of.trim().split_once('(') {
            None => (Hash::Number, of.trim()),
            Some((name, column)) => {
                let hash = match name.trim().to_ascii_lowercase().as_str() {
                    "crc32" => Hash::Crc32,
                    "murmur2" => Hash::Murmur2,
                    "fnv" => Hash::Fnv,
                    _ => return Err(wrong()),
                };
                (hash, column.trim().strip_suffix(')').ok_or_else(wrong)?.trim())
            }
        };
        let (shards, plus) = (number(shards)?, number(plus)?);
        if column.is_empty() || column.contains(['(', ')', '%']) || shards == 0 {
            return Err(wrong());
        }
        Ok(Self { text: text.to_owned(), hash, column: column.to_owned(), shards, plus })
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.shards as usize
    }

    /// The shards' numbers are those at the ends of the tables' names, which begin with this one; `None` when the rule
    /// counts the tables from 0.
    pub fn first(&self) -> Option<u32> {
        (self.plus > 0).then_some(self.plus)
    }

    /// The shard of a value, from 0; `None` when it is no number and should be one.
    pub(super) fn shard(&self, value: &[u8]) -> Option<u32> {
        let hash = match self.hash {
            Hash::Number => {
                let number: i128 = std::str::from_utf8(value).ok()?.trim().parse().ok()?;
                // As MySQL's `%` on what is positive; applications in other languages agree there only.
                return u32::try_from(number.unsigned_abs() % u128::from(self.shards)).ok();
            }
            Hash::Crc32 => crc32fast::hash(value),
            Hash::Murmur2 => murmur2(value) & 0x7fff_ffff,
            Hash::Fnv => fnv(value),
        };
        Some(hash % self.shards)
    }
}

fn fnv(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_their_namesakes() {
        // From the draft of the algorithm's authors (draft-eastlake-fnv).
        assert_eq!([fnv(b""), fnv(b"a"), fnv(b"foobar")], [0x811c_9dc5, 0xe40c_292c, 0xbf9c_f968]);
        assert_eq!(crc32fast::hash(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_rule_gives_the_shard() {
        let shard = |rule: &str, value: &str| ShardRule::parse(rule).unwrap().shard(value.as_bytes());
        // SELECT CRC32('order-7') % 4, and so on.
        assert_eq!(shard("crc32(aggregateid) % 4", "123456789"), Some(0xcbf4_3926 % 4));
        assert_eq!(
            shard("Murmur2( aggregateid )%8", "foobar"),
            Some((-790_332_482_i32).cast_unsigned() % 0x8000_0000 % 8)
        );
        assert_eq!(shard("tenant % 10", "1234"), Some(4));
        assert_eq!((shard("tenant % 10", "-13"), shard("tenant % 10", "x")), (Some(3), None));
        assert_eq!(ShardRule::parse("fnv(a) % 4 + 1").unwrap().first(), Some(1));
        for bad in
            ["", "crc32(a)", "crc32(a) % 0", "md5(a) % 4", "crc32() % 4", "crc32(a % 4", "a % x", "crc32((a)) % 2"]
        {
            assert!(ShardRule::parse(bad).is_err(), "{bad}");
        }
    }
}
