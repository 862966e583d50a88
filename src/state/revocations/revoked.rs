//! The revoked tokens in memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::RwLock;

use crate::state::revocations::key::RevocationKey;
use crate::state::shares::ClientTag;
use crate::time::UnixTime;

/// A revoked token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) key: RevocationKey,
    /// The token's `exp`.
    pub(super) expires_at: UnixTime,
    /// The client that revoked the token; `None` if an earlier release wrote the row.
    pub(super) owner: Option<ClientTag>,
}

/// The expiry and the owner of each revoked token.
type Shard = HashMap<RevocationKey, (UnixTime, Option<ClientTag>)>;

/// The rows by key. They are divided into shards. Each shard has its own lock, so that a look-up
/// rarely waits for a lock. Only the thread that writes the file changes them.
#[derive(Default)]
pub(super) struct Revoked {
    shards: [RwLock<Shard>; SHARDS],
    len: AtomicUsize,
    /// For each client, the time up to which all its tokens are revoked.
    cut_offs: RwLock<HashMap<ClientTag, UnixTime>>,
    has_cut_offs: AtomicBool,
}

impl Revoked {
    fn shard(&self, key: &RevocationKey) -> &RwLock<Shard> {
        &self.shards[usize::from(key.first_byte()) % SHARDS]
    }

    pub(super) fn contains(&self, key: &RevocationKey) -> bool {
        self.shard(key).read().contains_key(key)
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    pub(super) fn has_cut_offs(&self) -> bool {
        self.has_cut_offs.load(Ordering::Relaxed)
    }

    /// The time up to which all tokens of the client are revoked; 0 if there is none.
    pub(super) fn cut_off(&self, client: ClientTag) -> UnixTime {
        self.cut_offs.read().get(&client).copied().unwrap_or_default()
    }

    pub(super) fn cut_offs(&self) -> Vec<(ClientTag, UnixTime)> {
        self.cut_offs.read().iter().map(|(&client, &time)| (client, time)).collect()
    }

    pub(super) fn insert_cut_off(&self, client: ClientTag, time: UnixTime) {
        let mut cut_offs = self.cut_offs.write();
        let known = cut_offs.entry(client).or_default();
        *known = time.max(*known);
        self.has_cut_offs.store(true, Ordering::Relaxed);
    }

    /// Inserts a row, unless its key is known. Returns whether it was inserted.
    pub(super) fn insert(&self, Row { key, expires_at, owner }: Row) -> bool {
        let mut shard = self.shard(&key).write();
        let is_new = !shard.contains_key(&key);
        if is_new {
            shard.insert(key, (expires_at, owner));
            self.len.fetch_add(1, Ordering::Relaxed);
        }
        is_new
    }

    /// Drops the rows that `is_over` says are over, and calls `dropped` with the owner of each.
    pub(super) fn drop_over(
        &self,
        is_over: impl Fn(UnixTime, Option<ClientTag>) -> bool,
        mut dropped: impl FnMut(ClientTag),
    ) {
        for shard in &self.shards {
            let mut shard = shard.write();
            let before = shard.len();
            shard.retain(|_, &mut (expires_at, owner)| {
                let is_over = is_over(expires_at, owner);
                if is_over {
                    owner.into_iter().for_each(&mut dropped);
                }
                !is_over
            });
            self.len.fetch_sub(before - shard.len(), Ordering::Relaxed);
        }
    }

    pub(super) fn drop_cut_offs(&self, is_over: impl Fn(UnixTime) -> bool) {
        let mut cut_offs = self.cut_offs.write();
        cut_offs.retain(|_, time| !is_over(*time));
        self.has_cut_offs.store(!cut_offs.is_empty(), Ordering::Relaxed);
    }

    pub(super) fn for_each(&self, mut take: impl FnMut(Row)) {
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
