//! Client secrets, as hashes: what was registered is never kept.

use std::fmt;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use subtle::{Choice, ConstantTimeEq};

use crate::oauth::password_hash::PasswordHash;
use crate::tally::Tally;

/// One of a client's secrets and the time in which it is accepted.
#[derive(Clone, Debug)]
pub struct ClientSecret {
    /// What the operator calls it.
    pub label: Box<str>,
    /// Its hash.
    pub hash: SecretHash,
    /// Accepted from here on (Unix seconds).
    pub not_before: Option<u64>,
    /// Accepted until here, exclusively (Unix seconds).
    pub expires_at: Option<u64>,
    /// How it is used; nothing is there before it is used once.
    pub used: OnceLock<Arc<Tally>>,
}

impl ClientSecret {
    /// Whether it is accepted at `now` at all.
    pub fn is_current(&self, now: u64) -> bool {
        self.not_before.is_none_or(|from| from <= now)
            && self.expires_at.is_none_or(|until| now < until)
    }
}

/// As it is registered, however it was used.
impl PartialEq for ClientSecret {
    fn eq(&self, other: &Self) -> bool {
        let Self { label, hash, not_before, expires_at, used: _ } = self;
        *label == other.label
            && *hash == other.hash
            && *not_before == other.not_before
            && *expires_at == other.expires_at
    }
}

/// What is kept of a secret.
///
/// 32 characters at least are taken to be random, so that guessing means trying keys and not words:
/// one SHA-256 protects them. What is shorter needs a slow hash.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretHash {
    /// `$sha256$<base64url>`: one SHA-256.
    Fast(FastHash),
    /// Anything that takes long.
    Slow(Arc<PasswordHash>),
}

impl SecretHash {
    /// The least length of a secret that a fast hash protects, in characters.
    pub const MIN_SECRET_CHARS: usize = 32;

    /// Reads the stored form.
    ///
    /// # Errors
    ///
    /// What it must be instead; nothing of what it is.
    pub fn parse(stored: &str) -> Result<Self, &'static str> {
        match FastHash::parse(stored) {
            Some(hash) => Ok(Self::Fast(hash)),
            None if stored.starts_with(PREFIX) => Err("$sha256$ and 43 characters of base64url"),
            None => PasswordHash::parse(stored).map(|hash| Self::Slow(Arc::new(hash))),
        }
    }

    /// The stored form.
    pub fn to_stored(&self) -> String {
        match self {
            Self::Fast(hash) => hash.to_stored(),
            Self::Slow(hash) => hash.as_stored().to_owned(),
        }
    }

    /// It, if it is slow.
    pub fn as_slow(&self) -> Option<&Arc<PasswordHash>> {
        match self {
            Self::Fast(_) => None,
            Self::Slow(hash) => Some(hash),
        }
    }
}

/// A hash of a weak secret can be searched for, so it is not shown either.
impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(…)")
    }
}

/// One SHA-256. Compared with what is given in constant time; two that are stored need no such care.
#[derive(Clone, PartialEq, Eq)]
pub struct FastHash([u8; SHA256_OUTPUT_LEN]);

impl FastHash {
    /// Hashes a secret.
    pub fn of(secret: &str) -> Self {
        let mut hash = [0; SHA256_OUTPUT_LEN];
        hash.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
        Self(hash)
    }

    /// Reads the stored form. `None` if it is anything else.
    pub fn parse(stored: &str) -> Option<Self> {
        // The decoder asks for room for whole groups of four characters.
        let mut decoded = [0; SHA256_OUTPUT_LEN + 1];
        let encoded = stored.strip_prefix(PREFIX)?;
        let length = URL_SAFE_NO_PAD.decode_slice(encoded, &mut decoded).ok()?;
        decoded[..length].try_into().ok().map(Self)
    }

    /// The stored form.
    pub fn to_stored(&self) -> String {
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(self.0))
    }

    /// A hash that no known secret has: an unknown client's attempt is compared with this one, so
    /// that it takes the same steps as a known client's.
    pub fn unmatchable() -> Self {
        Self([0; SHA256_OUTPUT_LEN])
    }
}

/// Eight bytes at a time.
impl ConstantTimeEq for FastHash {
    fn ct_eq(&self, other: &Self) -> Choice {
        let (own, others) = (self.0.as_chunks().0.iter(), other.0.as_chunks().0);
        let differing = own
            .zip(others)
            .fold(0, |all, (a, b)| all | (u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b)));
        differing.ct_eq(&0)
    }
}

impl fmt::Debug for FastHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FastHash(…)")
    }
}

/// Whether this is the hash of one of the demo secrets, which are public.
pub fn is_demo_secret(hash: &FastHash) -> Choice {
    static DEMO: OnceLock<[Option<FastHash>; 2]> = OnceLock::new();
    let demo = DEMO.get_or_init(|| DEMO_HASHES.map(FastHash::parse));
    demo.iter().flatten().fold(Choice::from(0), |is_demo, known| is_demo | known.ct_eq(hash))
}

/// Of `demo-client` and `vision-api-user` in the shipped `clients.json`.
const DEMO_HASHES: [&str; 2] = [
    "$sha256$mxOTOIm6pc7brYcgi3w5YYlRKOJ8fFGZgwrRQFsU4Vc",
    "$sha256$jjK4bxg0LeMn8TlcVd5F6xNFSd2XfDdufIqFLoPTp7Y",
];

const PREFIX: &str = "$sha256$";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_form_round_trips() {
        let stored = "$sha256$ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0";
        assert_eq!(FastHash::of("abc").to_stored(), stored);
        let SecretHash::Fast(read) = SecretHash::parse(stored).unwrap() else { panic!("fast") };
        assert!(bool::from(read.ct_eq(&FastHash::of("abc"))));
        assert!(!bool::from(read.ct_eq(&FastHash::of("abd"))));
        let slow = "$2b$05$TnE0l4bsgWyWTvjvvWPBkeXL5cZDNjUtDoIMQhOu9QNQ4nbH1qf4m";
        assert_eq!(SecretHash::parse(slow).unwrap().to_stored(), slow);
        for other in ["", "$sha256$", "$sha256$AAAA", "sha256$x", "$argon2id$v=19$"] {
            assert!(SecretHash::parse(other).is_err(), "{other}");
        }
    }

    #[test]
    fn the_demo_secrets_are_known_by_their_hashes() {
        let is_demo = |secret| bool::from(is_demo_secret(&FastHash::of(secret)));
        assert!(is_demo("demo-secret-for-local-use-only-0001"));
        assert!(is_demo("abcdefghizklmnopponommnshfghzxxs"));
        assert!(!is_demo("demo-secret-for-local-use-only-0002") && !is_demo(""));
    }

    #[test]
    fn debug_shows_no_hash() {
        let fast = FastHash::of("abc");
        assert_eq!(
            format!("{fast:?} {:?}", SecretHash::Fast(fast.clone())),
            "FastHash(…) SecretHash(…)"
        );
    }

    #[test]
    fn is_current_within_its_time() {
        let secret = |not_before, expires_at| ClientSecret {
            label: "a".into(),
            hash: SecretHash::Fast(FastHash::unmatchable()),
            not_before,
            expires_at,
            used: OnceLock::new(),
        };
        assert!(secret(None, None).is_current(0));
        assert!(secret(Some(5), Some(7)).is_current(5));
        assert!(!secret(Some(5), Some(7)).is_current(4));
        assert!(!secret(Some(5), Some(7)).is_current(7));
    }
}
