//! Single use of client assertions and DPoP proofs, over all processes with one state directory.
//!
//! A use is accepted once it stands in the file of uses (`uses/record.rs`); the index in memory
//! (`uses/index.rs`) holds what the file holds. An entry is never evicted before it expires: a full
//! record refuses every new assertion and proof, and a client may hold at most as many entries as
//! are free.
//!
//! The system clock may be set. An entry is dropped an hour after its expiry by the clock. Setting
//! the clock forward may drop more, and if it were then set back, what the dropped entries stand for
//! would be accepted again. So the record keeps the latest expiry of all dropped entries, also in
//! the file. Every assertion and proof that expires at this time or earlier is refused.

pub(crate) mod index;
mod record;
pub(crate) mod single_use;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tracing::warn;

use crate::clock::Clock;
use crate::fault::Fault;
use crate::fs::shared_log::{SharedLog, read_only};
use crate::fs::whole_file;
use crate::state::group_commit::{Commit, GroupCommit, LOCK_WAIT};
use crate::state::shares::client_tag;
use crate::state::uses::record::{Record, check};
use crate::state::uses::single_use::{Entry, Use};
pub use crate::state::uses::single_use::{Owner, SingleUse, UseError};

/// Records used assertions and proofs, and refuses to record the same assertion or proof twice.
pub struct Uses {
    commit: GroupCommit<Use, Result<(), UseError>>,
    unrecorded: Arc<Mutex<Option<String>>>,
}

impl Uses {
    /// Opens the file of uses in `directory`, which is created if necessary. At most `capacity`
    /// entries can be live; five times as many are kept, so that the clock may be set back by an
    /// hour. A kept entry takes 50 to 100 bytes of memory and a line of 46 bytes on disk.
    ///
    /// If the file cannot be locked or written, logs a warning. Each use then tries again, and
    /// fails if it cannot be recorded.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if a line of the file is invalid, or the thread cannot be started.
    pub fn open(directory: &Path, capacity: usize, clock: Clock) -> Result<Self, Fault> {
        let (path, revocations) = (directory.join(FILE_NAME), directory.join("revocations"));
        if let Err(error) = read_only(&path, &path, Duration::ZERO) {
            if path.is_symlink() {
                return Err(Fault::cannot("read", &path, &error));
            }
            let file = path.display();
            warn!(%file, %error, "the record of used assertions and proofs cannot be read");
            if !is_of_the_moment(&error) {
                // Rename it, so that another one can begin. If this fails, that fails too.
                let _ = whole_file::rename(&path, &path.with_extension("unreadable"));
            }
        }
        let mut record = Record::new(path, revocations, capacity, clock);
        let taken = record.take().map(drop);
        record.note(taken.as_ref().copied());
        if let Err(error) = taken {
            let error = match error.downcast() {
                Ok(fault) => return Err(fault),
                Err(error) => error,
            };
            warn!(directory = %directory.display(), %error, "no assertion or proof can be accepted: its use cannot be recorded");
        }
        let unrecorded = record.unrecorded();
        Self::start(record, unrecorded, directory)
    }

    /// Starts the thread that records uses with `recorder` in `place`. The recorder notes in
    /// `unrecorded` why none can be recorded at present, and what to do.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if the thread cannot be started.
    pub(crate) fn start(
        recorder: impl Commit<Use, Result<(), UseError>>,
        unrecorded: Arc<Mutex<Option<String>>>,
        place: &Path,
    ) -> Result<Self, Fault> {
        let commit = GroupCommit::start("uses", place, recorder)?;
        Ok(Self { commit, unrecorded })
    }

    /// Checks that the file of uses in `directory`, if it exists, can be locked, read and written.
    /// Writes nothing.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if the file cannot be locked, read or written, or a line of it is invalid.
    pub fn check(directory: &Path) -> Result<(), Fault> {
        let path = directory.join(FILE_NAME);
        let lock = whole_file::check_lock(&path);
        lock.map_err(|error| Fault::cannot("locked", &path, &error))?;
        let news = read_only(&path, &path, LOCK_WAIT);
        let news = news.map_err(|error| Fault::cannot("read", &path, &error))?;
        check(path.clone(), &news)?;
        let tried = SharedLog::new(path.clone(), path.clone()).try_open();
        tried.map_err(|error| Fault::cannot("written", &path, &error))
    }

    /// Records that the assertion or proof is used. If several calls for one value run at the same
    /// time, in any process, one succeeds.
    ///
    /// # Errors
    ///
    /// A [`UseError`] if the caller must refuse the assertion or proof.
    pub async fn spend(&self, single_use: SingleUse<'_>) -> Result<(), UseError> {
        let SingleUse { client_id, signed_at, until, .. } = single_use;
        let entry = Entry { key: single_use.key(), client: client_tag(client_id), until };
        self.commit.ask(Use { entry, signed_at }).await.unwrap_or(Err(UseError::NotRecorded))
    }

    /// Closes the file. Later uses are refused.
    pub fn end(&self) {
        self.commit.end();
    }

    /// Why no use can be recorded at present, and what to do; `None` if it can.
    pub fn fault(&self) -> Option<String> {
        let fault = self.unrecorded.lock().clone()?;
        Some(format!("{fault}: until then, assertions and proofs are refused"))
    }
}

/// Whether the machine lacks something at the moment, and the file may be readable afterwards.
fn is_of_the_moment(error: &io::Error) -> bool {
    #[cfg(unix)]
    {
        use rustix::io::Errno;
        let lacks = [Errno::MFILE, Errno::NFILE, Errno::NOMEM];
        lacks.iter().any(|lack| error.raw_os_error() == Some(lack.raw_os_error()))
    }
    #[cfg(not(unix))]
    {
        error.kind() == io::ErrorKind::OutOfMemory
    }
}

const FILE_NAME: &str = "uses";

#[cfg(test)]
mod tests;
