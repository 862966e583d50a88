//! Recognizes a file by more than its path.

use std::fs::Metadata;

/// The device and the inode number of a file; `None` on systems that have none.
pub type Identity = Option<(u64, u64)>;

/// Returns the identity of a file.
pub fn identity(metadata: &Metadata) -> Identity {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        Some((metadata.dev(), metadata.ino()))
    }
    #[cfg(not(unix))]
    {
        let _ = metadata;
        None
    }
}
