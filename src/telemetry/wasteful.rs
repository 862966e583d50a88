//! Finds the clients that waste tokens: those that request a token while the previous one has more
//! than half of its lifetime left.

use std::cmp::Reverse;
use std::collections::HashMap;

use parking_lot::Mutex;

use crate::time::UnixTime;

/// Counts the tokens that each of at most [`WATCHED`] clients wastes.
#[derive(Default)]
pub struct Wasteful(Mutex<HashMap<Box<str>, Usage>>);

#[derive(Clone, Copy)]
struct Usage {
    /// When the last token was issued.
    last: UnixTime,
    wasted: u64,
}

impl Wasteful {
    /// Records a token of `lifetime` seconds that was issued to `client` at `now`.
    pub fn note(&self, client: &str, lifetime: u32, now: UnixTime) {
        let mut watched = self.0.lock();
        if let Some(usage) = watched.get_mut(client) {
            if now.since(usage.last) < u64::from(lifetime) / 2 {
                usage.wasted += 1;
            }
            usage.last = now;
            return;
        }
        if watched.len() >= WATCHED {
            // Evict the client that has wasted the fewest tokens. Among equals, evict the client
            // whose last token is the oldest.
            let least = watched.iter().min_by_key(|(_, usage)| (usage.wasted, usage.last));
            if let Some(least) = least.map(|(client, _)| client.clone()) {
                watched.remove(&least);
            }
        }
        watched.insert(client.into(), Usage { last: now, wasted: 0 });
    }

    /// Returns the clients that have wasted the most tokens, each with the number of tokens that it
    /// has wasted. Returns at most [`SHOWN`] clients, the worst first.
    pub fn worst(&self) -> Vec<(Box<str>, u64)> {
        let watched = self.0.lock();
        let mut all: Vec<_> = watched.iter().filter(|(_, usage)| usage.wasted > 0).collect();
        all.sort_unstable_by_key(|(client, usage)| (Reverse(usage.wasted), *client));
        all.truncate(SHOWN);
        all.into_iter().map(|(client, usage)| (client.clone(), usage.wasted)).collect()
    }
}

/// The maximum number of clients whose tokens are counted. To choose a client to evict, all these
/// clients are compared. This takes a tenth of the time that one signature takes.
pub const WATCHED: usize = 1024;
/// The maximum number of clients that the metric shows: a dashboard has no room for more.
pub const SHOWN: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_only_clients_that_request_too_early_and_sorts_the_worst_first() {
        let wasteful = Wasteful::default();
        for now in [1000, 2800, 4600] {
            wasteful.note("patient", 3600, UnixTime(now));
        }
        for now in [1000, 1001, 1002, 2801, 5000] {
            wasteful.note("hasty", 3600, UnixTime(now));
        }
        wasteful.note("once", 3600, UnixTime(1000));
        for now in 0..5 {
            wasteful.note("worst", 60, UnixTime(now));
        }
        assert_eq!(wasteful.worst(), [("worst".into(), 4), ("hasty".into(), 3)]);
    }

    #[test]
    fn the_number_of_clients_is_bounded_and_the_worst_are_kept() {
        let wasteful = Wasteful::default();
        wasteful.note("worst", 60, UnixTime(0));
        wasteful.note("worst", 60, UnixTime(1));
        for client in 0..WATCHED as u64 * 2 {
            wasteful.note(&client.to_string(), 60, UnixTime(client));
            assert!(wasteful.0.lock().len() <= WATCHED);
        }
        assert_eq!(wasteful.worst(), [("worst".into(), 1)]);
    }
}
