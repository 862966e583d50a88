//! The multiplications of `mont52`, row by row. Its documentation says why they are right; this file
//! is about keeping sums in registers and both multipliers busy.

use std::arch::x86_64::{
    _mm512_add_epi64, _mm512_and_si512, _mm512_madd52hi_epu64, _mm512_madd52lo_epu64,
    _mm512_set1_epi64, _mm512_setzero_si512, _mm512_srli_epi64,
};
use std::hint::black_box;

use crate::signing::mont52::Lanes;
use crate::signing::radix52::{LIMB_BITS, LIMB_MASK};

/// Repeats a block with a constant that counts, so that column numbers are known where the block is
/// compiled: the accumulators then are registers, and the shift by one limb after every row is a
/// renaming. As a loop, the same code keeps them in memory and takes twice as long.
macro_rules! rows {
    ($row:ident in [$($number:literal)*] $body:block) => { $( { const $row: usize = $number; $body } )* };
}

/// The rows of a Montgomery product's lowest window: adds `a * b[i]` and the multiple of `n` that
/// clears column `i`, for each row `i`. `$also` runs with each row, which it knows as `I`, and its
/// `$multiplier` of `n`, which higher windows need again.
///
/// What the next row's multiple depends on comes first; the rest fills the multipliers while that
/// chain runs. `black_box` hides that a row reads the operands that the row before it read: LLVM
/// would load them all at once and spill the accumulators.
macro_rules! product_low {
    ($acc:ident, $a:ident, $b:ident, $n:ident, $k0:ident, $w:literal, $rows:tt, $multiplier:ident, $also:block) => {
        let fill = _mm512_set1_epi64(LIMB_MASK as i64);
        let zero = _mm512_setzero_si512();
        let mut digit = $b[0];
        $acc[0] = _mm512_madd52lo_epu64($acc[0], $a[0], digit);
        let mut $multiplier = _mm512_madd52lo_epu64(zero, $acc[0], $k0);
        rows!(I in $rows {
            let (a, n) = (black_box($a), black_box($n));
            let next_digit = $b[(I + 1) % $w];
            let mut first = _mm512_madd52lo_epu64($acc[I + 1], a[1], digit);
            first = _mm512_madd52hi_epu64(first, a[0], digit);
            if I + 1 < $w {
                first = _mm512_madd52lo_epu64(first, a[0], next_digit);
            }
            let carry = _mm512_srli_epi64::<LIMB_BITS>(_mm512_add_epi64($acc[I], fill));
            first = _mm512_add_epi64(first, carry);
            first = _mm512_madd52lo_epu64(first, n[1], $multiplier);
            first = _mm512_madd52hi_epu64(first, n[0], $multiplier);
            let next_multiplier = _mm512_madd52lo_epu64(zero, first, $k0);
            $acc[I + 1] = first;
            for j in 2..$w {
                $acc[I + j] = _mm512_madd52lo_epu64($acc[I + j], a[j], digit);
            }
            for j in 1..$w {
                $acc[I + j + 1] = _mm512_madd52hi_epu64($acc[I + j + 1], a[j], digit);
            }
            for j in 2..$w {
                $acc[I + j] = _mm512_madd52lo_epu64($acc[I + j], n[j], $multiplier);
            }
            for j in 1..$w {
                $acc[I + j + 1] = _mm512_madd52hi_epu64($acc[I + j + 1], n[j], $multiplier);
            }
            $also
            digit = next_digit;
            $multiplier = next_multiplier;
        });
        let _ = (digit, $multiplier);
    };
}

/// The rows of a reduction's lowest window; [`product_low`] without the product. `$also` runs
/// with each row, whose number it knows as `I`.
macro_rules! reduce_low {
    ($acc:ident, $n:ident, $k0:ident, $w:literal, $rows:tt, $multiplier:ident, $also:block) => {
        let fill = _mm512_set1_epi64(LIMB_MASK as i64);
        let zero = _mm512_setzero_si512();
        let mut $multiplier = _mm512_madd52lo_epu64(zero, $acc[0], $k0);
        rows!(I in $rows {
            let n = black_box($n);
            $also
            let carry = _mm512_srli_epi64::<LIMB_BITS>(_mm512_add_epi64($acc[I], fill));
            let mut first = _mm512_add_epi64($acc[I + 1], carry);
            first = _mm512_madd52lo_epu64(first, n[1], $multiplier);
            first = _mm512_madd52hi_epu64(first, n[0], $multiplier);
            let next_multiplier = _mm512_madd52lo_epu64(zero, first, $k0);
            $acc[I + 1] = first;
            for j in 2..$w {
                $acc[I + j] = _mm512_madd52lo_epu64($acc[I + j], n[j], $multiplier);
                if j == 2 {
                    $acc[I + 2] = _mm512_madd52hi_epu64($acc[I + 2], n[1], $multiplier);
                }
                $acc[I + j + 1] = _mm512_madd52hi_epu64($acc[I + j + 1], n[j], $multiplier);
            }
            $multiplier = next_multiplier;
        });
        let _ = $multiplier;
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
            a: &[Lanes; $w],
            b: &[Lanes; $w],
            n: &[Lanes; $w],
            k0: Lanes,
        ) {
            let mut acc = *t;
            product_low!(acc, a, b, n, k0, $w, $rows, multiplier, {
                multipliers[I] = multiplier;
            });
            *t = acc;
        }

        #[target_feature(enable = "avx512f,avx512ifma")]
        #[inline(never)]
        pub(super) fn $product_high(
            t: &mut [Lanes; 2 * $w],
            multipliers: &[Lanes; $w],
            a: &[Lanes; $w],
            b: &[Lanes; $w],
            n: &[Lanes; $w],
        ) {
            let mut acc = *t;
            rows!(I in $rows {
                let (a, n) = (black_box(a), black_box(n));
                let (digit, multiplier) = (b[I], multipliers[I]);
                for j in 0..$w {
                    acc[I + j] = _mm512_madd52lo_epu64(acc[I + j], a[j], digit);
                }
                for j in 0..$w {
                    acc[I + j + 1] = _mm512_madd52hi_epu64(acc[I + j + 1], a[j], digit);
                }
                for j in 0..$w {
                    acc[I + j] = _mm512_madd52lo_epu64(acc[I + j], n[j], multiplier);
                }
                for j in 0..$w {
                    acc[I + j + 1] = _mm512_madd52hi_epu64(acc[I + j + 1], n[j], multiplier);
                }
            });
            *t = acc;
        }

        #[target_feature(enable = "avx512f,avx512ifma")]
        #[inline(never)]
        pub(super) fn $reduce_low(
            t: &mut [Lanes; 2 * $w],
            multipliers: &mut [Lanes; $w],
            n: &[Lanes; $w],
            k0: Lanes,
        ) {
            let mut acc = *t;
            reduce_low!(acc, n, k0, $w, $rows, multiplier, {
                multipliers[I] = multiplier;
            });
            *t = acc;
        }

        #[target_feature(enable = "avx512f,avx512ifma")]
        #[inline(never)]
        pub(super) fn $reduce_high(t: &mut [Lanes; 2 * $w], multipliers: &[Lanes; $w], n: &[Lanes; $w]) {
            let mut acc = *t;
            rows!(I in $rows {
                let n = black_box(n);
                let multiplier = multipliers[I];
                for j in 0..$w {
                    acc[I + j] = _mm512_madd52lo_epu64(acc[I + j], n[j], multiplier);
                }
                for j in 0..$w {
                    acc[I + j + 1] = _mm512_madd52hi_epu64(acc[I + j + 1], n[j], multiplier);
                }
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
pub(super) fn triangle(t: &mut [Lanes; 2 * BLOCK], a: &[Lanes; BLOCK]) {
    let mut acc = *t;
    rows!(I in [0 1 2 3 4 5 6 7 8] {
        let a = black_box(a);
        let digit = a[I];
        for j in I + 1..BLOCK {
            acc[I + j] = _mm512_madd52lo_epu64(acc[I + j], a[j], digit);
        }
        for j in I + 1..BLOCK {
            acc[I + j + 1] = _mm512_madd52hi_epu64(acc[I + j + 1], a[j], digit);
        }
    });
    *t = acc;
}

/// Adds the products of all limbs of `a` with all limbs of `b`.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline(never)]
pub(super) fn rectangle(t: &mut [Lanes; 2 * BLOCK], a: &[Lanes; BLOCK], b: &[Lanes; BLOCK]) {
    let mut acc = *t;
    rows!(I in [0 1 2 3 4 5 6 7 8 9] {
        let b = black_box(b);
        let digit = a[I];
        for j in 0..BLOCK {
            acc[I + j] = _mm512_madd52lo_epu64(acc[I + j], b[j], digit);
        }
        for j in 0..BLOCK {
            acc[I + j + 1] = _mm512_madd52hi_epu64(acc[I + j + 1], b[j], digit);
        }
    });
    *t = acc;
}

/// The product of 20 limbs, whose columns all fit into registers.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline(never)]
pub(super) fn product_20(x: &mut [Lanes; 20], b: &[Lanes; 20], n: &[Lanes; 20], k0: Lanes) {
    let a = &*x;
    let mut acc = [_mm512_setzero_si512(); 40];
    product_low!(acc, a, b, n, k0, 20, [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19], multiplier, {});
    let mask = _mm512_set1_epi64(LIMB_MASK as i64);
    let mut carry = _mm512_setzero_si512();
    for i in 0..20 {
        let sum = _mm512_add_epi64(acc[20 + i], carry);
        carry = _mm512_srli_epi64::<LIMB_BITS>(sum);
        x[i] = _mm512_and_si512(sum, mask);
    }
}

/// The square of 20 limbs, the one that counts most: nearly all of a 2048-bit signature.
///
/// First the upper 20 columns of the cross products, which are parked in memory; then the lower 20,
/// which stay in registers and are reduced at once, each row taking up one parked column, doubled
/// and with its part of the diagonal.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline(never)]
pub(super) fn square_20(x: &mut [Lanes; 20], n: &[Lanes; 20], k0: Lanes) {
    let a = &*x;
    const W: usize = 20;
    let zero = _mm512_setzero_si512();
    let mut upper = [zero; W];
    rows!(I in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18] {
        let a = black_box(a);
        let digit = a[I];
        for j in I + 1..W {
            if I + j >= W {
                upper[I + j - W] = _mm512_madd52lo_epu64(upper[I + j - W], a[j], digit);
            }
        }
        for j in I + 1..W {
            if I + j + 1 >= W {
                upper[I + j + 1 - W] = _mm512_madd52hi_epu64(upper[I + j + 1 - W], a[j], digit);
            }
        }
    });
    let mut parked = upper;
    let parked = black_box(&mut parked);

    let mut acc = [zero; 2 * W];
    rows!(I in [0 1 2 3 4 5 6 7 8 9] {
        let a = black_box(a);
        let digit = a[I];
        for j in I + 1..W {
            if I + j < W {
                acc[I + j] = _mm512_madd52lo_epu64(acc[I + j], a[j], digit);
            }
        }
        for j in I + 1..W {
            if I + j + 1 < W {
                acc[I + j + 1] = _mm512_madd52hi_epu64(acc[I + j + 1], a[j], digit);
            }
        }
    });
    let a = black_box(a);
    for i in 0..W / 2 {
        acc[2 * i] = _mm512_madd52lo_epu64(_mm512_add_epi64(acc[2 * i], acc[2 * i]), a[i], a[i]);
        acc[2 * i + 1] =
            _mm512_madd52hi_epu64(_mm512_add_epi64(acc[2 * i + 1], acc[2 * i + 1]), a[i], a[i]);
    }
    reduce_low!(acc, n, k0, 20, [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19], multiplier, {
        let doubled = _mm512_add_epi64(parked[I], parked[I]);
        let limb = a[(I + W) / 2];
        acc[I + W] = if I.is_multiple_of(2) {
            _mm512_madd52lo_epu64(doubled, limb, limb)
        } else {
            _mm512_madd52hi_epu64(doubled, limb, limb)
        };
    });
    // Carries only: no multiplication reads what is left above 52 bits.
    let mut carry = zero;
    for i in 0..W {
        let sum = _mm512_add_epi64(acc[W + i], carry);
        carry = _mm512_srli_epi64::<LIMB_BITS>(sum);
        x[i] = sum;
    }
}
