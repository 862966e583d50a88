//! The life of a signing key: published → signing → retiring → gone.
//!
//! A key is published in the key set some time before it begins to sign. So when it begins to sign,
//! every cached copy of the key set contains it. The key stays in the key set until the last token
//! that it signed has expired. The state of a key is not stored. It is computed from the clock and
//! two timestamps of each key, so that processes that read the same key files agree without
//! communicating.

use std::fmt;

use crate::time::UnixTime;

/// When a key is published and when it begins to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyTimes {
    /// When the key was added to the key set.
    pub published_at: UnixTime,
    /// When the key begins to sign. The key signs until the `signs_from` of the next key.
    pub signs_from: UnixTime,
}

/// How long verifiers may use key sets and tokens, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How long a fetched key set may be used (its `Cache-Control: max-age`).
    pub jwks_max_age: u64,
    /// The longest time for which a token may be valid after its key has retired: the longest
    /// lifetime of any token, and more if a server may learn late that the key has retired.
    pub token_lifetime: u64,
}

/// The time for which a server judges its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyTime {
    /// The present time.
    pub now: UnixTime,
    /// The time up to which the server knows all changes of the keys: `now`, or earlier if it shares
    /// them with others and does not reach the store.
    pub known: UnixTime,
    /// For how many seconds the server holds a key back that may have been postponed.
    pub hold_back: u64,
}

impl KeyTime {
    /// Returns when a key that is to sign from `signs_from` on does so: later, if the server may not
    /// know that the key was postponed.
    pub fn start_of(&self, signs_from: UnixTime) -> UnixTime {
        let is_uncertain = self.known < signs_from && signs_from <= self.now;
        signs_from + if is_uncertain { self.hold_back } else { 0 }
    }
}

impl From<UnixTime> for KeyTime {
    fn from(now: UnixTime) -> Self {
        Self { now, known: now, hold_back: 0 }
    }
}

impl Retention {
    /// Returns the larger of the two values for each field.
    pub fn max(self, other: Self) -> Self {
        Self {
            jwks_max_age: self.jwks_max_age.max(other.jwks_max_age),
            token_lifetime: self.token_lifetime.max(other.token_lifetime),
        }
    }

    /// Returns the times of a key that is generated at `now` in addition to the issuer's keys
    /// `others`. The key begins to sign when every cached key set that lacks the key has expired.
    /// This takes twice `jwks_max_age`, because one cache may have been filled from another. It
    /// always begins later than the key that signs at `now`: this matters if the clock was set back
    /// to a time before the `signs_from` of all `others`.
    pub fn publish_beside(&self, others: &[KeyTimes], now: UnixTime) -> KeyTimes {
        let signs_since = signs_since(others.iter().map(|key| key.signs_from), now);
        let next = signs_since.map_or(UnixTime(0), |since| since + 1);
        KeyTimes { published_at: now, signs_from: next.max(now + 2 * self.jwks_max_age) }
    }

    /// Returns the retirement of a key whose successor begins to sign at `retires_at`.
    pub fn retire_at(&self, retires_at: UnixTime) -> Retirement {
        let kept_for = self.token_lifetime + self.jwks_max_age;
        Retirement { retires_at, gone_at: retires_at + kept_for }
    }
}

/// Returns the `signs_from` of the key that signs at `now`, given the `signs_from` of all keys: the
/// latest that is not after `now`. If all are after `now`, the clock was set back, and the earliest
/// is returned, so that some key always signs. `None` if there is no key.
pub fn signs_since(
    times: impl Iterator<Item = UnixTime> + Clone,
    now: UnixTime,
) -> Option<UnixTime> {
    let due = times.clone().filter(|from| *from <= now).max();
    due.or_else(|| times.min())
}

/// The end of a key's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retirement {
    /// When the key stops signing and its successor begins to sign.
    pub retires_at: UnixTime,
    /// When the key leaves the key set: one token lifetime and one `jwks_max_age` after
    /// `retires_at`. By then, all tokens that the key signed have expired.
    pub gone_at: UnixTime,
}

/// The state of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// In the key set, but not signing yet.
    Published,
    /// In the key set and signing new tokens.
    Signing,
    /// In the key set so that tokens of this key can still be verified. A later key signs new
    /// tokens.
    Retiring,
    /// No longer in the key set: all tokens that the key signed have expired.
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
    /// Returns the key's state at `at`. `all` are the times of all keys of the same issuer,
    /// including the times of this key.
    ///
    /// A signing key without a successor signs indefinitely, so that a forgotten rotation does not
    /// cause an outage. A key is not gone before the server knows that its successor was not
    /// postponed: others may still sign with it.
    pub fn state(&self, all: &[Self], retention: &Retention, at: KeyTime) -> KeyState {
        let KeyTime { now, known, .. } = at;
        let signs_since = signs_since(all.iter().map(|key| key.signs_from), now);
        if self.signs_from > now && Some(self.signs_from) != signs_since {
            return KeyState::Published;
        }
        match self.retirement(all, retention) {
            Some(Retirement { retires_at, gone_at }) if gone_at <= now && retires_at <= known => {
                KeyState::Gone
            }
            Some(retirement) if retirement.retires_at <= now => KeyState::Retiring,
            _ => KeyState::Signing,
        }
    }

    /// Returns the key's retirement, which may be in the past or in the future; `None` if the key
    /// has no successor. `all` are the times of all keys of the same issuer.
    pub fn retirement(&self, all: &[Self], retention: &Retention) -> Option<Retirement> {
        let later = all.iter().map(|key| key.signs_from).filter(|&from| from > self.signs_from);
        later.min().map(|retires_at| retention.retire_at(retires_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The times of a key that signs from the moment at which it is published.
    fn at(seconds: u64) -> KeyTimes {
        KeyTimes { published_at: UnixTime(seconds), signs_from: UnixTime(seconds) }
    }

    const RETENTION: Retention = Retention { jwks_max_age: 300, token_lifetime: 3600 };

    fn state_of(key: KeyTimes, all: &[KeyTimes], now: u64) -> KeyState {
        key.state(all, &RETENTION, UnixTime(now).into())
    }

    #[test]
    fn a_successor_with_the_largest_time_does_not_overflow() {
        let [key, last] = [0, u64::MAX].map(at);
        let retirement = key.retirement(&[key, last], &RETENTION).unwrap();
        assert_eq!((retirement.retires_at.0, retirement.gone_at.0), (u64::MAX, u64::MAX));
        assert_eq!(state_of(key, &[key, last], u64::MAX - 1), KeyState::Signing);
    }

    #[test]
    fn if_the_clock_is_before_every_key_the_earliest_signs() {
        let [first, second] = [1_000, 2_000].map(at);
        let states = |now| [first, second].map(|key| state_of(key, &[second, first], now));
        assert_eq!(states(999), [KeyState::Signing, KeyState::Published]);
        assert_eq!(states(0), [KeyState::Signing, KeyState::Published]);
        assert_eq!(signs_since([].into_iter(), UnixTime(0)), None);
    }

    #[test]
    fn a_key_that_is_made_by_a_clock_set_back_is_published_before_it_signs() {
        let first = at(10_000);
        let made = RETENTION.publish_beside(&[first], UnixTime(1_000));
        assert_eq!((made.published_at.0, made.signs_from.0), (1_000, 10_001));
        assert_eq!(state_of(made, &[first, made], 1_600), KeyState::Published);
        // If the clock was not set back, the new key waits only until cached key sets have expired.
        for others in [&[first][..], &[]] {
            let made = RETENTION.publish_beside(others, UnixTime(10_000));
            assert_eq!((made.published_at.0, made.signs_from.0), (10_000, 10_600));
        }
    }
}
