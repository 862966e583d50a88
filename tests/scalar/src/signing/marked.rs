//! A key whose secrets memcheck takes for undefined, and what is done with it.

use std::error::Error;
use std::hint::black_box;

use super::batch::ifma::Key;
use super::crt::{Prime, PrivateKey};
use super::radix52::{ModulusLimbs, from_be_bytes, to_be_bytes};
use crate::memcheck;

/// Limbs of a prime and of the modulus of an RSA-2048 key.
const HALF: usize = 20;
const WHOLE: usize = 40;
const PRIME_BYTES: usize = 128;

/// Prepares the key and signs a batch, all of it from marked numbers. What comes out may be known.
pub(crate) fn sign(document: &[u8]) -> Result<(), Box<dyn Error>> {
    let key = key(document)?;
    let messages: [[u64; WHOLE]; _] = std::array::from_fn(|lane| {
        std::array::from_fn(|limb| {
            let limb = if limb + 1 < WHOLE { limb as u64 } else { 0 };
            limb.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(lane as u32) >> 12
        })
    });
    let (mut signatures, passed) = key.sign(black_box(&messages));
    let mut passed = [passed];
    let limbs = signatures.as_flattened();
    let untouched = limbs.iter().filter(|limb| memcheck::is_wholly_defined(limb)).count();
    if untouched > 0 || memcheck::is_wholly_defined(&u64::from(passed[0])) {
        return Err(format!(
            "{untouched} of {} limbs do not stem from the key for memcheck, so it followed nothing",
            limbs.len()
        )
        .into());
    }
    memcheck::unmark(signatures.as_flattened_mut());
    memcheck::unmark(&mut passed);
    if passed != [u8::MAX] || black_box(signatures)[0] == messages[0] {
        return Err(format!("signatures passed: {:08b}, not all eight", passed[0]).into());
    }
    Ok(())
}

/// An exponentiation that leaves out products by one, as the first thing one would think of.
#[inline(never)]
pub(crate) fn branch(document: &[u8]) -> Result<(), Box<dyn Error>> {
    let key = key(document)?;
    let mut products = 0;
    for limb in key.p.exponent {
        if limb & 15 != 0 {
            products = black_box(products + 1);
        }
    }
    Ok(())
}

/// A table that is read at the exponent's digit and nowhere else.
#[inline(never)]
pub(crate) fn index(document: &[u8]) -> Result<(), Box<dyn Error>> {
    let key = key(document)?;
    let table: [u64; 16] = black_box(std::array::from_fn(|entry| entry as u64));
    for limb in key.p.exponent {
        black_box(table[(limb & 15) as usize]);
    }
    Ok(())
}

/// The key of `document`, made again from its marked secrets: the primes, the exponents and the
/// inverse. What is derived from them is marked by memcheck.
///
/// Out of this check: how the document is parsed and its numbers are held against each other, once,
/// when a key is loaded.
fn key(document: &[u8]) -> Result<PrivateKey<HALF>, Box<dyn Error>> {
    let Some((Key::Rsa2048(key), _)) = Key::from_pkcs8(document) else {
        return Err("the file holds no RSA-2048 key: make one with `generate`".into());
    };
    Ok(PrivateKey {
        p: prime(&key.p),
        q: prime(&key.q),
        q_inverse: marked(&key.q_inverse),
        e: key.e,
    })
}

fn prime(known: &Prime<HALF>) -> Prime<HALF> {
    let modulus = ModulusLimbs::new(marked(&known.modulus.n));
    let exponent = marked(&known.exponent);
    Prime { check: modulus.clone(), modulus, exponent, bits: known.bits }
}

fn marked(known: &[u64; HALF]) -> [u64; HALF] {
    let mut bytes = [0; PRIME_BYTES];
    to_be_bytes(known, &mut bytes);
    memcheck::mark(&mut bytes);
    from_be_bytes(&bytes)
}
