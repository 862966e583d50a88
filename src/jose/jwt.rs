//! Tokens that come back: is this one of ours (RFC 7519, section 7.2)?

use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde::{Deserialize, Serialize};

use crate::jose::key_set::KeySet;

/// The claims of one of our own tokens that decide what it is good for.
#[derive(Debug, Deserialize)]
pub struct Claims {
    /// Its end, in Unix seconds.
    pub exp: u64,
    /// When it was issued, in Unix seconds; the `vision` profile does not say.
    pub iat: Option<u64>,
    /// When its time begins, in Unix seconds; none of ours says.
    pub nbf: Option<u64>,
    /// What makes it one of its kind; the `vision` profile has none.
    pub jti: Option<String>,
    /// The issuer; the `vision` profile names none.
    pub iss: Option<String>,
    /// Whom it speaks of; the `vision` profile does not say.
    pub sub: Option<String>,
    /// To whom it was issued.
    pub client_id: String,
    /// The granted scope.
    pub scope: String,
    /// For whom; the `vision` profile names nobody.
    pub aud: Option<Audience>,
    /// A key or certificate that it is bound to: no bearer token then (RFC 7800).
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
    /// Whether `audience` is meant.
    pub fn contains(&self, audience: &str) -> bool {
        match self {
            Self::One(one) => one == audience,
            Self::Several(several) => several.iter().any(|one| one == audience),
        }
    }
}

/// The claims of `token` and the id of the key that has signed it, if one of those published at
/// `now` (Unix seconds) has, with RS256. The token's own time is not looked at.
///
/// A `kid` chooses the key; without one, as in the `vision` profile, every published key is tried.
/// Nothing else in the header is obeyed: the algorithm is ours to know (RFC 8725, section 3.1).
pub fn verify<'k>(token: &str, keys: &'k KeySet, now: u64) -> Option<(Claims, &'k str)> {
    let header = decode_header(token).ok()?;
    let mut validation = Validation::new(Algorithm::RS256);
    // Time is asked of our own clock, and who may use a token is for the endpoint to say.
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
