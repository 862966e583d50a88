//! `private_key_jwt`: a client proves itself by a JWT that it signs (RFC 7521, RFC 7523).

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

use crate::jose::foreign::{ForeignJwt, NumericDate};
use crate::jose::public_key::{Algorithm, PublicKey};

/// The one `client_assertion_type` (RFC 7523, section 2.2).
pub const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// An assertion that can be read. Nothing of it has been verified.
pub struct ClientAssertion<'a> {
    jwt: ForeignJwt<'a>,
    algorithm: Algorithm,
    client_id: String,
    token_id: String,
    audience: String,
    expires_at: u64,
    issued_at: Option<u64>,
    not_before: Option<u64>,
}

impl<'a> ClientAssertion<'a> {
    /// Reads an assertion's claims, to find the client whose keys decide about it.
    ///
    /// # Errors
    ///
    /// [`AssertionError::Malformed`] or [`AssertionError::Algorithm`].
    pub fn read(text: &'a str) -> Result<Self, AssertionError> {
        let jwt = ForeignJwt::read(text).ok_or(AssertionError::Malformed)?;
        // A key that comes along says nothing about the client.
        if jwt.embedded_key().is_some() {
            return Err(AssertionError::Malformed);
        }
        let algorithm = jwt.algorithm().ok_or(AssertionError::Algorithm)?;
        let claims: Claims = jwt.claims().ok_or(AssertionError::Malformed)?;
        if claims.iss != claims.sub || claims.iss.is_empty() || claims.jti.is_empty() {
            return Err(AssertionError::Malformed);
        }
        // RFC 7523bis: one audience, as a string, so that no other server could use it here.
        let Value::String(audience) = claims.aud else { return Err(AssertionError::Audience) };
        Ok(Self {
            jwt,
            algorithm,
            client_id: claims.iss,
            token_id: claims.jti,
            audience,
            expires_at: claims.exp.0,
            issued_at: claims.iat.map(|date| date.0),
            not_before: claims.nbf.map(|date| date.0),
        })
    }

    /// Which client it says it is from.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Whether it is what `expected` asks for. What this says is the same for every client.
    ///
    /// # Errors
    ///
    /// The [`AssertionError`].
    pub fn check(&self, expected: &Expected<'_>) -> Result<Accepted<'_>, AssertionError> {
        if !expected.is_meant_by(&self.audience) {
            return Err(AssertionError::Audience);
        }
        let now = expected.now;
        let is_ahead = |time: u64| time > now + SKEW;
        // Without `iat`, it counts as signed as early as its end allows.
        let (signed_at, until) = match self.issued_at {
            Some(issued_at) => (issued_at, self.expires_at.min(issued_at + MAX_LIFE)),
            None if self.expires_at > now + MAX_LIFE => return Err(AssertionError::Time),
            None => (self.expires_at.saturating_sub(MAX_LIFE), self.expires_at),
        };
        if until <= now || is_ahead(signed_at) || self.not_before.is_some_and(is_ahead) {
            return Err(AssertionError::Time);
        }
        if signed_at <= expected.started_at {
            return Err(AssertionError::BeforeStart);
        }
        Ok(Accepted { token_id: &self.token_id, signed_at, until })
    }

    /// Whether one of the client's own keys has signed it, with the algorithm that is registered
    /// for it if one is.
    ///
    /// # Errors
    ///
    /// [`AssertionError::Algorithm`] or [`AssertionError::Signature`].
    pub fn verify(
        &self,
        keys: &[PublicKey],
        registered: Option<Algorithm>,
    ) -> Result<(), AssertionError> {
        let is_other = registered.is_some_and(|registered| registered != self.algorithm);
        let keys = if is_other { &[] } else { keys };
        match self.jwt.is_signed_by(keys, self.algorithm) {
            true => Ok(()),
            false if is_other => Err(AssertionError::Algorithm),
            false => Err(AssertionError::Signature),
        }
    }
}

/// An assertion is a credential.
impl fmt::Debug for ClientAssertion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientAssertion(…)")
    }
}

/// An assertion whose claims are right. It is good for one use, and must be remembered.
#[derive(Clone, Copy, Debug)]
pub struct Accepted<'a> {
    /// Its `jti`, unique for its client.
    pub token_id: &'a str,
    /// When it was signed, as far as it says, in Unix seconds.
    pub signed_at: u64,
    /// From when on it is refused anyway, in Unix seconds.
    pub until: u64,
}

/// What an assertion must say, and when.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The time, in Unix seconds.
    pub now: u64,
    /// When this process began to remember what was used, in Unix seconds.
    pub started_at: u64,
    /// The issuer's URL.
    pub issuer: &'a str,
    /// The paths of the token endpoint and of the endpoint that was called, below the issuer.
    pub endpoints: [&'a str; 2],
}

impl Expected<'_> {
    /// Whether an audience means this server: by its issuer or by one of the endpoints' URLs.
    fn is_meant_by(&self, audience: &str) -> bool {
        let below = audience.strip_prefix(self.issuer.trim_end_matches('/'));
        audience == self.issuer || below.is_some_and(|path| self.endpoints.contains(&path))
    }
}

/// Why an assertion is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssertionError {
    /// Its algorithm is none that is accepted, or not the client's.
    Algorithm,
    /// It is not for this server alone.
    Audience,
    /// It was signed before this process started, which cannot know whether it was used then.
    BeforeStart,
    /// `client_id` beside it names another client.
    ClientId,
    /// It cannot be read, or lacks a claim, or its header points to a key.
    Malformed,
    /// It was used before.
    Replayed,
    /// No key of the client has signed it.
    Signature,
    /// Its time is over, has not come, or is too long.
    Time,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Value,
    jti: String,
    exp: NumericDate,
    iat: Option<NumericDate>,
    nbf: Option<NumericDate>,
}

/// How far a client's clock may be ahead, in seconds.
pub const SKEW: u64 = 10;
/// Seconds from `iat` in which an assertion is accepted, whatever its `exp` says: some libraries
/// sign for an hour.
pub const MAX_LIFE: u64 = 300;
