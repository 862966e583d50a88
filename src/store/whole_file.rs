//! Files that are replaced whole or not at all, whatever happens in between.

mod lock;
mod owner;

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

pub use crate::store::whole_file::lock::{Lock, lock, lock_directory, try_lock};

/// Replaces `path` with `contents`, on disk when this returns.
///
/// The new file has the owner and permissions of the one it replaces; a new one can be read by its
/// owner only, who is the directory's owner if root makes it. A link stays, and what it names is
/// replaced.
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
    let path = real_path(path)?;
    if is_mount(&path) {
        // What the rename would say.
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    let mut file = write_beside(&path, contents)?;
    if let Ok(metadata) = fs::symlink_metadata(&path) {
        owner::keep(file.as_file(), &metadata)?;
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

/// Creates `path`, readable by its owner only, on disk when this returns. If root makes it, its
/// owner is the directory's.
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
    fs::rename(from, to)?;
    sync_directory(to)
}

/// Creates `directory` and what is missing above it, its owner's alone, on disk when this returns.
/// One that exists stays as it is. If root makes it, its owner is that of the directory above.
///
/// # Errors
///
/// The operating system's.
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
        // Another process that starts at the same time was first.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => {}
        Err(error) => return Err(error),
    }
    sync_directory(directory)
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

/// The one name of the file that `path` leads to through links, its own and those of directories.
/// The file need not exist.
fn real_path(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::canonicalize(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            known => return known,
        }
        match fs::read_link(&path) {
            // A link to a file that has yet to be made.
            Ok(target) => path = directory_of(&path).join(target),
            Err(_) => {
                let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
                return Ok(fs::canonicalize(directory_of(&path))?.join(name));
            }
        }
    }
    Err(io::Error::other("too many symbolic links"))
}

/// As the kernel allows.
const MOST_LINKS: usize = 40;

/// Whether the file has another name (a hard link), which keeps the old contents when this one is
/// replaced.
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

/// tempfile creates with mode 0600.
fn write_beside(path: &Path, contents: &[u8]) -> io::Result<NamedTempFile> {
    let directory = directory_of(path);
    let mut file = NamedTempFile::new_in(directory)?;
    owner::inherit(file.as_file(), directory)?;
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

/// Whether everyone on the machine may write a file with these permissions.
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
