//! `MariaDB`'s compressed events (`log_bin_compress=ON`): the tail of a statement or of a rows event as a zlib stream.
//!
//! In front of the stream stands a byte of `0x80 | algorithm << 4 | n`, and then the uncompressed size in `n` bytes, the
//! highest first (`binlog_buf_compress` in `MariaDB`'s `sql/log_event.cc`). Algorithm 0, zlib, is the only one.

use std::io::Read;

use flate2::read::ZlibDecoder;

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
    let size = be_u64(size);
    if size > LARGEST || size > stream.len() as u64 * LARGEST_RATIO {
        return Err(bad("it claims to be larger than it can be"));
    }
    let before = out.len();
    out.reserve(usize::try_from(size).map_err(|_| bad("it claims to be larger than it can be"))?);
    let mut decoder = ZlibDecoder::new(stream);
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
