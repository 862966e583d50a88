//! The revoked tokens in memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::state::revocations::key::RevocationKey;
use crate::state::shares::{ClientTag, Shares};
use crate::time::UnixTime;

/// A revoked token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) key: RevocationKey,
    /// The token's `exp`.
    pub(crate) expires_at: UnixTime,
    /// The client that revoked the token; `None` if an earlier release wrote the row.
    pub(crate) owner: Option<ClientTag>,
}

/// The expiry and the owner of each revoked token.
type Shard = HashMap<RevocationKey, (UnixTime, Option<ClientTag>)>;

/// The rows by key. They are divided into shards. Each shard has its own lock, so that a look-up
/// rarely waits for a lock.
#[derive(Default)]
pub(crate) struct Revoked {
    shards: [RwLock<Shard>; SHARDS],
    len: AtomicUsize,
    /// The number of rows of each client. Locked for every change of the rows, and before a shard.
    held: Mutex<Shares>,
    /// For each client, the time up to which all its tokens are revoked.
    cut_offs: RwLock<HashMap<ClientTag, UnixTime>>,
    has_cut_offs: AtomicBool,
}

impl Revoked {
    fn shard(&self, key: &RevocationKey) -> &RwLock<Shard> {
        &self.shards[usize::from(key.first_byte()) % SHARDS]
    }

    pub(crate) fn contains(&self, key: &RevocationKey) -> bool {
        self.shard(key).read().contains_key(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    pub(crate) fn has_cut_offs(&self) -> bool {
        self.has_cut_offs.load(Ordering::Relaxed)
    }

    /// The number of rows of this client.
    pub(crate) fn held_by(&self, client: ClientTag) -> usize {
        self.held.lock().of(client)
    }

    /// The time up to which all tokens of the client are revoked; 0 if there is none.
    pub(crate) fn cut_off(&self, client: ClientTag) -> UnixTime {
        self.cut_offs.read().get(&client).copied().unwrap_or_default()
    }

    pub(crate) fn cut_offs(&self) -> Vec<(ClientTag, UnixTime)> {
        self.cut_offs.read().iter().map(|(&client, &time)| (client, time)).collect()
    }

    pub(crate) fn insert_cut_off(&self, client: ClientTag, time: UnixTime) {
        let mut cut_offs = self.cut_offs.write();
        let known = cut_offs.entry(client).or_default();
        *known = time.max(*known);
        self.has_cut_offs.store(true, Ordering::Relaxed);
    }

    /// Whether there is a row with this key that ends at `expires_at` or later.
    pub(crate) fn contains_until(&self, key: &RevocationKey, expires_at: UnixTime) -> bool {
        self.shard(key).read().get(key).is_some_and(|(end, _)| *end >= expires_at)
    }

    /// Inserts a row. If its key is known, the later end counts. Returns whether it was inserted.
    pub(crate) fn insert(&self, Row { key, expires_at, owner }: Row) -> bool {
        let mut held = self.held.lock();
        let mut shard = self.shard(&key).write();
        if let Some((end, _)) = shard.get_mut(&key) {
            *end = expires_at.max(*end);
            return false;
        }
        shard.insert(key, (expires_at, owner));
        self.len.fetch_add(1, Ordering::Relaxed);
        owner.into_iter().for_each(|owner| held.add(owner));
        true
    }

    /// Drops the rows that `is_over` says are over.
    pub(crate) fn drop_over(&self, is_over: impl Fn(UnixTime, Option<ClientTag>) -> bool) {
        let mut held = self.held.lock();
        for shard in &self.shards {
            let mut shard = shard.write();
            let before = shard.len();
            shard.retain(|_, &mut (expires_at, owner)| {
                let is_over = is_over(expires_at, owner);
                if is_over {
                    owner.into_iter().for_each(|owner| held.remove(owner));
                }
                !is_over
            });
            self.len.fetch_sub(before - shard.len(), Ordering::Relaxed);
        }
    }

    pub(crate) fn drop_cut_offs(&self, is_over: impl Fn(UnixTime) -> bool) {
        let mut cut_offs = self.cut_offs.write();
        cut_offs.retain(|_, time| !is_over(*time));
        self.has_cut_offs.store(!cut_offs.is_empty(), Ordering::Relaxed);
    }

    pub(crate) fn for_each(&self, mut take: impl FnMut(Row)) {
        for shard in &self.shards {
            let shard = shard.read();
            shard
                .iter()
                .for_each(|(&key, &(expires_at, owner))| take(Row { key, expires_at, owner }));
        }
    }
}

/// The number of shards. On most machines, there are more shards than event loops, so event loops
/// rarely wait for the same lock.
const SHARDS: usize = 16;
