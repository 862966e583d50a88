//! Montgomery arithmetic on eight numbers at once, in radix 2^52, for AVX-512 IFMA.
//!
//! A number is an array of vectors, least significant limb first. Vector `i` holds limb `i` of eight
//! independent numbers, one in each 64-bit lane, so nothing ever crosses lanes. All functions run
//! the same instructions on the same addresses whatever the numbers are: there is no branch and no
//! index that depends on a value.
//!
//! # Why 2^52
//!
//! `VPMADD52LUQ` and `VPMADD52HUQ` multiply the low 52 bits of each lane and add the low or the high
//! 52 bits of the product to a 64-bit lane. A *normal* limb is below 2^52; a column that sums such
//! halves has 12 bits of headroom, so carries can wait (Gueron and Krasnov, "Software implementation
//! of modular exponentiation, using advanced vector instructions architectures", WAIFI 2012;
//! Drucker and Gueron, "Fast modular squaring with AVX512IFMA", 2018).
//!
//! # When carries happen
//!
//! Let `L` be the number of limbs. A column of `a * b + m * n` gets one low and one high half from
//! each of at most `L` limb products of `a * b` and as many of `m * n`: below `4 * L * 2^52`. (The
//! square forms each cross product once and doubles the column: the same sum.) One carry comes in
//! from the column below it, itself below `2^12`. No modulus here has more than 40 limbs, so a column
//! stays below `2^(52 + 8)`, far from 2^64, and is carried exactly once: when its row is reduced (the
//! lower `L` columns), or at the end (the upper ones). Nothing need be masked off then: a
//! multiplication reads 52 bits of each limb and no more, and what is above has been carried.
//!
//! Reducing column `i` adds `m * n[0]`, with `m = column * k0 mod 2^52` and `k0 = -1/n mod 2^52`. The
//! sum's low 52 bits are zero by construction, so what it carries is `column / 2^52` rounded up,
//! and that product need not be formed.
//!
//! Rounding up is free as well: the lower `L` columns start at `2^52 - 1` and not at zero, so that
//! they hold `column + 2^52 - 1`, and a shift rounds up. Modulo 2^52 they are one less than the
//! column then, so `m = k0 + (column - 1) * k0`: its multiplication adds to `k0` and not to zero.
//!
//! A square doubles its columns, and with them what they started at: `2^53 - 2`. The shift would
//! do with one more, and yields one too much: `(column + 2^53 - 1) / 2^52`, rounded down, is the
//! carry and 1. Each lacks what the one below it has too much of. Column 0 has none below it and is
//! given the 1, and column `L`, which lacks nothing, has it taken away.
//!
//! # Why the final subtraction can wait
//!
//! With `R = 2^(52 L)`, a Montgomery product is `(a * b + m * n) / R` with `m < R`. Walter ("Montgomery
//! exponentiation needs no final subtractions", Electronics Letters 35, 1999) and Gueron ("Enhanced
//! Montgomery multiplication", CHES 2002) observe that `R > 4 n` and `a, b < 2 n` give a result below
//! `2 n` again. The moduli here leave much more room: `2^16 n < R` at least (1024 bits in 1040, 1536 in
//! 1560, 2048 in 2080). For `a < x n` and `b < y n` the result is below `(x y n / R + 1) n`, so whatever
//! has `x y <= 2^16` comes out below `2 n`, and for `b = 1` it comes out at most `n`. Only
//! [`Modulus::canonical`] subtracts, once, where a unique residue is needed.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_and_si512, _mm512_cmpeq_epi64_mask, _mm512_cmplt_epi64_mask,
    _mm512_madd52hi_epu64, _mm512_madd52lo_epu64, _mm512_mask_mov_epi64, _mm512_set1_epi64,
    _mm512_setzero_si512, _mm512_srai_epi64, _mm512_sub_epi64,
};
use std::array;
use std::cell::Cell;
use std::hint::black_box;

use zeroize::Zeroize;

use crate::signing::kernel52::{
    BLOCK, SharedLimb, product_20, product_high_15, product_high_20, product_low_15,
    product_low_20, rectangle, reduce_high_15, reduce_high_20, reduce_low_15, reduce_low_20,
    square_20, triangle,
};
use crate::signing::radix52::{LIMB_BITS, LIMB_MASK, ModulusLimbs};

/// One limb of eight numbers.
pub(super) type Lanes = __m512i;

/// Carries once through `t`, whose value fits into `L` limbs, from `carry` into the lowest. Columns
/// may be negative: the shift is arithmetic.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
fn normalize<const L: usize>(t: &[Lanes; L], mut carry: Lanes) -> [Lanes; L] {
    let mask = _mm512_set1_epi64(LIMB_MASK as i64);
    let mut normal = *t;
    for limb in &mut normal {
        let sum = _mm512_add_epi64(*limb, carry);
        *limb = _mm512_and_si512(sum, mask);
        carry = _mm512_srai_epi64::<LIMB_BITS>(sum);
    }
    normal
}

/// Limbs in cells, as `kernel52` wants them.
fn cells(limbs: &mut [Lanes]) -> &[Cell<Lanes>] {
    Cell::from_mut(limbs).as_slice_of_cells()
}

/// Bits of an exponent that one table entry stands for. 5 would save a fifth of the products and
/// copy twice the entries for each: slower, as the table takes nearly all of the first-level cache.
pub(super) const WINDOW_BITS: usize = 4;

/// The powers of a number that a window of the exponent chooses from.
pub(super) type Table<const L: usize> = [[Lanes; L]; 1 << WINDOW_BITS];

/// `2 L` columns.
type Columns<const L: usize> = [[Lanes; L]; 2];

/// `2 * $w` columns of `t` from window `$window` on. The callers' loops end before `t` does.
macro_rules! window {
    ($t:ident, $w:literal, $window:expr) => {
        match $t[$window * $w..].first_chunk::<{ 2 * $w }>() {
            Some(columns) => columns,
            None => break,
        }
    };
}

/// One modulus for all eight lanes, with what reduction by it needs.
pub(super) struct Modulus<const L: usize> {
    n: [SharedLimb; L],
    k0: Lanes,
    /// `R^2 mod n` and `R^3 mod n`.
    r2: [Lanes; L],
    r3: [Lanes; L],
}

/// The modulus may be a secret prime, and what is known modulo one gives it away.
impl<const L: usize> Drop for Modulus<L> {
    fn drop(&mut self) {
        self.n.zeroize();
        self.k0.zeroize();
        self.r2.zeroize();
        self.r3.zeroize();
    }
}

impl<const L: usize> Modulus<L> {
    /// Prepares a modulus for all lanes.
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn new(limbs: &ModulusLimbs<L>) -> Self {
        const { assert!(L.is_multiple_of(20) || L.is_multiple_of(30), "windows and blocks fit") };
        Self {
            n: limbs.n.map(SharedLimb::new),
            k0: _mm512_set1_epi64(limbs.k0 as i64),
            r2: broadcast(&limbs.r2),
            r3: broadcast(&limbs.r3),
        }
    }

    /// `a * b / R mod n`. Limbs may have bits above the 52 that count, in and out; the size is the
    /// module's matter.
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn product(&self, a: &[Lanes; L], b: &[Lanes; L]) -> [Lanes; L] {
        let mut product = *a;
        self.multiply(&mut product, b);
        product
    }

    /// `x = x * by / R mod n`.
    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    pub(super) fn multiply(&self, x: &mut [Lanes; L], by: &[Lanes; L]) {
        match (cells(x).first_chunk(), by.first_chunk(), self.n.first_chunk()) {
            (Some(x), Some(by), Some(n)) if L == 20 => product_20(x, by, n, self.k0),
            _ => self.multiply_in_windows(x, by),
        }
    }

    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline(never)]
    fn multiply_in_windows(&self, x: &mut [Lanes; L], by: &[Lanes; L]) {
        let mut t: Columns<L> =
            [[_mm512_set1_epi64(LIMB_MASK as i64); L], [_mm512_setzero_si512(); L]];
        let columns = cells(t.as_flattened_mut());
        macro_rules! run {
            ($low:ident, $high:ident, $w:literal) => {{
                let mut multipliers = [_mm512_setzero_si512(); $w];
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
        *x = normalize(&t[1], _mm512_setzero_si512());
    }

    /// `x = x * x / R mod n`, with each cross product formed once.
    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    pub(super) fn square(&self, x: &mut [Lanes; L]) {
        match (cells(x).first_chunk(), self.n.first_chunk()) {
            // With nothing to choose from, nothing is copied to where the choice would go.
            (Some(x), Some(n)) if L == 20 => square_20(x, n, self.k0, &[], &[], x),
            _ => self.square_in_blocks(x),
        }
    }

    /// Squares `x` once for each bit of a window, and copies the window's entry of `table` to `chosen`.
    /// 20 limbs do both at once, a quarter of the entries in each square.
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn square_and_choose(
        &self,
        x: &mut [Lanes; L],
        table: &Table<L>,
        digit: u64,
        chosen: &mut [Lanes; L],
    ) {
        const ENTRIES: usize = (1 << WINDOW_BITS) / WINDOW_BITS;
        const { assert!(ENTRIES * WINDOW_BITS == 1 << WINDOW_BITS, "no entry is left out") };
        match (cells(x).first_chunk(), self.n.first_chunk(), cells(chosen).first_chunk()) {
            (Some(x), Some(n), Some(chosen)) if L == 20 => {
                // Opaque, as in `select`.
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

    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline(never)]
    fn square_in_blocks(&self, x: &mut [Lanes; L]) {
        let mut t: Columns<L> =
            [[_mm512_set1_epi64(LIMB_MASK as i64); L], [_mm512_setzero_si512(); L]];
        let columns = cells(t.as_flattened_mut());
        let (blocks, _) = cells(x).as_chunks::<BLOCK>();
        for (i, a) in blocks.iter().enumerate() {
            triangle(window!(columns, 10, 2 * i), a);
            for (j, b) in blocks.iter().enumerate().skip(i + 1) {
                rectangle(window!(columns, 10, i + j), a, b);
            }
        }
        for (pair, a) in t.as_flattened_mut().as_chunks_mut::<2>().0.iter_mut().zip(&*x) {
            pair[0] = _mm512_madd52lo_epu64(_mm512_add_epi64(pair[0], pair[0]), *a, *a);
            pair[1] = _mm512_madd52hi_epu64(_mm512_add_epi64(pair[1], pair[1]), *a, *a);
        }
        // The 1 that column 0 lacks.
        t[0][0] = _mm512_add_epi64(t[0][0], _mm512_set1_epi64(1));
        *x = self.reduce_square(&mut t);
    }

    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    fn reduce_square(&self, t: &mut Columns<L>) -> [Lanes; L] {
        let columns = cells(t.as_flattened_mut());
        macro_rules! run {
            ($low:ident, $high:ident, $w:literal) => {{
                let mut multipliers = [_mm512_setzero_si512(); $w];
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
        normalize(&t[1], _mm512_set1_epi64(-1))
    }

    /// Into the Montgomery domain: `x R mod n`, below `2 n`, for any `x` of `L` limbs.
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn enter(&self, x: &[Lanes; L]) -> [Lanes; L] {
        self.product(x, &self.r2)
    }

    /// Into the Montgomery domain: `x R mod n`, below `4 n`, for any `x = low + R high`.
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn enter_wide(&self, low: &[Lanes; L], high: &[Lanes; L]) -> [Lanes; L] {
        add(&self.enter(low), &self.product(high, &self.r3))
    }

    /// Out of the Montgomery domain: `x / R mod n`, between 0 and `n`.
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn leave(&self, x: &[Lanes; L]) -> [Lanes; L] {
        self.product(x, &one())
    }

    /// `R mod n`: one, in the Montgomery domain.
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn one(&self) -> [Lanes; L] {
        self.leave(&self.r2)
    }

    /// The residue below `n` of an `x` below `2 n`.
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn canonical(&self, x: &[Lanes; L]) -> [Lanes; L] {
        let zero = _mm512_setzero_si512();
        let mask = _mm512_set1_epi64(LIMB_MASK as i64);
        let (mut x, mut reduced, mut borrow) = (*x, [zero; L], zero);
        for ((x, reduced), n) in x.iter_mut().zip(&mut reduced).zip(&self.n) {
            *x = _mm512_and_si512(*x, mask);
            let sum = _mm512_add_epi64(_mm512_sub_epi64(*x, n.get()), borrow);
            borrow = _mm512_srai_epi64::<LIMB_BITS>(sum);
            *reduced = _mm512_and_si512(sum, mask);
        }
        let negative = _mm512_cmplt_epi64_mask(borrow, zero);
        for (reduced, x) in reduced.iter_mut().zip(&x) {
            *reduced = _mm512_mask_mov_epi64(*reduced, negative, *x);
        }
        reduced
    }

    /// `a + 2 n - b`, for `b < 2 n`.
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn difference(&self, a: &[Lanes; L], b: &[Lanes; L]) -> [Lanes; L] {
        let mut t = *a;
        for ((t, n), b) in t.iter_mut().zip(&self.n).zip(b) {
            *t = _mm512_sub_epi64(_mm512_add_epi64(*t, _mm512_add_epi64(n.get(), n.get())), *b);
        }
        normalize(&t, _mm512_setzero_si512())
    }
}

/// Eight copies of a number.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn broadcast<const L: usize>(limbs: &[u64; L]) -> [Lanes; L] {
    let mut lanes = [_mm512_setzero_si512(); L];
    for (lanes, limb) in lanes.iter_mut().zip(limbs) {
        *lanes = _mm512_set1_epi64(*limb as i64);
    }
    lanes
}

#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn one<const L: usize>() -> [Lanes; L] {
    let mut one = [_mm512_setzero_si512(); L];
    one[0] = _mm512_set1_epi64(1);
    one
}

/// `a + b`, which fits into `L` limbs. Those of `a` and `b` may have bits above the 52 that count.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn add<const L: usize>(a: &[Lanes; L], b: &[Lanes; L]) -> [Lanes; L] {
    let mask = _mm512_set1_epi64(LIMB_MASK as i64);
    let mut sum = *a;
    for (sum, b) in sum.iter_mut().zip(b) {
        *sum = _mm512_add_epi64(_mm512_and_si512(*sum, mask), _mm512_and_si512(*b, mask));
    }
    normalize(&sum, _mm512_setzero_si512())
}

/// `a * b + c`, in full: `D = 2 L` limbs.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn multiply_add<const L: usize, const D: usize>(
    a: &[Lanes; L],
    b: &[Lanes; L],
    c: &[Lanes; L],
) -> [Lanes; D] {
    let mut t = [_mm512_setzero_si512(); D];
    t[..L].copy_from_slice(c);
    for (i, digit) in a.iter().enumerate() {
        for (j, b) in b.iter().enumerate() {
            t[i + j] = _mm512_madd52lo_epu64(t[i + j], *b, *digit);
            t[i + j + 1] = _mm512_madd52hi_epu64(t[i + j + 1], *b, *digit);
        }
    }
    normalize(&t, _mm512_setzero_si512())
}

/// The lanes in which two numbers, in normal limbs, are the same; one bit each.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn equal<const L: usize>(a: &[Lanes; L], b: &[Lanes; L]) -> u8 {
    a.iter().zip(b).fold(u8::MAX, |equal, (a, b)| equal & _mm512_cmpeq_epi64_mask(*a, *b))
}

/// Copies entry `digit` of a table into `chosen`, reading every entry whole.
///
/// Limb by limb: one of each four entries by the digit's lower two bits, then one of these four by
/// the upper two. So six masks do for the whole table, and the first limbs are there long before the
/// last.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline(never)]
pub(super) fn select<const L: usize>(table: &Table<L>, digit: u64, chosen: &mut [Lanes; L]) {
    const { assert!(WINDOW_BITS == 4, "four by four entries") };
    // Opaque, or the compiler knows that all lanes are alike and may branch on one of them.
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

/// The one that has a mask, or the first.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
fn one_of_four(four: &[Lanes; 4], masks: &[u8; 3]) -> Lanes {
    let mut one = four[0];
    for (other, mask) in four[1..].iter().zip(masks) {
        one = _mm512_mask_mov_epi64(one, *mask, *other);
    }
    one
}

/// For 1, 2 and 3.
fn masks(digit: u64) -> [u8; 3] {
    [1, 2, 3].map(|number| mask(number, digit))
}

/// All ones if the number is the digit; without asking.
fn mask(number: u64, digit: u64) -> u8 {
    ((number ^ digit).wrapping_sub(1) >> 56) as u8
}
