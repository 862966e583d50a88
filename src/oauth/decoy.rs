//! What an unknown client id costs: as much as a known one, so that time does not tell which ids
//! are registered.
//!
//! Where the registry mixes fast hashes with slow ones, or keys of several sizes, "as much as a
//! known one" has several meanings. So each unknown id stands for one kind of client, in the
//! registry's proportions. A keyed hash of the id chooses a point between 0 and 1, and the kinds
//! divide that line: a change of the registry moves their borders and nothing else, so an id keeps
//! its kind. The key outlives restarts.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ring::hmac;

use crate::jose::public_key::{Algorithm, KeyShape, PublicKey};
use crate::oauth::client::{Client, Registry};
use crate::oauth::password_hash::{PasswordHash, Work};

/// The key that says which kind an unknown id stands for.
pub struct DecoyKey(hmac::Key);

impl DecoyKey {
    /// Bytes of a key.
    pub const BYTES: usize = 32;

    /// The key of these bytes.
    pub fn new(bytes: &[u8; Self::BYTES]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// Where this id stands between 0 and 2⁶⁴.
    fn point(&self, client_id: &str) -> u64 {
        let tag = hmac::sign(&self.0, client_id.as_bytes());
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&tag.as_ref()[..8]);
        u64::from_le_bytes(bytes)
    }
}

impl fmt::Debug for DecoyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DecoyKey(…)")
    }
}

/// The kinds of clients in a registry, in its proportions.
pub struct Decoys {
    kinds: Vec<Kind>,
    clients: u64,
    are_fast: bool,
}

/// What an attempt to be one of some clients costs.
pub struct Kind {
    /// How many clients there are of this and all earlier kinds.
    up_to: u64,
    /// Slow hashes that no secret has.
    pub hashes: Box<[Arc<PasswordHash>]>,
    /// Keys that sign nothing here.
    pub keys: Box<[PublicKey]>,
    /// The one algorithm of these clients' assertions.
    pub assertion_algorithm: Option<Algorithm>,
}

impl Kind {
    /// Whether such a client has a secret that can be found by trying.
    pub fn is_guessable(&self) -> bool {
        !self.hashes.is_empty()
    }
}

/// What makes two clients be of one kind. Hashes are tried in any order, keys in theirs.
#[derive(Default, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    hashes: Vec<Work>,
    keys: Vec<(KeyShape, Option<Algorithm>)>,
    assertion_algorithm: Option<Algorithm>,
}

impl Cost {
    fn of(client: &Client) -> Self {
        let mut hashes: Vec<_> = slow_hashes(client).map(|hash| hash.work()).collect();
        hashes.sort_unstable();
        let keys = client.keys.iter().map(|key| (key.shape(), key.algorithm())).collect();
        Self { hashes, keys, assertion_algorithm: client.assertion_algorithm }
    }

    fn into_kind(self, up_to: u64) -> Kind {
        let hashes = self.hashes.into_iter().map(PasswordHash::unmatchable).map(Arc::new);
        let keys = self.keys.into_iter();
        Kind {
            up_to,
            hashes: hashes.collect(),
            keys: keys.filter_map(|(shape, algorithm)| PublicKey::like(shape, algorithm)).collect(),
            assertion_algorithm: self.assertion_algorithm,
        }
    }
}

impl Decoys {
    /// Those of this registry.
    pub fn of(clients: &Registry) -> Self {
        let mut costs: BTreeMap<Cost, u64> = BTreeMap::new();
        let mut plain = 0;
        for client in clients.iter() {
            // Most clients have fast secrets alone, and need no look-up.
            if client.keys.is_empty() && !client.is_guessable() {
                plain += 1;
            } else {
                *costs.entry(Cost::of(client)).or_default() += 1;
            }
        }
        if plain > 0 || costs.is_empty() {
            *costs.entry(Cost::default()).or_default() += plain;
        }
        let mut up_to = 0;
        let kinds = costs.into_iter().map(|(cost, count)| {
            up_to += count;
            cost.into_kind(up_to)
        });
        let kinds: Vec<_> = kinds.collect();
        let are_fast = !kinds.iter().any(Kind::is_guessable);
        Self { kinds, clients: up_to, are_fast }
    }

    /// Whether no client of the registry has a slow hash.
    pub fn are_fast(&self) -> bool {
        self.are_fast
    }

    /// The kind that an unknown id stands for.
    pub fn kind(&self, key: &DecoyKey, client_id: &str) -> &Kind {
        if let [only] = &*self.kinds {
            return only;
        }
        let point = u128::from(key.point(client_id)) * u128::from(self.clients);
        let index = (point >> u64::BITS) as u64;
        // The last kind reaches up to the number of clients.
        &self.kinds[self.kinds.partition_point(|kind| kind.up_to <= index)]
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
