//! Vectors of eight 64-bit lanes: the only module that names the processor's instructions.
//!
//! There are two implementations of the same functions: `lanes/avx512.rs` uses the instructions
//! themselves, `lanes/portable.rs` is plain code for the memory checker. The feature `portable`
//! selects it.

#[cfg_attr(not(feature = "portable"), path = "lanes/avx512.rs")]
#[cfg_attr(feature = "portable", path = "lanes/portable.rs")]
mod vectors;

pub(crate) use vectors::*;

/// Proof that this processor can run the vector code. Only [`Supported::detect`] creates it.
#[derive(Clone, Copy)]
pub(crate) struct Supported(());

impl Supported {
    /// Returns `None` if the processor lacks an instruction that the vector code needs.
    pub(crate) fn detect() -> Option<Self> {
        is_supported().then_some(Self(()))
    }
}
