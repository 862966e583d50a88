//! How many tokens may wait.
//!
//! A token that is let in should wait no longer than a full queue would take if signing had its
//! processors to itself. It rarely has: the event loop goes first, and under overload it has all the
//! refusals to tell. A queue of the same length then takes twice or three times as long. So signing
//! threads measure what share of their time they do run while others wait for them. The square of that
//! share of the queue is open: a share of it would do if all waited equally long, but the smaller the
//! share, the more it swings.

use std::time::{Duration, Instant};

use crate::clock::Clock;

/// The room in front of all signing threads.
pub(super) struct Room {
    capacity: usize,
    /// Of each thread, in thousandths; `None` unless it has been busy for some time.
    shares: Vec<Option<usize>>,
    open: usize,
}

impl Room {
    pub(super) fn new(threads: usize, capacity: usize) -> Self {
        let mut room = Self { capacity, shares: vec![None; threads], open: 0 };
        room.count();
        room
    }

    /// How many may wait at this time; at least one.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// What a thread has measured. Single measurements swing, most of all where the whole machine
    /// stands still for a moment: after the first, each counts for a quarter.
    pub(super) fn measured(&mut self, thread: usize, share: usize) {
        let share = share.min(WHOLE);
        self.shares[thread] =
            Some(self.shares[thread].map_or(share, |old| (3 * old + share).div_ceil(4)));
        self.count();
    }

    /// A thread had nothing to do: what it measured before is over.
    pub(super) fn idle(&mut self, thread: usize) {
        if self.shares[thread].take().is_some() {
            self.count();
        }
    }

    fn count(&mut self) {
        let sum: usize = self.shares.iter().map(|share| share.unwrap_or(UNKNOWN)).sum();
        let share = sum / self.shares.len();
        let open = self.capacity * share / WHOLE * share / WHOLE;
        self.open = open.max(self.capacity / LEAST).max(1);
    }
}

/// What a thread measures its share in.
pub(super) struct Window {
    since: Instant,
    ran: Option<Duration>,
    length: Duration,
}

impl Window {
    /// The first since the thread had nothing to do.
    pub(super) fn first() -> Self {
        Self::of(FIRST)
    }

    fn of(length: Duration) -> Self {
        Self { since: Clock::instant(), ran: Clock::thread_time(), length }
    }

    /// The share of its time that this thread ran, in thousandths, once the window is long enough;
    /// another one begins then. Where the system does not tell, all of it.
    pub(super) fn end(&mut self) -> Option<usize> {
        let took = Clock::instant().duration_since(self.since);
        if took < self.length {
            return None;
        }
        let before = std::mem::replace(self, Self::of(NEXT)).ran;
        let (Some(before), Some(now)) = (before, self.ran) else { return Some(WHOLE) };
        let ran = now.saturating_sub(before);
        usize::try_from(ran.as_nanos() * WHOLE as u128 / took.as_nanos()).ok()
    }
}

const WHOLE: usize = 1000;

/// Until a share is known: half of the queue is open.
const UNKNOWN: usize = 708;

/// This part of the queue is open in any case, or honest clients would be refused for a moment's delay.
const LEAST: usize = 4;

/// Soon: what is let in until then waits longest.
const FIRST: Duration = Duration::from_millis(4);

/// Several turns of whoever shares the processor.
const NEXT: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_square_of_the_share_is_open() {
        let mut room = Room::new(2, 400);
        assert_eq!(room.open(), 200, "nothing is known");
        room.measured(0, 1001);
        room.measured(1, 1000);
        assert_eq!(room.open(), 400);
        // Three quarters of the old one count: 0.9 and 1.
        room.measured(0, 600);
        assert_eq!(room.open(), 361);
        room.idle(0);
        room.idle(1);
        assert_eq!(room.open(), 200);
        room.measured(0, 0);
        assert_eq!(room.open(), 100, "a quarter in any case");
        assert_eq!(Room::new(1, 1).open(), 1);
    }

    #[test]
    fn a_thread_that_sleeps_has_no_share() {
        let mut window = Window::first();
        std::thread::sleep(20 * NEXT);
        let asleep = window.end().unwrap();
        assert_eq!(asleep < WHOLE / 2, cfg!(target_os = "linux"), "{asleep}");
    }
}
