//! The thread that writes the snapshot.
//!
//! One process at a time writes the file of a state directory: it holds the file's lock for as long
//! as it runs. The base comes from the thread that follows the store, while that reads everything.
//! If there can be no base now, because another process has the lock or the disk is full, the writer
//! asks for one later.

use std::io;
use std::mem::take;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::clock::Clock;
use crate::fault::Fault;
use crate::fs::whole_file::{self, Lock};
use crate::store::postgres::seal::MasterKeys;
use crate::store::postgres::snapshot_file::compaction::Compaction;
use crate::store::postgres::snapshot_file::items::{Item, Source};
use crate::store::postgres::snapshot_file::log::{Draft, Log, RECORD_BYTES};
use crate::store::postgres::snapshot_file::queue::{Message, Queue, Waiting};
use crate::time::UnixTime;

/// Writes the snapshot.
pub(super) struct Writer {
    path: PathBuf,
    keys: Arc<MasterKeys>,
    clock: Clock,
    queue: Arc<Queue>,
    lock: Option<Lock>,
    state: State,
    /// Changes that are not written yet: the items of each further record.
    parts: Vec<Vec<u8>>,
    /// Whether the last attempt to write them has failed.
    is_behind: bool,
    /// When the snapshot is what the store held, once the parts are written.
    seen: UnixTime,
    /// The time in the file.
    written_time: UnixTime,
    /// When changes and the time were written last.
    written: Instant,
    /// When to ask for a base, and the pause after the next failure.
    retry: Option<Instant>,
    pause: Duration,
}

enum State {
    /// There is no file to append to.
    Idle,
    /// The base is being written.
    Base(Draft),
    /// Changes are appended.
    Open(Box<Log>, Option<Box<Compaction>>),
}

impl Writer {
    pub(super) fn new(
        path: PathBuf,
        keys: Arc<MasterKeys>,
        clock: Clock,
        queue: Arc<Queue>,
    ) -> Self {
        let written = clock.instant();
        Self {
            path,
            keys,
            clock,
            queue,
            lock: None,
            state: State::Idle,
            parts: Vec::new(),
            is_behind: false,
            seen: UnixTime::default(),
            written_time: UnixTime::default(),
            written,
            retry: None,
            pause: FIRST_PAUSE,
        }
    }

    /// Writes what is handed over until the queue is closed.
    pub(super) fn run(mut self) {
        while self.turn() {}
    }

    /// Takes what waits and writes what is due. Returns whether the queue is open.
    pub(super) fn turn(&mut self) -> bool {
        let is_compacting = matches!(self.state, State::Open(_, Some(_)));
        let wait = if is_compacting { Duration::ZERO } else { BETWEEN_TURNS };
        let Waiting { messages, is_closed, is_lost, .. } = self.queue.take(wait);
        if is_lost {
            self.fail("its disk does not keep up with the changes");
        }
        for message in messages {
            self.handle(message);
        }
        let now = self.clock.instant();
        let since = now.saturating_duration_since(self.written);
        let is_due = if self.parts.is_empty() { TIME_EVERY } else { CHANGES_EVERY } <= since;
        if is_due || is_closed {
            self.written = now;
            self.flush();
        }
        self.compact();
        if self.retry.is_some_and(|at| now >= at) {
            self.retry = None;
            self.ask_for_base();
        }
        !is_closed
    }

    fn handle(&mut self, message: Message) {
        match (&mut self.state, message) {
            (_, Message::Begin(source)) => self.begin(&source),
            (State::Base(draft), Message::Part(items)) => {
                if let Err(error) = draft.add_all(&items) {
                    self.fail_to_write(&error);
                }
            }
            (State::Base(_), Message::EndBase(seen)) => self.end_base(seen),
            (State::Open(..), Message::Part(items)) => self.keep(items),
            (State::Open(..), Message::Seen(seen)) => self.seen = seen,
            _ => {}
        }
    }

    fn begin(&mut self, source: &Source) {
        self.parts.clear();
        (self.is_behind, self.retry) = (false, None);
        match self.try_lock().and_then(|()| Draft::begin(&self.path, &self.keys, source)) {
            Ok(draft) => self.state = State::Base(draft),
            Err(error) => self.fail_to_write(&error),
        }
    }

    fn end_base(&mut self, seen: UnixTime) {
        let State::Base(mut draft) = std::mem::replace(&mut self.state, State::Idle) else {
            return;
        };
        match draft.end_base(seen).and_then(|()| draft.finish()) {
            Ok(log) => {
                self.state = State::Open(Box::new(log), None);
                (self.seen, self.written_time) = (seen, seen);
                self.written = self.clock.instant();
                self.pause = FIRST_PAUSE;
                self.queue.say(None);
                info!(file = %self.path.display(), "the snapshot of the store is complete");
            }
            Err(error) => self.fail_to_write(&error),
        }
    }

    /// Keeps changes for the next flush, which is at once if they are many.
    fn keep(&mut self, items: Vec<u8>) {
        match self.parts.last_mut() {
            _ if items.is_empty() => {}
            Some(last) if last.len() + items.len() <= RECORD_BYTES => last.extend(items),
            _ => self.parts.push(items),
        }
        let kept: usize = self.parts.iter().map(Vec::len).sum();
        if kept > MOST_KEPT {
            self.fail("its disk does not take the changes");
        } else if kept > MANY && !self.is_behind {
            self.flush();
        }
    }

    /// Appends the changes and the time.
    fn flush(&mut self) {
        let State::Open(log, compaction) = &mut self.state else { return };
        let mut parts = take(&mut self.parts);
        let is_misplaced = !log.is_in_place();
        if parts.is_empty() {
            if self.seen == self.written_time && !is_misplaced {
                // The store is away.
                return;
            }
            parts.push(Vec::new());
        }
        if let Some(last) = parts.last_mut() {
            Item::Seen(self.seen).encode(last);
        }
        match log.append(&parts) {
            Ok(()) => {
                self.written_time = self.seen;
                self.is_behind = false;
                self.queue.say(None);
                if compaction.is_none() && (log.is_long() || is_misplaced) {
                    let begun = Compaction::begin(log, self.clock.now());
                    match begun {
                        Ok(begun) => *compaction = Some(Box::new(begun)),
                        Err(fault) => self.fail(&fault.problem),
                    }
                }
            }
            // The changes are kept for the next attempt.
            Err(error) => {
                (self.parts, self.is_behind) = (parts, true);
                let problem = about(&error);
                warn!(file = %self.path.display(), problem, "the snapshot of the store falls behind");
                self.queue.say(Some(self.shown(&problem)));
            }
        }
    }

    /// Goes on to write the file anew, if it is.
    fn compact(&mut self) {
        let State::Open(log, compaction) = &mut self.state else { return };
        let Some(running) = compaction else { return };
        let done = match running.step(log) {
            Ok(false) => return,
            Ok(true) => {
                let finished = compaction.take().map(|done| done.draft.finish());
                finished.transpose().map_err(|error| Fault::cannot("written", &self.path, &error))
            }
            Err(fault) => Err(fault),
        };
        match done {
            Ok(Some(new)) => **log = new,
            Ok(None) => {}
            Err(fault) => self.fail(&fault.problem),
        }
    }

    /// Locks the file, unless it is locked already.
    fn try_lock(&mut self) -> io::Result<()> {
        if self.lock.is_none() {
            if let Some(directory) = self.path.parent() {
                whole_file::create_directory(directory)?;
            }
            self.lock = Some(whole_file::lock_within(&self.path, Duration::ZERO)?);
        }
        Ok(())
    }

    fn ask_for_base(&mut self) {
        match self.try_lock() {
            Ok(()) => self.queue.need_base(),
            Err(error) => self.fail_to_write(&error),
        }
    }

    fn fail_to_write(&mut self, error: &io::Error) {
        if self.lock.is_none() && error.kind() == io::ErrorKind::WouldBlock {
            // The other process writes it. This one asks again soon, and reads nothing before.
            (self.state, self.retry) = (State::Idle, Some(self.clock.instant() + FIRST_PAUSE));
        } else {
            self.fail(&about(error));
        }
    }

    /// Gives the file up. What is on the disk stays as it is.
    fn fail(&mut self, problem: &str) {
        warn!(
            file = %self.path.display(),
            problem,
            again_in_s = self.pause.as_secs(),
            "no snapshot of the store is written"
        );
        self.queue.say(Some(self.shown(problem)));
        self.state = State::Idle;
        drop(take(&mut self.parts));
        self.retry = Some(self.clock.instant() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    fn shown(&self, problem: &str) -> String {
        format!(
            "{}: {problem}: without it, this server cannot start while the database is away",
            self.path.display()
        )
    }
}

fn about(error: &io::Error) -> String {
    format!("cannot be written: {error}")
}

const BETWEEN_TURNS: Duration = Duration::from_millis(500);
/// How often changes are written.
const CHANGES_EVERY: Duration = Duration::from_secs(1);
/// How often the time is written if there are no changes.
const TIME_EVERY: Duration = Duration::from_secs(30);
/// The bytes of changes from which they are written at once.
const MANY: usize = 4 << 20;
/// The most bytes of changes that are kept in memory while they cannot be written.
const MOST_KEPT: usize = 16 << 20;
const FIRST_PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
