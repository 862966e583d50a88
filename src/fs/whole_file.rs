//! Atomic file writes: a file is replaced as a whole or not at all, even if the machine crashes.

mod lock;
mod owner;
mod place;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

pub(crate) use crate::fs::whole_file::lock::open_regular;
pub use crate::fs::whole_file::lock::{
    Lock, LockFile, check_lock, lock, lock_directory, lock_if_used, lock_within,
};
pub(crate) use crate::fs::whole_file::place::directory_of;
use crate::fs::whole_file::place::real_path;

/// Replaces the contents of the file `path` with `contents`, and syncs the file to disk.
///
/// The new file has the owner and permissions of the old file. If there was no old file, the new
/// file has mode 0600. If the process runs as root, the owner of such a file is set to the owner of
/// its directory. Symbolic links are followed: the target is replaced. The caller must hold the
/// lock of the file: temporary files of killed processes are removed.
///
/// # Errors
///
/// An error of the operating system. If the sync of the directory fails, the old file has already
/// been replaced. After any other error, the old file is unchanged.
pub fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    replace_unresolved(&real_path(path)?, contents)
}

/// Like [`replace`], for a `path` that is no symbolic link. A link would itself be replaced.
pub(in crate::fs) fn replace_unresolved(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut replacement = Replacement::begin(path)?;
    replacement.file().write_all(contents)?;
    if let Ok(metadata) = fs::symlink_metadata(path) {
        owner::keep(replacement.file(), &metadata)?;
        replacement.file().set_permissions(metadata.permissions())?;
    }
    replacement.finish().map(drop)
}

/// A file that is written in parts beside the file that it replaces as a whole. It has mode 0600. It
/// is removed if it is dropped before.
#[derive(Debug)]
pub(crate) struct Replacement {
    file: NamedTempFile,
    path: PathBuf,
}

impl Replacement {
    /// Begins the file that replaces `path`, which is no symbolic link: a link would itself be
    /// replaced. The caller must hold the lock of the file, as for [`replace`].
    pub(crate) fn begin(path: &Path) -> io::Result<Self> {
        if is_mount(path) {
            // A rename to a mount point would fail with the same error. Fail before the temporary
            // file is written.
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        remove_leftovers(path);
        Ok(Self { file: create_beside(path)?, path: path.to_owned() })
    }

    pub(crate) fn file(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    /// Syncs the file to disk and puts it in place. Returns it, still open to read and write.
    pub(crate) fn finish(self) -> io::Result<File> {
        self.file.as_file().sync_all()?;
        let file = self.file.persist(&self.path)?;
        sync_directory(&self.path)?;
        Ok(file)
    }
}

/// Creates the file `path` with mode 0600 and syncs it to disk. If the process runs as root, the
/// owner of the file is set to the owner of its directory.
///
/// # Errors
///
/// `AlreadyExists` if `path` exists; otherwise an error of the operating system.
pub fn create(path: &Path, contents: &[u8]) -> io::Result<()> {
    write_beside(path, contents)?.persist_noclobber(path)?;
    sync_directory(path)
}

/// Checks that the file `path` could be replaced, by writing a temporary file that is removed again.
///
/// # Errors
///
/// An error of the operating system.
pub fn try_beside(path: &Path) -> io::Result<()> {
    write_beside(path, &[0; 4096]).map(drop)
}

/// Checks that this user may read the file `path`. A missing file is no error.
///
/// # Errors
///
/// An error of the operating system.
pub fn require_readable(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    require(path, rustix::fs::Access::READ_OK)?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Checks that this user may make files in `directory`. A missing directory is no error.
///
/// # Errors
///
/// An error of the operating system.
pub fn require_writable_directory(directory: &Path) -> io::Result<()> {
    #[cfg(unix)]
    require(directory, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)?;
    #[cfg(not(unix))]
    let _ = directory;
    Ok(())
}

#[cfg(unix)]
fn require(path: &Path, access: rustix::fs::Access) -> io::Result<()> {
    match rustix::fs::access(path, access) {
        Err(rustix::io::Errno::NOENT) => Ok(()),
        allowed => Ok(allowed?),
    }
}

/// Renames a file within its directory and syncs the directory. A file that exists at `to` is
/// replaced.
///
/// # Errors
///
/// An error of the operating system.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_directory(to)
}

/// Creates `directory` and its missing parents with mode 0700, and syncs them to disk. An existing
/// directory is not changed. If the process runs as root, the owner of each new directory is set to
/// the owner of its parent.
///
/// # Errors
///
/// An error of the operating system.
pub fn create_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = directory_of(directory);
    create_directory(parent)?;
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(directory) {
        Ok(()) => owner::inherit_directory(directory, parent)?,
        // Another process has created the directory at the same time.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => {}
        Err(error) => return Err(error),
    }
    sync_directory(directory)
}

/// Whether `path` is a mount point. `false` if the operating system does not tell.
fn is_mount(path: &Path) -> bool {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
        statx(CWD, path, AtFlags::empty(), StatxFlags::empty())
            .is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = path;
        false
    }
}

/// Whether the file has another hard link. If the file is replaced under this name, the other link
/// keeps the old contents.
pub fn has_other_names(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.nlink() > 1)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        false
    }
}

/// Writes `contents` to a temporary file in the directory of `path`. The crate `tempfile` creates
/// such files with mode 0600.
fn write_beside(path: &Path, contents: &[u8]) -> io::Result<NamedTempFile> {
    let mut file = create_beside(path)?;
    file.write_all(contents)?;
    file.as_file().sync_all()?;
    Ok(file)
}

fn create_beside(path: &Path) -> io::Result<NamedTempFile> {
    let directory = directory_of(path);
    let file = Builder::new()
        .prefix(&temporary_prefix(path))
        .rand_bytes(RANDOM_CHARS)
        .suffix(TEMPORARY_SUFFIX)
        .tempfile_in(directory)?;
    owner::inherit(file.as_file(), directory)?;
    Ok(file)
}

/// Removes the temporary files that [`write_beside`] has left in processes that were killed.
fn remove_leftovers(path: &Path) {
    let prefix = temporary_prefix(path);
    let length = prefix.len() + RANDOM_CHARS + TEMPORARY_SUFFIX.len();
    for entry in fs::read_dir(directory_of(path)).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        if name.len() == length
            && name.starts_with(prefix.as_encoded_bytes())
            && name.ends_with(TEMPORARY_SUFFIX.as_bytes())
        {
            // The next write tries again.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The name of a temporary file for `uses` is `.uses.` with random characters and a suffix.
fn temporary_prefix(path: &Path) -> OsString {
    [OsStr::new("."), path.file_name().unwrap_or_default(), OsStr::new(".")].into_iter().collect()
}

const RANDOM_CHARS: usize = 6;
const TEMPORARY_SUFFIX: &str = ".new";

/// Syncs the directory of `path`, which makes a rename durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(directory_of(path))?.sync_all()?;
    }
    Ok(())
}

/// Whether a file with these permissions may be read, written or executed by users other than its
/// owner and group.
pub fn is_world_readable(permissions: &Permissions) -> bool {
    has_any_of(permissions, 0o007)
}

/// The advice in the error message for a world-readable file.
pub const HIDE_IT: &str = "run chmod 600 on it; in a Kubernetes volume, where that is undone, set \
                           defaultMode: 0440 and the pod's fsGroup";

/// Whether a file with these permissions may be written by users other than its owner and group.
pub fn is_world_writable(permissions: &Permissions) -> bool {
    has_any_of(permissions, 0o002)
}

fn has_any_of(permissions: &Permissions, mode: u32) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        permissions.mode() & mode != 0
    }
    #[cfg(not(unix))]
    {
        let _ = (permissions, mode);
        false
    }
}
