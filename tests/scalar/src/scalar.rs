//! The AVX-512 instructions that the batch signer uses, in plain code, under their own names.
//!
//! Each is a call that the compiler cannot look into, as little as into an instruction, and has
//! neither a branch nor an index that depends on a lane: a complaint about this file would be one
//! about itself and not about the signer.

use std::hint::black_box;

use zeroize::DefaultIsZeroes;

/// Eight lanes of 64 bits, the lowest first.
#[expect(non_camel_case_types, reason = "the name of what it stands for")]
#[derive(Clone, Copy, Default)]
pub(crate) struct __m512i([u64; 8]);

/// Four lanes of 64 bits, the lowest first.
#[expect(non_camel_case_types, reason = "the name of what it stands for")]
#[derive(Clone, Copy)]
pub(crate) struct __m256i([u64; 4]);

impl DefaultIsZeroes for __m512i {}

/// The bits of a limb that a multiplication reads.
const LOW_52: u64 = (1 << 52) - 1;

macro_rules! each_lane {
    ($($name:ident($($operand:ident),+) $result:expr;)*) => { $(
        #[inline(never)]
        pub(crate) fn $name($($operand: __m512i),+) -> __m512i {
            __m512i(std::array::from_fn(|lane| {
                $( let $operand = $operand.0[lane]; )+
                $result
            }))
        }
    )* };
}

each_lane! {
    _mm512_add_epi64(a, b) a.wrapping_add(b);
    _mm512_sub_epi64(a, b) a.wrapping_sub(b);
    _mm512_and_si512(a, b) a & b;
    _mm512_madd52lo_epu64(sum, a, b) sum.wrapping_add(product(a, b) as u64 & LOW_52);
    _mm512_madd52hi_epu64(sum, a, b) sum.wrapping_add((product(a, b) >> 52) as u64);
}

fn product(a: u64, b: u64) -> u128 {
    u128::from(a & LOW_52) * u128::from(b & LOW_52)
}

#[cfg(test)]
each_lane! {
    _mm512_xor_si512(a, b) a ^ b;
}

#[inline(never)]
pub(crate) fn _mm512_srli_epi64<const BITS: u32>(a: __m512i) -> __m512i {
    __m512i(a.0.map(|lane| lane >> BITS))
}

#[inline(never)]
pub(crate) fn _mm512_srai_epi64<const BITS: u32>(a: __m512i) -> __m512i {
    __m512i(a.0.map(|lane| (lane.cast_signed() >> BITS).cast_unsigned()))
}

#[inline(never)]
pub(crate) fn _mm512_cmpeq_epi64_mask(a: __m512i, b: __m512i) -> u8 {
    mask(|lane| a.0[lane] == b.0[lane])
}

#[inline(never)]
pub(crate) fn _mm512_cmplt_epi64_mask(a: __m512i, b: __m512i) -> u8 {
    mask(|lane| a.0[lane].cast_signed() < b.0[lane].cast_signed())
}

fn mask(is_set: impl Fn(usize) -> bool) -> u8 {
    (0..8).fold(0, |mask, lane| mask | u8::from(is_set(lane)) << lane)
}

#[inline(never)]
pub(crate) fn _mm512_mask_mov_epi64(otherwise: __m512i, mask: u8, a: __m512i) -> __m512i {
    __m512i(std::array::from_fn(|lane| {
        let keep = black_box(u64::from(mask >> lane & 1).wrapping_sub(1));
        (otherwise.0[lane] & keep) | (a.0[lane] & !keep)
    }))
}

pub(crate) fn _mm512_setzero_si512() -> __m512i {
    __m512i([0; 8])
}

pub(crate) fn _mm512_set1_epi64(lane: i64) -> __m512i {
    __m512i([lane.cast_unsigned(); 8])
}

#[expect(clippy::too_many_arguments, reason = "the instruction's")]
pub(crate) fn _mm512_set_epi64(
    h: i64,
    g: i64,
    f: i64,
    e: i64,
    d: i64,
    c: i64,
    b: i64,
    a: i64,
) -> __m512i {
    __m512i([a, b, c, d, e, f, g, h].map(i64::cast_unsigned))
}

pub(crate) fn _mm512_castsi512_si256(a: __m512i) -> __m256i {
    _mm512_extracti64x4_epi64::<0>(a)
}

pub(crate) fn _mm512_extracti64x4_epi64<const HALF: i32>(a: __m512i) -> __m256i {
    __m256i(std::array::from_fn(|lane| a.0[4 * HALF as usize + lane]))
}

pub(crate) fn _mm256_extract_epi64<const LANE: i32>(a: __m256i) -> i64 {
    a.0[LANE as usize].cast_signed()
}
