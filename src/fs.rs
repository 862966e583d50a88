//! Files that are written whole or not at all, files that processes append to in turn, the locks of
//! both, and changes of files.

pub mod file_watch;
pub mod identity;
pub mod shared_log;
pub mod whole_file;
