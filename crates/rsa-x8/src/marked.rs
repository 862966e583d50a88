//! A key whose secrets the memory checker treats as undefined, for `examples/memcheck`.

use crate::BATCH;
use crate::crt::{Prime, PrivateKey};
use crate::key::Key;
use crate::lanes::Supported;
use crate::radix52::{from_be_bytes, to_be_bytes};

/// The number of limbs of a prime of an RSA-2048 key.
pub const HALF: usize = 20;
/// The number of limbs of the modulus.
pub const WHOLE: usize = 40;
const PRIME_BYTES: usize = 128;

/// An RSA-2048 key made of marked numbers.
pub struct MarkedKey(PrivateKey<HALF>);

impl MarkedKey {
    /// Reads a key from its PKCS#8 document. Calls `mark` on the bytes of each of its secrets (the
    /// primes, the exponents and the inverse), and builds a second key from the marked bytes. The
    /// memory checker itself marks all values that are computed from marked bytes.
    ///
    /// The memory checker does not cover the code that reads the document and checks the key,
    /// because that code runs before the bytes are marked.
    pub fn new(document: &[u8], mark: impl Fn(&mut [u8])) -> Option<Self> {
        let Key::Rsa2048(key) = Key::from_pkcs8(document)? else { return None };
        let marked = |number: &[u64; HALF]| {
            let mut bytes = [0; PRIME_BYTES];
            to_be_bytes(number, &mut bytes);
            mark(&mut bytes);
            from_be_bytes(&bytes)
        };
        let primes = [&key.p, &key.q]
            .map(|it| Prime::new(marked(&it.modulus.n), marked(&it.exponent), it.bits));
        let q_inverse = marked(&key.q_inverse);
        Some(Self(PrivateKey::new(Supported::detect()?, primes, q_inverse, key.e)))
    }

    /// The signatures of `messages`, and the lanes in which the check passed, one bit each.
    pub fn sign(&self, messages: &[[u64; WHOLE]; BATCH]) -> ([[u64; WHOLE]; BATCH], u8) {
        self.0.sign(messages)
    }

    /// `d mod (p - 1)`.
    pub fn exponent(&self) -> &[u64; HALF] {
        &self.0.p.exponent
    }
}
