//! The issuer's signing keys, and their public halves as a JWK Set (RFC 7517, section 5).

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::keys::life::{self, KeyState, KeyTime, KeyTimes, Retention, Retirement};
use crate::keys::signing_key::SigningKey;
use crate::signing::private_key::PrivateKey;
use crate::time::UnixTime;

/// All keys of an issuer, including those that are not published any more.
pub struct KeySet {
    keys: Vec<Arc<SigningKey>>,
    /// How long verifiers may use key sets and tokens.
    pub retention: Retention,
}

impl KeySet {
    /// Creates a key set of `keys`. `retention` determines how long a key stays published after it
    /// has stopped signing.
    pub fn new(keys: Vec<SigningKey>, retention: Retention) -> Self {
        Self { keys: keys.into_iter().map(Arc::new).collect(), retention }
    }

    /// Returns the key set of `keys`, which replaces this key set in a reload at `now`. A key that
    /// is in both key sets with equal times stays the same object. With other times, it keeps at
    /// least its private key, and so the result of the trial of batches. The keys with an id in
    /// `kept` that are not in `keys` stay too, as they are in this key set.
    ///
    /// A new key is a key that this key set does not contain. It is not published before `now`,
    /// even if its `published_at` is earlier. If the new key would succeed the key that signs now
    /// (the `signs_from` of the new key is later), the new key begins to sign only when every
    /// cached key set contains it. There are two exceptions, in which the new key begins to sign at
    /// its `signs_from`: if the new key is [immediate](SigningKey::is_immediate), and if no key of this
    /// key set stays.
    pub fn followed_by(
        &self,
        keys: Vec<SigningKey>,
        kept: &[&str],
        retention: Retention,
        now: UnixTime,
    ) -> Self {
        let known =
            |key: &SigningKey| self.keys.iter().find(|known| known.key_id() == key.key_id());
        let is_new = |known: &SigningKey| keys.iter().any(|key| key.key_id() == known.key_id());
        let stays = |known: &&Arc<SigningKey>| kept.contains(&known.key_id()) && !is_new(known);
        let kept: Vec<_> = self.keys.iter().filter(stays).cloned().collect();
        let since = |key: &Arc<SigningKey>| key.times().signs_from;
        let times = keys.iter().filter_map(known).map(since).chain(kept.iter().map(since));
        let signs_since = life::signs_since(times, now);
        let age = self.retention.jwks_max_age.max(retention.jwks_max_age);
        let earliest = now + age + RELOAD_SECONDS;
        let followed = |mut key: SigningKey| match known(&key) {
            Some(known) if known.times == key.times => Arc::clone(known),
            known => {
                let takes_over = !key.is_immediate
                    && signs_since.is_some_and(|since| key.times.signs_from > since);
                let fresh = if takes_over { earliest } else { UnixTime(0) };
                key.not_before = known.map_or(fresh, |known| known.not_before);
                if let Some(known) = known {
                    key.private_key = Arc::clone(&known.private_key);
                }
                Arc::new(key)
            }
        };
        let keys = keys.into_iter().map(followed).chain(kept).collect();
        Self { keys, retention }
    }

    /// Returns the key that signs at `at`: the key with the latest `signs_from` that is not after
    /// that time or, if all are after it, the key with the earliest. `None` if there is no key.
    pub fn signing_key(&self, at: KeyTime) -> Option<&Arc<SigningKey>> {
        let signs_from = |key: &Arc<SigningKey>| self.times_of(key, at).signs_from;
        let since = life::signs_since(self.keys.iter().map(signs_from), at.now)?;
        let keys = self.keys.iter().filter(|key| signs_from(key) == since);
        keys.max_by_key(|key| key.key_id())
    }

    /// Iterates over all keys.
    pub fn iter(&self) -> impl Iterator<Item = &SigningKey> {
        self.keys.iter().map(|key| &**key)
    }

    /// Iterates over the private keys of all keys.
    pub fn private_keys(&self) -> impl Iterator<Item = &PrivateKey> {
        self.keys.iter().map(|key| &*key.private_key)
    }

    /// Iterates over all keys, each with its state at `at`.
    pub fn states(&self, at: KeyTime) -> impl Iterator<Item = (&SigningKey, KeyState)> {
        let all = self.times(at);
        let state = move |key| self.times_of(key, at).state(&all, &self.retention, at);
        self.keys.iter().map(move |key| (&**key, state(key)))
    }

    /// Iterates over the keys that are published at `at`: all that are not [`KeyState::Gone`].
    pub fn published(&self, at: KeyTime) -> impl Iterator<Item = &SigningKey> {
        let published = self.states(at).filter(|(_, state)| *state != KeyState::Gone);
        published.map(|(key, _)| key)
    }

    /// Whether the key with this id is published at `at`.
    pub fn is_published(&self, key_id: &str, at: KeyTime) -> bool {
        self.published(at).any(|key| key.key_id() == key_id)
    }

    /// Describes each key and its state at `at` for operators.
    pub fn describe(&self, at: KeyTime) -> impl Iterator<Item = (&SigningKey, Map<String, Value>)> {
        let all = self.times(at);
        self.states(at).map(move |(key, state)| {
            let times = self.times_of(key, at);
            let KeyTimes { published_at, signs_from } = times;
            let mut described = Map::new();
            let mut say = |name: &str, value: Value| described.insert(name.to_owned(), value);
            say("kid", key.key_id().into());
            say("bits", key.bits().into());
            say("state", state.to_string().into());
            say("published_at", published_at.0.into());
            say("signs_from", signs_from.0.into());
            if let Some(end) = times.retirement(&all, &self.retention) {
                let Retirement { retires_at, gone_at } = end;
                say("retires_at", retires_at.0.into());
                say("gone_at", gone_at.0.into());
            }
            (key, described)
        })
    }

    fn times(&self, at: KeyTime) -> Vec<KeyTimes> {
        self.keys.iter().map(|key| self.times_of(key, at)).collect()
    }

    /// The times of a key of this set as they count at `at`. No key is held back beyond an immediate
    /// one, which replaces leaked keys.
    pub fn times_of(&self, key: &SigningKey, at: KeyTime) -> KeyTimes {
        let replaces = |other: &Arc<SigningKey>| {
            other.is_immediate && key.times.signs_from <= other.times.signs_from
        };
        if self.keys.iter().any(replaces) {
            return key.times;
        }
        let start = at.start_of(key.times.signs_from);
        KeyTimes { signs_from: start.max(key.not_before), ..key.times }
    }

    /// Returns the keys that are published at `at` as a JWK Set document.
    pub fn to_jwks(&self, at: KeyTime) -> String {
        let keys: Vec<_> = self
            .published(at)
            .map(|key| {
                let (n, e) = (&key.private_key.modulus, &key.private_key.exponent);
                json!({
                    "kty": "RSA", "use": "sig", "alg": "RS256",
                    "kid": key.key_id(), "n": n, "e": e,
                })
            })
            .collect();
        json!({ "keys": keys }).to_string()
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
        keys.signing_key(UnixTime(now).into()).unwrap().times.signs_from.0
    }

    const RETENTION: Retention = Retention { jwks_max_age: 300, token_lifetime: 3600 };

    fn read(document: &[u8], signs_from: u64) -> SigningKey {
        let signs_from = UnixTime(signs_from);
        let times = KeyTimes { published_at: signs_from, signs_from };
        SigningKey::new(PrivateKey::from_pkcs8(document).unwrap(), times)
    }

    #[test]
    fn a_key_that_is_read_again_keeps_its_private_key() {
        let document = PrivateKey::generate_document();
        let keys = KeySet::new(vec![read(&document, 1_000)], RETENTION);
        for signs_from in [1_000, 2_000] {
            let again = vec![read(&document, signs_from)];
            let again = keys.followed_by(again, &[], RETENTION, UnixTime(3_000));
            assert_eq!(signs_at(&again, 3_000), signs_from);
            assert!(Arc::ptr_eq(&again.keys[0].private_key, &keys.keys[0].private_key));
        }
    }

    #[test]
    fn a_server_that_may_not_know_of_a_postponement_holds_a_key_back_and_keeps_its_predecessor() {
        let keys = [1_000, 5_000].map(|from| read(&PrivateKey::generate_document(), from));
        let of = |keys: &KeySet, known, now| {
            let at = KeyTime { now: UnixTime(now), known: UnixTime(known), hold_back: 1_800 };
            (keys.signing_key(at).unwrap().times.signs_from.0, keys.published(at).count())
        };
        let keys = KeySet::new(keys.into(), RETENTION);
        for (known, now, expected) in [
            (4_999, 4_999, (1_000, 2)),
            (4_999, 5_000, (1_000, 2)),
            (5_000, 5_001, (5_000, 2)),
            // A token that is signed with the old key at the last moment can still be verified.
            (4_999, 6_799, (1_000, 2)),
            (4_999, 6_800, (5_000, 2)),
            (4_999, 1_000_000, (5_000, 2)),
            // Once the server knows that the change was not postponed, the clock decides.
            (5_000, 8_899, (5_000, 2)),
            (5_000, 8_900, (5_000, 1)),
        ] {
            assert_eq!(of(&keys, known, now), expected, "{known} {now}");
        }
        // A key that replaces a leaked one waits for no server.
        let [old, new] = [1_000, 5_000].map(|from| read(&PrivateKey::generate_document(), from));
        let keys = KeySet::new(vec![old, SigningKey { is_immediate: true, ..new }], RETENTION);
        assert_eq!(of(&keys, 4_999, 5_000).0, 5_000);
    }

    #[test]
    fn a_new_key_signs_only_once_every_cached_key_set_contains_it() {
        let key = |signs_from: u64| {
            let document = PrivateKey::generate_document();
            move || read(&document, signs_from)
        };
        let (ancient, first, late) = (key(0), key(1_000), key(5_000));
        let keys = KeySet::new(vec![first()], RETENTION);
        // `late` has the `signs_from` 5000, but is first read at 9000.
        let keys =
            keys.followed_by(vec![ancient(), first(), late()], &[], RETENTION, UnixTime(9_000));
        let switch = 9_000 + 300 + RELOAD_SECONDS;
        assert_eq!((signs_at(&keys, switch - 1), signs_at(&keys, switch)), (1_000, 5_000));
        // Reading `late` again does not restart its wait. `ancient`, which is older than `first`,
        // does not sign.
        let keys = keys.followed_by(
            vec![late(), first(), ancient()],
            &[],
            RETENTION,
            UnixTime(switch - 1),
        );
        assert_eq!((signs_at(&keys, switch - 1), signs_at(&keys, switch)), (1_000, 5_000));
        // A process that starts at `switch` has seen none of these reloads. It signs with `late`,
        // as the process that has reloaded does.
        assert_eq!(
            signs_at(&KeySet::new(vec![ancient(), first(), late()], RETENTION), switch),
            5_000
        );
        // If the new key is the only key, it signs without waiting.
        let alone = keys.followed_by(vec![key(8_000)()], &[], RETENTION, UnixTime(9_000));
        assert_eq!(signs_at(&alone, 9_000), 8_000);
    }
}
