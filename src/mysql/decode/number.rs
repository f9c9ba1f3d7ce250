//! Numbers as text.

/// How many bytes so many digits take when they are fewer than nine (`dig2bytes` in the server's `strings/decimal.cc`).
const DIGIT_BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];

/// Bytes of little-endian order as a number; those behind the eighth are ignored.
pub(super) fn le_u64(bytes: &[u8]) -> u64 {
    match *bytes {
        [a] => a.into(),
        [a, b] => u16::from_le_bytes([a, b]).into(),
        [a, b, c, d] => u32::from_le_bytes([a, b, c, d]).into(),
        _ => bytes.iter().take(8).rev().fold(0, |value, byte| value << 8 | u64::from(*byte)),
    }
}

/// Bytes of big-endian order as a number; those behind the eighth are ignored.
pub(super) fn be_u64(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Little-endian bytes of two's complement as a number.
pub(super) fn le_i64(bytes: &[u8]) -> i64 {
    let unused = 64 - 8 * bytes.len().clamp(1, 8);
    (le_u64(bytes) << unused).cast_signed() >> unused
}

/// Appends a number in decimal, with zeros in front up to `width` digits.
pub(super) fn write_padded(out: &mut Vec<u8>, mut value: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut from = digits.len();
    for (at, digit) in digits.iter_mut().enumerate().rev() {
        if value == 0 && digits_len(at) > width {
            break;
        }
        *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
        from = at;
    }
    out.extend_from_slice(digits.get(from..).unwrap_or(&[]));
}

/// How many digits there are from place `at` on, with one there.
fn digits_len(at: usize) -> usize {
    20 - at
}

/// Appends a number in decimal.
pub(super) fn write_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends a number in decimal.
pub(super) fn write_i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// How many bytes a DECIMAL takes (`decimal_binary_size` in `libs/mysql/binlog/event/binary_log_funcs.cpp`); `None` if
/// there is no such type.
pub(super) fn decimal_bytes(precision: usize, scale: usize) -> Option<usize> {
    if precision == 0 || precision > 65 || scale > 30 || scale > precision {
        return None;
    }
    let part = |digits: usize| digits / 9 * 4 + DIGIT_BYTES.get(digits % 9).copied().unwrap_or(0);
    Some(part(precision - scale) + part(scale))
}

/// Appends a DECIMAL of `precision` digits with `scale` of them behind the point; `false` if the bytes are none.
///
/// The layout is that of `decimal2bin` in the server's `strings/decimal.cc`: groups of nine digits as big-endian
/// numbers, those at both ends shorter, the sign bit of the first byte inverted, all bits inverted if negative.
pub(super) fn write_decimal(out: &mut Vec<u8>, data: &[u8], precision: usize, scale: usize) -> bool {
    if decimal_bytes(precision, scale) != Some(data.len()) {
        return false;
    }
    let negative = data.first().is_some_and(|byte| byte & 0x80 == 0);
    let flip = if negative { 0xff } else { 0 };
    let start = out.len();
    if negative {
        out.push(b'-');
    }
    let digits_start = out.len();
    let integral = precision - scale;
    let mut rest = data;
    let mut first = true;
    let mut nonzero = false;
    let mut group = |out: &mut Vec<u8>, digits: usize, in_front: bool| {
        let bytes = DIGIT_BYTES.get(digits).copied().unwrap_or(4);
        let Some((taken, behind)) = rest.split_at_checked(bytes) else { return false };
        rest = behind;
        let mut value = 0;
        for byte in taken {
            let sign = if std::mem::take(&mut first) { 0x80 } else { 0 };
            value = value << 8 | u64::from(byte ^ flip ^ sign);
        }
        let fits = value
            < [1, 10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000][digits.min(9)];
        nonzero |= value != 0;
        if !in_front || out.len() > digits_start {
            write_padded(out, value, digits);
        } else if value != 0 {
            write_u64(out, value);
        }
        fits
    };
    let groups = |digits: usize| std::iter::repeat_n(9, digits / 9);
    let mut good = integral.is_multiple_of(9) || group(out, integral % 9, true);
    for digits in groups(integral) {
        good = good && group(out, digits, true);
    }
    if out.len() == digits_start {
        out.push(b'0');
    }
    if scale > 0 {
        out.push(b'.');
        for digits in groups(scale) {
            good = good && group(out, digits, false);
        }
        good = good && (scale.is_multiple_of(9) || group(out, scale % 9, false));
    }
    if negative && !nonzero && good {
        out.remove(start);
    }
    good
}

/// Appends a finite DOUBLE or FLOAT with as many digits as it takes to read the same number back, in the notation the
/// server chooses (`my_gcvt` in `strings/dtoa.cc`): with an exponent outside 1e-15 and 1e15. A whole number without
/// exponent ends in `whole`. `false` if not finite.
pub(in crate::mysql) fn write_float<F>(out: &mut Vec<u8>, value: F, whole: &str) -> bool
where
    F: Into<f64> + zmij::Float + Copy,
{
    let size: f64 = value.into().abs();
    if !size.is_finite() {
        return false;
    }
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(value);
    // Here the library's notation is the server's, but for what a whole number ends in.
    if (1e-5..9e14).contains(&size) {
        let (text, end) = text.strip_suffix(".0").map_or((text, ""), |text| (text, whole));
        out.extend_from_slice(text.as_bytes());
        out.extend_from_slice(end.as_bytes());
        return true;
    }
    // Elsewhere its digits are: of two that are as short and as near, both take the even one.
    let text = text.strip_prefix('-').inspect(|_| out.push(b'-')).unwrap_or(text);
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let Ok(exponent) = exponent.parse::<isize>() else { return false };
    // Where the point goes, counted from the first digit.
    let point = exponent.saturating_add_unsigned(mantissa.find('.').unwrap_or(mantissa.len()));
    let mantissa = mantissa.strip_suffix(".0").unwrap_or(mantissa);
    let mantissa = if mantissa.contains('.') { mantissa } else { mantissa.trim_end_matches('0') };
    let digits = || mantissa.bytes().filter(|byte| *byte != b'.');
    let count = digits().count();
    match usize::try_from(point) {
        Ok(point) if point > 0 && (point <= 15 || count > point) => {
            out.extend(digits().take(point));
            out.extend(std::iter::repeat_n(b'0', point.saturating_sub(count)));
            if count > point {
                out.push(b'.');
                out.extend(digits().skip(point));
            } else {
                out.extend_from_slice(whole.as_bytes());
            }
        }
        _ if (-14..=0).contains(&point) => {
            out.extend_from_slice(b"0.");
            out.extend(std::iter::repeat_n(b'0', point.unsigned_abs()));
            out.extend(digits());
        }
        _ => {
            out.extend(digits().take(1));
            if count > 1 {
                out.push(b'.');
                out.extend(digits().skip(1));
            }
            out.push(b'e');
            out.extend_from_slice(itoa::Buffer::new().format(point - 1).as_bytes());
        }
    }
    true
}
