//! Locks for editing a file or the files in a directory. One process at a time holds such a lock.
//!
//! The lock is on a separate lock file, because the target itself is replaced by renaming. Symbolic
//! links to the target are resolved, and the lock file is in the directory of the real target. Only
//! users who may write the target may open the lock file. Otherwise, any user could hold the lock
//! and so prevent all edits: a file that can be read can be locked.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use tempfile::NamedTempFile;

use crate::fs::identity::{Identity, identity};
use crate::fs::whole_file::owner;
use crate::fs::whole_file::place::{directory_of, real_path};

/// A lock that is held by this process. It is released when it is dropped.
#[derive(Debug)]
pub struct Lock {
    file: Arc<File>,
    name: PathBuf,
}

impl Lock {
    /// Removes the lock file and releases the lock. A process that waits for it makes another.
    ///
    /// # Errors
    ///
    /// An error of the operating system.
    pub fn remove(self) -> io::Result<()> {
        fs::remove_file(&self.name)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Unlock the file explicitly. Closing the file would not unlock it while a child process
        // has the same file open.
        let _ = self.file.unlock();
    }
}

/// The lock of a file that this process takes again and again. The lock file stays open in between,
/// as long as it is in place and has the right access.
#[derive(Debug)]
pub struct LockFile {
    target: PathBuf,
    opened: Option<(Arc<File>, Identity)>,
}

impl LockFile {
    /// Names the file to lock, which is no symbolic link. Opens and creates nothing.
    pub fn new(target: PathBuf) -> Self {
        Self { target, opened: None }
    }

    /// Locks the file as [`lock_within`] does. The [`Lock`] of the last call must have been dropped.
    ///
    /// # Errors
    ///
    /// As [`lock_within`].
    pub fn lock(&mut self, wait: Duration) -> io::Result<Lock> {
        if let Some((file, opened)) = self.opened.take() {
            let locked = try_for(&file, wait).map(|()| {
                let name = name_of(self.target.clone());
                Lock { file: Arc::clone(&file), name }
            });
            if opened.is_some() && self.is_right(opened)? {
                self.opened = Some((file, opened));
                return locked;
            }
        }
        let lock = lock_within(&self.target, wait)?;
        self.opened = Some((Arc::clone(&lock.file), identity(&lock.file.metadata()?)));
        Ok(lock)
    }

    /// Whether the lock file that was `opened` is still in place, with the right access.
    fn is_right(&self, opened: Identity) -> io::Result<bool> {
        let Ok(named) = fs::symlink_metadata(name_of(self.target.clone())) else {
            return Ok(false);
        };
        Ok(identity(&named) == opened && Access::for_lock_of(&self.target)?.is_of(&named))
    }

    /// Checks that the lock file, if it exists, can be opened. Creates nothing, and does not lock it.
    ///
    /// # Errors
    ///
    /// As [`check_lock`].
    pub fn check(&self) -> io::Result<()> {
        check_lock(&self.target)
    }
}

/// Locks the file `path` for editing. Waits until no other process holds the lock.
///
/// # Errors
///
/// An error of the operating system.
pub fn lock(path: &Path) -> io::Result<Lock> {
    acquire(real_path(path)?, Duration::MAX)
}

/// Locks the file `path`, which is no symbolic link, for editing. Waits about `wait` for other
/// processes.
///
/// # Errors
///
/// `WouldBlock` if another process still holds the lock; otherwise an error of the operating
/// system.
pub fn lock_within(path: &Path, wait: Duration) -> io::Result<Lock> {
    acquire(path.to_owned(), wait)
}

/// Locks the file `path` as [`lock_within`] does, if its lock file exists. Creates nothing.
///
/// # Errors
///
/// As [`lock_within`]; `NotFound` if there is no lock file.
pub fn lock_if_used(path: &Path, wait: Duration) -> io::Result<Lock> {
    acquire_file(name_of(path.to_owned()), None, wait)
}

/// Checks that the lock file of `path`, if it exists, can be opened. Creates nothing, and does not
/// lock it.
///
/// # Errors
///
/// An error of the operating system; an error if the lock file is not a regular file.
pub fn check_lock(path: &Path) -> io::Result<()> {
    match open(&name_of(path.to_owned())) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Tries to lock `file` until the pauses between the attempts add up to `wait`. The pauses are
/// short, so that a process also gets a lock that others take again and again.
fn try_for(file: &File, wait: Duration) -> io::Result<()> {
    let (mut waited, mut pause) = (Duration::ZERO, FIRST_PAUSE);
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if waited < wait => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(
                    io::ErrorKind::WouldBlock,
                    "another process holds its lock",
                ));
            }
            tried => return Ok(tried?),
        }
        sleep(pause);
        waited = waited.saturating_add(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

const FIRST_PAUSE: Duration = Duration::from_micros(20);
const LONGEST_PAUSE: Duration = Duration::from_micros(500);

/// Locks `directory` so that files can be added and removed. Waits until no other process holds the
/// lock.
///
/// # Errors
///
/// An error of the operating system.
pub fn lock_directory(directory: &Path) -> io::Result<Lock> {
    let directory = fs::canonicalize(directory)?;
    acquire_file(directory.join(".lock"), Some(&Access::to(&directory)?), Duration::MAX)
}

fn acquire(target: PathBuf, wait: Duration) -> io::Result<Lock> {
    let access = Access::for_lock_of(&target)?;
    acquire_file(name_of(target), Some(&access), wait)
}

/// The name of the lock file of `target`.
fn name_of(target: PathBuf) -> PathBuf {
    let mut name = target.into_os_string();
    name.push(".lock");
    name.into()
}

/// Locks the lock file `name`. If it is missing, creates it with `access`, or returns `NotFound` if
/// there is no `access`.
fn acquire_file(name: PathBuf, access: Option<&Access>, wait: Duration) -> io::Result<Lock> {
    for _ in 0..MAX_ATTEMPTS {
        let mut file = match (open(&name), access) {
            (Err(error), Some(access)) if error.kind() == io::ErrorKind::NotFound => {
                match create(&name, access)?.persist_noclobber(&name) {
                    Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(error.error);
                    }
                    // The lock file now exists: this process or another process has created it.
                    // Open it in the next attempt.
                    _ => continue,
                }
            }
            (file, _) => file?,
        };
        try_for(&file, wait)?;
        if !is_at(&file, &name) {
            // The lock file was replaced while this process waited for the lock: retry.
            continue;
        }
        // If the lock file has the wrong owner or mode, because root or an older version created it,
        // replace it by a new lock file that is already locked. This process holds the lock on the
        // old file until the replacement is done.
        if let Some(access) = access
            && !access.is_of(&file.metadata()?)
            && let Ok(renewed) = renew(&name, access)
        {
            file = renewed;
        }
        return Ok(Lock { file: Arc::new(file), name });
    }
    Err(io::Error::other("its lock file is replaced again and again"))
}

/// Opens a lock file. An error names it, because the caller knows only its target.
fn open(name: &Path) -> io::Result<File> {
    let opened = open_regular(name, OpenOptions::new().read(true).write(true));
    opened.map_err(|error| match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::NotFound, _) | (_, None) => error,
        (kind, Some(_)) => io::Error::new(kind, format!("{}: {error}", name.display())),
    })
}

/// Opens `name`, which must be a regular file and no symbolic link.
pub(crate) fn open_regular(name: &Path, options: &mut OpenOptions) -> io::Result<File> {
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt;
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        options.custom_flags(flags.bits().cast_signed());
    }
    let refused = |problem| Err(io::Error::other(format!("{} {problem}", name.display())));
    let error = match options.open(name) {
        Ok(file) if file.metadata()?.is_file() => return Ok(file),
        Ok(_) => return refused("is not a regular file"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
        Err(error) => error,
    };
    match fs::symlink_metadata(name) {
        Ok(found) if found.is_symlink() => refused(
            "is a symbolic link, which is not followed: remove it, or put the file that it names \
             in its place",
        ),
        // A socket, or a directory that was to be written.
        Ok(found) if !found.is_file() => refused("is not a regular file"),
        _ => Err(error),
    }
}

fn create(name: &Path, access: &Access) -> io::Result<NamedTempFile> {
    let file = NamedTempFile::new_in(directory_of(name))?;
    access.give(file.as_file())?;
    Ok(file)
}

/// Replaces the lock file `name` by a new lock file that is already locked.
fn renew(name: &Path, access: &Access) -> io::Result<File> {
    let file = create(name, access)?;
    file.as_file().try_lock()?;
    Ok(file.persist(name)?)
}

/// The maximum number of attempts to lock a file. An attempt fails if the lock file does not exist
/// yet, or if another process has just replaced it. A process replaces the lock file at most once
/// per lock.
const MAX_ATTEMPTS: usize = 1000;

/// Whether `name` still refers to the open `file`.
fn is_at(file: &File, name: &Path) -> bool {
    let named = fs::symlink_metadata(name);
    file.metadata().is_ok_and(|open| named.is_ok_and(|named| identity(&open) == identity(&named)))
}

/// The owner, group and mode of a lock file. Owner and group are those of its target. Besides the
/// owner, the group has access if it may write the target.
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
        let target = fs::symlink_metadata(target)?;
        let mode = if target.mode() & 0o020 == 0 { 0o600 } else { 0o660 };
        Ok(Self { user: target.uid(), group: target.gid(), mode })
    }

    /// Returns the access for a lock file whose target is in `directory` and does not exist yet.
    fn to_new_in(directory: &Path) -> io::Result<Self> {
        Ok(Self { mode: 0o600, ..Self::to(directory)? })
    }

    /// Whether the lock file already has this access. If this process is not allowed to change the
    /// access, the result is `true`.
    fn is_of(&self, lock: &Metadata) -> bool {
        use std::os::unix::fs::MetadataExt;
        let mode = lock.mode() & 0o777;
        if owner::is_root() {
            (lock.uid(), lock.gid(), mode) == (self.user, self.group, self.mode)
        } else {
            lock.uid() != rustix::process::geteuid().as_raw() || mode == self.mode
        }
    }

    fn give(&self, lock: &File) -> io::Result<()> {
        use std::os::unix::fs::{PermissionsExt, fchown};
        if owner::is_root() {
            fchown(lock, Some(self.user), Some(self.group))?;
        } else {
            // `fchown` fails if the user is not a member of the target's group. In this case, the
            // lock file keeps the group of the user.
            let _ = fchown(lock, None, Some(self.group));
        }
        lock.set_permissions(fs::Permissions::from_mode(self.mode))
    }
}

impl Access {
    /// Returns the access for the lock file of `target`, which may not exist yet.
    fn for_lock_of(target: &Path) -> io::Result<Self> {
        match Self::to(target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Self::to_new_in(directory_of(target))
            }
            access => access,
        }
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

    fn is_of(&self, _lock: &Metadata) -> bool {
        true
    }

    fn give(&self, _lock: &File) -> io::Result<()> {
        Ok(())
    }
}
