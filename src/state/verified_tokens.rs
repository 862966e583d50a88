//! The cache of verified tokens. With it, the signature of a token is not verified on every
//! request.
//!
//! A cache hit only says that the signature is valid. The caller must still check the token's
//! expiry, its revocation and its client on every request, because these may have changed since the
//! last request. The cache key is the token's SHA-256; the token itself is not kept.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use ring::digest::{SHA256, digest};

use crate::keys::jwt::{self, Claims};
use crate::keys::key_set::KeySet;
use crate::state::revocations::RevocationKey;

/// A token that was signed by one of this server's keys.
#[derive(Debug)]
pub struct VerifiedToken {
    /// The claims of the token.
    pub claims: Claims,
    /// The `kid` of the key that signed the token.
    pub key_id: Box<str>,
    /// The key of the token in the revocation list.
    pub revocation_key: RevocationKey,
}

/// A cache of at most 9984 verified tokens. Tokens longer than 4 KiB are not cached. The cache
/// takes about 7 MB of memory with ordinary tokens and at most 100 MB.
pub struct VerifiedTokens {
    shards: [Mutex<Generations>; SHARDS],
}

impl VerifiedTokens {
    /// Verifies the signature of `token` with the keys that are published at `now` (Unix seconds).
    /// `None` if none of these keys signed the token.
    pub fn verify(&self, token: &str, keys: &KeySet, now: u64) -> Option<Arc<VerifiedToken>> {
        let mut hash = Hash::default();
        hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        if let Some(known) = self.shard(&hash).find(&hash) {
            return keys.is_published(&known.key_id, now).then_some(known);
        }
        let (claims, key_id) = jwt::verify(token, keys, now)?;
        let revocation_key = RevocationKey::of(token.as_bytes(), claims.jti.as_deref());
        let verified = Arc::new(VerifiedToken { claims, key_id: key_id.into(), revocation_key });
        if token.len() <= MAX_TOKEN_BYTES {
            self.shard(&hash).insert(hash, Arc::clone(&verified));
        }
        Some(verified)
    }

    fn shard(&self, hash: &Hash) -> MutexGuard<'_, Generations> {
        self.shards[usize::from(hash[0]) % SHARDS].lock()
    }
}

impl Default for VerifiedTokens {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl fmt::Debug for VerifiedTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedTokens").finish_non_exhaustive()
    }
}

type Hash = [u8; 32];

/// A cache of two generations. When the current generation is full, it becomes the previous
/// generation, and the entries of the old previous generation are dropped. An entry that is found
/// in the previous generation moves to the current generation.
#[derive(Default)]
struct Generations {
    current: HashMap<Hash, Arc<VerifiedToken>>,
    previous: HashMap<Hash, Arc<VerifiedToken>>,
}

impl Generations {
    fn find(&mut self, hash: &Hash) -> Option<Arc<VerifiedToken>> {
        if let Some(found) = self.current.get(hash) {
            return Some(Arc::clone(found));
        }
        let found = self.previous.remove(hash)?;
        self.insert(*hash, Arc::clone(&found));
        Some(found)
    }

    fn insert(&mut self, hash: Hash, token: Arc<VerifiedToken>) {
        if self.current.len() >= GENERATION {
            self.previous = std::mem::take(&mut self.current);
        }
        self.current.insert(hash, token);
    }
}

/// The number of shards. Each shard has its own lock, so that event loops rarely wait for each
/// other.
const SHARDS: usize = 16;
/// The maximum number of entries in one generation of one shard.
const GENERATION: usize = 312;
const MAX_TOKEN_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str) -> Arc<VerifiedToken> {
        let claims = serde_json::from_str(r#"{"exp": 1, "client_id": "c", "scope": "s"}"#).unwrap();
        let revocation_key = RevocationKey::of(b"a.b.c", None);
        Arc::new(VerifiedToken { claims, key_id: name.into(), revocation_key })
    }

    fn hash(number: usize) -> Hash {
        let mut hash = Hash::default();
        hash[..8].copy_from_slice(&number.to_le_bytes());
        hash
    }

    #[test]
    fn a_used_entry_stays_and_an_unused_one_is_dropped() {
        let mut generations = Generations::default();
        generations.insert(hash(0), token("first"));
        generations.insert(hash(1), token("second"));
        for number in 2..4 * GENERATION {
            generations.insert(hash(number), token("other"));
            assert_eq!(&*generations.find(&hash(0)).unwrap().key_id, "first");
            assert!(generations.current.len() + generations.previous.len() <= 2 * GENERATION);
        }
        assert!(generations.find(&hash(1)).is_none());
    }
}
