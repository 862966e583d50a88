//! The RSA private operation on eight numbers at once: `m^d mod n` by the Chinese remainder theorem
//! (RFC 8017, section 5.1.2), checked with the public exponent.
//!
//! # What the check catches
//!
//! A signature `s` that is right modulo `q` and wrong modulo `p` gives the key away:
//! `gcd(s^e - m, n) = q` (Boneh, DeMillo and Lipton 1997; see the README). So the check raises the
//! recombined signature to the power `e` and compares the result with the message, modulo `p` and
//! modulo `q`. This is equivalent to a check modulo `n = p q` and takes half the multiplications.
//! The check reads the same limbs that are returned, and the original message. Raising to `e`
//! permutes the residues modulo `n`, and `s < n`, so only the one right signature passes.
//!
//! Therefore a fault in a residue, a table, an exponent, a half (`sp` or `sq`, the signature modulo
//! `p` or `q`), the recombination or the key can only make lanes fail. If signing and the check
//! used the same copy of a prime, a fault in that copy could pass. So the check has its own copy of
//! each prime, made before the key was compared with `n`. [`BatchKey::agrees_with`] finds faults
//! that happened before the copy was made.
//!
//! # What is wiped
//!
//! All secrets that outlive a single product are wiped: moduli, tables, powers, halves, and the
//! intermediate numbers of the recombination and the check. The scratch memory of a product is not
//! wiped, because the next product overwrites it.
//!
//! [`BatchKey::agrees_with`]: crate::BatchKey::agrees_with

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::lanes::{self, Lanes, Supported};
use crate::montgomery::{Modulus, Table, WINDOW_BITS, broadcast, equal, multiply_add, select};
use crate::radix52::{LIMB_MASK, ModulusLimbs};
use crate::{BATCH, fault};

/// One prime with the numbers that belong to it, in limbs of 52 bits.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct Prime<const L: usize> {
    pub(crate) modulus: ModulusLimbs<L>,
    /// A copy of `modulus` that only the check uses.
    pub(crate) check: ModulusLimbs<L>,
    /// `d mod (prime - 1)`.
    pub(crate) exponent: [u64; L],
    /// The number of bits of the prime. The exponent does not have more bits than the prime.
    pub(crate) bits: usize,
}

impl<const L: usize> Prime<L> {
    pub(crate) fn new(prime: [u64; L], exponent: [u64; L], bits: usize) -> Self {
        let modulus = ModulusLimbs::new(prime);
        Self { check: modulus.clone(), modulus, exponent, bits }
    }
}

/// A private key with two primes of `L` limbs.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct PrivateKey<const L: usize> {
    #[zeroize(skip)]
    _supported: Supported,
    pub(crate) p: Prime<L>,
    pub(crate) q: Prime<L>,
    /// `1/q mod p`.
    pub(crate) q_inverse: [u64; L],
    pub(crate) e: u64,
}

impl<const L: usize> PrivateKey<L> {
    pub(crate) fn new(
        supported: Supported,
        [p, q]: [Prime<L>; 2],
        q_inverse: [u64; L],
        e: u64,
    ) -> Self {
        Self { _supported: supported, p, q, q_inverse, e }
    }

    /// Returns the signatures of `messages`, and the lanes in which the check passed, one bit per
    /// lane. Each message is a number below `n`, in `D = 2 L` limbs. The caller must not disclose a
    /// signature whose lane failed the check.
    #[expect(unsafe_code, reason = "code for a CPU that has more than the compilation target")]
    #[cfg_attr(
        feature = "portable",
        expect(unused_unsafe, reason = "plain code needs no special CPU")
    )]
    pub(crate) fn sign<const D: usize>(
        &self,
        messages: &[[u64; D]; BATCH],
    ) -> ([[u64; D]; BATCH], u8) {
        // SAFETY: `sign_lanes` is safe on a CPU with AVX-512 F and IFMA. `_supported` proves that
        // this CPU has both.
        unsafe { self.sign_lanes(messages) }
    }

    #[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
    fn sign_lanes<const D: usize>(&self, messages: &[[u64; D]; BATCH]) -> ([[u64; D]; BATCH], u8) {
        let message = gather(messages);
        let mut halves = [[lanes::zero(); L]; 2];
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

    /// Garner's recombination, `s = sq + q ((sp - sq) / q mod p)`. The result is below `n`.
    #[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
    fn recombine<const D: usize>(&self, halves: &[[Lanes; L]; 2]) -> [Lanes; D] {
        let [sp, sq] = halves;
        let p = Modulus::new(&self.p.modulus);
        // Both primes have the same length, so sq < q < 2 p, and the difference is below 3 p.
        let mut difference = p.difference(sp, sq);
        let mut inverse = p.enter(&broadcast(&self.q_inverse));
        let mut q = broadcast(&self.q.modulus.n);
        let mut quotient = p.canonical(&p.product(&difference, &inverse));
        fault::inject(fault::Place::Quotient, &mut quotient);
        let mut signature = multiply_add(&quotient, &q, sq);
        fault::inject(fault::Place::Signature, &mut signature);
        for secret in [&mut difference, &mut inverse, &mut q, &mut quotient] {
            secret.zeroize();
        }
        signature
    }
}

/// Sets `power` to `message^exponent mod prime`, below the prime.
///
/// The exponent is read in windows of fixed width, beginning with the most significant. So all
/// exponents of the same length need the same squares, products and table reads. The primes are
/// processed one after the other and not interleaved: with interleaving, the tables of both primes
/// (20 KiB each for primes of 1024 bits) would fill the first-level cache. Even without
/// interleaving, the processor overlaps the last carries of a square with the first multiplications
/// of the next square.
#[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
#[inline(never)]
fn power<const L: usize, const D: usize>(
    prime: &Prime<L>,
    message: &[Lanes; D],
    power: &mut [Lanes; L],
) {
    let zero = [lanes::zero(); L];
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
    fault::inject(fault::Place::Half, power);
}

/// Fills `table` with the powers of `message` in the Montgomery domain, beginning with power 0.
#[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
fn fill<const L: usize, const D: usize>(
    table: &mut Table<L>,
    modulus: &Modulus<L>,
    message: &[Lanes; D],
) {
    let mut base = enter(modulus, message);
    fault::inject(fault::Place::Residue, &mut base);
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
    fault::inject(fault::Place::Table, table.as_flattened_mut());
}

/// Returns the lanes in which `signature^e` and `message` are equal modulo the prime, one bit per
/// lane.
#[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
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
    // `difference` is below 6 times the prime, so `left` is at most the prime. If `expected` and
    // `power` are equal modulo the prime, `left` is 0 or the prime, and `canonical` reduces both
    // values to 0.
    let mut difference = modulus.difference(&expected, &power);
    let mut left = modulus.leave(&difference);
    let equal = equal(&modulus.canonical(&left), &[lanes::zero(); L]);
    for secret in [&mut base, &mut power, &mut expected, &mut difference, &mut left] {
        secret.zeroize();
    }
    equal
}

/// Returns the residue of `number`, which has `D = 2 L` limbs, in the Montgomery domain. The result
/// is below four times the modulus.
#[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
fn enter<const L: usize, const D: usize>(modulus: &Modulus<L>, number: &[Lanes; D]) -> [Lanes; L] {
    let (mut low, mut high) = ([lanes::zero(); L], [lanes::zero(); L]);
    low.copy_from_slice(&number[..L]);
    high.copy_from_slice(&number[L..]);
    modulus.enter_wide(&low, &high)
}

/// Returns window number `window` of an exponent. Window 0 is the least significant.
fn digit<const L: usize>(exponent: &[u64; L], window: usize) -> u64 {
    let (limb, shift) = (window * WINDOW_BITS / 52, window * WINDOW_BITS % 52);
    let high = exponent.get(limb + 1).copied().unwrap_or_default();
    (exponent[limb] >> shift | high << (52 - shift)) & ((1 << WINDOW_BITS) - 1)
}

/// Copies eight numbers into the lanes of vectors.
#[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
fn gather<const D: usize>(numbers: &[[u64; D]; BATCH]) -> [Lanes; D] {
    let mut lanes = [lanes::zero(); D];
    for (i, lanes) in lanes.iter_mut().enumerate() {
        *lanes = lanes::from_array(numbers.map(|number| number[i]));
    }
    lanes
}

/// Copies eight numbers out of the lanes of vectors. Of each limb, copies only the low 52 bits,
/// which are the bits that the check has read.
#[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
fn scatter<const D: usize>(lanes: &[Lanes; D]) -> [[u64; D]; BATCH] {
    let (mut numbers, mask) = ([[0; D]; BATCH], lanes::splat(LIMB_MASK as i64));
    for (i, lanes) in lanes.iter().enumerate() {
        let limbs = lanes::to_array(lanes::and(*lanes, mask));
        for (number, limb) in numbers.iter_mut().zip(limbs) {
            number[i] = limb;
        }
    }
    numbers
}

#[cfg(test)]
mod tests;
