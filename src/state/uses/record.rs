//! The file of used assertions and proofs, which all processes with one state directory share.
//!
//! ```text
//! grantd-uses-1 8d0a…-…-…-…-…c2f1 dropped:1790003600 refused:1790000010
//! 1790003660 kGGv6zFBu5FLUEcBWPGsQw 8jHc0s9dQ2k
//! closed
//! ```
//!
//! The first line names the version and the boot of the machine; the latest expiry of what was
//! dropped; and the time up to which the record knows nothing, because it began anew then. Each
//! other line is an entry: its expiry, its key, and the client that used it. An entry is not synced
//! to disk, so it outlives the process, but not the machine. After an orderly end, the file is
//! synced and its last line is `closed`.
//!
//! So the file has every use if it is of this boot or closed. If it is neither, it begins anew, and
//! what may have been used before is refused. `closed` must not stand on the disk while something
//! follows it: the first use after it rewrites the file.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use tracing::{error, info, warn};

use crate::clock::Clock;
use crate::fault::Fault;
use crate::fs::shared_log::{News, SharedLog};
use crate::fs::whole_file::Lock;
use crate::oauth::client_assertion::SKEW;
use crate::state::earlier_release::{left_lock, none_has_begun};
use crate::state::group_commit::{Commit, LOCK_WAIT, Waiting};
use crate::state::uses::index::Index;
use crate::state::uses::single_use::{Entry, Use, UseError, Wish};
use crate::telemetry::once_a_second::OnceASecond;
use crate::time::UnixTime;

/// The file and its contents.
pub(super) struct Record {
    log: SharedLog,
    /// The file whose lock the last release holds for as long as it runs.
    revocations: PathBuf,
    index: Index,
    /// The id of this boot of the machine; `None` if the operating system has none.
    boot: Option<String>,
    /// The first line of the file; `None` if it is missing or of another version.
    header: Option<Header>,
    is_closed: bool,
    /// Whether this process has taken the file before.
    is_taken: bool,
    capacity: usize,
    clock: Clock,
    complaints: OnceASecond,
    /// Why the last use could not be recorded, or the next one cannot.
    unrecorded: Arc<Mutex<Option<String>>>,
}

impl Record {
    /// Names the files. Reads and creates nothing. At most `capacity` entries can be live.
    pub(super) fn new(path: PathBuf, revocations: PathBuf, capacity: usize, clock: Clock) -> Self {
        Self {
            log: SharedLog::new(path.clone(), path),
            revocations,
            index: Index::default(),
            boot: boot_id(),
            header: None,
            is_closed: false,
            is_taken: false,
            capacity,
            clock,
            complaints: OnceASecond::default(),
            unrecorded: Arc::default(),
        }
    }

    /// The place of the fault that [`Record::note`] notes.
    pub(super) fn unrecorded(&self) -> Arc<Mutex<Option<String>>> {
        Arc::clone(&self.unrecorded)
    }

    /// Notes whether uses can be recorded.
    pub(super) fn note(&self, seen: Result<(), &io::Error>) {
        *self.unrecorded.lock() = seen.err().map(|error| {
            let fault = match error.get_ref() {
                // It names the file itself.
                Some(fault) if fault.is::<Fault>() => fault.to_string(),
                _ => Fault::cannot("written", self.log.path(), error).to_string(),
            };
            format!("{fault}; check free space and access")
        });
    }

    /// Looks whether uses can be recorded: by writing, if the last one could not.
    fn look(&mut self) {
        let had_fault = self.unrecorded.lock().is_some();
        let seen = if had_fault {
            self.take().and_then(|_lock| self.log.try_write())
        } else {
            self.log.try_open()
        };
        self.note(seen.as_ref().copied());
    }

    /// Locks the file and reads what other processes have appended. Begins the file anew if it may
    /// lack uses. The error is a [`Fault`] if a line is not valid.
    pub(super) fn take(&mut self) -> io::Result<Lock> {
        let lock = self.catch_up(LOCK_WAIT)?;
        // An earlier release knows no such file, so the file lacks what that release has accepted.
        let left = left_lock(&self.revocations)?;
        if left.is_some() || !self.is_complete() {
            self.begin_anew()?;
        }
        left.map_or(Ok(()), Lock::remove)?;
        self.is_taken = true;
        Ok(lock)
    }

    fn catch_up(&mut self, wait: Duration) -> io::Result<Lock> {
        let lock = self.log.lock(wait)?;
        let news = self.log.read()?;
        if let Err(fault) = self.learn(&news) {
            // Report the line again at the next turn, until it is gone.
            self.log.forget();
            if !self.is_of_a_crash(&news) {
                return Err(io::Error::other(fault));
            }
            let file = self.log.path().display();
            warn!(%file, %fault, "the machine has crashed, and the record is damaged");
            self.is_closed = false;
        } else {
            self.log.cut_torn_line()?;
        }
        Ok(lock)
    }

    /// The number of writes by this process.
    #[cfg(test)]
    pub(super) fn writes(&self) -> u64 {
        self.log.writes()
    }

    /// Whether the file is of this boot; `None` if that is not known.
    fn is_of_this_boot(&self) -> Option<bool> {
        Some(self.header.as_ref()?.boot == *self.boot.as_ref()?)
    }

    /// Whether the record is of another boot and not closed: it begins anew in any case.
    fn is_of_a_crash(&self, news: &News) -> bool {
        self.is_of_this_boot() == Some(false) && news.lines().last() != Some(CLOSED.as_bytes())
    }

    fn learn(&mut self, news: &News) -> Result<(), Fault> {
        if news.is_other_file {
            (self.header, self.is_closed) = (None, false);
        }
        for (number, line) in (news.lines_before + 1..).zip(news.lines()) {
            let fault = || {
                let problem = "is not a valid record of a used assertion or proof; stop every \
                               process that uses the state directory and delete the file; what \
                               was signed up to 10 s after the next start is refused then";
                Fault::new(self.log.path(), problem).at_line(number)
            };
            let line = std::str::from_utf8(line).map_err(|_| fault())?;
            self.is_closed = line == CLOSED;
            if number == 1 {
                match Header::parse(line) {
                    Some((header, dropped_until)) => {
                        self.header = Some(header);
                        self.index.note_dropped(dropped_until);
                    }
                    // Another version: what it says is unknown, so the record begins anew.
                    None if line.starts_with(NAME) => return Ok(()),
                    None => return Err(fault()),
                }
            } else if self.header.is_some() && !self.is_closed {
                self.index.insert(parse(line).ok_or_else(fault)?);
            }
        }
        Ok(())
    }

    /// Whether the file has every use since it began.
    fn is_complete(&self) -> bool {
        // Another process rewrites the file only after it has taken it.
        let may_append = self.is_of_this_boot().unwrap_or(self.is_taken);
        self.log.exists() && self.header.is_some() && (self.is_closed || may_append)
    }

    fn begin_anew(&mut self) -> io::Result<()> {
        let known = self.header.take().map_or(UnixTime(0), |header| header.refused_until);
        let refused_until = known.max(self.clock.now() + SKEW);
        let is_first = !self.log.exists();
        self.rewrite(refused_until)?;
        let (file, refused_until) = (self.log.path().display(), refused_until.0);
        if is_first {
            info!(%file, refused_until, "the record of used assertions and proofs begins: what was signed up to refused_until (Unix seconds) is refused");
        } else {
            warn!(%file, refused_until, "the record of used assertions and proofs begins anew: what was signed up to refused_until (Unix seconds) is refused");
        }
        Ok(())
    }

    /// Rewrites the file for this boot, without what has been over for an hour.
    fn rewrite(&mut self, refused_until: UnixTime) -> io::Result<()> {
        let boot = self.boot.clone().unwrap_or_else(|| UNKNOWN_BOOT.to_owned());
        let header = Header { boot, refused_until };
        let mut text = String::with_capacity((self.index.len() + 3) * LINE_BYTES);
        header.write(self.index.dropped_until(), &mut text);
        self.index.entries().for_each(|entry| write_entry(&entry, &mut text));
        self.header = None;
        self.log.replace(&text)?;
        (self.header, self.is_closed) = (Some(header), false);
        Ok(())
    }

    /// The time up to which what was signed is refused: always, if the file could not be rewritten.
    fn refused_until(&self) -> UnixTime {
        self.header.as_ref().map_or(UnixTime(u64::MAX), |header| header.refused_until)
    }

    /// Whether `wanted` may be used.
    fn judge(&mut self, wanted: Use, now: UnixTime) -> Result<(), UseError> {
        let Entry { key, client, until } = wanted.entry;
        if self.index.contains(&key) {
            return Err(UseError::Used);
        }
        if wanted.signed_at <= self.refused_until() {
            return Err(UseError::BeforeRecord);
        }
        if until <= self.index.dropped_until() {
            return Err(UseError::Forgotten);
        }
        self.index.require_room(client, self.capacity, now)
    }

    fn record(&mut self, waiting: Vec<Wish>) {
        let now = self.clock.now();
        self.index.drop_until(now - CLOCK_STEP);
        self.index.set_time(now);
        let mut text = String::with_capacity(waiting.len() * LINE_BYTES);
        let mut accepted = Vec::with_capacity(waiting.len());
        for waiting in waiting.into_iter().filter(Waiting::is_awaited) {
            match self.judge(waiting.job, now) {
                Ok(()) => {
                    self.index.insert(waiting.job.entry);
                    write_entry(&waiting.job.entry, &mut text);
                    accepted.push(waiting);
                }
                Err(error) => waiting.answer(Err(error)),
            }
        }
        if accepted.is_empty() {
            return;
        }
        let (written, result) = self.write(&text, accepted.len());
        // An earlier release that has begun meanwhile accepts these values again.
        let (written, result) = match none_has_begun(&self.revocations, false) {
            Ok(()) => (written, result),
            Err(error) => (0, Err(error)),
        };
        let lost = accepted.split_off(written);
        accepted.into_iter().for_each(|waiting| waiting.answer(Ok(())));
        lost.into_iter().for_each(|lost| self.index.remove(lost.job.entry));
        match &result {
            Ok(()) if self.unrecorded.lock().is_none() => {}
            // This process may have had the file open since before its permissions were changed.
            Ok(()) => self.note(self.log.try_open().as_ref().copied()),
            Err(error) => {
                self.note(Err(error));
                self.complain(error);
                self.log.forget();
            }
        }
    }

    /// Writes the entries of `text`, which are in the index. Returns how many of them are written.
    fn write(&mut self, text: &str, entries: usize) -> (usize, io::Result<()>) {
        let most_lines = self.index.len().saturating_mul(2).saturating_add(MIN_LINES);
        let is_of_another_boot = self.is_of_this_boot() == Some(false);
        if self.is_closed || is_of_another_boot || self.log.lines() > most_lines {
            return match self.rewrite(self.refused_until()) {
                Ok(()) => (entries, Ok(())),
                Err(error) => (0, Err(error)),
            };
        }
        self.log.append(text)
    }

    fn close(&mut self) -> io::Result<()> {
        if !self.log.path().exists() {
            return Ok(());
        }
        let _lock = self.catch_up(LAST_WAIT)?;
        if self.is_closed || !self.is_complete() {
            return Ok(());
        }
        // Synced before the last line is written: the disk may write a file in any order.
        self.log.sync()?;
        self.log.append(&format!("{CLOSED}\n")).1?;
        self.log.sync()?;
        self.is_closed = true;
        Ok(())
    }

    fn complain(&self, error: &io::Error) {
        if self.complaints.is_due(self.clock.now()).is_some() {
            let file = self.log.path().display();
            error!(%file, %error, "the use of an assertion or proof was not recorded: check free space and access");
        }
    }
}

impl Commit<Use, Result<(), UseError>> for Record {
    fn turn(&mut self, waiting: Vec<Wish>) {
        if waiting.is_empty() {
            self.look();
            return;
        }
        match self.take() {
            Ok(_lock) => self.record(waiting),
            Err(error) => {
                self.note(Err(&error));
                self.complain(&error);
            }
        }
    }

    fn end(&mut self) {
        if let Err(error) = self.close() {
            let file = self.log.path().display();
            warn!(%file, %error, "the record of used assertions and proofs was not closed");
        }
    }
}

/// Checks the lines of a file.
pub(super) fn check(path: PathBuf, news: &News) -> Result<(), Fault> {
    let (clock, _) = Clock::manual(0);
    Record::new(path.clone(), path, 0, clock).learn(news)
}

#[derive(Debug, PartialEq, Eq)]
struct Header {
    boot: String,
    /// An assertion or proof that was signed at this time or earlier is refused, because the record
    /// does not know whether it was used.
    refused_until: UnixTime,
}

impl Header {
    fn parse(line: &str) -> Option<(Self, UnixTime)> {
        let mut words = line.split(' ');
        (words.next()? == VERSION).then_some(())?;
        let boot = words.next()?.to_owned();
        let dropped_until = time(words.next()?.strip_prefix("dropped:")?)?;
        let refused_until = time(words.next()?.strip_prefix("refused:")?)?;
        words.next().is_none().then_some((Self { boot, refused_until }, dropped_until))
    }

    fn write(&self, dropped_until: UnixTime, text: &mut String) {
        let Self { boot, refused_until } = self;
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{VERSION} {boot} dropped:{dropped_until} refused:{refused_until}");
    }
}

fn parse(line: &str) -> Option<Entry> {
    let mut words = line.split(' ');
    let until = time(words.next()?)?;
    let key = URL_SAFE_NO_PAD.decode(words.next()?).ok()?.try_into().ok()?;
    let client = URL_SAFE_NO_PAD.decode(words.next()?).ok()?.try_into().ok()?;
    words.next().is_none().then_some(Entry { key, client, until })
}

fn time(text: &str) -> Option<UnixTime> {
    text.parse().ok().map(UnixTime)
}

fn write_entry(Entry { key, client, until }: &Entry, text: &mut String) {
    let (key, client) = (URL_SAFE_NO_PAD.encode(key), URL_SAFE_NO_PAD.encode(client));
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{until} {key} {client}");
}

/// The id that the kernel gave to this boot of the machine.
fn boot_id() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let id = id.trim();
    (!id.is_empty() && !id.contains(' ') && id != UNKNOWN_BOOT).then(|| id.to_owned())
}

const NAME: &str = "grantd-uses-";
const VERSION: &str = "grantd-uses-1";
const CLOSED: &str = "closed";
const UNKNOWN_BOOT: &str = "-";
/// The time in seconds for which an entry is kept after its expiry: if the clock is set back by up
/// to an hour, nothing that is signed then is taken for something that was dropped.
const CLOCK_STEP: u64 = 3600;
/// As long as the file has at most this many lines, dropped entries are no reason to rewrite it.
const MIN_LINES: usize = 1000;
/// The length in bytes of a line, including the line break.
const LINE_BYTES: usize = 46;
/// The longest time that the end of a process waits for the lock.
const LAST_WAIT: Duration = Duration::from_millis(300);
