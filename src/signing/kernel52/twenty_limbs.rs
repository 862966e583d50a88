//! 20 limbs, whose 40 columns need no memory: half of them are done when the others begin. With these
//! nearly all of a 2048-bit signature is made.

use std::arch::x86_64::{
    _mm512_add_epi64, _mm512_madd52hi_epu64, _mm512_madd52lo_epu64, _mm512_mask_mov_epi64,
    _mm512_set1_epi64, _mm512_setzero_si512, _mm512_srli_epi64,
};
use std::cell::Cell;
use std::hint::black_box;

use crate::signing::kernel52::SharedLimb;
use crate::signing::mont52::Lanes;
use crate::signing::radix52::{LIMB_BITS, LIMB_MASK};

/// Lets each column that is done carry into the next and leave as a limb of `$x`: by then nothing
/// reads `$x` but limbs 18 and 19 in a square, which leave last.
macro_rules! carry_out {
    ($acc:ident, $carry:ident, $x:ident, $w:expr, $columns:tt) => {
        each!(C in $columns {
            let sum = _mm512_add_epi64($acc[$w + C], $carry);
            $carry = _mm512_srli_epi64::<LIMB_BITS>(sum);
            $x[C].set(sum);
        });
        end_pass!();
    };
}

/// The product of 20 limbs, whose columns all fit into registers.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline(never)]
pub(in crate::signing) fn product_20(
    x: &[Cell<Lanes>; 20],
    b: &[Lanes; 20],
    n: &[SharedLimb; 20],
    k0: Lanes,
) {
    const W: usize = 20;
    let mut acc = [_mm512_setzero_si512(); 2 * W];
    acc[..W].fill(_mm512_set1_epi64(LIMB_MASK as i64));
    let mut m = [_mm512_setzero_si512(); W];
    let mut carry = _mm512_setzero_si512();
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

/// Doubles columns `2 * $limb` and `2 * $limb + 1` and adds the square of limb `$limb` of `$x`.
macro_rules! double_and_square {
    ($acc:ident, $x:ident, $limb:expr) => {
        let limb = $x[$limb].get();
        let doubled = _mm512_add_epi64($acc[2 * $limb], $acc[2 * $limb]);
        $acc[2 * $limb] = _mm512_madd52lo_epu64(doubled, limb, limb);
        let doubled = _mm512_add_epi64($acc[2 * $limb + 1], $acc[2 * $limb + 1]);
        $acc[2 * $limb + 1] = _mm512_madd52hi_epu64(doubled, limb, limb);
    };
}

/// Adds to columns `$row + 20` and `$row + 21` the cross products whose lower limb is `$row + $k`: with
/// limb `19 - $k` the high half, with `20 - $k` both, with `21 - $k` the low half. The other halves
/// belong to the pairs of columns before and after.
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

/// The square of 20 limbs, the one that counts most: nearly all of a 2048-bit signature.
///
/// The lower 20 columns of the cross products come first, in pairs of rows; the lowest six are doubled
/// as soon as they are done, so that the reduction begins early, the others before it reaches them.
/// The upper ones come in pairs of columns, each between the passes of the rows that first add to
/// it: there is never a sum that has to wait in memory.
///
/// On the way, it copies to `chosen` the one of `entries` whose mask is all ones, if there is one. The
/// compiler makes a load and a masked store of each copy, and neither keeps a multiplier from its work;
/// blends of several entries, for fewer stores, would be made where multiplications are. All is copied
/// by the middle of the reduction: who reads it next finds it in the cache, and not in stores under way,
/// whatever their masks.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline(never)]
pub(in crate::signing) fn square_20<const N: usize>(
    x: &[Cell<Lanes>; 20],
    n: &[SharedLimb; 20],
    k0: Lanes,
    entries: &[[Lanes; 20]; N],
    masks: &[u8; N],
    chosen: &[Cell<Lanes>; 20],
) {
    const W: usize = 20;
    const { assert!(N <= 4, "the middle of the reduction is 20 points away, 5 for each entry") };
    macro_rules! choose {
        ($point:expr) => {
            let (entry, first) = ($point / 5, $point % 5 * 4);
            if entry < N {
                each!(J in [0 1 2 3] {
                    let (limb, new) = (&chosen[first + J], entries[entry][first + J]);
                    limb.set(_mm512_mask_mov_epi64(limb.get(), masks[entry], new));
                });
                end_pass!();
            }
        };
    }
    let mut acc = [_mm512_setzero_si512(); 2 * W];
    acc[..W].fill(_mm512_set1_epi64(LIMB_MASK as i64));
    let mut m = [_mm512_setzero_si512(); W];
    cross_pair!(acc, x, 0, W, W);
    // Not doubled, and with the 1 that it lacks.
    acc[0] = _mm512_set1_epi64((LIMB_MASK << 1 | 1) as i64);
    low!(acc[0], x[0], x[0].get());
    acc[1] = _mm512_add_epi64(acc[1], acc[1]);
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
    let mut carry = _mm512_set1_epi64(-1);
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
