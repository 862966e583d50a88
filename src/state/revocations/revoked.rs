//! The rows of revoked tokens in memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use crate::state::revocations::RevocationKey;
use crate::state::revocations::ledger::Row;
use crate::time::UnixTime;

/// A map from revocation keys to expiry times. It is divided into shards. Each shard has its own
/// lock, so that a look-up rarely waits for a lock.
#[derive(Default)]
pub(super) struct Revoked {
    shards: [RwLock<HashMap<RevocationKey, UnixTime>>; SHARDS],
    len: AtomicUsize,
}

impl Revoked {
    fn shard(&self, key: &RevocationKey) -> &RwLock<HashMap<RevocationKey, UnixTime>> {
        &self.shards[usize::from(key.first_byte()) % SHARDS]
    }

    pub(super) fn contains(&self, key: &RevocationKey) -> bool {
        let shard = self.shard(key).read().unwrap_or_else(PoisonError::into_inner);
        shard.contains_key(key)
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    pub(super) fn insert(&self, rows: impl IntoIterator<Item = Row>) {
        for Row { key, expires_at } in rows {
            let mut shard = self.shard(&key).write().unwrap_or_else(PoisonError::into_inner);
            if shard.insert(key, expires_at).is_none() {
                self.len.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn forget_ended(&self, now: UnixTime) {
        for shard in &self.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            let before = shard.len();
            shard.retain(|&key, &mut expires_at| !Row { key, expires_at }.is_over(now));
            self.len.fetch_sub(before - shard.len(), Ordering::Relaxed);
        }
    }

    pub(super) fn for_each(&self, mut take: impl FnMut(Row)) {
        for shard in &self.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            shard.iter().for_each(|(&key, &expires_at)| take(Row { key, expires_at }));
        }
    }
}

/// The number of shards. On most machines, there are more shards than event loops, so event loops
/// rarely wait for the same lock.
const SHARDS: usize = 16;
