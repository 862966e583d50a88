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
    audience: Audience,
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
        let audience = Audience::read(claims.aud).ok_or(AssertionError::Audience)?;
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
        let form = self.audience_form(expected).ok_or(AssertionError::Audience)?;
        let now = expected.now;
        let is_ahead = |time: u64| time > now + SKEW;
        // Without `iat`, it counts as signed as early as its end allows; so its end may be as far
        // ahead as that of a client whose clock is.
        let (signed_at, until) = match self.issued_at {
            Some(issued_at) => (issued_at, self.expires_at.min(issued_at + MAX_LIFE)),
            None => (self.expires_at.saturating_sub(MAX_LIFE), self.expires_at),
        };
        if until <= now || is_ahead(signed_at) || self.not_before.is_some_and(is_ahead) {
            return Err(AssertionError::Time);
        }
        if signed_at <= expected.started_at {
            return Err(AssertionError::BeforeStart);
        }
        Ok(Accepted { token_id: &self.token_id, signed_at, until, audience: form })
    }

    /// How its audience names this server; `None` if it does not in a way that is accepted.
    fn audience_form(&self, expected: &Expected<'_>) -> Option<AudienceForm> {
        let form = expected.form_of(&self.audience)?;
        let is_strict = expected.endpoints.is_none() || self.is_of_the_strict_type();
        (form == AudienceForm::Issuer || !is_strict).then_some(form)
    }

    /// Whether its header names the type of RFC 7523bis, whose audience is the issuer alone. Media
    /// types are compared without regard to case, with or without `application/` (RFC 7515, section
    /// 4.1.9).
    fn is_of_the_strict_type(&self) -> bool {
        let named = self.jwt.token_type().unwrap_or_default();
        let (prefix, rest) = named.split_at_checked(APPLICATION.len()).unwrap_or_default();
        let subtype = if prefix.eq_ignore_ascii_case(APPLICATION) { rest } else { named };
        subtype.eq_ignore_ascii_case(STRICT_TYPE)
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
    /// How its audience names this server.
    pub audience: AudienceForm,
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
    /// The paths of the token endpoint and of the endpoint that was called, below the issuer: their
    /// URLs are accepted as audiences. `None`: only the issuer is, as a string (RFC 7523bis).
    pub endpoints: Option<[&'a str; 2]>,
}

impl Expected<'_> {
    /// How `audience` names this server, by its issuer or by one of the endpoints' URLs.
    fn form_of(&self, audience: &Audience) -> Option<AudienceForm> {
        if audience.name == self.issuer {
            let is_array = audience.is_array;
            return Some(if is_array { AudienceForm::IssuerArray } else { AudienceForm::Issuer });
        }
        let path = audience.name.strip_prefix(self.issuer.trim_end_matches('/'))?;
        self.endpoints?.contains(&path).then_some(AudienceForm::Endpoint)
    }
}

/// The sole audience of an assertion: of several, another server could use it here.
struct Audience {
    name: String,
    is_array: bool,
}

impl Audience {
    /// A string, or an array of exactly one, as some libraries write it.
    fn read(aud: Value) -> Option<Self> {
        match aud {
            Value::String(name) => Some(Self { name, is_array: false }),
            Value::Array(names) => match <[Value; 1]>::try_from(names) {
                Ok([Value::String(name)]) => Some(Self { name, is_array: true }),
                _ => None,
            },
            _ => None,
        }
    }
}

/// How an assertion's audience names this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AudienceForm {
    /// By its issuer, as a string.
    Issuer,
    /// By its issuer, in an array.
    IssuerArray,
    /// By the URL of an endpoint.
    Endpoint,
}

impl AudienceForm {
    /// Every form.
    pub const ALL: [Self; 3] = [Self::Issuer, Self::IssuerArray, Self::Endpoint];

    /// The name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Issuer => "issuer",
            Self::IssuerArray => "issuer_array",
            Self::Endpoint => "endpoint",
        }
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

const APPLICATION: &str = "application/";
const STRICT_TYPE: &str = "client-authentication+jwt";

/// How far a client's clock may be ahead, in seconds.
pub const SKEW: u64 = 10;
/// Seconds from `iat` in which an assertion is accepted, whatever its `exp` says: some libraries
/// sign for an hour.
pub const MAX_LIFE: u64 = 300;
