//! Client secrets. Only their hashes are kept.

use std::fmt;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::SHA256_OUTPUT_LEN;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::jose::thumbprint::sha256;
use crate::oauth::password_hash::PasswordHash;
use crate::time::UnixTime;

/// One of a client's secrets with its period of validity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSecret {
    /// The operator's name for the secret, unique per client.
    pub label: Box<str>,
    /// The hash of the secret.
    pub hash: SecretHash,
    /// The time from which the secret is accepted; `None` if it is accepted at once.
    pub not_before: Option<UnixTime>,
    /// The time from which the secret is refused; `None` if it does not expire.
    pub expires_at: Option<UnixTime>,
}

impl ClientSecret {
    /// Whether the secret is valid at `now`.
    pub fn is_current(&self, now: UnixTime) -> bool {
        self.not_before.is_none_or(|from| from <= now)
            && self.expires_at.is_none_or(|until| now < until)
    }
}

/// Among the secrets of a client, finds the secret with the hash `given`. If several match, one that
/// is valid at `now` is preferred. `secrets` is `None` if no client has the id in the request.
///
/// For an unknown client, `given` is compared with one hash that cannot match. So the time of the
/// search does not reveal that the client is unknown.
pub fn find_secret<'c>(
    given: &FastHash,
    secrets: Option<&'c [ClientSecret]>,
    now: UnixTime,
) -> Option<&'c ClientSecret> {
    let Some(secrets) = secrets else {
        // Compare, so that the search takes as long as for a known client. Discard the result.
        let _ = std::hint::black_box(given.ct_eq(&FastHash::unmatchable()));
        return None;
    };
    // Compare all secrets, so that the time does not reveal which secret matched.
    let (mut found, mut found_current) = (NONE, NONE);
    for (index, secret) in (0..NONE).zip(secrets) {
        let SecretHash::Fast(hash) = &secret.hash else { continue };
        let equal = given.ct_eq(hash);
        found.conditional_assign(&index, equal);
        let is_current = Choice::from(u8::from(secret.is_current(now)));
        found_current.conditional_assign(&index, equal & is_current);
    }
    [found_current, found].into_iter().find_map(|index| secrets.get(usize::try_from(index).ok()?))
}

/// The index that means "no secret". No client has this many secrets.
const NONE: u32 = u32::MAX;

/// The stored hash of a secret.
///
/// A secret of 32 characters or more is assumed to be random. It may have a fast hash: no attacker
/// can guess such a secret, even though SHA-256 is fast to compute. A shorter secret needs a slow
/// hash.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretHash {
    /// `$sha256$<base64url>`: one SHA-256.
    Fast(FastHash),
    /// A slow hash: argon2id, PBKDF2 or bcrypt.
    Slow(Arc<PasswordHash>),
}

impl SecretHash {
    /// The minimum length, in characters, of a secret with a fast hash.
    pub const MIN_SECRET_CHARS: usize = 32;

    /// Parses the stored form of a hash.
    ///
    /// # Errors
    ///
    /// A description of the forms that are expected. It quotes nothing of `stored`, which may be a
    /// secret.
    pub fn parse(stored: &str) -> Result<Self, &'static str> {
        match FastHash::parse(stored) {
            Some(hash) => Ok(Self::Fast(hash)),
            None if stored.starts_with(PREFIX) => Err("$sha256$ and 43 characters of base64url"),
            None => PasswordHash::parse(stored).map(|hash| Self::Slow(Arc::new(hash))),
        }
    }

    /// Returns the stored form.
    pub fn to_stored(&self) -> String {
        match self {
            Self::Fast(hash) => hash.to_stored(),
            Self::Slow(hash) => hash.as_stored().to_owned(),
        }
    }

    /// Returns the slow hash; `None` if this is a fast hash.
    pub fn as_slow(&self) -> Option<&Arc<PasswordHash>> {
        match self {
            Self::Fast(_) => None,
            Self::Slow(hash) => Some(hash),
        }
    }
}

/// Hides the hash, because a weak secret can be found by hashing guesses and comparing the results
/// with the stored hash.
impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(…)")
    }
}

/// The SHA-256 of a secret. Use [`ConstantTimeEq`] to compare it with the hash of a presented
/// secret; `Eq` is only for comparing two stored hashes.
#[derive(Clone, PartialEq, Eq)]
pub struct FastHash([u8; SHA256_OUTPUT_LEN]);

impl FastHash {
    /// Hashes a secret.
    pub fn of(secret: &str) -> Self {
        Self(sha256(secret.as_bytes()))
    }

    /// Parses the stored form; `None` if it is malformed.
    pub fn parse(stored: &str) -> Option<Self> {
        // The buffer is one byte longer than a hash, because the decoder needs room for whole
        // groups of 3 bytes.
        let mut decoded = [0; SHA256_OUTPUT_LEN + 1];
        let encoded = stored.strip_prefix(PREFIX)?;
        let length = URL_SAFE_NO_PAD.decode_slice(encoded, &mut decoded).ok()?;
        decoded[..length].try_into().ok().map(Self)
    }

    /// Returns the stored form.
    pub fn to_stored(&self) -> String {
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(self.0))
    }

    /// Returns a hash that no known secret has. If the client id of a request is unknown, the
    /// secret is compared with this hash. So the time of the comparison does not reveal that the id
    /// is unknown.
    pub fn unmatchable() -> Self {
        Self([0; SHA256_OUTPUT_LEN])
    }
}

/// Compares all bytes, eight at a time.
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

/// Whether `hash` is the hash of a demo secret. Demo secrets are public.
pub fn is_demo_secret(hash: &FastHash) -> Choice {
    static DEMO: OnceLock<[Option<FastHash>; 2]> = OnceLock::new();
    let demo = DEMO.get_or_init(|| DEMO_HASHES.map(FastHash::parse));
    demo.iter().flatten().fold(Choice::from(0), |is_demo, known| is_demo | known.ct_eq(hash))
}

/// The hashes of the secrets of `demo-client` and `vision-api-user` in the shipped `clients.json`.
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
    fn debug_shows_no_hash() {
        let fast = FastHash::of("abc");
        assert_eq!(
            format!("{fast:?} {:?}", SecretHash::Fast(fast.clone())),
            "FastHash(…) SecretHash(…)"
        );
    }

    #[test]
    fn a_secret_is_current_in_its_period_of_validity() {
        let secret = |not_before: Option<u64>, expires_at: Option<u64>| ClientSecret {
            label: "a".into(),
            hash: SecretHash::Fast(FastHash::unmatchable()),
            not_before: not_before.map(UnixTime),
            expires_at: expires_at.map(UnixTime),
        };
        assert!(secret(None, None).is_current(UnixTime(0)));
        assert!(secret(Some(5), Some(7)).is_current(UnixTime(5)));
        assert!(!secret(Some(5), Some(7)).is_current(UnixTime(4)));
        assert!(!secret(Some(5), Some(7)).is_current(UnixTime(7)));
    }
}
