//! A lock-free counter that also keeps the time of the last event.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::time::UnixTime;

/// A count of events and the time of the last event. Threads update both without a lock.
#[derive(Debug, Default)]
pub struct Tally {
    count: AtomicU64,
    last: AtomicU64,
}

impl Tally {
    /// Counts one event at `now`.
    pub fn record(&self, now: UnixTime) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.last.store(now.0, Ordering::Relaxed);
    }

    /// The number of events.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The time of the last event; 0 before the first event.
    pub fn last(&self) -> UnixTime {
        UnixTime(self.last.load(Ordering::Relaxed))
    }
}
