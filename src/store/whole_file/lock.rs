//! One process at a time edits a file, or what is in a directory.
//!
//! The lock is on a file of its own: the target is replaced by renaming, which would leave a lock on
//! it behind. That file stands beside the real target, whatever links lead there, and only who may
//! open the target may open it: a lock can be taken on every file that can be read.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

use tempfile::NamedTempFile;

#[cfg(unix)]
use crate::store::whole_file::owner;
use crate::store::whole_file::{directory_of, real_path};

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
    take(path, File::lock)
}

/// The same as [`lock`] without waiting.
///
/// # Errors
///
/// `WouldBlock` if another process has the lock, or the operating system's.
pub fn try_lock(path: &Path) -> io::Result<Lock> {
    take(path, |file| Ok(file.try_lock()?))
}

/// Holds off every other process that adds files to `directory` or takes them away, until the lock
/// is dropped.
///
/// # Errors
///
/// The operating system's.
pub fn lock_directory(directory: &Path) -> io::Result<Lock> {
    let directory = fs::canonicalize(directory)?;
    take_file(&directory.join(".lock"), &Access::to(&directory)?, File::lock)
}

fn take(path: &Path, lock: impl Fn(&File) -> io::Result<()>) -> io::Result<Lock> {
    let target = real_path(path)?;
    let access = match Access::to(&target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Access::to_new_in(directory_of(&target))?
        }
        access => access?,
    };
    let mut name = target.into_os_string();
    name.push(".lock");
    take_file(Path::new(&name), &access, lock)
}

fn take_file(
    name: &Path,
    access: &Access,
    lock: impl Fn(&File) -> io::Result<()>,
) -> io::Result<Lock> {
    for _ in 0..MOST_TURNS {
        let file = match open(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match make(name, access)?.persist_noclobber(name) {
                    Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(error.error);
                    }
                    // Also if another process was first.
                    _ => continue,
                }
            }
            file => file?,
        };
        lock(&file)?;
        if !is_at(&file, name) {
            // It was replaced while this process waited.
            continue;
        }
        if access.is_of(&file)? {
            return Ok(Lock(file));
        }
        // An older version made it, or root. While both are locked, no other process has either.
        return match renew(name, access) {
            Ok(renewed) => Ok(Lock(renewed)),
            Err(_) => Ok(Lock(file)),
        };
    }
    Err(io::Error::other("its lock is replaced all the time"))
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

fn make(name: &Path, access: &Access) -> io::Result<NamedTempFile> {
    let file = NamedTempFile::new_in(directory_of(name))?;
    access.give(file.as_file())?;
    Ok(file)
}

/// Replaces the lock by one that is locked already.
fn renew(name: &Path, access: &Access) -> io::Result<File> {
    let file = make(name, access)?;
    file.as_file().try_lock()?;
    Ok(file.persist(name)?)
}

/// Replacing a lock is rare, and each process does so once.
const MOST_TURNS: usize = 1000;

/// Whether `file` is still the one of this name.
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

/// Who may open a lock: who may open what it guards, but never everyone.
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

    /// To a file that is yet to be made there.
    fn to_new_in(directory: &Path) -> io::Result<Self> {
        Ok(Self { mode: 0o600, ..Self::to(directory)? })
    }

    /// Whether it is as it should be, or cannot be made so by this process.
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
            // A member of the group may; for others, the group is their own.
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
