//! The clients that have authenticated from a network within the last day.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The known clients, each with the hour of its last success. A direct-mapped cache: the low 16
/// bits of the hash of client and network select the slot.
pub(super) struct KnownClients {
    origin: Instant,
    slots: Box<[AtomicU64]>,
}

impl KnownClients {
    pub(super) fn new(now: Instant) -> Self {
        Self { origin: now, slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Whether `pair`, a hash of client and network, has succeeded within the last 24 hours.
    pub(super) fn contains(&self, pair: u64, now: Instant) -> bool {
        let entry = self.slot(pair).load(Ordering::Relaxed);
        let age = self.hour(now).wrapping_sub(entry as u16);
        entry & !HOUR == pair & !HOUR && entry & HOUR != 0 && age < 24
    }

    pub(super) fn insert(&self, pair: u64, now: Instant) {
        let entry = pair & !HOUR | u64::from(self.hour(now));
        let slot = self.slot(pair);
        // The entry is usually unchanged. An unnecessary store would invalidate the cache line in
        // other cores.
        if slot.load(Ordering::Relaxed) != entry {
            slot.store(entry, Ordering::Relaxed);
        }
    }

    /// The number of the current hour. The first hour after the start has the number 1.
    fn hour(&self, now: Instant) -> u16 {
        // The number wraps after 65,536 hours, which are seven years. For a day, a client may then
        // count as known although its last success is seven years old.
        (now.saturating_duration_since(self.origin).as_secs() / 3600 + 1) as u16
    }

    fn slot(&self, pair: u64) -> &AtomicU64 {
        &self.slots[(pair & HOUR) as usize]
    }
}

/// The number of slots. All slots together take 512 KiB of memory.
const SLOTS: usize = 1 << 16;
/// The bits of an entry that hold the hour. The same bits of the hash of client and network select
/// the slot, so the entry need not hold them.
const HOUR: u64 = SLOTS as u64 - 1;
