//! The cache of verified tokens. With it, the signature of a token is not verified on every
//! request.
//!
//! A cache hit only says that the signature is valid. The caller must still check the token's
//! expiry, its revocation and its client on every request, because these may have changed since the
//! last request. The cache key is the token's SHA-256; the token itself is not kept.

use std::sync::Arc;

use crate::cache::Cache;
use crate::jose::thumbprint::sha256;
use crate::keys::jwt::{self, Claims};
use crate::keys::key_set::KeySet;
use crate::keys::life::KeyTime;
use crate::state::revocations::RevocationKey;

/// A token that was signed by one of this server's keys.
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
pub struct VerifiedTokens(Cache<VerifiedToken>);

impl VerifiedTokens {
    /// Verifies the signature of `token` with the keys that are published at `at`. `None` if none
    /// of these keys signed the token.
    pub fn verify(&self, token: &str, keys: &KeySet, at: KeyTime) -> Option<Arc<VerifiedToken>> {
        let hash = sha256(token.as_bytes());
        if let Some(known) = self.0.get(&hash) {
            return keys.is_published(&known.key_id, at).then_some(known);
        }
        let (claims, key_id) = jwt::verify(token, keys, at)?;
        let revocation_key = RevocationKey::of(token.as_bytes(), claims.jti.as_deref());
        let verified = Arc::new(VerifiedToken { claims, key_id: key_id.into(), revocation_key });
        if token.len() <= MAX_TOKEN_BYTES {
            self.0.insert(hash, Arc::clone(&verified));
        }
        Some(verified)
    }
}

impl Default for VerifiedTokens {
    fn default() -> Self {
        Self(Cache::new(CAPACITY))
    }
}

const CAPACITY: usize = 9984;
const MAX_TOKEN_BYTES: usize = 4096;
