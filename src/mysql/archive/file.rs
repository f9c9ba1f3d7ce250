//! The frames of a binlog file.

use std::io::{BufReader, Read};

use super::super::decode::{Checksum, DecodeError, Dialect, Event, Header, event_size, kind};
use super::{Unreadable, encrypted};

/// What every file begins with.
const MAGIC: &[u8] = b"\xfebin";

/// What a file begins with that `MySQL` has encrypted; in `MariaDB` an event says so.
const ENCRYPTED: &[u8] = b"\xfdbin";

/// Bytes read at once.
const BUFFER: usize = 1 << 16;

/// A file of events, read from its beginning.
pub(super) struct EventFile {
    input: BufReader<Box<dyn Read>>,
    checksum: Checksum,
    offset: u64,
    event: Vec<u8>,
}

impl EventFile {
    /// Reads what the file says about itself: its description stands first.
    pub(super) fn open(input: Box<dyn Read>) -> Result<(Self, Dialect), Unreadable> {
        let mut file = Self {
            input: BufReader::with_capacity(BUFFER, input),
            checksum: Checksum::None,
            offset: MAGIC.len() as u64,
            event: Vec::new(),
        };
        let mut magic = Vec::new();
        file.input.by_ref().take(file.offset).read_to_end(&mut magic)?;
        if magic == ENCRYPTED {
            return Err(encrypted());
        }
        let foreign = || Unreadable::Fault("not_a_binlog", "the file does not begin as a binlog does".to_owned());
        if magic != MAGIC {
            return Err(foreign());
        }
        let description = file.next_event()?.filter(|event| event.header.kind == kind::FORMAT_DESCRIPTION);
        let body = description.ok_or_else(foreign)?.body;
        // The format's version in 2 bytes, then the server's in 50.
        let maria = body.get(2..52).is_some_and(|version| version.windows(7).any(|part| part == b"MariaDB"));
        Ok((file, if maria { Dialect::MariaDb } else { Dialect::MySql }))
    }

    /// Where the next event begins, in bytes.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next event, checked; `None` at the end of the file.
    pub(super) fn next_event(&mut self) -> Result<Option<Event<'_>>, Unreadable> {
        self.event.clear();
        if self.fill(Header::LEN)? == 0 {
            return Ok(None);
        }
        let size = event_size(&self.event)? as usize;
        self.fill(size - Header::LEN)?;
        self.offset += size as u64;
        if self.event.get(4) == Some(&kind::FORMAT_DESCRIPTION) {
            unflag(&mut self.event);
            self.checksum = Checksum::announced_by(&self.event)?;
        }
        Ok(Some(Event::parse(&self.event, self.checksum)?))
    }

    /// Reads so many bytes more of the event, or none where it would begin and the file ends. Memory grows with what is
    /// there, not with what an event claims.
    fn fill(&mut self, needed: usize) -> Result<usize, Unreadable> {
        let offset = self.event.len();
        let left = self.input.by_ref().take(needed as u64).read_to_end(&mut self.event)?;
        if left < needed && (offset, left) != (0, 0) {
            let needed = needed as u64;
            return Err(DecodeError::Truncated { part: "an event", offset, needed, left }.into());
        }
        Ok(left)
    }
}

/// Takes the flag off by which a file says that it is being written (`LOG_EVENT_BINLOG_IN_USE_F`): the checksum does not
/// cover it.
fn unflag(event: &mut [u8]) {
    const FLAGS: usize = 17;
    const IN_USE: u8 = 1;
    if let Some(flags) = event.get_mut(FLAGS) {
        *flags &= !IN_USE;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Archive, ArchiveError};
    use super::*;
    use crate::source::Fault;
    use crate::table::TablePattern;

    const CAPTURED: &[u8] = include_bytes!("../../../tests/data/mysql_9_7_full.binlog");

    /// The error that ends these bytes, and how many things were said before.
    fn read(bytes: &[u8]) -> (usize, Option<ArchiveError>) {
        let mut archive = Archive::new(vec![TablePattern::parse("*.*").unwrap()], Vec::new());
        if let Err(error) = archive.open("f", Box::new(std::io::Cursor::new(bytes.to_vec()))) {
            return (0, Some(error));
        }
        let mut said = 0;
        loop {
            match archive.next() {
                Ok(Some(_)) => said += 1,
                Ok(None) => return (said, None),
                Err(error) => {
                    assert!(archive.next().unwrap().is_none(), "after an error there is no more");
                    return (said, Some(error));
                }
            }
        }
    }

    fn fault(bytes: &[u8]) -> Fault {
        match read(bytes).1 {
            Some(ArchiveError::Fault(fault)) => fault,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn given_something_else_than_a_binlog_when_read_then_it_is_refused_by_name() {
        for other in [&b""[..], b"\xfeb", b"PK\x03\x04", b"\xfebin"] {
            assert_eq!(fault(other).name, "not_a_binlog", "{other:?}");
        }
        assert_eq!(fault(b"\xfdbin\x01\x02").name, "encrypted_binlog");
    }

    #[test]
    fn given_an_event_that_says_encryption_starts_when_read_then_it_is_refused_by_name() {
        let description = event_size(&CAPTURED[4..]).unwrap() as usize + 4;
        let mut event = vec![0, 0, 0, 0, kind::MARIADB_START_ENCRYPTION, 1, 0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        event.extend(crc32fast::hash(&event).to_le_bytes());
        assert_eq!(fault(&[&CAPTURED[..description], &event].concat()).name, "encrypted_binlog");
    }

    #[test]
    fn given_a_file_cut_anywhere_when_read_then_only_a_cut_between_transactions_is_a_clean_end() {
        let (whole, error) = read(CAPTURED);
        assert!(whole > 3 && error.is_none(), "{error:?}");
        let clean: Vec<_> = (4..CAPTURED.len()).filter(|&end| read(&CAPTURED[..end]).1.is_none()).collect();
        // Behind the description, the list of GTIDs, and each transaction but the last.
        assert!(clean.len() > 3 && clean.len() < 40, "{clean:?}");
    }

    #[test]
    fn given_a_damaged_byte_when_read_then_the_file_ends_there_with_its_place() {
        for at in (130..CAPTURED.len()).step_by(7) {
            let mut damaged = CAPTURED.to_vec();
            damaged[at] ^= 0x10;
            assert!(fault(&damaged).at.starts_with("f:") || fault(&damaged).at.contains("(f:"), "{at}");
        }
    }

    proptest! {
        #[test]
        fn given_hostile_bytes_when_read_then_nothing_panics_and_memory_is_what_is_there(
            data in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = read(&[MAGIC, &data].concat());
            let mut file = EventFile {
                input: BufReader::new(Box::new(std::io::Cursor::new(data))),
                checksum: Checksum::None,
                offset: 4,
                event: Vec::new(),
            };
            while let Ok(Some(_)) = file.next_event() {}
            prop_assert!(file.event.capacity() < 1 << 16);
        }
    }
}
