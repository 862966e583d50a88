#![doc = include_str!("../README.md")]
#![deny(missing_docs)]

// On architectures other than x86-64, without the feature `portable`, `key/unsupported.rs` replaces
// `key`, and `encoding` is the only other module that is compiled.
#[cfg(any(target_arch = "x86_64", feature = "portable"))]
mod crt;
mod encoding;
#[cfg(any(target_arch = "x86_64", feature = "portable"))]
mod fault;
#[cfg(any(target_arch = "x86_64", feature = "portable"))]
mod kernels;
#[cfg_attr(not(any(target_arch = "x86_64", feature = "portable")), path = "key/unsupported.rs")]
mod key;
#[cfg(any(target_arch = "x86_64", feature = "portable"))]
mod lanes;
#[cfg(feature = "portable")]
#[doc(hidden)]
pub mod marked;
#[cfg(any(target_arch = "x86_64", feature = "portable"))]
mod montgomery;
#[cfg(any(target_arch = "x86_64", feature = "portable"))]
mod radix52;

use std::fmt;

use ring::rand::SecureRandom;
use ring::rsa::KeyPair;
use ring::signature::RSA_PKCS1_SHA256;

use crate::key::Key;

/// The maximum number of messages that one call signs: one for each lane of a vector.
pub const BATCH: usize = 8;

/// The length in bytes of a signature by the largest supported key (4096 bits).
pub const MAX_SIGNATURE_BYTES: usize = 512;

/// How many messages [`BatchKey::agrees_with`] compares.
const SELF_TEST_MESSAGES: usize = 64;

/// An RSA key that signs up to eight messages at once. Its secret numbers are wiped when it is
/// dropped.
pub struct BatchKey(Key);

impl BatchKey {
    /// Reads a key from its PKCS#8 document (RFC 5208).
    ///
    /// `None` if batches cannot be made: the processor lacks AVX-512 IFMA, or the document does not
    /// hold a consistent RSA key of 2048, 3072 or 4096 bits with two primes of equal length.
    pub fn from_pkcs8(document: &[u8]) -> Option<Self> {
        Key::from_pkcs8(document).map(Self)
    }

    /// Returns the length in bytes of the modulus, and so of each signature: 256, 384 or 512.
    pub fn signature_bytes(&self) -> usize {
        self.0.modulus_bytes()
    }

    /// Signs the first [`BATCH`] of `messages` with RSASSA-PKCS1-v1_5 and SHA-256 (RFC 8017,
    /// section 8.2.1). Signature `i` is written to the first
    /// [`signature_bytes`](Self::signature_bytes) bytes of `signatures[i]`; the other bytes are set
    /// to 0. Element `i` of the result says whether signature `i` is valid.
    ///
    /// Every signature is checked with the public exponent before it is written. If this check
    /// fails, the hardware has computed a wrong result: the signature is all zeros and marked
    /// `false`, and the message must be signed by other means. If there are fewer than [`BATCH`]
    /// messages, the remaining signatures are all zeros and marked `false`.
    pub fn sign(
        &self,
        messages: &[&[u8]],
        signatures: &mut [[u8; MAX_SIGNATURE_BYTES]; BATCH],
    ) -> [bool; BATCH] {
        *signatures = [[0; MAX_SIGNATURE_BYTES]; BATCH];
        let Some(first) = messages.first() else { return [false; BATCH] };
        let bytes = self.signature_bytes();
        let mut encoded = [[0; MAX_SIGNATURE_BYTES]; BATCH];
        encoding::encode(first, &mut encoded[0][..bytes]);
        for lane in 1..BATCH {
            match messages.get(lane) {
                Some(message) => encoding::encode(message, &mut encoded[lane][..bytes]),
                None => encoded[lane] = encoded[0],
            }
        }
        let mut passed = self.0.sign(&encoded, signatures);
        for lane in messages.len().min(BATCH)..BATCH {
            signatures[lane].fill(0);
            passed[lane] = false;
        }
        passed
    }

    /// Whether this key and `pair` make the same signatures for 64 test messages.
    ///
    /// Call this method once for each key, before the key is used. `random` blinds ring's private
    /// operation. The method also returns `false` if ring fails.
    pub fn agrees_with(&self, pair: &KeyPair, random: &dyn SecureRandom) -> bool {
        let messages: [[u8; 8]; SELF_TEST_MESSAGES] =
            std::array::from_fn(|number| (number as u64).to_be_bytes());
        let (batches, _) = messages.as_chunks::<BATCH>();
        batches.iter().all(|batch| {
            let mut signatures = [[0; MAX_SIGNATURE_BYTES]; BATCH];
            let passed = self.sign(&batch.each_ref().map(|message| &message[..]), &mut signatures);
            passed == [true; BATCH]
                && batch.iter().zip(&signatures).all(|(message, signature)| {
                    let mut reference = [0; MAX_SIGNATURE_BYTES];
                    let length = pair.public().modulus_len();
                    length == self.signature_bytes()
                        && pair
                            .sign(&RSA_PKCS1_SHA256, random, message, &mut reference[..length])
                            .is_ok()
                        && *signature == reference
                })
        })
    }
}

/// Shows only the size of the key, because the rest is secret.
impl fmt::Debug for BatchKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchKey")
            .field("bits", &(self.signature_bytes() * 8))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
