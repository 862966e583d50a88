//! Which libraries sign: the choice of the setting `signer`, and the trials behind it.

use rsa_x8::{BATCH, BatchKey};
use tracing::error;

use crate::clock::Clock;
use crate::config::SignerChoice;
use crate::signing::private_key::PrivateKey;
use crate::signing::single::{MAX_SIGNATURE_BYTES, SingleSigner, blinding};

/// The libraries that sign in this process.
#[derive(Clone, Copy, Debug)]
pub struct Backends {
    /// The library for single signatures.
    pub single: SingleSigner,
    choice: SignerChoice,
}

/// [`SignerChoice::Batch`] is set, but a key cannot sign in batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoBatches;

impl Backends {
    /// Chooses the library for single signatures. If `choice` leaves it open, tries both libraries
    /// with `key`, which takes about 50 ms.
    pub fn new(choice: SignerChoice, key: Option<&PrivateKey>) -> Self {
        let single = match (choice, key) {
            (SignerChoice::AwsLc, _) => SingleSigner::AwsLc,
            (SignerChoice::Auto | SignerChoice::Batch, Some(key)) => SingleSigner::fastest(key),
            _ => SingleSigner::Ring,
        };
        Self { single, choice }
    }

    /// Makes `keys` sign in batches where that is chosen and possible. Returns whether all of them
    /// do. The trial of a key takes about 0.1 s, and is made only once for each [`PrivateKey`].
    ///
    /// # Errors
    ///
    /// [`NoBatches`] if batches are required, but a key cannot sign in batches: the processor lacks
    /// AVX-512 IFMA, the key does not have two primes and 2048, 3072 or 4096 bits, or its batches
    /// differ from ring's signatures.
    pub fn prepare<'k>(
        &self,
        keys: impl Iterator<Item = &'k PrivateKey>,
    ) -> Result<bool, NoBatches> {
        let may_batch = matches!(self.choice, SignerChoice::Auto | SignerChoice::Batch);
        let can_batch = |key: &PrivateKey| {
            let pays_from = key
                .batch_pays_from
                .get_or_init(|| try_batches(key, key.batch.as_ref()?, self.single));
            pays_from.is_some()
        };
        // Counts, so that every key is prepared even if another one cannot sign in batches.
        let is_batched = may_batch && keys.filter(|key| !can_batch(key)).count() == 0;
        if self.choice == SignerChoice::Batch && !is_batched {
            return Err(NoBatches);
        }
        Ok(is_batched)
    }
}

/// Returns the smallest number of tokens for which a batch is faster than signatures by `single`.
/// `None` if the batches of `key` differ from ring's signatures.
fn try_batches(key: &PrivateKey, batch: &BatchKey, single: SingleSigner) -> Option<usize> {
    let random = blinding();
    if !batch.agrees_with(&key.ring, &random) {
        error!(
            key_id = key.thumbprint,
            "batches differ from ring's signatures: this key signs without batches"
        );
        return None;
    }
    // Do not count the time of other threads: on a busy machine, each of the few batches may be
    // interrupted. Take the minimum, because other load on the machine only adds time.
    let begin = Clock::system().instant();
    let ran = || Clock::thread_time().unwrap_or_else(|| begin.elapsed());
    let shortest = |sign: &mut dyn FnMut()| {
        let times = (0..TRIALS).map(|_| {
            let start = ran();
            sign();
            ran().saturating_sub(start).as_nanos()
        });
        times.min().unwrap_or(u128::MAX)
    };
    let mut signatures = [[0; MAX_SIGNATURE_BYTES]; BATCH];
    let together = shortest(&mut || {
        batch.sign(&[&b"trial"[..]; BATCH], &mut signatures);
    });
    let alone = shortest(&mut || {
        single.sign(key, b"trial", &random, &mut signatures[0]);
    });
    Some(usize::try_from(together / alone.max(1)).unwrap_or(BATCH) + 1)
}

/// How many batches and how many single signatures are timed for each key.
const TRIALS: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_signs_in_batches_though_another_cannot() {
        let keys = [PrivateKey::generate_without_batch(), PrivateKey::generate()];
        let backends = Backends::new(SignerChoice::Auto, None);
        assert_eq!(backends.prepare(keys.iter()), Ok(false));
        let [without, with] = keys;
        assert_eq!(without.batch_pays_from(), None);
        assert_eq!(with.batch_pays_from().is_some(), with.batch.is_some());
        let required = Backends::new(SignerChoice::Batch, None);
        assert_eq!(required.prepare([&without].into_iter()), Err(NoBatches));
        let ring = Backends::new(SignerChoice::Ring, None);
        let new = PrivateKey::generate();
        assert_eq!(ring.prepare([&new].into_iter()), Ok(false));
        assert_eq!(new.batch_pays_from(), None);
    }
}
