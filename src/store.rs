//! Clients, keys and revocations on disk; the snapshot of clients and keys that requests read; and
//! the state that requests share: failure budgets, caches, and the replay guard.

pub mod admin_token;
pub mod changes;
pub mod client_file;
pub mod decoy_key;
pub mod file_watch;
pub mod key_directory;
pub mod password_pool;
pub mod replay;
pub mod revocations;
pub mod secret_ends;
pub mod secret_uses;
pub mod snapshot;
pub mod throttle;
pub mod verdicts;
pub mod verified_tokens;
pub mod whole_file;
