//! File ownership. A file that root creates in another user's directory is given to that user.
//! Otherwise a server that runs as that user could not read the file.
//!
//! The owner is changed through the file descriptor, not by name. Otherwise, an attacker could put
//! another file under this name before the change, and root would give that file away.

use std::fs::{File, Metadata};
use std::io;
use std::path::Path;

/// Gives `file` the owner and group in `old`, the metadata of another file or directory.
#[cfg(unix)]
pub(super) fn keep(file: &File, old: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, fchown};
    let new = file.metadata()?;
    if (new.uid(), new.gid()) == (old.uid(), old.gid()) {
        return Ok(());
    }
    fchown(file, Some(old.uid()), Some(old.gid()))
}

/// Gives the new `file` in `directory` the owner and group of the directory, if this process runs
/// as root.
#[cfg(unix)]
pub(super) fn inherit(file: &File, directory: &Path) -> io::Result<()> {
    if !is_root() {
        return Ok(());
    }
    keep(file, &std::fs::metadata(directory)?)
}

/// Gives the new `directory` in `parent` the owner and group of `parent`, if this process runs as
/// root.
#[cfg(unix)]
pub(super) fn inherit_directory(directory: &Path, parent: &Path) -> io::Result<()> {
    use rustix::fs::{Mode, OFlags, open};
    if !is_root() {
        return Ok(());
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = File::from(open(directory, flags, Mode::empty())?);
    keep(&opened, &std::fs::metadata(parent)?)
}

/// Whether this process runs as root, which may change the owner of files.
#[cfg(unix)]
pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(not(unix))]
pub(super) fn keep(_file: &File, _old: &Metadata) -> io::Result<()> {
    Ok(())
}

#[cfg(not(unix))]
pub(super) fn inherit(_file: &File, _directory: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(not(unix))]
pub(super) fn inherit_directory(_directory: &Path, _parent: &Path) -> io::Result<()> {
    Ok(())
}
