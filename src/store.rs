//! Where clients, keys and revocations are kept, and the snapshot of them that requests read.

pub mod client_file;
pub mod key_directory;
pub mod revocations;
pub mod snapshot;
pub mod verified_tokens;
pub mod whole_file;
