//! The cache of verified secrets. With it, the slow hash of a correct secret is computed only once.
//!
//! An entry holds neither the secret nor an unkeyed hash of it, but a keyed hash (see
//! [`PasswordPool::attempt`](crate::guard::password_pool::PasswordPool::attempt)). The key of this
//! hash never leaves the process, so a copy of the cache alone does not help to guess secrets.
//! Wrong secrets are not cached, because their number is unbounded.

use std::fmt;
use std::sync::Arc;

use compact_str::CompactString;
use parking_lot::{Mutex, MutexGuard};

use crate::oauth::client::Registry;
use crate::oauth::decoy::slow_hashes;
use crate::oauth::password_hash::PasswordHash;

/// The cache key: a keyed hash of a client's id, a stored hash and a presented secret.
pub type Attempt = [u8; 32];

/// A set-associative cache of successful attempts. A full set evicts its oldest entry.
pub struct Verdicts(Box<[Mutex<Set>]>);

/// The number of sets. Each set has its own lock.
const SETS: usize = 1024;
/// The maximum number of entries in a set.
const WAYS: usize = 16;

#[derive(Default)]
struct Set {
    right: Vec<Verdict>,
    oldest: usize,
}

/// A successful attempt, with its client and the stored hash that its secret matched.
pub struct Verdict {
    /// The cache key of the attempt.
    pub attempt: Attempt,
    /// The id of the client.
    pub client_id: CompactString,
    /// The stored hash that the secret matched.
    pub hash: Arc<PasswordHash>,
}

impl Verdict {
    /// Whether the client, as registered in `clients`, still has the stored hash.
    fn is_of(&self, clients: &Registry) -> bool {
        let client = clients.get(&self.client_id);
        client.is_some_and(|client| slow_hashes(client).any(|hash| **hash == *self.hash))
    }
}

impl Verdicts {
    /// Whether the success of this attempt is cached.
    pub fn is_right(&self, attempt: &Attempt) -> bool {
        // The comparison need not take constant time: an attacker does not know the key, and so
        // cannot choose a secret whose keyed hash begins with given bytes.
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

    /// Removes each entry whose client, as registered in `clients`, no longer has the stored hash.
    pub fn keep_only(&self, clients: &Registry) {
        for set in &self.0 {
            let set = &mut *set.lock();
            // After the removal, the set may no longer be full. The oldest entry of such a set must
            // be at index 0, so rotate the set first.
            set.right.rotate_left(set.oldest);
            set.oldest = 0;
            set.right.retain(|verdict| verdict.is_of(clients));
        }
    }

    /// The number of entries.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.iter().map(|set| set.lock().right.len()).sum()
    }

    fn set(&self, attempt: &Attempt) -> MutexGuard<'_, Set> {
        let index = usize::from(u16::from_le_bytes([attempt[0], attempt[1]])) % SETS;
        self.0[index].lock()
    }
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
