//! Character sets: text as the server stores it, and as UTF-8.
//!
//! Promise: text comes out as the server itself converts it to utf8mb4, or it is an error; nothing is replaced. The
//! tables of the larger sets are those of [`encoding_rs`], with the code points in which the server differs.

use encoding_rs::{
    DecoderResult, EUC_KR, Encoding, GBK, IBM866, ISO_8859_2, ISO_8859_7, ISO_8859_8, ISO_8859_13, KOI8_R, KOI8_U,
    MACINTOSH, SHIFT_JIS, WINDOWS_1250, WINDOWS_1251, WINDOWS_1256, WINDOWS_1257,
};

/// How text of a collation is brought to UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charset {
    /// No text at all: BINARY, VARBINARY and BLOB columns.
    Binary,
    /// utf8mb4, utf8mb3 or ascii: the bytes are UTF-8 as they are.
    Utf8,
    /// `MySQL`'s latin1, which is Windows-1252 with C1 controls in its five holes.
    Latin1,
    /// ucs2 or utf16: two bytes, the higher first.
    Utf16,
    /// utf16le: two bytes, the lower first.
    Utf16Le,
    /// utf32: four bytes, the highest first.
    Utf32,
    /// A set that the library has, and the codes that mean something else to the server.
    Encoded(&'static Encoding, &'static [(u16, char)]),
}

impl Charset {
    /// The character set of a collation, if it is one of those that can be converted. The ids are those of
    /// `information_schema.collations`.
    ///
    /// The ids from 1024 are `MariaDB`'s: its NOPAD variants, which add 1024, and its UCA 14.0.0 collations, which have
    /// the character set in bits 8 to 11 (`my_uca1400_make_builtin_collation_id` in its `strings/ctype-uca1400.h`).
    pub fn of(collation: u16) -> Option<Self> {
        let collation = match collation {
            2048.. => return Self::of_uca1400(collation),
            // Some of MariaDB's own lie between.
            1024..2048 => collation - 1024,
            _ => collation,
        };
        Some(match collation {
            63 => Self::Binary,
            // ascii
            11 | 65
            // utf8mb3
            | 33 | 76 | 83 | 192..=215 | 223 | 576..=579
            // utf8mb4
            | 45 | 46 | 224..=247 | 255..=323 | 608..=611 => Self::Utf8,
            5 | 8 | 15 | 31 | 47 | 48 | 49 | 94 => Self::Latin1,
            // ucs2
            35 | 90 | 128..=151 | 159 | 640..=642
            // utf16
            | 54 | 55 | 101..=124 | 672..=674 => Self::Utf16,
            56 | 62 => Self::Utf16Le,
            60 | 61 | 160..=183 | 736..=738 => Self::Utf32,
            _ => return Self::encoded(collation),
        })
    }

    fn encoded(collation: u16) -> Option<Self> {
        let (encoding, differing) = match collation {
            2 | 9 | 21 | 27 | 77 => (ISO_8859_2, &[][..]),
            7 | 74 => (KOI8_R, &[][..]),
            // sjis, cp932
            13 | 88 => (SHIFT_JIS, differing::SJIS),
            95 | 96 => (SHIFT_JIS, &[][..]),
            14 | 23 | 50 | 51 | 52 => (WINDOWS_1251, &[][..]),
            16 | 71 => (ISO_8859_8, differing::HEBREW),
            19 | 85 => (EUC_KR, &[][..]),
            20 | 41 | 42 | 79 => (ISO_8859_13, &[][..]),
            22 | 75 => (KOI8_U, differing::KOI8U),
            // gb2312, gbk
            24 | 86 => (GBK, differing::GB2312),
            28 | 87 => (GBK, &[][..]),
            25 | 70 => (ISO_8859_7, differing::GREEK),
            26 | 34 | 44 | 66 | 99 => (WINDOWS_1250, &[][..]),
            29 | 58 | 59 => (WINDOWS_1257, &[][..]),
            36 | 68 => (IBM866, differing::CP866),
            39 | 53 => (MACINTOSH, &[][..]),
            57 | 67 => (WINDOWS_1256, &[][..]),
            _ => return None,
        };
        Some(Self::Encoded(encoding, differing))
    }

    fn of_uca1400(collation: u16) -> Option<Self> {
        match collation >> 8 & 0xf {
            8 | 9 => Some(Self::Utf8),
            10 | 11 => Some(Self::Utf16),
            12 => Some(Self::Utf32),
            _ => None,
        }
    }

    /// Appends text to `out` as UTF-8; `false` if it is none of this set, and then `out` may have some of it. Binary is
    /// appended as it is.
    pub fn write(self, out: &mut Vec<u8>, text: &[u8]) -> bool {
        match self {
            Self::Binary | Self::Utf8 => {
                out.extend_from_slice(text);
                true
            }
            Self::Latin1 => {
                write_latin1(out, text);
                true
            }
            Self::Utf16 => write_utf16(out, text, u16::from_be_bytes),
            Self::Utf16Le => write_utf16(out, text, u16::from_le_bytes),
            Self::Utf32 => write_utf32(out, text),
            Self::Encoded(encoding, differing) => write_differing(out, text, encoding, differing),
        }
    }
}

/// Codes of the server's sets that the library's table of the nearest set has otherwise; found by converting every code
/// on both sides.
mod differing {
    pub(super) const CP866: &[(u16, char)] = &[(0xfc, 'ⁿ'), (0xfd, '²')];
    pub(super) const GB2312: &[(u16, char)] = &[(0xa1a4, '・'), (0xa1aa, '―')];
    pub(super) const GREEK: &[(u16, char)] = &[(0xa1, 'ʽ'), (0xa2, 'ʼ')];
    pub(super) const HEBREW: &[(u16, char)] = &[(0xaf, '‾')];
    pub(super) const KOI8U: &[(u16, char)] = &[(0x95, '•'), (0xae, '╝'), (0xbe, '╬')];
    pub(super) const SJIS: &[(u16, char)] =
        &[(0x815f, '\\'), (0x8160, '〜'), (0x8161, '‖'), (0x817c, '−'), (0x8191, '¢'), (0x8192, '£'), (0x81ca, '¬')];
}

/// What latin1 has from 0x80 to 0x9f (`cs_to_uni` in the server's `strings/ctype-latin1.cc`).
const HIGH: [char; 32] = [
    '\u{20ac}', '\u{81}', '\u{201a}', '\u{192}', '\u{201e}', '\u{2026}', '\u{2020}', '\u{2021}', '\u{2c6}', '\u{2030}',
    '\u{160}', '\u{2039}', '\u{152}', '\u{8d}', '\u{17d}', '\u{8f}', '\u{90}', '\u{2018}', '\u{2019}', '\u{201c}',
    '\u{201d}', '\u{2022}', '\u{2013}', '\u{2014}', '\u{2dc}', '\u{2122}', '\u{161}', '\u{203a}', '\u{153}', '\u{9d}',
    '\u{17e}', '\u{178}',
];

fn write_char(out: &mut Vec<u8>, char: char) {
    out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
}

fn write_latin1(out: &mut Vec<u8>, mut text: &[u8]) {
    loop {
        let ascii = text.iter().position(|byte| !byte.is_ascii()).unwrap_or(text.len());
        let (plain, rest) = text.split_at(ascii);
        out.extend_from_slice(plain);
        let Some((&byte, rest)) = rest.split_first() else { return };
        write_char(out, HIGH.get(usize::from(byte - 0x80)).copied().unwrap_or(char::from(byte)));
        text = rest;
    }
}

fn write_utf16(out: &mut Vec<u8>, text: &[u8], unit: fn([u8; 2]) -> u16) -> bool {
    let (units, rest) = text.as_chunks::<2>();
    for char in char::decode_utf16(units.iter().map(|bytes| unit(*bytes))) {
        let Ok(char) = char else { return false };
        write_char(out, char);
    }
    rest.is_empty()
}

fn write_utf32(out: &mut Vec<u8>, text: &[u8]) -> bool {
    let (units, rest) = text.as_chunks::<4>();
    for unit in units {
        let Some(char) = char::from_u32(u32::from_be_bytes(*unit)) else { return false };
        write_char(out, char);
    }
    rest.is_empty()
}

/// As [`write_encoded`], but for the differing codes.
fn write_differing(
    out: &mut Vec<u8>,
    text: &[u8],
    encoding: &'static Encoding,
    differing: &'static [(u16, char)],
) -> bool {
    let (mut start, mut at) = (0, 0);
    while !differing.is_empty() && at < text.len() {
        let size = if encoding.is_single_byte() || is_single(encoding, text[at]) { 1 } else { 2 };
        let bytes = text.get(at..at + size).unwrap_or_default();
        let code = bytes.iter().fold(0, |code, byte| code << 8 | u16::from(*byte));
        if let Some((_, char)) = differing.iter().find(|(other, _)| *other == code) {
            if !write_encoded(out, &text[start..at], encoding) {
                return false;
            }
            write_char(out, *char);
            start = at + size;
        }
        at += size;
    }
    write_encoded(out, text.get(start..).unwrap_or_default(), encoding)
}

/// Whether a character of a set with one and two bytes takes one.
fn is_single(encoding: &'static Encoding, first: u8) -> bool {
    first.is_ascii() || encoding == SHIFT_JIS && matches!(first, 0xa1..=0xdf)
}

fn write_encoded(out: &mut Vec<u8>, text: &[u8], encoding: &'static Encoding) -> bool {
    let mut decoder = encoding.new_decoder_without_bom_handling();
    let Some(most) = decoder.max_utf8_buffer_length_without_replacement(text.len()) else { return false };
    let before = out.len();
    out.resize(before + most, 0);
    let space = out.get_mut(before..).unwrap_or_default();
    let (result, _, written) = decoder.decode_to_utf8_without_replacement(text, space, true);
    out.truncate(before + written);
    result == DecoderResult::InputEmpty
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(collation: u16, text: &[u8]) -> Option<String> {
        let mut out = Vec::new();
        Charset::of(collation).unwrap().write(&mut out, text).then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn given_text_of_a_set_when_written_then_it_is_utf8() {
        for (collation, text, expected) in [
            (8, &b"a\x80\x81\xe9"[..], "a€\u{81}é"),
            (54, b"\0a\xd8\x3d\xde\x00", "a😀"),
            (1078, b"\0a", "a"),
            (2816, b"\0a", "a"),
            (56, b"a\0\x3d\xd8\x00\xde", "a😀"),
            (60, b"\0\0\0a\0\x01\xf6\x00", "a😀"),
            (35, b"\x20\xac", "€"),
            (28, b"a\xc4\xe3\xba\xc3", "a你好"),
            (24, b"\xc4\xe3\xa1\xa4\xba\xc3", "你・好"),
            (19, b"\xb0\xa1!", "가!"),
            (13, b"\x81\x60\xb1\x81\x5f\x82\xa0\\", "〜ｱ\\あ\\"),
            (95, b"\x81\x60\x82\xa0", "～あ"),
            (22, b"\xae\xc1", "╝а"),
            (2304, "é".as_bytes(), "é"),
        ] {
            assert_eq!(written(collation, text).as_deref(), Some(expected), "{collation}");
        }
    }

    #[test]
    fn given_bytes_that_are_no_text_of_the_set_when_written_then_nothing_is_replaced() {
        for (collation, text) in [
            (54, &b"\0a\xd8"[..]),
            (54, b"\xd8\x3d"),
            (60, b"\0\x11\0\0"),
            (28, b"\xc4"),
            (13, b"\x81"),
            (19, b"\xb0\x20"),
            (16, b"\xff"),
        ] {
            assert_eq!(written(collation, text), None, "{collation}");
        }
        assert_eq!(Charset::of(1), None, "big5");
        assert_eq!(Charset::of(248), None, "gb18030");
    }
}
