//! Locks for editing a file or the files in a directory, held by one process at a time.
//!
//! The lock is on a separate file, because the target itself is replaced by renaming. The lock file
//! is beside the target that symbolic links resolve to. Only users who may open the target may open
//! it: otherwise any user could hold the lock.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

use tempfile::NamedTempFile;

#[cfg(unix)]
use crate::store::whole_file::owner;
use crate::store::whole_file::{directory_of, real_path};

/// A lock that is released when dropped.
#[derive(Debug)]
pub struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file would not unlock it while a child process has it open.
        let _ = self.0.unlock();
    }
}

/// Locks `path` for editing. Waits for other processes.
///
/// # Errors
///
/// The operating system's.
pub fn lock(path: &Path) -> io::Result<Lock> {
    acquire(path, File::lock)
}

/// Locks `path` for editing without waiting.
///
/// # Errors
///
/// `WouldBlock` if another process holds the lock, or the operating system's.
pub fn try_lock(path: &Path) -> io::Result<Lock> {
    acquire(path, |file| Ok(file.try_lock()?))
}

/// Locks `directory` for adding and removing files. Waits for other processes.
///
/// # Errors
///
/// The operating system's.
pub fn lock_directory(directory: &Path) -> io::Result<Lock> {
    let directory = fs::canonicalize(directory)?;
    acquire_file(&directory.join(".lock"), &Access::to(&directory)?, File::lock)
}

fn acquire(path: &Path, lock: impl Fn(&File) -> io::Result<()>) -> io::Result<Lock> {
    let target = real_path(path)?;
    let access = match Access::to(&target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Access::to_new_in(directory_of(&target))?
        }
        access => access?,
    };
    let mut name = target.into_os_string();
    name.push(".lock");
    acquire_file(Path::new(&name), &access, lock)
}

fn acquire_file(
    name: &Path,
    access: &Access,
    lock: impl Fn(&File) -> io::Result<()>,
) -> io::Result<Lock> {
    for _ in 0..MAX_ATTEMPTS {
        let file = match open(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match create(name, access)?.persist_noclobber(name) {
                    Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(error.error);
                    }
                    // Created here or by another process: open it.
                    _ => continue,
                }
            }
            file => file?,
        };
        lock(&file)?;
        if !is_at(&file, name) {
            // It was replaced while this process waited: retry.
            continue;
        }
        if access.is_of(&file)? {
            return Ok(Lock(file));
        }
        // It has the wrong owner or mode: root or an older version created it. Replace it by one
        // that is already locked; the old lock is held meanwhile.
        return match renew(name, access) {
            Ok(renewed) => Ok(Lock(renewed)),
            Err(_) => Ok(Lock(file)),
        };
    }
    Err(io::Error::other("its lock file is replaced again and again"))
}

fn open(name: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt;
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        options.custom_flags(flags.bits().cast_signed());
    }
    let file = options.open(name)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other(format!("{} is not a regular file", name.display())))
    }
}

fn create(name: &Path, access: &Access) -> io::Result<NamedTempFile> {
    let file = NamedTempFile::new_in(directory_of(name))?;
    access.give(file.as_file())?;
    Ok(file)
}

/// Replaces the lock file by a new one that is already locked.
fn renew(name: &Path, access: &Access) -> io::Result<File> {
    let file = create(name, access)?;
    file.as_file().try_lock()?;
    Ok(file.persist(name)?)
}

/// More than enough: each process replaces a lock file at most once.
const MAX_ATTEMPTS: usize = 1000;

/// Whether `name` still refers to `file`.
fn is_at(file: &File, name: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let (open, named) = (file.metadata().map(id), fs::symlink_metadata(name).map(id));
        matches!((open, named), (Ok(open), Ok(named)) if open == named)
    }
    #[cfg(not(unix))]
    {
        let _ = (file, name);
        true
    }
}

/// The owner, group and mode of a lock file: those of its target, without access for other users.
#[cfg(unix)]
struct Access {
    user: u32,
    group: u32,
    mode: u32,
}

#[cfg(unix)]
impl Access {
    fn to(target: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let target = fs::metadata(target)?;
        let mode = target.mode() & 0o660 | 0o600;
        Ok(Self { user: target.uid(), group: target.gid(), mode })
    }

    /// Returns the access for a target that does not exist yet in `directory`.
    fn to_new_in(directory: &Path) -> io::Result<Self> {
        Ok(Self { mode: 0o600, ..Self::to(directory)? })
    }

    /// Whether the lock file has this access, or this process cannot change it.
    fn is_of(&self, lock: &File) -> io::Result<bool> {
        use std::os::unix::fs::MetadataExt;
        let lock = lock.metadata()?;
        let mode = lock.mode() & 0o777;
        Ok(if owner::is_root() {
            (lock.uid(), lock.gid(), mode) == (self.user, self.group, self.mode)
        } else {
            lock.uid() != rustix::process::geteuid().as_raw() || mode == self.mode
        })
    }

    fn give(&self, lock: &File) -> io::Result<()> {
        use std::os::unix::fs::{PermissionsExt, fchown};
        if owner::is_root() {
            fchown(lock, Some(self.user), Some(self.group))?;
        } else {
            // Works only for members of the group; others keep their own group.
            let _ = fchown(lock, None, Some(self.group));
        }
        lock.set_permissions(fs::Permissions::from_mode(self.mode))
    }
}

#[cfg(not(unix))]
struct Access;

#[cfg(not(unix))]
impl Access {
    fn to(target: &Path) -> io::Result<Self> {
        fs::metadata(target).map(|_| Self)
    }

    fn to_new_in(_directory: &Path) -> io::Result<Self> {
        Ok(Self)
    }

    fn is_of(&self, _lock: &File) -> io::Result<bool> {
        Ok(true)
    }

    fn give(&self, _lock: &File) -> io::Result<()> {
        Ok(())
    }
}
