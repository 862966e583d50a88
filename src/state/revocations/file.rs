//! The file of revocations: a text file with one or two lines per revocation
//! (`revocations/line.rs`). New lines are appended. When most lines are over, the file is rewritten
//! without them.
//!
//! If the last line has no line break, it is ignored. In this case, the process ended while it
//! wrote the line, so no client was told that this token is revoked.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, warn};

use crate::clock::Clock;
use crate::fault::Fault;
use crate::fs::shared_log::{SharedLog, read_only};
use crate::fs::whole_file::{self, Lock};
use crate::state::earlier_release::{left_lock, none_has_begun};
use crate::state::group_commit::LOCK_WAIT;
use crate::state::revocations::ledger::{Medium, Shared, is_over};
use crate::state::revocations::line::{self, CURRENT, Line, Link, link_of};
use crate::state::revocations::revoked::{Revoked, Row};
use crate::state::shares::ClientTag;
use crate::time::UnixTime;

/// The file, and what only its thread needs to know.
pub(super) struct RevocationFile {
    log: SharedLog,
    /// Whether an earlier release had left its lock when this process took the lock last.
    had_left: bool,
    shared: Arc<Shared>,
    /// The owners of rows that have not been read yet.
    owners: HashMap<Link, ClientTag>,
    /// Whether the file is missing or of the last release, or lacks rows that are in force because an
    /// operator has shortened or replaced it.
    is_incomplete: bool,
    clock: Clock,
}

/// The path of the file in a state directory.
pub(super) fn path(directory: &Path) -> PathBuf {
    directory.join(FILE_NAME)
}

impl RevocationFile {
    /// Reads the file in `directory`. If it cannot be locked, logs a warning and reads it without a
    /// lock.
    pub(super) fn open(directory: &Path, clock: Clock, shared: Arc<Shared>) -> Result<Self, Fault> {
        let mut file = Self::in_directory(directory, clock, shared);
        let lock = file.lock(LOCK_WAIT);
        if let Err(error) = &lock {
            file.note(Err(file.cannot("locked", error)));
            let directory = directory.display();
            if error.kind() == ErrorKind::WouldBlock {
                warn!(%directory, %error, "no token can be revoked while another process holds it");
            } else {
                warn!(%directory, %error, "no token can be revoked: the file cannot be locked");
            }
        }
        file.learn()?;
        if lock.is_ok() {
            // The next revocation tries again.
            let _ = file.log.cut_torn_line();
            file.note(file.try_open());
        }
        Ok(file)
    }

    /// Names the file in `directory`. Reads and creates nothing.
    fn in_directory(directory: &Path, clock: Clock, shared: Arc<Shared>) -> Self {
        Self {
            log: SharedLog::new(path(directory), directory.join(LOCKED)),
            had_left: false,
            shared,
            owners: HashMap::new(),
            is_incomplete: true,
            clock,
        }
    }

    fn cannot(&self, done: &str, error: &io::Error) -> Fault {
        Fault::cannot(done, self.log.path(), error)
    }

    /// Notes whether revocations can be written.
    fn note(&self, seen: Result<(), Fault>) {
        *self.shared.unwritten.lock() = seen.err();
    }

    fn has_fault(&self) -> bool {
        self.shared.unwritten.lock().is_some()
    }

    fn try_open(&self) -> Result<(), Fault> {
        self.log.try_open().map_err(|error| self.cannot("written", &error))
    }

    /// Does not wait for the lock, because the rows of other processes are to be read in time.
    fn try_write(&mut self) -> Result<(), Fault> {
        let _lock = self.lock(Duration::ZERO).map_err(|error| self.cannot("locked", &error))?;
        self.log.try_write().map_err(|error| self.cannot("written", &error))
    }

    /// Notes whether rows could be written. After an error, the file is read anew.
    fn note_written(&mut self, result: &io::Result<()>) {
        match result {
            Ok(()) if !self.has_fault() => {}
            // This process may have had the file open since before its permissions were changed.
            Ok(()) => self.note(self.try_open()),
            Err(error) => {
                self.note(Err(self.cannot("written", error)));
                self.log.forget();
            }
        }
    }

    /// Reads what other processes have added. The caller need not hold the lock.
    fn learn(&mut self) -> Result<(), Fault> {
        let news = self.log.read().map_err(|error| self.cannot("read", &error))?;
        let lines = line::parse(self.log.path(), &news).inspect_err(|_| self.log.forget())?;
        if news.is_other_file {
            self.owners.clear();
        }
        let now = self.clock.now();
        let (mut has_version, mut has_cut_off) = (false, false);
        for line in &lines {
            match *line {
                Line::Owner(link, owner, _) => {
                    self.owners.insert(link, owner);
                }
                Line::CutOff(client, time) if !is_over(time, now) => {
                    self.shared.revoked.insert_cut_off(client, time);
                    has_cut_off = true;
                }
                Line::Version(_) => has_version = true,
                Line::Token(..) | Line::CutOff(..) => {}
            }
        }
        let mut in_force = 0;
        for line in lines {
            let Line::Token(key, expires_at) = line else { continue };
            let owner = self.owners.remove(&link_of(&key));
            let is_cut_off =
                owner.is_some_and(|owner| self.shared.revoked.cut_off(owner) >= expires_at);
            if !is_over(expires_at, now) && !is_cut_off {
                self.shared.revoked.insert(Row { key, expires_at, owner });
                in_force += 1;
            }
        }
        if has_cut_off || news.is_other_file {
            // Of another file, rows that are over are missing because another process has dropped
            // them.
            self.shared.drop_over(now);
        }
        if news.is_other_file {
            self.is_incomplete = !has_version || self.shared.revoked.len() > in_force;
        }
        Ok(())
    }

    /// Reads what other processes have added. It is a fault if a process that starts now could not.
    fn read(&mut self) -> Result<(), Fault> {
        self.learn()?;
        self.log.try_read().map_err(|error| self.cannot("read", &error))
    }

    fn lock(&mut self, wait: Duration) -> io::Result<Lock> {
        let lock = self.log.lock(wait)?;
        // It stays until `uses` has seen it.
        self.had_left = left_lock(self.log.path())?.is_some();
        Ok(lock)
    }

    fn take(&mut self) -> Result<Lock, Fault> {
        let lock = self.lock(LOCK_WAIT).map_err(|error| self.cannot("locked", &error))?;
        self.learn()?;
        self.log.cut_torn_line().map_err(|error| self.cannot("written", &error))?;
        Ok(lock)
    }

    /// Writes rows to disk. Returns how many of them are in the file.
    fn put(&mut self, fresh: &[Row]) -> (usize, io::Result<()>) {
        if self.is_incomplete || self.log.lines() > self.most() {
            let mut text = text_of(&self.shared.revoked);
            fresh.iter().for_each(|row| write_row(row, &mut text));
            let result = self.log.replace(&text);
            self.is_incomplete = result.is_err();
            return (if result.is_ok() { fresh.len() } else { 0 }, result);
        }
        let mut text = String::with_capacity((fresh.len() + 1) * ROW_BYTES);
        fresh.iter().for_each(|row| write_row(row, &mut text));
        let (lines, appended) = self.log.append(&text);
        let synced = self.log.sync();
        let result = match (synced, appended) {
            (Err(error), _) => Err(error),
            // A part of the rows is in the file.
            (Ok(()), Err(error)) => Err(io::Error::new(ErrorKind::WriteZero, error)),
            (Ok(()), Ok(())) => Ok(()),
        };
        (lines / LINES_PER_ROW, result)
    }
}

impl Medium for RevocationFile {
    type Turn = Lock;

    /// Reads what other processes have added, and shares the fault if that fails, or if a process
    /// that starts now could not read the file.
    fn look(&mut self) -> Result<(), Fault> {
        let seen = self.read();
        *self.shared.unread.lock() = seen.clone().err();
        if seen.is_ok() {
            // By writing, if the last revocation could not be written.
            let seen = if self.has_fault() { self.try_write() } else { self.try_open() };
            self.note(seen);
        }
        seen
    }

    fn begin(&mut self) -> Result<Lock, Fault> {
        // What another process has revoked counts, even if it holds the lock.
        *self.shared.unread.lock() = self.read().err();
        self.take().inspect_err(|fault| self.note(Err(fault.clone())))
    }

    fn size(&self) -> usize {
        self.log.lines()
    }

    /// The number of lines above which the file is rewritten.
    fn most(&self) -> usize {
        lines_for(self.shared.revoked.len())
            .saturating_add(2 * self.shared.revoked.cut_offs().len())
    }

    fn write(&mut self, fresh: &[Row]) -> (usize, io::Result<()>) {
        let (written, result) = self.put(fresh);
        let result = result.and_then(|()| none_has_begun(self.log.path(), self.had_left));
        self.note_written(&result);
        (written, result)
    }

    fn write_cut_off(&mut self, client: ClientTag, until: UnixTime) -> (bool, io::Result<()>) {
        if self.is_incomplete
            && let (_, Err(error)) = self.write(&[])
        {
            return (false, Err(error));
        }
        let (lines, appended) = self.log.append(&Line::CutOff(client, until).to_string());
        let synced = appended.and_then(|()| self.log.sync());
        self.note_written(&synced);
        (lines > 0, synced)
    }

    fn complain(&self, error: &dyn fmt::Display) {
        let file = self.log.path().display();
        error!(%file, %error, "a revocation was not written: check free space and access");
    }
}

/// Returns the text of a file that holds what is in `revoked`.
pub(crate) fn text_of(revoked: &Revoked) -> String {
    let mut text = String::new();
    Line::Version(CURRENT).write(&mut text);
    for (client, time) in revoked.cut_offs() {
        Line::CutOff(client, time).write(&mut text);
    }
    revoked.for_each(|row| write_row(&row, &mut text));
    text
}

fn write_row(row: &Row, text: &mut String) {
    if let Some(owner) = row.owner {
        Line::Owner(link_of(&row.key), owner, row.expires_at).write(text);
    }
    Line::Token(row.key, row.expires_at).write(text);
}

/// Reads the revocations and cut-offs in the file in `directory`. There are none if there is no file.
///
/// # Errors
///
/// A [`Fault`] if the file cannot be read, or a line of it is invalid.
pub(crate) fn read(directory: &Path, clock: &Clock) -> Result<Arc<Shared>, Fault> {
    let shared = Arc::<Shared>::default();
    RevocationFile::in_directory(directory, clock.clone(), Arc::clone(&shared)).learn()?;
    Ok(shared)
}

/// Checks that the file of revocations in `directory`, if it exists, can be locked, read and written,
/// and is valid.
pub(super) fn check(directory: &Path) -> Result<(), Fault> {
    let path = path(directory);
    let locked = directory.join(LOCKED);
    // The first is the lock of an earlier release.
    for locked in [&path, &locked] {
        let lock = whole_file::check_lock(locked);
        lock.map_err(|error| Fault::cannot("locked", &path, &error))?;
    }
    let news = read_only(&path, &locked, LOCK_WAIT);
    let news = news.map_err(|error| Fault::cannot("read", &path, &error))?;
    line::parse(&path, &news)?;
    let tried = SharedLog::new(path.clone(), locked).try_open();
    tried.map_err(|error| Fault::cannot("written", &path, &error))
}

/// Returns the number of lines above which the file is rewritten if `live` rows are in memory.
pub(super) fn lines_for(live: usize) -> usize {
    live.saturating_mul(2 * LINES_PER_ROW).saturating_add(MIN_LINES)
}

/// This release takes the lock of this file, which does not exist, and not the lock of the file of
/// revocations: that lock shows that an earlier release runs.
const LOCKED: &str = "revocations.turn";
const FILE_NAME: &str = "revocations";
/// As long as the file has at most this many lines, expired rows are no reason to rewrite it.
const MIN_LINES: usize = 1000;
/// The lines of a row whose owner is known.
const LINES_PER_ROW: usize = 2;
/// The length in bytes of a row whose key is a `jti`, with its owner.
const ROW_BYTES: usize = 100;
