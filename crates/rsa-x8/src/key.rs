//! RSA private keys: read from PKCS#8, checked for consistency, one type for each size.

use pkcs8::PrivateKeyInfoRef;
use pkcs8::der::asn1::UintRef;
use pkcs8::der::{self, Decode, Reader, SliceReader};

use crate::crt::{Prime, PrivateKey};
use crate::lanes::Supported;
use crate::radix52::{from_be_bytes, product, to_be_bytes};
use crate::{BATCH, MAX_SIGNATURE_BYTES};

/// `rsaEncryption` (RFC 8017, appendix A.1).
const RSA_ENCRYPTION: pkcs8::ObjectIdentifier =
    pkcs8::ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// A private key. There is one variant for each supported length of the modulus, in bits.
pub(crate) enum Key {
    Rsa2048(Box<PrivateKey<20>>),
    Rsa3072(Box<PrivateKey<30>>),
    Rsa4096(Box<PrivateKey<40>>),
}

impl Key {
    /// Reads a key from its PKCS#8 document. `None` if the processor or the key is not supported.
    pub(crate) fn from_pkcs8(document: &[u8]) -> Option<Self> {
        let supported = Supported::detect()?;
        let info = PrivateKeyInfoRef::try_from(document).ok()?;
        if info.algorithm.oid != RSA_ENCRYPTION {
            return None;
        }
        let numbers = Numbers::from_der(info.private_key.as_bytes()).ok()?;
        match numbers.n.len() {
            256 => Some(Self::Rsa2048(Box::new(numbers.key::<20, 40>(supported)?))),
            384 => Some(Self::Rsa3072(Box::new(numbers.key::<30, 60>(supported)?))),
            512 => Some(Self::Rsa4096(Box::new(numbers.key::<40, 80>(supported)?))),
            _ => None,
        }
    }

    pub(crate) fn modulus_bytes(&self) -> usize {
        match self {
            Self::Rsa2048(_) => 256,
            Self::Rsa3072(_) => 384,
            Self::Rsa4096(_) => 512,
        }
    }

    /// Signs encoded messages that are as long as the modulus. Returns for each signature whether
    /// it passed the check. A signature that failed the check is not written.
    pub(crate) fn sign(
        &self,
        encoded: &[[u8; MAX_SIGNATURE_BYTES]; BATCH],
        signatures: &mut [[u8; MAX_SIGNATURE_BYTES]; BATCH],
    ) -> [bool; BATCH] {
        let bytes = self.modulus_bytes();
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
    let (numbers, passed) = key.sign(&messages);
    let passed = std::array::from_fn(|lane| passed >> lane & 1 == 1);
    for ((number, signature), passed) in numbers.iter().zip(signatures).zip(passed) {
        if passed {
            to_be_bytes(number, &mut signature[..bytes]);
        }
    }
    passed
}

/// The numbers of an RSAPrivateKey with two primes (RFC 8017, appendix A.1.2), big-endian without
/// leading zeros.
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
            let mut numbers = [&[][..]; 8];
            for number in &mut numbers {
                *number = UintRef::decode(fields)?.as_bytes();
            }
            let [n, e, _d, p, q, dp, dq, q_inverse] = numbers;
            if version != 0 || e.len() > 8 {
                return Err(der::Tag::Integer.value_error().into());
            }
            let e = e.iter().fold(0, |e, byte| e << 8 | u64::from(*byte));
            Ok(Self { n, e, primes: [p, q], exponents: [dp, dq], q_inverse })
        })?;
        reader.finish()?;
        Ok(numbers)
    }

    /// Builds the key. Returns `None` unless its numbers have the sizes and the relations that the
    /// arithmetic relies on: `n = p q`; both primes are odd, half as long as the modulus, and have
    /// the top bit set; the public exponent is odd. Does not check whether the private exponents
    /// match the public exponent: if they do not match, no signature passes the check.
    fn key<const L: usize, const D: usize>(&self, supported: Supported) -> Option<PrivateKey<L>> {
        let half = self.n.len() / 2;
        let is_odd_of_length = |number: &[u8], length: usize| {
            number.len() == length
                && number.first().is_some_and(|top| top >> 7 == 1)
                && number.last().is_some_and(|low| low & 1 == 1)
        };
        let [p, q] = self.primes;
        let fits = is_odd_of_length(self.n, 2 * half)
            && is_odd_of_length(p, half)
            && is_odd_of_length(q, half)
            && self.exponents.iter().all(|exponent| exponent.len() <= half)
            && self.q_inverse.len() <= half
            && self.e >= 3
            && self.e & 1 == 1;
        if !fits {
            return None;
        }
        let prime = |number: usize| {
            let modulus = from_be_bytes(self.primes[number]);
            Prime::new(modulus, from_be_bytes(self.exponents[number]), half * 8)
        };
        let q_inverse = from_be_bytes(self.q_inverse);
        let key = PrivateKey::new(supported, [prime(0), prime(1)], q_inverse, self.e);
        let n: [u64; D] = from_be_bytes(self.n);
        (product(&key.p.check.n, &key.q.check.n) == n).then_some(key)
    }
}
