//! State that requests change: revocations, used assertions and proofs, and counts of uses.

pub mod client_state;
pub mod replay;
pub mod revocations;
pub mod secret_uses;
pub mod token_reuse;
pub mod verified_tokens;
