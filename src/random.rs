//! Randomness has one door too: whoever needs unpredictable bytes is handed a [`Random`].

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ring::rand::{SecureRandom, SystemRandom};
use zeroize::{Zeroize, Zeroizing};

/// A source of random bytes.
#[derive(Clone, Debug)]
pub struct Random(Source);

impl Random {
    /// The operating system's generator.
    pub fn system() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one door")]
        let system = SystemRandom::new();
        Self(Source::System(Arc::new(Reserve { system, left: Mutex::default() })))
    }

    /// Bytes that count upwards from `start`, for tests that pin a whole answer. Never for service:
    /// a token whose `jti` can be guessed is no secret, but two processes would issue the same.
    pub fn counting(start: u64) -> Self {
        Self(Source::Counting(Arc::new(AtomicU64::new(start))))
    }

    /// Bytes for `fills` calls and none after that, for tests of what happens then.
    pub fn limited(fills: u64) -> Self {
        Self(Source::Limited(Arc::new(AtomicU64::new(fills))))
    }

    /// Fills `bytes`.
    ///
    /// # Errors
    ///
    /// [`NoEntropy`] if the operating system has none to give; nothing may be issued then.
    pub fn fill(&self, bytes: &mut [u8]) -> Result<(), NoEntropy> {
        match &self.0 {
            Source::System(reserve) => reserve.fill(bytes),
            Source::Counting(next) => {
                for chunk in bytes.chunks_mut(8) {
                    let word = next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
                    chunk.copy_from_slice(&word[8 - chunk.len()..]);
                }
                Ok(())
            }
            Source::Limited(left) => left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .map(|left| bytes.fill(left.to_le_bytes()[0]))
                .map_err(|_used_up| NoEntropy),
        }
    }
}

/// The operating system gave no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoEntropy;

#[derive(Clone, Debug)]
enum Source {
    System(Arc<Reserve>),
    Counting(Arc<AtomicU64>),
    Limited(Arc<AtomicU64>),
}

/// Random bytes drawn in advance: a token needs 16, and asking the kernel for them each time is one
/// system call in three that a token makes.
struct Reserve {
    system: SystemRandom,
    left: Mutex<Zeroizing<Vec<u8>>>,
}

impl Reserve {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoEntropy> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if left.len() < bytes.len() {
            left.resize(RESERVE_BYTES.max(bytes.len()), 0);
            if self.system.fill(&mut left).is_err() {
                // Whatever stands there now is not random.
                left.clear();
                return Err(NoEntropy);
            }
        }
        let rest = left.len() - bytes.len();
        bytes.copy_from_slice(&left[rest..]);
        // Nothing that was handed out can be read here again.
        left[rest..].zeroize();
        left.truncate(rest);
        Ok(())
    }
}

impl fmt::Debug for Reserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reserve").finish_non_exhaustive()
    }
}

/// Bytes drawn at a time: for 32 tokens.
const RESERVE_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_byte_is_handed_out_twice() {
        let random = Random::system();
        let mut seen = HashSet::new();
        for _ in 0..1000 {
            let mut bytes = [0; 16];
            random.fill(&mut bytes).unwrap();
            assert!(seen.insert(bytes));
        }
        let mut many = vec![0; 2 * RESERVE_BYTES];
        random.fill(&mut many).unwrap();
        assert!(many.chunks(16).all(|chunk| seen.insert(chunk.try_into().unwrap())));
    }
}
