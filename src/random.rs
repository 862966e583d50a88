//! The only source of randomness. Code that needs unpredictable bytes is passed a [`Random`]; tests
//! pass a [`Random`] that returns known bytes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::{Zeroize, Zeroizing};

/// A source of random bytes.
#[derive(Clone, Debug)]
pub struct Random(Source);

impl Random {
    /// Returns a source that uses the operating system's random number generator.
    pub fn system() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "the only place that asks the system for random bytes"
        )]
        let system = SystemRandom::new();
        let buffer = Buffer { bytes: Zeroizing::new([0; BUFFER_BYTES]), left: 0 };
        Self(Source::System(Arc::new(Buffered { system, buffer: Mutex::new(buffer) })))
    }

    /// Returns a source of predictable bytes that count upwards from `start`, for tests that
    /// compare a whole response. Never use this source in a server: two processes would issue the
    /// same `jti`s.
    pub fn counting(start: u64) -> Self {
        Self(Source::Counting(Arc::new(AtomicU64::new(start))))
    }

    /// Returns a source whose [`Self::fill`] succeeds `fills` times and then always fails. Tests
    /// use it to check how callers handle the error.
    pub fn limited(fills: u64) -> Self {
        Self(Source::Limited(Arc::new(AtomicU64::new(fills))))
    }

    /// Fills `bytes` with random bytes.
    ///
    /// # Errors
    ///
    /// [`NoEntropy`] if the operating system provides no random bytes. The caller must then issue
    /// no token and create no key or secret.
    pub fn fill(&self, bytes: &mut [u8]) -> Result<(), NoEntropy> {
        match &self.0 {
            Source::System(buffered) => buffered.fill(bytes),
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

/// The error of [`Random::fill`]: the operating system provided no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoEntropy;

#[derive(Clone, Debug)]
enum Source {
    System(Arc<Buffered>),
    Counting(Arc<AtomicU64>),
    Limited(Arc<AtomicU64>),
}

/// A buffer of random bytes. A token needs 16 random bytes. Without the buffer, a third of all
/// system calls for a token request would be made to get these bytes from the operating system.
struct Buffered {
    system: SystemRandom,
    buffer: Mutex<Buffer>,
}

struct Buffer {
    bytes: Zeroizing<[u8; BUFFER_BYTES]>,
    /// The number of random bytes at the beginning of `bytes` that were not returned yet.
    left: usize,
}

impl Buffered {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), NoEntropy> {
        if bytes.len() > BUFFER_BYTES {
            return self.system.fill(bytes).map_err(|_| NoEntropy);
        }
        let Buffer { bytes: buffer, left } = &mut *self.buffer.lock();
        if *left < bytes.len() {
            // Until the fill has succeeded, the bytes in the buffer count as not random.
            *left = 0;
            self.system.fill(&mut **buffer).map_err(|_| NoEntropy)?;
            *left = BUFFER_BYTES;
        }
        let returned = &mut buffer[*left - bytes.len()..*left];
        *left -= bytes.len();
        bytes.copy_from_slice(returned);
        // Wipe the returned bytes, so that the buffer does not keep a copy of them.
        returned.zeroize();
        Ok(())
    }
}

impl fmt::Debug for Buffered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffered").finish_non_exhaustive()
    }
}

/// The size of the buffer in bytes: enough for 32 tokens, each of which needs 16 random bytes.
const BUFFER_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_bytes_are_returned_twice() {
        let random = Random::system();
        let mut seen = HashSet::new();
        for _ in 0..1000 {
            let mut bytes = [0; 16];
            random.fill(&mut bytes).unwrap();
            assert!(seen.insert(bytes));
        }
        let mut many = vec![0; 2 * BUFFER_BYTES];
        random.fill(&mut many).unwrap();
        assert!(many.chunks(16).all(|chunk| seen.insert(chunk.try_into().unwrap())));
    }
}
