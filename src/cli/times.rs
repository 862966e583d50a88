//! Parses durations and times of the command line, and shows times as dates.

use serde_json::{Map, Value};

use crate::time::{self, UnixTime};

/// Adds the member `dates` to the description of a client, a secret or a key, and to that of the old
/// key in `retires`. `dates` holds its times in the format of RFC 3339. Without times, it is left
/// out.
pub(super) fn add_dates(described: &mut Value) {
    if let Some(old) = described.get_mut("retires") {
        add_dates(old);
    }
    let dates = TIMES.iter().filter_map(|name| {
        let date = UnixTime(described[*name].as_u64()?).rfc3339()?;
        Some(((*name).to_owned(), Value::from(date)))
    });
    let dates: Map<_, _> = dates.collect();
    if !dates.is_empty() {
        described["dates"] = dates.into();
    }
}

/// In the description of a client, a secret or a key, these members are times in Unix seconds.
const TIMES: [&str; 9] = [
    "published_at",
    "signs_from",
    "instead_of",
    "retires_at",
    "gone_at",
    "last_fetch",
    "not_before",
    "expires_at",
    "last_used",
];

/// Parses a duration to seconds: `900`, `15m`, `24h`, `90d`.
pub(super) fn parse_duration(argument: &str) -> Result<u64, &'static str> {
    time::parse_duration(argument).ok_or("must be seconds, or a duration as in 15m, 24h or 90d")
}

/// Parses a duration that must fit into 32 bits.
pub(super) fn parse_seconds(argument: &str) -> Result<u32, &'static str> {
    parse_duration(argument)?.try_into().map_err(|_| "is too long")
}

/// Parses a time that is given in Unix seconds or in the format of RFC 3339.
pub(super) fn parse_time(argument: &str) -> Result<UnixTime, &'static str> {
    match digits(argument).map(UnixTime) {
        Some(time) if time < IN_MILLISECONDS => Ok(time),
        Some(_) => Err("is too late for Unix seconds: are these milliseconds?"),
        None => UnixTime::parse_rfc3339(argument)
            .ok_or("must be Unix seconds, or a time of RFC 3339 as in 2027-01-31T12:00:00Z"),
    }
}

/// A time is assumed to be in milliseconds if it is this number or greater. Read as seconds, this
/// number is a time in the year 5138. Read as milliseconds, it is a time in the year 1973.
pub(super) const IN_MILLISECONDS: UnixTime = UnixTime(100_000_000_000);

fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
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
            ("2026-09-21 16:13:20+02:00", 1_790_000_000),
        ] {
            assert_eq!(parse_time(text), Ok(UnixTime(seconds)), "{text}");
        }
        for bad in [
            "",
            "tomorrow",
            "1790000000000",
            "2026-09-21",
            "2026-13-01T00:00:00Z",
            "2026-09-21T24:00:00Z",
            "2026-09-21T14:13Z",
            "2026-9-21T14:13:20Z",
        ] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }
}
