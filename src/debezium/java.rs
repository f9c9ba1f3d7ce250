//! The file of Connect's standalone mode: a `HashMap<byte[], byte[]>` as Java serialises it, and nothing else.
//!
//! The form is that of the "Java Object Serialization Specification", chapter 6.4; what a map writes is told by
//! `java.util.HashMap.writeObject`.

use super::Entry;

/// The file is not such a map.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a file of offsets as Kafka Connect's standalone mode writes it (at byte {at})")]
pub struct NotOffsets {
    at: usize,
}

const MAGIC: [u8; 4] = [0xac, 0xed, 0, 5];
const NULL: u8 = 0x70;
const REFERENCE: u8 = 0x71;
const CLASS: u8 = 0x72;
const OBJECT: u8 = 0x73;
const ARRAY: u8 = 0x75;
const BLOCK: u8 = 0x77;
const END: u8 = 0x78;

struct Bytes<'a> {
    all: &'a [u8],
    at: usize,
}

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], NotOffsets> {
        let taken = self.all.get(self.at..).and_then(|rest| rest.get(..count)).ok_or(NotOffsets { at: self.at })?;
        self.at += count;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, NotOffsets> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self, bytes: usize) -> Result<usize, NotOffsets> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    fn expect(&mut self, expected: &[u8]) -> Result<(), NotOffsets> {
        let at = self.at;
        if self.take(expected.len())? == expected { Ok(()) } else { Err(NotOffsets { at }) }
    }

    fn class(&mut self, name: &str) -> Result<(), NotOffsets> {
        let length = self.number(2)?;
        if length != name.len() {
            return Err(NotOffsets { at: self.at });
        }
        self.expect(name.as_bytes())
    }

    /// An array of bytes, or null.
    fn array(&mut self) -> Result<Option<Vec<u8>>, NotOffsets> {
        match self.byte()? {
            NULL => return Ok(None),
            ARRAY => {}
            _ => return Err(NotOffsets { at: self.at - 1 }),
        }
        match self.byte()? {
            // The first of them brings the class of all.
            CLASS => {
                self.class("[B")?;
                // Version, flags, and no fields.
                self.take(8 + 1)?;
                self.expect(&[0, 0, END, NULL])?;
            }
            REFERENCE => _ = self.take(4)?,
            _ => return Err(NotOffsets { at: self.at - 1 }),
        }
        let length = self.number(4)?;
        Ok(Some(self.take(length)?.to_vec()))
    }
}

/// The entries of such a file.
pub fn entries(file: &[u8]) -> Result<Vec<Entry>, NotOffsets> {
    let mut bytes = Bytes { all: file, at: 0 };
    bytes.expect(&MAGIC)?;
    bytes.expect(&[OBJECT, CLASS])?;
    bytes.class("java.util.HashMap")?;
    bytes.take(8 + 1)?;
    // Two fields, a float and an integer.
    bytes.expect(&[0, 2, b'F'])?;
    bytes.class("loadFactor")?;
    bytes.expect(b"I")?;
    bytes.class("threshold")?;
    bytes.expect(&[END, NULL])?;
    bytes.take(4 + 4)?;
    bytes.expect(&[BLOCK, 8])?;
    // How many buckets, then how many entries.
    bytes.take(4)?;
    let count = bytes.number(4)?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let at = bytes.at;
        let key = bytes.array()?.ok_or(NotOffsets { at })?;
        entries.push((key, bytes.array()?));
    }
    bytes.expect(&[END])?;
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::debezium::{OffsetError, Offsets};

    /// Written by `ObjectOutputStream` of Java 17 as Connect's `FileOffsetBackingStore` does: connectors `delivery` and
    /// `orders`, and one that was deleted.
    const FILE: &[u8] = include_bytes!("../../tests/data/debezium_offsets.dat");

    #[test]
    fn a_file_that_java_wrote_gives_every_entry() {
        let entries = entries(FILE).unwrap();
        assert_eq!(entries.len(), 3);
        assert!(entries.iter().any(|(key, value)| key.starts_with(b"[\"gone\"") && value.is_none()));
        let offsets = Offsets::of(entries);
        let (_, position) = offsets.position(Some("delivery")).unwrap();
        assert_eq!(position.to_string(), "gtid=3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5");
        assert_eq!(offsets.position(None), Err(OffsetError::Several(vec!["delivery".into(), "other".into()])));
    }

    #[test]
    fn whatever_else_a_file_holds_it_is_refused_and_takes_no_memory() {
        for end in 0..FILE.len() {
            assert!(entries(&FILE[..end]).is_err(), "cut at {end}");
        }
        // Every byte turned: refused, or other texts, but never more than the file holds.
        for at in 0..FILE.len() {
            let mut turned = FILE.to_vec();
            turned[at] ^= 0xff;
            if let Ok(entries) = entries(&turned) {
                let bytes: usize =
                    entries.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum();
                assert!(bytes <= FILE.len());
            }
        }
        assert!(entries(b"{}").unwrap_err().to_string().contains("not a file of offsets"));
    }
}
