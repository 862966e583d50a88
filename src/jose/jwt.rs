//! Verifies the issuer's own tokens (RFC 7519, section 7.2), except for their time and audience.

use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde::{Deserialize, Serialize};

use crate::jose::key_set::KeySet;

/// The claims of one of the issuer's own tokens, without its client's static claims. Optional
/// claims are absent in the `vision` profile, if nothing else is said.
#[derive(Debug, Deserialize)]
pub struct Claims {
    /// The expiry time, in Unix seconds.
    pub exp: u64,
    /// When the token was issued, in Unix seconds.
    pub iat: Option<u64>,
    /// Before this time the token is not valid, in Unix seconds. No profile sets it.
    pub nbf: Option<u64>,
    /// The token's unique id.
    pub jti: Option<String>,
    /// The issuer.
    pub iss: Option<String>,
    /// The subject.
    pub sub: Option<String>,
    /// The client that the token was issued to.
    pub client_id: String,
    /// The granted scope.
    pub scope: String,
    /// The audience.
    pub aud: Option<Audience>,
    /// The key or certificate that the token is bound to (RFC 7800); `None` for a bearer token.
    pub cnf: Option<serde_json::Value>,
}

/// One audience or several (RFC 7519, section 4.1.3).
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Audience {
    /// A string.
    One(String),
    /// An array.
    Several(Vec<String>),
}

impl Audience {
    /// Whether `audience` is among them.
    pub fn contains(&self, audience: &str) -> bool {
        match self {
            Self::One(one) => one == audience,
            Self::Several(several) => several.iter().any(|one| one == audience),
        }
    }
}

/// Returns the claims of `token` and the id of its key, if a key that is published at `now` (Unix
/// seconds) has signed it with RS256. The claims themselves, such as the expiry time, are not
/// checked.
///
/// A `kid` selects the key; without one, as in the `vision` profile, every published key is tried.
/// The rest of the header is ignored: the algorithm is fixed (RFC 8725, section 3.1).
pub fn verify<'k>(token: &str, keys: &'k KeySet, now: u64) -> Option<(Claims, &'k str)> {
    let header = decode_header(token).ok()?;
    let mut validation = Validation::new(Algorithm::RS256);
    // The caller checks the time, by the server's clock, and the audience.
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();

    keys.published(now)
        .filter(|key| header.kid.as_ref().is_none_or(|kid| kid == key.key_id()))
        .find_map(|key| {
            let verified = decode(token, key.verifier(), &validation).ok()?;
            Some((verified.claims, key.key_id()))
        })
}
