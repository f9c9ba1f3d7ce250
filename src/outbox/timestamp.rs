//! A record's timestamp out of a column.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Milliseconds since the Unix epoch of a column's text: a whole number of them, or a date and time in UTC as the
/// decoder writes DATETIME and TIMESTAMP. `None` when it is neither, or before the epoch.
pub(super) fn millis(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let millis = match text.parse() {
        Ok(millis) => millis,
        Err(_) => text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond(),
    };
    Some(millis).filter(|&millis: &i64| millis >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_milliseconds_and_a_date_is_in_utc() {
        assert_eq!(millis(b"1700000000123"), Some(1_700_000_000_123));
        assert_eq!(millis(b"2023-11-14 22:13:20.123456"), Some(1_700_000_000_123));
        assert_eq!(millis(b"2023-11-14 22:13:20"), Some(1_700_000_000_000));
        assert_eq!(millis(b"2023-11-14"), Some(1_699_920_000_000));
        for bad in ["", "-1", "0000-00-00 00:00:00", "2023-02-30 00:00:00", "soon", "1.5"] {
            assert_eq!(millis(bad.as_bytes()), None, "{bad}");
        }
    }
}
