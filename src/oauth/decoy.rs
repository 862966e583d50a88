//! Decoys for unknown client ids. The server takes as long to refuse an unknown id as to refuse a
//! registered id, so that timing does not reveal which ids are registered.
//!
//! The time that a refusal takes depends on the client: its secrets may have fast or slow hashes,
//! and its keys may have several sizes. Clients whose refusals take the same time form a *kind*.
//! Each unknown id is assigned a kind. The kinds are as frequent among unknown ids as among
//! registered clients: a keyed hash maps each unknown id to a point in [0, 1), and each kind owns a
//! part of this interval, in proportion to its number of clients. If the registry changes, the
//! borders of the parts move, but the points do not, so most ids keep their kind. The points also
//! stay the same after a restart, because the key of the hash is kept in a file.

use std::collections::BTreeMap;
use std::sync::Arc;

use ring::hmac;

use crate::jose::public_key::{Algorithm, KeyShape, PublicKey};
use crate::oauth::client::Client;
use crate::oauth::password_hash::{PasswordHash, Work};

/// The key of the hash that assigns kinds to unknown ids.
pub struct DecoyKey(hmac::Key);

impl DecoyKey {
    /// The length of a key in bytes.
    pub const BYTES: usize = 32;

    /// Creates the key from its bytes.
    pub fn new(bytes: &[u8; Self::BYTES]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// Returns the point in [0, 1) to which `client_id` is mapped, multiplied by 2^64.
    fn point(&self, client_id: &str) -> u64 {
        let tag = hmac::sign(&self.0, client_id.as_bytes());
        tag.as_ref().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
}

/// The kinds of clients in a registry, with the number of clients of each kind.
pub struct Decoys {
    kinds: Vec<Kind>,
    clients: u64,
    /// Whether no client of the registry has a slow hash.
    pub are_fast: bool,
}

/// A kind of client: all clients whose authentication costs the same work.
pub struct Kind {
    /// The number of clients of this kind and of all kinds before it.
    up_to: u64,
    /// Slow hashes that no secret matches. A comparison with these hashes costs as much as a
    /// comparison with the slow hashes of a client of this kind.
    pub hashes: Box<[Arc<PasswordHash>]>,
    /// Public keys of the same types and sizes as the keys of a client of this kind. No assertion
    /// can be verified with these keys.
    pub keys: Box<[PublicKey]>,
    /// The algorithm that is registered for the clients' assertions; `None` if there is none.
    pub assertion_algorithm: Option<Algorithm>,
}

impl Kind {
    /// Whether a client of this kind has a secret with a slow hash. Such a secret may be weak
    /// enough to be guessed.
    pub fn is_guessable(&self) -> bool {
        !self.hashes.is_empty()
    }
}

/// The work of authenticating a client. Clients with equal work are of one kind. The hashes are
/// sorted, because their order does not change the work. The keys are not sorted: they are tried in
/// order, so their order changes the work.
#[derive(Default, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    hashes: Vec<Work>,
    keys: Vec<(KeyShape, Option<Algorithm>)>,
    assertion_algorithm: Option<Algorithm>,
}

impl Cost {
    fn of(client: &Client) -> Self {
        let mut hashes: Vec<_> = slow_hashes(client).map(|hash| hash.work).collect();
        hashes.sort_unstable();
        let keys = client.keys.iter().map(|key| (key.shape, key.algorithm)).collect();
        Self { hashes, keys, assertion_algorithm: client.assertion_algorithm }
    }

    fn to_kind(&self, up_to: u64) -> Kind {
        let hashes = self.hashes.iter().copied().enumerate();
        let hashes = hashes.map(|(number, work)| Arc::new(PasswordHash::unmatchable(work, number)));
        let keys = self.keys.iter().copied();
        Kind {
            up_to,
            hashes: hashes.collect(),
            keys: keys.filter_map(|(shape, algorithm)| PublicKey::like(shape, algorithm)).collect(),
            assertion_algorithm: self.assertion_algorithm,
        }
    }
}

/// The number of clients of each kind in a part of a registry.
#[derive(Default)]
pub struct Census {
    costs: BTreeMap<Cost, u64>,
    /// The number of clients without keys and slow hashes.
    plain: u64,
}

impl Census {
    /// Counts a client.
    pub fn count(&mut self, client: &Client) {
        // Fast path: most clients have no keys and no slow hashes.
        if client.keys.is_empty() && !client.is_guessable() {
            self.plain += 1;
        } else {
            *self.costs.entry(Cost::of(client)).or_default() += 1;
        }
    }
}

impl Decoys {
    /// Computes the kinds of the clients in a registry with these `parts`.
    pub fn of<'c>(parts: impl Iterator<Item = &'c Census>) -> Self {
        let mut costs: BTreeMap<&Cost, u64> = BTreeMap::new();
        let mut plain = 0;
        for part in parts {
            plain += part.plain;
            for (cost, count) in &part.costs {
                *costs.entry(cost).or_default() += count;
            }
        }
        let is_plain = Cost::default();
        if plain > 0 || costs.is_empty() {
            *costs.entry(&is_plain).or_default() += plain;
        }
        let mut up_to = 0;
        let kinds = costs.into_iter().map(|(cost, count)| {
            up_to += count;
            cost.to_kind(up_to)
        });
        let kinds: Vec<_> = kinds.collect();
        let are_fast = !kinds.iter().any(Kind::is_guessable);
        Self { kinds, clients: up_to, are_fast }
    }

    /// Returns the kind that is assigned to the unknown id `client_id`.
    pub fn kind(&self, key: &DecoyKey, client_id: &str) -> &Kind {
        if let [only] = &*self.kinds {
            return only;
        }
        let point = u128::from(key.point(client_id)) * u128::from(self.clients);
        let index = (point >> u64::BITS) as u64;
        // In bounds: `index` is less than `clients`, which is the `up_to` of the last kind.
        &self.kinds[self.kinds.partition_point(|kind| kind.up_to <= index)]
    }
}

/// Returns the slow hashes of a client's secrets, including secrets that are not valid now.
pub fn slow_hashes(client: &Client) -> impl Iterator<Item = &Arc<PasswordHash>> {
    client.secrets.iter().filter_map(|secret| secret.hash.as_slow())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::*;
    use crate::registry::client_file;
    use crate::registry::clients::Registry;

    fn registry(clients: &[Value]) -> Registry {
        let text = json!({ "clients": clients }).to_string();
        client_file::parse(Path::new("clients.json"), &text).unwrap()
    }

    fn slow(id: usize) -> Value {
        let hash = "$2b$05$TnE0l4bsgWyWTvjvvWPBkeXL5cZDNjUtDoIMQhOu9QNQ4nbH1qf4m";
        json!({ "client_id": format!("slow-{id}"), "secrets": [{ "label": "a", "hash": hash }] })
    }

    fn signing(id: usize) -> Value {
        let rsa = |bits: u16, more: Value| {
            use base64::Engine as _;
            let modulus = [vec![0x81; usize::from(bits / 8)]].concat();
            let n = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(modulus);
            let mut jwk = json!({ "kty": "RSA", "e": "AQAB", "n": n });
            jwk.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            jwk
        };
        json!({
            "client_id": format!("signing-{id}"), "auth_methods": ["private_key_jwt"],
            "token_endpoint_auth_signing_alg": "PS256",
            "jwks": { "keys": [rsa(4096, json!({ "kid": "a" })), rsa(2048, json!({ "alg": "PS256" }))] },
        })
    }

    fn key() -> DecoyKey {
        DecoyKey::new(&[7; DecoyKey::BYTES])
    }

    #[test]
    fn a_kind_costs_what_its_clients_cost() {
        let decoys = registry(&[signing(1)]).decoys();
        let kind = decoys.kind(&key(), "unknown");
        let shapes: Vec<_> = kind.keys.iter().map(|key| (key.shape, key.algorithm)).collect();
        let rsa = |bits| KeyShape::Rsa { bits, exponent: 65_537 };
        assert_eq!(shapes, [(rsa(4096), None), (rsa(2048), Some(Algorithm::Ps256))]);
        assert_eq!(kind.assertion_algorithm, Some(Algorithm::Ps256));
        assert!(!kind.is_guessable() && decoys.are_fast);

        let decoys = registry(&[slow(1)]).decoys();
        assert_eq!(decoys.kind(&key(), "unknown").hashes[0].work, Work::Bcrypt { cost: 5 });
        assert!(!decoys.are_fast);
        let nothing = Decoys::of(std::iter::empty());
        assert!(nothing.are_fast && nothing.kind(&key(), "unknown").keys.is_empty());
    }
}
