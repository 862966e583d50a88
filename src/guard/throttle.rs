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

pub mod budgets;
mod known_clients;

use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use crate::config::FailureLimits;
use crate::guard::gcra::{Rate, Taken};
use crate::guard::throttle::budgets::{Budgets, Charged, Spent};
use crate::guard::throttle::known_clients::KnownClients;
use crate::oauth::client_network::ClientNetwork;

/// All failure budgets.
pub struct Throttle {
    budgets: Budgets,
    known: KnownClients,
    hasher: RandomState,
}

impl Throttle {
    /// Creates a throttle whose budgets are all full at `now`. Only budgets that are not full take
    /// memory, about 40 bytes each. At most `capacity` budgets are stored.
    pub fn new(capacity: usize, now: Instant) -> Self {
        Self {
            budgets: Budgets::new(capacity, now),
            known: KnownClients::new(now),
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
        let factor = if network.is_shared { limits.shared_factor } else { 1 };
        let rates = [limits.client_failures, limits.source_failures]
            .map(|failures| Rate::new(failures.saturating_mul(factor), limits.seconds));
        let is_free = network.is_shared && !is_guessable;
        let pair = if is_free { 0 } else { self.hasher.hash_one((client_id, network)) };
        let is_known = may_be_known && !is_free && self.known.contains(pair, now);
        let attempt =
            Attempt { throttle: self, pair, network, is_known, is_free, rates, taken: None };
        attempt.check(now).map(|()| attempt)
    }

    /// The number of attempts that were refused because a budget of this kind was used up.
    pub fn refused(&self, spent: Spent) -> u64 {
        self.budgets.refused(spent)
    }
}

/// An attempt to authenticate whose result is not known yet.
///
/// If the attempt is dropped without a result, the units that it has taken are not returned.
#[must_use = "an attempt must be given its result"]
pub struct Attempt<'t> {
    throttle: &'t Throttle,
    /// A hash of the client and the network together. 0 if the attempt needs no budget.
    pub pair: u64,
    network: ClientNetwork,
    /// Whether the client is known at this network.
    pub is_known: bool,
    /// Whether the attempt needs no budget, because the network is shared and the client's secrets
    /// cannot be guessed.
    is_free: bool,
    /// The rates of the client's budget and of the network's budget.
    rates: [Rate; 2],
    /// The units taken from the client's and the network's budget. `None` before [`Attempt::take`].
    taken: Option<[Taken; 2]>,
}

impl Attempt<'_> {
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
        self.taken = Some(self.throttle.budgets.take(self.charged(), now)?);
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
        let (pair, is_free) = (self.pair, self.is_free);
        self.was_no_guess(now)?;
        if !is_free {
            throttle.known.insert(pair, now);
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
    /// nothing about a secret or key. If the attempt has taken none, checks that it could.
    ///
    /// # Errors
    ///
    /// The same error as [`Throttle::begin`], if other attempts have used up a budget after this
    /// attempt began.
    pub fn was_no_guess(self, now: Instant) -> Result<(), u32> {
        match self.taken {
            Some(taken) => {
                self.throttle.budgets.give_back(self.charged().keys, taken, now);
                Ok(())
            }
            None => self.check(now),
        }
    }

    /// Checks that each budget that the attempt needs has a unit.
    fn check(&self, now: Instant) -> Result<(), u32> {
        let budgets = &self.throttle.budgets;
        if self.is_free || budgets.are_full(now) {
            return Ok(());
        }
        budgets.check(self.charged(), now)
    }

    fn charged(&self) -> Charged {
        let keys = [self.pair, self.network_key()];
        Charged { keys, rates: self.rates, is_known: self.is_known }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
            assert_eq!(begin.unwrap().is_known, is_known);
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
    fn a_client_is_known_for_a_day_after_a_success() {
        let fixture = Fixture::new();
        let here = ClientNetwork::of_v4(1);
        const DAY: u64 = 86_400;
        assert_eq!(fixture.succeed("a", here, 7), Ok(()));
        let is_known = |at| fixture.begin("a", here, at).unwrap().is_known;
        assert!(is_known(7) && is_known(DAY - 3600) && !is_known(DAY + 7));
        assert!(!fixture.begin("b", here, 7).unwrap().is_known);
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
            assert!(fixture.throttle.budgets.by_key.lock().len() <= 100);
        }
        assert!(fixture.check("worst", worst, 0).is_err());
    }
}
