//! Admission: how many tokens may wait for a signature.
//!
//! The signing threads need a certain time to empty a full queue if no other thread uses their
//! processors. No admitted token should wait longer than that time. But other threads usually use
//! these processors: the event loop has priority, and under overload it is busy refusing requests.
//! The signing threads then need two or three times as long for the same queue. So each signing
//! thread measures its share of processor time: the fraction of the time during which the thread
//! runs. The share is measured only while tokens wait. The limit is the capacity times the square
//! of the average share. The share itself would be the right factor if every token waited equally
//! long. But the waiting times vary, and they vary more when the share is smaller. The square
//! allows for this variation.

use std::time::{Duration, Instant};

use crate::clock::Clock;

/// The limit on the number of waiting tokens, for all signing threads together.
pub(super) struct Admission {
    capacity: usize,
    /// The share of each thread, in thousandths; `None` until the thread has been busy for some
    /// time.
    shares: Vec<Option<usize>>,
    limit: usize,
}

impl Admission {
    pub(super) fn new(threads: usize, capacity: usize) -> Self {
        let mut admission = Self { capacity, shares: vec![None; threads], limit: 0 };
        admission.update();
        admission
    }

    /// How many tokens may wait now; at least one.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Records a share that a thread has measured. A single measurement may be far off, for example
    /// when the whole machine stands still for a moment. So measurements are smoothed: each one
    /// except the first has a weight of one quarter.
    pub(super) fn record(&mut self, thread: usize, share: usize) {
        let share = share.min(WHOLE);
        self.shares[thread] =
            Some(self.shares[thread].map_or(share, |old| (3 * old + share).div_ceil(4)));
        self.update();
    }

    /// Forgets the share of a thread that has no tokens to sign.
    pub(super) fn forget(&mut self, thread: usize) {
        if self.shares[thread].take().is_some() {
            self.update();
        }
    }

    fn update(&mut self) {
        let sum: usize = self.shares.iter().map(|share| share.unwrap_or(UNKNOWN)).sum();
        let share = sum / self.shares.len();
        let limit = self.capacity * share / WHOLE * share / WHOLE;
        self.limit = limit.max(self.capacity / MIN_LIMIT_DIVISOR).max(1);
    }
}

/// The period in which a thread measures its share.
pub(super) struct Window {
    since: Instant,
    ran: Option<Duration>,
    length: Duration,
}

impl Window {
    /// Begins the first window after the thread was idle.
    pub(super) fn first() -> Self {
        Self::of(FIRST_WINDOW)
    }

    fn of(length: Duration) -> Self {
        Self { since: Clock::system().instant(), ran: Clock::thread_time(), length }
    }

    /// If the window is over, returns the part of the window during which this thread ran, in
    /// thousandths, and begins the next window. Returns [`WHOLE`] on systems that do not report a
    /// thread's CPU time.
    pub(super) fn end(&mut self) -> Option<usize> {
        let took = Clock::system().instant().duration_since(self.since);
        if took < self.length {
            return None;
        }
        let before = std::mem::replace(self, Self::of(NEXT_WINDOW)).ran;
        let (Some(before), Some(now)) = (before, self.ran) else { return Some(WHOLE) };
        let ran = now.saturating_sub(before);
        usize::try_from(ran.as_nanos() * WHOLE as u128 / took.as_nanos()).ok()
    }
}

const WHOLE: usize = 1000;

/// The share, in thousandths, that is assumed for a thread until the thread has measured it. The
/// square of this share is one half. So until a thread has measured a share, the limit is half of
/// the capacity.
const UNKNOWN: usize = 708;

/// The limit is never below the capacity divided by this number: otherwise a short delay of the
/// signing threads would make the server refuse requests without overload.
const MIN_LIMIT_DIVISOR: usize = 4;

/// The length of the first window after a thread was idle. Until the end of this window the share
/// is not measured but assumed, and the tokens admitted by then wait longest. So the window is
/// short.
const FIRST_WINDOW: Duration = Duration::from_millis(4);

/// The length of all later windows. It is long enough for several time slices of the other threads
/// on the processor.
const NEXT_WINDOW: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_follows_the_square_of_the_share() {
        let mut admission = Admission::new(2, 400);
        assert_eq!(admission.limit(), 200, "no share is known");
        admission.record(0, 1001);
        admission.record(1, 1000);
        assert_eq!(admission.limit(), 400);
        // Thread 0 now has the share 3/4 × 1 + 1/4 × 0.6 = 0.9, and thread 1 has the share 1.
        admission.record(0, 600);
        assert_eq!(admission.limit(), 361);
        admission.forget(0);
        admission.forget(1);
        assert_eq!(admission.limit(), 200);
        admission.record(0, 0);
        assert_eq!(admission.limit(), 100, "never below a quarter");
        assert_eq!(Admission::new(1, 1).limit(), 1);
    }

    #[test]
    fn a_sleeping_thread_has_a_small_share() {
        let mut window = Window::first();
        std::thread::sleep(20 * NEXT_WINDOW);
        let asleep = window.end().unwrap();
        assert_eq!(asleep < WHOLE / 2, cfg!(target_os = "linux"), "{asleep}");
    }
}
