//! The open connections, and the choice of the one to evict.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::http::connection::{Phase, Watch};

/// The watches of all open connections. Each watch holds its index in the list.
#[derive(Default)]
pub(super) struct Open {
    watches: Vec<Arc<Watch>>,
    /// The index at which the last search for a connection to evict ended.
    cursor: usize,
}

impl Open {
    pub(super) fn len(&self) -> usize {
        self.watches.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Watch> {
        self.watches.iter().map(|watch| &**watch)
    }

    pub(super) fn insert(&mut self, watch: Arc<Watch>) {
        watch.index.store(self.watches.len(), Ordering::Relaxed);
        self.watches.push(watch);
    }

    pub(super) fn remove(&mut self, watch: &Watch) {
        let index = watch.index.load(Ordering::Relaxed);
        self.watches.swap_remove(index);
        if let Some(moved) = self.watches.get(index) {
            moved.index.store(index, Ordering::Relaxed);
        }
    }

    /// Evicts a connection that waits for its client. Returns `false` if there is none among the
    /// next [`SEARCHED`] connections.
    ///
    /// A connection that waits for its client is either idle (between requests) or busy (within a
    /// request or its answer). If a busy connection has waited for [`SUSPICIOUS`] or longer, the
    /// busy connection that has waited longest is chosen. Otherwise, the larger of the two groups
    /// is used, and the connection of this group that has waited longest is chosen.
    pub(super) fn evict_one(&mut self, now: Instant) -> bool {
        let [mut idle, mut busy]: [(usize, Option<(Instant, usize)>); 2] = [(0, None); 2];
        for _ in 0..self.watches.len().min(SEARCHED) {
            self.cursor = (self.cursor + 1) % self.watches.len();
            let watch = &self.watches[self.cursor];
            if watch.waits_for_server() || watch.is_evicted() {
                continue;
            }
            let (count, first) = if watch.phase() == Phase::Idle { &mut idle } else { &mut busy };
            *count += 1;
            let since = watch.since();
            if first.is_none_or(|(earliest, _)| since < earliest) {
                *first = Some((since, self.cursor));
            }
        }
        let is_suspicious = busy.1.is_some_and(|(since, _)| now - since >= SUSPICIOUS);
        let chosen = if is_suspicious || busy.0 > idle.0 { busy.1 } else { idle.1.or(busy.1) };
        chosen.is_some_and(|(_, index)| {
            self.watches[index].evict();
            true
        })
    }
}

/// The number of connections from which the one to evict is chosen. So the time of the search does
/// not grow with the number of connections. Each search begins where the last one has ended.
const SEARCHED: usize = 256;
/// A busy connection that has waited this long or longer is evicted before idle connections. An
/// honest client needs less time to send a request or to read an answer.
const SUSPICIOUS: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::config::StartupLimits;

    #[test]
    fn the_longest_idle_connections_are_evicted_once_each() {
        let (clock, manual) = Clock::manual(0);
        let mut open = Open::default();
        let watches = [(); 4].map(|()| {
            manual.advance(1);
            let limits = StartupLimits::default();
            let watch = Arc::new(Watch::new(&limits, clock.clone(), Arc::default()));
            open.insert(Arc::clone(&watch));
            watch
        });
        open.remove(&watches[0]);
        open.remove(&watches[2]);
        let evicted = || watches.each_ref().map(|watch| watch.is_evicted());
        assert!(open.evict_one(clock.instant()));
        assert_eq!(evicted(), [false, true, false, false]);
        assert!(open.evict_one(clock.instant()));
        assert_eq!(evicted(), [false, true, false, true]);
        assert!(!open.evict_one(clock.instant()));
        open.remove(&watches[1]);
        open.remove(&watches[3]);
        assert_eq!(open.len(), 0);
        assert!(!open.evict_one(clock.instant()));
    }
}
