//! Tests of the registry's shards, and of what is derived from them.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::once;

use super::*;
use crate::clock::Clock;
use crate::jose::public_key::{Algorithm, PublicKey};
use crate::oauth::client::{AuthMethod, AuthMethods};
use crate::oauth::client_secret::{ClientSecret, SecretHash};
use crate::oauth::decoy::{Census, DecoyKey};
use crate::registry::derived::{last_end, needs_proxy};

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
        let keys = (0..self.below(3)).map(|index| PublicKey::decoy(keys[index]).unwrap().clone());
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
    assert_eq!(decoys.are_fast, expected.are_fast);
    let key = DecoyKey::new(&[7; DecoyKey::BYTES]);
    for unknown in 0..50 {
        let [found, expected] = [&decoys, &expected].map(|decoys| {
            let kind = decoys.kind(&key, &format!("unknown-{unknown}"));
            let hashes: Vec<_> = kind.hashes.iter().map(|hash| hash.work).collect();
            let keys: Vec<_> = kind.keys.iter().map(|key| key.shape).collect();
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
    let mut needing: Vec<_> =
        all().filter(|client| needs_proxy(client)).map(|client| client.id.to_string()).collect();
    if needing.len() > 5 {
        let more = format!("and {} more", needing.len() - 5);
        needing.truncate(5);
        needing.push(more);
    }
    assert_eq!(registry.certificate_clients(), needing);
}

fn assert_differences(before: &Registry, after: &Registry) {
    let mut found = after.differences(before);
    let id = |difference: &Difference<'_>| {
        difference.before.or(difference.after).map(|client| client.id.clone())
    };
    found.sort_by_key(id);
    let found = found.into_iter().map(|Difference { before, after }| (before, after));
    let ids: BTreeSet<_> = before.iter().chain(after.iter()).map(|client| &*client.id).collect();
    let pairs = ids.into_iter().map(|id| (before.get(id), after.get(id)));
    assert!(found.eq(pairs.filter(|(before, after)| before != after)));
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
        assert_differences(&before, &after);
        if round % 20 == 0 {
            let read = registry(clients.values().cloned(), Some(&before));
            assert_derived(&read, &clients);
            assert_eq!(shared(&before, &read), shared(&before, &after));
            assert_differences(&before, &registry(clients.values().cloned(), None));
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
    let slots: usize = small.shards.iter().map(|shard| shard.clients.capacity()).sum();
    assert!(small.len() == 10 && slots <= 4 * 10, "{slots}");
}

#[test]
fn a_client_counts_when_its_last_secret_has_expired() {
    let secret = |end: &Option<u64>| ClientSecret {
        label: Box::default(),
        hash: SecretHash::parse(HASHES[0]).unwrap(),
        not_before: None,
        expires_at: end.map(UnixTime),
    };
    let client = |id: &str, ends: &[Option<u64>]| Client {
        id: id.into(),
        enabled: true,
        secrets: ends.iter().map(secret).collect(),
        auth_methods: AuthMethods::from_iter(AuthMethod::DEFAULT),
        ..Client::default()
    };
    let by_name = AuthMethods::from_iter([AuthMethod::TlsClientAuth]);
    let clients = [
        client("ends", &[Some(100)]),
        client("rotated", &[Some(100), Some(300)]),
        client("ended", &[Some(10), Some(20)]),
        client("for ever", &[Some(100), None]),
        client("none", &[]),
        Client { enabled: false, ..client("disabled", &[Some(100)]) },
        Client { auth_methods: by_name, ..client("by name", &[Some(100)]) },
    ];
    let clients = registry(clients, None);
    for (time, count) in [(0, 0), (19, 0), (20, 1), (99, 1), (100, 2), (300, 3), (u64::MAX, 3)] {
        assert_eq!(clients.ended_secrets(UnixTime(time)), count, "{time}");
    }
}
