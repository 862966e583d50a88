//! The life of a signing key: published → signing → retiring → gone.
//!
//! A key is in the key set long enough for every verifier's copy to have it before the first token
//! is signed with it, and stays until the last such token has expired and the copies are stale. No
//! state is stored: it follows from two timestamps a key and the clock, so that every process that
//! sees the same files agrees without talking.

use std::fmt;

/// When a key was published and when it signs, in Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyTimes {
    /// In the key set from here on.
    pub published_at: u64,
    /// Signs from here on, until a younger key does.
    pub signs_from: u64,
}

/// How long verifiers may hold on to things, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How long a fetched key set may be used (its `Cache-Control: max-age`).
    pub jwks_max_age: u64,
    /// The longest life of any token.
    pub token_lifetime: u64,
}

impl Retention {
    /// A key made at `now` beside others: it signs only after every cached key set without it has
    /// run out. Twice the age, since a cache may have been filled from another cache.
    pub fn publish_at(&self, now: u64) -> KeyTimes {
        KeyTimes { published_at: now, signs_from: now + 2 * self.jwks_max_age }
    }
}

/// Where a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// In the key set, not signing yet.
    Published,
    /// In the key set, and new tokens carry its signature.
    Signing,
    /// In the key set for the tokens it has signed; a younger key signs.
    Retiring,
    /// Out of the key set: no token that it signed is valid any more.
    Gone,
}

impl fmt::Display for KeyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Published => "published",
            Self::Signing => "signing",
            Self::Retiring => "retiring",
            Self::Gone => "gone",
        })
    }
}

impl KeyTimes {
    /// This key's state at `now`, among `all` keys of the same issuer (itself included).
    ///
    /// A signing key without a successor signs for ever: an operator who forgets to rotate has an
    /// old key, not an outage.
    pub fn state(&self, all: &[Self], retention: &Retention, now: u64) -> KeyState {
        if self.signs_from > now {
            return KeyState::Published;
        }
        let successor = all.iter().map(|key| key.signs_from).filter(|&from| from > self.signs_from);
        match successor.min() {
            Some(retired_at) if retired_at <= now => {
                let kept_for = retention.token_lifetime + retention.jwks_max_age;
                if now < retired_at + kept_for { KeyState::Retiring } else { KeyState::Gone }
            }
            _ => KeyState::Signing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETENTION: Retention = Retention { jwks_max_age: 300, token_lifetime: 3600 };

    #[test]
    fn state_follows_from_the_clock() {
        let first = KeyTimes { published_at: 1_000, signs_from: 1_000 };
        let second = RETENTION.publish_at(10_000);
        assert_eq!(second.signs_from, 10_600);
        let all = [first, second];

        let states =
            |now| (first.state(&all, &RETENTION, now), second.state(&all, &RETENTION, now));
        assert_eq!(states(10_000), (KeyState::Signing, KeyState::Published));
        assert_eq!(states(10_599), (KeyState::Signing, KeyState::Published));
        assert_eq!(states(10_600), (KeyState::Retiring, KeyState::Signing));
        assert_eq!(states(10_600 + 3_899), (KeyState::Retiring, KeyState::Signing));
        assert_eq!(states(10_600 + 3_900), (KeyState::Gone, KeyState::Signing));
    }

    #[test]
    fn a_lone_key_signs_for_ever() {
        let key = KeyTimes { published_at: 0, signs_from: 0 };
        assert_eq!(key.state(&[key], &RETENTION, u64::MAX), KeyState::Signing);
    }

    #[test]
    fn a_clock_before_every_key_has_none_signing() {
        let key = KeyTimes { published_at: 100, signs_from: 100 };
        assert_eq!(key.state(&[key], &RETENTION, 99), KeyState::Published);
    }
}
