//! Base64 as the server writes it.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// How many characters the server puts on a line (`base64_encode` in `include/base64.h`).
const LINE: usize = 76;

/// Appends `data` to `out`, with `newline` after every 76 characters that are followed by more.
pub(in crate::mysql) fn write(out: &mut Vec<u8>, data: &[u8], newline: &[u8]) {
    let mut line = 0;
    for chunk in data.chunks(3) {
        if line == LINE {
            line = 0;
            out.extend_from_slice(newline);
        }
        line += 4;
        let mut group = [0; 4];
        for (to, from) in group.iter_mut().skip(1).zip(chunk) {
            *to = *from;
        }
        let bits = u32::from_be_bytes(group);
        for (place, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let symbol = ALPHABET.get(((bits >> shift) & 0x3f) as usize).copied().unwrap_or(b'=');
            out.push(if place <= chunk.len() { symbol } else { b'=' });
        }
    }
}
