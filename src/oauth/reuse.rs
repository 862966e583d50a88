//! The cache of a client's reusable tokens (`token_reuse`).
//!
//! The signature is most of the cost of a token. `token_reuse` is a number of seconds: a client
//! that sends an equal request within this time gets the same token again. Reuse is off by default,
//! because with reuse, two processes of one client may hold the same bearer token.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use zeroize::Zeroizing;

use crate::oauth::client::TokenProfile;
use crate::oauth::confirmation::Confirmation;
use crate::time::UnixTime;

/// The cache key. A token may be reused for a request if both have equal cache keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind<'a> {
    /// The token's profile.
    pub profile: TokenProfile,
    /// The `kid` of the signing key.
    pub key_id: &'a str,
    /// The granted scope.
    pub scope: &'a str,
    /// The requested audiences.
    pub resources: &'a [&'a str],
    /// The certificate and the key that the token is bound to, if any.
    pub confirmation: Confirmation,
}

/// The reusable tokens of one client.
pub struct Reuse {
    seconds: u64,
    not_before: UnixTime,
    kept: Mutex<Vec<Kept>>,
}

impl Reuse {
    /// Creates an empty cache. A token is reused until it is `seconds` old or until only a tenth of
    /// its lifetime is left, whichever is earlier. Tokens issued before `not_before` are revoked,
    /// so they are not kept.
    pub fn new(seconds: u32, not_before: UnixTime) -> Self {
        Self { seconds: seconds.into(), not_before, kept: Mutex::default() }
    }

    /// Appends a kept token of this kind to `buffer` and returns its expiry. `None` if no token of
    /// this kind may be reused at `now`.
    pub fn find(&self, kind: &Kind<'_>, now: UnixTime, buffer: &mut Vec<u8>) -> Option<UnixTime> {
        let kept = self.kept();
        let found = kept.iter().find(|kept| kept.is_current(now) && kept.is(kind))?;
        buffer.extend_from_slice(&found.token);
        Some(found.expires_at)
    }

    /// Keeps `token` and removes an older token of this kind. The token was issued at `now` and
    /// expires at `expires_at`.
    pub fn keep(&self, kind: &Kind<'_>, now: UnixTime, expires_at: UnixTime, token: &[u8]) {
        // A token is not reused in the last tenth of its lifetime, because a client needs time to
        // use the token.
        let useful = expires_at.since(now) * 9 / 10;
        let made = Kept {
            profile: kind.profile,
            key_id: kind.key_id.into(),
            scope: kind.scope.into(),
            resources: kind.resources.iter().map(|resource| (*resource).into()).collect(),
            confirmation: kind.confirmation,
            issued_at: now,
            reused_until: now + self.seconds.min(useful),
            expires_at,
            token: Zeroizing::new(token.to_vec()),
        };
        if now < self.not_before {
            return;
        }
        let mut kept = self.kept();
        kept.retain(|kept| kept.is_current(now) && !kept.is(kind));
        if kept.len() >= MAX_KEPT {
            kept.remove(0);
        }
        kept.push(made);
    }

    /// Removes all tokens. Called when a token of the client is revoked.
    pub fn forget(&self) {
        self.kept().clear();
    }

    /// Locks the kept tokens. Ignores poisoning: the list is consistent after every statement.
    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Compares the registered values, not the kept tokens.
impl PartialEq for Reuse {
    fn eq(&self, other: &Self) -> bool {
        (self.seconds, self.not_before) == (other.seconds, other.not_before)
    }
}

impl fmt::Debug for Reuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reuse").field("seconds", &self.seconds).finish_non_exhaustive()
    }
}

struct Kept {
    profile: TokenProfile,
    key_id: Box<str>,
    scope: Box<str>,
    resources: Box<[Box<str>]>,
    confirmation: Confirmation,
    issued_at: UnixTime,
    reused_until: UnixTime,
    expires_at: UnixTime,
    token: Zeroizing<Vec<u8>>,
}

impl Kept {
    /// Whether the token may be reused at `now`. If the clock was set back after the token was
    /// issued, `now` may be earlier than the token's time of issue; the token is then not reused.
    fn is_current(&self, now: UnixTime) -> bool {
        (self.issued_at..self.reused_until).contains(&now)
    }

    fn is(&self, kind: &Kind<'_>) -> bool {
        self.profile == kind.profile
            && self.confirmation == kind.confirmation
            && *self.scope == *kind.scope
            && *self.key_id == *kind.key_id
            && self.resources.iter().map(|resource| &**resource).eq(kind.resources.iter().copied())
    }
}

/// The maximum number of tokens kept for a client. When the cache is full, the oldest token is
/// evicted.
const MAX_KEPT: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind<'_> = Kind {
        profile: TokenProfile::AtJwt,
        key_id: "k",
        scope: "a b",
        resources: &["r"],
        confirmation: Confirmation { certificate: None, key: None },
    };

    fn find(reuse: &Reuse, kind: &Kind<'_>, now: u64) -> Option<(u64, Vec<u8>)> {
        let mut buffer = b"before ".to_vec();
        let expires_at = reuse.find(kind, UnixTime(now), &mut buffer)?.0;
        Some((expires_at, buffer))
    }

    #[test]
    fn a_request_of_the_same_kind_gets_the_same_token_in_time() {
        let reuse = Reuse::new(60, UnixTime(0));
        assert_eq!(find(&reuse, &KIND, 1000), None);
        reuse.keep(&KIND, UnixTime(1000), UnixTime(4600), b"token");
        let token = Some((4600, b"before token".to_vec()));
        for (now, expected) in [(999, &None), (1000, &token), (1059, &token), (1060, &None)] {
            assert_eq!(&find(&reuse, &KIND, now), expected, "{now}");
        }
        let other = Reuse::new(60, UnixTime(1001));
        other.keep(&KIND, UnixTime(1000), UnixTime(4600), b"revoked");
        assert_eq!(find(&other, &KIND, 1000), None);
        other.keep(&KIND, UnixTime(1001), UnixTime(4600), b"token");
        assert_eq!(find(&other, &KIND, 1001), token);
        other.forget();
        assert_eq!(find(&other, &KIND, 1001), None);
        for other in [
            Kind { profile: TokenProfile::Vision, ..KIND },
            Kind { key_id: "l", ..KIND },
            Kind { scope: "a", ..KIND },
            Kind { resources: &[], ..KIND },
            Kind { resources: &["r", "s"], ..KIND },
            Kind { confirmation: Confirmation { certificate: Some([0; 32]), key: None }, ..KIND },
            Kind { confirmation: Confirmation { certificate: None, key: Some([0; 32]) }, ..KIND },
        ] {
            assert_eq!(find(&reuse, &other, 1000), None, "{other:?}");
        }
    }

    #[test]
    fn a_token_is_not_reused_in_the_last_tenth_of_its_lifetime() {
        let reuse = Reuse::new(3600, UnixTime(0));
        reuse.keep(&KIND, UnixTime(1000), UnixTime(1100), b"token");
        assert!(find(&reuse, &KIND, 1089).is_some());
        assert_eq!(find(&reuse, &KIND, 1090), None);
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_the_newest_of_a_kind() {
        let reuse = Reuse::new(60, UnixTime(0));
        let scopes: Vec<_> = (0..=MAX_KEPT).map(|number| number.to_string()).collect();
        for scope in &scopes {
            reuse.keep(&Kind { scope, ..KIND }, UnixTime(1000), UnixTime(4600), scope.as_bytes());
        }
        assert_eq!(find(&reuse, &Kind { scope: "0", ..KIND }, 1000), None);
        reuse.keep(&Kind { scope: "1", ..KIND }, UnixTime(1001), UnixTime(4601), b"newer");
        assert_eq!(
            find(&reuse, &Kind { scope: "1", ..KIND }, 1001),
            Some((4601, b"before newer".to_vec()))
        );
        assert_eq!(reuse.kept().len(), MAX_KEPT);
    }
}
