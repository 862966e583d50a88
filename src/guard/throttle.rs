//! Failure budgets, which slow down the guessing of secrets. Each failed attempt to authenticate
//! takes a unit from each of two budgets.
//!
//! One budget belongs to the pair of a client and a [`ClientNetwork`], the other to the network. A
//! failed attempt takes its units before it is answered. If the check of an attempt needs much time
//! or memory, the attempt takes its units before the check ([`Attempt::take`]), and returns them if
//! it succeeds. So each wrong guess has taken its units when it is answered, even if many attempts
//! run concurrently. If a budget is used up, an attempt is refused without a check of its
//! credentials.
//!
//! A client that has authenticated from a network in the last 24 hours is *known* at this network.
//! Attempts of a known client are not refused when the network's budget is used up, so other
//! clients cannot lock out the known client. On a shared network (one that many clients may use),
//! both budgets are larger ([`FailureLimits::shared_factor`]), and a client whose secrets cannot be
//! guessed needs no budget.
//!
//! While all budgets are full, a successful attempt takes no lock, unless [`Attempt::take`] is
//! called for it.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::FailureLimits;
use crate::oauth::client_network::ClientNetwork;

/// All failure budgets.
pub struct Throttle {
    origin: Instant,
    budgets: Mutex<HashMap<u64, Budget>>,
    /// The time from which all budgets are full, in nanoseconds after `origin`. After this time, an
    /// attempt need not lock `budgets`.
    full_from: AtomicU64,
    capacity: usize,
    known: KnownClients,
    refused: [AtomicU64; 2],
    hasher: RandomState,
}

/// Which of the two budgets is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// The budget of the pair of client and network.
    Client,
    /// The budget of the network.
    Network,
}

impl Throttle {
    /// Creates a throttle whose budgets are all full at `now`. Only budgets that are not full take
    /// memory, about 40 bytes each. At most `capacity` budgets are stored.
    pub fn new(capacity: usize, now: Instant) -> Self {
        Self {
            origin: now,
            budgets: Mutex::default(),
            full_from: AtomicU64::new(0),
            capacity,
            known: KnownClients((0..KNOWN).map(|_| AtomicU64::new(0)).collect()),
            refused: Default::default(),
            hasher: RandomState::new(),
        }
    }

    /// Begins an attempt to authenticate as `client_id` from `network`. `is_guessable` says whether
    /// the client has a secret with a slow hash. `may_be_known` says whether the client is
    /// registered and enabled.
    ///
    /// # Errors
    ///
    /// If a budget is used up, the number of seconds until the budget has a unit again; at least 1.
    pub fn begin(
        &self,
        client_id: &str,
        network: ClientNetwork,
        is_guessable: bool,
        may_be_known: bool,
        limits: &FailureLimits,
        now: Instant,
    ) -> Result<Attempt<'_>, u32> {
        let factor = if network.is_shared() { limits.shared_factor } else { 1 };
        let rates = [limits.client_failures, limits.source_failures]
            .map(|failures| Rate::new(failures.saturating_mul(factor), limits.seconds));
        let is_free = network.is_shared() && !is_guessable;
        let pair = if is_free { 0 } else { self.hasher.hash_one((client_id, network)) };
        let is_known = may_be_known && !is_free && self.known.contains(pair, self.hours(now));
        let attempt =
            Attempt { throttle: self, pair, network, is_known, is_free, rates, taken: None };
        attempt.check(now).map(|()| attempt)
    }

    /// The number of attempts that were refused because a budget of this kind was used up.
    pub fn refused(&self, spent: Spent) -> u64 {
        self.refused[spent as usize].load(Ordering::Relaxed)
    }

    fn refuse(&self, (spent, wait): (Spent, Duration)) -> u32 {
        self.refused[spent as usize].fetch_add(1, Ordering::Relaxed);
        u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1)
    }

    fn nanos(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX)
    }

    /// The number of the current hour. The first hour after the start has the number 1.
    fn hours(&self, now: Instant) -> u16 {
        // The number wraps after 65,536 hours, which are seven years. For a day, a client may then
        // count as known although its last success is seven years old.
        (now.saturating_duration_since(self.origin).as_secs() / 3600 + 1) as u16
    }

    /// Ignores poisoning: a panic while the lock is held leaves the data consistent.
    fn budgets(&self) -> MutexGuard<'_, HashMap<u64, Budget>> {
        self.budgets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle").field("len", &self.budgets().len()).finish_non_exhaustive()
    }
}

/// An attempt to authenticate whose result is not known yet.
///
/// If the attempt is dropped without a result, the units that it has taken are not returned.
#[derive(Debug)]
#[must_use = "an attempt must be given its result"]
pub struct Attempt<'t> {
    throttle: &'t Throttle,
    pair: u64,
    network: ClientNetwork,
    is_known: bool,
    /// Whether the attempt needs no budget, because the network is shared and the client's secrets
    /// cannot be guessed.
    is_free: bool,
    /// The rates of the client's budget and of the network's budget.
    rates: [Rate; 2],
    /// The units taken from the client's and the network's budget. `None` before [`Attempt::take`].
    taken: Option<[Taken; 2]>,
}

impl Attempt<'_> {
    /// Whether the client is known at this network.
    pub fn is_known(&self) -> bool {
        self.is_known
    }

    /// A hash of the client and the network together. 0 if the attempt needs no budget.
    pub fn pair(&self) -> u64 {
        self.pair
    }

    /// A hash of the client's id alone.
    pub fn client_key(&self, client_id: &str) -> u64 {
        self.throttle.hasher.hash_one(client_id)
    }

    /// A hash of the network.
    pub fn network_key(&self) -> u64 {
        self.throttle.hasher.hash_one(self.network)
    }

    /// Whether the attempt has taken its units.
    pub fn has_paid(&self) -> bool {
        self.taken.is_some()
    }

    /// Takes the units of the attempt, unless it has taken them already. Must be called before any
    /// work that takes much time or memory.
    ///
    /// # Errors
    ///
    /// The same error as [`Throttle::begin`], if other attempts have used up a budget after this
    /// attempt began.
    pub fn take(&mut self, now: Instant) -> Result<(), u32> {
        if self.is_free || self.taken.is_some() {
            return Ok(());
        }
        let throttle = self.throttle;
        let now = throttle.nanos(now);
        let mut budgets = throttle.budgets();
        if let Some(spent) = self.spent(&budgets, now) {
            drop(budgets);
            return Err(throttle.refuse(spent));
        }
        if budgets.len() + 2 > throttle.capacity {
            make_room(&mut budgets, now);
        }
        let [client, network] = self.rates;
        let taken = [(self.pair, client), (self.network_key(), network)]
            .map(|(key, rate)| budgets.entry(key).or_default().take(rate, now));
        drop(budgets);
        let full_at = taken[0].full_at.max(taken[1].full_at);
        throttle.full_from.fetch_max(full_at, Ordering::Relaxed);
        self.taken = Some(taken);
        Ok(())
    }

    /// Ends a successful attempt. Returns the units that the attempt has taken, and records that
    /// the client is known at the network.
    ///
    /// # Errors
    ///
    /// The same error as [`Throttle::begin`], if this attempt has taken no units and other attempts
    /// have used up a budget after this attempt began. In this case, the caller answers a success
    /// like a failure, so that an attacker does not learn that the guess was right.
    pub fn was_right(self, now: Instant) -> Result<(), u32> {
        let throttle = self.throttle;
        match self.taken {
            Some(taken) => self.give_back(taken, throttle.nanos(now)),
            None => self.check(now)?,
        }
        if !self.is_free {
            throttle.known.insert(self.pair, throttle.hours(now));
        }
        Ok(())
    }

    /// Ends a failed attempt. Takes the units of the attempt unless they are already taken, and
    /// does not return them.
    ///
    /// # Errors
    ///
    /// The same error as [`Throttle::begin`], if other attempts have used up a budget after this
    /// attempt began.
    pub fn was_wrong(mut self, now: Instant) -> Result<(), u32> {
        self.take(now)
    }

    /// Ends a refused attempt. Returns the units of the attempt, because the refusal reveals
    /// nothing about a secret or key.
    ///
    /// # Errors
    ///
    /// The same error as [`Throttle::begin`], if other attempts have used up a budget after this
    /// attempt began.
    pub fn was_no_guess(self, now: Instant) -> Result<(), u32> {
        match self.taken {
            Some(taken) => {
                self.give_back(taken, self.throttle.nanos(now));
                Ok(())
            }
            None => self.check(now),
        }
    }

    /// Checks that each budget that the attempt needs has a unit.
    fn check(&self, now: Instant) -> Result<(), u32> {
        let throttle = self.throttle;
        let now = throttle.nanos(now);
        if self.is_free || now >= throttle.full_from.load(Ordering::Relaxed) {
            return Ok(());
        }
        let spent = self.spent(&throttle.budgets(), now);
        spent.map_or(Ok(()), |spent| Err(throttle.refuse(spent)))
    }

    /// Returns the budget that is used up at `now` and the time until it has a unit again. `None`
    /// if neither budget is used up.
    fn spent(&self, budgets: &HashMap<u64, Budget>, now: u64) -> Option<(Spent, Duration)> {
        let wait = |key: u64, rate: Rate| budgets.get(&key)?.wait(rate, now);
        let [client, network] = self.rates;
        let of_client = wait(self.pair, client).map(|wait| (Spent::Client, wait));
        let of_network = || Some((Spent::Network, wait(self.network_key(), network)?));
        of_client.or_else(|| if self.is_known { None } else { of_network() })
    }

    fn give_back(&self, taken: [Taken; 2], now: u64) {
        let mut budgets = self.throttle.budgets();
        for (key, taken) in [self.pair, self.network_key()].into_iter().zip(taken) {
            if let Some(budget) = budgets.get_mut(&key) {
                budget.give_back(taken, now);
            }
        }
    }
}

/// The part of one budget that an attempt has taken.
#[derive(Clone, Copy, Debug)]
struct Taken {
    /// The time, in nanoseconds after `Throttle::origin`, at which the budget will be full again if
    /// no other attempt takes from it.
    full_at: u64,
    /// The time in which the taken part refills, in nanoseconds. If less than a unit was left, the
    /// taken part is less than a unit.
    amount: u64,
}

/// The size of a budget and the time in which one unit refills.
#[derive(Clone, Copy, Debug)]
struct Rate {
    units: u64,
    /// The time in which one unit refills, in nanoseconds.
    each: u64,
}

impl Rate {
    fn new(units: u32, seconds: u32) -> Self {
        let units = u64::from(units.max(1));
        Self { units, each: u64::from(seconds) * 1_000_000_000 / units }
    }
}

/// A budget that refills evenly, stored as the time at which it will be full (GCRA's theoretical
/// arrival time), in nanoseconds after `Throttle::origin`.
#[derive(Clone, Copy, Debug, Default)]
struct Budget(u64);

impl Budget {
    /// Returns the time until the budget has a unit. `None` if the budget has a unit now.
    fn wait(self, rate: Rate, now: u64) -> Option<Duration> {
        let all_but_one = rate.each * (rate.units - 1);
        let wait = self.0.saturating_sub(now).checked_sub(all_but_one)?;
        (wait > 0).then(|| Duration::from_nanos(wait))
    }

    fn take(&mut self, rate: Rate, now: u64) -> Taken {
        let before = self.0.max(now);
        // If less than a unit is left in the budget, the attempt takes only the rest. This happens
        // to the network's budget, because attempts of known clients are not refused when that
        // budget is used up.
        let most = now.saturating_add(rate.each * rate.units);
        self.0 = before.saturating_add(rate.each).min(most).max(before);
        Taken { full_at: self.0, amount: self.0 - before }
    }

    /// Returns the part `taken` to the budget. If some of this part has already refilled, returns
    /// only the rest.
    fn give_back(&mut self, taken: Taken, now: u64) {
        self.0 = self.0.saturating_sub(taken.amount.min(taken.full_at.saturating_sub(now)));
    }
}

/// Drops all full budgets. Of the other budgets, drops the half that will be full soonest.
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

/// The known clients, each with the hour of its last success. A direct-mapped cache: the low 16
/// bits of the hash of client and network select the slot.
struct KnownClients(Box<[AtomicU64]>);

impl KnownClients {
    fn contains(&self, pair: u64, hour: u16) -> bool {
        let entry = self.slot(pair).load(Ordering::Relaxed);
        let age = hour.wrapping_sub(entry as u16);
        entry & !HOUR == pair & !HOUR && entry & HOUR != 0 && age < 24
    }

    fn insert(&self, pair: u64, hour: u16) {
        let entry = pair & !HOUR | u64::from(hour);
        let slot = self.slot(pair);
        // The entry is usually unchanged. An unnecessary store would invalidate the cache line in
        // other cores.
        if slot.load(Ordering::Relaxed) != entry {
            slot.store(entry, Ordering::Relaxed);
        }
    }

    fn slot(&self, pair: u64) -> &AtomicU64 {
        &self.0[(pair & HOUR) as usize]
    }
}

/// The number of slots. All slots together take 512 KiB of memory.
const KNOWN: usize = 1 << 16;
/// The bits of an entry that hold the hour. The same bits of the hash of client and network select
/// the slot, so the entry need not hold them.
const HOUR: u64 = KNOWN as u64 - 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const LIMITS: FailureLimits =
        FailureLimits { client_failures: 3, source_failures: 6, seconds: 60, shared_factor: 2 };

    struct Fixture {
        throttle: Throttle,
        start: Instant,
    }

    impl Fixture {
        fn new() -> Self {
            let start = Clock::system().instant();
            Self { throttle: Throttle::new(100, start), start }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        fn begin(&self, id: &str, network: ClientNetwork, at: u64) -> Result<Attempt<'_>, u32> {
            self.throttle.begin(id, network, true, true, &LIMITS, self.at(at))
        }

        fn check(&self, id: &str, network: ClientNetwork, at: u64) -> Result<(), u32> {
            self.begin(id, network, at).map(drop)
        }

        fn fail(&self, id: &str, network: ClientNetwork) -> Result<(), u32> {
            self.begin(id, network, 0)?.was_wrong(self.start)
        }

        fn succeed(&self, id: &str, network: ClientNetwork, at: u64) -> Result<(), u32> {
            self.begin(id, network, at)?.was_right(self.at(at))
        }
    }

    #[test]
    fn a_client_that_is_no_longer_registered_is_not_known() {
        let fixture = Fixture::new();
        let here = ClientNetwork::of_v4(1);
        assert_eq!(fixture.succeed("a", here, 0), Ok(()));
        for (may_be_known, is_known) in [(true, true), (false, false)] {
            let begin =
                fixture.throttle.begin("a", here, true, may_be_known, &LIMITS, fixture.start);
            assert_eq!(begin.unwrap().is_known(), is_known);
        }
    }

    #[test]
    fn a_budget_is_used_up_by_failures_and_refills_evenly() {
        let fixture = Fixture::new();
        let (here, there) = (ClientNetwork::of_v4(1), ClientNetwork::of_v4(2));
        let check = |id, network, at| fixture.check(id, network, at);
        for _ in 0..3 {
            assert_eq!(fixture.fail("a", here), Ok(()));
        }
        assert_eq!(fixture.fail("a", here), Err(21));
        assert_eq!(check("a", here, 19), Err(2));
        assert_eq!(check("a", here, 20), Ok(()));
        assert_eq!(fixture.throttle.refused(Spent::Client), 2);
        // Another client at the same network has its own budget. The same client at another network
        // has a second budget.
        assert_eq!(check("b", here, 0), Ok(()));
        assert_eq!(check("a", there, 0), Ok(()));

        assert_eq!(fixture.succeed("known", here, 0), Ok(()));
        for _ in 0..3 {
            assert_eq!(fixture.fail("b", here), Ok(()));
        }
        // The network's budget is used up. Clients that are not known at this network are refused.
        assert_eq!(check("c", here, 0), Err(11));
        assert_eq!(check("known", here, 0), Ok(()));
        assert_eq!(check("c", there, 0), Ok(()));
        assert_eq!(fixture.throttle.refused(Spent::Network), 1);
    }

    #[test]
    fn concurrent_attempts_take_their_units_before_the_result() {
        let fixture = Fixture::new();
        let here = ClientNetwork::of_v4(1);
        let mut attempts: Vec<_> = (0..5).map(|_| fixture.begin("a", here, 0).unwrap()).collect();
        let taken = attempts.iter_mut().map(|attempt| attempt.take(fixture.start));
        assert_eq!(taken.collect::<Vec<_>>(), [Ok(()), Ok(()), Ok(()), Err(21), Err(21)]);
        // If an attempt could take no unit, a success and a failure get the same answer.
        assert_eq!(attempts.pop().unwrap().was_right(fixture.start), Err(21));
        assert_eq!(attempts.pop().unwrap().was_wrong(fixture.start), Err(21));
        // A successful attempt returns its unit. A dropped attempt returns no unit.
        assert_eq!(attempts.pop().unwrap().was_right(fixture.start), Ok(()));
        drop(attempts);
        assert_eq!(fixture.fail("a", here), Ok(()));
        assert_eq!(fixture.fail("a", here), Err(21));
    }

    #[test]
    fn a_refilled_unit_is_not_returned_again() {
        let fixture = Fixture::new();
        let here = ClientNetwork::of_v4(1);
        let mut slow = fixture.begin("a", here, 0).unwrap();
        assert_eq!(slow.take(fixture.start), Ok(()));
        // After 30 s, the unit that `slow` took has refilled. Three other attempts then use up the
        // budget.
        for _ in 0..3 {
            let attempt = fixture.begin("a", here, 30).unwrap();
            assert_eq!(attempt.was_wrong(fixture.at(30)), Ok(()));
        }
        assert_eq!(slow.was_right(fixture.at(30)), Ok(()));
        assert_eq!(fixture.check("a", here, 30), Err(21));
    }

    #[test]
    fn a_success_returns_no_more_than_it_took() {
        let fixture = Fixture::new();
        let here = ClientNetwork::of_v4(1);
        assert_eq!(fixture.succeed("known", here, 0), Ok(()));
        for id in ["a", "b", "c", "d", "e", "f"] {
            assert_eq!(fixture.fail(id, here), Ok(()));
        }
        assert_eq!(fixture.check("g", here, 0), Err(11));
        for _ in 0..10 {
            let mut attempt = fixture.begin("known", here, 0).unwrap();
            assert_eq!(attempt.take(fixture.start), Ok(()));
            assert_eq!(attempt.was_right(fixture.start), Ok(()));
        }
        assert_eq!(fixture.check("g", here, 0), Err(11));
    }

    #[test]
    fn budgets_are_larger_on_a_shared_network_and_random_secrets_need_none() {
        let fixture = Fixture::new();
        let proxy = ClientNetwork::of_v4(1).shared();
        assert_eq!(fixture.succeed("known", proxy, 0), Ok(()));
        for _ in 0..6 {
            assert_eq!(fixture.fail("known", proxy), Ok(()));
            assert_eq!(fixture.fail("guessed", proxy), Ok(()));
        }
        assert!(fixture.check("known", proxy, 0).is_err());
        assert!(fixture.check("other", proxy, 0).is_err());
        for _ in 0..100 {
            let attempt =
                fixture.throttle.begin("random", proxy, false, true, &LIMITS, fixture.start);
            assert_eq!(attempt.unwrap().was_wrong(fixture.start), Ok(()));
        }
        // A shared network and a network that is not shared differ, even if their addresses are the
        // same.
        assert_eq!(fixture.check("other", ClientNetwork::of_v4(1), 0), Ok(()));
    }

    #[test]
    fn a_client_is_known_for_a_day_after_a_success() {
        let fixture = Fixture::new();
        let here = ClientNetwork::of_v4(1);
        const DAY: u64 = 86_400;
        assert_eq!(fixture.succeed("a", here, 7), Ok(()));
        let is_known = |at| fixture.begin("a", here, at).unwrap().is_known();
        assert!(is_known(7) && is_known(DAY - 3600) && !is_known(DAY + 7));
        assert!(!fixture.begin("b", here, 7).unwrap().is_known());
    }

    #[test]
    fn the_number_of_budgets_is_bounded_and_the_emptiest_stay() {
        let fixture = Fixture::new();
        let worst = ClientNetwork::of_v4(7);
        for _ in 0..3 {
            assert_eq!(fixture.fail("worst", worst), Ok(()));
        }
        for address in 0..10_000_u128 {
            assert_eq!(fixture.fail("a", ClientNetwork::of_v6(address << 64)), Ok(()));
            assert!(fixture.throttle.budgets().len() <= 100);
        }
        assert!(fixture.check("worst", worst, 0).is_err());
    }
}
