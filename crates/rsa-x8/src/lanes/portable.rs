//! The vectors in plain code.
//!
//! The functions that compute are never inlined. So the compiler cannot optimize across their
//! calls, just as it cannot optimize across a vector instruction. No function has a branch or an
//! index that depends on the value of a lane. So every report of the memory checker is about the
//! code that uses the vectors, not about this file.

use std::hint::black_box;

use zeroize::DefaultIsZeroes;

use crate::BATCH;
use crate::radix52::{LIMB_BITS, LIMB_MASK};

/// Eight lanes of 64 bits, the lowest first.
#[derive(Clone, Copy, Default)]
pub(crate) struct Lanes([u64; BATCH]);

impl DefaultIsZeroes for Lanes {}

/// Plain code runs on every processor.
pub(super) fn is_supported() -> bool {
    true
}

/// Returns a vector of these lanes, given with the lowest first.
pub(crate) fn from_array(lanes: [u64; BATCH]) -> Lanes {
    Lanes(lanes)
}

/// Returns the lanes of a vector, the lowest first.
pub(crate) fn to_array(lanes: Lanes) -> [u64; BATCH] {
    lanes.0
}

/// Returns a vector with 0 in all lanes.
pub(crate) fn zero() -> Lanes {
    Lanes([0; BATCH])
}

/// Returns a vector with `lane` in all lanes.
pub(crate) fn splat(lane: i64) -> Lanes {
    Lanes([lane.cast_unsigned(); BATCH])
}

macro_rules! each_lane {
    ($($(#[$attribute:meta])* $name:ident($($operand:ident),+) $result:expr;)*) => { $(
        $(#[$attribute])*
        #[inline(never)]
        pub(crate) fn $name($($operand: Lanes),+) -> Lanes {
            Lanes(std::array::from_fn(|lane| {
                $( let $operand = $operand.0[lane]; )+
                $result
            }))
        }
    )* };
}

each_lane! {
    /// `a + b`, modulo 2^64.
    add(a, b) a.wrapping_add(b);
    /// `a - b`, modulo 2^64.
    subtract(a, b) a.wrapping_sub(b);
    /// `a & b`, bitwise.
    and(a, b) a & b;
    /// `sum` plus the low 52 bits of the product of the low 52 bits of `a` and of `b`.
    multiply_add_low(sum, a, b) sum.wrapping_add(product(a, b) as u64 & LIMB_MASK);
    /// `sum` plus the high 52 bits of the product of the low 52 bits of `a` and of `b`.
    multiply_add_high(sum, a, b) sum.wrapping_add((product(a, b) >> LIMB_BITS) as u64);
}

fn product(a: u64, b: u64) -> u128 {
    u128::from(a & LIMB_MASK) * u128::from(b & LIMB_MASK)
}

#[cfg(test)]
each_lane! {
    /// `a ^ b`, bitwise.
    xor(a, b) a ^ b;
}

/// Shifts each lane right by `BITS` bits. The new high bits are zeros.
#[inline(never)]
pub(crate) fn shift_right<const BITS: u32>(a: Lanes) -> Lanes {
    Lanes(a.0.map(|lane| lane >> BITS))
}

/// Shifts each lane right by `BITS` bits. The new high bits are copies of the sign bit.
#[inline(never)]
pub(crate) fn shift_right_signed<const BITS: u32>(a: Lanes) -> Lanes {
    Lanes(a.0.map(|lane| (lane.cast_signed() >> BITS).cast_unsigned()))
}

/// The lanes in which `a` equals `b`, one bit each.
#[inline(never)]
pub(crate) fn equal(a: Lanes, b: Lanes) -> u8 {
    mask(|lane| a.0[lane] == b.0[lane])
}

/// The lanes in which `a` is less than `b` as signed numbers, one bit each.
#[inline(never)]
pub(crate) fn less(a: Lanes, b: Lanes) -> u8 {
    mask(|lane| a.0[lane].cast_signed() < b.0[lane].cast_signed())
}

fn mask(is_set: impl Fn(usize) -> bool) -> u8 {
    (0..BATCH).fold(0, |mask, lane| mask | u8::from(is_set(lane)) << lane)
}

/// `a` in the lanes whose bit in `mask` is set, `otherwise` in the others.
#[inline(never)]
pub(crate) fn blend(otherwise: Lanes, mask: u8, a: Lanes) -> Lanes {
    Lanes(std::array::from_fn(|lane| {
        let keep = black_box(u64::from(mask >> lane & 1).wrapping_sub(1));
        (otherwise.0[lane] & keep) | (a.0[lane] & !keep)
    }))
}
