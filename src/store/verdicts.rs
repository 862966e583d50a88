//! The cache of verified secrets: a slow hash is computed once per correct secret.
//!
//! An entry holds neither the secret nor a plain hash of it but a keyed hash (see
//! [`crate::store::password_pool`]). The key never leaves this process, so a copy of the cache is
//! useless for guessing. Wrong secrets are not cached: their number is unbounded.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use compact_str::CompactString;

use crate::oauth::client::Registry;
use crate::oauth::decoy::slow_hashes;
use crate::oauth::password_hash::PasswordHash;

/// The cache key: a keyed hash of a client's id, a stored hash and a presented secret.
pub type Attempt = [u8; 32];

/// A set-associative cache of successful attempts. A full set evicts its oldest entry.
pub struct Verdicts(Box<[Mutex<Set>]>);

/// Each set has its own lock.
const SETS: usize = 1024;
/// Entries of a set.
const WAYS: usize = 16;

#[derive(Default)]
struct Set {
    right: Vec<Verdict>,
    oldest: usize,
}

/// A successful attempt, with the client and the hash.
pub struct Verdict {
    /// The cache key.
    pub attempt: Attempt,
    /// The client.
    pub client_id: CompactString,
    /// The stored hash that matched.
    pub hash: Arc<PasswordHash>,
}

impl Verdict {
    /// Whether the client in `clients` still has the secret.
    fn is_of(&self, clients: &Registry) -> bool {
        let client = clients.get(&self.client_id);
        client.is_some_and(|client| slow_hashes(client).any(|hash| **hash == *self.hash))
    }
}

impl Verdicts {
    /// Whether this attempt has succeeded before.
    pub fn is_right(&self, attempt: &Attempt) -> bool {
        // Not in constant time: without the key, a caller cannot choose a prefix of the hash.
        self.set(attempt).right.iter().any(|verdict| verdict.attempt == *attempt)
    }

    /// Adds a successful attempt.
    pub fn remember(&self, verdict: Verdict) {
        let mut set = self.set(&verdict.attempt);
        if set.right.iter().any(|known| known.attempt == verdict.attempt) {
            return;
        }
        if set.right.len() < WAYS {
            set.right.push(verdict);
            return;
        }
        let oldest = set.oldest;
        set.right[oldest] = verdict;
        set.oldest = (oldest + 1) % WAYS;
    }

    /// Removes the secrets that no client of `clients` has any more.
    pub fn keep_only(&self, clients: &Registry) {
        for set in &self.0 {
            let set = &mut *locked(set);
            // In a set that is not full, the oldest entry is the first.
            set.right.rotate_left(set.oldest);
            set.oldest = 0;
            set.right.retain(|verdict| verdict.is_of(clients));
        }
    }

    /// The number of entries.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.iter().map(|set| locked(set).right.len()).sum()
    }

    fn set(&self, attempt: &Attempt) -> MutexGuard<'_, Set> {
        let index = usize::from(u16::from_le_bytes([attempt[0], attempt[1]])) % SETS;
        locked(&self.0[index])
    }
}

/// Ignores poisoning: a panic while the lock is held leaves the data consistent.
fn locked(set: &Mutex<Set>) -> MutexGuard<'_, Set> {
    set.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for Verdicts {
    fn default() -> Self {
        Self((0..SETS).map(|_| Mutex::default()).collect())
    }
}

impl fmt::Debug for Verdicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verdicts").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::password_hash::Work;

    #[test]
    fn a_new_entry_evicts_the_oldest_of_a_full_set() {
        let verdicts = Verdicts::default();
        assert!(verdicts.len() == 0);
        let hash = Arc::new(PasswordHash::unmatchable(Work::PBKDF2_SHA256, 0));
        let attempt = |number: u64| {
            let mut attempt = [0; 32];
            attempt[..8].copy_from_slice(&number.to_le_bytes());
            attempt
        };
        let remember = |number| {
            let (client_id, hash) = (CompactString::const_new("a"), Arc::clone(&hash));
            verdicts.remember(Verdict { attempt: attempt(number), client_id, hash });
        };
        let capacity = SETS * WAYS;
        let count = capacity as u64;
        (0..count).for_each(remember);
        assert!((0..count).all(|number| verdicts.is_right(&attempt(number))));
        remember(0);
        assert_eq!(verdicts.len(), capacity);

        remember(count);
        assert_eq!(verdicts.len(), capacity);
        assert!(verdicts.is_right(&attempt(count)) && !verdicts.is_right(&attempt(0)));
        assert!((1..count).all(|number| verdicts.is_right(&attempt(number))));

        verdicts.keep_only(&Registry::default());
        assert!(verdicts.len() == 0);
    }
}
