//! How often something has happened, and when last: counted by many threads, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

/// A count and a time.
#[derive(Debug, Default)]
pub struct Tally {
    count: AtomicU64,
    last: AtomicU64,
}

impl Tally {
    /// Counts once more, at `now` (Unix seconds).
    pub fn record(&self, now: u64) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.last.store(now, Ordering::Relaxed);
    }

    /// How often it has happened.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// When it happened last (Unix seconds); 0 before it has.
    pub fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }
}
