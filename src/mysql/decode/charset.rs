//! Character sets, so far as text can be brought to UTF-8 without loss.

/// What has to be done with text of a collation. The ids are those of `information_schema.collations`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charset {
    /// No text at all: BINARY, VARBINARY and BLOB columns.
    Binary,
    /// utf8mb4, utf8mb3 or ascii: the bytes are UTF-8 as they are.
    Utf8,
    /// `MySQL`'s latin1, which is Windows-1252 with C1 controls in its five holes.
    Latin1,
}

impl Charset {
    /// The character set of a collation, if it is one of those that can be converted.
    ///
    /// The ids from 1024 are `MariaDB`'s: its NOPAD variants, and its UCA 14.0.0 collations, which have the character
    /// set in bits 8 to 11 (`my_uca1400_make_builtin_collation_id` in its `strings/ctype-uca1400.h`).
    pub fn of(collation: u16) -> Option<Self> {
        match collation {
            63 => Some(Self::Binary),
            // ascii
            11 | 65 | 1035 | 1089
            // utf8mb3
            | 33 | 76 | 83 | 192..=215 | 223 | 576..=578 | 1057 | 1107 | 1216 | 1238 | 2048..=2303
            // utf8mb4
            | 45 | 46 | 224..=247 | 255..=323 | 608..=610 | 1069 | 1070 | 1248 | 1270 | 2304..=2559 => Some(Self::Utf8),
            5 | 8 | 15 | 31 | 47 | 48 | 49 | 94 | 1032 | 1071 => Some(Self::Latin1),
            _ => None,
        }
    }
}

/// What latin1 has from 0x80 to 0x9f (`cs_to_uni` in the server's `strings/ctype-latin1.cc`).
const HIGH: [char; 32] = [
    '\u{20ac}', '\u{81}', '\u{201a}', '\u{192}', '\u{201e}', '\u{2026}', '\u{2020}', '\u{2021}', '\u{2c6}', '\u{2030}',
    '\u{160}', '\u{2039}', '\u{152}', '\u{8d}', '\u{17d}', '\u{8f}', '\u{90}', '\u{2018}', '\u{2019}', '\u{201c}',
    '\u{201d}', '\u{2022}', '\u{2013}', '\u{2014}', '\u{2dc}', '\u{2122}', '\u{161}', '\u{203a}', '\u{153}', '\u{9d}',
    '\u{17e}', '\u{178}',
];

/// Appends latin1 text to `out` as UTF-8.
pub(super) fn write_latin1(out: &mut Vec<u8>, mut text: &[u8]) {
    loop {
        let ascii = text.iter().position(|byte| !byte.is_ascii()).unwrap_or(text.len());
        let (plain, rest) = text.split_at(ascii);
        out.extend_from_slice(plain);
        let Some((&byte, rest)) = rest.split_first() else { return };
        let wide = HIGH.get(usize::from(byte - 0x80)).copied().unwrap_or(char::from(byte));
        out.extend_from_slice(wide.encode_utf8(&mut [0; 4]).as_bytes());
        text = rest;
    }
}
