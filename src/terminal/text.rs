//! Short forms for people. Pure.

use std::borrow::Cow;
use std::fmt::Write;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Digits of a UUID that stay when it is shortened.
const UUID_DIGITS: usize = 8;

/// A text of somebody else, such as a name out of a database, as one line that does nothing to a terminal: control characters
/// and those that turn the direction of writing stand there as JSON escapes them (`\u001b`, `\n`).
pub fn harmless(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hostile) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 8);
    text.chars().for_each(|character| push(&mut shown, character));
    shown.into()
}

/// A text that we have laid out: the same, but that its lines and colours (`ESC [ … m`) stay.
pub fn printable(text: &str) -> String {
    let (mut shown, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(character) = rest.chars().next() {
        let colour = colour(rest);
        if character == '\n' || colour > 0 {
            shown.push_str(&rest[..colour.max(1)]);
        } else {
            push(&mut shown, character);
        }
        rest = &rest[colour.max(character.len_utf8())..];
    }
    shown
}

fn push(shown: &mut String, character: char) {
    match character {
        '\n' => shown.push_str("\\n"),
        // A string takes everything.
        _ if is_hostile(character) => drop(write!(shown, "\\u{:04x}", u32::from(character))),
        _ => shown.push(character),
    }
}

/// How long the colour is that the text begins with; 0 if it begins with none.
fn colour(text: &str) -> usize {
    let end = text.strip_prefix("\u{1b}[").and_then(|body| {
        let end = body.find(|character: char| !character.is_ascii_digit() && character != ';')?;
        body[end..].starts_with('m').then_some(end)
    });
    end.map_or(0, |end| end + "\u{1b}[m".len())
}

fn is_hostile(character: char) -> bool {
    let turns = matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    character.is_control() || turns
}

/// A position in at most `width` columns: first the UUIDs are cut, then the kind goes, then the beginning, because what
/// moves is at the end.
pub fn position(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let cut = cut_uuids(text);
    if cut.width() <= width {
        return cut;
    }
    let bare = cut.split_once('=').map_or(cut.as_str(), |(_, bare)| bare);
    end(bare, width)
}

/// `3e11fa47-71ca-11e1-9e33-c80aa9429562` becomes `3e11fa47…`.
fn cut_uuids(text: &str) -> String {
    let mut short = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(uuid) = rest.get(..36).filter(|head| uuid::Uuid::try_parse(head).is_ok()) {
            short.push_str(&uuid[..UUID_DIGITS]);
            short.push('…');
            rest = &rest[uuid.len()..];
        } else {
            short.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    short
}

/// The end of a text, with `…` for what is left out.
pub fn end(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let mut from = text.len();
    for (index, character) in text.char_indices().rev() {
        let columns = character.width().unwrap_or(0);
        if columns > left {
            break;
        }
        left -= columns;
        from = index;
    }
    if width == 0 { String::new() } else { format!("…{}", &text[from..]) }
}

/// The beginning of a line, at most `width` columns of it. Colours (`ESC [ … m`) take no columns and stay, so that what
/// was begun is ended.
pub fn clip(line: &str, width: usize) -> String {
    let (mut left, mut escaped) = (width, false);
    let fits = |character: &char| {
        if *character == '\u{1b}' || escaped {
            escaped = *character != 'm';
            return true;
        }
        let columns = character.width().unwrap_or(0);
        let fits = columns <= left;
        // After the first that does not fit, nothing does.
        left = if fits { left - columns } else { 0 };
        fits
    };
    line.chars().filter(fits).collect()
}

/// The columns that a line takes; colours take none.
pub fn columns(line: &str) -> usize {
    let mut escaped = false;
    let seen = line.chars().filter(|&character| {
        let hidden = character == '\u{1b}' || escaped;
        escaped = hidden && character != 'm';
        !hidden
    });
    seen.map(|character| character.width().unwrap_or(0)).sum()
}

/// A lag: `0`, `12 ms`, `3.4 s`, `2m 3s`.
pub fn lag(seconds: f64) -> String {
    if seconds <= 0.0 {
        "0".to_owned()
    } else if seconds < 0.9995 {
        format!("{:.0} ms", (seconds * 1e3).max(1.0))
    } else if seconds < 99.95 {
        format!("{seconds:.1} s")
    } else {
        let whole = std::time::Duration::try_from_secs_f64(seconds.round()).unwrap_or(std::time::Duration::MAX);
        humantime::format_duration(whole).to_string().split(' ').take(2).collect::<Vec<_>>().join(" ")
    }
}

/// A time: how long ago while that is short, then the local time of day, then the date too.
pub fn when(time: Timestamp, now: Timestamp, zone: &TimeZone) -> String {
    let ago = now.duration_since(time).as_secs().max(0);
    let local = |format| time.to_zoned(zone.clone()).strftime(format).to_string();
    match ago {
        ..100 => format!("{ago} s ago"),
        100..86_400 => local("%H:%M:%S"),
        _ => local("%Y-%m-%d %H:%M"),
    }
}

/// A count with separators: `12,345`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    const GTID: &str = "gtid=3e11fa47-71ca-11e1-9e33-c80aa9429562:1-2345";

    #[test]
    fn somebody_elses_text_does_nothing_to_a_terminal() {
        for (text, shown) in [
            ("delivery-1 ü 字", "delivery-1 ü 字"),
            ("a\u{1b}[2Jb", "a\\u001b[2Jb"),
            ("one\nINFO forged\r\t", "one\\nINFO forged\\u000d\\u0009"),
            ("\u{9b}31m\u{7f}\0", "\\u009b31m\\u007f\\u0000"),
            ("abc\u{202e}fed", "abc\\u202efed"),
        ] {
            assert_eq!(harmless(text), shown);
            assert_eq!(printable(text), shown.replace("\\n", "\n"));
        }
        let ours = "\u{1b}[1;31mhalted\u{1b}[0m ü\n";
        assert_eq!(printable(ours), ours);
        assert_eq!(printable("\u{1b}[31\u{1b}"), "\\u001b[31\\u001b");
    }

    #[test]
    fn a_position_keeps_what_moves() {
        assert_eq!(position(GTID, 60), GTID);
        assert_eq!(position(GTID, 30), "gtid=3e11fa47…:1-2345");
        assert_eq!(position(GTID, 16), "3e11fa47…:1-2345");
        assert_eq!(position(GTID, 10), "…7…:1-2345");
        assert_eq!(position(GTID, 1), "…");
        assert_eq!(position("file=mysql-bin.000004:1234", 14), "…n.000004:1234");
        let partial = format!("{GTID} +3 of 3e11fa47-71ca-11e1-9e33-c80aa9429562:2346");
        assert_eq!(position(&partial, 50), "gtid=3e11fa47…:1-2345 +3 of 3e11fa47…:2346");
    }

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!(end("주문-outbox1", 12), "주문-outbox1");
        assert_eq!(end("주문-outbox1", 11), "…문-outbox1");
        assert_eq!(end("주문-outbox1", 10), "…-outbox1");
        assert_eq!(end("x", 0), "");
        assert_eq!(clip("주문", 3), "주");
        assert_eq!(clip("주a", 1), "", "what comes after what does not fit is left out too");
    }

    #[test]
    fn colours_take_no_columns_and_are_ended() {
        let line = "\u{1b}[31mhalted\u{1b}[39m more";
        assert_eq!(columns(line), 11);
        assert_eq!(clip(line, 4), "\u{1b}[31mhalt\u{1b}[39m");
        assert_eq!(clip(line, 11), line);
    }

    #[test]
    fn figures_are_short() {
        let lags = [0.0, 0.0004, 0.0123, 0.9999, 3.44, 59.96, 123.4, 93_784.0];
        let said: Vec<_> = lags.into_iter().map(lag).collect();
        assert_eq!(said, ["0", "1 ms", "12 ms", "1.0 s", "3.4 s", "60.0 s", "2m 3s", "1day 2h"]);
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn a_time_is_an_age_and_then_a_time() {
        let time: Timestamp = "2026-03-04T12:03:11Z".parse().unwrap();
        let after = |seconds: i64| {
            let now = time + jiff::SignedDuration::from_secs(seconds);
            when(time, now, &TimeZone::UTC)
        };
        let said = [-3, 0, 99, 100, 90_000].map(after);
        assert_eq!(said, ["0 s ago", "0 s ago", "99 s ago", "12:03:11", "2026-03-04 12:03"]);
    }
}
