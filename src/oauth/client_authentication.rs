//! The credentials of a request (RFC 6749, section 2.3), read but not checked.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::form::parameters::Parameters;
use crate::form::urlencoded;
use crate::oauth::client::{AuthMethod, is_vschar};
use crate::oauth::client_assertion::{AssertionError, ClientAssertion, JWT_BEARER};
use crate::oauth::client_certificate::{ClientCertificate, ShownCertificate};
use crate::oauth::error::Cause;
use crate::oauth::header_field::HeaderField;

/// The credentials of a request, not verified yet.
pub struct Credentials<'a> {
    /// The `client_id` in the credentials.
    pub client_id: Cow<'a, str>,
    /// The proof that the request is from the client.
    pub proof: Proof<'a>,
    /// Whether this is a Basic pair whose id or secret is used without form-decoding, although
    /// form-decoding would change the pair or fail.
    pub is_raw: bool,
    /// The Basic pair, read without form-decoding. The caller must try both this reading and
    /// `self`. `None` if form-decoding does not change the pair, or if the body has a `client_id`
    /// that differs from the id in this reading.
    pub raw: Option<Box<Self>>,
}

impl<'a> Credentials<'a> {
    /// Reads the credentials of a request. A client certificate counts as the credential only if
    /// the request has no other credential. A client that authenticates with a secret may present a
    /// certificate for another purpose: the server binds the token to the certificate (RFC 8705,
    /// section 3).
    ///
    /// # Errors
    ///
    /// The [`Cause`] if the request has no credentials, credentials for several methods, or
    /// malformed credentials.
    pub fn read(
        authorization: HeaderField<'_>,
        certificate: &'a ShownCertificate,
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
            HeaderField::Repeated => Err(Cause::SeveralAuthentications),
            HeaderField::Present(value) => {
                let mut basic = Self::read_basic(value)?;
                let Some(id) = body_id else { return Ok(basic) };
                // Of the two readings of the pair, keep those whose id equals the body's
                // `client_id`.
                basic.raw = basic.raw.filter(|raw| raw.client_id == id);
                if basic.client_id == id {
                    return Ok(basic);
                }
                basic.raw.map(|raw| *raw).ok_or(Cause::ClientIdMismatch)
            }
            HeaderField::Absent => {
                if let Some(assertion) = assertion {
                    let assertion_type = parameters.get("client_assertion_type");
                    return Self::read_assertion(assertion, assertion_type, body_id);
                }
                let id = body_id.ok_or(Cause::AuthenticationMissing)?;
                if !is_vschar(id) || !body_secret.is_none_or(is_vschar) {
                    return Err(Cause::CredentialCharacters);
                }
                let proof = match body_secret {
                    Some(secret) => Proof::Secret {
                        by: AuthMethod::ClientSecretPost,
                        secret: Secret::Borrowed(secret),
                    },
                    None => {
                        let shown = certificate.get()?;
                        Proof::Certificate(shown.ok_or(Cause::AuthenticationMissing)?)
                    }
                };
                Ok(Self { client_id: Cow::Borrowed(id), proof, is_raw: false, raw: None })
            }
        }
    }

    /// Reads a header `Basic base64(form(client_id) ":" form(client_secret))` (RFC 6749, section
    /// 2.3.1; RFC 7617).
    ///
    /// Many clients do not form-encode the pair, and form-decoding then changes each `+` of a
    /// base64 secret to a space. So a pair that form-decoding changes is read in both ways, decoded
    /// and raw. An id or a secret that cannot be decoded, or that decodes to characters not allowed
    /// in credentials, is used raw in both readings.
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
        if id.is_empty() || secret.is_empty() || !is_vschar(id) || !is_vschar(secret) {
            return Err(Cause::MalformedAuthorization);
        }
        let mut is_raw = false;
        let decoded = [id, secret].map(|half| {
            let decoded = urlencoded::decode(half).filter(|decoded| is_vschar(decoded));
            is_raw |= decoded.is_none();
            decoded.unwrap_or(Cow::Borrowed(half))
        });
        let reading = |[id, secret]: [&str; 2], is_raw, raw| Self {
            client_id: Cow::Owned(id.to_owned()),
            proof: Proof::Secret {
                by: AuthMethod::ClientSecretBasic,
                secret: Secret::Owned(Zeroizing::new(secret.to_owned())),
            },
            is_raw,
            raw,
        };
        let [decoded_id, decoded_secret] = &decoded;
        let differs = decoded_id != id || decoded_secret != secret;
        let raw = differs.then(|| Box::new(reading([id, secret], true, None)));
        Ok(reading([decoded_id, decoded_secret], is_raw, raw))
    }

    /// Reads `client_assertion`, whose type must be [`JWT_BEARER`] (RFC 7521, section 4.2).
    fn read_assertion(
        assertion: &'a str,
        assertion_type: Option<&str>,
        body_id: Option<&str>,
    ) -> Result<Self, Cause> {
        if assertion_type != Some(JWT_BEARER) {
            return Err(Cause::UnsupportedAuthentication);
        }
        let assertion = ClientAssertion::read(assertion).map_err(Cause::Assertion)?;
        if body_id.is_some_and(|id| id != assertion.client_id()) {
            return Err(Cause::Assertion(AssertionError::ClientId));
        }
        Ok(Self {
            client_id: Cow::Owned(assertion.client_id().to_owned()),
            proof: Proof::Assertion(Box::new(assertion)),
            is_raw: false,
            raw: None,
        })
    }

    /// All secrets in clear text. A Basic pair that is read in two ways has two secrets.
    pub fn secrets(&self) -> Vec<&str> {
        let raw = self.raw.as_deref().and_then(Self::client_secret);
        self.client_secret().into_iter().chain(raw).collect()
    }

    /// The secret in clear text; `None` for an assertion or a certificate.
    fn client_secret(&self) -> Option<&str> {
        match &self.proof {
            Proof::Secret { secret, .. } => Some(secret.as_str()),
            Proof::Assertion(_) | Proof::Certificate(_) => None,
        }
    }
}

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("proof", &self.proof).finish_non_exhaustive()
    }
}

/// The proof that the request is from the client.
pub enum Proof<'a> {
    /// A secret, in the `Authorization` header or in the body.
    Secret {
        /// How the secret was sent.
        by: AuthMethod,
        /// The secret.
        secret: Secret<'a>,
    },
    /// An assertion.
    Assertion(Box<ClientAssertion<'a>>),
    /// A certificate that the client has shown in the TLS handshake.
    Certificate(&'a ClientCertificate),
}

/// Hides the proof, which is a credential.
impl fmt::Debug for Proof<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret { by, .. } => by.as_str(),
            Self::Assertion(_) => "assertion",
            Self::Certificate(_) => "certificate",
        })
    }
}

/// A secret in clear text: borrowed from the body, or copied from the decoded `Authorization`
/// header and wiped when dropped.
pub enum Secret<'a> {
    /// In the body.
    Borrowed(&'a str),
    /// Copied from the header.
    Owned(Zeroizing<String>),
}

impl Secret<'_> {
    /// The secret in clear text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Borrowed(secret) => secret,
            Self::Owned(secret) => secret,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_that_decoding_changes_is_read_in_both_ways() {
        let readings = |pair: &str, body_id: Option<&str>| {
            let header = format!("bAsIc {}", STANDARD.encode(pair));
            let mut parameters = Parameters::default();
            if let Some(id) = body_id {
                parameters.push("client_id".into(), id.to_owned().into()).unwrap();
            }
            let read = Credentials::read(
                HeaderField::Present(header.as_bytes()),
                &ShownCertificate::Absent,
                &parameters,
            )?;
            let shown = |read: &Credentials<'_>| {
                format!("{}:{} {}", read.client_id, read.client_secret().unwrap(), read.is_raw)
            };
            Ok([Some(shown(&read)), read.raw.as_deref().map(shown)])
        };
        let two = |first: &str, second: &str| Ok([Some(first.to_owned()), Some(second.to_owned())]);
        let one = |only: &str| Ok([Some(only.to_owned()), None]);
        for (pair, body_id, expected) in [
            ("id:plain", None, one("id:plain false")),
            ("id:a+b/c=", None, two("id:a b/c= false", "id:a+b/c= true")),
            ("id:a%2Bb", None, two("id:a+b false", "id:a%2Bb true")),
            ("i%64:100%", None, two("id:100% true", "i%64:100% true")),
            ("id:100%", None, one("id:100% true")),
            ("id:%ff", None, one("id:%ff true")),
            ("id:a%0Ab", None, one("id:a%0Ab true")),
            ("id:%C3%A9", None, one("id:%C3%A9 true")),
            ("a+b:c+d", Some("a b"), one("a b:c d false")),
            ("a+b:c+d", Some("a+b"), one("a+b:c+d true")),
            ("a+b:c+d", Some("ab"), Err(Cause::ClientIdMismatch)),
            ("id:c+d", Some("id"), two("id:c d false", "id:c+d true")),
            ("id:a:b", None, one("id:a:b false")),
            ("a%3A:+%25%26%2B", None, two("a:: %&+ false", "a%3A:+%25%26%2B true")),
            ("id", None, Err(Cause::MalformedAuthorization)),
            (":secret", None, Err(Cause::MalformedAuthorization)),
            ("id:", None, Err(Cause::MalformedAuthorization)),
            ("id:\u{7f}", None, Err(Cause::MalformedAuthorization)),
            ("é:x", None, Err(Cause::MalformedAuthorization)),
        ] {
            assert_eq!(readings(pair, body_id), expected, "{pair}");
        }
    }

    #[test]
    fn debug_shows_no_credential() {
        let header = format!("Basic {}", STANDARD.encode("id:hunter2"));
        let authorization = HeaderField::Present(header.as_bytes());
        let parameters = Parameters::default();
        let credentials =
            Credentials::read(authorization, &ShownCertificate::Absent, &parameters).unwrap();
        let shown = format!("{authorization:?} {credentials:?}");
        assert_eq!(shown, "Present(…) Credentials { proof: client_secret_basic, .. }");
    }
}
