//! State that requests change: revocations, used assertions and proofs, and counts of uses.

pub mod client_state;
mod earlier_release;
pub(crate) mod group_commit;
pub mod key_rotation;
pub mod revocations;
pub mod secret_uses;
pub(crate) mod shares;
pub mod store_health;
pub mod token_reuse;
pub mod uses;
pub mod verified_tokens;
