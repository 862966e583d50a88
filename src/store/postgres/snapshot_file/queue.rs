//! The queue between the thread that follows the store and the thread that writes the snapshot. It is
//! bounded: a disk that hangs must neither fill the memory nor hold up the changes.

use std::collections::VecDeque;
use std::mem::take;
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

/// The messages that wait, and what the writer says.
pub(super) struct Queue {
    /// How long a message waits for the writer.
    patience: Duration,
    waiting: Mutex<Waiting>,
    changed: Condvar,
    said: Mutex<Said>,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<Message>,
    bytes: usize,
    is_closed: bool,
    /// Whether messages were dropped.
    is_lost: bool,
}

/// The answers of the writer.
#[derive(Default)]
struct Said {
    needs_base: bool,
    problem: Option<String>,
}

/// The messages that the writer takes.
pub(super) struct Taken {
    pub(super) messages: VecDeque<Message>,
    pub(super) is_closed: bool,
    /// Whether messages before these were dropped.
    pub(super) is_lost: bool,
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
        waiting.messages.push_back(message);
        self.changed.notify_all();
        true
    }

    /// Takes what waits, and waits for it at most `time`.
    pub(super) fn take(&self, time: Duration) -> Taken {
        let mut waiting = self.waiting.lock();
        let is_idle = |waiting: &mut Waiting| {
            waiting.messages.is_empty() && !waiting.is_closed && !waiting.is_lost
        };
        self.changed.wait_while_for(&mut waiting, is_idle, time);
        self.changed.notify_all();
        waiting.bytes = 0;
        Taken {
            messages: take(&mut waiting.messages),
            is_closed: waiting.is_closed,
            is_lost: take(&mut waiting.is_lost),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_and_what_was_dropped_is_said() {
        let queue = Queue::new(Duration::ZERO);
        let part = || Message::Part(vec![0; MOST_BYTES / 2]);
        assert!(queue.push(part()) && queue.push(part()));
        assert!(!queue.push(part()), "nothing takes them");
        assert!(queue.push(Message::Seen(UnixTime(1))));
        let taken = queue.take(Duration::ZERO);
        assert!(taken.is_lost && !taken.is_closed && taken.messages.len() == 1);
        queue.close();
        let taken = queue.take(Duration::MAX);
        assert!(taken.is_closed && !taken.is_lost && taken.messages.is_empty());
    }
}
