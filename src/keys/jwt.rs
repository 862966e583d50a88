//! Verifies the signatures of the issuer's own tokens and parses their claims (RFC 7519, section
//! 7.2). The callers check the claims, such as the expiry time and the audience.

use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde::{Deserialize, Serialize};

use crate::keys::key_set::KeySet;
use crate::keys::life::KeyTime;
use crate::time::UnixTime;

/// The claims of one of the issuer's own tokens, without the client's static claims. An optional
/// claim is missing only in tokens of the `vision` profile, unless the comment on the field says
/// otherwise.
#[derive(Debug, Deserialize)]
pub struct Claims {
    /// The expiry time.
    pub exp: UnixTime,
    /// When the token was issued.
    pub iat: Option<UnixTime>,
    /// The time before which the token is not valid. No profile sets this claim.
    pub nbf: Option<UnixTime>,
    /// The token's unique id.
    pub jti: Option<String>,
    /// The issuer.
    pub iss: Option<String>,
    /// The subject.
    pub sub: Option<String>,
    /// The client that the token was issued to.
    pub client_id: String,
    /// The granted scope tokens, separated by spaces.
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
    /// One audience, as a JSON string.
    One(String),
    /// Audiences in a JSON array.
    Several(Vec<String>),
}

impl Audience {
    /// Whether the token is for `audience`.
    pub fn contains(&self, audience: &str) -> bool {
        match self {
            Self::One(one) => one == audience,
            Self::Several(several) => several.iter().any(|one| one == audience),
        }
    }
}

/// Verifies the RS256 signature of `token` with the keys that are published at `at`. Returns the
/// token's claims and the id of the key that signed the token; `None` if none of these keys signed
/// it. Does not check the claims, such as the expiry time.
///
/// If the header has a `kid`, only the key with that id is tried. If the header has no `kid`, as in
/// the `vision` profile, every published key is tried. An `alg` other than RS256 is refused (RFC
/// 8725, section 3.1). The rest of the header is ignored.
pub fn verify<'k>(token: &str, keys: &'k KeySet, at: KeyTime) -> Option<(Claims, &'k str)> {
    let header = decode_header(token).ok()?;
    let mut validation = Validation::new(Algorithm::RS256);
    // The callers check the audience. They also check the expiry time, with the server's clock.
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();

    keys.published(at)
        .filter(|key| header.kid.as_ref().is_none_or(|kid| kid == key.key_id()))
        .find_map(|key| {
            let verified = decode(token, &key.verifier, &validation).ok()?;
            Some((verified.claims, key.key_id()))
        })
}
