//! The comparison with ring can be scaled: `RSA_X8_KEYS` keys of each size sign `RSA_X8_MESSAGES`
//! messages each. ring also signs the first `RSA_X8_EQUAL` messages of each key, and both
//! signatures must be equal. ring does not sign the other messages, but verifies their signatures.
//! The verification is as strict as a comparison: ring accepts only signatures below the modulus,
//! and for each message only one number below the modulus is a valid signature.

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

/// Returns the batch key of `pair`. Asserts that it is `None` if and only if the CPU is not
/// supported.
fn batch_key(pair: &Pair) -> Option<BatchKey> {
    let key = BatchKey::from_pkcs8(&pair.document);
    #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
    let able = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512ifma");
    #[cfg(not(all(target_arch = "x86_64", not(feature = "portable"))))]
    let able = cfg!(feature = "portable");
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
    let (messages, equal) = (setting("RSA_X8_MESSAGES", 16), setting("RSA_X8_EQUAL", 16));
    for _ in 0..setting("RSA_X8_KEYS", 3) {
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
fn signs_as_many_messages_as_it_is_given() {
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
fn self_test_refuses_another_key() {
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
    assert!(BatchKey::from_pkcs8(b"").is_none());
    let pair = generate(KeySize::Rsa2048);
    assert!(BatchKey::from_pkcs8(&pair.document[..pair.document.len() - 1]).is_none());
    // Byte 100 comes after the headers, so it belongs to the modulus. Flip one bit of it, so that
    // the modulus differs from `p q`.
    let mut broken = pair.document;
    broken[100] ^= 1;
    assert!(BatchKey::from_pkcs8(&broken).is_none());
}

#[cfg(any(target_arch = "x86_64", feature = "portable"))]
mod faults;
