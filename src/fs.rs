//! Files that are written whole or not at all, the locks of their editors, and changes of files.

pub mod file_watch;
pub mod whole_file;
