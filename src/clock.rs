//! Time has one door: everything that needs it is handed a [`Clock`], and tests hand in one that
//! they move themselves.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Tells the wall-clock time, in whole seconds since the Unix epoch.
#[derive(Clone, Debug)]
pub struct Clock(Source);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `start` (Unix seconds) until the [`ManualClock`] moves it.
    pub fn manual(start: u64) -> (Self, ManualClock) {
        let now = Arc::new(AtomicU64::new(start));
        (Self(Source::Manual(Arc::clone(&now))), ManualClock(now))
    }

    /// Seconds since 1970-01-01T00:00:00Z, as JWT's NumericDate counts them (RFC 7519, section 2).
    ///
    /// A machine whose clock stands before 1970 is told 0: its tokens are then expired on
    /// arrival everywhere else, which is the safe side.
    pub fn unix_seconds(&self) -> u64 {
        match &self.0 {
            Source::System => {
                #[expect(clippy::disallowed_methods, reason = "the one door")]
                let now = SystemTime::now();
                now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
            }
            Source::Manual(now) => now.load(Ordering::Relaxed),
        }
    }

    /// Microseconds since then by the machine's clock: for what is told, not for what is decided.
    pub fn unix_micros() -> u64 {
        #[expect(clippy::disallowed_methods, reason = "the one door")]
        let now = SystemTime::now();
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    /// How long the calling thread has run: not how long it has existed. `None` where the system does
    /// not tell.
    pub(crate) fn thread_time() -> Option<Duration> {
        #[cfg(target_os = "linux")]
        {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            Duration::try_from(time).ok()
        }
        #[cfg(not(target_os = "linux"))]
        None
    }

    /// A monotonic instant for deadlines and durations; no clock step moves it.
    pub fn instant() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "the one door")]
        Instant::now()
    }
}

/// Waits until a thread has ended that is about to, but not for long: one that waits for a reader or
/// a disk may never end. Whether it has.
pub(crate) fn join_soon(thread: JoinHandle<()>) -> bool {
    let begin = Clock::instant();
    while !thread.is_finished() {
        if begin.elapsed() >= LAST_MOMENT {
            return false;
        }
        sleep(BETWEEN_LOOKS);
    }
    // One that panicked has ended too.
    let _ = thread.join();
    true
}

/// The longest that the work at the end of a process may take.
pub(crate) const LAST_MOMENT: Duration = Duration::from_millis(500);
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// The hand that moves a [`Clock::manual`].
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// Sets the clock to `now`, in Unix seconds, forwards or backwards.
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

/// As RFC 3339 has it, with microseconds, in UTC.
pub fn date_time(unix_micros: u64) -> String {
    let (seconds, micros) = (unix_micros / 1_000_000, unix_micros % 1_000_000);
    let (minutes, second) = (seconds / 60, seconds % 60);
    let (hour, minute) = (minutes / 60 % 24, minutes % 60);
    format!("{}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z", date(seconds))
}

/// `YYYY-MM-DD`, in UTC.
pub fn date(unix_seconds: u64) -> String {
    let mut days = unix_seconds / 86_400;
    let mut year = 1970;
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
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
    fn a_time_is_told_to_the_microsecond() {
        assert_eq!(date_time(1_790_000_000_000_000), "2026-09-21T14:13:20.000000Z");
        assert_eq!(date_time(86_399_000_042), "1970-01-01T23:59:59.000042Z");
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
