//! The issuer's RSA signing keys, and the key set that publishes their public keys (RFC 7517,
//! section 5).

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use pkcs8::der::SecretDocument;
use ring::rsa::{KeyPair, PublicKeyComponents};
use serde_json::{Map, Value, json};

use crate::jose::thumbprint::{rsa_thumbprint, without_leading_zeros};
use crate::keys::life::{self, KeyState, KeyTimes, Retention, Retirement};
use crate::tally::Tally;
use crate::time::UnixTime;

/// An RSA signing key, with precomputed values that are needed to sign and to verify a token.
pub struct SigningKey {
    key_id: String,
    ring: KeyPair,
    aws_lc: aws_lc_rs::rsa::KeyPair,
    document: SecretDocument,
    modulus: String,
    exponent: String,
    times: KeyTimes,
    is_immediate: bool,
    /// The key does not sign before this time, even if `times.signs_from` is earlier.
    not_before: UnixTime,
    at_jwt_header: String,
    verifier: DecodingKey,
    fetches: Tally,
}

impl SigningKey {
    /// Parses a signing key from a PKCS#8 document (RFC 5208).
    ///
    /// # Errors
    ///
    /// [`KeyError`] if the document is not an RSA key of 2048 to 4096 bits, or if its numbers are
    /// inconsistent.
    pub fn from_pkcs8(document: &[u8], times: KeyTimes) -> Result<Self, KeyError> {
        let ring = KeyPair::from_pkcs8(document).map_err(|error| KeyError(error.to_string()))?;
        let aws_lc = aws_lc_rs::rsa::KeyPair::from_pkcs8(document)
            .map_err(|error| KeyError(error.to_string()))?;
        let document =
            SecretDocument::try_from(document).map_err(|error| KeyError(error.to_string()))?;
        let public = PublicKeyComponents::<Vec<u8>>::from(ring.public());
        let modulus = URL_SAFE_NO_PAD.encode(without_leading_zeros(&public.n));
        let exponent = URL_SAFE_NO_PAD.encode(without_leading_zeros(&public.e));
        let key_id = URL_SAFE_NO_PAD.encode(rsa_thumbprint(&modulus, &exponent));
        // The header of an access token (RFC 9068, section 2.1). The `kid` is base64url, which
        // needs no escaping.
        let at_jwt_header =
            URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"RS256","kid":"{key_id}","typ":"at+jwt"}}"#));
        let verifier = DecodingKey::from_rsa_components(&modulus, &exponent)
            .map_err(|error| KeyError(error.to_string()))?;
        Ok(Self {
            key_id,
            ring,
            aws_lc,
            document,
            modulus,
            exponent,
            times,
            is_immediate: false,
            not_before: UnixTime(0),
            at_jwt_header,
            verifier,
            fetches: Tally::default(),
        })
    }

    /// Makes the key start to sign at `signs_from`, even if cached key sets do not contain the key
    /// yet. This is for a key that replaces leaked keys.
    pub fn immediately(self) -> Self {
        Self { is_immediate: true, ..self }
    }

    /// Whether the key starts to sign at `signs_from`, even if cached key sets do not contain the
    /// key yet.
    pub fn is_immediate(&self) -> bool {
        self.is_immediate
    }

    /// The `kid`: the key's thumbprint (RFC 7638).
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The key for signing with ring.
    pub fn ring(&self) -> &KeyPair {
        &self.ring
    }

    /// The key for signing with aws-lc.
    pub fn aws_lc(&self) -> &aws_lc_rs::rsa::KeyPair {
        &self.aws_lc
    }

    /// When the key is published and when it begins to sign. `signs_from` is later than in the
    /// key's file if [`KeySet::followed_by`] has postponed it.
    pub fn times(&self) -> KeyTimes {
        KeyTimes { signs_from: self.times.signs_from.max(self.not_before), ..self.times }
    }

    /// The length of the modulus, and so of a signature, in bits.
    pub fn bits(&self) -> usize {
        self.ring.public().modulus_len() * 8
    }

    /// The private key as PKCS#8.
    pub fn document(&self) -> &[u8] {
        self.document.as_bytes()
    }

    /// The public key, for verifying the issuer's own tokens.
    pub fn verifier(&self) -> &DecodingKey {
        &self.verifier
    }

    /// The base64url-encoded protected header of an `at+jwt` signed with this key.
    pub fn at_jwt_header(&self) -> &str {
        &self.at_jwt_header
    }

    /// Counts the fetches of key sets that contain this key. The count begins when this process
    /// loads the key. It shows operators whether verifiers know the key.
    pub fn fetches(&self) -> &Tally {
        &self.fetches
    }
}

/// Shows only the key id.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// The reason why a key cannot be used. The text names the property that is wrong, and contains no
/// key material.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyError(String);

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a usable RSA key of 2048 to 4096 bits ({})", self.0)
    }
}

impl std::error::Error for KeyError {}

/// All keys of an issuer, including those that are not published any more.
#[derive(Debug)]
pub struct KeySet {
    keys: Vec<Arc<SigningKey>>,
    retention: Retention,
}

impl KeySet {
    /// Creates a key set of `keys`. `retention` determines how long a key stays published after it
    /// has stopped signing.
    pub fn new(keys: Vec<SigningKey>, retention: Retention) -> Self {
        Self { keys: keys.into_iter().map(Arc::new).collect(), retention }
    }

    /// Returns the key set of `keys`, which replaces this key set in a reload at `now`. A key that
    /// is in both key sets with equal times stays the same object. The keys with an id in `kept`
    /// that are not in `keys` stay too, as they are in this key set.
    ///
    /// A new key is a key that this key set does not contain. It is not published before `now`,
    /// even if its `published_at` is earlier. If the new key would succeed the key that signs now
    /// (the `signs_from` of the new key is later), the new key begins to sign only when every
    /// cached key set contains it. There are two exceptions, in which the new key begins to sign at
    /// its `signs_from`: if the new key is [immediate](SigningKey::immediately), and if no key of this
    /// key set stays.
    pub fn followed_by(
        &self,
        keys: Vec<SigningKey>,
        kept: &[&str],
        retention: Retention,
        now: UnixTime,
    ) -> Self {
        let known = |key: &SigningKey| self.keys.iter().find(|known| known.key_id == key.key_id);
        let is_new = |known: &SigningKey| keys.iter().any(|key| key.key_id == known.key_id);
        let stays = |known: &&Arc<SigningKey>| kept.contains(&&*known.key_id) && !is_new(known);
        let kept: Vec<_> = self.keys.iter().filter(stays).cloned().collect();
        let since = |key: &Arc<SigningKey>| key.times().signs_from;
        let times = keys.iter().filter_map(known).map(since).chain(kept.iter().map(since));
        let signs_since = life::signs_since(times, now);
        let age = self.max_age().max(retention.jwks_max_age);
        let earliest = now + age + RELOAD_SECONDS;
        let followed = |mut key: SigningKey| match known(&key) {
            Some(known) if known.times == key.times => Arc::clone(known),
            known => {
                let takes_over = !key.is_immediate
                    && signs_since.is_some_and(|since| key.times.signs_from > since);
                let fresh = if takes_over { earliest } else { UnixTime(0) };
                key.not_before = known.map_or(fresh, |known| known.not_before);
                Arc::new(key)
            }
        };
        let keys = keys.into_iter().map(followed).chain(kept).collect();
        Self { keys, retention }
    }

    /// Returns the key that signs at `now`: the key with the latest `signs_from` that is not after
    /// `now` or, if all are after `now`, the key with the earliest. `None` if there is no key.
    pub fn signing_key(&self, now: UnixTime) -> Option<&Arc<SigningKey>> {
        let times = self.keys.iter().map(|key| key.times().signs_from);
        let since = life::signs_since(times, now)?;
        let keys = self.keys.iter().filter(|key| key.times().signs_from == since);
        keys.max_by_key(|key| &key.key_id)
    }

    /// Iterates over all keys.
    pub fn iter(&self) -> impl Iterator<Item = &SigningKey> {
        self.keys.iter().map(|key| &**key)
    }

    /// Iterates over all keys, each with its state at `now`.
    pub fn states(&self, now: UnixTime) -> impl Iterator<Item = (&SigningKey, KeyState)> {
        let all = self.times();
        self.keys.iter().map(move |key| (&**key, key.times().state(&all, &self.retention, now)))
    }

    /// Iterates over the keys that are published at `now`: all that are not [`KeyState::Gone`].
    pub fn published(&self, now: UnixTime) -> impl Iterator<Item = &SigningKey> {
        let published = self.states(now).filter(|(_, state)| *state != KeyState::Gone);
        published.map(|(key, _)| key)
    }

    /// Whether the key with this id is published at `now`.
    pub fn is_published(&self, key_id: &str, now: UnixTime) -> bool {
        self.published(now).any(|key| key.key_id == key_id)
    }

    /// Describes each key and its state at `now` for operators.
    pub fn describe(
        &self,
        now: UnixTime,
    ) -> impl Iterator<Item = (&SigningKey, Map<String, Value>)> {
        let all = self.times();
        self.states(now).map(move |(key, state)| {
            let KeyTimes { published_at, signs_from } = key.times();
            let mut described = Map::new();
            let mut say = |name: &str, value: Value| described.insert(name.to_owned(), value);
            say("kid", key.key_id().into());
            say("bits", key.bits().into());
            say("state", state.to_string().into());
            say("published_at", published_at.0.into());
            say("signs_from", signs_from.0.into());
            if let Some(end) = key.times().retirement(&all, &self.retention) {
                let Retirement { retires_at, gone_at } = end;
                say("retires_at", retires_at.0.into());
                say("gone_at", gone_at.0.into());
            }
            (key, described)
        })
    }

    fn times(&self) -> Vec<KeyTimes> {
        self.keys.iter().map(|key| key.times()).collect()
    }

    /// Returns the keys that are published at `now` as a JWK Set document.
    pub fn to_jwks(&self, now: UnixTime) -> String {
        let keys: Vec<_> = self
            .published(now)
            .map(|key| {
                json!({
                    "kty": "RSA", "use": "sig", "alg": "RS256",
                    "kid": key.key_id, "n": key.modulus, "e": key.exponent,
                })
            })
            .collect();
        json!({ "keys": keys }).to_string()
    }

    /// How long a fetched key set may be used, in seconds.
    pub fn max_age(&self) -> u64 {
        self.retention.jwks_max_age
    }

    /// How long verifiers may use key sets and tokens.
    pub fn retention(&self) -> Retention {
        self.retention
    }
}

/// The maximum time, in seconds, between the moment when a reload reads the key files and the
/// moment when the new key set is used.
const RELOAD_SECONDS: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    /// The `signs_from` of the key that signs at `now`.
    fn signs_at(keys: &KeySet, now: u64) -> u64 {
        keys.signing_key(UnixTime(now)).unwrap().times.signs_from.0
    }

    #[test]
    fn a_new_key_signs_only_once_every_cached_key_set_contains_it() {
        let key = |signs_from: u64| {
            let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
            let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> =
                aws_lc_rs::encoding::AsDer::as_der(&pair).unwrap();
            let document = der.as_ref().to_vec();
            move || {
                let signs_from = UnixTime(signs_from);
                let times = KeyTimes { published_at: signs_from, signs_from };
                SigningKey::from_pkcs8(&document, times).unwrap()
            }
        };
        let retention = Retention { jwks_max_age: 300, token_lifetime: 3600 };
        let (ancient, first, late) = (key(0), key(1_000), key(5_000));
        let keys = KeySet::new(vec![first()], retention);
        // `late` has the `signs_from` 5000, but is first read at 9000.
        let keys =
            keys.followed_by(vec![ancient(), first(), late()], &[], retention, UnixTime(9_000));
        let switch = 9_000 + 300 + RELOAD_SECONDS;
        assert_eq!((signs_at(&keys, switch - 1), signs_at(&keys, switch)), (1_000, 5_000));
        // Reading `late` again does not restart its wait. `ancient`, which is older than `first`,
        // does not sign.
        let keys = keys.followed_by(
            vec![late(), first(), ancient()],
            &[],
            retention,
            UnixTime(switch - 1),
        );
        assert_eq!((signs_at(&keys, switch - 1), signs_at(&keys, switch)), (1_000, 5_000));
        // A process that starts at `switch` has seen none of these reloads. It signs with `late`,
        // as the process that has reloaded does.
        assert_eq!(
            signs_at(&KeySet::new(vec![ancient(), first(), late()], retention), switch),
            5_000
        );
        // If the new key is the only key, it signs without waiting.
        let alone = keys.followed_by(vec![key(8_000)()], &[], retention, UnixTime(9_000));
        assert_eq!(signs_at(&alone, 9_000), 8_000);
    }
}
