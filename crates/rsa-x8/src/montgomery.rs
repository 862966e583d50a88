//! Montgomery arithmetic on eight numbers at once, in radix 2^52, for AVX-512 IFMA.
//!
//! A number is an array of vectors, the least significant limb first. Vector `i` holds limb `i` of
//! eight independent numbers, one in each 64-bit lane, so no operation crosses lanes. Every
//! function executes the same instructions on the same addresses for all numbers: no branch and no
//! index depends on a value. The README lists the papers.
//!
//! # Columns and carries
//!
//! IFMA multiplies the low 52 bits of two lanes and adds the low or the high 52 bits of the product
//! to a third lane. A limb that is below 2^52 is called *normal*. A *column* is the sum of all
//! these low and high halves of products that have the same weight `2^(52 i)`. It has 12 bits of
//! headroom, so carries can be deferred.
//!
//! Let `L` be the number of limbs. A column of `a * b + m * n` is the sum of at most `L` low and
//! `L` high halves of products from `a * b`, and of as many halves from `m * n`. So this sum is
//! below `4 L * 2^52`. (The square forms each cross product once and doubles the column. The sum is
//! the same.) The column also has a start value below 2^53, and it receives one carry of less than
//! 2^12 from the column below it. Because `L` is at most 40, a column stays below `2^(52 + 8)`, far
//! below 2^64, so each column needs to be carried only once. The lower `L` columns are carried when
//! their row is reduced, and the upper `L` columns are carried at the end. The carried bits need
//! not be masked off, because a multiplication ignores all bits above the low 52.
//!
//! # Carries that round up
//!
//! Reducing column `i` adds `m * n[0]` to it, with `m = column * k0 mod 2^52` and `k0 = -1/n mod
//! 2^52`. That makes the column's low 52 bits zero. So the carry is the old `column / 2^52`,
//! rounded up, and the low half of `m * n[0]` need not be computed.
//!
//! *Products.* The lower `L` columns start at `2^52 - 1` instead of 0. They hold
//! `column + 2^52 - 1`, so that a plain shift rounds up. Modulo 2^52 they hold `column - 1`, so
//! `m = k0 + (column - 1) * k0`: the multiplication that computes `m` adds to `k0` instead of 0.
//!
//! *Squares.* A square doubles its columns after the cross products have been added. This also
//! doubles their start value, to `2^53 - 2`. With a start value of `2^53 - 1`, which is `2^52` more
//! than in a product, the shift would yield the carry plus 1. The actual start value is 1 less, but
//! each column receives from the column below it a carry that is 1 too large, and the two cancel.
//! Column 0 has no column below it, so 1 is added to column 0. Column `L` starts at 0, so nothing
//! cancels the carry that is 1 too large, and 1 is subtracted from column `L`.
//!
//! # Products without a final subtraction
//!
//! With `R = 2^(52 L)`, a Montgomery product is `(a * b + m * n) / R` with `m < R`. For `a < x n`
//! and `b < y n` it is below `(x y n / R + 1) n`. All moduli here have `2^16 n <= R` (1024 bits in
//! 1040, 1536 in 1560, 2048 in 2080), so:
//!
//! * if `x y <= 2^16`, the product is below `2 n`: products of products need no subtraction;
//! * if `b = 1`, the product is at most `n`.
//!
//! Only [`Modulus::canonical`] subtracts, where a unique residue is needed.

use std::array;
use std::cell::Cell;
use std::hint::black_box;

use zeroize::ZeroizeOnDrop;

use crate::kernels::{
    BLOCK, SharedLimb, product_20, product_high_15, product_high_20, product_low_15,
    product_low_20, rectangle, reduce_high_15, reduce_high_20, reduce_low_15, reduce_low_20,
    square_20, triangle,
};
use crate::lanes::{self, Lanes};
use crate::radix52::{LIMB_BITS, LIMB_MASK, ModulusLimbs};

/// Propagates the carries through `t` once, from the lowest column to the highest, and adds `carry`
/// to the lowest column. The value of `t` must fit into `L` limbs. Columns may be negative: the
/// shift is arithmetic.
#[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
#[inline]
fn normalize<const L: usize>(t: &[Lanes; L], mut carry: Lanes) -> [Lanes; L] {
    let mask = lanes::splat(LIMB_MASK as i64);
    let mut normal = *t;
    for limb in &mut normal {
        let sum = lanes::add(*limb, carry);
        *limb = lanes::and(sum, mask);
        carry = lanes::shift_right_signed::<LIMB_BITS>(sum);
    }
    normal
}

/// Returns the limbs as cells, which the kernels take as arguments.
fn cells(limbs: &mut [Lanes]) -> &[Cell<Lanes>] {
    Cell::from_mut(limbs).as_slice_of_cells()
}

/// The number of bits of an exponent in one window. Windows of 5 bits would save a fifth of the
/// products, but would double the table and the number of entries that are read for each window.
/// They are slower: the table then fills nearly all of the first-level cache.
pub(crate) const WINDOW_BITS: usize = 4;

/// The powers of a number, beginning with power 0: one for each value of a window of the exponent.
pub(crate) type Table<const L: usize> = [[Lanes; L]; 1 << WINDOW_BITS];

/// `2 L` columns.
type Columns<const L: usize> = [[Lanes; L]; 2];

/// The `2 * $w` columns of `t` that begin at window `$window`. `t` always has these columns, so the
/// `break` is never reached.
macro_rules! window {
    ($t:ident, $w:literal, $window:expr) => {
        match $t[$window * $w..].first_chunk::<{ 2 * $w }>() {
            Some(columns) => columns,
            None => break,
        }
    };
}

/// One modulus for all eight lanes, with the constants of Montgomery reduction. All of it is wiped:
/// the modulus may be a secret prime, and each field reveals it.
#[derive(ZeroizeOnDrop)]
pub(crate) struct Modulus<const L: usize> {
    n: [SharedLimb; L],
    k0: Lanes,
    /// `R^2 mod n`.
    r2: [Lanes; L],
    /// `R^3 mod n`.
    r3: [Lanes; L],
}

impl<const L: usize> Modulus<L> {
    /// Prepares a modulus for all lanes.
    #[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
    pub(crate) fn new(limbs: &ModulusLimbs<L>) -> Self {
        const { assert!(L.is_multiple_of(20) || L.is_multiple_of(30), "windows and blocks fit") };
        Self {
            n: limbs.n.map(SharedLimb::new),
            k0: lanes::splat(limbs.k0 as i64),
            r2: broadcast(&limbs.r2),
            r3: broadcast(&limbs.r3),
        }
    }

    /// `a * b / R mod n`. Bits above the low 52 of a limb are ignored in `a` and `b`, and may be
    /// set in the result. The module's documentation gives the bounds.
    #[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
    pub(crate) fn product(&self, a: &[Lanes; L], b: &[Lanes; L]) -> [Lanes; L] {
        let mut product = *a;
        self.multiply(&mut product, b);
        product
    }

    /// `x = x * by / R mod n`.
    #[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
    #[inline]
    pub(crate) fn multiply(&self, x: &mut [Lanes; L], by: &[Lanes; L]) {
        match (cells(x).first_chunk(), by.first_chunk(), self.n.first_chunk()) {
            (Some(x), Some(by), Some(n)) if L == 20 => product_20(x, by, n, self.k0),
            _ => self.multiply_in_windows(x, by),
        }
    }

    #[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
    #[inline(never)]
    fn multiply_in_windows(&self, x: &mut [Lanes; L], by: &[Lanes; L]) {
        let mut t: Columns<L> = [[lanes::splat(LIMB_MASK as i64); L], [lanes::zero(); L]];
        let columns = cells(t.as_flattened_mut());
        macro_rules! run {
            ($low:ident, $high:ident, $w:literal) => {{
                let mut multipliers = [lanes::zero(); $w];
                let (a, _) = cells(x).as_chunks::<$w>();
                let (b, _) = by.as_chunks::<$w>();
                let (n, _) = self.n.as_chunks::<$w>();
                for (i, b) in b.iter().enumerate() {
                    $low(window!(columns, $w, i), &mut multipliers, &a[0], b, &n[0], self.k0);
                    for (j, (a, n)) in a.iter().zip(n).enumerate().skip(1) {
                        $high(window!(columns, $w, i + j), &multipliers, a, b, n);
                    }
                }
            }};
        }
        if L.is_multiple_of(20) {
            run!(product_low_20, product_high_20, 20);
        } else {
            run!(product_low_15, product_high_15, 15);
        }
        *x = normalize(&t[1], lanes::zero());
    }

    /// `x = x * x / R mod n`, with each cross product formed once.
    #[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
    #[inline]
    pub(crate) fn square(&self, x: &mut [Lanes; L]) {
        match (cells(x).first_chunk(), self.n.first_chunk()) {
            // There are no entries, so the kernel copies nothing to its last argument.
            (Some(x), Some(n)) if L == 20 => square_20(x, n, self.k0, &[], &[], x),
            _ => self.square_in_blocks(x),
        }
    }

    /// Squares `x` once for each bit of a window, and copies entry `digit` of `table` to `chosen`.
    /// With 20 limbs, a quarter of the entries is read during each square.
    #[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
    pub(crate) fn square_and_choose(
        &self,
        x: &mut [Lanes; L],
        table: &Table<L>,
        digit: u64,
        chosen: &mut [Lanes; L],
    ) {
        const ENTRIES: usize = (1 << WINDOW_BITS) / WINDOW_BITS;
        const { assert!(ENTRIES * WINDOW_BITS == 1 << WINDOW_BITS, "all entries are visited") };
        match (cells(x).first_chunk(), self.n.first_chunk(), cells(chosen).first_chunk()) {
            (Some(x), Some(n), Some(chosen)) if L == 20 => {
                // `black_box` is needed here for the same reason as in `select`.
                let digit = black_box(digit);
                let masks: [u8; 1 << WINDOW_BITS] =
                    array::from_fn(|number| mask(number as u64, digit));
                let (masks, _) = masks.as_chunks::<ENTRIES>();
                let (table, _) = table.as_flattened().as_chunks::<20>();
                for (entries, masks) in table.as_chunks::<ENTRIES>().0.iter().zip(masks) {
                    square_20(x, n, self.k0, entries, masks, chosen);
                }
            }
            _ => {
                for _ in 0..WINDOW_BITS {
                    self.square_in_blocks(x);
                }
                select(table, digit, chosen);
            }
        }
    }

    #[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
    #[inline(never)]
    fn square_in_blocks(&self, x: &mut [Lanes; L]) {
        let mut t: Columns<L> = [[lanes::splat(LIMB_MASK as i64); L], [lanes::zero(); L]];
        let columns = cells(t.as_flattened_mut());
        let (blocks, _) = cells(x).as_chunks::<BLOCK>();
        for (i, a) in blocks.iter().enumerate() {
            triangle(window!(columns, 10, 2 * i), a);
            for (j, b) in blocks.iter().enumerate().skip(i + 1) {
                rectangle(window!(columns, 10, i + j), a, b);
            }
        }
        for (pair, a) in t.as_flattened_mut().as_chunks_mut::<2>().0.iter_mut().zip(&*x) {
            pair[0] = lanes::multiply_add_low(lanes::add(pair[0], pair[0]), *a, *a);
            pair[1] = lanes::multiply_add_high(lanes::add(pair[1], pair[1]), *a, *a);
        }
        // Column 0 has no column below it and receives no carry that is 1 too large, so 1 is added
        // to column 0 here.
        t[0][0] = lanes::add(t[0][0], lanes::splat(1));
        *x = self.reduce_square(&mut t);
    }

    #[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
    #[inline]
    fn reduce_square(&self, t: &mut Columns<L>) -> [Lanes; L] {
        let columns = cells(t.as_flattened_mut());
        macro_rules! run {
            ($low:ident, $high:ident, $w:literal) => {{
                let mut multipliers = [lanes::zero(); $w];
                let (n, _) = self.n.as_chunks::<$w>();
                for i in 0..n.len() {
                    $low(window!(columns, $w, i), &mut multipliers, &n[0], self.k0);
                    for (j, n) in n.iter().enumerate().skip(1) {
                        $high(window!(columns, $w, i + j), &multipliers, n);
                    }
                }
            }};
        }
        if L.is_multiple_of(20) {
            run!(reduce_low_20, reduce_high_20, 20);
        } else {
            run!(reduce_low_15, reduce_high_15, 15);
        }
        normalize(&t[1], lanes::splat(-1))
    }

    /// Returns `x R mod n`, which is `x` in the Montgomery domain. The result is below `2 n` for
    /// any `x` of `L` limbs.
    #[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
    pub(crate) fn enter(&self, x: &[Lanes; L]) -> [Lanes; L] {
        self.product(x, &self.r2)
    }

    /// Returns `x R mod n`, which is `x` in the Montgomery domain, for `x = low + R high`. The
    /// result is below `4 n` for any `low` and `high` of `L` limbs.
    #[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
    pub(crate) fn enter_wide(&self, low: &[Lanes; L], high: &[Lanes; L]) -> [Lanes; L] {
        add(&self.enter(low), &self.product(high, &self.r3))
    }

    /// Returns `x / R mod n`: takes `x` out of the Montgomery domain. The result is at least 0 and
    /// at most `n`.
    #[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
    pub(crate) fn leave(&self, x: &[Lanes; L]) -> [Lanes; L] {
        self.product(x, &one())
    }

    /// `R mod n`: the number 1 in the Montgomery domain.
    #[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
    pub(crate) fn one(&self) -> [Lanes; L] {
        self.leave(&self.r2)
    }

    /// `x mod n`, for `x < 2 n`.
    #[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
    pub(crate) fn canonical(&self, x: &[Lanes; L]) -> [Lanes; L] {
        let zero = lanes::zero();
        let mask = lanes::splat(LIMB_MASK as i64);
        let (mut x, mut reduced, mut borrow) = (*x, [zero; L], zero);
        for ((x, reduced), n) in x.iter_mut().zip(&mut reduced).zip(&self.n) {
            *x = lanes::and(*x, mask);
            let sum = lanes::add(lanes::subtract(*x, n.get()), borrow);
            borrow = lanes::shift_right_signed::<LIMB_BITS>(sum);
            *reduced = lanes::and(sum, mask);
        }
        let negative = lanes::less(borrow, zero);
        for (reduced, x) in reduced.iter_mut().zip(&x) {
            *reduced = lanes::blend(*reduced, negative, *x);
        }
        reduced
    }

    /// `a + 2 n - b`, for `b < 2 n`.
    #[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
    pub(crate) fn difference(&self, a: &[Lanes; L], b: &[Lanes; L]) -> [Lanes; L] {
        let mut t = *a;
        for ((t, n), b) in t.iter_mut().zip(&self.n).zip(b) {
            *t = lanes::subtract(lanes::add(*t, lanes::add(n.get(), n.get())), *b);
        }
        normalize(&t, lanes::zero())
    }
}

/// Eight copies of a number.
#[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
pub(crate) fn broadcast<const L: usize>(limbs: &[u64; L]) -> [Lanes; L] {
    let mut lanes = [lanes::zero(); L];
    for (lanes, limb) in lanes.iter_mut().zip(limbs) {
        *lanes = lanes::splat(*limb as i64);
    }
    lanes
}

#[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
pub(crate) fn one<const L: usize>() -> [Lanes; L] {
    let mut one = [lanes::zero(); L];
    one[0] = lanes::splat(1);
    one
}

/// `a + b`, which must fit into `L` limbs. Bits above the low 52 of a limb are ignored.
#[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
pub(crate) fn add<const L: usize>(a: &[Lanes; L], b: &[Lanes; L]) -> [Lanes; L] {
    let mask = lanes::splat(LIMB_MASK as i64);
    let mut sum = *a;
    for (sum, b) in sum.iter_mut().zip(b) {
        *sum = lanes::add(lanes::and(*sum, mask), lanes::and(*b, mask));
    }
    normalize(&sum, lanes::zero())
}

/// `a * b + c`, in `D = 2 L` limbs.
#[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
pub(crate) fn multiply_add<const L: usize, const D: usize>(
    a: &[Lanes; L],
    b: &[Lanes; L],
    c: &[Lanes; L],
) -> [Lanes; D] {
    let mut t = [lanes::zero(); D];
    t[..L].copy_from_slice(c);
    for (i, digit) in a.iter().enumerate() {
        for (j, b) in b.iter().enumerate() {
            t[i + j] = lanes::multiply_add_low(t[i + j], *b, *digit);
            t[i + j + 1] = lanes::multiply_add_high(t[i + j + 1], *b, *digit);
        }
    }
    normalize(&t, lanes::zero())
}

/// The lanes in which two numbers in normal limbs are equal, one bit each.
#[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
pub(crate) fn equal<const L: usize>(a: &[Lanes; L], b: &[Lanes; L]) -> u8 {
    a.iter().zip(b).fold(u8::MAX, |equal, (a, b)| equal & lanes::equal(*a, *b))
}

/// Copies entry `digit` of a table into `chosen`. Always reads all of every entry, so that the
/// addresses do not depend on the digit.
///
/// For each limb, the lower two bits of the digit choose one entry of each group of four. Then the
/// upper two bits of the digit choose one of these four entries. So the whole table needs only six
/// masks. The limbs are finished one by one, so the first limbs can be used early.
#[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
#[inline(never)]
pub(crate) fn select<const L: usize>(table: &Table<L>, digit: u64, chosen: &mut [Lanes; L]) {
    const { assert!(WINDOW_BITS == 4, "four groups of four entries") };
    // Without `black_box`, the compiler would see that all lanes of a mask are equal, and might
    // branch on the mask.
    let (lower, upper) = (masks(black_box(digit & 3)), masks(black_box(digit >> 2)));
    for (limb, chosen) in chosen.iter_mut().enumerate() {
        let entry = |number: usize| table[number][limb];
        let one_of = |first: usize| {
            let four = [entry(first), entry(first + 1), entry(first + 2), entry(first + 3)];
            one_of_four(&four, &lower)
        };
        *chosen = one_of_four(&[one_of(0), one_of(4), one_of(8), one_of(12)], &upper);
    }
}

/// For each lane, takes the lane of vector 1, 2 or 3 if the mask of that vector is set, otherwise
/// the lane of vector 0.
#[cfg_attr(not(feature = "portable"), target_feature(enable = "avx512f,avx512ifma"))]
#[inline]
fn one_of_four(four: &[Lanes; 4], masks: &[u8; 3]) -> Lanes {
    let mut one = four[0];
    for (other, mask) in four[1..].iter().zip(masks) {
        one = lanes::blend(one, *mask, *other);
    }
    one
}

/// Returns the [`mask`]s for the numbers 1, 2 and 3.
fn masks(digit: u64) -> [u8; 3] {
    [1, 2, 3].map(|number| mask(number, digit))
}

/// Returns all ones if the number equals the digit, and zero otherwise. There is no comparison,
/// because the compiler could turn it into a branch.
fn mask(number: u64, digit: u64) -> u8 {
    ((number ^ digit).wrapping_sub(1) >> 56) as u8
}
