//! Revoked tokens (RFC 7009), in memory and in a file that all processes with one state directory
//! share.
//!
//! A revoked token has a row, which is kept until an hour after the token has expired. Requests
//! look up rows in memory. A thread appends all waiting rows to the file in one write, and reads
//! several times a second what other processes have appended. A revocation takes effect when its
//! row is on disk. If the write fails, the caller gets an error and the token stays valid. The token
//! is not revoked in memory alone, because it would become valid again after a restart.
//!
//! A client may hold at most as many rows as are free. If it would hold more, the half of its rows
//! that end first become one *cut-off*: every token of the client that expires no later than the
//! last of them is revoked.

mod file;
mod key;
pub(crate) mod ledger;
mod line;
pub(crate) mod revoked;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::clock::Clock;
use crate::fault::Fault;
use crate::oauth::error::Cause;
use crate::state::group_commit::GroupCommit;
use crate::state::revocations::file::RevocationFile;
#[cfg(feature = "postgres")]
pub(crate) use crate::state::revocations::file::{read as read_file, text_of};
pub use crate::state::revocations::key::RevocationKey;
use crate::state::revocations::ledger::{Ledger, Medium, Revocation, Shared};
#[cfg(feature = "postgres")]
use crate::state::revocations::revoked::Row;
use crate::state::shares::client_tag;
use crate::telemetry::audit::Audit;
use crate::time::UnixTime;

/// The set of revoked tokens, in memory and on disk.
pub struct Revocations {
    shared: Arc<Shared>,
    commit: GroupCommit<Revocation, Result<(), Cause>>,
}

impl Revocations {
    /// Opens the file of revocations in `directory`, which is created if necessary. While there are
    /// `limit` rows or more, no token can be revoked. A row takes 64 to 128 bytes of memory, and two
    /// lines of 38 or 62 bytes on disk. `audit` gets an event for each cut-off.
    ///
    /// If the directory is not writable or another process holds the lock, logs a warning. Each
    /// revocation then tries again to lock the file. The revocation fails if the file cannot be
    /// locked.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if the file cannot be read, a line of it is invalid, or the writer thread cannot
    /// be started. An invalid line is not ignored, because the token that it revokes would become
    /// valid again.
    pub fn open(
        directory: &Path,
        limit: usize,
        clock: Clock,
        audit: Option<Arc<Audit>>,
    ) -> Result<Self, Fault> {
        let shared = Arc::<Shared>::default();
        let file = RevocationFile::open(directory, clock.clone(), Arc::clone(&shared))?;
        let ledger = Ledger::new(file, Arc::clone(&shared), limit, clock, audit);
        Self::start(ledger, shared, directory)
    }

    /// The path of the file that [`Self::open`] reads.
    pub fn file(directory: &Path) -> PathBuf {
        file::path(directory)
    }

    /// Starts the thread that writes with `ledger` to `place`. `shared` is the ledger's.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if the thread cannot be started.
    pub(crate) fn start<M: Medium>(
        ledger: Ledger<M>,
        shared: Arc<Shared>,
        place: &Path,
    ) -> Result<Self, Fault> {
        let commit = GroupCommit::start("revocations", place, ledger)?;
        Ok(Self { shared, commit })
    }

    /// Checks that the file of revocations in `directory`, if it exists, can be locked, read and
    /// written. Writes nothing.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if the file cannot be locked, read or written, or a line of it is invalid.
    pub fn check(directory: &Path) -> Result<(), Fault> {
        file::check(directory)
    }

    /// Returns the number of revocations and cut-offs in the file in `directory` that are not in force
    /// here.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if the file cannot be read, or a line of it is invalid.
    #[cfg(feature = "postgres")]
    pub(crate) fn missing_of_file(&self, directory: &Path, clock: &Clock) -> Result<usize, Fault> {
        let now = clock.now();
        let file = file::read(directory, clock)?;
        let own = &self.shared.revoked;
        let is_cut_off = |client, until| until <= now || own.cut_off(client) >= until;
        let cut_offs = file.revoked.cut_offs();
        let mut missing =
            cut_offs.into_iter().filter(|(client, until)| !is_cut_off(*client, *until)).count();
        file.revoked.for_each(|Row { key, expires_at, owner }| {
            let is_covered = owner.is_some_and(|owner| is_cut_off(owner, expires_at));
            missing += usize::from(expires_at > now && !is_covered && !own.contains(&key));
        });
        Ok(missing)
    }

    /// Whether the token with this key was revoked, alone or with all tokens of its client that
    /// expire no later than a cut-off. The token was issued to the client `client_id` and expires at
    /// `expires_at`.
    pub fn contains(&self, key: &RevocationKey, client_id: &str, expires_at: UnixTime) -> bool {
        self.shared.revoked.contains(key) || self.is_cut_off(client_id, expires_at)
    }

    /// Whether every token of the client that expires at `expires_at` is revoked.
    pub fn is_cut_off(&self, client_id: &str, expires_at: UnixTime) -> bool {
        self.cut_off(client_id) >= expires_at
    }

    /// The cut-off of the client: every token of the client that expires no later is revoked.
    pub fn cut_off(&self, client_id: &str) -> UnixTime {
        let revoked = &self.shared.revoked;
        if revoked.has_cut_offs() {
            revoked.cut_off(client_tag(client_id))
        } else {
            UnixTime::default()
        }
    }

    /// The number of rows in memory.
    pub fn len(&self) -> usize {
        self.shared.revoked.len()
    }

    /// Whether nothing is revoked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && !self.shared.revoked.has_cut_offs()
    }

    /// The number of times that rows of a client became a cut-off, since the start.
    pub fn cut_offs(&self) -> u64 {
        self.shared.cut_offs.load(Ordering::Relaxed)
    }

    /// Why the file cannot be read or written at present, and what to do; `None` if it can.
    pub fn fault(&self) -> Option<String> {
        if let Some(fault) = &*self.shared.unread.lock() {
            return Some(format!(
                "{fault}; restore the file and its permissions: until then, what other processes \
                 revoke may not be in force here, and a restart fails"
            ));
        }
        let fault = self.shared.unwritten.lock().clone()?;
        Some(format!("{fault}; check free space and access: until then, revocations are refused"))
    }

    /// Revokes the token that has the key `key`, belongs to the client `client_id` and expires at
    /// `expires_at`. The future completes when the revocation is on disk and in
    /// effect. Revoking a token twice is not an error.
    ///
    /// # Errors
    ///
    /// [`Cause::RevocationsFull`] or [`Cause::RevocationNotWritten`] if the token was not revoked.
    pub async fn revoke(
        &self,
        client_id: &str,
        key: RevocationKey,
        expires_at: UnixTime,
    ) -> Result<(), Cause> {
        let is_revoked = self.shared.revoked.contains_until(&key, expires_at);
        if is_revoked || self.is_cut_off(client_id, expires_at) {
            return Ok(());
        }
        let revocation = Revocation { client_id: client_id.into(), key, expires_at };
        self.commit.ask(revocation).await.unwrap_or(Err(Cause::RevocationNotWritten))
    }
}
