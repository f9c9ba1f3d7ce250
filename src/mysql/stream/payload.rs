//! `TRANSACTION_PAYLOAD_EVENT`: a transaction's events as one zstd stream (`binlog_transaction_compression`).
//!
//! Promise: events are expanded one at a time, so a transaction that is large only when expanded costs no more memory
//! than its largest event and the window that it was compressed with. What does not expand to exactly what the event
//! says is an error.

use std::io::{self, BufReader, Cursor, Read};

use zstd::stream::read::Decoder;

use crate::mysql::decode::{self, DecodeError, event_size};

/// Windows up to 128 MiB, the largest that the server's compression levels use; level 3, its default, takes 2 MiB.
const LARGEST_WINDOW_LOG: u32 = 27;

/// The largest event there can be: `max_allowed_packet` is 1 GiB at most, and the row that fills it has a header.
const LARGEST_EVENT: u32 = (1 << 30) + (1 << 20);

/// Fields of the event (`Transaction_payload` in the server's `libs/mysql/binlog/event/codecs/binary.cpp`).
mod field {
    pub(super) const END: u64 = 0;
    pub(super) const PAYLOAD_SIZE: u64 = 1;
    pub(super) const COMPRESSION: u64 = 2;
    pub(super) const UNCOMPRESSED_SIZE: u64 = 3;
}

/// Values of the compression field.
mod compression {
    pub(super) const ZSTD: u64 = 0;
    pub(super) const NONE: u64 = 255;
}

/// A compressed transaction that is being expanded.
pub(in crate::mysql) struct Payload {
    events: Box<dyn Read + Send>,
    left: u64,
    event: Vec<u8>,
}

fn bad(problem: &'static str) -> DecodeError {
    DecodeError::BadPayload { problem }
}

fn damaged(error: &io::Error) -> DecodeError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        bad("it ends within an event")
    } else {
        bad("the zstd stream is damaged")
    }
}

impl Payload {
    /// Opens the body of the event.
    pub(in crate::mysql) fn open(body: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = decode::Cursor::new(body, "a TRANSACTION_PAYLOAD event");
        let (mut size, mut compression, mut uncompressed) = (None, None, None);
        loop {
            let field = cursor.lenenc()?;
            if field == field::END {
                break;
            }
            let value = cursor.lenenc_bytes()?;
            let number = || decode::Cursor::new(value, "a field of a TRANSACTION_PAYLOAD event").lenenc();
            match field {
                field::PAYLOAD_SIZE => size = Some(number()?),
                field::COMPRESSION => compression = Some(number()?),
                field::UNCOMPRESSED_SIZE => uncompressed = Some(number()?),
                _ => {}
            }
        }
        let payload = cursor.take_u64(size.ok_or_else(|| bad("it does not say how large it is"))?)?;
        if !cursor.is_empty() {
            return Err(bad("something follows it"));
        }
        let source = BufReader::new(Cursor::new(payload.to_vec()));
        let (events, left): (Box<dyn Read + Send>, _) = match compression {
            Some(compression::ZSTD) => {
                let mut decoder = Decoder::with_buffer(source).map_err(|error| damaged(&error))?;
                decoder.window_log_max(LARGEST_WINDOW_LOG).map_err(|error| damaged(&error))?;
                let left = uncompressed.ok_or_else(|| bad("it does not say how large it expands to"))?;
                (Box::new(decoder), left)
            }
            Some(compression::NONE) => (Box::new(source), payload.len() as u64),
            _ => return Err(bad("it is compressed in a way that is not known")),
        };
        Ok(Self { events, left, event: Vec::new() })
    }

    /// The next event, whole; `None` at the end.
    pub(in crate::mysql) fn next_event(&mut self) -> Result<Option<&[u8]>, DecodeError> {
        const HEADER: usize = decode::Header::LEN;
        if self.left == 0 {
            let more = self.events.read(&mut [0]).map_err(|error| damaged(&error))?;
            return if more == 0 { Ok(None) } else { Err(bad("it expands to more than it says")) };
        }
        self.event.resize(HEADER, 0);
        self.events.read_exact(&mut self.event).map_err(|error| damaged(&error))?;
        let size = event_size(&self.event)?;
        self.left = self.left.checked_sub(size.into()).ok_or_else(|| bad("an event is larger than what is left"))?;
        if size > LARGEST_EVENT {
            return Err(bad("an event is larger than any can be"));
        }
        // Read as it comes: memory grows with what is there, not with what is claimed.
        let rest = u64::from(size) - HEADER as u64;
        let read = self.events.by_ref().take(rest).read_to_end(&mut self.event).map_err(|error| damaged(&error))?;
        if read as u64 == rest { Ok(Some(&self.event)) } else { Err(bad("it ends within an event")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An event of `size` bytes with header.
    fn event(size: u32) -> Vec<u8> {
        let mut bytes = vec![7; size as usize];
        bytes[9..13].copy_from_slice(&size.to_le_bytes());
        bytes
    }

    fn body(events: &[u8], claimed: u16) -> Vec<u8> {
        let packed = zstd::encode_all(events, 3).unwrap();
        let [low, high] = u16::try_from(packed.len()).unwrap().to_le_bytes();
        let [claimed_low, claimed_high] = claimed.to_le_bytes();
        let mut body = vec![2, 1, 0, 3, 3, 252, claimed_low, claimed_high, 1, 3, 252, low, high, 0];
        body.extend(packed);
        body
    }

    fn drain(body: &[u8]) -> Result<Vec<Vec<u8>>, DecodeError> {
        let mut payload = Payload::open(body)?;
        let mut events = Vec::new();
        while let Some(event) = payload.next_event()? {
            events.push(event.to_vec());
        }
        Ok(events)
    }

    #[test]
    fn given_a_payload_when_expanded_then_its_events_come_one_by_one() {
        let events = [event(19), event(300), event(21)];
        assert_eq!(drain(&body(&events.concat(), 340)).unwrap(), events);
    }

    #[test]
    fn given_a_payload_that_is_not_what_it_says_when_expanded_then_that_is_an_error() {
        let whole = body(&[event(19), event(300)].concat(), 319);
        for (claimed, problem) in [
            (318, "an event is larger than what is left"),
            (19, "it expands to more than it says"),
            (338, "it ends within an event"),
        ] {
            let events = [event(19), event(300)].concat();
            assert_eq!(drain(&body(&events, claimed)).unwrap_err(), bad(problem), "{claimed}");
        }
        for end in 0..whole.len() {
            assert!(drain(&whole[..end]).is_err(), "{end}");
        }
        for at in 14..18 {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(drain(&damaged).is_err(), "{at}");
        }
    }

    #[test]
    fn given_an_event_that_claims_a_gigabyte_when_expanded_then_memory_is_what_is_there() {
        let mut huge = event(100);
        huge[9..13].copy_from_slice(&(1_u32 << 30).to_le_bytes());
        let packed = zstd::encode_all(&huge[..], 3).unwrap();
        let mut body = vec![2, 1, 0, 3, 5, 253, 0xff, 0xff, 0xff, 0, 1, 1, u8::try_from(packed.len()).unwrap(), 0];
        body[4] = 4;
        body.remove(9);
        body.extend(packed);
        let mut payload = Payload::open(&body).unwrap();
        assert!(payload.next_event().is_err());
        assert!(payload.event.capacity() < 1 << 16);
    }

    proptest! {
        #[test]
        fn given_hostile_bytes_when_expanded_then_nothing_panics(
            data in prop::collection::vec(any::<u8>(), 0..200), at in 0_usize..60, with: u8,
        ) {
            let _ = drain(&data);
            let mut near = body(&[event(19), event(300)].concat(), 319);
            let at = at % near.len();
            near[at] = with;
            let _ = drain(&near);
        }
    }
}
