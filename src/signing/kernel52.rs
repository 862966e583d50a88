//! The multiplications of `mont52`, row by row. Its documentation says why they are right; this file
//! is about keeping sums in registers and both multipliers busy.
//!
//! A row is all limbs of one number times one limb of the other, its digit. Rows are worked in pairs,
//! and a pair in passes of four limbs: from the fifth on, a limb is loaded once for the four halves
//! that it adds to both rows. There are 32 registers, 20 for sums and the rest for little else, and
//! whoever shares the core, a neighbour on its other hyperthread, shares the ports that load.
//!
//! A function should be little more than its multiplications. What makes the compiler write that:
//!
//! * Rows and columns are unrolled by macros and not by loops, so that column numbers are known
//!   where the code is compiled: the accumulators then are registers, and the shift by one limb
//!   after every row is a renaming. Loops are unrolled too, but later, and meanwhile the compiler
//!   moves what stands between them.
//! * The limbs that passes go over are in [`Cell`]s, and `end_pass!` stands between the passes.
//!   Otherwise each limb would be loaded once, early, for all passes, and the accumulators be spilled.
//! * What the next pair of rows waits for is begun while this one's passes run, a step at a time: the
//!   multiplier of `n` for a row needs the sum of everything below it.
//! * The next use of a sum is several multiplications away. The last carries, each waiting for the
//!   one before, start as soon as the lowest columns are done.

use std::arch::x86_64::{
    _mm512_add_epi64, _mm512_madd52hi_epu64, _mm512_madd52lo_epu64, _mm512_set1_epi64,
    _mm512_setzero_si512, _mm512_srli_epi64,
};
use std::cell::Cell;
use std::hint::black_box;

use zeroize::Zeroize;

use crate::signing::mont52::Lanes;
use crate::signing::radix52::LIMB_BITS;

/// A limb that eight numbers share. A load of its eight bytes copies it to all lanes, and slows the
/// multiplications around it less than a load of a whole vector. A [`Cell`] as other limbs are;
/// nothing writes to it.
pub(super) struct SharedLimb(Cell<u64>);

impl SharedLimb {
    pub(super) fn new(limb: u64) -> Self {
        Self(Cell::new(limb))
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn get(&self) -> Lanes {
        _mm512_set1_epi64(self.0.get() as i64)
    }
}

impl Zeroize for SharedLimb {
    fn zeroize(&mut self) {
        self.0.get_mut().zeroize();
    }
}

/// Repeats a block with a constant that counts.
macro_rules! each {
    ($row:ident in [$($number:literal)*] $body:block) => { $( { const $row: usize = $number; $body } )* };
}

/// Repeats a block for the columns of a window of `$w` limbs.
macro_rules! each_column {
    ($column:ident below $w:expr, $body:block) => {
        each!($column in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19] {
            if $column < $w $body
        })
    };
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

/// Adds the products of some of the `$w` limbs of `$x` with the digits of rows `$row` and, if there
/// are so many rows, `$row + 1`.
macro_rules! pair {
    ($acc:ident, $x:ident, $digits:ident, $row:ident, $w:expr, $limbs:tt) => {
        each!(J in $limbs { if J < $w { low!($acc[$row + J], $x[J], $digits[$row]); } });
        each!(J in $limbs { if J < $w { high!($acc[$row + J + 1], $x[J], $digits[$row]); } });
        each!(J in $limbs {
            if J < $w && $row + 1 < $w { low!($acc[$row + J + 1], $x[J], $digits[$row + 1]); }
        });
        each!(J in $limbs {
            if J < $w && $row + 1 < $w { high!($acc[$row + J + 2], $x[J], $digits[$row + 1]); }
        });
        end_pass!();
    };
}

/// [`pair`] over all limbs.
macro_rules! whole_pair {
    ($acc:ident, $x:ident, $digits:ident, $row:ident, $w:expr) => {
        pair!($acc, $x, $digits, $row, $w, [0 1 2 3]);
        pair!($acc, $x, $digits, $row, $w, [4 5 6 7]);
        pair!($acc, $x, $digits, $row, $w, [8 9 10 11]);
        pair!($acc, $x, $digits, $row, $w, [12 13 14 15]);
        pair!($acc, $x, $digits, $row, $w, [16 17 18 19]);
    };
}

/// Adds what limbs 0 and 1 of `$x` add to the column after `$row`: the next row's multiplier of `n`
/// waits for it.
macro_rules! urgent {
    ($acc:ident, $x:ident, $digits:ident, $row:expr) => {
        high!($acc[$row + 1], $x[0], $digits[$row]);
        low!($acc[$row + 1], $x[1], $digits[$row]);
        end_pass!();
    };
}

/// Adds what limbs 1 to 3 add above that.
macro_rules! soon {
    ($acc:ident, $x:ident, $digits:ident, $row:expr) => {
        high!($acc[$row + 2], $x[1], $digits[$row]);
        low!($acc[$row + 2], $x[2], $digits[$row]);
        high!($acc[$row + 3], $x[2], $digits[$row]);
        low!($acc[$row + 3], $x[3], $digits[$row]);
        high!($acc[$row + 4], $x[3], $digits[$row]);
        end_pass!();
    };
}

/// Carries from column `$row` into the next.
macro_rules! carry {
    ($acc:ident, $row:expr) => {
        $acc[$row + 1] =
            _mm512_add_epi64($acc[$row + 1], _mm512_srli_epi64::<LIMB_BITS>($acc[$row]))
    };
}

/// The beginning of rows `$row` and `$row + 1` of a reduction, as far as there are such rows, in
/// five steps, of which the first needs column `$row` complete: their multipliers, and what limbs 0
/// to 3 of `n` add, but for the low half of limb 0, which would only clear the column.
macro_rules! begin_reduction {
    (1, $acc:ident, $n:ident, $k0:ident, $m:ident, $row:expr, $w:expr) => {
        if $row < $w {
            $m[$row] = _mm512_madd52lo_epu64($k0, $acc[$row], $k0);
        }
    };
    (2, $acc:ident, $n:ident, $k0:ident, $m:ident, $row:expr, $w:expr) => {
        if $row < $w {
            carry!($acc, $row);
            urgent!($acc, $n, $m, $row);
        }
    };
    (3, $acc:ident, $n:ident, $k0:ident, $m:ident, $row:expr, $w:expr) => {
        begin_reduction!(1, $acc, $n, $k0, $m, $row + 1, $w)
    };
    (4, $acc:ident, $n:ident, $k0:ident, $m:ident, $row:expr, $w:expr) => {
        if $row < $w {
            soon!($acc, $n, $m, $row);
        }
        begin_reduction!(2, $acc, $n, $k0, $m, $row + 1, $w)
    };
    (5, $acc:ident, $n:ident, $k0:ident, $m:ident, $row:expr, $w:expr) => {
        if $row + 1 < $w {
            soon!($acc, $n, $m, $row + 1);
        }
    };
}

/// The rest of all rows of a reduction whose first two have begun. Each pair begins the next one.
///
/// `$bring!(step, row)` runs in steps 0 to 3 and has columns `row + $w` and `row + $w + 1`, to which no
/// earlier row adds, ready by step 2 for 15 limbs and by step 3 for 20. The multipliers of both rows
/// are known by then.
///
/// `$finish!([..])` takes columns that are done, counted from column `$w`. In the last pair, where `row`
/// is at least `$w - 2`, limb `j` adds to nothing below column `$w + j - 2`: after limbs 4 to 7 the
/// first six columns are done.
macro_rules! reduce {
    ($acc:ident, $n:ident, $k0:ident, $m:ident, $w:expr, $pairs:tt, $row:ident, $bring:ident, $finish:ident) => {
        each!($row in $pairs {
            begin_reduction!(1, $acc, $n, $k0, $m, $row + 2, $w);
            $bring!(0, $row);
            pair!($acc, $n, $m, $row, $w, [4 5 6 7]);
            if $row + 2 >= $w { $finish!([0 1 2 3 4 5]); }
            begin_reduction!(2, $acc, $n, $k0, $m, $row + 2, $w);
            $bring!(1, $row);
            pair!($acc, $n, $m, $row, $w, [8 9 10 11]);
            if $row + 2 >= $w { $finish!([6 7 8 9]); }
            $bring!(2, $row);
            begin_reduction!(3, $acc, $n, $k0, $m, $row + 2, $w);
            pair!($acc, $n, $m, $row, $w, [12 13 14 15]);
            if $row + 2 >= $w { $finish!([10 11 12 13]); }
            $bring!(3, $row);
            begin_reduction!(4, $acc, $n, $k0, $m, $row + 2, $w);
            pair!($acc, $n, $m, $row, $w, [16 17 18 19]);
            begin_reduction!(5, $acc, $n, $k0, $m, $row + 2, $w);
        });
        $finish!([14 15 16 17 18 19]);
    };
}

/// The beginning of rows `$row` and `$row + 1` of a Montgomery product, as far as there are such
/// rows, in six steps: what limbs 0 to 3 of `a` add, and [`begin_reduction`].
macro_rules! begin_product {
    (1, $acc:ident, $a:ident, $b:ident, $n:ident, $k0:ident, $m:ident, $row:expr, $w:expr) => {
        if $row < $w {
            low!($acc[$row], $a[0], $b[$row]);
            begin_reduction!(1, $acc, $n, $k0, $m, $row, $w);
            end_pass!();
        }
    };
    (2, $acc:ident, $a:ident, $b:ident, $n:ident, $k0:ident, $m:ident, $row:expr, $w:expr) => {
        if $row < $w {
            urgent!($acc, $a, $b, $row);
        }
        if $row + 1 < $w {
            low!($acc[$row + 1], $a[0], $b[$row + 1]);
            end_pass!();
        }
    };
    (3, $acc:ident, $a:ident, $b:ident, $n:ident, $k0:ident, $m:ident, $row:expr, $w:expr) => {
        begin_reduction!(2, $acc, $n, $k0, $m, $row, $w);
        if $row < $w {
            soon!($acc, $a, $b, $row);
        }
    };
    (4, $acc:ident, $a:ident, $b:ident, $n:ident, $k0:ident, $m:ident, $row:expr, $w:expr) => {
        begin_reduction!(3, $acc, $n, $k0, $m, $row, $w);
        if $row + 1 < $w {
            urgent!($acc, $a, $b, $row + 1);
        }
    };
    (5, $acc:ident, $a:ident, $b:ident, $n:ident, $k0:ident, $m:ident, $row:expr, $w:expr) => {
        if $row + 1 < $w {
            soon!($acc, $a, $b, $row + 1);
        }
        begin_reduction!(4, $acc, $n, $k0, $m, $row, $w);
    };
    (6, $acc:ident, $a:ident, $b:ident, $n:ident, $k0:ident, $m:ident, $row:expr, $w:expr) => {
        begin_reduction!(5, $acc, $n, $k0, $m, $row, $w);
    };
}

/// The rows of a Montgomery product's lowest window: adds `a * b[i]` and the multiple `m[i]` of `n`
/// that clears column `i`, for each row `i`. `$bring` and `$finish` as in [`reduce`], in one step.
macro_rules! product_low {
    ($acc:ident, $a:ident, $b:ident, $n:ident, $k0:ident, $m:ident, $w:expr, $pairs:tt, $row:ident, $bring:ident, $finish:ident) => {
        begin_product!(1, $acc, $a, $b, $n, $k0, $m, 0, $w);
        begin_product!(2, $acc, $a, $b, $n, $k0, $m, 0, $w);
        begin_product!(3, $acc, $a, $b, $n, $k0, $m, 0, $w);
        begin_product!(4, $acc, $a, $b, $n, $k0, $m, 0, $w);
        begin_product!(5, $acc, $a, $b, $n, $k0, $m, 0, $w);
        begin_product!(6, $acc, $a, $b, $n, $k0, $m, 0, $w);
        each!($row in $pairs {
            begin_product!(1, $acc, $a, $b, $n, $k0, $m, $row + 2, $w);
            pair!($acc, $a, $b, $row, $w, [4 5 6 7]);
            begin_product!(2, $acc, $a, $b, $n, $k0, $m, $row + 2, $w);
            pair!($acc, $a, $b, $row, $w, [8 9 10 11]);
            begin_product!(3, $acc, $a, $b, $n, $k0, $m, $row + 2, $w);
            $bring!($row);
            pair!($acc, $a, $b, $row, $w, [12 13 14 15]);
            begin_product!(4, $acc, $a, $b, $n, $k0, $m, $row + 2, $w);
            pair!($acc, $a, $b, $row, $w, [16 17 18 19]);
            pair!($acc, $n, $m, $row, $w, [4 5 6 7]);
            if $row + 2 >= $w { $finish!([0 1 2 3 4 5]); }
            begin_product!(5, $acc, $a, $b, $n, $k0, $m, $row + 2, $w);
            pair!($acc, $n, $m, $row, $w, [8 9 10 11]);
            if $row + 2 >= $w { $finish!([6 7 8 9]); }
            begin_product!(6, $acc, $a, $b, $n, $k0, $m, $row + 2, $w);
            pair!($acc, $n, $m, $row, $w, [12 13 14 15]);
            if $row + 2 >= $w { $finish!([10 11 12 13]); }
            pair!($acc, $n, $m, $row, $w, [16 17 18 19]);
        });
        $finish!([14 15 16 17 18 19]);
    };
}

/// Repeats a block for `$first` and, if it is below `$end`, the number after it. (Not a constant:
/// where `each!` is made a loop, to be checked as plain code, `$first` counts.)
macro_rules! each_of_pair {
    ($number:ident from $first:expr, below $end:expr, $body:block) => {{
        let $number = $first;
        $body
    }
    if $first + 1 < $end {
        let $number = $first + 1;
        $body
    }};
}

/// Puts columns that are done back, counted from column `$w` and as far as there are such.
macro_rules! put_upper {
    ($t:ident, $acc:ident, $w:expr, $columns:tt) => {
        each!(C in $columns {
            if C < $w {
                let column = $w + C;
                $t[column].set($acc[column]);
            }
        })
    };
}

/// The windows of `$w` limbs that longer numbers are cut into. Each covers `2 * $w` columns, which
/// it takes from memory when it comes to them and puts back when they are done.
macro_rules! windows {
    ($product_low:ident, $product_high:ident, $reduce_low:ident, $reduce_high:ident, $w:literal, $pairs:tt) => {
        /// The lower half of `t` is used up.
        #[target_feature(enable = "avx512f,avx512ifma")]
        #[inline(never)]
        pub(super) fn $product_low(
            t: &[Cell<Lanes>; 2 * $w],
            multipliers: &mut [Lanes; $w],
            a: &[Cell<Lanes>; $w],
            b: &[Lanes; $w],
            n: &[SharedLimb; $w],
            k0: Lanes,
        ) {
            let (mut acc, mut m) = ([_mm512_setzero_si512(); 2 * $w], [_mm512_setzero_si512(); $w]);
            each_column!(C below $w, { acc[C] = t[C].get(); });
            macro_rules! bring {
                ($row:ident) => {
                    each_of_pair!(column from $row + $w, below 2 * $w, { acc[column] = t[column].get(); });
                    each_of_pair!(row from $row, below $w, { multipliers[row] = m[row]; });
                };
            }
            macro_rules! finish {
                ($columns:tt) => { put_upper!(t, acc, $w, $columns) };
            }
            product_low!(acc, a, b, n, k0, m, $w, $pairs, I, bring, finish);
        }

        #[target_feature(enable = "avx512f,avx512ifma")]
        #[inline(never)]
        pub(super) fn $product_high(
            t: &[Cell<Lanes>; 2 * $w],
            multipliers: &[Lanes; $w],
            a: &[Cell<Lanes>; $w],
            b: &[Lanes; $w],
            n: &[SharedLimb; $w],
        ) {
            let mut acc = [_mm512_setzero_si512(); 2 * $w];
            each_column!(C below $w, { acc[C] = t[C].get(); });
            each!(I in $pairs {
                each_of_pair!(column from I + $w, below 2 * $w, { acc[column] = t[column].get(); });
                whole_pair!(acc, a, b, I, $w);
                whole_pair!(acc, n, multipliers, I, $w);
                each_of_pair!(column from I, below $w, { t[column].set(acc[column]); });
            });
            put_upper!(t, acc, $w, [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19]);
        }

        /// The lower half of `t` is used up.
        #[target_feature(enable = "avx512f,avx512ifma")]
        #[inline(never)]
        pub(super) fn $reduce_low(
            t: &[Cell<Lanes>; 2 * $w],
            multipliers: &mut [Lanes; $w],
            n: &[SharedLimb; $w],
            k0: Lanes,
        ) {
            let (mut acc, mut m) = ([_mm512_setzero_si512(); 2 * $w], [_mm512_setzero_si512(); $w]);
            each_column!(C below $w, { acc[C] = t[C].get(); });
            macro_rules! bring {
                (2, $row:ident) => {
                    each_of_pair!(column from $row + $w, below 2 * $w, { acc[column] = t[column].get(); });
                    each_of_pair!(row from $row, below $w, { multipliers[row] = m[row]; });
                };
                ($step:literal, $row:ident) => {};
            }
            macro_rules! finish {
                ($columns:tt) => { put_upper!(t, acc, $w, $columns) };
            }
            begin_reduction!(1, acc, n, k0, m, 0, $w);
            begin_reduction!(2, acc, n, k0, m, 0, $w);
            begin_reduction!(3, acc, n, k0, m, 0, $w);
            begin_reduction!(4, acc, n, k0, m, 0, $w);
            begin_reduction!(5, acc, n, k0, m, 0, $w);
            reduce!(acc, n, k0, m, $w, $pairs, I, bring, finish);
        }

        #[target_feature(enable = "avx512f,avx512ifma")]
        #[inline(never)]
        pub(super) fn $reduce_high(
            t: &[Cell<Lanes>; 2 * $w],
            multipliers: &[Lanes; $w],
            n: &[SharedLimb; $w],
        ) {
            let mut acc = [_mm512_setzero_si512(); 2 * $w];
            each_column!(C below $w, { acc[C] = t[C].get(); });
            each!(I in $pairs {
                each_of_pair!(column from I + $w, below 2 * $w, { acc[column] = t[column].get(); });
                whole_pair!(acc, n, multipliers, I, $w);
                each_of_pair!(column from I, below $w, { t[column].set(acc[column]); });
            });
            put_upper!(t, acc, $w, [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19]);
        }
    };
}

windows!(product_low_15, product_high_15, reduce_low_15, reduce_high_15, 15, [0 2 4 6 8 10 12 14]);
windows!(product_low_20, product_high_20, reduce_low_20, reduce_high_20, 20, [0 2 4 6 8 10 12 14 16 18]);

/// Adds the cross products of limbs `$row` and `$row + 1` of `$x` with the limbs above them, as far as
/// they reach columns below `$end`.
macro_rules! cross_pair {
    ($acc:ident, $x:ident, $row:expr, $w:expr, $end:expr) => {
        let digits = [$x[$row].get(), $x[$row + 1].get()];
        cross_pair!($acc, $x, digits, $row, $w, $end, [1 2 3 4]);
        cross_pair!($acc, $x, digits, $row, $w, $end, [5 6 7 8]);
        cross_pair!($acc, $x, digits, $row, $w, $end, [9 10 11 12]);
        cross_pair!($acc, $x, digits, $row, $w, $end, [13 14 15 16 17 18 19]);
    };
    ($acc:ident, $x:ident, $digits:ident, $row:expr, $w:expr, $end:expr, $limbs:tt) => {
        each!(J in $limbs {
            if $row < J && J < $w && $row + J < $end {
                low!($acc[$row + J], $x[J], $digits[0]);
            }
        });
        each!(J in $limbs {
            if $row + 1 < J && J < $w && $row + J + 2 < $end {
                high!($acc[$row + J + 2], $x[J], $digits[1]);
            }
        });
        each!(J in $limbs {
            if $row < J && J < $w && $row + J + 1 < $end {
                high!($acc[$row + J + 1], $x[J], $digits[0]);
            }
        });
        each!(J in $limbs {
            if $row + 1 < J && J < $w && $row + J + 1 < $end {
                low!($acc[$row + J + 1], $x[J], $digits[1]);
            }
        });
        end_pass!();
    };
}

/// Limbs in a block of a square's cross products.
pub(super) const BLOCK: usize = 10;

/// Adds the cross products `a[i] * a[j]`, `i < j`, of one block.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline(never)]
pub(super) fn triangle(t: &[Cell<Lanes>; 2 * BLOCK], a: &[Cell<Lanes>; BLOCK]) {
    let mut acc = [_mm512_setzero_si512(); 2 * BLOCK];
    each_column!(C below 2 * BLOCK, { acc[C] = t[C].get(); });
    each!(I in [0 2 4 6 8] { cross_pair!(acc, a, I, BLOCK, 2 * BLOCK); });
    each_column!(C below 2 * BLOCK, { t[C].set(acc[C]); });
}

/// Adds the products of all limbs of `a` with all limbs of `b`.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline(never)]
pub(super) fn rectangle(
    t: &[Cell<Lanes>; 2 * BLOCK],
    a: &[Cell<Lanes>; BLOCK],
    b: &[Cell<Lanes>; BLOCK],
) {
    let (mut acc, mut digits) =
        ([_mm512_setzero_si512(); 2 * BLOCK], [_mm512_setzero_si512(); BLOCK]);
    each_column!(C below 2 * BLOCK, { acc[C] = t[C].get(); });
    each!(I in [0 2 4 6 8] {
        each_of_pair!(row from I, below BLOCK, { digits[row] = a[row].get(); });
        whole_pair!(acc, b, digits, I, BLOCK);
    });
    each_column!(C below 2 * BLOCK, { t[C].set(acc[C]); });
}

// Below the macros, which it uses.
mod twenty_limbs;

pub(super) use twenty_limbs::{product_20, square_20};
