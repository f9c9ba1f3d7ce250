//! JSON strings out of text, eight bytes at a time.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = ONES * 0x80;

/// Appends a JSON string with the escapes that the server uses (`double_quote` in `sql-common/json_dom.cc`); `false`
/// if the text is not UTF-8.
pub(super) fn write_quoted(out: &mut Vec<u8>, text: &[u8]) -> bool {
    out.push(b'"');
    if is_plain(text) {
        out.extend_from_slice(text);
    } else if !write_escaped(out, text) {
        return false;
    }
    out.push(b'"');
    true
}

fn write_escaped(out: &mut Vec<u8>, text: &[u8]) -> bool {
    if std::str::from_utf8(text).is_err() {
        return false;
    }
    let mut rest = text;
    while let Some((plain, byte, behind)) = next_escape(rest) {
        out.extend_from_slice(plain);
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0x08 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            _ => {
                let low = byte & 0xf;
                let low = if low < 10 { b'0' + low } else { b'a' + low - 10 };
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', b'0' + (byte >> 4), low]);
            }
        }
        rest = behind;
    }
    out.extend_from_slice(rest);
    true
}

/// The highest bit of every byte that has to be escaped: quote, backslash and what is below the space. Above the lowest
/// bit that is set, others may be set for nothing.
fn escapes(word: u64) -> u64 {
    let control = word.wrapping_sub(ONES * 0x20);
    let quote = (word ^ (ONES * 0x22)).wrapping_sub(ONES);
    let backslash = (word ^ (ONES * 0x5c)).wrapping_sub(ONES);
    (control | quote | backslash) & !word & HIGHS
}

/// Whether the text is ASCII without anything to escape, so that it can be copied as it is.
fn is_plain(text: &[u8]) -> bool {
    let (words, _) = text.as_chunks::<8>();
    let special = |word: u64| escapes(word) | word & HIGHS;
    let body = words.iter().fold(0, |found, word| found | special(u64::from_le_bytes(*word)));
    body | special(end_of(text)) == 0
}

/// The last eight bytes; fewer of a shorter text with some of them twice, or spaces if there are none.
fn end_of(text: &[u8]) -> u64 {
    let wide = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    if let Some(end) = text.last_chunk() {
        u64::from_le_bytes(*end)
    } else if let Some((low, high)) = ends::<4>(text) {
        wide(u32::from_le_bytes(low), u32::from_le_bytes(high))
    } else if let Some((low, high)) = ends::<2>(text) {
        // Two bytes of each half are left over, and repeat the others.
        wide(u32::from(u16::from_le_bytes(low)) * 0x1_0001, u32::from(u16::from_le_bytes(high)) * 0x1_0001)
    } else {
        u64::from(text.first().copied().unwrap_or(b' ')) * ONES
    }
}

/// The first and the last `N` bytes, which may be the same.
fn ends<const N: usize>(text: &[u8]) -> Option<([u8; N], [u8; N])> {
    text.first_chunk().copied().zip(text.last_chunk().copied())
}

/// What stands in front of the first byte to escape, the byte, and what follows it.
fn next_escape(text: &[u8]) -> Option<(&[u8], u8, &[u8])> {
    let (words, tail) = text.as_chunks::<8>();
    let in_words = words.iter().enumerate().find_map(|(place, word)| match escapes(u64::from_le_bytes(*word)) {
        0 => None,
        found => Some(8 * place + found.trailing_zeros() as usize / 8),
    });
    let in_tail =
        || tail.iter().position(|byte| matches!(byte, 0..=0x1f | b'"' | b'\\')).map(|at| 8 * words.len() + at);
    let (plain, rest) = text.split_at_checked(in_words.or_else(in_tail)?)?;
    let (&byte, behind) = rest.split_first()?;
    Some((plain, byte, behind))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn given_text_of_any_length_when_quoted_then_it_reads_back_and_nothing_is_escaped_without_need(
            text in prop::collection::vec(
                prop_oneof![
                    8 => prop::char::range(' ', '~'),
                    1 => prop::char::range('\0', ' '),
                    1 => prop::sample::select(vec!['"', '\\', '/', '\x7f']),
                    1 => any::<char>(),
                ],
                0..40,
            ),
        ) {
            let text: String = text.into_iter().collect();
            let mut out = Vec::new();
            prop_assert!(write_quoted(&mut out, text.as_bytes()));
            // It escapes the same characters, in the same way.
            prop_assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(&text).unwrap());
        }

        #[test]
        fn given_bytes_that_are_not_utf8_when_quoted_then_that_is_said(text in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(write_quoted(&mut Vec::new(), &text), std::str::from_utf8(&text).is_ok());
        }
    }

    #[test]
    fn given_each_byte_at_each_place_when_quoted_then_it_is_found() {
        for length in 0..20 {
            for at in 0..length {
                for byte in 0..0x80 {
                    let mut text = vec![b'x'; length];
                    text[at] = byte;
                    let mut out = Vec::new();
                    assert!(write_quoted(&mut out, &text));
                    let text = String::from_utf8(text).unwrap();
                    assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(&text).unwrap());
                }
            }
        }
    }
}
