//! Client authentication (RFC 6749, section 2.3): reads the credentials of a request and verifies
//! them against a registered client. The caller computes slow hashes and charges failure budgets.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use zeroize::Zeroizing;

use crate::form::parameters::Parameters;
use crate::form::urlencoded;
use crate::oauth::client::{AuthMethod, Client, is_vschar};
use crate::oauth::client_assertion::{
    Accepted, AssertionError, ClientAssertion, Expected, JWT_BEARER,
};
use crate::oauth::client_certificate::{ClientCertificate, ShownCertificate};
use crate::oauth::client_network::ClientNetwork;
use crate::oauth::client_secret::{ClientSecret, FastHash, SecretHash};
use crate::oauth::decoy::Kind;
use crate::oauth::error::Cause;
use crate::time::UnixTime;

/// The `Authorization` header of a request.
#[derive(Clone, Copy, Default)]
pub enum Authorization<'a> {
    /// The request has no `Authorization` header.
    #[default]
    Absent,
    /// The value of the only `Authorization` header.
    Present(&'a [u8]),
    /// The request has two or more `Authorization` headers.
    Repeated,
}

impl Authorization<'_> {
    /// Whether the request has an `Authorization` header. If so, failed client authentication is
    /// answered with status 401 instead of 400 (RFC 6749, section 5.2).
    pub fn is_present(self) -> bool {
        !matches!(self, Self::Absent)
    }
}

/// Hides the header's value, which is a credential.
impl fmt::Debug for Authorization<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "Absent",
            Self::Present(_) => "Present(…)",
            Self::Repeated => "Repeated",
        })
    }
}

/// The credentials of a request, not verified yet.
pub struct Credentials<'a> {
    client_id: Cow<'a, str>,
    proof: Proof<'a>,
    network: ClientNetwork,
    /// See [`Self::is_raw`].
    is_raw: bool,
    /// The Basic pair, read without form-decoding. `None` if form-decoding does not change the
    /// pair, or if the body has a `client_id` that differs from the id in this reading.
    raw: Option<Box<Self>>,
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
        authorization: Authorization<'_>,
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
            Authorization::Repeated => Err(Cause::SeveralAuthentications),
            Authorization::Present(value) => {
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
            Authorization::Absent => {
                if let Some(assertion) = assertion {
                    let assertion_type = parameters.get("client_assertion_type");
                    return Self::read_assertion(assertion, assertion_type, body_id);
                }
                let id = body_id.ok_or(Cause::AuthenticationMissing)?;
                if !is_vschar(id) || !body_secret.is_none_or(is_vschar) {
                    return Err(Cause::CredentialCharacters);
                }
                let proof = match body_secret {
                    Some(secret) => Proof::Post(Secret::Borrowed(secret)),
                    None => {
                        let shown = certificate.get()?;
                        Proof::Certificate(shown.ok_or(Cause::AuthenticationMissing)?)
                    }
                };
                Ok(Self {
                    client_id: Cow::Borrowed(id),
                    proof,
                    network: ClientNetwork::UNIX,
                    is_raw: false,
                    raw: None,
                })
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
            proof: Proof::Basic(Secret::Owned(Zeroizing::new(secret.to_owned()))),
            network: ClientNetwork::UNIX,
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
        let assertion = ClientAssertion::read(assertion)?;
        if body_id.is_some_and(|id| id != assertion.client_id()) {
            return Err(AssertionError::ClientId.into());
        }
        Ok(Self {
            client_id: Cow::Owned(assertion.client_id().to_owned()),
            proof: Proof::Assertion(Box::new(assertion)),
            network: ClientNetwork::UNIX,
            is_raw: false,
            raw: None,
        })
    }

    /// Sets the client network that the credentials were sent from.
    pub fn from(mut self, network: ClientNetwork) -> Self {
        self.network = network;
        if let Some(raw) = &mut self.raw {
            raw.network = network;
        }
        self
    }

    /// Whether this is a Basic pair whose id or secret is used without form-decoding, although
    /// form-decoding would change the pair or fail.
    pub fn is_raw(&self) -> bool {
        self.is_raw
    }

    /// The Basic pair, read without form-decoding. The caller must try both this reading and
    /// `self`. `None` if form-decoding does not change the pair, or if the body has a `client_id`
    /// that differs from the id in this reading.
    pub fn raw_reading(&self) -> Option<&Self> {
        self.raw.as_deref()
    }

    /// The client network that the credentials were sent from.
    pub fn network(&self) -> ClientNetwork {
        self.network
    }

    /// The `client_id` in the credentials.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// All secrets in clear text. A Basic pair that is read in two ways has two secrets.
    pub fn secrets(&self) -> Vec<&str> {
        let raw = self.raw_reading().and_then(Self::client_secret);
        self.client_secret().into_iter().chain(raw).collect()
    }

    /// The authentication method if the credentials hold a secret; `None` for an assertion or a
    /// certificate.
    pub fn secret_method(&self) -> Option<AuthMethod> {
        match &self.proof {
            Proof::Basic(_) => Some(AuthMethod::ClientSecretBasic),
            Proof::Post(_) => Some(AuthMethod::ClientSecretPost),
            Proof::Assertion(_) | Proof::Certificate(_) => None,
        }
    }

    /// The secret in clear text; `None` for an assertion or a certificate.
    pub fn client_secret(&self) -> Option<&str> {
        match &self.proof {
            Proof::Basic(secret) | Proof::Post(secret) => Some(secret.as_str()),
            Proof::Assertion(_) | Proof::Certificate(_) => None,
        }
    }

    /// Among the secrets of the client `registered`, finds the secret with the hash `given`. If
    /// several match, one that is valid at `now` is preferred. `registered` is `None` if no client
    /// has the id in the request.
    ///
    /// For an unknown client, `given` is compared with one hash that cannot match. So the time of
    /// the search does not reveal that the client is unknown.
    pub fn find_secret<'c>(
        given: &FastHash,
        registered: Option<&'c Client>,
        now: UnixTime,
    ) -> Option<&'c ClientSecret> {
        let Some(client) = registered else {
            // Compare, so that the search takes as long as for a known client. Discard the result.
            let _ = std::hint::black_box(given.ct_eq(&FastHash::unmatchable()));
            return None;
        };
        // Compare all secrets, so that the time does not reveal which secret matched.
        let (mut found, mut found_current) = (NONE, NONE);
        for (index, secret) in (0..NONE).zip(&client.secrets) {
            let SecretHash::Fast(hash) = &secret.hash else { continue };
            let equal = given.ct_eq(hash);
            found.conditional_assign(&index, equal);
            let is_current = Choice::from(u8::from(secret.is_current(now)));
            found_current.conditional_assign(&index, equal & is_current);
        }
        [found_current, found]
            .into_iter()
            .find_map(|index| client.secrets.get(usize::try_from(index).ok()?))
    }

    /// Verifies the credentials of the client `registered`. `secret` is the client's secret that
    /// equals the secret in the request; `None` if no secret of the client equals it.
    ///
    /// If `registered` is `None`, verification fails. An assertion is nevertheless verified with
    /// the keys of `decoy`, so that the refusal takes as long as for a registered client.
    ///
    /// # Errors
    ///
    /// The [`Cause`] of the refusal. The response to the client must be the same for every cause.
    pub fn verify<'c>(
        &self,
        registered: Option<&'c Client>,
        secret: Option<&ClientSecret>,
        decoy: Option<&Kind>,
        expected: &Expected<'_>,
    ) -> Result<Verified<'c, '_>, Cause> {
        let mut used = None;
        let (client, method) = match &self.proof {
            Proof::Basic(_) | Proof::Post(_) => {
                let client = registered.ok_or(Cause::UnknownClient)?;
                let secret = secret.ok_or(Cause::WrongSecret)?;
                if !secret.is_current(expected.now) {
                    return Err(Cause::SecretNotCurrent);
                }
                (client, self.secret_method().ok_or(Cause::UnsupportedAuthentication)?)
            }
            Proof::Certificate(certificate) => {
                let client = registered.ok_or(Cause::UnknownClient)?;
                (client, Self::verify_certificate(certificate, client)?)
            }
            Proof::Assertion(assertion) => {
                let accepted = assertion.check(expected)?;
                let (keys, algorithm) = match registered {
                    Some(client) => (&*client.keys, client.assertion_algorithm),
                    None => decoy
                        .map_or((&[][..], None), |decoy| (&*decoy.keys, decoy.assertion_algorithm)),
                };
                let verified = assertion.verify(keys, algorithm);
                let client = registered.ok_or(Cause::UnknownClient)?;
                verified?;
                used = Some(accepted);
                (client, AuthMethod::PrivateKeyJwt)
            }
        };
        if !client.enabled {
            return Err(Cause::ClientDisabled);
        }
        if !client.auth_methods.contains(method) {
            return Err(Cause::AuthMethodNotAllowed);
        }
        Ok(Verified { client, assertion: used })
    }

    /// Returns the method by which `certificate` authenticates the client: `tls_client_auth` if the
    /// subject matches, `self_signed_tls_client_auth` if the key matches (RFC 8705, sections 2.1
    /// and 2.2).
    fn verify_certificate(
        certificate: &ClientCertificate,
        client: &Client,
    ) -> Result<AuthMethod, Cause> {
        let by = |method| client.auth_methods.contains(method);
        let subject = client.certificate_subject.as_ref();
        let [by_name, by_key] = [AuthMethod::TlsClientAuth, AuthMethod::SelfSignedTlsClientAuth];
        if by(by_name) && subject.is_some_and(|subject| certificate.is_for(subject)) {
            Ok(by_name)
        } else if by(by_key) && certificate.has_key_of(&client.keys) {
            Ok(by_key)
        } else {
            Err(Cause::CertificateMismatch)
        }
    }
}

/// An authenticated client.
#[derive(Clone, Copy, Debug)]
#[must_use = "an assertion must be recorded as used"]
pub struct Verified<'c, 'p> {
    /// The client.
    pub client: &'c Client,
    /// The assertion that authenticated the client; `None` for the other authentication methods. An
    /// assertion may be used only once, so the caller must record its use.
    pub assertion: Option<Accepted<'p>>,
}

/// The index that means "no secret". No client has this many secrets.
const NONE: u32 = u32::MAX;

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("proof", &self.proof.name()).finish_non_exhaustive()
    }
}

/// The part of the credentials that proves the identity of the client.
enum Proof<'a> {
    Assertion(Box<ClientAssertion<'a>>),
    Basic(Secret<'a>),
    Certificate(&'a ClientCertificate),
    Post(Secret<'a>),
}

impl Proof<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Assertion(_) => "Assertion",
            Self::Basic(_) => "Basic",
            Self::Certificate(_) => "Certificate",
            Self::Post(_) => "Post",
        }
    }
}

/// A secret in clear text: borrowed from the body, or copied from the decoded `Authorization`
/// header and wiped when dropped.
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
        Credentials::read(
            Authorization::Present(header.as_bytes()),
            &ShownCertificate::Absent,
            &Parameters::default(),
        )
        .map(|read| {
            let Proof::Basic(secret) = &read.proof else { panic!("not by Basic") };
            (read.client_id.to_string(), secret.as_str().to_owned())
        })
    }

    #[test]
    fn a_pair_that_decoding_changes_is_read_in_both_ways() {
        let readings = |pair: &str, body_id: Option<&str>| {
            let header = format!("Basic {}", STANDARD.encode(pair));
            let mut parameters = Parameters::default();
            if let Some(id) = body_id {
                parameters.push("client_id".into(), id.to_owned().into()).unwrap();
            }
            let read = Credentials::read(
                Authorization::Present(header.as_bytes()),
                &ShownCertificate::Absent,
                &parameters,
            )?;
            let shown = |read: &Credentials<'_>| {
                format!("{}:{} {}", read.client_id(), read.client_secret().unwrap(), read.is_raw)
            };
            Ok([Some(shown(&read)), read.raw_reading().map(shown)])
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
        ] {
            assert_eq!(readings(pair, body_id), expected, "{pair}");
        }
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
        let credentials =
            Credentials::read(authorization, &ShownCertificate::Absent, &parameters).unwrap();
        let shown = format!("{authorization:?} {credentials:?}");
        assert_eq!(shown, "Present(…) Credentials { proof: \"Basic\", .. }");
    }
}
