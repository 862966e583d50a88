//! The multiplications of `mont52`, row by row. Its documentation says why they are right; this file
//! is about keeping sums in registers and both multipliers busy.
//!
//! There are 32 registers: 20 sums leave no room for operands, so the multiplications take these
//! from memory, each where it needs it, and a function is little more than its multiplications.
//! Three things make the compiler write that:
//!
//! * Rows and columns are unrolled by macros and not by loops, so that column numbers are known
//!   where the code is compiled: the accumulators then are registers, and the shift by one limb
//!   after every row is a renaming. Loops are unrolled too, but later, and meanwhile the compiler
//!   moves what stands between them.
//! * Operands are in [`Cell`]s, and `end_pass!` stands between the passes over them. Otherwise each
//!   limb would be loaded once, early, for all passes, and the accumulators be spilled.
//! * What the next row waits for comes first, a few multiplications apart, and every pass goes over
//!   all columns in turn, so that no sum is needed before it is there.

use std::arch::x86_64::{
    _mm512_add_epi64, _mm512_madd52hi_epu64, _mm512_madd52lo_epu64, _mm512_set1_epi64,
    _mm512_setzero_si512, _mm512_srli_epi64,
};
use std::cell::Cell;
use std::hint::black_box;

use crate::signing::mont52::Lanes;
use crate::signing::radix52::{LIMB_BITS, LIMB_MASK};

/// Repeats a block with a constant that counts.
macro_rules! each {
    ($row:ident in [$($number:literal)*] $body:block) => { $( { const $row: usize = $number; $body } )* };
}

/// Ends a pass: what was read from a [`Cell`] before counts as changed. It is no instruction.
macro_rules! end_pass {
    () => {
        black_box(())
    };
}

/// `$sum[$column] += low half of $x * $y`.
macro_rules! low {
    ($sum:ident[$column:expr], $x:expr, $y:expr) => {
        $sum[$column] = _mm512_madd52lo_epu64($sum[$column], $x.get(), $y)
    };
}

/// The same with the high half.
macro_rules! high {
    ($sum:ident[$column:expr], $x:expr, $y:expr) => {
        $sum[$column] = _mm512_madd52hi_epu64($sum[$column], $x.get(), $y)
    };
}

/// The rows of a Montgomery product's lowest window: adds `a * b[i]` and the multiple of `n` that
/// clears column `i`, for each row `i`. `$also` runs with each `$row` and its `$multiplier` of `n`, which higher
/// windows need again.
macro_rules! product_low {
    ($acc:ident, $a:ident, $b:ident, $n:ident, $k0:ident, $w:literal, $rows:tt, $multiplier:ident, $row:ident, $also:block) => {
        let mut digit = $b[0];
        low!($acc[0], $a[0], digit);
        let mut $multiplier = _mm512_madd52lo_epu64($k0, $acc[0], $k0);
        each!($row in $rows {
            let next_digit = $b[($row + 1) % $w];
            low!($acc[$row + 1], $a[1], digit);
            end_pass!();
            high!($acc[$row + 1], $a[0], digit);
            end_pass!();
            if $row + 1 < $w {
                low!($acc[$row + 1], $a[0], next_digit);
            }
            let carry = _mm512_srli_epi64::<LIMB_BITS>($acc[$row]);
            $acc[$row + 1] = _mm512_add_epi64($acc[$row + 1], carry);
            low!($acc[$row + 1], $n[1], $multiplier);
            end_pass!();
            high!($acc[$row + 1], $n[0], $multiplier);
            end_pass!();
            each!(J in $rows { if J >= 2 && J < 8 { low!($acc[$row + J], $a[J], digit); } });
            end_pass!();
            let next_multiplier = _mm512_madd52lo_epu64($k0, $acc[$row + 1], $k0);
            each!(J in $rows { if J >= 8 { low!($acc[$row + J], $a[J], digit); } });
            end_pass!();
            each!(J in $rows { if J >= 1 { high!($acc[$row + J + 1], $a[J], digit); } });
            end_pass!();
            each!(J in $rows { if J >= 2 { low!($acc[$row + J], $n[J], $multiplier); } });
            end_pass!();
            each!(J in $rows { if J >= 1 { high!($acc[$row + J + 1], $n[J], $multiplier); } });
            end_pass!();
            $also
            digit = next_digit;
            $multiplier = next_multiplier;
        });
        let _ = (digit, $multiplier);
    };
}

/// The rows of a reduction's lowest window; [`product_low`] without the product.
macro_rules! reduce_low {
    ($acc:ident, $n:ident, $k0:ident, $w:literal, $rows:tt, $multiplier:ident, $row:ident, $also:block) => {
        let mut $multiplier = _mm512_madd52lo_epu64($k0, $acc[0], $k0);
        each!($row in $rows {
            let carry = _mm512_srli_epi64::<LIMB_BITS>($acc[$row]);
            $acc[$row + 1] = _mm512_add_epi64($acc[$row + 1], carry);
            low!($acc[$row + 1], $n[1], $multiplier);
            end_pass!();
            high!($acc[$row + 1], $n[0], $multiplier);
            end_pass!();
            each!(J in $rows { if J >= 2 && J < 8 { low!($acc[$row + J], $n[J], $multiplier); } });
            end_pass!();
            let next_multiplier = _mm512_madd52lo_epu64($k0, $acc[$row + 1], $k0);
            each!(J in $rows { if J >= 8 { low!($acc[$row + J], $n[J], $multiplier); } });
            end_pass!();
            $also
            each!(J in $rows { if J >= 1 { high!($acc[$row + J + 1], $n[J], $multiplier); } });
            end_pass!();
            $multiplier = next_multiplier;
        });
        let _ = $multiplier;
    };
}

/// One row over all columns of a window: adds `$x * $digit`.
macro_rules! row {
    ($acc:ident, $x:ident, $digit:expr, $row:ident, $columns:tt) => {
        each!(J in $columns { low!($acc[$row + J], $x[J], $digit); });
        end_pass!();
        each!(J in $columns { high!($acc[$row + J + 1], $x[J], $digit); });
        end_pass!();
    };
}

/// The windows of `$w` limbs that longer numbers are cut into. Each covers `2 * $w` columns, which
/// it takes from memory and puts back: loads and stores compete with no multiplication.
macro_rules! windows {
    ($product_low:ident, $product_high:ident, $reduce_low:ident, $reduce_high:ident, $w:literal, $rows:tt) => {
        #[target_feature(enable = "avx512f,avx512ifma")]
        #[inline(never)]
        pub(super) fn $product_low(
            t: &mut [Lanes; 2 * $w],
            multipliers: &mut [Lanes; $w],
            a: &[Cell<Lanes>; $w],
            b: &[Lanes; $w],
            n: &[Cell<Lanes>; $w],
            k0: Lanes,
        ) {
            let mut acc = *t;
            product_low!(acc, a, b, n, k0, $w, $rows, multiplier, I, {
                multipliers[I] = multiplier;
            });
            *t = acc;
        }

        #[target_feature(enable = "avx512f,avx512ifma")]
        #[inline(never)]
        pub(super) fn $product_high(
            t: &mut [Lanes; 2 * $w],
            multipliers: &[Lanes; $w],
            a: &[Cell<Lanes>; $w],
            b: &[Lanes; $w],
            n: &[Cell<Lanes>; $w],
        ) {
            let mut acc = *t;
            each!(I in $rows {
                let (digit, multiplier) = (b[I], multipliers[I]);
                row!(acc, a, digit, I, $rows);
                row!(acc, n, multiplier, I, $rows);
            });
            *t = acc;
        }

        #[target_feature(enable = "avx512f,avx512ifma")]
        #[inline(never)]
        pub(super) fn $reduce_low(
            t: &mut [Lanes; 2 * $w],
            multipliers: &mut [Lanes; $w],
            n: &[Cell<Lanes>; $w],
            k0: Lanes,
        ) {
            let mut acc = *t;
            reduce_low!(acc, n, k0, $w, $rows, multiplier, I, {
                multipliers[I] = multiplier;
            });
            *t = acc;
        }

        #[target_feature(enable = "avx512f,avx512ifma")]
        #[inline(never)]
        pub(super) fn $reduce_high(
            t: &mut [Lanes; 2 * $w],
            multipliers: &[Lanes; $w],
            n: &[Cell<Lanes>; $w],
        ) {
            let mut acc = *t;
            each!(I in $rows {
                let multiplier = multipliers[I];
                row!(acc, n, multiplier, I, $rows);
            });
            *t = acc;
        }
    };
}

windows!(product_low_15, product_high_15, reduce_low_15, reduce_high_15, 15, [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14]);
windows!(product_low_20, product_high_20, reduce_low_20, reduce_high_20, 20, [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19]);

/// Limbs in a block of a square's cross products.
pub(super) const BLOCK: usize = 10;

/// Adds the cross products `a[i] * a[j]`, `i < j`, of one block.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline(never)]
pub(super) fn triangle(t: &mut [Lanes; 2 * BLOCK], a: &[Cell<Lanes>; BLOCK]) {
    let mut acc = *t;
    each!(I in [0 1 2 3 4 5 6 7 8] {
        let digit = a[I].get();
        each!(J in [1 2 3 4 5 6 7 8 9] { if I < J { low!(acc[I + J], a[J], digit); } });
        end_pass!();
        each!(J in [1 2 3 4 5 6 7 8 9] { if I < J { high!(acc[I + J + 1], a[J], digit); } });
        end_pass!();
    });
    *t = acc;
}

/// Adds the products of all limbs of `a` with all limbs of `b`.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline(never)]
pub(super) fn rectangle(
    t: &mut [Lanes; 2 * BLOCK],
    a: &[Cell<Lanes>; BLOCK],
    b: &[Cell<Lanes>; BLOCK],
) {
    let mut acc = *t;
    each!(I in [0 1 2 3 4 5 6 7 8 9] {
        let digit = a[I].get();
        row!(acc, b, digit, I, [0 1 2 3 4 5 6 7 8 9]);
    });
    *t = acc;
}

/// The product of 20 limbs, whose columns all fit into registers.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline(never)]
pub(super) fn product_20(x: &[Cell<Lanes>; 20], b: &[Lanes; 20], n: &[Cell<Lanes>; 20], k0: Lanes) {
    let mut acc = [_mm512_setzero_si512(); 40];
    acc[..20].fill(_mm512_set1_epi64(LIMB_MASK as i64));
    product_low!(acc, x, b, n, k0, 20, [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19], multiplier, I, {});
    let mut carry = _mm512_setzero_si512();
    each!(I in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19] {
        let sum = _mm512_add_epi64(acc[20 + I], carry);
        carry = _mm512_srli_epi64::<LIMB_BITS>(sum);
        x[I].set(sum);
    });
    let _ = carry;
}

/// The square of 20 limbs, the one that counts most: nearly all of a 2048-bit signature.
///
/// First the upper 20 columns of the cross products, which are parked in memory; then the lower 20,
/// which stay in registers and are reduced at once, each row taking up one parked column, doubled
/// and with its part of the diagonal.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline(never)]
pub(super) fn square_20(x: &[Cell<Lanes>; 20], n: &[Cell<Lanes>; 20], k0: Lanes) {
    const W: usize = 20;
    let mut upper = [_mm512_setzero_si512(); W];
    each!(I in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18] {
        let digit = x[I].get();
        each!(J in [2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19] {
            if I < J && I + J >= W {
                low!(upper[I + J - W], x[J], digit);
            }
        });
        end_pass!();
        each!(J in [2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19] {
            if I < J && I + J + 1 >= W {
                high!(upper[I + J + 1 - W], x[J], digit);
            }
        });
        end_pass!();
    });
    let parked = upper.map(Cell::new);
    let parked = black_box(&parked);

    let mut acc = [_mm512_set1_epi64(LIMB_MASK as i64); 2 * W];
    each!(I in [0 1 2 3 4 5 6 7 8 9] {
        let digit = x[I].get();
        each!(J in [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19] {
            if I < J && I + J < W {
                low!(acc[I + J], x[J], digit);
            }
        });
        end_pass!();
        each!(J in [1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18] {
            if I < J && I + J + 1 < W {
                high!(acc[I + J + 1], x[J], digit);
            }
        });
        end_pass!();
    });
    // Not doubled, and with the 1 that it lacks.
    acc[0] = _mm512_set1_epi64((LIMB_MASK << 1 | 1) as i64);
    each!(I in [0 1 2 3 4 5 6 7 8 9] {
        let limb = x[I].get();
        if I != 0 {
            acc[2 * I] = _mm512_add_epi64(acc[2 * I], acc[2 * I]);
        }
        acc[2 * I + 1] = _mm512_add_epi64(acc[2 * I + 1], acc[2 * I + 1]);
        acc[2 * I] = _mm512_madd52lo_epu64(acc[2 * I], limb, limb);
        acc[2 * I + 1] = _mm512_madd52hi_epu64(acc[2 * I + 1], limb, limb);
    });
    end_pass!();
    reduce_low!(acc, n, k0, 20, [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19], multiplier, I, {
        let column = parked[I].get();
        let doubled = _mm512_add_epi64(column, column);
        let limb = x[(I + W) / 2].get();
        acc[I + W] = if I.is_multiple_of(2) {
            _mm512_madd52lo_epu64(doubled, limb, limb)
        } else {
            _mm512_madd52hi_epu64(doubled, limb, limb)
        };
    });
    let mut carry = _mm512_set1_epi64(-1);
    each!(I in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19] {
        let sum = _mm512_add_epi64(acc[W + I], carry);
        carry = _mm512_srli_epi64::<LIMB_BITS>(sum);
        x[I].set(sum);
    });
    let _ = carry;
}
