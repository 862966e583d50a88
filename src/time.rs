//! Times in whole seconds, and their text.

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;
use std::time::Duration;

use pkcs8::der::DateTime;
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

    /// Formats the date as `YYYY-MM-DD`, in UTC. A date after the year 9999 becomes its last day.
    pub fn date(self) -> String {
        let mut text = self.calendar().unwrap_or(DateTime::INFINITY).to_string();
        text.truncate("YYYY-MM-DD".len());
        text
    }

    /// Formats the time as in RFC 3339, in UTC. `None` after the year 9999, because a year in RFC
    /// 3339 has four digits.
    pub fn rfc3339(self) -> Option<String> {
        self.calendar().map(|time| time.to_string())
    }

    fn calendar(self) -> Option<DateTime> {
        DateTime::from_unix_duration(Duration::from_secs(self.0)).ok()
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
        let text = text.to_ascii_uppercase().replacen(' ', "T", 1);
        let (time, zone) = text.split_at(text.rfind(['Z', '+', '-'])?);
        let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
        if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let seconds = |text: &str| Some(DateTime::from_str(text).ok()?.unix_duration().as_secs());
        let local = match time.strip_suffix(":60") {
            // A leap second counts as the second after it.
            Some(minute) => seconds(&format!("{minute}:59Z"))? + 1,
            None => seconds(&format!("{time}Z"))?,
        };
        let offset = || seconds(&format!("1970-01-01T{}:00Z", &zone[1..]));
        let utc = match zone.as_bytes() {
            b"Z" => Some(local),
            [b'+', ..] => local.checked_sub(offset()?),
            [b'-', ..] => local.checked_add(offset()?),
            _ => None,
        };
        utc.map(Self)
    }
}

/// Parses a duration to seconds: `900`, `90s`, `15m`, `24h`, `90d`.
pub fn parse_duration(text: &str) -> Option<u64> {
    let units = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];
    let with_unit = units.iter().find_map(|(name, unit)| Some((text.strip_suffix(*name)?, *unit)));
    let (number, unit) = with_unit.unwrap_or((text, 1));
    // A plus sign is no digit, but `parse` accepts it.
    let number = Some(number).filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
    number?.parse::<u64>().ok()?.checked_mul(unit)
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
    let time = UnixTime(seconds).calendar().unwrap_or(DateTime::INFINITY).to_string();
    format!("{}.{micros:06}Z", time.trim_end_matches('Z'))
}

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
    fn an_offset_a_fraction_and_a_leap_second_are_read() {
        for (text, seconds) in [
            ("2026-09-21T14:13:20+01:30", Some(1_789_994_600)),
            ("2026-09-21t14:13:20.999-01:30", Some(1_790_005_400)),
            ("2026-09-21 14:13:20z", Some(1_790_000_000)),
            ("2016-12-31T23:59:60Z", Some(1_483_228_800)),
            ("2026-09-21T14:13:20Z01:00", None),
            ("2026-09-21T14:13:20.Z", None),
            ("2026-09-21T14:13:20", None),
            ("2026-02-29T14:13:20Z", None),
            ("2026-09-21T14:13:20+24:00", None),
            ("1970-01-01T00:00:00+00:01", None),
            ("1969-12-31T23:59:59Z", None),
        ] {
            assert_eq!(UnixTime::parse_rfc3339(text), seconds.map(UnixTime), "{text}");
        }
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
