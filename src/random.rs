//! Randomness has one door too: whoever needs unpredictable bytes is handed a [`Random`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ring::rand::{SecureRandom, SystemRandom};

/// A source of random bytes.
#[derive(Clone, Debug)]
pub struct Random(Source);

impl Random {
    /// The operating system's generator.
    pub fn system() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one door")]
        Self(Source::System(SystemRandom::new()))
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
            Source::System(system) => system.fill(bytes).map_err(|_unspecified| NoEntropy),
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
    System(SystemRandom),
    Counting(Arc<AtomicU64>),
    Limited(Arc<AtomicU64>),
}
