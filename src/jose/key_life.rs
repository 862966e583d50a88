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
    /// The longer of both, of each.
    pub fn max(self, other: Self) -> Self {
        Self {
            jwks_max_age: self.jwks_max_age.max(other.jwks_max_age),
            token_lifetime: self.token_lifetime.max(other.token_lifetime),
        }
    }

    /// A key made at `now` beside others: it signs only after every cached key set without it has
    /// run out. Twice the age, since a cache may have been filled from another cache.
    pub fn publish_at(&self, now: u64) -> KeyTimes {
        KeyTimes { published_at: now, signs_from: now + 2 * self.jwks_max_age }
    }

    /// The same beside keys with the times `others`: it signs after the one that signs at `now`,
    /// also while the clock stands before all of them.
    pub fn publish_beside(&self, others: &[KeyTimes], now: u64) -> KeyTimes {
        let times = self.publish_at(now);
        let signs_since = signs_since(others.iter().map(|key| key.signs_from), now);
        let next = signs_since.map_or(0, |since| since.saturating_add(1));
        KeyTimes { signs_from: times.signs_from.max(next), ..times }
    }

    /// What becomes of a key whose successor signs from `retires_at` on (Unix seconds).
    pub fn retire_at(&self, retires_at: u64) -> Retirement {
        let kept_for = self.token_lifetime + self.jwks_max_age;
        // The time in a file may be any number.
        Retirement { retires_at, gone_at: retires_at.saturating_add(kept_for) }
    }
}

/// Of the times from which keys sign, the one whose key signs at `now`: the last that has come. If
/// none has, the clock was set back, and the earliest counts: a key that signed yesterday is no
/// worse today.
pub fn signs_since(times: impl Iterator<Item = u64> + Clone, now: u64) -> Option<u64> {
    let due = times.clone().filter(|from| *from <= now).max();
    due.or_else(|| times.min())
}

/// The end of a key's life, in Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retirement {
    /// Signs until here, when its successor begins.
    pub retires_at: u64,
    /// In the key set until here: its last token has expired then, and the copies are stale.
    pub gone_at: u64,
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
        let signs_since = signs_since(all.iter().map(|key| key.signs_from), now);
        if self.signs_from > now && Some(self.signs_from) != signs_since {
            return KeyState::Published;
        }
        match self.retirement(all, retention) {
            Some(retirement) if retirement.gone_at <= now => KeyState::Gone,
            Some(retirement) if retirement.retires_at <= now => KeyState::Retiring,
            _ => KeyState::Signing,
        }
    }

    /// When this key's life ends, or has ended, among `all` keys of the same issuer. `None`: there
    /// is no successor.
    pub fn retirement(&self, all: &[Self], retention: &Retention) -> Option<Retirement> {
        let later = all.iter().map(|key| key.signs_from).filter(|&from| from > self.signs_from);
        later.min().map(|retires_at| retention.retire_at(retires_at))
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
    fn the_end_of_a_key_follows_from_the_next_one() {
        let [first, second, third] =
            [1_000, 20_000, 30_000].map(|at| KeyTimes { published_at: at, signs_from: at });
        let all = [third, first, second];
        let ends = |key: KeyTimes| {
            let retirement = key.retirement(&all, &RETENTION)?;
            Some((retirement.retires_at, retirement.gone_at))
        };
        assert_eq!(ends(first), Some((20_000, 23_900)));
        assert_eq!(ends(second), Some((30_000, 33_900)));
        assert_eq!(ends(third), None);
        for (now, state) in [
            (19_999, KeyState::Signing),
            (20_000, KeyState::Retiring),
            (23_899, KeyState::Retiring),
            (23_900, KeyState::Gone),
        ] {
            assert_eq!(first.state(&all, &RETENTION, now), state, "{now}");
        }
    }

    #[test]
    fn a_successor_at_the_end_of_time_is_one_too() {
        let [key, last] = [0, u64::MAX].map(|at| KeyTimes { published_at: 0, signs_from: at });
        let retirement = key.retirement(&[key, last], &RETENTION).unwrap();
        assert_eq!((retirement.retires_at, retirement.gone_at), (u64::MAX, u64::MAX));
        assert_eq!(key.state(&[key, last], &RETENTION, u64::MAX - 1), KeyState::Signing);
    }

    #[test]
    fn a_lone_key_signs_for_ever() {
        let key = KeyTimes { published_at: 0, signs_from: 0 };
        assert_eq!(key.retirement(&[key], &RETENTION), None);
        assert_eq!(key.state(&[key], &RETENTION, u64::MAX), KeyState::Signing);
    }

    #[test]
    fn on_a_clock_before_every_key_the_earliest_signs() {
        let [first, second] =
            [1_000, 2_000].map(|at| KeyTimes { published_at: at, signs_from: at });
        let states = |now| [first, second].map(|key| key.state(&[second, first], &RETENTION, now));
        assert_eq!(states(999), [KeyState::Signing, KeyState::Published]);
        assert_eq!(states(0), [KeyState::Signing, KeyState::Published]);
        assert_eq!(signs_since([].into_iter(), 0), None);
    }

    #[test]
    fn a_key_that_is_made_on_such_a_clock_does_not_sign_before_it_was_published() {
        let first = KeyTimes { published_at: 10_000, signs_from: 10_000 };
        let made = RETENTION.publish_beside(&[first], 1_000);
        assert_eq!((made.published_at, made.signs_from), (1_000, 10_001));
        assert_eq!(made.state(&[first, made], &RETENTION, 1_600), KeyState::Published);
        // On the right clock it waits as long as any.
        assert_eq!(RETENTION.publish_beside(&[first], 10_000), RETENTION.publish_at(10_000));
        assert_eq!(RETENTION.publish_beside(&[], 10_000), RETENTION.publish_at(10_000));
    }
}
