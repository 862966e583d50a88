//! Parses request bodies into parameters: pure functions from bytes to text, borrowed from the body
//! where possible.
//!
//! The parsers of all encodings return [`parameters::Parameters`], under the same limits and rules.

pub mod json;
pub mod media_type;
pub mod multipart;
pub mod parameters;
pub mod repeated_name;
pub mod urlencoded;
