//! Which clients ask for tokens that they do not need: those that ask again while the last token had
//! more than half of its life left.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Watches the clients that have asked most recently, [`WATCHED`] of them.
#[derive(Default)]
pub struct Wasteful(Mutex<HashMap<Box<str>, Asking>>);

#[derive(Clone, Copy)]
struct Asking {
    last: u64,
    wasted: u64,
}

impl Wasteful {
    /// Notes a token that `client` was issued at `now` for `lifetime` seconds (Unix seconds).
    pub fn note(&self, client: &str, lifetime: u32, now: u64) {
        let mut watched = self.watched();
        if let Some(asking) = watched.get_mut(client) {
            if now.saturating_sub(asking.last) < u64::from(lifetime) / 2 {
                asking.wasted += 1;
            }
            asking.last = now;
            return;
        }
        if watched.len() >= WATCHED {
            // Of those that have wasted least, whoever has been silent for longest.
            let least = watched.iter().min_by_key(|(_, asking)| (asking.wasted, asking.last));
            if let Some(least) = least.map(|(client, _)| client.clone()) {
                watched.remove(&least);
            }
        }
        watched.insert(client.into(), Asking { last: now, wasted: 0 });
    }

    /// The clients that have wasted most, [`SHOWN`] at most, with how many tokens each.
    pub fn worst(&self) -> Vec<(Box<str>, u64)> {
        let watched = self.watched();
        let mut all: Vec<_> = watched.iter().filter(|(_, asking)| asking.wasted > 0).collect();
        all.sort_unstable_by_key(|(client, asking)| (Reverse(asking.wasted), *client));
        all.truncate(SHOWN);
        all.into_iter().map(|(client, asking)| (client.clone(), asking.wasted)).collect()
    }

    /// Whole between any two statements, so a panic elsewhere cannot have broken it.
    fn watched(&self) -> MutexGuard<'_, HashMap<Box<str>, Asking>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Wasteful {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wasteful").field("watched", &self.watched().len()).finish_non_exhaustive()
    }
}

/// Finding the one that goes takes about as long as a signature does for ten times as many.
pub const WATCHED: usize = 1024;
/// As many as a dashboard has room for.
pub const SHOWN: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_asks_too_early_is_counted_and_the_worst_come_first() {
        let wasteful = Wasteful::default();
        for now in [1000, 2800, 4600] {
            wasteful.note("patient", 3600, now);
        }
        for now in [1000, 1001, 1002, 2801, 5000] {
            wasteful.note("hasty", 3600, now);
        }
        wasteful.note("once", 3600, 1000);
        for now in 0..5 {
            wasteful.note("worst", 60, now);
        }
        assert_eq!(wasteful.worst(), [("worst".into(), 4), ("hasty".into(), 3)]);
    }

    #[test]
    fn many_clients_are_a_bounded_number_of_rows_and_the_worst_stay() {
        let wasteful = Wasteful::default();
        wasteful.note("worst", 60, 0);
        wasteful.note("worst", 60, 1);
        for client in 0..WATCHED as u64 * 2 {
            wasteful.note(&client.to_string(), 60, client);
            assert!(wasteful.watched().len() <= WATCHED);
        }
        assert_eq!(wasteful.worst(), [("worst".into(), 1)]);
    }
}
