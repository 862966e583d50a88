//! Where clients and keys are kept, and the snapshot of them that requests read.

pub mod client_file;
pub mod key_directory;
pub mod password_pool;
pub mod secret_uses;
pub mod snapshot;
pub mod verdicts;
pub mod whole_file;
