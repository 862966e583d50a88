//! Notices an earlier release that uses the same state directory.
//!
//! The last release knows no record of used assertions and proofs. It holds the lock of the file of
//! revocations for as long as it runs, and its lock file stays. This release never makes that lock
//! file, so the lock file shows that an earlier release runs or has run.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use crate::fs::whole_file::{self, Lock};

/// Returns the lock that an earlier release has left; `None` if there is none. `revocations` is the
/// file of revocations.
///
/// # Errors
///
/// `WouldBlock` if an earlier release runs; otherwise an error of the operating system.
pub(super) fn left_lock(revocations: &Path) -> io::Result<Option<Lock>> {
    match whole_file::lock_if_used(revocations, Duration::ZERO) {
        Ok(lock) => Ok(Some(lock)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            Err(io::Error::new(ErrorKind::WouldBlock, "an earlier release still runs"))
        }
        Err(error) => Err(error),
    }
}

/// Checks after a write that no earlier release has begun to run since the lock of the file was
/// taken. Such a release may not have read what was written. `had_left` says whether there was a
/// [`left_lock`] then.
///
/// # Errors
///
/// `WouldBlock` if an earlier release has run; otherwise an error of the operating system.
pub(super) fn none_has_begun(revocations: &Path, had_left: bool) -> io::Result<()> {
    if left_lock(revocations)?.is_some() && !had_left {
        return Err(io::Error::new(ErrorKind::WouldBlock, "an earlier release has run"));
    }
    Ok(())
}
