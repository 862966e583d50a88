//! State that requests change: revocations, used assertions and proofs, and counts of uses.

pub mod replay;
pub mod revocations;
pub mod secret_uses;
pub mod verified_tokens;
