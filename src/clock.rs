//! The only module that reads the system's clocks. Code that needs the time is passed a [`Clock`];
//! tests pass a manual [`Clock`], whose time they move.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::time::UnixTime;

/// The system's clocks, or a manual clock whose time a test moves. A clock tells two times: the
/// wall-clock time, which may be set backwards, and the monotonic time, which may not.
#[derive(Clone, Debug)]
pub struct Clock(Source);

impl Clock {
    /// Returns the system clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// Returns a clock whose wall-clock time is `start` (Unix seconds), and the [`ManualClock`] that
    /// moves its two times. They do not advance by themselves.
    pub fn manual(start: u64) -> (Self, ManualClock) {
        let manual = Arc::new(Manual {
            unix_seconds: AtomicU64::new(start),
            start: Self::system().instant(),
            advanced: AtomicU64::new(0),
        });
        (Self(Source::Manual(Arc::clone(&manual))), ManualClock(manual))
    }

    /// Returns the seconds since 1970-01-01T00:00:00Z, as in a JWT's NumericDate (RFC 7519, section
    /// 2).
    ///
    /// Returns 0 if the system clock is set to a time before 1970. This is safe: every server whose
    /// clock is right sees a token issued at time 0 as expired.
    pub fn unix_seconds(&self) -> u64 {
        match &self.0 {
            Source::System => since_epoch().as_secs(),
            Source::Manual(manual) => manual.unix_seconds.load(Ordering::Relaxed),
        }
    }

    /// Returns [`Self::unix_seconds`] as a [`UnixTime`].
    pub(crate) fn now(&self) -> UnixTime {
        UnixTime(self.unix_seconds())
    }

    /// Returns the time of the system clock in microseconds since the Unix epoch. Use this time
    /// only for logs and traces. Decisions must use [`Self::unix_seconds`], because a test can set
    /// the clock that `unix_seconds` reads.
    pub fn unix_micros() -> u64 {
        u64::try_from(since_epoch().as_micros()).unwrap_or(u64::MAX)
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
    pub fn instant(&self) -> Instant {
        if let Source::Manual(manual) = &self.0 {
            return manual.start + Duration::from_secs(manual.advanced.load(Ordering::Relaxed));
        }
        #[expect(clippy::disallowed_methods, reason = "the only place that reads the clock")]
        Instant::now()
    }

    /// Returns how long it is until `deadline`; zero if it has passed. A timer gets this duration
    /// and not the deadline, because a timer knows nothing of a manual clock.
    pub(crate) fn until(&self, deadline: Instant) -> Duration {
        deadline.saturating_duration_since(self.instant())
    }
}

/// The time of the system clock since 1970; zero if it is set to a time before.
fn since_epoch() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "the only place that reads the clock")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Joins a thread that was told to stop. Waits at most [`LAST_MOMENT`], because a thread that waits
/// for a pipe's reader or a disk may never end. Returns whether the thread has ended.
pub(crate) fn join_soon(thread: JoinHandle<()>) -> bool {
    join_within(thread, LAST_MOMENT)
}

/// Joins a thread that was told to stop, as [`join_soon`] does, but waits at most `limit`.
pub(crate) fn join_within(thread: JoinHandle<()>, limit: Duration) -> bool {
    let begin = Clock::system().instant();
    while !thread.is_finished() {
        if begin.elapsed() >= limit {
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

/// Moves the times of a clock that [`Clock::manual`] created.
#[derive(Debug)]
pub struct ManualClock(Arc<Manual>);

impl ManualClock {
    /// Sets the wall-clock time forwards or backwards to `now` (Unix seconds). The monotonic time
    /// does not change.
    pub fn set(&self, now: u64) {
        self.0.unix_seconds.store(now, Ordering::Relaxed);
    }

    /// Lets `seconds` pass: advances the wall-clock time and the monotonic time.
    pub fn advance(&self, seconds: u64) {
        self.0.unix_seconds.fetch_add(seconds, Ordering::Relaxed);
        self.0.advanced.fetch_add(seconds, Ordering::Relaxed);
    }
}

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<Manual>),
}

#[derive(Debug)]
struct Manual {
    unix_seconds: AtomicU64,
    /// The monotonic time at which the clock was created.
    start: Instant,
    /// The seconds by which the clock was advanced.
    advanced: AtomicU64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_if_it_is_moved() {
        let (clock, manual) = Clock::manual(1000);
        let (copy, start) = (clock.clone(), clock.instant());
        sleep(POLL_INTERVAL);
        assert_eq!((clock.unix_seconds(), clock.instant()), (1000, start));
        manual.advance(5);
        let later = start + Duration::from_secs(5);
        assert_eq!((copy.unix_seconds(), copy.instant()), (1005, later));
        // Setting the wall-clock time back leaves the monotonic time as it is.
        manual.set(900);
        assert_eq!((copy.unix_seconds(), copy.instant()), (900, later));
        assert_eq!([copy.until(later), copy.until(start)], [Duration::ZERO; 2]);
        assert_eq!(clock.until(later + POLL_INTERVAL), POLL_INTERVAL);
    }
}
