//! The reference backend, on every CPU: one signature at a time by ring.

use ring::rand::SystemRandom;
use ring::signature::RSA_PKCS1_SHA256;

use crate::jose::key_set::SigningKey;

/// The longest signature of any key that is accepted: 4096 bits.
pub const MAX_SIGNATURE_BYTES: usize = 512;

/// Signs `message` into the front of `signature` and says how many bytes that took. `None` if ring
/// refused.
///
/// `random` blinds the private operation; the signature itself is deterministic.
pub fn sign(
    key: &SigningKey,
    message: &[u8],
    random: &SystemRandom,
    signature: &mut [u8; MAX_SIGNATURE_BYTES],
) -> Option<usize> {
    let length = key.pair().public().modulus_len();
    let signature = signature.get_mut(..length)?;
    key.pair().sign(&RSA_PKCS1_SHA256, random, message, signature).ok()?;
    Some(length)
}
