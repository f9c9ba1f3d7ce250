//! Times as people write them.

use jiff::civil::{Date, DateTime, Time};
use jiff::{Span, Timestamp, Zoned};

/// What a text says, seen from `now` and in its time zone: RFC 3339, `2026-11-20 10:30`, `10:30`, `yesterday 10:30`,
/// `2h ago`. A time of day is today's. The error says what is understood.
pub(super) fn moment(text: &str, now: &Zoned) -> Result<Timestamp, String> {
    let text = text.trim();
    let moment = read(text, now).ok_or_else(|| {
        format!(
            "`{text}` is no time; write \"2026-11-20 10:30\", \"yesterday 10:30\", \"10:30\", \"2h ago\" or RFC 3339"
        )
    })?;
    if moment > now.timestamp() {
        return Err(format!("{moment} is yet to come"));
    }
    Ok(moment)
}

fn read(text: &str, now: &Zoned) -> Option<Timestamp> {
    let zoned = |at: DateTime| at.to_zoned(now.time_zone().clone()).ok().map(|at| at.timestamp());
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(timestamp);
    }
    let of_day = |day: Date, time: &str| zoned(day.to_datetime(clock(time)?));
    if let Some(time) = text.strip_prefix("yesterday") {
        return of_day(now.date().yesterday().ok()?, time);
    }
    if let Some(time) = text.strip_prefix("today") {
        return of_day(now.date(), time);
    }
    if let Some(time) = clock(text).filter(|_| !text.is_empty()) {
        return zoned(now.date().to_datetime(time));
    }
    if text.ends_with("ago") {
        return Some(now.checked_add(text.parse::<Span>().ok()?).ok()?.timestamp());
    }
    zoned(text.parse::<DateTime>().ok()?)
}

/// `10:30` or `10:30:15.5`; nothing is midnight.
fn clock(text: &str) -> Option<Time> {
    match text.trim() {
        "" => Some(Time::midnight()),
        // The parser takes the time out of a date and time, too.
        text if text.bytes().all(|byte| byte.is_ascii_digit() || b":.".contains(&byte)) && text.contains(':') => {
            text.parse().ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let now: Zoned = "2026-11-21T18:00:00+01:00[Europe/Berlin]".parse().unwrap();
        for (text, expected) in [
            ("2026-11-20T10:30:00Z", "2026-11-20T10:30:00Z"),
            ("2026-11-20T10:30:00+02:00", "2026-11-20T08:30:00Z"),
            ("2026-11-20 10:30", "2026-11-20T09:30:00Z"),
            ("2026-07-01 10:30:15", "2026-07-01T08:30:15Z"),
            ("2026-11-20", "2026-11-19T23:00:00Z"),
            ("10:30", "2026-11-21T09:30:00Z"),
            ("today 10:30", "2026-11-21T09:30:00Z"),
            ("yesterday 10:30", "2026-11-20T09:30:00Z"),
            (" yesterday ", "2026-11-19T23:00:00Z"),
            ("2h ago", "2026-11-21T15:00:00Z"),
            ("90 minutes ago", "2026-11-21T15:30:00Z"),
        ] {
            assert_eq!(moment(text, &now).map(|at| at.to_string()), Ok(expected.to_owned()), "{text}");
        }
        for bad in ["", "soon", "tomorrow 10:30", "25:00", "yesterday noon", "1030", "2h"] {
            assert!(moment(bad, &now).unwrap_err().contains("is no time"), "{bad}");
        }
        assert!(moment("19:00", &now).unwrap_err().contains("yet to come"));
    }
}
