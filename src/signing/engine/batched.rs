//! Keys that sign in batches.

use std::time::Instant;

use rsa_x8::{BATCH, BatchKey};
use tracing::error;

use crate::clock::Clock;
use crate::keys::key_set::SigningKey;
use crate::signing::queue::Job;
use crate::signing::single::{MAX_SIGNATURE_BYTES, Single, blinding};

/// A key that can sign in batches. Its batches have been compared with ring's signatures.
pub(super) struct Batched {
    key: BatchKey,
    /// The smallest number of tokens for which a batch is faster than single signatures.
    pub(super) pays_from: usize,
}

/// The signatures of a batch of jobs, in the order of the jobs.
pub(super) struct SignedBatch {
    pub(super) signatures: [[u8; MAX_SIGNATURE_BYTES]; BATCH],
    /// The length of each signature, in bytes.
    pub(super) length: usize,
    /// For each signature, whether it passed its check.
    pub(super) passed: [bool; BATCH],
    pub(super) taken: Instant,
    pub(super) done: Instant,
}

impl Batched {
    /// Returns `None` if `key` cannot sign in batches, or if its batches differ from ring's
    /// signatures.
    pub(super) fn new(key: &SigningKey, single: Single) -> Option<Self> {
        let random = blinding();
        let batch = BatchKey::from_pkcs8(key.document())?;
        if !batch.agrees_with(key.ring(), &random) {
            error!(
                key_id = key.key_id(),
                "batches differ from ring's signatures: this key signs without batches"
            );
            return None;
        }
        // Take the minimum, because other load on the machine only adds time.
        let shortest = |sign: &mut dyn FnMut()| {
            let times = (0..TRIALS).map(|_| {
                let start = Clock::system().instant();
                sign();
                start.elapsed().as_nanos()
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
        let pays_from = usize::try_from(together / alone.max(1)).unwrap_or(BATCH) + 1;
        Some(Self { key: batch, pays_from })
    }

    /// Signs at most [`BATCH`] jobs, which were taken out of the queue at `taken`.
    pub(super) fn sign(&self, jobs: &[Job], taken: Instant, clock: &Clock) -> SignedBatch {
        let mut signatures = [[0; MAX_SIGNATURE_BYTES]; BATCH];
        let mut messages = [&[][..]; BATCH];
        for (message, job) in messages.iter_mut().zip(jobs) {
            *message = job.input.as_bytes();
        }
        let passed = self.key.sign(&messages[..jobs.len()], &mut signatures);
        let (length, done) = (self.key.signature_bytes(), clock.instant());
        SignedBatch { signatures, length, passed, taken, done }
    }
}

/// How many batches and how many single signatures are timed for each key.
const TRIALS: usize = 5;
