//! The real path of a file and its directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Resolves all symbolic links in `path`. The file itself need not exist.
pub(in crate::fs) fn real_path(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::canonicalize(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            known => return known,
        }
        match fs::read_link(&path) {
            // `path` is a symbolic link to a file that does not exist yet.
            Ok(target) => path = directory_of(&path).join(target),
            Err(_) => {
                let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
                return Ok(fs::canonicalize(directory_of(&path))?.join(name));
            }
        }
    }
    Err(io::Error::other("too many symbolic links"))
}

/// The maximum number of symbolic links that are followed; the Linux kernel has the same limit.
const MAX_LINKS: usize = 40;

/// Returns the directory of `path`: `.` for a bare file name.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}
