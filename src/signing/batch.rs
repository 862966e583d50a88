//! Eight signatures at once with AVX-512 IFMA, for CPUs that have it.
//!
//! RS256 is deterministic and one key signs everything, so eight waiting messages fit into the eight
//! lanes of a vector: several times as many signatures a second as one at a time. A batch takes the
//! same time however few of its lanes are wanted, so it pays from about two messages on.
//!
//! ring keeps its private numbers to itself; they are read again from the PKCS#8 document, and wiped
//! when the key is dropped.

use std::fmt;

use ring::digest::{SHA256, digest};
use ring::rand::SecureRandom;
use ring::rsa::KeyPair;
use ring::signature::RSA_PKCS1_SHA256;

use crate::signing::single::MAX_SIGNATURE_BYTES;

#[cfg(not(target_arch = "x86_64"))]
use elsewhere::Key;
#[cfg(target_arch = "x86_64")]
use ifma::Key;

/// The most messages that one call signs.
pub const BATCH: usize = 8;

/// Messages that the batch and ring must agree on before the batch may sign.
const SELF_TEST_MESSAGES: usize = 64;

/// The DER of a SHA-256 DigestInfo up to the hash (RFC 8017, section 9.2, note 1).
const DIGEST_INFO: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
    0x00, 0x04, 0x20,
];

/// An RSA key that signs up to eight messages at once.
pub struct BatchKey {
    key: Key,
    /// Length of the modulus, and so of a signature.
    bytes: usize,
}

impl BatchKey {
    /// Takes a key from its PKCS#8 document (RFC 5208).
    ///
    /// `None` where batches cannot be made: the CPU has no AVX-512 IFMA, or the key is not one of two
    /// primes of 1024, 1536 or 2048 bits each, or is inconsistent.
    pub fn new(pkcs8: &[u8]) -> Option<Self> {
        let (key, bytes) = Key::from_pkcs8(pkcs8)?;
        Some(Self { key, bytes })
    }

    /// Length of the modulus, and so of a signature, in bytes: 256, 384 or 512.
    pub fn signature_bytes(&self) -> usize {
        self.bytes
    }

    /// Signs the first [`BATCH`] of `messages` (RSASSA-PKCS1-v1_5 with SHA-256, RFC 8017, section
    /// 8.2.1) into the fronts of `signatures`, and says which of them can be used.
    ///
    /// Every signature was checked with the public exponent before it was written. One that failed,
    /// by a fault of the machine, is all zeros and marked `false`: sign that message otherwise. So
    /// are those for which there is no message.
    pub fn sign(
        &self,
        messages: &[&[u8]],
        signatures: &mut [[u8; MAX_SIGNATURE_BYTES]; BATCH],
    ) -> [bool; BATCH] {
        *signatures = [[0; MAX_SIGNATURE_BYTES]; BATCH];
        let Some(first) = messages.first() else { return [false; BATCH] };
        let mut encoded = [[0; MAX_SIGNATURE_BYTES]; BATCH];
        encode(first, &mut encoded[0][..self.bytes]);
        for lane in 1..BATCH {
            match messages.get(lane) {
                Some(message) => encode(message, &mut encoded[lane][..self.bytes]),
                None => encoded[lane] = encoded[0],
            }
        }
        let mut passed = self.key.sign(&encoded, self.bytes, signatures);
        for lane in messages.len().min(BATCH)..BATCH {
            signatures[lane].fill(0);
            passed[lane] = false;
        }
        passed
    }

    /// Whether batches of this key equal what ring makes with `pair`, byte for byte, on 64 messages.
    ///
    /// To be asked at start, once for each key; `random` blinds ring's private operation. `false`
    /// too if ring fails.
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
                    length == self.bytes
                        && pair
                            .sign(&RSA_PKCS1_SHA256, random, message, &mut reference[..length])
                            .is_ok()
                        && *signature == reference
                })
        })
    }
}

/// Only its size: the rest is secret.
impl fmt::Debug for BatchKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchKey").field("bits", &(self.bytes * 8)).finish_non_exhaustive()
    }
}

/// EMSA-PKCS1-v1_5 (RFC 8017, section 9.2) with SHA-256 into all of `encoded`.
fn encode(message: &[u8], encoded: &mut [u8]) {
    let hash = digest(&SHA256, message);
    let tail = DIGEST_INFO.len() + hash.as_ref().len();
    let (padding, info) = encoded.split_at_mut(encoded.len() - tail);
    padding.fill(0xff);
    padding[0] = 0;
    padding[1] = 1;
    padding[padding.len() - 1] = 0;
    info[..DIGEST_INFO.len()].copy_from_slice(&DIGEST_INFO);
    info[DIGEST_INFO.len()..].copy_from_slice(hash.as_ref());
}

#[cfg(target_arch = "x86_64")]
pub(super) mod ifma {
    use pkcs8::PrivateKeyInfoRef;
    use pkcs8::der::asn1::UintRef;
    use pkcs8::der::{self, Decode, Reader, SliceReader};

    use super::{BATCH, MAX_SIGNATURE_BYTES};
    use crate::signing::crt::{Prime, PrivateKey};
    use crate::signing::radix52::{ModulusLimbs, from_be_bytes, product, to_be_bytes};

    /// `rsaEncryption` (RFC 8017, appendix A.1).
    const RSA_ENCRYPTION: pkcs8::ObjectIdentifier =
        pkcs8::ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

    /// Whether this CPU has the instructions.
    pub(in crate::signing) fn able() -> bool {
        is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512ifma")
    }

    /// A key of each size there is code for.
    pub(in crate::signing) enum Key {
        Rsa2048(Box<PrivateKey<20>>),
        Rsa3072(Box<PrivateKey<30>>),
        Rsa4096(Box<PrivateKey<40>>),
    }

    impl Key {
        /// The key and the length of its modulus in bytes.
        pub(in crate::signing) fn from_pkcs8(document: &[u8]) -> Option<(Self, usize)> {
            if !able() {
                return None;
            }
            let info = PrivateKeyInfoRef::try_from(document).ok()?;
            if info.algorithm.oid != RSA_ENCRYPTION {
                return None;
            }
            let numbers = Numbers::from_der(info.private_key.as_bytes()).ok()?;
            let bytes = numbers.n.len();
            let key = match bytes {
                256 => Self::Rsa2048(Box::new(numbers.key::<20, 40>()?)),
                384 => Self::Rsa3072(Box::new(numbers.key::<30, 60>()?)),
                512 => Self::Rsa4096(Box::new(numbers.key::<40, 80>()?)),
                _ => return None,
            };
            Some((key, bytes))
        }

        /// Signs encoded messages of `bytes` bytes. Signatures that fail the check are not written.
        pub(super) fn sign(
            &self,
            encoded: &[[u8; MAX_SIGNATURE_BYTES]; BATCH],
            bytes: usize,
            signatures: &mut [[u8; MAX_SIGNATURE_BYTES]; BATCH],
        ) -> [bool; BATCH] {
            match self {
                Self::Rsa2048(key) => sign::<20, 40>(key, encoded, bytes, signatures),
                Self::Rsa3072(key) => sign::<30, 60>(key, encoded, bytes, signatures),
                Self::Rsa4096(key) => sign::<40, 80>(key, encoded, bytes, signatures),
            }
        }
    }

    fn sign<const L: usize, const D: usize>(
        key: &PrivateKey<L>,
        encoded: &[[u8; MAX_SIGNATURE_BYTES]; BATCH],
        bytes: usize,
        signatures: &mut [[u8; MAX_SIGNATURE_BYTES]; BATCH],
    ) -> [bool; BATCH] {
        let number = |message: &[u8; _]| from_be_bytes::<D>(&message[..bytes]);
        let messages = encoded.each_ref().map(number);
        #[expect(
            unsafe_code,
            reason = "the one way into code for a CPU that has more than the target"
        )]
        // SAFETY: `sign` is a safe function but for its need of AVX-512 F and IFMA. A key is made only
        // by `from_pkcs8`, which has asked the CPU for both.
        let (numbers, passed) = unsafe { key.sign(&messages) };
        let passed = std::array::from_fn(|lane| passed >> lane & 1 == 1);
        for ((number, signature), passed) in numbers.iter().zip(signatures).zip(passed) {
            if passed {
                to_be_bytes(number, &mut signature[..bytes]);
            }
        }
        passed
    }

    /// An RSAPrivateKey (RFC 8017, appendix A.1.2) of two primes, big-endian without leading zeros.
    struct Numbers<'a> {
        n: &'a [u8],
        e: u64,
        primes: [&'a [u8]; 2],
        exponents: [&'a [u8]; 2],
        q_inverse: &'a [u8],
    }

    impl<'a> Numbers<'a> {
        fn from_der(document: &'a [u8]) -> der::Result<Self> {
            let mut reader = SliceReader::new(document)?;
            let numbers = reader.sequence(|fields| -> der::Result<Self> {
                let version = u8::decode(fields)?;
                let mut number = || UintRef::decode(fields).map(|number| number.as_bytes());
                let [n, e, _d, p, q, dp, dq, q_inverse] = [
                    number()?,
                    number()?,
                    number()?,
                    number()?,
                    number()?,
                    number()?,
                    number()?,
                    number()?,
                ];
                if version != 0 || e.len() > 8 {
                    return Err(der::Tag::Integer.value_error().into());
                }
                let e = e.iter().fold(0, |e, byte| e << 8 | u64::from(*byte));
                Ok(Self { n, e, primes: [p, q], exponents: [dp, dq], q_inverse })
            })?;
            reader.finish()?;
            Ok(numbers)
        }

        /// The key, if its numbers have the sizes and the relations that the arithmetic builds on.
        fn key<const L: usize, const D: usize>(&self) -> Option<PrivateKey<L>> {
            let half = self.n.len() / 2;
            let whole_and_odd = |number: &[u8], length: usize| {
                number.len() == length
                    && number.first().is_some_and(|top| top >> 7 == 1)
                    && number.last().is_some_and(|low| low & 1 == 1)
            };
            let [p, q] = self.primes;
            let fits = whole_and_odd(self.n, 2 * half)
                && whole_and_odd(p, half)
                && whole_and_odd(q, half)
                && self.exponents.iter().all(|exponent| exponent.len() <= half)
                && self.q_inverse.len() <= half
                && self.e >= 3
                && self.e & 1 == 1;
            if !fits {
                return None;
            }
            let prime = |number: usize| {
                let modulus = ModulusLimbs::new(from_be_bytes(self.primes[number]));
                let exponent = from_be_bytes(self.exponents[number]);
                Prime { check: modulus.clone(), modulus, exponent, bits: half * 8 }
            };
            let key = PrivateKey {
                p: prime(0),
                q: prime(1),
                q_inverse: from_be_bytes(self.q_inverse),
                e: self.e,
            };
            let n: [u64; D] = from_be_bytes(self.n);
            (product(&key.p.check.n, &key.q.check.n) == n).then_some(key)
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod elsewhere {
    use super::{BATCH, MAX_SIGNATURE_BYTES};

    /// There is none.
    pub(super) enum Key {}

    impl Key {
        pub(super) fn from_pkcs8(_document: &[u8]) -> Option<(Self, usize)> {
            None
        }

        pub(super) fn sign(
            &self,
            _encoded: &[[u8; MAX_SIGNATURE_BYTES]; BATCH],
            _bytes: usize,
            _signatures: &mut [[u8; MAX_SIGNATURE_BYTES]; BATCH],
        ) -> [bool; BATCH] {
            match *self {}
        }
    }
}

#[cfg(test)]
mod tests;
