//! The replay guard. It records the `jti` of each used client assertion and DPoP proof until the
//! assertion or proof expires, so that no assertion or proof is accepted twice.
//!
//! A lock makes sure that only one of several concurrent uses succeeds. An entry is never evicted
//! before it expires: a full guard refuses every new assertion and proof.
//!
//! The system clock may be set while the server runs. An entry is dropped when the clock reaches
//! the entry's expiry, so setting the clock back drops no entry too early. But setting the clock
//! forward may drop entries. If the clock were then set back, the assertions and proofs of the
//! dropped entries would be accepted again. So the guard keeps the latest expiry of all dropped
//! entries. Every assertion and proof that expires at this time or earlier is refused.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::fmt;
use std::sync::{Mutex, PoisonError};

use ring::digest::{Context, SHA256};

use crate::time::UnixTime;

/// Records used assertions and proofs, and refuses to record the same assertion or proof twice.
pub struct ReplayGuard {
    capacity: usize,
    started_at: UnixTime,
    used: Mutex<Used>,
}

impl ReplayGuard {
    /// Creates a guard for `capacity` entries. It begins to record uses at `now`.
    pub fn new(capacity: usize, now: UnixTime) -> Self {
        Self { capacity, started_at: now, used: Mutex::default() }
    }

    /// The time at which the guard began to record uses. The caller must refuse an assertion or
    /// proof that was signed earlier: it may have been used before this process started.
    pub fn started_at(&self) -> UnixTime {
        self.started_at
    }

    /// Records the use of an assertion or proof. `key` is the result of [`Owner::key_of`], and
    /// `until` is the expiry of the assertion or proof.
    ///
    /// # Errors
    ///
    /// A [`ReplayError`] if the caller must refuse the assertion or proof.
    pub fn spend(&self, key: Key, until: UnixTime, now: UnixTime) -> Result<(), ReplayError> {
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

/// The owner of a `jti`. Two owners may use the same `jti`, but one owner must not use a `jti`
/// twice.
#[derive(Clone, Copy, Debug)]
pub enum Owner<'a> {
    /// The client id of the client that signed an assertion.
    Client(&'a str),
    /// The thumbprint of the key that signed a DPoP proof.
    Key(&'a [u8]),
}

/// The reason why a use of an assertion or proof is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayError {
    /// The guard does not know whether the assertion or proof was used before, because its entry
    /// may have been dropped.
    Forgotten,
    /// The guard is full.
    Full,
    /// The assertion or proof was used before.
    Used,
}

#[derive(Default)]
struct Used {
    keys: HashSet<Key>,
    by_end: BinaryHeap<Reverse<(UnixTime, Key)>>,
    /// The latest expiry of all dropped entries.
    dropped_until: UnixTime,
}

impl Used {
    fn drop_expired(&mut self, now: UnixTime) {
        while let Some(Reverse((until, key))) = self.by_end.peek().copied()
            && until <= now
        {
            self.by_end.pop();
            self.keys.remove(&key);
            self.dropped_until = self.dropped_until.max(until);
        }
    }
}

/// A hash of an owner and a `jti`. The hash contains the owner, so an owner cannot block the `jti`
/// of another owner.
pub type Key = [u8; 32];

impl Owner<'_> {
    /// Returns the key under which the guard stores the `jti` `token_id` of this owner.
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

    fn spend(guard: &ReplayGuard, key: Key, until: u64, now: u64) -> Result<(), ReplayError> {
        guard.spend(key, UnixTime(until), UnixTime(now))
    }

    #[test]
    fn an_id_can_be_used_once_per_owner() {
        let guard = ReplayGuard::new(10, UnixTime(0));
        assert_eq!(spend(&guard, A.key_of("1"), 200, 100), Ok(()));
        assert_eq!(spend(&guard, A.key_of("1"), 200, 199), Err(ReplayError::Used));
        assert_eq!(spend(&guard, A.key_of("1"), 300, 199), Err(ReplayError::Used));
        assert_eq!(spend(&guard, A.key_of("2"), 200, 100), Ok(()));
        assert_eq!(spend(&guard, Owner::Client("b").key_of("1"), 200, 100), Ok(()));
        assert_eq!(spend(&guard, Owner::Key(b"a").key_of("1"), 200, 100), Ok(()));
        // The boundary between owner and `jti` is part of the hash.
        assert_eq!(spend(&guard, Owner::Client("a1").key_of(""), 200, 100), Ok(()));
    }

    #[test]
    fn one_of_several_concurrent_uses_succeeds() {
        let guard = ReplayGuard::new(1000, UnixTime(0));
        let wins: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let ids = (0..100).map(|id| id.to_string());
                        ids.filter(|id| spend(&guard, A.key_of(id), 200, 100).is_ok()).count()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(wins, 100);
    }

    #[test]
    fn a_full_guard_accepts_more_when_an_entry_expires() {
        let guard = ReplayGuard::new(2, UnixTime(0));
        assert_eq!(spend(&guard, A.key_of("1"), 200, 100), Ok(()));
        assert_eq!(spend(&guard, A.key_of("2"), 300, 100), Ok(()));
        assert_eq!(spend(&guard, A.key_of("3"), 400, 199), Err(ReplayError::Full));
        assert_eq!(spend(&guard, A.key_of("1"), 200, 199), Err(ReplayError::Used));
        assert_eq!(spend(&guard, A.key_of("3"), 400, 200), Ok(()));
        assert_eq!(spend(&guard, A.key_of("4"), 400, 200), Err(ReplayError::Full));
    }

    #[test]
    fn setting_the_clock_does_not_allow_a_second_use() {
        let guard = ReplayGuard::new(10, UnixTime(0));
        assert_eq!(spend(&guard, A.key_of("1"), 1300, 1000), Ok(()));
        // Set the clock back, then forward to just before the expiry.
        for now in [0, 1000, 1299] {
            assert_eq!(spend(&guard, A.key_of("1"), 1300, now), Err(ReplayError::Used));
        }
        // Set the clock forward, use another `jti`, and set the clock back.
        assert_eq!(spend(&guard, A.key_of("2"), 4900, 4600), Ok(()));
        assert_eq!(spend(&guard, A.key_of("1"), 1300, 1000), Err(ReplayError::Forgotten));
        assert_eq!(spend(&guard, A.key_of("2"), 4900, 1000), Err(ReplayError::Used));
        // A `jti` that expires later than all dropped entries is accepted.
        assert_eq!(spend(&guard, A.key_of("3"), 1301, 1001), Ok(()));
    }
}
