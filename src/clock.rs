//! The only module that reads the system's clocks. Code that needs the wall-clock time is passed a
//! [`Clock`]; tests pass a manual [`Clock`], whose time they set.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A wall clock: the system clock, or a manual clock whose time a test sets.
#[derive(Clone, Debug)]
pub struct Clock(Source);

impl Clock {
    /// Returns the system clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// Returns a clock whose time is `start` (Unix seconds), and the [`ManualClock`] that sets its
    /// time. The time does not advance by itself.
    pub fn manual(start: u64) -> (Self, ManualClock) {
        let now = Arc::new(AtomicU64::new(start));
        (Self(Source::Manual(Arc::clone(&now))), ManualClock(now))
    }

    /// Returns the seconds since 1970-01-01T00:00:00Z, as in a JWT's NumericDate (RFC 7519, section
    /// 2).
    ///
    /// Returns 0 if the system clock is set to a time before 1970. This is safe: every server whose
    /// clock is right sees a token issued at time 0 as expired.
    pub fn unix_seconds(&self) -> u64 {
        match &self.0 {
            Source::System => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "the only place that reads the clock"
                )]
                let now = SystemTime::now();
                now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
            }
            Source::Manual(now) => now.load(Ordering::Relaxed),
        }
    }

    /// Returns the time of the system clock in microseconds since the Unix epoch. Use this time
    /// only for logs and traces. Decisions must use [`Self::unix_seconds`], because a test can set
    /// the clock that `unix_seconds` reads.
    pub fn unix_micros() -> u64 {
        #[expect(clippy::disallowed_methods, reason = "the only place that reads the clock")]
        let now = SystemTime::now();
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    /// Returns the CPU time that the calling thread has used; `None` on systems other than Linux.
    pub(crate) fn thread_time() -> Option<Duration> {
        #[cfg(target_os = "linux")]
        {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            Duration::try_from(time).ok()
        }
        #[cfg(not(target_os = "linux"))]
        None
    }

    /// Returns the monotonic time, for deadlines and durations. Setting the system clock does not
    /// change the monotonic time.
    pub fn instant() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "the only place that reads the clock")]
        Instant::now()
    }
}

/// Joins a thread that was told to stop. Waits at most [`LAST_MOMENT`], because a thread that waits
/// for a pipe's reader or a disk may never end. Returns whether the thread has ended.
pub(crate) fn join_soon(thread: JoinHandle<()>) -> bool {
    let begin = Clock::instant();
    while !thread.is_finished() {
        if begin.elapsed() >= LAST_MOMENT {
            return false;
        }
        sleep(POLL_INTERVAL);
    }
    // The thread has ended. Ignore an error of `join`: it means that the thread panicked.
    let _ = thread.join();
    true
}

/// The longest time that shutdown waits for a thread, or for the threads of the Tokio runtime.
pub(crate) const LAST_MOMENT: Duration = Duration::from_millis(500);
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// Sets the time of a clock that [`Clock::manual`] created.
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// Sets the clock forwards or backwards to `now` (Unix seconds).
    pub fn set(&self, now: u64) {
        self.0.store(now, Ordering::Relaxed);
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ManualClock").field(&self.0.load(Ordering::Relaxed)).finish()
    }
}

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<AtomicU64>),
}

/// Formats a time as in RFC 3339, in UTC, with microseconds.
pub fn date_time(unix_micros: u64) -> String {
    let (seconds, micros) = (unix_micros / 1_000_000, unix_micros % 1_000_000);
    let (minutes, second) = (seconds / 60, seconds % 60);
    let (hour, minute) = (minutes / 60 % 24, minutes % 60);
    format!("{}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z", date(seconds))
}

/// Formats a time as in RFC 3339, in UTC, in whole seconds. `None` after the year 9999, because a
/// year in RFC 3339 has four digits.
pub fn rfc3339(unix_seconds: u64) -> Option<String> {
    let time = (unix_seconds <= LAST_RFC3339).then(|| date_time(unix_seconds * 1_000_000))?;
    Some(format!("{}Z", &time[..time.len() - ".000000Z".len()]))
}

/// Formats a time for messages: `1790000000 (2026-09-21T14:13:20Z)`.
pub fn seconds_and_date(unix_seconds: u64) -> String {
    match rfc3339(unix_seconds) {
        Some(date) => format!("{unix_seconds} ({date})"),
        None => unix_seconds.to_string(),
    }
}

/// Parses a date and time (RFC 3339, section 5.6) to Unix seconds. Ignores the fraction of a
/// second. `None` if `text` is malformed or the time is before 1970.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
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
/// 9999-12-31T23:59:59Z in Unix seconds: the latest time that RFC 3339 can express.
const LAST_RFC3339: u64 = 253_402_300_799;

/// Formats the date of a time as `YYYY-MM-DD`, in UTC.
pub fn date(unix_seconds: u64) -> String {
    let mut days = unix_seconds / DAY;
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
            assert_eq!(rfc3339(seconds).as_deref(), Some(text));
            assert_eq!(parse_rfc3339(text), Some(seconds));
        }
        assert_eq!(seconds_and_date(1_790_000_000), "1790000000 (2026-09-21T14:13:20Z)");
        assert_eq!((rfc3339(253_402_300_800), rfc3339(u64::MAX)), (None, None));
        assert_eq!(seconds_and_date(u64::MAX), u64::MAX.to_string());
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
            assert_eq!(date(seconds), expected);
        }
    }
}
