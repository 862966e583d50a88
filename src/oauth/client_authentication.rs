//! Client authentication (RFC 6749, section 2.3): what a request claims, and whether it is true.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroizing;

use crate::form::parameters::Parameters;
use crate::form::urlencoded;
use crate::oauth::client::{AuthMethod, Client, is_vschar};
use crate::oauth::client_assertion::{AssertionError, ClientAssertion, Expected, JWT_BEARER};
use crate::oauth::client_secret::SecretHash;
use crate::oauth::error::Cause;

/// The `Authorization` header of a request.
#[derive(Clone, Copy, Default)]
pub enum Authorization<'a> {
    /// There is none.
    #[default]
    Absent,
    /// Its value.
    Present(&'a [u8]),
    /// There are two or more.
    Repeated,
}

impl Authorization<'_> {
    /// Whether the client tried to authenticate by this header, which decides between 400 and 401.
    pub fn is_present(self) -> bool {
        !matches!(self, Self::Absent)
    }
}

/// The value is a credential.
impl fmt::Debug for Authorization<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "Absent",
            Self::Present(_) => "Present(…)",
            Self::Repeated => "Repeated",
        })
    }
}

/// A client's claim to be itself, not verified yet.
pub struct Credentials<'a> {
    client_id: Cow<'a, str>,
    proof: Proof<'a>,
    method: AuthMethod,
}

impl<'a> Credentials<'a> {
    /// Finds the one way in which this request authenticates.
    ///
    /// # Errors
    ///
    /// The [`Cause`], if there is none, more than one, or one that cannot be read.
    pub fn read(
        authorization: Authorization<'_>,
        parameters: &'a Parameters<'_>,
    ) -> Result<Self, Cause> {
        let body_id = parameters.get("client_id");
        let body_secret = parameters.get("client_secret");
        let assertion = parameters.get("client_assertion");
        let methods = [authorization.is_present(), body_secret.is_some(), assertion.is_some()]
            .map(usize::from);
        if methods.iter().sum::<usize>() > 1 {
            return Err(Cause::SeveralAuthentications);
        }

        match authorization {
            Authorization::Repeated => Err(Cause::SeveralAuthentications),
            Authorization::Present(value) => {
                let basic = Self::read_basic(value)?;
                if body_id.is_some_and(|id| id != basic.client_id) {
                    return Err(Cause::ClientIdMismatch);
                }
                Ok(basic)
            }
            Authorization::Absent => {
                if let Some(assertion) = assertion {
                    let assertion_type = parameters.get("client_assertion_type");
                    return Self::read_assertion(assertion, assertion_type, body_id);
                }
                let (Some(id), Some(secret)) = (body_id, body_secret) else {
                    return Err(Cause::AuthenticationMissing);
                };
                if !is_vschar(id) || !is_vschar(secret) {
                    return Err(Cause::CredentialCharacters);
                }
                Ok(Self {
                    client_id: Cow::Borrowed(id),
                    proof: Proof::Secret(Secret::Borrowed(secret)),
                    method: AuthMethod::ClientSecretPost,
                })
            }
        }
    }

    /// `Basic base64(form(client_id) ":" form(client_secret))` (RFC 6749, section 2.3.1; RFC 7617).
    ///
    /// A half that is not form-encoded text is taken as it stands: many clients never encode, and
    /// a secret with a `%` in it would lock them out.
    fn read_basic(header: &[u8]) -> Result<Self, Cause> {
        let header = std::str::from_utf8(header).map_err(|_| Cause::MalformedAuthorization)?;
        let (scheme, token) = header.split_once(' ').unwrap_or((header, ""));
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(Cause::UnsupportedAuthentication);
        }
        let decoded = STANDARD
            .decode(token.trim_start_matches(' '))
            .map(Zeroizing::new)
            .map_err(|_| Cause::MalformedAuthorization)?;
        let pair = std::str::from_utf8(&decoded).map_err(|_| Cause::MalformedAuthorization)?;
        let (id, secret) = pair.split_once(':').ok_or(Cause::MalformedAuthorization)?;
        let [id, secret] =
            [id, secret].map(|half| urlencoded::decode(half).unwrap_or(Cow::Borrowed(half)));
        if id.is_empty() || secret.is_empty() || !is_vschar(&id) || !is_vschar(&secret) {
            return Err(Cause::MalformedAuthorization);
        }
        Ok(Self {
            client_id: Cow::Owned(id.into_owned()),
            proof: Proof::Secret(Secret::Owned(Zeroizing::new(secret.into_owned()))),
            method: AuthMethod::ClientSecretBasic,
        })
    }

    /// `client_assertion` of the one type that there is (RFC 7521, section 4.2).
    fn read_assertion(
        assertion: &'a str,
        assertion_type: Option<&str>,
        body_id: Option<&str>,
    ) -> Result<Self, Cause> {
        if assertion_type != Some(JWT_BEARER) {
            return Err(Cause::UnsupportedAuthentication);
        }
        let assertion = ClientAssertion::read(assertion)?;
        if body_id.is_some_and(|id| id != assertion.client_id()) {
            return Err(AssertionError::ClientId.into());
        }
        Ok(Self {
            client_id: Cow::Owned(assertion.client_id().to_owned()),
            proof: Proof::Assertion(assertion),
            method: AuthMethod::PrivateKeyJwt,
        })
    }

    /// Who the client claims to be.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Whether the claim is true of `registered`, the client of this id, if there is one.
    ///
    /// # Errors
    ///
    /// The [`Cause`]; every one of them must look the same to the caller.
    pub fn verify<'c>(
        &self,
        registered: Option<&'c Client>,
        expected: &Expected<'_>,
    ) -> Result<Verified<'c, '_>, Cause> {
        let (client, single_use) = match &self.proof {
            Proof::Secret(secret) => {
                (Self::verify_secret(secret.as_str(), registered, expected.now)?, None)
            }
            Proof::Assertion(assertion) => {
                let until = assertion.check(expected)?;
                let client = registered.ok_or(Cause::UnknownClient)?;
                assertion.verify(&client.keys, client.assertion_algorithm)?;
                (client, Some(SingleUse { token_id: assertion.token_id(), until }))
            }
        };
        if !client.enabled {
            return Err(Cause::ClientDisabled);
        }
        if !client.auth_methods.contains(self.method) {
            return Err(Cause::AuthMethodNotAllowed);
        }
        Ok(Verified { client, single_use })
    }

    /// An unknown client and a wrong secret take the same steps: one hash, one comparison.
    fn verify_secret<'c>(
        secret: &str,
        registered: Option<&'c Client>,
        now: u64,
    ) -> Result<&'c Client, Cause> {
        let given = SecretHash::of(secret);
        let Some(client) = registered else {
            // The result is known; the time it takes must not be.
            let _ = std::hint::black_box(given.ct_eq(&SecretHash::unmatchable()));
            return Err(Cause::UnknownClient);
        };

        let mut matches = Choice::from(0);
        let mut matches_current = Choice::from(0);
        for secret in &client.secrets {
            let equal = given.ct_eq(&secret.hash);
            matches |= equal;
            matches_current |= equal & Choice::from(u8::from(secret.is_current(now)));
        }
        if !bool::from(matches) {
            return Err(Cause::WrongSecret);
        }
        if !bool::from(matches_current) {
            return Err(Cause::SecretNotCurrent);
        }
        Ok(client)
    }
}

/// A claim that is true.
#[derive(Clone, Copy, Debug)]
#[must_use = "what is good for one use must be used up"]
pub struct Verified<'c, 'p> {
    /// Who it is.
    pub client: &'c Client,
    /// What has proven it, if that is good for one use.
    pub single_use: Option<SingleUse<'p>>,
}

/// A proof that must not be accepted again.
#[derive(Clone, Copy, Debug)]
pub struct SingleUse<'p> {
    /// Its name, unique for its client.
    pub token_id: &'p str,
    /// From when on nobody accepts it anyway, in Unix seconds.
    pub until: u64,
}

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("method", &self.method).finish_non_exhaustive()
    }
}

/// What is to prove the claim.
enum Proof<'a> {
    Secret(Secret<'a>),
    Assertion(ClientAssertion<'a>),
}

/// A secret in clear: the body's own bytes, or a decoded copy that is wiped after use.
enum Secret<'a> {
    Borrowed(&'a str),
    Owned(Zeroizing<String>),
}

impl Secret<'_> {
    fn as_str(&self) -> &str {
        match self {
            Self::Borrowed(secret) => secret,
            Self::Owned(secret) => secret,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(pair: &str) -> Result<(String, String), Cause> {
        let header = format!("bAsIc {}", STANDARD.encode(pair));
        Credentials::read(Authorization::Present(header.as_bytes()), &Parameters::default()).map(
            |read| {
                let Proof::Secret(secret) = &read.proof else { panic!("not by a secret") };
                (read.client_id.to_string(), secret.as_str().to_owned())
            },
        )
    }

    #[test]
    fn basic_halves_are_form_decoded_and_split_at_the_first_colon() {
        let pair = |id: &str, secret: &str| Ok((id.to_owned(), secret.to_owned()));
        assert_eq!(basic("id:a:b"), pair("id", "a:b"));
        assert_eq!(basic("an%3Aidentifier:+%25%26%2B"), pair("an:identifier", " %&+"));
        assert_eq!(basic("id:100%"), pair("id", "100%"));
        assert_eq!(basic("id:%ff"), pair("id", "%ff"));
        for bad in ["id", ":secret", "id:", "id:\u{7f}", "é:x"] {
            assert_eq!(basic(bad), Err(Cause::MalformedAuthorization), "{bad}");
        }
    }

    #[test]
    fn debug_shows_no_credential() {
        let header = format!("Basic {}", STANDARD.encode("id:hunter2"));
        let authorization = Authorization::Present(header.as_bytes());
        let parameters = Parameters::default();
        let credentials = Credentials::read(authorization, &parameters).unwrap();
        let shown = format!("{authorization:?} {credentials:?}");
        assert_eq!(shown, "Present(…) Credentials { method: ClientSecretBasic, .. }");
    }
}
