//! Request bodies into parameters: pure functions from bytes to borrowed text.
//!
//! Every encoding ends in the same [`parameters::Parameters`], under the same limits and rules, so
//! that nothing above this floor can tell which one a request came in.

pub mod json;
pub mod media_type;
pub mod multipart;
pub mod parameters;
pub mod urlencoded;
