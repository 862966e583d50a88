//! Where clients and keys are kept, the snapshot of them that requests read, and what may be used
//! once.

pub mod client_file;
pub mod key_directory;
pub mod replay;
pub mod snapshot;
pub mod whole_file;
