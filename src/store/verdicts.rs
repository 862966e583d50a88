//! Which secrets were right: a slow hash is computed once for each, and then remembered.
//!
//! What is kept is neither the secret nor its hash but a keyed hash of both (see
//! [`crate::store::password_pool`]); without the key, which only this process has ever had, nobody
//! can try secrets on it. Only right ones are kept: wrong ones are without number.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A keyed hash of a client's id, a stored hash and a secret that was given for it.
pub type Attempt = [u8; 32];

/// The attempts that were right, [`CAPACITY`] of them at most; new ones take the place of old ones.
pub struct Verdicts(Box<[Mutex<Set>]>);

/// How many right secrets are remembered, when they are spread evenly.
pub const CAPACITY: usize = SETS * WAYS;

/// Attempts are spread over many small sets, each with its own lock.
const SETS: usize = 1024;
const WAYS: usize = 16;

#[derive(Default)]
struct Set {
    right: Vec<Attempt>,
    oldest: usize,
}

impl Verdicts {
    /// Whether this attempt was right before.
    pub fn is_right(&self, attempt: &Attempt) -> bool {
        // Not in constant time: nobody can choose what a keyed hash begins with.
        self.set(attempt).right.contains(attempt)
    }

    /// Remembers an attempt that was right.
    pub fn remember(&self, attempt: Attempt) {
        let mut set = self.set(&attempt);
        if set.right.contains(&attempt) {
            return;
        }
        if set.right.len() < WAYS {
            set.right.push(attempt);
            return;
        }
        let oldest = set.oldest;
        set.right[oldest] = attempt;
        set.oldest = (oldest + 1) % WAYS;
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.0.iter().map(|set| locked(set).right.len()).sum()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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

    #[test]
    fn new_ones_take_the_place_of_the_oldest_and_never_more() {
        let verdicts = Verdicts::default();
        assert!(verdicts.is_empty());
        let attempt = |number: u64| {
            let mut attempt = [0; 32];
            attempt[..8].copy_from_slice(&number.to_le_bytes());
            attempt
        };
        let count = CAPACITY as u64;
        (0..count).for_each(|number| verdicts.remember(attempt(number)));
        assert!((0..count).all(|number| verdicts.is_right(&attempt(number))));
        verdicts.remember(attempt(0));
        assert_eq!(verdicts.len(), CAPACITY);

        verdicts.remember(attempt(count));
        assert_eq!(verdicts.len(), CAPACITY);
        assert!(verdicts.is_right(&attempt(count)) && !verdicts.is_right(&attempt(0)));
        assert!((1..count).all(|number| verdicts.is_right(&attempt(number))));
        assert!(!Verdicts::default().is_right(&attempt(1)), "a new snapshot knows nothing");
    }
}
