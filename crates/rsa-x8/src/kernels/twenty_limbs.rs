//! Kernels for 20 limbs, which compute nearly all of a 2048-bit signature. Their 40 columns need no
//! memory, because only about half of the columns are in use at the same time.

use std::cell::Cell;
use std::hint::black_box;

use crate::kernels::SharedLimb;
use crate::lanes::{self, Lanes};
use crate::radix52::{LIMB_BITS, LIMB_MASK};

/// Carries from each complete column into the next, and stores the columns as limbs of `$x`. This
/// overwrites the input `$x`. A product has read all of the input by then. A square still has to
/// read limbs 18 and 19 of the input, which are overwritten last.
macro_rules! carry_out {
    ($acc:ident, $carry:ident, $x:ident, $w:expr, $columns:tt) => {
        each!(C in $columns {
            let sum = lanes::add($acc[$w + C], $carry);
            $carry = lanes::shift_right::<LIMB_BITS>(sum);
            $x[C].set(sum);
        });
        end_pass!();
    };
}

/// `x = x * b / R mod n`.
#[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
#[inline(never)]
pub(crate) fn product_20(x: &[Cell<Lanes>; 20], b: &[Lanes; 20], n: &[SharedLimb; 20], k0: Lanes) {
    const W: usize = 20;
    let mut acc = [lanes::zero(); 2 * W];
    acc[..W].fill(lanes::splat(LIMB_MASK as i64));
    let mut m = [lanes::zero(); W];
    let mut carry = lanes::zero();
    macro_rules! bring {
        ($row:ident) => {};
    }
    macro_rules! finish {
        ($columns:tt) => {
            carry_out!(acc, carry, x, W, $columns)
        };
    }
    product_low!(acc, x, b, n, k0, m, W, [0 2 4 6 8 10 12 14 16 18], I, bring, finish);
    let _ = carry;
}

/// Doubles columns `2 * $limb` and `2 * $limb + 1`, then adds the square of limb `$limb` of `$x`.
macro_rules! double_and_square {
    ($acc:ident, $x:ident, $limb:expr) => {
        let limb = $x[$limb].get();
        let doubled = lanes::add($acc[2 * $limb], $acc[2 * $limb]);
        $acc[2 * $limb] = lanes::multiply_add_low(doubled, limb, limb);
        let doubled = lanes::add($acc[2 * $limb + 1], $acc[2 * $limb + 1]);
        $acc[2 * $limb + 1] = lanes::multiply_add_high(doubled, limb, limb);
    };
}

/// Adds the cross products of limb `$row + $k` that belong to columns `$row + 20` and `$row + 21`:
/// the high half with limb `19 - $k`, both halves with limb `20 - $k`, the low half with limb
/// `21 - $k`. The other halves belong to the previous or the next pair of columns.
macro_rules! cross_columns {
    ($acc:ident, $x:ident, $row:ident, [$($k:literal)*]) => {
        $(
            if $row + $k < 21 - $k {
                let digit = $x[$row + $k].get();
                if $row + $k < 19 - $k {
                    high!($acc[$row + 20], $x[19 - $k], digit);
                }
                if $k >= 1 && $row + $k < 20 - $k {
                    low!($acc[$row + 20], $x[20 - $k], digit);
                    high!($acc[$row + 21], $x[20 - $k], digit);
                }
                if $k >= 2 {
                    low!($acc[$row + 21], $x[21 - $k], digit);
                }
            }
        )*
        end_pass!();
    };
}

/// `x = x * x / R mod n`. A 2048-bit signature spends most of its time here.
///
/// The lower 20 columns of the cross products come first, in pairs of rows. The lowest six columns
/// are doubled as soon as they are complete, so that the reduction can begin early. The other
/// columns are doubled before the reduction reaches them. The cross products of the upper columns
/// are added in pairs of columns. Each pair of columns is added while the reduction computes the
/// first rows that add to these columns, between two passes of these rows. So no sum has to be kept
/// in memory.
///
/// The kernel also copies to `chosen` the entry of `entries` whose mask is all ones, if there is
/// one. The compiler turns each copy into a load and a masked store, which take no time from the
/// multipliers. Blending several entries before each store would save stores, but blends run on the
/// ports of the multipliers. The last copy is made before the middle of the reduction, so that the
/// stores have reached the cache when `chosen` is read.
#[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
#[inline(never)]
pub(crate) fn square_20<const N: usize>(
    x: &[Cell<Lanes>; 20],
    n: &[SharedLimb; 20],
    k0: Lanes,
    entries: &[[Lanes; 20]; N],
    masks: &[u8; N],
    chosen: &[Cell<Lanes>; 20],
) {
    const W: usize = 20;
    const { assert!(N <= 4, "each entry takes 5 of the 20 points before the middle of the reduction") };
    macro_rules! choose {
        ($point:expr) => {
            let (entry, first) = ($point / 5, $point % 5 * 4);
            if entry < N {
                each!(J in [0 1 2 3] {
                    let (limb, new) = (&chosen[first + J], entries[entry][first + J]);
                    limb.set(lanes::blend(limb.get(), masks[entry], new));
                });
                end_pass!();
            }
        };
    }
    let mut acc = [lanes::zero(); 2 * W];
    acc[..W].fill(lanes::splat(LIMB_MASK as i64));
    let mut m = [lanes::zero(); W];
    cross_pair!(acc, x, 0, W, W);
    // Column 0 has no cross products, so it is not doubled. It starts at twice the start value of
    // the other columns, plus 1. The other columns do not need this 1, because each receives a
    // carry that is 1 too large.
    acc[0] = lanes::splat((LIMB_MASK << 1 | 1) as i64);
    low!(acc[0], x[0], x[0].get());
    acc[1] = lanes::add(acc[1], acc[1]);
    high!(acc[1], x[0], x[0].get());
    double_and_square!(acc, x, 1);
    end_pass!();
    begin_reduction!(1, acc, n, k0, m, 0, W);
    cross_pair!(acc, x, 2, W, W);
    begin_reduction!(2, acc, n, k0, m, 0, W);
    cross_pair!(acc, x, 4, W, W);
    begin_reduction!(3, acc, n, k0, m, 0, W);
    double_and_square!(acc, x, 2);
    cross_pair!(acc, x, 6, W, W);
    begin_reduction!(4, acc, n, k0, m, 0, W);
    cross_pair!(acc, x, 8, W, W);
    each!(I in [3 4 5 6 7 8 9] { double_and_square!(acc, x, I); });
    end_pass!();
    begin_reduction!(5, acc, n, k0, m, 0, W);
    let mut carry = lanes::splat(-1);
    macro_rules! bring {
        (0, $row:ident) => {
            cross_columns!(acc, x, $row, [0 1 2]);
            choose!(2 * $row);
        };
        (1, $row:ident) => {
            cross_columns!(acc, x, $row, [3 4 5]);
            choose!(2 * $row + 1);
        };
        (2, $row:ident) => {
            cross_columns!(acc, x, $row, [6 7 8]);
            choose!(2 * $row + 2);
        };
        (3, $row:ident) => {
            cross_columns!(acc, x, $row, [9 10]);
            double_and_square!(acc, x, ($row + W) / 2);
            choose!(2 * $row + 3);
        };
    }
    macro_rules! finish {
        ($columns:tt) => {
            carry_out!(acc, carry, x, W, $columns)
        };
    }
    reduce!(acc, n, k0, m, W, [0 2 4 6 8 10 12 14 16 18], I, bring, finish);
    let _ = carry;
}
