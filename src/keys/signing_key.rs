//! An RSA signing key of the issuer: a private key, and the times at which it is published and
//! signs.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use ring::rsa::PublicKeyComponents;

use crate::keys::life::KeyTimes;
use crate::signing::private_key::PrivateKey;
use crate::tally::Tally;
use crate::time::UnixTime;

/// A signing key, with precomputed values that are needed to mint and to verify a token.
pub struct SigningKey {
    /// The private key, which signs.
    pub private_key: Arc<PrivateKey>,
    /// The times in the key's file.
    pub(super) times: KeyTimes,
    /// Whether the key starts to sign at `signs_from`, even if cached key sets do not contain it yet.
    /// This is for a key that replaces leaked keys.
    pub is_immediate: bool,
    /// The key does not sign before this time, even if `times.signs_from` is earlier.
    pub(super) not_before: UnixTime,
    /// The base64url-encoded protected header of an `at+jwt` signed with this key.
    pub at_jwt_header: String,
    /// The public key, for verifying the issuer's own tokens.
    pub verifier: DecodingKey,
    /// Counts the fetches of key sets that contain this key. The count begins when this process
    /// loads the key. It shows operators whether verifiers know the key.
    pub fetches: Tally,
}

impl SigningKey {
    /// Creates a signing key with these times.
    pub fn new(private_key: PrivateKey, times: KeyTimes) -> Self {
        // The header of an access token (RFC 9068, section 2.1). The `kid` is base64url, which
        // needs no escaping.
        let key_id = &private_key.thumbprint;
        let header = format!(r#"{{"alg":"RS256","kid":"{key_id}","typ":"at+jwt"}}"#);
        let public = PublicKeyComponents::<Vec<u8>>::from(private_key.ring.public());
        Self {
            at_jwt_header: URL_SAFE_NO_PAD.encode(header),
            verifier: DecodingKey::from_rsa_raw_components(&public.n, &public.e),
            private_key: Arc::new(private_key),
            times,
            is_immediate: false,
            not_before: UnixTime(0),
            fetches: Tally::default(),
        }
    }

    /// The `kid`: the key's thumbprint (RFC 7638).
    pub fn key_id(&self) -> &str {
        &self.private_key.thumbprint
    }

    /// When the key is published and when it begins to sign. `signs_from` is later than in the
    /// key's file if a reload has postponed it.
    pub fn times(&self) -> KeyTimes {
        KeyTimes { signs_from: self.times.signs_from.max(self.not_before), ..self.times }
    }

    /// The length of the modulus, and so of a signature, in bits.
    pub fn bits(&self) -> usize {
        self.private_key.ring.public().modulus_len() * 8
    }
}
