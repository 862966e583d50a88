//! The name of a token in the set of revoked tokens.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::jose::thumbprint::sha256;

/// The key under which a token is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RevocationKey {
    /// The 128 bits of the `jti` that this server puts into an `at+jwt`.
    TokenId([u8; 16]),
    /// The SHA-256 of the token's signing input, for a token whose `jti` is missing or does not
    /// encode 128 bits.
    SigningInput([u8; 32]),
}

impl RevocationKey {
    /// Returns the key of `token`. `jti` is the token's claim `jti`, if it has one.
    pub fn of(token: &[u8], jti: Option<&str>) -> Self {
        jti.and_then(decode).map_or_else(
            || {
                let end = token.iter().rposition(|&byte| byte == b'.').unwrap_or(token.len());
                Self::of_signing_input(&token[..end])
            },
            Self::TokenId,
        )
    }

    /// Returns the key of a token without a `jti`. `signing_input` is the header and the payload of
    /// the token, joined by a dot.
    pub fn of_signing_input(signing_input: &[u8]) -> Self {
        Self::SigningInput(sha256(signing_input))
    }

    /// Returns the bytes of the key. A `jti` has 16 of them, and a hash has 32.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::TokenId(id) => id,
            Self::SigningInput(hash) => hash,
        }
    }

    /// Returns the key with these bytes; `None` if no key has so many.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let id = bytes.try_into().map(Self::TokenId);
        id.or_else(|_| bytes.try_into().map(Self::SigningInput)).ok()
    }

    /// Returns the byte that selects a shard. All bytes of a key are random or part of a hash, so
    /// the keys are spread evenly over the shards.
    pub(super) fn first_byte(&self) -> u8 {
        self.as_bytes()[0]
    }
}

/// Decodes exactly `BYTES` bytes of base64url without padding.
pub(super) fn decode<const BYTES: usize>(text: &str) -> Option<[u8; BYTES]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}
