//! The only module that reads the system's clocks. Code that needs the wall-clock time is passed a
//! [`Clock`]; tests pass a manual [`Clock`], whose time they set.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::time::UnixTime;

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

    /// Returns [`Self::unix_seconds`] as a [`UnixTime`].
    pub(crate) fn now(&self) -> UnixTime {
        UnixTime(self.unix_seconds())
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
