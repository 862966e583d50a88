//! The queue between the thread that follows the store and the thread that writes the snapshot. It is
//! bounded: a disk that hangs must neither fill the memory nor hold up the changes.

use std::mem::{replace, take};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::store::postgres::snapshot_file::items::Source;
use crate::time::UnixTime;

/// A message to the writer.
pub(super) enum Message {
    /// A base begins.
    Begin(Source),
    /// Items of the base, or changes of it.
    Part(Vec<u8>),
    /// The base ends. It is what the store held at this time.
    EndBase(UnixTime),
    /// With the changes before, the snapshot is what the store held at this time.
    Seen(UnixTime),
}

impl Message {
    fn size(&self) -> usize {
        let items = if let Self::Part(items) = self { items.len() } else { 0 };
        size_of::<Self>() + items
    }
}

/// The queue, and what the writer says.
pub(super) struct Queue {
    /// How long a message waits for the writer.
    patience: Duration,
    waiting: Mutex<Waiting>,
    changed: Condvar,
    said: Mutex<Said>,
}

/// The messages that wait.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) messages: Vec<Message>,
    bytes: usize,
    pub(super) is_closed: bool,
    /// Whether messages before these were dropped.
    pub(super) is_lost: bool,
}

/// The answers of the writer.
#[derive(Default)]
struct Said {
    needs_base: bool,
    problem: Option<String>,
}

impl Queue {
    /// Makes a queue in which a message waits for the writer for `patience` at most.
    pub(super) fn new(patience: Duration) -> Self {
        let (waiting, said) = Default::default();
        Self { patience, waiting, changed: Condvar::new(), said }
    }

    /// Adds a message. Waits for the writer if much waits. Returns whether it was added: if the
    /// writer takes nothing for long, everything that waits is dropped.
    pub(super) fn push(&self, message: Message) -> bool {
        let mut waiting = self.waiting.lock();
        let is_full = |waiting: &mut Waiting| waiting.bytes >= MOST_BYTES;
        let waited = self.changed.wait_while_for(&mut waiting, is_full, self.patience);
        if waited.timed_out() {
            *waiting = Waiting { is_lost: true, ..Waiting::default() };
            return false;
        }
        waiting.bytes += message.size();
        waiting.messages.push(message);
        self.changed.notify_all();
        true
    }

    /// Takes what waits, and waits for it at most `time`.
    pub(super) fn take(&self, time: Duration) -> Waiting {
        let mut waiting = self.waiting.lock();
        let is_idle = |waiting: &mut Waiting| {
            waiting.messages.is_empty() && !waiting.is_closed && !waiting.is_lost
        };
        self.changed.wait_while_for(&mut waiting, is_idle, time);
        self.changed.notify_all();
        let left = Waiting { is_closed: waiting.is_closed, ..Waiting::default() };
        replace(&mut *waiting, left)
    }

    /// Ends the writer when it has taken what waits.
    pub(super) fn close(&self) {
        self.waiting.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Asks for a base.
    pub(super) fn need_base(&self) {
        self.said.lock().needs_base = true;
    }

    /// Whether the writer has asked for a base since the last call.
    pub(super) fn is_base_needed(&self) -> bool {
        take(&mut self.said.lock().needs_base)
    }

    /// Says why no snapshot is written; `None` if one is.
    pub(super) fn say(&self, problem: Option<String>) {
        self.said.lock().problem = problem;
    }

    /// Why no snapshot is written; `None` if one is.
    pub(super) fn problem(&self) -> Option<String> {
        self.said.lock().problem.clone()
    }
}

/// The bytes above which a message waits until others are taken.
const MOST_BYTES: usize = 8 << 20;
