//! All registered clients, by `client_id`.
//!
//! The registry is divided into shards by the hash of the id. A registry that replaces another one
//! shares with it the shards in which no client has changed, so a change of one client copies the
//! pointers of 1/256 of the clients.

#[cfg(test)]
mod tests;

use std::array;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::ptr;
use std::sync::Arc;

use compact_str::CompactString;
use hashbrown::hash_table::Entry;

use crate::oauth::client::Client;
use crate::oauth::decoy::Decoys;
use crate::registry::derived::{CertificateClients, Derived, has_demo_secret};
use crate::registry::registered::Registered;
use crate::registry::shard::{self, Shard, Table};
use crate::time::UnixTime;

/// All registered clients, by `client_id`.
pub struct Registry {
    /// Keyed at random, so that the owner of many clients cannot choose ids of equal hash. The
    /// registries that replace this one have the same hasher.
    hasher: RandomState,
    shards: [Arc<Shard>; SHARDS],
    len: usize,
}

const SHARDS: usize = 256;

/// Returns the index of the shard for this hash of an id. The hash table uses the lowest bits and
/// the highest seven bits, which must therefore differ inside of a shard.
fn shard_of(hash: u64) -> usize {
    usize::from(hash.to_be_bytes()[1])
}

/// A change of one client.
#[derive(Clone, Debug)]
pub enum Update {
    /// Registers the client, in place of the client with its id, if there is one.
    Put(Box<Client>),
    /// Removes the client with this id, if there is one.
    Remove(CompactString),
}

impl Update {
    /// The id of the client.
    pub fn id(&self) -> &str {
        match self {
            Self::Put(client) => &client.id,
            Self::Remove(id) => id,
        }
    }
}

/// A client in two registries. It is in one of them at least, and not the same in both.
#[derive(Clone, Copy, Debug)]
pub struct Difference<'r> {
    /// The client in the old registry.
    pub before: Option<&'r Client>,
    /// The client in the new registry.
    pub after: Option<&'r Client>,
}

impl Registry {
    /// Returns the client with this id.
    pub fn get(&self, client_id: &str) -> Option<&Client> {
        self.find(client_id).map(|registered| &registered.client)
    }

    /// Returns the client with this id and its state.
    pub fn find(&self, client_id: &str) -> Option<&Registered> {
        let hash = self.hasher.hash_one(client_id);
        self.shards[shard_of(hash)].find(hash, client_id).map(|registered| &**registered)
    }

    /// Returns this registry after `updates`. The last update of a client counts. A client that is
    /// registered already as an update has it keeps its state.
    pub fn with(&self, updates: impl IntoIterator<Item = Update>) -> Self {
        let mut changed: [Option<Table>; SHARDS] = [const { None }; SHARDS];
        for update in updates {
            let hash = self.hasher.hash_one(update.id());
            let (shard, changed) = (&self.shards[shard_of(hash)], &mut changed[shard_of(hash)]);
            let before = shard.find(hash, update.id());
            let is_same = match &update {
                Update::Put(client) => before.is_some_and(|before| before.client == **client),
                Update::Remove(_) => before.is_none(),
            };
            if is_same && changed.is_none() {
                continue;
            }
            let table = changed.get_or_insert_with(|| shard.clients.clone());
            let is_it = |known: &Arc<Registered>| known.client.id == *update.id();
            let entry = table.entry(hash, is_it, |known| self.hash_of(known));
            let after = match update {
                Update::Put(_) if is_same => before.cloned(),
                Update::Put(client) => Some(Registered::new(*client)),
                Update::Remove(_) => None,
            };
            match (entry, after) {
                (Entry::Occupied(mut known), Some(after)) => *known.get_mut() = after,
                (Entry::Occupied(known), None) => drop(known.remove()),
                (Entry::Vacant(free), Some(after)) => drop(free.insert(after)),
                (Entry::Vacant(_), None) => {}
            }
        }
        let shards = array::from_fn(|index| match changed[index].take() {
            Some(mut table) => {
                // A table does not shrink by itself.
                if table.capacity() > 4 * table.len() {
                    table.shrink_to_fit(|known| self.hash_of(known));
                }
                Arc::new(Shard::new(table))
            }
            None => Arc::clone(&self.shards[index]),
        });
        Self::of(self.hasher.clone(), shards)
    }

    fn of(hasher: RandomState, shards: [Arc<Shard>; SHARDS]) -> Self {
        let len = shards.iter().map(|shard| shard.clients.len()).sum();
        Self { hasher, shards, len }
    }

    fn hash_of(&self, registered: &Registered) -> u64 {
        self.hasher.hash_one(&*registered.client.id)
    }

    /// Returns the clients in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Client> + Clone {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    /// Returns the clients that are not the same in this registry as in the registry `old`, in no
    /// particular order.
    pub fn differences<'r>(&'r self, old: &'r Self) -> Vec<Difference<'r>> {
        // Registries that follow one another have the same hashes.
        let is_kin = self.hasher.hash_one(0) == old.hasher.hash_one(0);
        let mut found = Vec::new();
        for (shard, old_shard) in self.shards.iter().zip(&old.shards) {
            if Arc::ptr_eq(shard, old_shard) {
                continue;
            }
            let mut known = 0;
            for after in shard.iter() {
                let before = old.get(&after.id);
                known += usize::from(before.is_some());
                if before.is_none_or(|before| !ptr::eq(before, after) && before != after) {
                    found.push(Difference { before, after: Some(after) });
                }
            }
            // Most changes remove no client.
            if !is_kin || known < old_shard.clients.len() {
                let removed = old_shard.iter().filter(|before| self.get(&before.id).is_none());
                found
                    .extend(removed.map(|before| Difference { before: Some(before), after: None }));
            }
        }
        found
    }

    /// The number of clients.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no clients.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// The values that are derived from all clients.
impl Registry {
    fn derived(&self) -> impl Iterator<Item = &Derived> + Clone {
        self.shards.iter().map(|shard| &shard.derived)
    }

    /// Returns the decoys for unknown ids.
    pub fn decoys(&self) -> Decoys {
        Decoys::of(self.derived().map(|derived| &derived.census))
    }

    /// The number of clients whose last secret has expired at `time`. Clients that are disabled, do
    /// not authenticate with a secret or have a secret without an expiry do not count.
    pub fn ended_secrets(&self, time: UnixTime) -> usize {
        let ended = |derived: &Derived| derived.secret_ends.partition_point(|end| *end <= time);
        self.derived().map(ended).sum()
    }

    /// The longest token lifetime of a client in seconds; 0 if there is no client.
    pub fn longest_lifetime(&self) -> u32 {
        let longest = self.derived().filter_map(|derived| derived.lifetimes.keys().next_back());
        longest.max().copied().unwrap_or(0)
    }

    /// The token lifetime in seconds that most clients have; the longest of them if several are
    /// equally common, and 0 if there is no client.
    pub fn common_lifetime(&self) -> u32 {
        let mut counts: HashMap<u32, usize> = HashMap::new();
        for (lifetime, count) in self.derived().flat_map(|derived| &derived.lifetimes) {
            *counts.entry(*lifetime).or_default() += count;
        }
        let common = counts.into_iter().max_by_key(|(lifetime, count)| (*count, *lifetime));
        common.map_or(0, |(lifetime, _)| lifetime)
    }

    /// Returns the clients whose token lifetime in seconds is not `common`.
    pub fn with_other_lifetimes(&self, common: u32) -> impl Iterator<Item = &Client> {
        let has_other = move |shard: &&Arc<Shard>| {
            shard.derived.lifetimes.keys().any(|lifetime| *lifetime != common)
        };
        let clients = self.shards.iter().filter(has_other).flat_map(|shard| shard.iter());
        clients.filter(move |client| client.token_lifetime != common)
    }

    /// Returns the sorted ids of the clients that have a public demo secret.
    pub fn demo_clients(&self) -> Vec<&str> {
        let shards = self.shards.iter().filter(|shard| shard.derived.has_demo_secrets);
        let demo = shards.flat_map(|shard| shard.iter()).filter(|client| has_demo_secret(client));
        let mut found: Vec<_> = demo.map(|client| &*client.id).collect();
        found.sort_unstable();
        found
    }

    /// Returns the sorted ids of the enabled clients that need a proxy to forward their
    /// certificates. If there are more than five, returns the first five and then `and N more`.
    pub fn certificate_clients(&self) -> Vec<String> {
        let mut all = CertificateClients::default();
        self.derived().for_each(|derived| all.add_all(&derived.certificate_clients));
        all.names()
    }
}

impl Default for Registry {
    fn default() -> Self {
        let empty = Arc::<Shard>::default();
        Self::of(RandomState::new(), array::from_fn(|_| Arc::clone(&empty)))
    }
}

/// A registry that is being read.
pub struct Draft<'r> {
    hasher: RandomState,
    tables: Vec<Table>,
    /// The registry that is to be replaced.
    before: Option<&'r Registry>,
}

impl<'r> Draft<'r> {
    /// Creates a draft with room for `clients` clients. The registry replaces `before`, if given:
    /// it shares the clients and the shards that have not changed.
    pub fn new(clients: usize, before: Option<&'r Registry>) -> Self {
        let hasher = before.map_or_else(RandomState::new, |before| before.hasher.clone());
        let tables = (0..SHARDS).map(|_| Table::with_capacity(clients / SHARDS)).collect();
        Self { hasher, tables, before }
    }

    /// Adds a client. If its id is in the draft already, keeps the client that was added first and
    /// returns `false`.
    pub fn insert(&mut self, client: Arc<Registered>) -> bool {
        let hash = self.hasher.hash_one(&*client.client.id);
        let table = &mut self.tables[shard_of(hash)];
        let is_new = shard::find(table, hash, &client.client.id).is_none();
        if is_new {
            let hash_of = |known: &Arc<Registered>| self.hasher.hash_one(&*known.client.id);
            table.insert_unique(hash, client, hash_of);
        }
        is_new
    }

    /// Whether a client with this id was added.
    pub fn contains(&self, client_id: &str) -> bool {
        let hash = self.hasher.hash_one(client_id);
        shard::find(&self.tables[shard_of(hash)], hash, client_id).is_some()
    }

    /// Returns the registry.
    pub fn finish(mut self) -> Registry {
        let shards = array::from_fn(|index| {
            let table = std::mem::take(&mut self.tables[index]);
            match self.before {
                Some(before) => before.followed_by(index, table),
                None => Arc::new(Shard::new(table)),
            }
        });
        Registry::of(self.hasher, shards)
    }
}

impl Registry {
    /// Returns the shard of the clients `table`, which follows the shard `index` of this registry.
    /// Each client that has not changed is the one of this registry, which has its state.
    fn followed_by(&self, index: usize, mut table: Table) -> Arc<Shard> {
        let before = &self.shards[index];
        let mut unchanged = 0;
        for registered in &mut table {
            let known = before.find(self.hash_of(registered), &registered.client.id);
            if let Some(known) = known.filter(|known| known.client == registered.client) {
                *registered = Arc::clone(known);
                unchanged += 1;
            }
        }
        if unchanged == table.len() && unchanged == before.clients.len() {
            Arc::clone(before)
        } else {
            Arc::new(Shard::new(table))
        }
    }
}
