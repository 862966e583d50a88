//! The RSA private operation on eight numbers at once: `m^d mod n` by the Chinese remainder theorem
//! (RFC 8017, section 5.1.2), checked with the public exponent.
//!
//! # What the check catches
//!
//! Whoever sees one signature that is right modulo `p` and wrong modulo `q` computes
//! `gcd(s^e - m, n) = p` (Boneh, DeMillo and Lipton, "On the importance of checking cryptographic
//! protocols for faults", 1997). So `s^e` is formed from the very limbs that leave, after the
//! recombination, and compared with the message's limbs as they came in: modulo `p` and modulo `q`,
//! which says the same as modulo `n = p q` and takes half the multiplications. As `s < n` and raising
//! to `e` permutes the residues, equality means that `s` is the one right signature, whatever happened
//! before: a fault in a residue, a table, an exponent, a half or the recombination, or in what the key
//! signs with, can only make a lane fail. The check has primes of its own for that, copied when the
//! key was held against `n`, and takes the message's residues anew. (A fault before that copy is found
//! when the key's first batches are compared with ring's.)
//!
//! # What is wiped
//!
//! Whatever a batch keeps for longer than one product: moduli, tables, powers, halves, and what the
//! recombination makes of them. The scratch of a single product is left to the next one.

use std::arch::x86_64::{
    _mm256_extract_epi64, _mm512_and_si512, _mm512_castsi512_si256, _mm512_extracti64x4_epi64,
    _mm512_set_epi64, _mm512_set1_epi64, _mm512_setzero_si512,
};

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::signing::mont52::{
    Lanes, Modulus, Table, WINDOW_BITS, broadcast, equal, multiply_add, select,
};
use crate::signing::radix52::{LIMB_MASK, ModulusLimbs};

/// Numbers worked on at once.
pub(super) const LANES: usize = 8;

/// One prime with what belongs to it, in limbs of 52 bits.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct Prime<const L: usize> {
    pub(super) modulus: ModulusLimbs<L>,
    /// The same, for the check alone.
    pub(super) check: ModulusLimbs<L>,
    /// `d mod (prime - 1)`.
    pub(super) exponent: [u64; L],
    /// Bits of the prime, and so at most of the exponent.
    pub(super) bits: usize,
}

/// A private key of two primes of `L` limbs.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct PrivateKey<const L: usize> {
    pub(super) p: Prime<L>,
    pub(super) q: Prime<L>,
    /// `1/q mod p`.
    pub(super) q_inverse: [u64; L],
    pub(super) e: u64,
}

impl<const L: usize> PrivateKey<L> {
    /// The signature representatives of `messages`, numbers of `D = 2 L` limbs below `n`, and the lanes
    /// in which the check passed, one bit each. What stands in the other lanes must not leave.
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn sign<const D: usize>(
        &self,
        messages: &[[u64; D]; LANES],
    ) -> ([[u64; D]; LANES], u8) {
        let message = gather(messages);
        let mut halves = [[_mm512_setzero_si512(); L]; 2];
        for (prime, half) in [&self.p, &self.q].into_iter().zip(&mut halves) {
            power(prime, &message, half);
        }
        let signature = self.recombine(&halves);
        halves.zeroize();
        let passed = [&self.p, &self.q]
            .into_iter()
            .fold(u8::MAX, |passed, prime| passed & check(prime, self.e, &signature, &message));
        (scatter(&signature), passed)
    }

    /// Garner's recombination, `s = sq + q ((sp - sq) / q mod p)`, below `n`.
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn recombine<const D: usize>(&self, halves: &[[Lanes; L]; 2]) -> [Lanes; D] {
        let [sp, sq] = halves;
        let p = Modulus::new(&self.p.modulus);
        // Both primes have the same length, so sq < q < 2 p, and the difference is below 3 p.
        let mut difference = p.difference(sp, sq);
        let mut inverse = p.enter(&broadcast(&self.q_inverse));
        let mut q = broadcast(&self.q.modulus.n);
        let mut quotient = p.canonical(&p.product(&difference, &inverse));
        fault::strike(fault::Place::Quotient, &mut quotient);
        let mut signature = multiply_add(&quotient, &q, sq);
        fault::strike(fault::Place::Signature, &mut signature);
        for secret in [&mut difference, &mut inverse, &mut q, &mut quotient] {
            secret.zeroize();
        }
        signature
    }
}

/// Leaves `message^exponent mod prime` in `power`, below the prime.
///
/// Windows of fixed width from the top: the same squarings, products and table reads for every
/// exponent of the prime's length. One prime after the other: the tables of both (each of 20 KiB for
/// primes of 1024 bits) would fill the first-level cache, and a square's first multiplications begin
/// while the last carries of the one before run anyway.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline(never)]
fn power<const L: usize, const D: usize>(
    prime: &Prime<L>,
    message: &[Lanes; D],
    power: &mut [Lanes; L],
) {
    let zero = [_mm512_setzero_si512(); L];
    let modulus = Modulus::new(&prime.modulus);
    let mut table: Table<L> = [zero; _];
    fill(&mut table, &modulus, message);
    let windows = prime.bits.div_ceil(WINDOW_BITS);
    let mut factor = zero;
    select(&table, digit(&prime.exponent, windows - 1), power);
    for window in (0..windows - 1).rev() {
        modulus.square_and_choose(power, &table, digit(&prime.exponent, window), &mut factor);
        modulus.multiply(power, &factor);
    }
    let mut left = modulus.leave(power);
    *power = modulus.canonical(&left);
    table.zeroize();
    factor.zeroize();
    left.zeroize();
    fault::strike(fault::Place::Half, power);
}

/// The powers of `message` from 0 on, in the Montgomery domain.
#[target_feature(enable = "avx512f,avx512ifma")]
fn fill<const L: usize, const D: usize>(
    table: &mut Table<L>,
    modulus: &Modulus<L>,
    message: &[Lanes; D],
) {
    let mut base = enter(modulus, message);
    fault::strike(fault::Place::Residue, &mut base);
    table[0] = modulus.one();
    table[1] = base;
    for i in 2..table.len() {
        if i % 2 == 0 {
            table[i] = table[i / 2];
            modulus.square(&mut table[i]);
        } else {
            table[i] = modulus.product(&table[i - 1], &base);
        }
    }
    base.zeroize();
    fault::strike(fault::Place::Table, table.as_flattened_mut());
}

/// The lanes in which `signature^e` and `message` are the same modulo the prime.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline(never)]
fn check<const L: usize, const D: usize>(
    prime: &Prime<L>,
    e: u64,
    signature: &[Lanes; D],
    message: &[Lanes; D],
) -> u8 {
    let modulus = Modulus::new(&prime.check);
    let mut base = enter(&modulus, signature);
    let mut power = base;
    for bit in (0..e.ilog2()).rev() {
        modulus.square(&mut power);
        if e >> bit & 1 == 1 {
            modulus.multiply(&mut power, &base);
        }
    }
    power = modulus.canonical(&power);
    let mut expected = enter(&modulus, message);
    // Below 6 times the prime, so that out of the Montgomery domain it is at most the prime: just that
    // where all is well.
    let mut difference = modulus.difference(&expected, &power);
    let mut left = modulus.leave(&difference);
    let equal = equal(&modulus.canonical(&left), &[_mm512_setzero_si512(); L]);
    for secret in [&mut base, &mut power, &mut expected, &mut difference, &mut left] {
        secret.zeroize();
    }
    equal
}

/// The residue of a number of `D = 2 L` limbs, in the Montgomery domain, below four times the modulus.
#[target_feature(enable = "avx512f,avx512ifma")]
fn enter<const L: usize, const D: usize>(modulus: &Modulus<L>, number: &[Lanes; D]) -> [Lanes; L] {
    let (mut low, mut high) = ([_mm512_setzero_si512(); L], [_mm512_setzero_si512(); L]);
    low.copy_from_slice(&number[..L]);
    high.copy_from_slice(&number[L..]);
    modulus.enter_wide(&low, &high)
}

/// Window number `window` of an exponent, counted from the least significant.
fn digit<const L: usize>(exponent: &[u64; L], window: usize) -> u64 {
    let (limb, shift) = (window * WINDOW_BITS / 52, window * WINDOW_BITS % 52);
    let high = exponent.get(limb + 1).copied().unwrap_or_default();
    (exponent[limb] >> shift | high << (52 - shift)) & ((1 << WINDOW_BITS) - 1)
}

/// Eight numbers into lanes.
#[target_feature(enable = "avx512f,avx512ifma")]
fn gather<const D: usize>(numbers: &[[u64; D]; LANES]) -> [Lanes; D] {
    let mut lanes = [_mm512_setzero_si512(); D];
    for (i, lanes) in lanes.iter_mut().enumerate() {
        let [a, b, c, d, e, f, g, h] = numbers.map(|number| number[i] as i64);
        *lanes = _mm512_set_epi64(h, g, f, e, d, c, b, a);
    }
    lanes
}

/// Eight numbers out of lanes: 52 bits of each limb, which is what the check has read.
#[target_feature(enable = "avx512f,avx512ifma")]
fn scatter<const D: usize>(lanes: &[Lanes; D]) -> [[u64; D]; LANES] {
    let (mut numbers, mask) = ([[0; D]; LANES], _mm512_set1_epi64(LIMB_MASK as i64));
    for (i, lanes) in lanes.iter().enumerate() {
        let lanes = _mm512_and_si512(*lanes, mask);
        let halves = [_mm512_castsi512_si256(lanes), _mm512_extracti64x4_epi64::<1>(lanes)];
        for (half, numbers) in halves.into_iter().zip(numbers.chunks_exact_mut(4)) {
            numbers[0][i] = _mm256_extract_epi64::<0>(half) as u64;
            numbers[1][i] = _mm256_extract_epi64::<1>(half) as u64;
            numbers[2][i] = _mm256_extract_epi64::<2>(half) as u64;
            numbers[3][i] = _mm256_extract_epi64::<3>(half) as u64;
        }
    }
    numbers
}

/// Bits that tests flip on the way.
pub(super) mod fault {
    use crate::signing::mont52::Lanes;

    /// Where a number passes by.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(in crate::signing) enum Place {
        Residue,
        Table,
        Half,
        Quotient,
        Signature,
    }

    #[cfg(not(test))]
    #[inline(always)]
    pub(super) fn strike(_place: Place, _number: &mut [Lanes]) {}

    #[cfg(test)]
    pub(super) use armed::strike;

    #[cfg(test)]
    pub(in crate::signing) mod armed {
        use std::arch::x86_64::{_mm512_set_epi64, _mm512_xor_si512};
        use std::cell::Cell;

        use super::{Lanes, Place};

        /// Flips `bit` of limb `limb` in `lane` when the number passes `place` for the `pass`th time,
        /// counted from 0.
        #[derive(Clone, Copy, Debug)]
        pub(in crate::signing) struct Fault {
            pub(in crate::signing) place: Place,
            pub(in crate::signing) pass: usize,
            pub(in crate::signing) limb: usize,
            pub(in crate::signing) lane: usize,
            pub(in crate::signing) bit: u32,
        }

        thread_local! {
            pub(in crate::signing) static FAULT: Cell<Option<Fault>> = const { Cell::new(None) };
        }

        #[target_feature(enable = "avx512f,avx512ifma")]
        pub(in crate::signing) fn strike(place: Place, number: &mut [Lanes]) {
            let Some(fault) = FAULT.get().filter(|fault| fault.place == place) else { return };
            if fault.pass > 0 {
                FAULT.set(Some(Fault { pass: fault.pass - 1, ..fault }));
                return;
            }
            FAULT.set(None);
            let mut flip = [0; 8];
            flip[fault.lane] = 1 << fault.bit;
            let [a, b, c, d, e, f, g, h] = flip;
            let limb = &mut number[fault.limb];
            *limb = _mm512_xor_si512(*limb, _mm512_set_epi64(h, g, f, e, d, c, b, a));
        }
    }
}

#[cfg(test)]
mod tests;
