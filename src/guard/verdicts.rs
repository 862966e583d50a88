//! The cache of verified secrets. With it, the slow hash of a correct secret is computed only once.
//!
//! An entry holds neither the secret nor an unkeyed hash of it, but a keyed hash (see
//! [`PasswordPool::attempt`](crate::guard::password_pool::PasswordPool::attempt)). The key of this
//! hash never leaves the process, so a copy of the cache alone does not help to guess secrets.
//! Wrong secrets are not cached, because their number is unbounded.
//!
//! A reload may remove a stored hash while a secret is compared with it. The entry is then cached all
//! the same, but it is never found: each look-up is for a hash that the client has. The next reload
//! removes the entry.

use std::sync::Arc;

use compact_str::CompactString;

use crate::cache::{Cache, Hash};
use crate::oauth::client::Client;
use crate::oauth::decoy::slow_hashes;
use crate::oauth::password_hash::PasswordHash;

/// The cache key: a keyed hash of a client's id, a stored hash and a presented secret. A look-up
/// need not take constant time: an attacker does not know the key, and so cannot choose a secret
/// whose keyed hash begins with given bytes.
pub type Attempt = Hash;

/// The successful attempts.
pub type Verdicts = Cache<Verdict>;

/// The client of a successful attempt and the stored hash that its secret matched.
pub struct Verdict {
    /// The id of the client.
    pub client_id: CompactString,
    /// The stored hash.
    pub hash: Arc<PasswordHash>,
}

impl Verdict {
    /// Whether `client` still has the stored hash.
    pub fn is_of(&self, client: &Client) -> bool {
        slow_hashes(client).any(|hash| **hash == *self.hash)
    }
}

/// The maximum number of cached attempts.
pub const CAPACITY: usize = 32_768;
