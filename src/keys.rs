//! The issuer's signing keys: their files, their states over time, and the key set that publishes
//! them.

pub mod change;
pub mod directory;
pub mod jwt;
pub mod key_file;
pub mod key_set;
pub mod key_store;
pub mod life;
pub mod rotation;
pub mod signing_key;
