//! Secrets that were right: a slow hash is computed once for each, and then remembered.
//!
//! What is kept is neither the secret nor its hash but a keyed hash of both (see
//! [`crate::store::password_pool`]), whose key only this process has ever had: nothing else can try
//! secrets on it. Only right secrets are kept; the number of wrong ones has no bound.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use compact_str::CompactString;

use crate::oauth::client::Registry;
use crate::oauth::decoy::slow_hashes;
use crate::oauth::password_hash::PasswordHash;

/// A keyed hash of a client's id, a stored hash and a secret that was given for it.
pub type Attempt = [u8; 32];

/// A set-associative cache of the attempts that were right. A full set evicts its oldest.
pub struct Verdicts(Box<[Mutex<Set>]>);

/// The sets, each with its own lock.
const SETS: usize = 1024;
/// The attempts that a set holds.
const WAYS: usize = 16;

#[derive(Default)]
struct Set {
    right: Vec<Verdict>,
    oldest: usize,
}

/// An attempt that was right, and which secret of which client that was.
pub struct Verdict {
    /// The attempt.
    pub attempt: Attempt,
    /// Of this client.
    pub client_id: CompactString,
    /// With this stored hash.
    pub hash: Arc<PasswordHash>,
}

impl Verdict {
    /// Whether the client still has the secret.
    fn is_of(&self, clients: &Registry) -> bool {
        let client = clients.get(&self.client_id);
        client.is_some_and(|client| slow_hashes(client).any(|hash| **hash == *self.hash))
    }
}

impl Verdicts {
    /// Whether this attempt was right before.
    pub fn is_right(&self, attempt: &Attempt) -> bool {
        // Not in constant time: no caller can choose what a keyed hash begins with.
        self.set(attempt).right.iter().any(|verdict| verdict.attempt == *attempt)
    }

    /// Remembers an attempt that was right.
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

    /// Forgets every secret that no client of `clients` has.
    pub fn keep_only(&self, clients: &Registry) {
        for set in &self.0 {
            let set = &mut *locked(set);
            // The oldest first again: only a full set has begun anywhere else.
            set.right.rotate_left(set.oldest);
            set.oldest = 0;
            set.right.retain(|verdict| verdict.is_of(clients));
        }
    }

    /// The number of verdicts in the cache.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.iter().map(|set| locked(set).right.len()).sum()
    }

    fn set(&self, attempt: &Attempt) -> MutexGuard<'_, Set> {
        let index = usize::from(u16::from_le_bytes([attempt[0], attempt[1]])) % SETS;
        locked(&self.0[index])
    }
}

/// Whole between any two statements, so a panic elsewhere cannot have broken it.
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
    fn new_ones_take_the_place_of_the_oldest_and_never_more() {
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
