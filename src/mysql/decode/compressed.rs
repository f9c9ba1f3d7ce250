//! `MariaDB`'s compressed events (`log_bin_compress=ON`): the tail of a statement or of a rows event as a zlib stream.
//!
//! In front of the stream stands a byte of `0x80 | algorithm << 4 | n`, and then the uncompressed size in `n` bytes, the
//! highest first (`binlog_buf_compress` in `MariaDB`'s `sql/log_event.cc`). Algorithm 0, zlib, is the only one.
//!
//! Its COMPRESSED columns have a head of their own: 0 in front of a value as it is, or `0x80 | bare << 3 | n`, the size as
//! above, and a deflate stream, in the frame of zlib unless it is bare (`compress_zlib` in `sql/field_comp.cc`).

use std::io::Read;

use flate2::read::{DeflateDecoder, ZlibDecoder};

use super::error::DecodeError;
use super::number::be_u64;
use super::rows::{Head, WRITE_ROWS_V1, WRITE_ROWS_V2};

/// The largest event there can be: `max_allowed_packet` is 1 GiB at most.
const LARGEST: u64 = 1 << 30;

/// No zlib stream expands to more than this many times its size.
const LARGEST_RATIO: u64 = 1040;

/// Expands `data` to the end of `out`. Nothing is taken on trust: what the bytes say about their size has to be possible
/// before memory is set aside, and true after.
pub(super) fn uncompress(data: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let bad = |problem| DecodeError::BadCompression { problem };
    let (&head, rest) = data.split_first().ok_or_else(|| bad("it is empty"))?;
    if head & 0x80 == 0 || head & 0x70 != 0 {
        return Err(bad("the algorithm is not zlib"));
    }
    let (size, stream) = rest.split_at_checked(usize::from(head & 7)).ok_or_else(|| bad("its size is cut short"))?;
    expand(ZlibDecoder::new(stream), be_u64(size), stream.len(), out)
}

/// The value of a COMPRESSED column, appended to `out`; an empty one has no head.
pub(super) fn uncompress_value(data: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let bad = |problem| DecodeError::BadCompression { problem };
    let Some((&head, rest)) = data.split_first() else { return Ok(()) };
    if head == 0 {
        out.extend_from_slice(rest);
        return Ok(());
    }
    if head & 0xf0 != 0x80 {
        return Err(bad("the algorithm is not zlib"));
    }
    let (size, stream) = rest.split_at_checked(usize::from(head & 7)).ok_or_else(|| bad("its size is cut short"))?;
    if head & 8 != 0 {
        expand(DeflateDecoder::new(stream), be_u64(size), stream.len(), out)
    } else {
        expand(ZlibDecoder::new(stream), be_u64(size), stream.len(), out)
    }
}

/// Appends what the decoder of so many bytes gives, which has to be of this size.
fn expand(mut decoder: impl Read, size: u64, from: usize, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let bad = |problem| DecodeError::BadCompression { problem };
    if size > LARGEST || size > from as u64 * LARGEST_RATIO {
        return Err(bad("it claims to be larger than it can be"));
    }
    let before = out.len();
    out.reserve(usize::try_from(size).map_err(|_| bad("it claims to be larger than it can be"))?);
    decoder.by_ref().take(size).read_to_end(out).map_err(|_| bad("the zlib stream is damaged"))?;
    // The end has to be seen too, for the stream's own checksum stands there.
    let more = decoder.read(&mut [0]).map_err(|_| bad("the zlib stream is damaged"))?;
    if more > 0 || (out.len() - before) as u64 != size {
        return Err(bad("it does not expand to the size it claims"));
    }
    Ok(())
}

/// The body of a compressed rows event as that of a plain one, appended to `out`. Returns the plain event's type code.
pub fn uncompress_rows(type_code: u8, body: &[u8], out: &mut Vec<u8>) -> Result<u8, DecodeError> {
    let plain = match type_code {
        166 => WRITE_ROWS_V1,
        169 => WRITE_ROWS_V2,
        code => return Err(DecodeError::NotWriteRows { code }),
    };
    let head = Head::parse(plain, body)?;
    let (kept, rows) = body.split_at(body.len() - head.rest.len());
    out.extend_from_slice(kept);
    uncompress(rows, out)?;
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, ZlibEncoder};
    use proptest::prelude::*;

    use super::*;

    fn value(data: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let mut out = b"before".to_vec();
        uncompress_value(data, &mut out).map(|()| out.split_off(6))
    }

    #[test]
    fn given_values_of_compressed_columns_when_expanded_then_they_are_those_that_were_stored() {
        let plain = b"payload ".repeat(100);
        let mut deflated = DeflateEncoder::new(Vec::new(), Compression::default());
        deflated.write_all(&plain).unwrap();
        let deflated = deflated.finish().unwrap();
        let mut wrapped = ZlibEncoder::new(Vec::new(), Compression::default());
        wrapped.write_all(&plain).unwrap();
        let wrapped = wrapped.finish().unwrap();
        assert_eq!(value(&[&[0x8a, 0x03, 0x20], &deflated[..]].concat()).unwrap(), plain);
        assert_eq!(value(&[&[0x82, 0x03, 0x20], &wrapped[..]].concat()).unwrap(), plain);
        assert_eq!((value(b"").unwrap(), value(b"\0as it is").unwrap()), (Vec::new(), b"as it is".to_vec()));
        for lie in [
            [&[0x8a, 0x03, 0x21], &deflated[..]].concat(),
            [&[0x8a, 0x03, 0x1f], &deflated[..]].concat(),
            [&[0x8c, 0x40, 0, 0, 0], &deflated[..]].concat(),
            [&[0x82, 0x03, 0x20], &deflated[..]].concat(),
            [&[0x9a, 0x03, 0x20], &deflated[..]].concat(),
            vec![0x84, 0],
            b"text".to_vec(),
        ] {
            assert!(value(&lie).is_err(), "{:02x?}", &lie[..2]);
        }
    }

    proptest! {
        #[test]
        fn given_hostile_values_when_expanded_then_no_more_memory_is_taken_than_they_can_hold(
            head in any::<u8>(), data in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut out = Vec::new();
            let _ = uncompress_value(&[&[head], &data[..]].concat(), &mut out);
            prop_assert!(out.capacity() <= 2 * 1040 * 100);
        }
    }
}
