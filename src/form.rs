//! Reads request bodies into parameters: pure functions from bytes to borrowed text.
//!
//! Every encoding yields the same [`parameters::Parameters`], under the same limits and rules.

pub mod json;
pub mod media_type;
pub mod multipart;
pub mod parameters;
pub mod urlencoded;
