//! What is done for a client that nobody knows, so that it takes as long as for one that is known.
//!
//! Where the registry mixes fast hashes with slow ones of several costs, "as long as a known client"
//! has several meanings. So every unknown id is given one of the registered clients' costs, always
//! the same one, and each as often as clients have it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::oauth::client::{Client, Registry};
use crate::oauth::password_hash::{PasswordHash, Work};

/// The work that the clients of a registry cause, in its proportions.
#[derive(Default)]
pub struct Decoys {
    kinds: Vec<Kind>,
    clients: u64,
}

/// What some clients' attempts cost.
struct Kind {
    /// How many clients there are of this and all earlier kinds.
    up_to: u64,
    hashes: Box<[Arc<PasswordHash>]>,
}

impl Decoys {
    /// Those of this registry.
    pub fn of(clients: &Registry) -> Self {
        let mut kinds: BTreeMap<Vec<Work>, u64> = BTreeMap::new();
        let mut fast = 0;
        for client in clients.iter() {
            let mut work: Vec<_> = slow_hashes(client).map(|hash| hash.work()).collect();
            if work.is_empty() {
                fast += 1;
                continue;
            }
            work.sort_unstable();
            *kinds.entry(work).or_default() += 1;
        }
        let mut decoys = Self { kinds: Vec::new(), clients: fast };
        if fast > 0 {
            decoys.kinds.push(Kind { up_to: fast, hashes: Box::default() });
        }
        for (work, count) in kinds {
            decoys.clients += count;
            let hashes = work.into_iter().map(|work| Arc::new(PasswordHash::unmatchable(work)));
            decoys.kinds.push(Kind { up_to: decoys.clients, hashes: hashes.collect() });
        }
        decoys
    }

    /// Whether no client of the registry has a slow hash.
    pub fn are_fast(&self) -> bool {
        self.kinds.iter().all(|kind| kind.hashes.is_empty())
    }

    /// The hashes to compute for an unknown id; `keyed` is a keyed hash of it.
    pub fn hashes(&self, keyed: u64) -> &[Arc<PasswordHash>] {
        let index = keyed.checked_rem(self.clients).unwrap_or(0);
        let kind = self.kinds.iter().find(|kind| index < kind.up_to);
        kind.map_or(&[], |kind| &kind.hashes)
    }
}

/// The slow hashes among a client's secrets, whether they are accepted at this time or not.
pub fn slow_hashes(client: &Client) -> impl Iterator<Item = &Arc<PasswordHash>> {
    client.secrets.iter().filter_map(|secret| secret.hash.as_slow())
}

impl fmt::Debug for Decoys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoys").field("kinds", &self.kinds.len()).finish_non_exhaustive()
    }
}
