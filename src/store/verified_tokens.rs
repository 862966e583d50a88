//! Tokens whose signature was right, so that it is not checked again each time they are shown.
//!
//! A signature stays right; everything else about a token may change from one request to the next.
//! So only the claims and the key's id are kept, and whoever asks looks at time, revocation and
//! client afresh. No token is kept, only its SHA-256.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ring::digest::{SHA256, digest};

use crate::jose::jwt::{self, Claims};
use crate::jose::key_set::KeySet;
use crate::store::revocations::RevocationKey;

/// A token that one of our keys has signed.
#[derive(Debug)]
pub struct VerifiedToken {
    /// What it says.
    pub claims: Claims,
    /// The `kid` of the key that has signed it.
    pub key_id: Box<str>,
    /// Under what it would be revoked.
    pub revocation_key: RevocationKey,
}

/// The last some thousand tokens that were verified: 9984 at most, none longer than 4 KiB, which
/// takes some 7 MB with ordinary tokens and cannot take more than 100.
pub struct VerifiedTokens {
    shards: [Mutex<Generations>; SHARDS],
}

impl VerifiedTokens {
    /// What `token` says, if a key that is published at `now` (Unix seconds) has signed it.
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
            self.shard(&hash).keep(hash, Arc::clone(&verified));
        }
        Some(verified)
    }

    /// Whole between any two statements, so a panic elsewhere cannot have broken it.
    fn shard(&self, hash: &Hash) -> MutexGuard<'_, Generations> {
        let shard = &self.shards[usize::from(hash[0]) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
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

/// A token that is asked for while it is old is young again; one that is not, is gone when the next
/// generation is full.
#[derive(Default)]
struct Generations {
    young: HashMap<Hash, Arc<VerifiedToken>>,
    old: HashMap<Hash, Arc<VerifiedToken>>,
}

impl Generations {
    fn find(&mut self, hash: &Hash) -> Option<Arc<VerifiedToken>> {
        if let Some(found) = self.young.get(hash) {
            return Some(Arc::clone(found));
        }
        let found = self.old.remove(hash)?;
        self.keep(*hash, Arc::clone(&found));
        Some(found)
    }

    fn keep(&mut self, hash: Hash, token: Arc<VerifiedToken>) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash, token);
    }
}

/// So that several event loops seldom wait for each other.
const SHARDS: usize = 16;
/// Tokens of one generation in one shard.
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
    fn what_is_asked_for_stays_and_the_rest_goes() {
        let mut generations = Generations::default();
        generations.keep(hash(0), token("first"));
        generations.keep(hash(1), token("second"));
        for number in 2..4 * GENERATION {
            generations.keep(hash(number), token("other"));
            assert_eq!(&*generations.find(&hash(0)).unwrap().key_id, "first");
            assert!(generations.young.len() + generations.old.len() <= 2 * GENERATION);
        }
        assert!(generations.find(&hash(1)).is_none());
    }
}
