//! Durations and times on the command line.

/// Seconds: `900`, `15m`, `24h`, `90d`.
pub(super) fn parse_duration(argument: &str) -> Result<u64, String> {
    let (number, unit) = match argument.as_bytes().last() {
        Some(b's') => (&argument[..argument.len() - 1], 1),
        Some(b'm') => (&argument[..argument.len() - 1], 60),
        Some(b'h') => (&argument[..argument.len() - 1], 3600),
        Some(b'd') => (&argument[..argument.len() - 1], DAY),
        _ => (argument, 1),
    };
    let seconds = digits(number).and_then(|number| number.checked_mul(unit));
    seconds.ok_or_else(|| "must be seconds, or a duration as in 15m, 24h or 90d".to_owned())
}

/// The same for what is kept as a number of 32 bits.
pub(super) fn parse_seconds(argument: &str) -> Result<u32, String> {
    let seconds = parse_duration(argument)?;
    u32::try_from(seconds).map_err(|_| "is longer than any setting may be".to_owned())
}

/// Unix seconds: as a number, or from a time of RFC 3339.
pub(super) fn parse_time(argument: &str) -> Result<u64, String> {
    if let Some(seconds) = digits(argument) {
        return if seconds < IN_MILLISECONDS {
            Ok(seconds)
        } else {
            Err("is too late for Unix seconds: are these milliseconds?".to_owned())
        };
    }
    rfc3339(argument).ok_or_else(|| {
        "must be Unix seconds, or a time of RFC 3339 as in 2027-01-31T12:00:00Z".to_owned()
    })
}

/// No time in seconds is as late as this, which is in the year 5138; in milliseconds, it is in 1973.
pub(super) const IN_MILLISECONDS: u64 = 100_000_000_000;

/// Seconds of a day.
const DAY: u64 = 86_400;

fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// RFC 3339, section 5.6; a fraction of a second is left out. `None` before 1970 too.
fn rfc3339(text: &str) -> Option<u64> {
    let text = text.to_ascii_uppercase();
    let (date, time) = text.split_once(['T', ' '])?;
    let [year, month, day] = fields(date, '-', [4, 2, 2])?;
    let zone = time.find(['Z', '+', '-'])?;
    let (time, zone) = time.split_at(zone);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = fields(time, ':', [2, 2, 2])?;
    digits(fraction).filter(|_| !fraction.is_empty())?;
    let is_time = |hour: u64, minute: u64| hour < 24 && minute < 60;
    if !is_time(hour, minute) || second > 60 {
        return None;
    }
    let days = days_since_1970(year, month, day)?;
    let seconds = days * DAY + hour * 3600 + minute * 60 + second;
    if zone == "Z" {
        return Some(seconds);
    }
    let [hours, minutes] = fields(&zone[1..], ':', [2, 2])?;
    let offset = hours * 3600 + minutes * 60;
    match zone.as_bytes()[0] {
        _ if !is_time(hours, minutes) => None,
        b'+' => seconds.checked_sub(offset),
        _ => seconds.checked_add(offset),
    }
}

/// Numbers of so many digits each, with `separator` between them.
fn fields<const N: usize>(text: &str, separator: char, lengths: [usize; N]) -> Option<[u64; N]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; N];
    for (number, length) in numbers.iter_mut().zip(lengths) {
        let part = parts.next().filter(|part| part.len() == length)?;
        *number = digits(part)?;
    }
    parts.next().is_none().then_some(numbers)
}

fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let before = usize::try_from(month).ok()?.checked_sub(1)?;
    let length = *lengths.get(before)?;
    if year < 1970 || !(1..=length).contains(&day) {
        return None;
    }
    let years: u64 = (1970..year).map(|year| 365 + u64::from(is_leap(year))).sum();
    Some(years + lengths[..before].iter().sum::<u64>() + day - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, seconds) in
            [("0", 0), ("900", 900), ("90s", 90), ("15m", 900), ("24h", 86_400), ("90d", 7_776_000)]
        {
            assert_eq!(parse_duration(text), Ok(seconds), "{text}");
        }
        for bad in ["", "m", "1.5h", "-1", "+1", "1w", "1 h", "1H", "ü", "18446744073709551615d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert!(parse_seconds("49711d").is_err());
    }

    #[test]
    fn times_are_unix_seconds_or_rfc_3339() {
        for (text, seconds) in [
            ("0", 0),
            ("1790000000", 1_790_000_000),
            ("2026-09-21T14:13:20Z", 1_790_000_000),
            ("2026-09-21t14:13:20.999z", 1_790_000_000),
            ("2026-09-21 16:13:20+02:00", 1_790_000_000),
            ("2026-09-21T09:43:20-04:30", 1_790_000_000),
            ("2000-02-29T00:00:00Z", 951_782_400),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
        ] {
            assert_eq!(parse_time(text), Ok(seconds), "{text}");
        }
        for bad in [
            "",
            "tomorrow",
            "1790000000000",
            "2026-09-21",
            "2026-09-21T14:13:20",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-09-21T24:00:00Z",
            "2026-09-21T14:13Z",
            "2026-09-21T14:13:20.Z",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+01:00",
            "2026-9-21T14:13:20Z",
        ] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }
}
