//! All registered clients, by `client_id`.
//!
//! The registry is divided into shards by the hash of the id. A registry that replaces another one
//! shares with it the shards in which no client has changed, so a change of one client copies the
//! pointers of 1/256 of the clients.

use std::array;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
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
#[derive(Debug)]
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
            let table = changed.get_or_insert_with(|| shard.table());
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
        let len = shards.iter().map(|shard| shard.len()).sum();
        Self { hasher, shards, len }
    }

    fn hash_of(&self, registered: &Registered) -> u64 {
        self.hasher.hash_one(&*registered.client.id)
    }

    /// Returns the clients in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Client> + Clone {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    /// Returns the clients of the shards that are not shared with `other`. Every client that is not
    /// in `other`, or is different there, is one of them.
    pub fn unshared<'r>(&'r self, other: &'r Self) -> impl Iterator<Item = &'r Client> {
        let pairs = self.shards.iter().zip(&other.shards);
        let unshared = pairs.filter(|(shard, other)| !Arc::ptr_eq(shard, other));
        unshared.flat_map(|(shard, _)| shard.iter())
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
        self.derived().map(|derived| derived.secret_ends.before(time)).sum()
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
#[derive(Debug)]
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
        if unchanged == table.len() && unchanged == before.len() {
            Arc::clone(before)
        } else {
            Arc::new(Shard::new(table))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::iter::once;
    use std::ptr;

    use super::*;
    use crate::clock::Clock;
    use crate::jose::public_key::{Algorithm, PublicKey};
    use crate::oauth::client::{AuthMethod, AuthMethods};
    use crate::oauth::client_secret::{ClientSecret, SecretHash};
    use crate::oauth::decoy::{Census, DecoyKey};
    use crate::registry::derived::needs_proxy;
    use crate::registry::secret_ends::last_end;

    const HASHES: [&str; 4] = [
        "$sha256$ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0",
        "$sha256$mxOTOIm6pc7brYcgi3w5YYlRKOJ8fFGZgwrRQFsU4Vc", // a demo secret
        "$2b$05$TnE0l4bsgWyWTvjvvWPBkeXL5cZDNjUtDoIMQhOu9QNQ4nbH1qf4m",
        "$2b$06$TnE0l4bsgWyWTvjvvWPBkeXL5cZDNjUtDoIMQhOu9QNQ4nbH1qf4m",
    ];

    /// Numbers that look random (xorshift).
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, end: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 as usize % end
        }

        fn client(&mut self, id: &str) -> Client {
            let secret = |label: usize, numbers: &mut Self| ClientSecret {
                label: label.to_string().into(),
                hash: SecretHash::parse(HASHES[[0, 0, 0, 1, 2, 3][numbers.below(6)]]).unwrap(),
                not_before: None,
                expires_at: (numbers.below(4) > 0).then(|| UnixTime(numbers.below(1000) as u64)),
            };
            let method = match self.below(4) {
                0 => AuthMethod::TlsClientAuth,
                1 => AuthMethod::PrivateKeyJwt,
                _ => AuthMethod::ClientSecretPost,
            };
            let keys = [Algorithm::Es256, Algorithm::Ps256, Algorithm::Rs256];
            let keys =
                (0..self.below(3)).map(|index| PublicKey::decoy(keys[index]).unwrap().clone());
            Client {
                id: id.into(),
                enabled: self.below(8) > 0,
                token_lifetime: [3600, 3600, 60, 900, 7200][self.below(5)],
                keys: keys.collect(),
                secrets: (0..self.below(3)).map(|label| secret(label, self)).collect(),
                auth_methods: AuthMethods::from_iter([method]),
                ..Client::default()
            }
        }
    }

    fn registry(clients: impl IntoIterator<Item = Client>, before: Option<&Registry>) -> Registry {
        let mut draft = Draft::new(0, before);
        for client in clients {
            assert!(draft.insert(Registered::new(client)));
        }
        draft.finish()
    }

    fn shared(one: &Registry, other: &Registry) -> usize {
        let pairs = one.shards.iter().zip(&other.shards);
        pairs.filter(|(one, other)| Arc::ptr_eq(one, other)).count()
    }

    /// Compares every derived value with the one that is computed from all clients.
    fn assert_derived(registry: &Registry, clients: &BTreeMap<String, Client>) {
        let ids: BTreeSet<_> = registry.iter().map(|client| &*client.id).collect();
        assert!(ids.iter().copied().eq(clients.keys()) && registry.len() == clients.len());
        assert!(clients.iter().all(|(id, client)| registry.get(id) == Some(client)));

        let all = || clients.values();
        let mut census = Census::default();
        all().for_each(|client| census.count(client));
        let (decoys, expected) = (registry.decoys(), Decoys::of(once(&census)));
        assert_eq!(decoys.are_fast(), expected.are_fast());
        let key = DecoyKey::new(&[7; DecoyKey::BYTES]);
        for unknown in 0..50 {
            let [found, expected] = [&decoys, &expected].map(|decoys| {
                let kind = decoys.kind(&key, &format!("unknown-{unknown}"));
                let hashes: Vec<_> = kind.hashes.iter().map(|hash| hash.work()).collect();
                let keys: Vec<_> = kind.keys.iter().map(PublicKey::shape).collect();
                (hashes, keys, kind.assertion_algorithm)
            });
            assert_eq!(found, expected);
        }
        for time in [0, 10, 500, 999, 2000].map(UnixTime) {
            let ended = all().filter_map(last_end).filter(|end| *end <= time).count();
            assert_eq!(registry.ended_secrets(time), ended);
        }
        let lifetimes: Vec<_> = all().map(|client| client.token_lifetime).collect();
        assert_eq!(registry.longest_lifetime(), lifetimes.iter().max().copied().unwrap_or(0));
        let count = |lifetime: u32| lifetimes.iter().filter(|known| **known == lifetime).count();
        let common = lifetimes.iter().map(|lifetime| (count(*lifetime), *lifetime)).max();
        let common = common.map_or(0, |(_, lifetime)| lifetime);
        assert_eq!(registry.common_lifetime(), common);
        let others: BTreeSet<_> =
            registry.with_other_lifetimes(common).map(|client| &*client.id).collect();
        let expected = all().filter(|client| client.token_lifetime != common);
        assert!(others.into_iter().eq(expected.map(|client| &*client.id)));
        let demo = all().filter(|client| has_demo_secret(client)).map(|client| &*client.id);
        assert!(registry.demo_clients().into_iter().eq(demo));
        let mut needing: Vec<_> = all()
            .filter(|client| needs_proxy(client))
            .map(|client| client.id.to_string())
            .collect();
        if needing.len() > 5 {
            let more = format!("and {} more", needing.len() - 5);
            needing.truncate(5);
            needing.push(more);
        }
        assert_eq!(registry.certificate_clients(), needing);
    }

    #[test]
    fn derived_values_are_those_of_all_clients_after_any_changes() {
        let mut numbers = Numbers(0x5eed);
        let (mut clients, mut before) = (BTreeMap::new(), Registry::default());
        assert_derived(&before, &clients);
        for round in 0..200 {
            // Five changes, among them changes of one client and of unknown ones.
            let updates: Vec<_> = (0..5)
                .map(|_| {
                    let id = format!("client-{}", numbers.below(400));
                    if numbers.below(3) == 0 {
                        clients.remove(&id);
                        return Update::Remove(id.as_str().into());
                    }
                    let client = numbers.client(&id);
                    clients.insert(id, client.clone());
                    Update::Put(Box::new(client))
                })
                .collect();
            let after = before.with(updates);
            assert!(shared(&before, &after) >= SHARDS - 5);
            for client in before.unshared(&after) {
                assert!(before.find(&client.id).is_some());
            }
            let is_new = |client: &&Client| before.get(&client.id) != Some(client);
            let changed: BTreeSet<_> =
                after.iter().filter(is_new).map(|client| &*client.id).collect();
            let unshared = after.unshared(&before).filter(is_new).map(|client| &*client.id);
            assert_eq!(unshared.collect::<BTreeSet<_>>(), changed, "round {round}");
            if round % 20 == 0 {
                assert_derived(&registry(clients.values().cloned(), Some(&before)), &clients);
            }
            assert_derived(&after, &clients);
            before = after;
        }
        let none = before.with(clients.keys().map(|id| Update::Remove(id.as_str().into())));
        assert_derived(&none, &BTreeMap::new());
    }

    #[test]
    fn a_change_of_one_client_costs_one_shard_and_keeps_the_state_of_the_others() {
        let mut numbers = Numbers(1);
        let clients: Vec<_> =
            (0..2000).map(|number| numbers.client(&format!("client-{number}"))).collect();
        let before = registry(clients.clone(), None);
        let now = Clock::system().instant();
        let state =
            |registry: &Registry, id: &str| ptr::from_ref(registry.find(id).unwrap().state(now));

        let changed = Client { token_lifetime: 1, ..clients[7].clone() };
        let mut all = clients.clone();
        all[7] = changed.clone();
        let put = |client: &Client| Update::Put(Box::new(client.clone()));
        for after in [before.with([put(&changed)]), registry(all, Some(&before))] {
            assert_eq!(shared(&before, &after), SHARDS - 1);
            for client in &clients {
                let is_same = state(&before, &client.id) == state(&after, &client.id);
                assert_eq!(is_same, client.id != changed.id, "{}", client.id);
            }
        }
        assert_eq!(shared(&before, &before.with([Update::Remove(changed.id.clone())])), SHARDS - 1);

        // Clients that are as before, or absent as before, are no change.
        assert_eq!(shared(&before, &before.with(clients.iter().map(put))), SHARDS);
        assert_eq!(shared(&before, &registry(clients.clone(), Some(&before))), SHARDS);
        assert_eq!(shared(&before, &before.with([Update::Remove("client-2000".into())])), SHARDS);
        // The last of several changes counts.
        let again = before.with([put(&changed), put(&clients[7])]);
        assert_eq!(state(&again, &changed.id), state(&before, &changed.id));
        let gone = before.with([put(&changed), Update::Remove(changed.id.clone())]);
        assert!(gone.find(&changed.id).is_none() && gone.len() == clients.len() - 1);
    }

    #[test]
    fn a_registry_that_has_become_small_takes_little_memory() {
        let client = |number| Client { id: format!("c{number}").into(), ..Client::default() };
        let large = registry((0..20_000).map(client), None);
        let small = large.with((10..20_000).map(|number| Update::Remove(client(number).id)));
        let slots: usize = small.shards.iter().map(|shard| shard.table().capacity()).sum();
        assert!(small.len() == 10 && slots <= 4 * 10, "{slots}");
    }
}
