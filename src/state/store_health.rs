//! How well this server knows the store that it shares with others. The thread that follows the
//! store writes it; requests, `/readyz` and the metrics read it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::time::UnixTime;

/// How well this server knows the store.
pub struct StoreHealth {
    /// The name of the store: its URL without the password.
    name: String,
    /// The age above which the server is not ready; zero if there is none.
    max_staleness: Duration,
    /// The start of the server.
    start: Instant,
    /// When what the server knows was last true, in milliseconds after the start.
    seen: AtomicU64,
    /// How old what the server knew at the start was.
    age_at_start: Duration,
    /// The same by the wall clock.
    known: AtomicU64,
    epoch: AtomicU64,
    changes: AtomicU64,
    /// Why the store does not answer; `None` if it does.
    away: Mutex<Option<String>>,
    /// The entries of the store that cannot be used, and what is in force in their place.
    faulty: Mutex<Option<String>>,
    /// Why there is no snapshot to start from while the store is away.
    uncached: Mutex<Option<String>>,
}

impl StoreHealth {
    /// Creates the health of a store that is read at `now`, which is `known` by the wall clock.
    /// `max_staleness` is in seconds.
    pub fn new(name: String, max_staleness: u64, now: Instant, known: UnixTime) -> Self {
        Self {
            name,
            max_staleness: Duration::from_secs(max_staleness),
            start: now,
            seen: AtomicU64::new(0),
            age_at_start: Duration::ZERO,
            known: AtomicU64::new(known.0),
            epoch: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            away: Mutex::default(),
            faulty: Mutex::default(),
            uncached: Mutex::default(),
        }
    }

    /// Returns the health of a store that is away, of which the server knows what was true `age`
    /// ago.
    #[must_use]
    pub fn away_for(self, age: Duration, problem: String) -> Self {
        let away = Mutex::new(Some(problem));
        let known = UnixTime(self.known.into_inner()) - age.as_secs();
        Self { age_at_start: age, known: AtomicU64::new(known.0), away, ..self }
    }

    /// Notes that everything that was in the store at `now`, which is `known` by the wall clock, is in
    /// force. Returns whether the store was away before.
    pub fn note_seen(&self, now: Instant, known: UnixTime) -> bool {
        let since = now.saturating_duration_since(self.start).as_millis();
        // 1 at least, which is another time than the start's.
        let since = u64::try_from(since).unwrap_or(u64::MAX).max(1);
        self.seen.store(since, Ordering::Relaxed);
        self.known.store(known.0, Ordering::Relaxed);
        self.away.lock().take().is_some()
    }

    /// Notes that the store does not answer. Returns whether it did before.
    pub fn note_away(&self, problem: String) -> bool {
        self.away.lock().replace(problem).is_none()
    }

    /// Notes the entries that cannot be used; `None` if there are none.
    pub fn note_faulty(&self, problem: Option<String>) {
        *self.faulty.lock() = problem;
    }

    /// Notes why a server could not start while the store is away; `None` if it could.
    pub fn note_uncached(&self, problem: Option<String>) {
        *self.uncached.lock() = problem;
    }

    /// Notes the epoch of the store, which began at `since`.
    pub fn note_epoch(&self, since: UnixTime) {
        self.epoch.store(since.0, Ordering::Relaxed);
    }

    /// Counts changes that were read.
    pub fn count_changes(&self, changes: u64) {
        self.changes.fetch_add(changes, Ordering::Relaxed);
    }

    /// The time since what the server knows was true.
    pub fn age(&self, now: Instant) -> Duration {
        let seen = self.seen.load(Ordering::Relaxed);
        let since_start = now.saturating_duration_since(self.start);
        if seen == 0 {
            since_start + self.age_at_start
        } else {
            since_start.saturating_sub(Duration::from_millis(seen))
        }
    }

    /// The time up to which all that was in the store is in force: at most `now`. The wall clock may
    /// have been set since, forward or back, so the earlier of two answers counts.
    pub fn known(&self, now: UnixTime, instant: Instant) -> UnixTime {
        UnixTime(self.known.load(Ordering::Relaxed)).min(now - self.age(instant).as_secs())
    }

    /// Whether the store answered at the last attempt.
    pub fn is_up(&self) -> bool {
        self.away.lock().is_none()
    }

    /// The time since which the store knows every use, which is another one in each epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// The number of changes that were read since the start.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Whether the server must not vouch for a token: what it knows is older than `max_staleness`.
    pub fn is_stale(&self, now: Instant) -> bool {
        !self.max_staleness.is_zero() && self.age(now) > self.max_staleness
    }

    /// Why the server does not know what is in the store, and what follows; `None` if it does.
    /// Verifiers may use a key set of this server for `jwks_max_age` seconds.
    pub fn fault(&self, now: Instant, jwks_max_age: u64) -> Option<String> {
        let age = self.age(now);
        // After that, a key signs although this server may not publish it.
        let is_key_state_known = age <= TERM + Duration::from_secs(2 * jwks_max_age);
        let keys = (!is_key_state_known).then(|| {
            "key state unknown: other servers may sign with keys that this one does not publish"
                .to_owned()
        });
        let away = self.away.lock().clone();
        let away = away.or_else(|| {
            let is_silent = age > LONGEST_SILENCE;
            is_silent.then(|| format!("{}: is not read: see the log", self.name))
        });
        let away = away.map(|text| {
            format!(
                "{text}; what was in the store {} s ago stays in force, and no token can be \
                 revoked, and no assertion or proof accepted, until it answers",
                age.as_secs()
            )
        });
        let problems = [keys, away, self.faulty.lock().clone(), self.uncached.lock().clone()];
        let problems: Vec<_> = problems.into_iter().flatten().collect();
        (!problems.is_empty()).then(|| problems.join("; "))
    }
}

/// How long the other servers wait for one that does not reach the store, in addition to twice the age
/// of a key set.
pub const TERM: Duration = Duration::from_secs(30);

/// The age from which a thread that reports nothing counts as one that has ended.
const LONGEST_SILENCE: Duration = Duration::from_secs(90);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn the_age_counts_from_what_was_true_last() {
        let (clock, manual) = Clock::manual(0);
        let health = StoreHealth::new("store".to_owned(), 60, clock.instant(), clock.now());
        let at = |seconds| {
            manual.advance(seconds);
            clock.instant()
        };
        assert_eq!(health.age(at(10)).as_secs(), 10);
        assert!(!health.note_seen(clock.instant(), clock.now()));
        assert_eq!(health.age(at(5)).as_secs(), 5);
        assert!(health.note_away("store: is away".to_owned()) && !health.is_up());
        assert!(!health.is_stale(at(55)) && health.is_stale(at(1)));
        let fault = health.fault(clock.instant(), 16).unwrap();
        assert!(fault.starts_with("store: is away; what was in the store 61 s ago"), "{fault}");
        assert!(health.note_seen(clock.instant(), clock.now()));
        assert_eq!(health.fault(clock.instant(), 16), None);
        let fault = health.fault(at(91), 31).unwrap();
        assert!(fault.starts_with("store: is not read: see the log"), "{fault}");

        let fault = health.fault(clock.instant(), 30).unwrap();
        assert!(fault.starts_with("key state unknown: other servers may sign"), "{fault}");

        let old = StoreHealth::new("store".to_owned(), 60, clock.instant(), clock.now());
        let old = old.away_for(Duration::from_secs(50), "store: is away".to_owned());
        assert!(!old.is_up() && old.age(at(10)).as_secs() == 60 && old.is_stale(at(1)));
    }
}
