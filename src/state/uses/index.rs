//! The used assertions and proofs in memory, and how many of them each client holds.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use crate::oauth::client_assertion::{MAX_LIFE, SKEW};
use crate::state::shares::{ClientTag, Shares, is_used_up};
use crate::state::uses::single_use::{Entry, Key, UseError};
use crate::time::UnixTime;

/// The entries by key and by expiry.
///
/// An entry is *live* while what it stands for could still be presented: it has not expired, and it
/// does not expire later than [`LONGEST_LIFE`] from now. (It does if the clock was ahead when it was
/// used, and was set back since.) Only live entries count for the limits.
#[derive(Debug, Default)]
pub(crate) struct Index {
    keys: HashSet<Key>,
    by_end: BTreeMap<UnixTime, Vec<(Key, ClientTag)>>,
    /// The expiry times of the live entries.
    window: Range<UnixTime>,
    live: usize,
    held: Shares,
    dropped_until: UnixTime,
}

impl Index {
    /// The number of entries.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.keys.contains(key)
    }

    /// The latest expiry of all dropped entries: what expires at this time or
    /// earlier may have been used.
    pub(crate) fn dropped_until(&self) -> UnixTime {
        self.dropped_until
    }

    /// Notes that another process has dropped entries that expired at this time or earlier.
    pub(crate) fn note_dropped(&mut self, until: UnixTime) {
        self.dropped_until = self.dropped_until.max(until);
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> {
        self.by_end.iter().flat_map(|(&until, entries)| {
            entries.iter().map(move |&(key, client)| Entry { key, client, until })
        })
    }

    pub(crate) fn insert(&mut self, Entry { key, client, until }: Entry) {
        if self.keys.insert(key) {
            self.by_end.entry(until).or_default().push((key, client));
            self.count_if_live(client, until, true);
        }
    }

    /// Removes an entry that could not be recorded.
    pub(crate) fn remove(&mut self, Entry { key, client, until }: Entry) {
        if !self.keys.remove(&key) {
            return;
        }
        if let Some(entries) = self.by_end.get_mut(&until) {
            entries.retain(|(other, _)| *other != key);
        }
        self.count_if_live(client, until, false);
    }

    /// Sets the time for which entries are live. It may be set back.
    pub(crate) fn set_time(&mut self, now: UnixTime) {
        let new = now + 1..now + (LONGEST_LIFE + 1);
        let old = std::mem::replace(&mut self.window, new.clone());
        for (from, without, is_live) in [(&old, &new, false), (&new, &old, true)] {
            let before = from.start..from.end.min(without.start);
            let after = from.start.max(without.end)..from.end;
            for part in [before, after] {
                self.count_all(part, is_live);
            }
        }
    }

    /// Drops the entries that expired at `time` or earlier.
    pub(crate) fn drop_until(&mut self, time: UnixTime) {
        while let Some(first) = self.by_end.first_entry()
            && *first.key() <= time
        {
            let (until, entries) = first.remove_entry();
            self.note_dropped(until);
            for (key, client) in entries {
                self.keys.remove(&key);
                self.count_if_live(client, until, false);
            }
        }
    }

    /// Checks that an entry of this client can be added at `now` if at most `capacity` can be live.
    /// Drops entries that have expired if too many are kept.
    ///
    /// # Errors
    ///
    /// [`UseError::Share`] or [`UseError::Full`].
    pub(crate) fn require_room(
        &mut self,
        client: ClientTag,
        capacity: usize,
        now: UnixTime,
    ) -> Result<(), UseError> {
        let free = capacity.saturating_sub(self.live);
        if is_used_up(self.held.of(client), free, capacity) {
            return Err(UseError::Share);
        }
        let most = capacity.saturating_mul(KEPT_FOR_EACH_LIVE).max(LEAST_KEPT);
        self.drop_surplus(most, now);
        if free == 0 || self.len() >= most { Err(UseError::Full) } else { Ok(()) }
    }

    /// Drops entries that have expired at `now`, the earliest first, until fewer than `limit` are
    /// left or none has expired.
    fn drop_surplus(&mut self, limit: usize, now: UnixTime) {
        while self.len() >= limit
            && let Some((&first, _)) = self.by_end.first_key_value()
            && first <= now
        {
            self.drop_until(first);
        }
    }

    fn count_all(&mut self, part: Range<UnixTime>, is_live: bool) {
        if part.is_empty() {
            return;
        }
        let clients: Vec<_> =
            self.by_end.range(part).flat_map(|(_, entries)| entries).map(|entry| entry.1).collect();
        clients.into_iter().for_each(|client| self.count(client, is_live));
    }

    fn count_if_live(&mut self, client: ClientTag, until: UnixTime, is_added: bool) {
        if self.window.contains(&until) {
            self.count(client, is_added);
        }
    }

    fn count(&mut self, client: ClientTag, is_live: bool) {
        if is_live {
            self.held.add(client);
            self.live += 1;
        } else {
            self.held.remove(client);
            self.live -= 1;
        }
    }
}

/// The longest time in seconds for which an assertion or proof can be presented after its first
/// use.
const LONGEST_LIFE: u64 = MAX_LIFE + SKEW;

/// The number of entries that are kept for each one that may be live.
const KEPT_FOR_EACH_LIVE: usize = 5;
/// The number of entries that are kept even if fewer may be live.
const LEAST_KEPT: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime(10_000);

    fn entry(number: u8, client: u8, until: UnixTime) -> Entry {
        Entry { key: [number; 16], client: [client; 8], until }
    }

    #[test]
    fn only_what_can_still_be_presented_is_counted() {
        let mut index = Index::default();
        index.set_time(NOW);
        index.insert(entry(1, 1, NOW + 60));
        index.insert(entry(2, 1, NOW + 310));
        index.insert(entry(3, 2, NOW + 60));
        index.insert(entry(3, 2, NOW + 60));
        let counts = |index: &Index| (index.live, index.held.of([1; 8]), index.held.of([2; 8]));
        assert_eq!(counts(&index), (3, 2, 1));
        for (now, expected) in [
            (NOW + 59, (3, 2, 1)),
            (NOW + 60, (1, 1, 0)),
            (NOW + 309, (1, 1, 0)),
            (NOW + 310, (0, 0, 0)),
            (NOW + 3600, (0, 0, 0)),
            (NOW, (3, 2, 1)),
            (NOW - 1, (2, 1, 1)),
            (NOW - 3600, (0, 0, 0)),
            (UnixTime(0), (0, 0, 0)),
            (NOW + 1, (3, 2, 1)),
            (UnixTime(u64::MAX), (0, 0, 0)),
            (NOW, (3, 2, 1)),
        ] {
            index.set_time(now);
            assert_eq!(counts(&index), expected, "{now}");
        }
        index.remove(entry(1, 1, NOW + 60));
        assert_eq!(counts(&index), (2, 1, 1));
        assert!(!index.contains(&[1; 16]) && index.contains(&[2; 16]));
    }

    #[test]
    fn the_latest_end_of_what_was_dropped_is_remembered() {
        let mut index = Index::default();
        index.set_time(NOW);
        (1..=5).for_each(|number| index.insert(entry(number, 1, NOW + u64::from(number))));
        index.drop_until(NOW);
        assert_eq!((index.len(), index.dropped_until()), (5, UnixTime(0)));
        index.drop_until(NOW + 2);
        assert_eq!((index.len(), index.live, index.dropped_until()), (3, 3, NOW + 2));
        // What has not expired is no surplus.
        index.drop_surplus(1, NOW + 3);
        assert_eq!((index.len(), index.dropped_until()), (2, NOW + 3));
        index.note_dropped(NOW);
        assert_eq!(index.dropped_until(), NOW + 3);
        assert_eq!(index.entries().count(), 2);
    }
}
