//! Times in whole seconds, and their text.

use std::fmt;
use std::ops::{Add, Sub};

use serde::{Deserialize, Serialize};

/// A time in seconds since 1970-01-01T00:00:00Z, as in a JWT's NumericDate (RFC 7519, section 2).
/// Sums and differences saturate, because a time may come from a file or a peer and be any number.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// The seconds from `earlier` to this time; 0 if `earlier` is later.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Formats the date as `YYYY-MM-DD`, in UTC.
    pub fn date(self) -> String {
        let mut days = self.0 / DAY;
        let mut year = 1970;
        while days >= 365 + u64::from(is_leap(year)) {
            days -= 365 + u64::from(is_leap(year));
            year += 1;
        }
        let february = 28 + u64::from(is_leap(year));
        let mut month = 1;
        for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
            if days < length {
                break;
            }
            days -= length;
            month += 1;
        }
        format!("{year:04}-{month:02}-{:02}", days + 1)
    }

    /// Formats the time as in RFC 3339, in UTC. `None` after the year 9999, because a year in RFC
    /// 3339 has four digits.
    pub fn rfc3339(self) -> Option<String> {
        let time = (self <= LAST_RFC3339).then(|| date_time(self.0 * 1_000_000))?;
        Some(format!("{}Z", &time[..time.len() - ".000000Z".len()]))
    }

    /// Formats the time for messages: `1790000000 (2026-09-21T14:13:20Z)`.
    pub fn seconds_and_date(self) -> String {
        match self.rfc3339() {
            Some(date) => format!("{self} ({date})"),
            None => self.to_string(),
        }
    }

    /// Parses a date and time (RFC 3339, section 5.6). Ignores the fraction of a second. `None` if
    /// `text` is malformed or the time is before 1970.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
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
            return Some(Self(seconds));
        }
        let [hours, minutes] = fields(&zone[1..], ':', [2, 2])?;
        let offset = hours * 3600 + minutes * 60;
        let seconds = match zone.as_bytes()[0] {
            _ if !is_time(hours, minutes) => None,
            b'+' => seconds.checked_sub(offset),
            _ => seconds.checked_add(offset),
        };
        seconds.map(Self)
    }
}

impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Add<u64> for UnixTime {
    type Output = Self;

    fn add(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds))
    }
}

impl Sub<u64> for UnixTime {
    type Output = Self;

    fn sub(self, seconds: u64) -> Self {
        Self(self.0.saturating_sub(seconds))
    }
}

/// Formats a time as in RFC 3339, in UTC, with microseconds.
pub fn date_time(unix_micros: u64) -> String {
    let (seconds, micros) = (unix_micros / 1_000_000, unix_micros % 1_000_000);
    let (minutes, second) = (seconds / 60, seconds % 60);
    let (hour, minute) = (minutes / 60 % 24, minutes % 60);
    format!("{}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z", UnixTime(seconds).date())
}

/// Splits `text` at `separator` and parses the parts as numbers. `None` if there are not exactly
/// `N` parts, or if part `i` does not consist of exactly `lengths[i]` digits.
fn fields<const N: usize>(text: &str, separator: char, lengths: [usize; N]) -> Option<[u64; N]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; N];
    for (number, length) in numbers.iter_mut().zip(lengths) {
        let part = parts.next().filter(|part| part.len() == length)?;
        *number = digits(part)?;
    }
    parts.next().is_none().then_some(numbers)
}

fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let before = usize::try_from(month).ok()?.checked_sub(1)?;
    let length = *lengths.get(before)?;
    if year < 1970 || !(1..=length).contains(&day) {
        return None;
    }
    let years: u64 = (1970..year).map(|year| 365 + u64::from(is_leap(year))).sum();
    Some(years + lengths[..before].iter().sum::<u64>() + day - 1)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

/// The number of seconds in a day.
const DAY: u64 = 86_400;
/// 9999-12-31T23:59:59Z: the latest time that RFC 3339 can express.
const LAST_RFC3339: UnixTime = UnixTime(253_402_300_799);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_formatted_to_the_microsecond() {
        assert_eq!(date_time(1_790_000_000_000_000), "2026-09-21T14:13:20.000000Z");
        assert_eq!(date_time(86_399_000_042), "1970-01-01T23:59:59.000042Z");
    }

    #[test]
    fn times_round_trip_through_rfc_3339_to_its_last_second() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_790_000_000, "2026-09-21T14:13:20Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            let time = UnixTime(seconds);
            assert_eq!(time.rfc3339().as_deref(), Some(text));
            assert_eq!(UnixTime::parse_rfc3339(text), Some(time));
        }
        let time = UnixTime(1_790_000_000);
        assert_eq!(time.seconds_and_date(), "1790000000 (2026-09-21T14:13:20Z)");
        let last = UnixTime(u64::MAX);
        assert_eq!((UnixTime(253_402_300_800).rfc3339(), last.rfc3339()), (None, None));
        assert_eq!(last.seconds_and_date(), u64::MAX.to_string());
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (978_307_199, "2000-12-31"),
            (1_709_164_800, "2024-02-29"),
            (1_790_000_000, "2026-09-21"),
            (4_107_542_400, "2100-03-01"),
        ] {
            assert_eq!(UnixTime(seconds).date(), expected);
        }
    }
}
