//! The replay guard: records the `jti`s of used assertions and proofs until they expire.
//!
//! One lock makes sure that only one of several concurrent uses succeeds. Entries are never evicted
//! for room: a full guard refuses everything new.
//!
//! The clock may be set. An entry is dropped once the clock has reached its end, so setting the
//! clock back drops nothing too early. After a step forward and back, a dropped token would be
//! valid again. So the guard keeps the latest end of all dropped entries and refuses everything
//! that ends no later.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::fmt;
use std::sync::{Mutex, PoisonError};

use ring::digest::{Context, SHA256};

/// The replay guard.
pub struct ReplayGuard {
    capacity: usize,
    started_at: u64,
    used: Mutex<Used>,
}

impl ReplayGuard {
    /// Creates a guard for `capacity` entries that records uses from `now` (Unix seconds) on.
    pub fn new(capacity: usize, now: u64) -> Self {
        Self { capacity, started_at: now, used: Mutex::default() }
    }

    /// The time from which uses are recorded, in Unix seconds. The caller must refuse what was
    /// signed earlier: it may have been used before this process started.
    pub fn started_at(&self) -> u64 {
        self.started_at
    }

    /// Records the use of the assertion or proof with this key ([`Owner::key_of`]), which expires
    /// at `until` (Unix seconds).
    ///
    /// # Errors
    ///
    /// [`ReplayError`]: the caller must refuse it.
    pub fn spend(&self, key: Key, until: u64, now: u64) -> Result<(), ReplayError> {
        // Ignores poisoning: a panic while the lock is held leaves the data consistent.
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.drop_expired(now);
        if until <= used.dropped_until {
            return Err(ReplayError::Forgotten);
        }
        if used.keys.contains(&key) {
            return Err(ReplayError::Used);
        }
        if used.keys.len() >= self.capacity {
            return Err(ReplayError::Full);
        }
        used.keys.insert(key);
        used.by_end.push(Reverse((until, key)));
        Ok(())
    }
}

impl fmt::Debug for ReplayGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayGuard").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

/// The scope within which a `jti` is unique.
#[derive(Clone, Copy, Debug)]
pub enum Owner<'a> {
    /// A client, for its assertions.
    Client(&'a str),
    /// A key, for its proofs, by its thumbprint.
    Key(&'a [u8]),
}

/// Why a use is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayError {
    /// It may have been used before: its entry may have been dropped.
    Forgotten,
    /// The guard is full.
    Full,
    /// It was used before.
    Used,
}

#[derive(Default)]
struct Used {
    keys: HashSet<Key>,
    by_end: BinaryHeap<Reverse<(u64, Key)>>,
    /// The latest end of all dropped entries.
    dropped_until: u64,
}

impl Used {
    fn drop_expired(&mut self, now: u64) {
        while let Some(Reverse((until, key))) = self.by_end.peek().copied()
            && until <= now
        {
            self.by_end.pop();
            self.keys.remove(&key);
            self.dropped_until = self.dropped_until.max(until);
        }
    }
}

/// A hash of owner and `jti`. An owner that finds a collision of its ids locks only itself out.
pub type Key = [u8; 32];

impl Owner<'_> {
    /// Returns the key of this owner's `token_id`.
    pub fn key_of(self, token_id: &str) -> Key {
        let (kind, owner) = match self {
            Self::Client(id) => (b'c', id.as_bytes()),
            Self::Key(thumbprint) => (b'k', thumbprint),
        };
        let mut hash = Context::new(&SHA256);
        hash.update(&[kind]);
        hash.update(&(owner.len() as u64).to_be_bytes());
        hash.update(owner);
        hash.update(token_id.as_bytes());
        let mut key = Key::default();
        key.copy_from_slice(hash.finish().as_ref());
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Owner<'_> = Owner::Client("a");

    #[test]
    fn an_id_can_be_used_once_per_owner() {
        let guard = ReplayGuard::new(10, 0);
        assert_eq!(guard.spend(A.key_of("1"), 200, 100), Ok(()));
        assert_eq!(guard.spend(A.key_of("1"), 200, 199), Err(ReplayError::Used));
        assert_eq!(guard.spend(A.key_of("1"), 300, 199), Err(ReplayError::Used));
        assert_eq!(guard.spend(A.key_of("2"), 200, 100), Ok(()));
        assert_eq!(guard.spend(Owner::Client("b").key_of("1"), 200, 100), Ok(()));
        assert_eq!(guard.spend(Owner::Key(b"a").key_of("1"), 200, 100), Ok(()));
        // The hash separates owner and id.
        assert_eq!(guard.spend(Owner::Client("a1").key_of(""), 200, 100), Ok(()));
    }

    #[test]
    fn one_of_several_concurrent_uses_succeeds() {
        let guard = ReplayGuard::new(1000, 0);
        let wins: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let ids = (0..100).map(|id| id.to_string());
                        ids.filter(|id| guard.spend(A.key_of(id), 200, 100).is_ok()).count()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(wins, 100);
    }

    #[test]
    fn a_full_guard_accepts_more_when_an_entry_expires() {
        let guard = ReplayGuard::new(2, 0);
        assert_eq!(guard.spend(A.key_of("1"), 200, 100), Ok(()));
        assert_eq!(guard.spend(A.key_of("2"), 300, 100), Ok(()));
        assert_eq!(guard.spend(A.key_of("3"), 400, 199), Err(ReplayError::Full));
        assert_eq!(guard.spend(A.key_of("1"), 200, 199), Err(ReplayError::Used));
        assert_eq!(guard.spend(A.key_of("3"), 400, 200), Ok(()));
        assert_eq!(guard.spend(A.key_of("4"), 400, 200), Err(ReplayError::Full));
    }

    #[test]
    fn setting_the_clock_does_not_allow_a_second_use() {
        let guard = ReplayGuard::new(10, 0);
        assert_eq!(guard.spend(A.key_of("1"), 1300, 1000), Ok(()));
        // An hour back, then forward.
        for now in [0, 1000, 1299] {
            assert_eq!(guard.spend(A.key_of("1"), 1300, now), Err(ReplayError::Used));
        }
        // An hour forward, another use, and back.
        assert_eq!(guard.spend(A.key_of("2"), 4900, 4600), Ok(()));
        assert_eq!(guard.spend(A.key_of("1"), 1300, 1000), Err(ReplayError::Forgotten));
        assert_eq!(guard.spend(A.key_of("2"), 4900, 1000), Err(ReplayError::Used));
        // What ends later than all dropped entries is accepted.
        assert_eq!(guard.spend(A.key_of("3"), 1301, 1001), Ok(()));
    }
}
