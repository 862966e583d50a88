//! `GRANTD_BATCH_KEYS` and `GRANTD_BATCH_MESSAGES` (for each key) scale the comparison with ring.
//! The first `GRANTD_BATCH_EQUAL` messages of each key are signed by ring too and must be equal; the
//! others are verified, which makes them equal: ring accepts no signature that is not below the
//! modulus, and below it there is one.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair as GeneratedPair, KeySize};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

use super::*;

const SIZES: [KeySize; 3] = [KeySize::Rsa2048, KeySize::Rsa3072, KeySize::Rsa4096];

struct Pair {
    document: Vec<u8>,
    reference: KeyPair,
}

fn generate(size: KeySize) -> Pair {
    let pair = GeneratedPair::generate(size).unwrap();
    let document = pair.as_der().unwrap().as_ref().to_vec();
    let reference = KeyPair::from_pkcs8(&document).unwrap();
    Pair { document, reference }
}

/// The key, or `None`, as it must be, on a CPU that cannot make batches.
fn batch_key(pair: &Pair) -> Option<BatchKey> {
    let key = BatchKey::new(&pair.document);
    #[cfg(target_arch = "x86_64")]
    let able = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512ifma");
    #[cfg(not(target_arch = "x86_64"))]
    let able = false;
    assert_eq!(key.is_some(), able);
    key
}

fn random() -> SystemRandom {
    #[expect(clippy::disallowed_methods, reason = "random messages, and blinding")]
    SystemRandom::new()
}

fn by_ring(pair: &Pair, message: &[u8]) -> [u8; MAX_SIGNATURE_BYTES] {
    let mut signature = [0; MAX_SIGNATURE_BYTES];
    let length = pair.reference.public().modulus_len();
    pair.reference.sign(&RSA_PKCS1_SHA256, &random(), message, &mut signature[..length]).unwrap();
    signature
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

fn equals_ring(size: KeySize) {
    let (messages, equal) =
        (setting("GRANTD_BATCH_MESSAGES", 16), setting("GRANTD_BATCH_EQUAL", 16));
    for _ in 0..setting("GRANTD_BATCH_KEYS", 3) {
        let pair = generate(size);
        let Some(key) = batch_key(&pair) else { return };
        let length = key.signature_bytes();
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.reference.public());
        for start in (0..messages).step_by(BATCH) {
            let mut batch = [[0; 40]; BATCH];
            batch.iter_mut().for_each(|message| random().fill(message).unwrap());
            let mut signatures = [[1; MAX_SIGNATURE_BYTES]; BATCH];
            let passed = key.sign(&batch.each_ref().map(|message| &message[..]), &mut signatures);
            assert_eq!(passed, [true; BATCH]);
            for (message, signature) in batch.iter().zip(&signatures) {
                if start < equal {
                    assert_eq!(*signature, by_ring(&pair, message));
                } else {
                    public.verify(message, &signature[..length]).unwrap();
                }
            }
        }
    }
}

#[test]
fn equals_ring_with_2048_bits() {
    equals_ring(SIZES[0]);
}

#[test]
fn equals_ring_with_3072_bits() {
    equals_ring(SIZES[1]);
}

#[test]
fn equals_ring_with_4096_bits() {
    equals_ring(SIZES[2]);
}

#[test]
fn signs_as_many_as_there_are() {
    let pair = generate(KeySize::Rsa2048);
    let Some(key) = batch_key(&pair) else { return };
    let messages: [&[u8]; 10] = [b"", b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h", b"i"];
    for count in [0, 1, 3, 8, 10] {
        let mut signatures = [[1; MAX_SIGNATURE_BYTES]; BATCH];
        let passed = key.sign(&messages[..count], &mut signatures);
        for lane in 0..BATCH {
            assert_eq!(passed[lane], lane < count);
            let expected = if lane < count {
                by_ring(&pair, messages[lane])
            } else {
                [0; MAX_SIGNATURE_BYTES]
            };
            assert_eq!(signatures[lane], expected);
        }
    }
}

#[test]
fn self_test_knows_the_key() {
    let (pair, other) = (generate(KeySize::Rsa2048), generate(KeySize::Rsa2048));
    let Some(key) = batch_key(&pair) else { return };
    assert!(key.agrees_with(&pair.reference, &random()));
    assert!(!key.agrees_with(&other.reference, &random()));
}

#[test]
fn debug_shows_the_size_only() {
    let Some(key) = batch_key(&generate(KeySize::Rsa2048)) else { return };
    assert_eq!(format!("{key:?}"), "BatchKey { bits: 2048, .. }");
}

#[test]
fn refuses_what_it_cannot_sign_with() {
    assert!(BatchKey::new(b"").is_none());
    let pair = generate(KeySize::Rsa2048);
    assert!(BatchKey::new(&pair.document[..pair.document.len() - 1]).is_none());
    // One bit of the modulus, which begins behind the headers: p q is another number then.
    let mut broken = pair.document;
    broken[100] ^= 1;
    assert!(BatchKey::new(&broken).is_none());
}

#[cfg(target_arch = "x86_64")]
mod faults {
    use super::*;
    use crate::signing::crt::fault::Place;
    use crate::signing::crt::fault::armed::{FAULT, Fault};

    /// Flips one bit of every limb in turn, in a lane and a bit that change with it, and sees whether
    /// that lane is refused and the others are right.
    fn strike(place: Place, passes: usize, limbs: usize, every: usize) {
        let pair = generate(KeySize::Rsa2048);
        let Some(key) = batch_key(&pair) else { return };
        let messages: [[u8; 1]; BATCH] = std::array::from_fn(|lane| [lane as u8]);
        let expected = messages.map(|message| by_ring(&pair, &message));
        for pass in 0..passes {
            for limb in (0..limbs).step_by(every) {
                let (lane, bit) = ((limb + pass) % BATCH, (limb * 11 + pass * 5) as u32 % 52);
                FAULT.set(Some(Fault { place, pass, limb, lane, bit }));
                let mut signatures = [[1; MAX_SIGNATURE_BYTES]; BATCH];
                let passed =
                    key.sign(&messages.each_ref().map(|message| &message[..]), &mut signatures);
                assert!(FAULT.get().is_none(), "{place:?} was not passed");
                for other in 0..BATCH {
                    assert_eq!(passed[other], other != lane, "{place:?} {pass} {limb} {bit}");
                    let expected =
                        if other == lane { [0; MAX_SIGNATURE_BYTES] } else { expected[other] };
                    assert_eq!(signatures[other], expected);
                }
            }
        }
    }

    // The places are passed once for p and once for q, or once in all.

    #[test]
    fn in_a_residue() {
        strike(Place::Residue, 2, 20, 1);
    }

    #[test]
    fn in_a_table() {
        // An exponent of 256 digits leaves out one of the 16 entries once in a million keys.
        strike(Place::Table, 2, 16 * 20, setting("GRANTD_BATCH_TABLE_STEP", 31));
    }

    #[test]
    fn in_a_half() {
        strike(Place::Half, 2, 20, 1);
    }

    #[test]
    fn in_the_recombination() {
        strike(Place::Quotient, 1, 20, 1);
    }

    #[test]
    fn in_the_signature() {
        strike(Place::Signature, 1, 40, 1);
    }
}
