//! Dates and times as text, as the server prints them. Layouts as in the server's `mysys/my_time.cc`.

use super::number::{be_u64, write_padded};

/// How many bytes a fraction of so many digits takes.
pub(super) fn fraction_bytes(digits: usize) -> usize {
    digits.min(6).div_ceil(2)
}

/// Ten to the power of `digits`.
fn power(digits: usize) -> u64 {
    [1, 10, 100, 1000, 10_000, 100_000, 1_000_000][digits.min(6)]
}

/// Appends a fraction of `digits` digits out of its big-endian bytes; `false` if they hold too much.
fn write_fraction(out: &mut Vec<u8>, data: &[u8], digits: usize) -> bool {
    let digits = digits.min(6);
    // The bytes hold an even number of digits, and the last one is cut off if the type has it not.
    let held = fraction_bytes(digits) * 2;
    let value = be_u64(data);
    if value >= power(held) || data.len() != held / 2 {
        return false;
    }
    if digits > 0 {
        out.push(b'.');
        write_padded(out, value / power(held - digits), digits);
    }
    true
}

fn write_ymd(out: &mut Vec<u8>, year: u64, month: u64, day: u64) -> bool {
    for (value, width, end) in [(year, 4, b'-'), (month, 2, b'-')] {
        write_padded(out, value, width);
        out.push(end);
    }
    write_padded(out, day, 2);
    year <= 9999
}

fn write_hms(out: &mut Vec<u8>, hour: u64, minute: u64, second: u64) {
    write_padded(out, hour, 2);
    for value in [minute, second] {
        out.push(b':');
        write_padded(out, value, 2);
    }
}

/// YEAR: one byte, years since 1900, 0 for the year 0000.
pub(super) fn write_year(out: &mut Vec<u8>, byte: u8) {
    let year = if byte == 0 { 0 } else { 1900 + u64::from(byte) };
    write_padded(out, year, 4);
}

/// DATE: day, month and year in 5, 4 and 15 bits of three little-endian bytes.
pub(super) fn write_date(out: &mut Vec<u8>, value: u64) -> bool {
    write_ymd(out, value >> 9, value >> 5 & 0xf, value & 0x1f)
}

/// DATETIME2: five big-endian bytes with the sign bit inverted, then the fraction
/// (`my_datetime_packed_from_binary`).
pub(super) fn write_datetime2(out: &mut Vec<u8>, data: &[u8], digits: usize) -> bool {
    let Some((whole, fraction)) = data.split_at_checked(5) else { return false };
    let Some(packed) = be_u64(whole).checked_sub(1 << 39) else { return false };
    write_packed_datetime(out, packed) && write_fraction(out, fraction, digits)
}

/// The seconds and up of a packed DATETIME.
fn write_packed_datetime(out: &mut Vec<u8>, packed: u64) -> bool {
    let (ymd, hms) = (packed >> 17, packed & 0x1_ffff);
    let good = write_packed_date(out, ymd);
    out.push(b' ');
    write_hms(out, hms >> 12, hms >> 6 & 0x3f, hms & 0x3f);
    good
}

fn write_packed_date(out: &mut Vec<u8>, ymd: u64) -> bool {
    let months = ymd >> 5;
    write_ymd(out, months / 13, months % 13, ymd & 0x1f)
}

/// TIME2: three big-endian bytes offset by 2^23, then the fraction; negative times are the two's complement of both
/// together (`my_time_packed_from_binary`).
pub(super) fn write_time2(out: &mut Vec<u8>, data: &[u8], digits: usize) -> bool {
    if data.len() != 3 + fraction_bytes(digits) {
        return false;
    }
    let bits = 8 * fraction_bytes(digits);
    let zero = 1 << (23 + bits);
    let value = be_u64(data);
    let distance = value.abs_diff(zero);
    if value < zero {
        out.push(b'-');
    }
    let packed = distance >> bits;
    write_hms(out, packed >> 12 & 0x3ff, packed >> 6 & 0x3f, packed & 0x3f);
    let fraction = (distance & ((1 << bits) - 1)).to_be_bytes();
    packed < 1 << 22 && write_fraction(out, fraction.get(8 - bits / 8..).unwrap_or(&[]), digits)
}

/// TIMESTAMP2: four big-endian bytes of seconds since the Unix epoch, then the fraction; all zero is the zero date
/// (`my_timestamp_from_binary`). The text is in UTC.
pub(super) fn write_timestamp2(out: &mut Vec<u8>, data: &[u8], digits: usize) -> bool {
    let Some((whole, fraction)) = data.split_at_checked(4) else { return false };
    write_timestamp(out, be_u64(whole));
    write_fraction(out, fraction, digits)
}

/// Seconds since the Unix epoch as a date and a time of day in UTC, 0 as the zero date.
pub(super) fn write_timestamp(out: &mut Vec<u8>, seconds: u64) {
    if seconds == 0 {
        out.extend_from_slice(b"0000-00-00 00:00:00");
        return;
    }
    // Days to a date, by eras of 400 years that begin in March.
    let days = seconds / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    write_ymd(out, year, month, day);
    out.push(b' ');
    let time = seconds % 86_400;
    write_hms(out, time / 3600, time / 60 % 60, time % 60);
}

/// DATETIME as before `MySQL` 5.6: YYYYMMDDHHMMSS as a number.
pub(super) fn write_old_datetime(out: &mut Vec<u8>, value: u64) -> bool {
    let (date, time) = (value / 1_000_000, value % 1_000_000);
    let good = write_ymd(out, date / 10_000, date / 100 % 100, date % 100);
    out.push(b' ');
    write_hms(out, time / 10_000, time / 100 % 100, time % 100);
    good
}

/// TIME as before `MySQL` 5.6: HHMMSS as a signed number.
pub(super) fn write_old_time(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    let time = value.unsigned_abs();
    write_hms(out, time / 10_000, time / 100 % 100, time % 100);
}

/// What a temporal value inside JSON is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JsonTemporal {
    Date,
    Time,
    DateTime,
}

/// Appends a temporal value of JSON, which is packed into a number as by `TIME_to_longlong_packed`: 24 bits of
/// microseconds under the seconds and up. The server prints all six digits (`my_TIME_to_str` in `json_dom.cc`).
pub(super) fn write_json_temporal(out: &mut Vec<u8>, packed: i64, kind: JsonTemporal) -> bool {
    let (whole, micros) = (packed.unsigned_abs() >> 24, packed.unsigned_abs() & 0xff_ffff);
    let good = match kind {
        JsonTemporal::Date => return write_packed_date(out, whole >> 17) && whole < 1 << 39,
        JsonTemporal::DateTime => packed >= 0 && whole < 1 << 39 && write_packed_datetime(out, whole),
        JsonTemporal::Time => {
            if packed < 0 {
                out.push(b'-');
            }
            write_hms(out, whole >> 12 & 0x3ff, whole >> 6 & 0x3f, whole & 0x3f);
            whole < 1 << 22
        }
    };
    out.push(b'.');
    write_padded(out, micros, 6);
    good && micros < 1_000_000
}
