//! Checks that no branch and no address depends on the key when a batch is signed. Run it by
//! `tests/constant-time`: alone, without valgrind's memcheck, it checks nothing.
//!
//! ```text
//! memcheck generate KEY    writes a new RSA-2048 key
//! memcheck sign KEY        prepares and signs with the key, its secrets marked as undefined
//! memcheck branch KEY      branches on such a secret: memcheck must complain
//! memcheck index KEY       reads a table at such a secret: memcheck must complain
//! ```
//!
//! memcheck follows undefined bits through all computation, and complains when a branch or an address
//! depends on one. With the secrets marked as undefined, that is a check of constant time (Langley,
//! "ctgrind", 2010). memcheck knows no AVX-512, so the crate's feature `portable` is required.

use std::error::Error;
use std::fs;
use std::hint::black_box;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use rsa_x8::marked::{MarkedKey, WHOLE};

mod requests;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [task, file] = &arguments[..] else {
        return Err("usage: memcheck generate|sign|branch|index KEY".into());
    };
    if task == "generate" {
        let document = KeyPair::generate(KeySize::Rsa2048)?.as_der()?;
        return Ok(fs::write(file, document.as_ref())?);
    }
    if !requests::is_running() {
        return Err("nothing is checked without memcheck: run tests/constant-time".into());
    }
    let Some(key) = MarkedKey::new(&fs::read(file)?, requests::mark) else {
        return Err(format!("{file} holds no RSA-2048 key: make one with `generate`").into());
    };
    match &**task {
        "sign" => return sign(&key),
        "branch" => branch(&key),
        "index" => index(&key),
        _ => return Err(format!("{task}: no such task").into()),
    }
    Ok(())
}

/// Signs a batch. The signatures are public, and so is which of them passed the check.
fn sign(key: &MarkedKey) -> Result<(), Box<dyn Error>> {
    let messages: [[u64; WHOLE]; _] = std::array::from_fn(|lane| {
        std::array::from_fn(|limb| {
            let limb = if limb + 1 < WHOLE { limb as u64 } else { 0 };
            limb.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(lane as u32) >> 12
        })
    });
    let (mut signatures, passed) = key.sign(black_box(&messages));
    let mut passed = [passed];
    let limbs = signatures.as_flattened();
    let unmarked = limbs.iter().filter(|limb| requests::is_wholly_defined(limb)).count();
    if unmarked > 0 || requests::is_wholly_defined(&u64::from(passed[0])) {
        return Err(format!(
            "memcheck lost track of the key: {unmarked} of {} limbs of the signatures are unmarked",
            limbs.len()
        )
        .into());
    }
    requests::unmark(signatures.as_flattened_mut());
    requests::unmark(&mut passed);
    if passed != [u8::MAX] || black_box(signatures)[0] == messages[0] {
        return Err(format!("signatures passed: {:08b}, not all eight", passed[0]).into());
    }
    Ok(())
}

/// An exponentiation that skips products by one.
#[inline(never)]
fn branch(key: &MarkedKey) {
    let mut products = 0;
    for limb in key.exponent() {
        if limb & 15 != 0 {
            products = black_box(products + 1);
        }
    }
}

/// A table look-up that reads only the chosen entry.
#[inline(never)]
fn index(key: &MarkedKey) {
    let table: [u64; 16] = black_box(std::array::from_fn(|entry| entry as u64));
    for limb in key.exponent() {
        black_box(table[(limb & 15) as usize]);
    }
}
