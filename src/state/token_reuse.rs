//! The cache of a client's reusable tokens (`token_reuse`).
//!
//! The signature is most of the cost of a token. `token_reuse` is a number of seconds: a client
//! that sends an equal request within this time gets the same token again. Reuse is off by default,
//! because with reuse, two processes of one client may hold the same bearer token.

use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::oauth::client::{Client, TokenProfile};
use crate::oauth::confirmation::Confirmation;
use crate::state::revocations::RevocationKey;
use crate::time::UnixTime;

/// The cache key. A token may be reused for a request if both have equal cache keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind<'a> {
    /// The issuer.
    pub issuer: &'a str,
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
#[derive(Default)]
pub struct TokenReuse(Mutex<Vec<Kept>>);

/// A token that may be reused, without its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reusable {
    /// The token's `exp`.
    pub expires_at: UnixTime,
    /// The key under which the token is revoked.
    pub revocation_key: RevocationKey,
}

impl TokenReuse {
    /// Appends a kept token of this kind to `buffer`. `None` if no token of this kind may be reused
    /// at `now`.
    pub fn find(&self, kind: &Kind<'_>, now: UnixTime, buffer: &mut Vec<u8>) -> Option<Reusable> {
        let kept = self.0.lock();
        let found = kept.iter().find(|kept| kept.is_current(now) && kept.is(kind))?;
        buffer.extend_from_slice(&found.text);
        Some(found.token)
    }

    /// Keeps a token of `client` that was issued at `now`, and removes an older token of this kind.
    /// Keeps nothing if the client's tokens are not reused. A token is reused until it is
    /// [`Client::token_reuse`] old or until only a tenth of its lifetime is left, whichever is
    /// earlier: a client needs time to use the token.
    pub fn keep(
        &self,
        client: &Client,
        kind: &Kind<'_>,
        now: UnixTime,
        token: Reusable,
        text: &[u8],
    ) {
        let Some(seconds) = client.token_reuse else { return };
        if now < client.not_before {
            // The token is revoked.
            return;
        }
        let useful = token.expires_at.since(now) * 9 / 10;
        let made = Kept {
            issuer: kind.issuer.into(),
            profile: kind.profile,
            key_id: kind.key_id.into(),
            scope: kind.scope.into(),
            resources: kind.resources.iter().map(|resource| (*resource).into()).collect(),
            confirmation: kind.confirmation,
            issued_at: now,
            reused_until: now + u64::from(seconds.get()).min(useful),
            token,
            text: Zeroizing::new(text.to_vec()),
        };
        let mut kept = self.0.lock();
        kept.retain(|kept| kept.is_current(now) && !kept.is(kind));
        if kept.len() >= MAX_KEPT {
            kept.remove(0);
        }
        kept.push(made);
    }

    /// Removes all tokens. Called when a token of the client is revoked.
    pub fn forget(&self) {
        self.0.lock().clear();
    }
}

struct Kept {
    issuer: Box<str>,
    profile: TokenProfile,
    key_id: Box<str>,
    scope: Box<str>,
    resources: Box<[Box<str>]>,
    confirmation: Confirmation,
    issued_at: UnixTime,
    reused_until: UnixTime,
    token: Reusable,
    text: Zeroizing<Vec<u8>>,
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
            && *self.issuer == *kind.issuer
            && self.resources.iter().map(|resource| &**resource).eq(kind.resources.iter().copied())
    }
}

/// The maximum number of tokens kept for a client. When the cache is full, the oldest token is
/// evicted.
const MAX_KEPT: usize = 16;

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    const KIND: Kind<'_> = Kind {
        issuer: "i",
        profile: TokenProfile::AtJwt,
        key_id: "k",
        scope: "a b",
        resources: &["r"],
        confirmation: Confirmation { certificate: None, key: None },
    };
    const KEY: RevocationKey = RevocationKey::TokenId([7; 16]);

    /// A client whose tokens are reused for `seconds`, with its reusable tokens.
    struct Fixture {
        client: Client,
        tokens: TokenReuse,
    }

    impl Fixture {
        fn new(seconds: u32, not_before: u64) -> Self {
            let token_reuse = NonZeroU32::new(seconds);
            let not_before = UnixTime(not_before);
            let client = Client { token_reuse, not_before, ..Client::default() };
            Self { client, tokens: TokenReuse::default() }
        }

        fn keep(&self, kind: &Kind<'_>, now: u64, expires_at: u64, text: &[u8]) {
            let token = Reusable { expires_at: UnixTime(expires_at), revocation_key: KEY };
            self.tokens.keep(&self.client, kind, UnixTime(now), token, text);
        }

        fn find(&self, kind: &Kind<'_>, now: u64) -> Option<(u64, Vec<u8>)> {
            let mut buffer = b"before ".to_vec();
            let found = self.tokens.find(kind, UnixTime(now), &mut buffer)?;
            assert_eq!(found.revocation_key, KEY);
            Some((found.expires_at.0, buffer))
        }
    }

    #[test]
    fn a_token_of_another_issuer_or_one_that_is_revoked_is_not_reused() {
        let reuse = Fixture::new(60, 0);
        reuse.keep(&KIND, 1000, 4600, b"token");
        assert!(reuse.find(&KIND, 1000).is_some());
        assert_eq!(reuse.find(&Kind { issuer: "j", ..KIND }, 1000), None);
        let later = Fixture::new(60, 1001);
        later.keep(&KIND, 1000, 4600, b"revoked");
        assert_eq!(later.find(&KIND, 1000), None);
        later.keep(&KIND, 1001, 4600, b"token");
        assert!(later.find(&KIND, 1001).is_some());
    }

    #[test]
    fn a_token_is_not_reused_in_the_last_tenth_of_its_lifetime() {
        let reuse = Fixture::new(3600, 0);
        reuse.keep(&KIND, 1000, 1100, b"token");
        assert!(reuse.find(&KIND, 1089).is_some());
        assert_eq!(reuse.find(&KIND, 1090), None);
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_the_newest_of_a_kind() {
        let reuse = Fixture::new(60, 0);
        let scopes: Vec<_> = (0..=MAX_KEPT).map(|number| number.to_string()).collect();
        for scope in &scopes {
            reuse.keep(&Kind { scope, ..KIND }, 1000, 4600, scope.as_bytes());
        }
        assert_eq!(reuse.find(&Kind { scope: "0", ..KIND }, 1000), None);
        reuse.keep(&Kind { scope: "1", ..KIND }, 1001, 4601, b"newer");
        assert_eq!(
            reuse.find(&Kind { scope: "1", ..KIND }, 1001),
            Some((4601, b"before newer".to_vec()))
        );
        assert_eq!(reuse.tokens.0.lock().len(), MAX_KEPT);
    }
}
