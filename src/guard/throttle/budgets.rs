//! The failure budgets of clients and networks. Only budgets that are not full take memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use crate::guard::gcra::{Budget, Rate, Taken, nanos_between};

/// The two budgets that an attempt is charged to: of its pair of client and network, and of its
/// network.
#[derive(Clone, Copy, Debug)]
pub(super) struct Charged {
    /// Under which the budgets are stored.
    pub(super) keys: [u64; 2],
    pub(super) rates: [Rate; 2],
    /// Whether the attempt is not refused if the network's budget is used up.
    pub(super) is_known: bool,
}

/// Which of the two budgets is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// The budget of the pair of client and network.
    Client,
    /// The budget of the network.
    Network,
}

pub(super) struct Budgets {
    origin: Instant,
    pub(super) by_key: Mutex<HashMap<u64, Budget>>,
    /// The time from which all budgets are full, in nanoseconds after `origin`.
    full_from: AtomicU64,
    capacity: usize,
    refused: [AtomicU64; 2],
}

impl Budgets {
    /// Stores at most `capacity` budgets.
    pub(super) fn new(capacity: usize, now: Instant) -> Self {
        Self {
            origin: now,
            by_key: Mutex::default(),
            full_from: AtomicU64::new(0),
            capacity,
            refused: Default::default(),
        }
    }

    /// Whether all budgets are full. Takes no lock.
    pub(super) fn are_full(&self, now: Instant) -> bool {
        self.nanos(now) >= self.full_from.load(Ordering::Relaxed)
    }

    /// Checks that each budget has a unit.
    ///
    /// # Errors
    ///
    /// If a budget is used up: the seconds until it has a unit, at least 1.
    pub(super) fn check(&self, charged: Charged, now: Instant) -> Result<(), u32> {
        let now = self.nanos(now);
        let wait = spent(&self.by_key.lock(), charged, now);
        wait.map_or(Ok(()), |spent| Err(self.refuse(spent)))
    }

    /// Takes a unit of each budget.
    ///
    /// # Errors
    ///
    /// If a budget is used up: the seconds until it has a unit, at least 1.
    pub(super) fn take(&self, charged: Charged, now: Instant) -> Result<[Taken; 2], u32> {
        let now = self.nanos(now);
        let mut budgets = self.by_key.lock();
        if let Some(spent) = spent(&budgets, charged, now) {
            return Err(self.refuse(spent));
        }
        if budgets.len() + 2 > self.capacity {
            make_room(&mut budgets, now);
        }
        let [client, network] = [0, 1].map(|which| {
            let budget = budgets.entry(charged.keys[which]).or_default();
            // Less than a unit may be left in the network's budget, because attempts of known
            // clients are not refused when it is used up.
            budget.take(charged.rates[which], now)
        });
        drop(budgets);
        let full_at = client.full_at.max(network.full_at);
        self.full_from.fetch_max(full_at, Ordering::Relaxed);
        Ok([client, network])
    }

    /// Returns what was taken to the budgets.
    pub(super) fn give_back(&self, keys: [u64; 2], taken: [Taken; 2], now: Instant) {
        let now = self.nanos(now);
        let mut budgets = self.by_key.lock();
        for (key, taken) in keys.into_iter().zip(taken) {
            if let Some(budget) = budgets.get_mut(&key) {
                budget.give_back(taken, now);
            }
        }
    }

    /// The number of attempts that were refused because a budget of this kind was used up.
    pub(super) fn refused(&self, spent: Spent) -> u64 {
        self.refused[spent as usize].load(Ordering::Relaxed)
    }

    fn refuse(&self, (spent, wait): (Spent, u32)) -> u32 {
        self.refused[spent as usize].fetch_add(1, Ordering::Relaxed);
        wait
    }

    fn nanos(&self, now: Instant) -> u64 {
        nanos_between(self.origin, now)
    }
}

/// Returns the budget that is used up and the seconds until it has a unit again. `None` if neither
/// budget is used up.
fn spent(budgets: &HashMap<u64, Budget>, charged: Charged, now: u64) -> Option<(Spent, u32)> {
    let wait = |which: usize| budgets.get(&charged.keys[which])?.wait(charged.rates[which], now);
    match wait(0) {
        Some(wait) => Some((Spent::Client, wait)),
        None if charged.is_known => None,
        None => Some((Spent::Network, wait(1)?)),
    }
}

/// Drops all full budgets. Of the other budgets, drops the half that will be full soonest.
fn make_room(budgets: &mut HashMap<u64, Budget>, now: u64) {
    budgets.retain(|_, budget| budget.full_at > now);
    let mut ends: Vec<_> = budgets.values().map(|budget| budget.full_at).collect();
    let middle = ends.len() / 2;
    if middle > 0 {
        let (_, median, _) = ends.select_nth_unstable(middle);
        let median = *median;
        budgets.retain(|_, budget| budget.full_at > median);
    }
}
