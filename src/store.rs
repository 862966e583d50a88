//! Where clients and keys are kept, and the snapshot of them that requests read.

pub mod client_file;
pub mod key_directory;
pub mod snapshot;
pub mod whole_file;
