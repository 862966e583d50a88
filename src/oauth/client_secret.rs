//! Client secrets, as hashes: what was registered is never kept.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use subtle::{Choice, ConstantTimeEq};

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
}

impl ClientSecret {
    /// Whether it is accepted at `now` at all.
    pub fn is_current(&self, now: u64) -> bool {
        self.not_before.is_none_or(|from| from <= now)
            && self.expires_at.is_none_or(|until| now < until)
    }
}

/// `$sha256$<base64url>`: one SHA-256, for secrets too long to be guessed.
///
/// 32 characters at least, so that guessing means trying keys, not words; what is shorter needs a
/// slow hash.
#[derive(Clone)]
pub struct SecretHash([u8; SHA256_OUTPUT_LEN]);

impl SecretHash {
    /// The least length of a secret that this hash protects, in characters.
    pub const MIN_SECRET_CHARS: usize = 32;

    /// Hashes a secret.
    pub fn of(secret: &str) -> Self {
        let mut hash = [0; SHA256_OUTPUT_LEN];
        hash.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
        Self(hash)
    }

    /// Reads the stored form. `None` if it is anything else.
    pub fn parse(stored: &str) -> Option<Self> {
        let hash = URL_SAFE_NO_PAD.decode(stored.strip_prefix(PREFIX)?).ok()?;
        hash.try_into().ok().map(Self)
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

impl ConstantTimeEq for SecretHash {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

/// A hash of a weak secret can be searched for, so it is not shown either.
impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(…)")
    }
}

const PREFIX: &str = "$sha256$";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_form_round_trips() {
        let hash = SecretHash::of("abc");
        assert_eq!(hash.to_stored(), "$sha256$ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0");
        let read = SecretHash::parse(&hash.to_stored()).unwrap();
        assert!(bool::from(read.ct_eq(&hash)));
        for other in ["", "$sha256$", "$sha256$AAAA", "sha256$x", "$argon2id$v=19$"] {
            assert!(SecretHash::parse(other).is_none(), "{other}");
        }
    }

    #[test]
    fn debug_shows_no_hash() {
        assert_eq!(format!("{:?}", SecretHash::of("abc")), "SecretHash(…)");
    }

    #[test]
    fn is_current_within_its_time() {
        let secret = |not_before, expires_at| ClientSecret {
            label: "a".into(),
            hash: SecretHash::unmatchable(),
            not_before,
            expires_at,
        };
        assert!(secret(None, None).is_current(0));
        assert!(secret(Some(5), Some(7)).is_current(5));
        assert!(!secret(Some(5), Some(7)).is_current(4));
        assert!(!secret(Some(5), Some(7)).is_current(7));
    }
}
