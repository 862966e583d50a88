//! The generic cell rate algorithm (GCRA): a budget of units that refill evenly, stored as one
//! number.
//!
//! The algorithm is from ITU-T Recommendation I.371, annex A, in its form as virtual scheduling. The
//! stored number is the theoretical arrival time: the time at which the budget is full again. Taking
//! a unit moves this time by the interval in which one unit refills. The budget has a unit as long
//! as this time is at most `units - 1` intervals ahead. The caller passes the current time, in
//! nanoseconds after an origin of its choice.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The size of a budget and the interval in which one unit refills.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    units: u64,
    /// In nanoseconds.
    interval: u64,
}

impl Rate {
    /// A budget of `units` units, all of which refill in `seconds` seconds. 0 units count as 1.
    pub fn new(units: u32, seconds: u32) -> Self {
        let units = u64::from(units.max(1));
        Self { units, interval: u64::from(seconds) * NANOS / units }
    }
}

/// A budget, as the time at which it is full. The default is full at every time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// In nanoseconds after the caller's origin.
    pub full_at: u64,
}

impl Budget {
    /// Returns the seconds until the budget has a unit, at least 1. `None` if it has a unit now.
    pub fn wait(self, rate: Rate, now: u64) -> Option<u32> {
        let ahead = self.full_at.saturating_sub(now);
        let wait = ahead.saturating_sub(rate.interval * (rate.units - 1));
        (wait > 0).then(|| u32::try_from(wait / NANOS).unwrap_or(u32::MAX).saturating_add(1))
    }

    /// Takes a unit. If less than a unit is left, takes only the rest.
    pub fn take(&mut self, rate: Rate, now: u64) -> Taken {
        let before = self.full_at.max(now);
        let empty = now.saturating_add(rate.interval * rate.units);
        self.full_at = before.saturating_add(rate.interval).min(empty).max(before);
        Taken { full_at: self.full_at, amount: self.full_at - before }
    }

    /// Returns what was taken to the budget. If some of it has refilled since, returns only the
    /// rest.
    pub fn give_back(&mut self, taken: Taken, now: u64) {
        self.full_at -= taken.amount.min(taken.full_at.saturating_sub(now)).min(self.full_at);
    }
}

/// The part of a budget that was taken.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// The time at which the budget will be full if nothing else is taken.
    pub full_at: u64,
    /// The time in which the part refills, in nanoseconds.
    amount: u64,
}

/// A budget that threads share without a lock.
pub struct SharedBudget {
    origin: Instant,
    full_at: AtomicU64,
}

impl SharedBudget {
    /// Creates a full budget. Later calls take a time before `now` for `now`.
    pub fn new(now: Instant) -> Self {
        Self { origin: now, full_at: AtomicU64::new(0) }
    }

    /// Takes a unit.
    ///
    /// # Errors
    ///
    /// If the budget has no unit: the seconds until it has one, at least 1.
    pub fn take(&self, rate: Rate, now: Instant) -> Result<Taken, u32> {
        let now = nanos_between(self.origin, now);
        let take = |full_at| {
            let mut budget = Budget { full_at };
            budget.wait(rate, now).map_or_else(|| Ok(budget.take(rate, now)), Err)
        };
        let after = |full_at| take(full_at).ok().map(|taken: Taken| taken.full_at);
        let order = Ordering::Relaxed;
        let (Ok(before) | Err(before)) = self.full_at.fetch_update(order, order, after);
        take(before)
    }

    /// Returns what was taken to the budget, as [`Budget::give_back`] does.
    pub fn give_back(&self, taken: Taken, now: Instant) {
        let now = nanos_between(self.origin, now);
        let after = |full_at| {
            let mut budget = Budget { full_at };
            budget.give_back(taken, now);
            Some(budget.full_at)
        };
        // Cannot fail: there is always a new value.
        let _ = self.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after);
    }
}

/// Returns the nanoseconds from `origin` to `now`; 0 if `now` is earlier.
pub fn nanos_between(origin: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(origin).as_nanos()).unwrap_or(u64::MAX)
}

const NANOS: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;

    #[test]
    fn extreme_rates_and_times_do_not_overflow() {
        for rate in [Rate::new(0, 0), Rate::new(u32::MAX, 1), Rate::new(1, u32::MAX)] {
            for now in [0, u64::MAX] {
                let mut budget = Budget::default();
                let taken = budget.take(rate, now);
                budget.wait(rate, now);
                budget.give_back(taken, u64::MAX - now);
            }
        }
    }

    #[test]
    fn threads_that_share_a_budget_take_its_units_once_each() {
        let now = Clock::system().instant();
        let budget = SharedBudget::new(now);
        let rate = Rate::new(1000, 1_000_000);
        let taken: usize = std::thread::scope(|scope| {
            let take = || (0..500).filter(|_| budget.take(rate, now).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 1000);
        assert_eq!(budget.take(rate, now).unwrap_err(), 1001);
        let later = now + Duration::from_secs(1000);
        let unit = budget.take(rate, later).unwrap();
        assert!(budget.take(rate, later).is_err());
        budget.give_back(unit, later);
        assert!(budget.take(rate, later).is_ok());
    }
}
