//! The vectors, implemented with the instructions of AVX-512 F and IFMA.
//!
//! Most functions are the intrinsics under other names. With a wrapper around each, the code would
//! be fast only if the compiler inlined all wrappers.

#[cfg(test)]
pub(crate) use std::arch::x86_64::_mm512_xor_si512 as xor;
pub(crate) use std::arch::x86_64::{
    __m512i as Lanes, _mm512_add_epi64 as add, _mm512_and_si512 as and,
    _mm512_cmpeq_epi64_mask as equal, _mm512_cmplt_epi64_mask as less,
    _mm512_madd52hi_epu64 as multiply_add_high, _mm512_madd52lo_epu64 as multiply_add_low,
    _mm512_mask_mov_epi64 as blend, _mm512_set1_epi64 as splat, _mm512_setzero_si512 as zero,
    _mm512_srai_epi64 as shift_right_signed, _mm512_srli_epi64 as shift_right,
    _mm512_sub_epi64 as subtract,
};
use std::arch::x86_64::{
    _mm256_extract_epi64, _mm512_castsi512_si256, _mm512_extracti64x4_epi64, _mm512_set_epi64,
};

use crate::BATCH;

/// Whether the processor has AVX-512 F and IFMA.
pub(super) fn is_supported() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512ifma")
}

/// Returns a vector of these lanes, given with the lowest first.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
pub(crate) fn from_array([a, b, c, d, e, f, g, h]: [u64; BATCH]) -> Lanes {
    let [a, b, c, d, e, f, g, h] = [a, b, c, d, e, f, g, h].map(u64::cast_signed);
    _mm512_set_epi64(h, g, f, e, d, c, b, a)
}

/// Returns the lanes of a vector, the lowest first.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
pub(crate) fn to_array(lanes: Lanes) -> [u64; BATCH] {
    let (low, high) = (_mm512_castsi512_si256(lanes), _mm512_extracti64x4_epi64::<1>(lanes));
    [
        _mm256_extract_epi64::<0>(low),
        _mm256_extract_epi64::<1>(low),
        _mm256_extract_epi64::<2>(low),
        _mm256_extract_epi64::<3>(low),
        _mm256_extract_epi64::<0>(high),
        _mm256_extract_epi64::<1>(high),
        _mm256_extract_epi64::<2>(high),
        _mm256_extract_epi64::<3>(high),
    ]
    .map(i64::cast_unsigned)
}
