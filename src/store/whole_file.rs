//! Files that are replaced whole or not at all, whatever happens in between.

use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// Replaces `path` with `contents`, on disk when this returns.
///
/// The new file has the owner and permissions of the one it replaces; a new one can be read by its
/// owner only. A link stays, and what it names is replaced.
///
/// # Errors
///
/// The operating system's; the old file is untouched then.
pub fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    stage(path, contents)?.commit()
}

/// New contents on disk beside the file that they are to replace. Dropped, they leave no trace.
#[derive(Debug)]
pub struct Staged {
    file: NamedTempFile,
    path: PathBuf,
}

/// Does all of [`replace`] that can fail for want of room or permission, but replaces nothing yet.
///
/// # Errors
///
/// The operating system's.
pub fn stage(path: &Path, contents: &[u8]) -> io::Result<Staged> {
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if is_mount(&path) {
        // What the rename would say.
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    let mut file = write_beside(&path, contents)?;
    if let Ok(metadata) = std::fs::metadata(&path) {
        keep_owner(file.as_file(), &metadata)?;
        file.as_file_mut().set_permissions(metadata.permissions())?;
    }
    Ok(Staged { file, path })
}

impl Staged {
    /// Replaces the file.
    ///
    /// # Errors
    ///
    /// The operating system's; the old file is untouched then.
    pub fn commit(self) -> io::Result<()> {
        self.file.persist(&self.path)?;
        sync_directory(&self.path)
    }
}

/// Creates `path`, readable by its owner only, on disk when this returns.
///
/// # Errors
///
/// The operating system's, and `AlreadyExists`.
pub fn create(path: &Path, contents: &[u8]) -> io::Result<()> {
    write_beside(path, contents)?.persist_noclobber(path)?;
    sync_directory(path)
}

/// Gives a file another name in its directory, on disk when this returns. A file that has the new
/// name is replaced.
///
/// # Errors
///
/// The operating system's.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::rename(from, to)?;
    sync_directory(to)
}

/// Creates `directory` and what is missing above it, its owner's alone, on disk when this returns.
/// One that exists stays as it is.
///
/// # Errors
///
/// The operating system's.
pub fn create_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)?;
    sync_directory(directory)
}

/// Keeps every other process from editing a file until it is dropped.
#[derive(Debug)]
pub struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file unlocks it anyway, unless a child still has it open.
        let _ = self.0.unlock();
    }
}

/// Holds off every other process that edits `path` until the lock is dropped.
///
/// # Errors
///
/// The operating system's.
pub fn lock(path: &Path) -> io::Result<Lock> {
    let file = open_lock(path)?;
    file.lock()?;
    Ok(Lock(file))
}

/// Holds off every other process that adds files to `directory` or takes them away, until the lock
/// is dropped.
///
/// # Errors
///
/// The operating system's.
pub fn lock_directory(directory: &Path) -> io::Result<Lock> {
    // With a separator at its end, the name that is made of it is a hidden one inside.
    lock(&directory.join(""))
}

/// The same as [`lock`] without waiting.
///
/// # Errors
///
/// `WouldBlock` if another process has the lock, or the operating system's.
pub fn try_lock(path: &Path) -> io::Result<Lock> {
    let file = open_lock(path)?;
    file.try_lock()?;
    Ok(Lock(file))
}

/// A file of its own: the target is replaced by renaming, which would leave a lock on it behind.
fn open_lock(path: &Path) -> io::Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    OpenOptions::new().create(true).truncate(false).write(true).open(PathBuf::from(name))
}

/// Whether something is mounted at `path` itself, as far as the system tells.
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

/// Who edits as root must not take the file from the server that reads it.
fn keep_owner(file: &File, old: &Metadata) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, fchown};
        let new = file.metadata()?;
        if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
            fchown(file, Some(old.uid()), Some(old.gid()))?;
        }
    }
    #[cfg(not(unix))]
    let _ = (file, old);
    Ok(())
}

/// tempfile creates with mode 0600.
fn write_beside(path: &Path, contents: &[u8]) -> io::Result<NamedTempFile> {
    let mut file = NamedTempFile::new_in(directory_of(path))?;
    file.write_all(contents)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// A rename is durable once its directory is.
fn sync_directory(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(directory_of(path))?.sync_all()?;
    }
    Ok(())
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Whether a file with these permissions can be read by everyone on the machine.
pub fn is_world_readable(permissions: &Permissions) -> bool {
    has_any_of(permissions, 0o007)
}

/// What to do about a file that is world-readable.
pub const HIDE_IT: &str = "run chmod 600 on it; in a Kubernetes volume, where that does not last, set \
                           defaultMode: 0440 and the pod's fsGroup";

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
