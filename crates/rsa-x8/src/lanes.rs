//! Vectors of eight 64-bit lanes: the only module that names the processor's instructions.
//!
//! There are two implementations of the same functions: [`avx512`] uses the instructions
//! themselves, [`portable`] is plain code for the memory checker. The feature `portable` selects
//! it.

#[cfg(not(feature = "portable"))]
mod avx512;
#[cfg(feature = "portable")]
mod portable;

#[cfg(not(feature = "portable"))]
pub(crate) use avx512::*;
#[cfg(feature = "portable")]
pub(crate) use portable::*;

/// Proof that this processor can run the vector code. Only [`Supported::detect`] creates it.
#[derive(Clone, Copy)]
pub(crate) struct Supported(());

impl Supported {
    /// Returns `None` if the processor lacks an instruction that the vector code needs.
    pub(crate) fn detect() -> Option<Self> {
        is_supported().then_some(Self(()))
    }
}
