//! Guessing is slowed: whoever fails to authenticate too often has to wait.
//!
//! Two budgets of failures, each of which refills evenly: one for a client's name at one source, and
//! a larger one for a source whatever it names. Both are looked at before the secret is, and again
//! when it has been, so that guesses beyond them learn nothing, however many come at once. A source
//! at which a client has authenticated before does not count against that client. Where many share a
//! source, it has no budget of its own, and a client that is known there none for its name; and
//! there are no budgets where sources cannot be told apart. So nobody is refused for what others do.
//!
//! Requests pay for this only as long as somebody's failures are not made good.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::FailureLimits;
use crate::oauth::source::Source;

/// Counts failures.
pub struct Throttle {
    origin: Instant,
    budgets: Mutex<HashMap<u64, Budget>>,
    /// When the last budget will be whole again, for whoever has no time to ask for the lock.
    whole_from: AtomicU64,
    capacity: usize,
    /// Who has authenticated at which source, each in the one place where it can stand.
    known: Box<[AtomicU64]>,
    refused: [AtomicU64; 2],
    hasher: RandomState,
}

/// Which budget is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// That of the client's name at this source.
    Client,
    /// That of the source.
    Source,
}

impl Throttle {
    /// One that has seen nothing at `now`, and remembers failures of up to `capacity` clients and
    /// sources. Each takes some 40 bytes.
    pub fn new(capacity: usize, now: Instant) -> Self {
        Self {
            origin: now,
            budgets: Mutex::default(),
            whole_from: AtomicU64::new(0),
            capacity,
            known: (0..KNOWN).map(|_| AtomicU64::new(0)).collect(),
            refused: Default::default(),
            hasher: RandomState::new(),
        }
    }

    /// Whether `client_id` may try to authenticate from `source`.
    ///
    /// # Errors
    ///
    /// In how many seconds it may, at least 1.
    pub fn check(
        &self,
        client_id: &str,
        source: Source,
        limits: &FailureLimits,
        now: Instant,
    ) -> Result<(), u32> {
        if self.nanos(now) >= self.whole_from.load(Ordering::Relaxed) || !source.is_known() {
            return Ok(());
        }
        let pair = self.hasher.hash_one((client_id, source));
        let budgets = self.budgets();
        let wait =
            |key: u64, failures: u32| budgets.get(&key)?.wait(failures, limits, self.nanos(now));
        let is_known = self.is_known(pair);
        let of_client = wait(pair, limits.client_failures).map(|wait| (Spent::Client, wait));
        let of_client = of_client.filter(|_| !(is_known && source.is_shared()));
        let spent = of_client.or_else(|| {
            let wait = wait(self.hasher.hash_one(source), limits.source_failures)?;
            (!is_known && !source.is_shared()).then_some((Spent::Source, wait))
        });
        drop(budgets);
        let Some((spent, wait)) = spent else { return Ok(()) };
        self.refused[spent as usize].fetch_add(1, Ordering::Relaxed);
        Err(u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1))
    }

    /// Notes that whoever named `client_id` has not proven to be it.
    pub fn failed(&self, client_id: &str, source: Source, limits: &FailureLimits, now: Instant) {
        if !source.is_known() {
            return;
        }
        let (pair, now) = (self.hasher.hash_one((client_id, source)), self.nanos(now));
        let keys = [
            (pair, limits.client_failures),
            (self.hasher.hash_one(source), limits.source_failures),
        ];
        let mut budgets = self.budgets();
        if budgets.len() + keys.len() > self.capacity {
            make_room(&mut budgets, now);
        }
        for (key, failures) in keys {
            let budget = budgets.entry(key).or_default();
            budget.take(failures, limits, now);
            self.whole_from.fetch_max(budget.0, Ordering::Relaxed);
        }
    }

    /// Notes that `client_id` has proven to be it at `source`, which is then no stranger there.
    pub fn succeeded(&self, client_id: &str, source: Source) {
        if source.is_known() {
            let pair = self.hasher.hash_one((client_id, source));
            let place = self.place_of(pair);
            // Most often it stands there already, and a store would take the line from other cores.
            if place.load(Ordering::Relaxed) != pair {
                place.store(pair, Ordering::Relaxed);
            }
        }
    }

    /// How many requests were refused for want of this budget.
    pub fn refused(&self, spent: Spent) -> u64 {
        self.refused[spent as usize].load(Ordering::Relaxed)
    }

    fn is_known(&self, pair: u64) -> bool {
        self.place_of(pair).load(Ordering::Relaxed) == pair
    }

    fn place_of(&self, pair: u64) -> &AtomicU64 {
        // The remainder is below the length, which is a power of two.
        &self.known[usize::try_from(pair % KNOWN as u64).unwrap_or(0)]
    }

    fn nanos(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Whole between any two statements, so a panic elsewhere cannot have broken it.
    fn budgets(&self) -> MutexGuard<'_, HashMap<u64, Budget>> {
        self.budgets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle").field("len", &self.budgets().len()).finish_non_exhaustive()
    }
}

/// Failures that have not been made good by time yet: when the last of them will have been, in
/// nanoseconds (the theoretical arrival time of GCRA).
#[derive(Clone, Copy, Debug, Default)]
struct Budget(u64);

impl Budget {
    /// How long it is until one more failure is allowed; `None`: it is now.
    fn wait(self, failures: u32, limits: &FailureLimits, now: u64) -> Option<Duration> {
        let all_but_one = each(failures, limits) * u64::from(failures.saturating_sub(1));
        let wait = self.0.saturating_sub(now).checked_sub(all_but_one)?;
        (wait > 0).then(|| Duration::from_nanos(wait))
    }

    fn take(&mut self, failures: u32, limits: &FailureLimits, now: u64) {
        let most = now.saturating_add(each(failures, limits) * u64::from(failures));
        // Those that were under way when the budget ended take no more than all of it.
        self.0 = self.0.max(now).saturating_add(each(failures, limits)).min(most);
    }
}

/// How long it takes to make one failure good, in nanoseconds.
fn each(failures: u32, limits: &FailureLimits) -> u64 {
    u64::from(limits.seconds) * 1_000_000_000 / u64::from(failures.max(1))
}

/// Forgets what time has made good; and if that is too little, the half that is nearest to it.
fn make_room(budgets: &mut HashMap<u64, Budget>, now: u64) {
    budgets.retain(|_, budget| budget.0 > now);
    let mut ends: Vec<_> = budgets.values().map(|budget| budget.0).collect();
    let middle = ends.len() / 2;
    if middle > 0 {
        let (_, median, _) = ends.select_nth_unstable(middle);
        let median = *median;
        budgets.retain(|_, budget| budget.0 > median);
    }
}

/// Clients that are known at a source; a power of two. Half a mebibyte.
const KNOWN: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const LIMITS: FailureLimits =
        FailureLimits { client_failures: 3, source_failures: 6, seconds: 60 };

    #[test]
    fn a_budget_is_used_up_by_failures_and_refills_evenly() {
        let start = Clock::instant();
        let throttle = Throttle::new(100, start);
        let (here, there) = (Source::of_v4(1), Source::of_v4(2));
        let check = |id, source, seconds| {
            throttle.check(id, source, &LIMITS, start + Duration::from_secs(seconds))
        };
        let fail = |id, source| throttle.failed(id, source, &LIMITS, start);
        for _ in 0..3 {
            assert_eq!(check("a", here, 0), Ok(()));
            fail("a", here);
        }
        assert_eq!(check("a", here, 0), Err(21));
        assert_eq!(check("a", here, 19), Err(2));
        assert_eq!(check("a", here, 20), Ok(()));
        assert_eq!(throttle.refused(Spent::Client), 2);
        // Neither another client at this source nor this client elsewhere has done anything.
        assert_eq!(check("b", here, 0), Ok(()));
        assert_eq!(check("a", there, 0), Ok(()));

        throttle.succeeded("known", here);
        for _ in 0..3 {
            fail("b", here);
        }
        // One source, whomever it names; but not who has been right there.
        assert_eq!(check("c", here, 0), Err(11));
        assert_eq!(check("known", here, 0), Ok(()));
        assert_eq!(check("c", there, 0), Ok(()));
        assert_eq!(throttle.refused(Spent::Source), 1);
        assert_eq!(check("a", Source::UNKNOWN, 0), Ok(()));
    }

    #[test]
    fn where_many_share_a_source_only_strangers_wait() {
        let now = Clock::instant();
        let throttle = Throttle::new(100, now);
        let proxy = Source::of_v4(1).shared();
        let check = |id| throttle.check(id, proxy, &LIMITS, now);
        throttle.succeeded("known", proxy);
        for _ in 0..10 {
            throttle.failed("known", proxy, &LIMITS, now);
            throttle.failed("guessed", proxy, &LIMITS, now);
        }
        assert_eq!((check("known"), check("other")), (Ok(()), Ok(())));
        assert!(check("guessed").is_err());
        assert_eq!(throttle.refused(Spent::Source), 0);
    }

    #[test]
    fn an_unknown_source_is_never_counted() {
        let now = Clock::instant();
        let throttle = Throttle::new(100, now);
        for _ in 0..100 {
            throttle.failed("a", Source::UNKNOWN, &LIMITS, now);
        }
        assert_eq!(throttle.check("a", Source::UNKNOWN, &LIMITS, now), Ok(()));
        assert!(throttle.budgets().is_empty());
    }

    #[test]
    fn what_it_remembers_is_bounded_and_the_worst_stay() {
        let start = Clock::instant();
        let throttle = Throttle::new(100, start);
        let worst = Source::of_v4(7);
        for _ in 0..3 {
            throttle.failed("worst", worst, &LIMITS, start);
        }
        for address in 0..10_000 {
            throttle.failed("a", Source::of_v6(u128::from(address as u32) << 64), &LIMITS, start);
            assert!(throttle.budgets().len() <= 100);
        }
        assert!(throttle.check("worst", worst, &LIMITS, start).is_err());
    }
}
