//! The thread that owns the file of revocations: a text file with one or two lines per revocation
//! (`revocations/line.rs`). New lines are appended. When most lines are over, the file is rewritten
//! without them.
//!
//! If the last line has no line break, it is ignored. In this case, the process ended while it
//! wrote the line, so no client was told that this token is revoked.

use std::collections::{HashMap, HashSet};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tracing::{error, warn};

use crate::clock::Clock;
use crate::fault::Fault;
use crate::fs::shared_log::{SharedLog, read_only};
use crate::fs::whole_file::{self, Lock};
use crate::oauth::error::Cause;
use crate::state::earlier_release::{left_lock, none_has_begun};
use crate::state::group_commit::{Commit, LOCK_WAIT, Waiting};
use crate::state::revocations::key::RevocationKey;
use crate::state::revocations::line::{self, CURRENT, Line, Link, link_of};
use crate::state::revocations::revoked::{Revoked, Row};
use crate::state::shares::{ClientTag, Shares, client_tag, is_used_up};
use crate::telemetry::audit::{Audit, Event};
use crate::telemetry::once_a_second::OnceASecond;
use crate::time::UnixTime;

/// The state that the thread and the requests share.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) revoked: Revoked,
    pub(super) cut_offs: AtomicU64,
    /// Why the file could not be read at the last look; `None` if it could.
    pub(super) unread: Mutex<Option<Fault>>,
    /// Why the last revocation could not be written, or the next one cannot.
    pub(super) unwritten: Mutex<Option<Fault>>,
}

/// A token to revoke.
#[derive(Debug)]
pub(super) struct Revocation {
    pub(super) client_id: Box<str>,
    pub(super) key: RevocationKey,
    pub(super) expires_at: UnixTime,
}

/// The file, and what only the thread needs to know.
pub(super) struct Ledger {
    log: SharedLog,
    /// Whether an earlier release had left its lock when this process took the lock last.
    had_left: bool,
    shared: Arc<Shared>,
    /// The number of rows of each client.
    held: Shares,
    /// The owners of rows that have not been read yet.
    owners: HashMap<Link, ClientTag>,
    /// Whether the file is missing or of the last release, or lacks rows that are in force because an
    /// operator has shortened or replaced it.
    is_incomplete: bool,
    /// When rows that are over were dropped last, and at how many lines they are dropped next.
    dropped_at: Option<UnixTime>,
    drop_at_lines: usize,
    limit: usize,
    clock: Clock,
    audit: Option<Arc<Audit>>,
    complaints: OnceASecond,
}

impl Ledger {
    /// Reads the file in `directory`. If it cannot be locked, logs a warning and reads it without a
    /// lock.
    pub(super) fn open(
        directory: &Path,
        limit: usize,
        clock: Clock,
        audit: Option<Arc<Audit>>,
        shared: Arc<Shared>,
    ) -> Result<Self, Fault> {
        let mut ledger = Self {
            log: SharedLog::new(directory.join(FILE_NAME), directory.join(LOCKED)),
            had_left: false,
            shared,
            held: Shares::default(),
            owners: HashMap::new(),
            is_incomplete: true,
            dropped_at: None,
            drop_at_lines: 0,
            limit,
            clock,
            audit,
            complaints: OnceASecond::default(),
        };
        let directory = directory.display();
        let lock = ledger.lock(LOCK_WAIT);
        let cannot = |error| Fault::cannot("locked", ledger.log.path(), error);
        ledger.note(lock.as_ref().map(drop).map_err(cannot));
        match &lock {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                warn!(%directory, %error, "no token can be revoked while another process holds it");
            }
            Err(error) => {
                warn!(%directory, %error, "no token can be revoked: the file cannot be locked");
            }
        }
        ledger.learn()?;
        if lock.is_ok() {
            // The next revocation tries again.
            let _ = ledger.log.cut_torn_line();
            ledger.note(ledger.try_open());
        }
        Ok(ledger)
    }

    /// Notes whether revocations can be written.
    fn note(&self, seen: Result<(), Fault>) {
        *self.shared.unwritten.lock() = seen.err();
    }

    fn has_fault(&self) -> bool {
        self.shared.unwritten.lock().is_some()
    }

    fn try_open(&self) -> Result<(), Fault> {
        self.log.try_open().map_err(|error| Fault::cannot("written", self.log.path(), &error))
    }

    /// Looks whether revocations can be written: by writing, if the last one could not. Does not
    /// wait for the lock, because the rows of other processes are to be read in time.
    fn look_to_write(&mut self) {
        let seen = if self.has_fault() { self.try_write() } else { self.try_open() };
        self.note(seen);
    }

    fn try_write(&mut self) -> Result<(), Fault> {
        let lock = self.lock(Duration::ZERO);
        let _lock = lock.map_err(|error| Fault::cannot("locked", self.log.path(), &error))?;
        let tried = self.log.try_write();
        tried.map_err(|error| Fault::cannot("written", self.log.path(), &error))
    }

    /// Reads what other processes have added, and shares the fault if that fails, or if a process
    /// that starts now could not read the file.
    fn look(&mut self) -> Result<(), Fault> {
        let seen = self.learn().and_then(|()| {
            let tried = self.log.try_read();
            tried.map_err(|error| Fault::cannot("read", self.log.path(), &error))
        });
        *self.shared.unread.lock() = seen.clone().err();
        seen
    }

    /// Reads what other processes have added. The caller need not hold the lock.
    fn learn(&mut self) -> Result<(), Fault> {
        let news = self.log.read();
        let news = news.map_err(|error| Fault::cannot("read", self.log.path(), &error))?;
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
                self.insert(Row { key, expires_at, owner });
                in_force += 1;
            }
        }
        if has_cut_off || news.is_other_file {
            // Of another file, rows that are over are missing because another process has dropped
            // them.
            self.drop_over(now);
        }
        if news.is_other_file {
            self.is_incomplete = !has_version || self.shared.revoked.len() > in_force;
        }
        Ok(())
    }

    fn insert(&mut self, row: Row) {
        if self.shared.revoked.insert(row)
            && let Some(owner) = row.owner
        {
            self.held.add(owner);
        }
    }

    /// Drops what is over at `now`, and the rows of tokens that a cut-off revokes.
    fn drop_over(&mut self, now: UnixTime) {
        let (revoked, held) = (&self.shared.revoked, &mut self.held);
        revoked.drop_over(
            |expires_at, owner| {
                is_over(expires_at, now)
                    || owner.is_some_and(|owner| revoked.cut_off(owner) >= expires_at)
            },
            |owner| held.remove(owner),
        );
        revoked.drop_cut_offs(|time| is_over(time, now));
    }

    fn lock(&mut self, wait: Duration) -> io::Result<Lock> {
        let lock = self.log.lock(wait)?;
        // It stays until `uses` has seen it.
        self.had_left = left_lock(self.log.path())?.is_some();
        Ok(lock)
    }

    fn take(&mut self) -> Result<Lock, Fault> {
        let lock = self.lock(LOCK_WAIT);
        let lock = lock.map_err(|error| Fault::cannot("locked", self.log.path(), &error))?;
        self.learn()?;
        let cut = self.log.cut_torn_line();
        cut.map_err(|error| Fault::cannot("written", self.log.path(), &error))?;
        Ok(lock)
    }

    fn revoke(&mut self, waiting: Vec<Waiting<Self>>) {
        let now = self.clock.now();
        let is_full = self.shared.revoked.len() + waiting.len() > self.limit;
        // Drop expired rows in two cases: when the number of lines may have doubled since the last
        // drop, and when the new rows would exceed the limit. In the second case, drop them at most
        // once per second. A drop passes over all rows, which is acceptable because both cases are
        // rare.
        if self.log.lines() >= self.drop_at_lines || (is_full && self.dropped_at != Some(now)) {
            self.drop_over(now);
            self.dropped_at = Some(now);
            self.drop_at_lines = self.most_lines();
        }
        let mut batch = Batch::default();
        for waiting in waiting.into_iter().filter(Waiting::is_awaited) {
            let Revocation { client_id, key, expires_at } = &waiting.job;
            let owner = client_tag(client_id);
            if batch.keys.contains(key) {
                batch.waiting.push(waiting);
                continue;
            }
            let held = self.held.of(owner) + batch.held.of(owner);
            if is_used_up(held, self.free(&batch), self.limit) {
                self.flush(std::mem::take(&mut batch));
                if let Err(error) = self.cut_off_half(client_id) {
                    self.fail(Fault::cannot("written", self.log.path(), &error));
                    continue;
                }
            }
            if self.shared.revoked.contains(key)
                || self.shared.revoked.cut_off(owner) >= *expires_at
            {
                waiting.answer(Ok(()));
            } else if self.free(&batch) == 0 {
                waiting.answer(Err(Cause::RevocationsFull));
            } else {
                let row = Row { key: *key, expires_at: *expires_at, owner: Some(owner) };
                batch.push(waiting, row);
            }
        }
        self.flush(batch);
    }

    /// The number of rows that may be added to those in memory and in `batch`.
    fn free(&self, batch: &Batch) -> usize {
        self.limit.saturating_sub(self.shared.revoked.len() + batch.rows.len())
    }

    /// Writes the rows of `batch` and answers its requests.
    fn flush(&mut self, batch: Batch) {
        let Batch { rows, waiting, .. } = batch;
        let (written, result) = if rows.is_empty() { (0, Ok(())) } else { self.write(&rows) };
        // What is in the file counts after a restart, so it counts now, even if the disk could not
        // be synced and the client must try again.
        rows[..written].iter().for_each(|row| self.insert(*row));
        match &result {
            Ok(()) if rows.is_empty() || !self.has_fault() => {}
            // This process may have had the file open since before its permissions were changed.
            Ok(()) => self.note(self.try_open()),
            Err(error) => {
                self.fail(Fault::cannot("written", self.log.path(), error));
                self.log.forget();
            }
        }
        for waiting in waiting {
            if result.is_ok()
                || (is_torn(&result) && self.shared.revoked.contains(&waiting.job.key))
            {
                waiting.answer(Ok(()));
            }
        }
    }

    /// Writes rows to disk. Returns how many of them are in the file.
    fn write(&mut self, fresh: &[Row]) -> (usize, io::Result<()>) {
        let (written, result) = self.put(fresh);
        (written, result.and_then(|()| none_has_begun(self.log.path(), self.had_left)))
    }

    fn put(&mut self, fresh: &[Row]) -> (usize, io::Result<()>) {
        let mut text = String::with_capacity((fresh.len() + 1) * ROW_BYTES);
        if self.is_incomplete || self.log.lines() > self.most_lines() {
            Line::Version(CURRENT).write(&mut text);
            for (client, time) in self.shared.revoked.cut_offs() {
                Line::CutOff(client, time).write(&mut text);
            }
            self.shared.revoked.for_each(|row| write_row(&row, &mut text));
            fresh.iter().for_each(|row| write_row(row, &mut text));
            let result = self.log.replace(&text);
            self.is_incomplete = result.is_err();
            return (if result.is_ok() { fresh.len() } else { 0 }, result);
        }
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

    /// Revokes every token of the client that expires no later than the last of the half of its rows
    /// that end first, in place of these rows.
    fn cut_off_half(&mut self, client_id: &str) -> io::Result<()> {
        let client = client_tag(client_id);
        let mut ends = Vec::new();
        self.shared.revoked.for_each(|row| {
            if row.owner == Some(client) {
                ends.push(row.expires_at);
            }
        });
        ends.sort_unstable();
        let Some(&until) = ends.get(ends.len().div_ceil(2).saturating_sub(1)) else {
            return Ok(());
        };
        if self.is_incomplete {
            self.write(&[]).1?;
        }
        let (lines, appended) = self.log.append(&Line::CutOff(client, until).to_string());
        let synced = appended.and_then(|()| self.log.sync());
        if lines > 0 {
            self.shared.revoked.insert_cut_off(client, until);
            self.drop_over(self.clock.now());
            let rows = ends.partition_point(|end| *end <= until);
            self.shared.cut_offs.fetch_add(1, Ordering::Relaxed);
            warn!(
                client = client_id,
                until = until.0,
                rows,
                "the client holds its share of limits.revocations: all its tokens that expire until then (Unix seconds) are revoked, in place of these rows"
            );
            if let Some(audit) = &self.audit {
                audit.write(&Event::CutOff { client: client_id, until, rows });
            }
        }
        synced.inspect_err(|_| self.log.forget())
    }

    /// The number of lines above which the file is rewritten.
    fn most_lines(&self) -> usize {
        lines_for(self.shared.revoked.len())
            .saturating_add(2 * self.shared.revoked.cut_offs().len())
    }

    fn fail(&self, fault: Fault) {
        if self.complaints.is_due(self.clock.now()).is_some() {
            error!(error = %fault, "a revocation was not written: check free space and access");
        }
        self.note(Err(fault));
    }
}

impl Commit for Ledger {
    type Job = Revocation;
    type Answer = Result<(), Cause>;

    fn turn(&mut self, waiting: Vec<Waiting<Self>>) {
        if waiting.is_empty() {
            match self.look() {
                Ok(()) => self.look_to_write(),
                // What is in force does not change until the file can be read again.
                Err(fault) if self.complaints.is_due(self.clock.now()).is_some() => {
                    error!(error = %fault, "the revocations of other processes cannot be read");
                }
                Err(_) => {}
            }
            return;
        }
        // What another process has revoked counts, even if it holds the lock.
        let _ = self.look();
        match self.take() {
            Ok(_lock) => self.revoke(waiting),
            Err(fault) => self.fail(fault),
        }
    }
}

/// Rows to write, and the requests that wait for them.
#[derive(Default)]
struct Batch {
    rows: Vec<Row>,
    keys: HashSet<RevocationKey>,
    held: Shares,
    waiting: Vec<Waiting<Ledger>>,
}

impl Batch {
    fn push(&mut self, waiting: Waiting<Ledger>, row: Row) {
        self.keys.insert(row.key);
        if let Some(owner) = row.owner {
            self.held.add(owner);
        }
        self.rows.push(row);
        self.waiting.push(waiting);
    }
}

/// Whether a write ended in the middle.
fn is_torn(result: &io::Result<()>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == ErrorKind::WriteZero)
}

fn write_row(row: &Row, text: &mut String) {
    if let Some(owner) = row.owner {
        Line::Owner(link_of(&row.key), owner, row.expires_at).write(text);
    }
    Line::Token(row.key, row.expires_at).write(text);
}

/// Whether what ends at `time` may be dropped at `now`. A row is kept for an hour after the token has
/// expired, so that no revoked token becomes valid if the clock is set back by up to an hour.
fn is_over(time: UnixTime, now: UnixTime) -> bool {
    time + CLOCK_STEP <= now
}

/// Checks that the file of revocations in `directory`, if it exists, can be locked, read and written,
/// and is valid.
pub(super) fn check(directory: &Path) -> Result<(), Fault> {
    let path = directory.join(FILE_NAME);
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
/// The time in seconds for which a row is kept after its token has expired.
const CLOCK_STEP: u64 = 3600;
/// As long as the file has at most this many lines, expired rows are no reason to rewrite it.
const MIN_LINES: usize = 1000;
/// The lines of a row whose owner is known.
const LINES_PER_ROW: usize = 2;
/// The length in bytes of a row whose key is a `jti`, with its owner.
const ROW_BYTES: usize = 100;
