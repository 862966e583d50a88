//! What may be used once: the `jti`s of assertions and proofs, for as long as they could be used
//! again.
//!
//! Of any number of parallel uses one wins, since all ask under one lock. What is remembered is
//! never given up for room: with all of it taken, nothing new is accepted.
//!
//! Time may step. A step back lets nothing go early, because an entry goes only once the clock has
//! reached its end. A step forward does, and after the step back such a token would be fresh again:
//! so the latest end of all that was let go is kept, and what ends no later is refused.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::fmt;
use std::sync::{Mutex, PoisonError};

use ring::digest::{Context, SHA256};

/// Remembers what was used.
pub struct ReplayGuard {
    capacity: usize,
    started_at: u64,
    used: Mutex<Used>,
}

impl ReplayGuard {
    /// One that holds `capacity` entries and knows nothing of what was used before `now` (Unix
    /// seconds).
    pub fn new(capacity: usize, now: u64) -> Self {
        Self { capacity, started_at: now, used: Mutex::default() }
    }

    /// From when on it knows everything, in Unix seconds. What was made earlier may have been used
    /// before this process was there, and must be refused.
    pub fn started_at(&self) -> u64 {
        self.started_at
    }

    /// Uses what has this key ([`Owner::key_of`]) and nobody accepts from `until` on (Unix seconds).
    ///
    /// # Errors
    ///
    /// [`ReplayError`]: it must not be accepted now.
    pub fn spend(&self, key: Key, until: u64, now: u64) -> Result<(), ReplayError> {
        // Whole between any two statements, so a panic elsewhere cannot have broken it.
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.forget(now);
        if until <= used.forgotten_until {
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

/// Who makes its ids unique.
#[derive(Clone, Copy, Debug)]
pub enum Owner<'a> {
    /// A client, in its assertions.
    Client(&'a str),
    /// A key, in its proofs: its thumbprint.
    Key(&'a [u8]),
}

/// Why something is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayError {
    /// It may have been used: that is not known any more.
    Forgotten,
    /// There is no room to remember it.
    Full,
    /// It was used.
    Used,
}

#[derive(Default)]
struct Used {
    keys: HashSet<Key>,
    by_end: BinaryHeap<Reverse<(u64, Key)>>,
    forgotten_until: u64,
}

impl Used {
    fn forget(&mut self, now: u64) {
        while let Some(Reverse((until, key))) = self.by_end.peek().copied()
            && until <= now
        {
            self.by_end.pop();
            self.keys.remove(&key);
            self.forgotten_until = self.forgotten_until.max(until);
        }
    }
}

/// A hash of the owner and its id: whoever finds two that are equal keeps only itself out.
pub type Key = [u8; 32];

impl Owner<'_> {
    /// What the owner has made under this id.
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
    fn once_for_each_owner_and_id() {
        let guard = ReplayGuard::new(10, 0);
        assert_eq!(guard.spend(A.key_of("1"), 200, 100), Ok(()));
        assert_eq!(guard.spend(A.key_of("1"), 200, 199), Err(ReplayError::Used));
        assert_eq!(guard.spend(A.key_of("1"), 300, 199), Err(ReplayError::Used));
        assert_eq!(guard.spend(A.key_of("2"), 200, 100), Ok(()));
        assert_eq!(guard.spend(Owner::Client("b").key_of("1"), 200, 100), Ok(()));
        assert_eq!(guard.spend(Owner::Key(b"a").key_of("1"), 200, 100), Ok(()));
        // The border between owner and id cannot be moved.
        assert_eq!(guard.spend(Owner::Client("a1").key_of(""), 200, 100), Ok(()));
    }

    #[test]
    fn of_many_at_once_one_wins() {
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
    fn full_is_full_until_something_ends() {
        let guard = ReplayGuard::new(2, 0);
        assert_eq!(guard.spend(A.key_of("1"), 200, 100), Ok(()));
        assert_eq!(guard.spend(A.key_of("2"), 300, 100), Ok(()));
        assert_eq!(guard.spend(A.key_of("3"), 400, 199), Err(ReplayError::Full));
        assert_eq!(guard.spend(A.key_of("1"), 200, 199), Err(ReplayError::Used));
        assert_eq!(guard.spend(A.key_of("3"), 400, 200), Ok(()));
        assert_eq!(guard.spend(A.key_of("4"), 400, 200), Err(ReplayError::Full));
    }

    #[test]
    fn no_step_of_the_clock_makes_anything_fresh() {
        let guard = ReplayGuard::new(10, 0);
        assert_eq!(guard.spend(A.key_of("1"), 1300, 1000), Ok(()));
        // An hour back, and slowly forward again.
        for now in [0, 1000, 1299] {
            assert_eq!(guard.spend(A.key_of("1"), 1300, now), Err(ReplayError::Used));
        }
        // An hour forward, where something else is used, and back.
        assert_eq!(guard.spend(A.key_of("2"), 4900, 4600), Ok(()));
        assert_eq!(guard.spend(A.key_of("1"), 1300, 1000), Err(ReplayError::Forgotten));
        assert_eq!(guard.spend(A.key_of("2"), 4900, 1000), Err(ReplayError::Used));
        // What cannot have been used then goes on.
        assert_eq!(guard.spend(A.key_of("3"), 1301, 1001), Ok(()));
    }
}
