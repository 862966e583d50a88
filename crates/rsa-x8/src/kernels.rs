//! The multiplications of `montgomery`, row by row. That module's documentation explains why they
//! are correct. This file is about keeping sums in registers and both multipliers of the CPU busy.
//!
//! A row is the product of all limbs of one number with one limb of the other, the row's *digit*.
//! Rows are computed in pairs, and each pair in passes of four limbs: in a pass, each limb is
//! loaded once and multiplied four times, for the low and the high half in both rows. This saves
//! loads, which matters because the other hyperthread of the core uses the same load ports. Of the
//! 32 registers, 20 hold sums.
//!
//! A kernel should compile to little more than its multiplications. These measures achieve that:
//!
//! * Macros unroll rows and columns. The compiler unrolls loops as well, but only after it has
//!   moved code within them. With macros the column numbers are constants from the start. So the
//!   accumulators are registers, and the shift by one limb after each row only renames them.
//! * The limbs that a pass reads are in [`Cell`]s, and `end_pass!` stands between passes. Otherwise
//!   the compiler would load each limb once, early, for all passes, and spill accumulators.
//! * The first steps of the next pair of rows run between the passes of the current pair. These
//!   steps take long: the multiplier of `n` for a row can be computed only when the column of that
//!   row is complete.
//! * Between two multiplications that add to the same sum, there are several that add to other
//!   sums. So no multiplication waits for the result of the previous one. Each of the final carries
//!   depends on the previous carry, so the carries start as soon as the lowest columns are
//!   complete.

use std::cell::Cell;
use std::hint::black_box;

use zeroize::Zeroize;

use crate::lanes::{self, Lanes};
use crate::radix52::LIMB_BITS;

/// A limb that is the same in all eight numbers, stored once. A load that copies these eight bytes
/// into all lanes slows the surrounding multiplications less than a load of a whole vector. It is in
/// a [`Cell`] as this module's documentation says, and is not written again until it is wiped.
pub(crate) struct SharedLimb(Cell<u64>);

impl SharedLimb {
    pub(crate) fn new(limb: u64) -> Self {
        Self(Cell::new(limb))
    }

    #[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
    #[inline]
    pub(crate) fn get(&self) -> Lanes {
        lanes::splat(self.0.get() as i64)
    }
}

impl Zeroize for SharedLimb {
    fn zeroize(&mut self) {
        self.0.get_mut().zeroize();
    }
}

/// Repeats a block for each number in a list. `$row` is the current number. In each repetition
/// `$row` is a constant, so that the block is unrolled.
#[cfg(not(feature = "portable"))]
macro_rules! each {
    ($row:ident in [$($number:literal)*] $body:block) => { $( { const $row: usize = $number; $body } )* };
}

/// Repeats a block for each number in a list, as a loop. If the portable code were unrolled, the
/// crate would take a quarter of an hour to compile.
#[cfg(feature = "portable")]
macro_rules! each {
    ($row:ident in [$($number:literal)*] $body:block) => {
        #[expect(non_snake_case, reason = "a constant where the block is unrolled")]
        for $row in [$($number),*] $body
    };
}

/// Repeats a block for each column below `$w`.
macro_rules! each_column {
    ($column:ident below $w:expr, $body:block) => {
        each!($column in [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19] {
            if $column < $w $body
        })
    };
}

/// Ends a pass: makes the compiler read each [`Cell`] again, without emitting an instruction.
macro_rules! end_pass {
    () => {
        black_box(())
    };
}

/// `$sum[$column] += low half of $x * $y`.
macro_rules! low {
    ($sum:ident[$column:expr], $x:expr, $y:expr) => {
        $sum[$column] = lanes::multiply_add_low($sum[$column], $x.get(), $y)
    };
}

/// `$sum[$column] += high half of $x * $y`.
macro_rules! high {
    ($sum:ident[$column:expr], $x:expr, $y:expr) => {
        $sum[$column] = lanes::multiply_add_high($sum[$column], $x.get(), $y)
    };
}

/// Adds the products of limbs `$limbs` of `$x` with the digits of rows `$row` and `$row + 1`. Skips
/// limbs and rows whose number is `$w` or greater.
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

/// Calls `pair!` for all limbs.
macro_rules! whole_pair {
    ($acc:ident, $x:ident, $digits:ident, $row:ident, $w:expr) => {
        pair!($acc, $x, $digits, $row, $w, [0 1 2 3]);
        pair!($acc, $x, $digits, $row, $w, [4 5 6 7]);
        pair!($acc, $x, $digits, $row, $w, [8 9 10 11]);
        pair!($acc, $x, $digits, $row, $w, [12 13 14 15]);
        pair!($acc, $x, $digits, $row, $w, [16 17 18 19]);
    };
}

/// Of the products of limbs 0 and 1 of `$x`, adds the halves that belong to column `$row + 1`. The
/// multiplier of `n` for the next row depends on these halves.
macro_rules! urgent {
    ($acc:ident, $x:ident, $digits:ident, $row:expr) => {
        high!($acc[$row + 1], $x[0], $digits[$row]);
        low!($acc[$row + 1], $x[1], $digits[$row]);
        end_pass!();
    };
}

/// Adds the remaining halves of products of limbs 1 to 3 of `$x`, which belong to columns
/// `$row + 2` to `$row + 4`.
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
        $acc[$row + 1] = lanes::add($acc[$row + 1], lanes::shift_right::<LIMB_BITS>($acc[$row]))
    };
}

/// The first part of rows `$row` and `$row + 1` of a reduction, in five steps: the multipliers of
/// both rows, and their products with limbs 0 to 3 of `n`. Step 1 needs column `$row` to be
/// complete. Rows whose number is `$w` or greater are skipped. The low half of a product with limb
/// 0 is not added, because it would only clear the column.
macro_rules! begin_reduction {
    (1, $acc:ident, $n:ident, $k0:ident, $m:ident, $row:expr, $w:expr) => {
        if $row < $w {
            $m[$row] = lanes::multiply_add_low($k0, $acc[$row], $k0);
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

/// Computes all rows of a reduction. `begin_reduction!` must have run for rows 0 and 1. Each pair
/// of rows runs the steps of `begin_reduction!` for the next pair.
///
/// `$bring!(step, row)` is called for each pair of rows with steps 0 to 3, after the multipliers of
/// both rows have been computed. It must load columns `row + $w` and `row + $w + 1`, to which no
/// earlier row adds. With 15 limbs it must have loaded them by the end of step 2, and with 20 limbs
/// by the end of step 3.
///
/// `$finish!([..])` is called with the columns that are complete, counted from column `$w`. In the
/// last pair `row` is at least `$w - 2`, so limb `j` adds to no column below `$w + j - 2`: after
/// limbs 4 to 7 the first six columns are complete.
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

/// The first part of rows `$row` and `$row + 1` of a Montgomery product, in six steps: the products
/// with limbs 0 to 3 of `a`, and the steps of `begin_reduction!`. Rows whose number is `$w` or
/// greater are skipped.
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

/// Computes the rows of the lowest window of a Montgomery product. Row `i` adds `a * b[i]` and
/// `m[i] * n`. The second product makes the low 52 bits of column `i` zero. `$bring!(row)` is
/// called once for each pair of rows. It must load columns `row + $w` and `row + $w + 1`, to which
/// no earlier row adds. `$finish` is as in `reduce!`.
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

/// Repeats a block for `$first`, and for `$first + 1` if that is below `$end`. `$number` is a
/// variable and not a constant, because `$first` is a variable if `each!` is a loop.
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

/// Stores complete columns, counted from column `$w`. Skips columns that do not exist.
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

/// Kernels for numbers that are cut into windows of `$w` limbs. Each kernel works on `2 * $w`
/// columns. A column is loaded before the first row adds to it, and stored when the column is
/// complete.
macro_rules! windows {
    ($product_low:ident, $product_high:ident, $reduce_low:ident, $reduce_high:ident, $w:literal, $pairs:tt) => {
        /// Does not store the lower half of the columns to `t`, because they are not read again.
        #[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
        #[inline(never)]
        pub(crate) fn $product_low(
            t: &[Cell<Lanes>; 2 * $w],
            multipliers: &mut [Lanes; $w],
            a: &[Cell<Lanes>; $w],
            b: &[Lanes; $w],
            n: &[SharedLimb; $w],
            k0: Lanes,
        ) {
            let (mut acc, mut m) = ([lanes::zero(); 2 * $w], [lanes::zero(); $w]);
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

        #[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
        #[inline(never)]
        pub(crate) fn $product_high(
            t: &[Cell<Lanes>; 2 * $w],
            multipliers: &[Lanes; $w],
            a: &[Cell<Lanes>; $w],
            b: &[Lanes; $w],
            n: &[SharedLimb; $w],
        ) {
            let mut acc = [lanes::zero(); 2 * $w];
            each_column!(C below $w, { acc[C] = t[C].get(); });
            each!(I in $pairs {
                each_of_pair!(column from I + $w, below 2 * $w, { acc[column] = t[column].get(); });
                whole_pair!(acc, a, b, I, $w);
                whole_pair!(acc, n, multipliers, I, $w);
                each_of_pair!(column from I, below $w, { t[column].set(acc[column]); });
            });
            put_upper!(t, acc, $w, [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19]);
        }

        /// Does not store the lower half of the columns to `t`, because they are not read again.
        #[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
        #[inline(never)]
        pub(crate) fn $reduce_low(
            t: &[Cell<Lanes>; 2 * $w],
            multipliers: &mut [Lanes; $w],
            n: &[SharedLimb; $w],
            k0: Lanes,
        ) {
            let (mut acc, mut m) = ([lanes::zero(); 2 * $w], [lanes::zero(); $w]);
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

        #[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
        #[inline(never)]
        pub(crate) fn $reduce_high(
            t: &[Cell<Lanes>; 2 * $w],
            multipliers: &[Lanes; $w],
            n: &[SharedLimb; $w],
        ) {
            let mut acc = [lanes::zero(); 2 * $w];
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

/// Adds the cross products of limbs `$row` and `$row + 1` of `$x` with the limbs above them. Skips
/// column `$end` and all columns above it.
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

/// The number of limbs in a block when a number is squared block by block.
pub(crate) const BLOCK: usize = 10;

/// Adds the cross products `a[i] * a[j]`, `i < j`, within one block.
#[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
#[inline(never)]
pub(crate) fn triangle(t: &[Cell<Lanes>; 2 * BLOCK], a: &[Cell<Lanes>; BLOCK]) {
    let mut acc = [lanes::zero(); 2 * BLOCK];
    each_column!(C below 2 * BLOCK, { acc[C] = t[C].get(); });
    each!(I in [0 2 4 6 8] { cross_pair!(acc, a, I, BLOCK, 2 * BLOCK); });
    each_column!(C below 2 * BLOCK, { t[C].set(acc[C]); });
}

/// Adds the cross products of two blocks: of all limbs of `a` with all limbs of `b`.
#[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
#[inline(never)]
pub(crate) fn rectangle(
    t: &[Cell<Lanes>; 2 * BLOCK],
    a: &[Cell<Lanes>; BLOCK],
    b: &[Cell<Lanes>; BLOCK],
) {
    let (mut acc, mut digits) = ([lanes::zero(); 2 * BLOCK], [lanes::zero(); BLOCK]);
    each_column!(C below 2 * BLOCK, { acc[C] = t[C].get(); });
    each!(I in [0 2 4 6 8] {
        each_of_pair!(row from I, below BLOCK, { digits[row] = a[row].get(); });
        whole_pair!(acc, b, digits, I, BLOCK);
    });
    each_column!(C below 2 * BLOCK, { t[C].set(acc[C]); });
}

// This module must come after the macros that it uses.
mod twenty_limbs;

pub(crate) use twenty_limbs::{product_20, square_20};
