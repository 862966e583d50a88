//! Single numbers in limbs of 52 bits, the least significant limb first. Keys are stored in this
//! form, and so are messages and signatures while they are not in vectors.

use std::hint::black_box;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// The number of bits in a limb.
pub(crate) const LIMB_BITS: u32 = 52;

/// The largest limb.
pub(crate) const LIMB_MASK: u64 = (1 << LIMB_BITS) - 1;

/// A modulus with the constants of Montgomery reduction, where `R = 2^(52 L)`.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct ModulusLimbs<const L: usize> {
    pub(crate) n: [u64; L],
    /// `-1/n mod 2^52`.
    pub(crate) k0: u64,
    /// `R^2 mod n`.
    pub(crate) r2: [u64; L],
    /// `R^3 mod n`.
    pub(crate) r3: [u64; L],
}

impl<const L: usize> ModulusLimbs<L> {
    /// Prepares an odd modulus above 1, in constant time.
    pub(crate) fn new(n: [u64; L]) -> Self {
        // Newton's iteration: n is its own inverse mod 2^3, and every step doubles the correct
        // bits.
        let mut inverse = n[0];
        for _ in 0..5 {
            inverse = inverse.wrapping_mul(2u64.wrapping_sub(n[0].wrapping_mul(inverse)));
        }
        let mut power = [0; L];
        power[0] = 1;
        let mut r2 = power;
        for step in 1..=3 * L * LIMB_BITS as usize {
            double(&mut power, &n);
            if step == 2 * L * LIMB_BITS as usize {
                r2 = power;
            }
        }
        Self { n, k0: inverse.wrapping_neg() & LIMB_MASK, r2, r3: power }
    }
}

/// `x = 2 x mod n`, for `x < n`.
pub(crate) fn double<const L: usize>(x: &mut [u64; L], n: &[u64; L]) {
    let mut doubled = [0; L];
    let mut reduced = [0; L];
    let (mut carry, mut borrow) = (0, 0);
    for i in 0..L {
        doubled[i] = (x[i] << 1 | carry) & LIMB_MASK;
        carry = x[i] >> (LIMB_BITS - 1);
        let difference = doubled[i].wrapping_sub(n[i]).wrapping_sub(borrow);
        reduced[i] = difference & LIMB_MASK;
        borrow = difference >> 63;
    }
    // All ones if `2 x < n`: then the subtraction has a borrow, and the doubling has no carry that
    // cancels this borrow. `black_box` hides the value. Otherwise the compiler could see that only
    // two values are possible, and could branch on a secret.
    let keep = black_box((borrow & (carry ^ 1)).wrapping_neg());
    for i in 0..L {
        x[i] = (doubled[i] & keep) | (reduced[i] & !keep);
    }
}

/// `a * b`, in `D = 2 L` limbs.
pub(crate) fn product<const L: usize, const D: usize>(a: &[u64; L], b: &[u64; L]) -> [u64; D] {
    let mut product = [0; D];
    for (i, a) in a.iter().enumerate() {
        let mut carry = 0;
        for (j, b) in b.iter().enumerate() {
            let sum = u128::from(*a) * u128::from(*b) + u128::from(product[i + j]) + carry;
            product[i + j] = sum as u64 & LIMB_MASK;
            carry = sum >> LIMB_BITS;
        }
        product[i + L] = carry as u64;
    }
    product
}

/// Reads a big-endian number that fits into `L` limbs.
pub(crate) fn from_be_bytes<const L: usize>(bytes: &[u8]) -> [u64; L] {
    std::array::from_fn(|limb| {
        let bit = limb * LIMB_BITS as usize;
        // A limb begins at bit 0 or 4 of a byte, so eight bytes contain the whole limb.
        let rest = &bytes[..bytes.len().saturating_sub(bit / 8)];
        let window = match rest.last_chunk() {
            Some(window) => u64::from_be_bytes(*window),
            None => rest.iter().fold(0, |window, byte| window << 8 | u64::from(*byte)),
        };
        window >> (bit % 8) & LIMB_MASK
    })
}

/// Fills `bytes` with the number in big-endian order. All limbs must be below 2^52. The most
/// significant bits are dropped if they do not fit.
pub(crate) fn to_be_bytes(limbs: &[u64], bytes: &mut [u8]) {
    for (place, bytes) in bytes.rchunks_mut(8).enumerate() {
        let (first, shift) = (place * 64 / LIMB_BITS as usize, place as u32 * 64 % LIMB_BITS);
        let limb = |i| limbs.get(first + i).copied().unwrap_or_default();
        // If `shift` is above 40, the 64 bits span three limbs.
        let third = limb(2).checked_shl(2 * LIMB_BITS - shift).unwrap_or_default();
        let word = limb(0) >> shift | limb(1) << (LIMB_BITS - shift) | third;
        bytes.copy_from_slice(&word.to_be_bytes()[8 - bytes.len()..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_limbs() {
        let bytes: Vec<u8> = (1..=256u16).map(|byte| (byte * 37) as u8).collect();
        let limbs = from_be_bytes::<40>(&bytes);
        assert!(limbs.iter().all(|limb| *limb <= LIMB_MASK));
        let mut back = vec![0; 256];
        to_be_bytes(&limbs, &mut back);
        assert_eq!(back, bytes);
        for length in 0..=40 {
            let limbs = from_be_bytes::<7>(&bytes[..length]);
            let mut back = [1; 45];
            to_be_bytes(&limbs, &mut back);
            assert_eq!(
                (&back[..45 - length], &back[45 - length..]),
                (&[0; 45][length..], &bytes[..length])
            );
        }
        // The most significant bits do not fit and are dropped.
        let mut back = [0; 5];
        to_be_bytes(&limbs, &mut back);
        assert_eq!(back, bytes[251..]);
    }

    #[test]
    fn powers_of_two_are_reduced() {
        let n = (1u128 << 103) + 12_345;
        let limbs = [n as u64 & LIMB_MASK, (n >> LIMB_BITS) as u64];
        let modulus = ModulusLimbs::new(limbs);
        assert_eq!(modulus.n[0].wrapping_mul(modulus.k0).wrapping_add(1) & LIMB_MASK, 0);
        let mut expected = 1u128;
        for _ in 0..208 {
            expected = expected * 2 % n;
        }
        assert_eq!(modulus.r2, [expected as u64 & LIMB_MASK, (expected >> LIMB_BITS) as u64]);
        for _ in 0..104 {
            expected = expected * 2 % n;
        }
        assert_eq!(modulus.r3, [expected as u64 & LIMB_MASK, (expected >> LIMB_BITS) as u64]);
    }
}
