//! `private_key_jwt`: client authentication by a JWT that the client signs (RFC 7521, RFC 7523).

use serde::Deserialize;
use serde_json::Value;

use crate::jose::foreign::{ForeignJwt, NumericDate};
use crate::jose::public_key::{Algorithm, PublicKey};
use crate::time::UnixTime;

/// The only accepted `client_assertion_type` (RFC 7523, section 2.2).
pub const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A parsed assertion. Its claims and its signature have not been verified.
pub struct ClientAssertion<'a> {
    jwt: ForeignJwt<'a>,
    algorithm: Algorithm,
    audience: Audience,
    claims: Claims,
}

impl<'a> ClientAssertion<'a> {
    /// Parses an assertion. The caller can then look up the client that the assertion names, and
    /// verify the signature with that client's keys.
    ///
    /// # Errors
    ///
    /// [`AssertionError::Malformed`], [`AssertionError::Algorithm`] or
    /// [`AssertionError::Audience`].
    pub fn read(text: &'a str) -> Result<Self, AssertionError> {
        let jwt = ForeignJwt::read(text).ok_or(AssertionError::Malformed)?;
        // Refuse an assertion that contains a key: such a key proves nothing about the client.
        if jwt.embedded_key().is_some() {
            return Err(AssertionError::Malformed);
        }
        let algorithm = jwt.algorithm().ok_or(AssertionError::Algorithm)?;
        let claims: Claims = jwt.claims().ok_or(AssertionError::Malformed)?;
        if claims.iss != claims.sub || claims.iss.is_empty() || claims.jti.is_empty() {
            return Err(AssertionError::Malformed);
        }
        let audience = Audience::deserialize(&claims.aud).map_err(|_| AssertionError::Audience)?;
        Ok(Self { jwt, algorithm, audience, claims })
    }

    /// The id of the client that the assertion claims to be from.
    pub fn client_id(&self) -> &str {
        &self.claims.iss
    }

    /// Checks the audience and the times. The result does not depend on the client that the
    /// assertion names. `issuer` is the issuer's URL. `endpoints` are the paths of the token endpoint
    /// and of the called endpoint, relative to the issuer; the URLs of these endpoints are accepted
    /// as audience. `None` if the only accepted audience is the issuer, as a string (RFC 7523bis).
    ///
    /// # Errors
    ///
    /// [`AssertionError::Audience`] or [`AssertionError::Time`].
    pub fn check(
        &self,
        issuer: &str,
        endpoints: Option<[&str; 2]>,
        now: UnixTime,
    ) -> Result<Accepted<'_>, AssertionError> {
        let form = self.audience_form(issuer, endpoints).ok_or(AssertionError::Audience)?;
        let is_ahead = |time: UnixTime| time > now + SKEW;
        // Without `iat`, assume the earliest possible time of signing: `MAX_LIFE` before `exp`. So
        // `exp` may be at most `MAX_LIFE + SKEW` seconds ahead of the server's clock.
        let Claims { jti, exp: NumericDate(exp), iat, nbf, .. } = &self.claims;
        let (signed_at, until) = match *iat {
            Some(NumericDate(iat)) => (iat, (iat + MAX_LIFE).min(*exp)),
            None => (*exp - MAX_LIFE, *exp),
        };
        if until <= now || is_ahead(signed_at) || nbf.is_some_and(|nbf| is_ahead(nbf.0)) {
            return Err(AssertionError::Time);
        }
        Ok(Accepted { token_id: jti, signed_at, until, audience: form })
    }

    /// Returns how the assertion's `aud` identifies this server: by the issuer (as a string or in
    /// an array) or by the URL of an endpoint. `None` if the audience does not identify this
    /// server, or if `endpoints` or the assertion's `typ` does not permit this kind of audience.
    fn audience_form(&self, issuer: &str, endpoints: Option<[&str; 2]>) -> Option<AudienceForm> {
        let (name, form) = match &self.audience {
            Audience::String(name) => (name, AudienceForm::Issuer),
            Audience::Array([name]) => (name, AudienceForm::IssuerArray),
        };
        let form = if name == issuer {
            form
        } else {
            let path = name.strip_prefix(issuer.trim_end_matches('/'))?;
            endpoints?.contains(&path).then_some(AudienceForm::Endpoint)?
        };
        let is_strict = endpoints.is_none() || self.is_of_the_strict_type();
        (form == AudienceForm::Issuer || !is_strict).then_some(form)
    }

    /// Whether the assertion's `typ` is `client-authentication+jwt`. RFC 7523bis requires the
    /// issuer as the audience of such an assertion. The comparison ignores case and a leading
    /// `application/` (RFC 7515, section 4.1.9).
    fn is_of_the_strict_type(&self) -> bool {
        let named = self.jwt.token_type().unwrap_or_default();
        let (prefix, rest) = named.split_at_checked(APPLICATION.len()).unwrap_or_default();
        let subtype = if prefix.eq_ignore_ascii_case(APPLICATION) { rest } else { named };
        subtype.eq_ignore_ascii_case(STRICT_TYPE)
    }

    /// Verifies the signature with the client's `keys`. If an algorithm is `registered` for the
    /// client, the assertion must have that algorithm.
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

/// An assertion whose audience and times are valid. An assertion may be used only once, so the
/// caller must record its use.
#[derive(Clone, Copy, Debug)]
pub struct Accepted<'a> {
    /// The assertion's `jti`, unique per client.
    pub token_id: &'a str,
    /// The time at which the client claims to have signed the assertion: `iat`. Without `iat`, it
    /// is the earliest possible time: [`MAX_LIFE`] seconds before `exp`.
    pub signed_at: UnixTime,
    /// The time from which the assertion is refused as expired.
    pub until: UnixTime,
    /// How the assertion's `aud` identifies this server.
    pub audience: AudienceForm,
}

/// The single audience of an assertion: a string, or an array of exactly one string, as some
/// libraries write it. An assertion with several audiences is refused, because any other server
/// among them could replay the assertion to this server.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    String(String),
    Array([String; 1]),
}

/// How the audience of an assertion identifies this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AudienceForm {
    /// The issuer, as a string.
    Issuer,
    /// The issuer, in an array.
    IssuerArray,
    /// The URL of an endpoint.
    Endpoint,
}

impl AudienceForm {
    /// All forms.
    pub const ALL: [Self; 3] = [Self::Issuer, Self::IssuerArray, Self::Endpoint];

    /// The label in metrics.
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
    /// The algorithm is not supported, or is not the algorithm registered for the client.
    Algorithm,
    /// The audience does not name this server, names another server in addition to this server, or
    /// names this server in a form that is not accepted.
    Audience,
    /// The assertion was signed before the record of uses began, so it may have been used before.
    BeforeRecord,
    /// The parameter `client_id` names a different client than the assertion.
    ClientId,
    /// The assertion cannot be parsed or lacks a claim, or its header carries or references a key.
    Malformed,
    /// The assertion was used before.
    Replayed,
    /// No key of the client verifies the signature.
    Signature,
    /// The assertion has expired or is not valid yet.
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

/// The maximum time by which the clock of a client may be ahead of the clock of the server, in
/// seconds.
pub const SKEW: u64 = 10;
/// The maximum lifetime of an assertion in seconds. When this time has passed since `iat`, the
/// assertion is refused, even if `exp` is later. Some libraries set `exp` to an hour after `iat`.
pub const MAX_LIFE: u64 = 300;
