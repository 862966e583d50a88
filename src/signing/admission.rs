//! Admission: how many tokens may wait for a signature.
//!
//! The rule: the limit is the capacity of the queue, times the smallest share of their processors
//! that the signing threads had in their last four windows of about 10 ms.
//!
//! If no other thread used these processors, the threads would empty a full queue in a certain
//! time, and no admitted token should wait longer than that. But the event loop has priority, and
//! under overload it is busy refusing requests, so the threads need two or three times as long for
//! the same queue. The smallest recent share is a careful estimate of what they will get next. The
//! share is measured only while tokens wait.

use std::time::{Duration, Instant};

use crate::clock::Clock;

/// The limit on the number of waiting tokens, for all signing threads together.
pub(super) struct Admission {
    capacity: usize,
    /// The last shares of each thread, in thousandths.
    shares: Vec<[usize; WINDOWS]>,
    limit: usize,
}

impl Admission {
    pub(super) fn new(threads: usize, capacity: usize) -> Self {
        let mut admission = Self { capacity, shares: vec![UNKNOWN; threads], limit: 0 };
        admission.update();
        admission
    }

    /// How many tokens may wait now; at least one.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Records the share that a thread has measured in a window.
    pub(super) fn record(&mut self, thread: usize, share: usize) {
        let shares = &mut self.shares[thread];
        shares.rotate_right(1);
        shares[0] = share.min(WHOLE);
        self.update();
    }

    /// Forgets the shares of a thread that has no tokens to sign.
    pub(super) fn forget(&mut self, thread: usize) {
        if self.shares[thread] != UNKNOWN {
            self.shares[thread] = UNKNOWN;
            self.update();
        }
    }

    fn update(&mut self) {
        let smallest = self.shares.iter().filter_map(|shares| shares.iter().min());
        let share = smallest.sum::<usize>() / self.shares.len();
        let limit = self.capacity * share / WHOLE;
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

/// The number of windows whose shares count.
const WINDOWS: usize = 4;

/// The shares that are assumed for windows that a thread has not measured yet. So until a thread
/// has been busy for four windows, the limit is at most half of the capacity.
const UNKNOWN: [usize; WINDOWS] = [WHOLE / 2; WINDOWS];

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
    fn the_limit_follows_the_smallest_of_the_last_four_shares() {
        let mut admission = Admission::new(2, 400);
        let mut record = |thread, share, expected: usize| {
            admission.record(thread, share);
            assert_eq!(admission.limit(), expected, "{thread}, {share}");
        };
        for (thread, limits) in [[200, 200, 200, 300], [300, 300, 300, 400]].iter().enumerate() {
            limits.iter().for_each(|limit| record(thread, 1001, *limit));
        }
        record(0, 600, 320);
        [320, 320, 320, 400].iter().for_each(|limit| record(0, 1000, *limit));
        record(0, 0, 200);
        record(1, 0, 100);
        admission.forget(0);
        admission.forget(1);
        assert_eq!(admission.limit(), 200, "no share is known");
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
