//! A registered client (RFC 6749, section 2).

use std::num::NonZeroU32;
use std::str::FromStr;

use compact_str::CompactString;

use crate::form::media_type::ContentType;
use crate::jose::public_key::{Algorithm, PublicKey};
use crate::oauth::client_certificate::CertificateSubject;
use crate::oauth::client_secret::ClientSecret;
use crate::oauth::scope::ScopeSet;
use crate::time::UnixTime;

/// A registered client. Every value was validated when the client file was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Client {
    /// `client_id`: 1 or more characters of %x20-7E (RFC 6749, appendix A.1).
    pub id: CompactString,
    /// Whether the client may authenticate. A disabled client is refused as if its secret were
    /// wrong.
    pub enabled: bool,
    /// The client's secrets, each with its own period of validity.
    pub secrets: Box<[ClientSecret]>,
    /// The methods by which the client may authenticate.
    pub auth_methods: AuthMethods,
    /// The public keys that verify the client's assertions and self-signed certificates.
    pub keys: Box<[PublicKey]>,
    /// The algorithm that the client's assertions must have; `None` if every algorithm that the
    /// client's keys permit is accepted.
    pub assertion_algorithm: Option<Algorithm>,
    /// The subject that the client's certificates must have (`tls_client_auth`). Boxed to save
    /// memory: few clients have one.
    pub certificate_subject: Option<Box<CertificateSubject>>,
    /// Whether a token of the client is bound to the certificate that the client presents in the
    /// token request.
    pub has_certificate_bound_tokens: bool,
    /// Whether the client's tokens must be bound to a DPoP key.
    pub has_dpop_bound_tokens: bool,
    /// The scopes that the client may request. A client without scopes may not use the client
    /// credentials grant.
    pub scopes: ScopeSet,
    /// The scopes that are granted if a token request names no scopes; `None` if every token
    /// request must name its scopes.
    pub default_scopes: Option<ScopeSet>,
    /// The audience of the client's tokens. If this list is empty, the audience is the issuer.
    pub audience: Box<[Box<str>]>,
    /// The audiences for which the client may introspect tokens (RFC 7662). Every client may also
    /// introspect its own tokens.
    pub introspects: Box<[Box<str>]>,
    /// The client's tokens issued before this time are revoked; 0 revokes no tokens.
    pub not_before: UnixTime,
    /// The lifetime of the client's tokens in seconds, at least 1.
    pub token_lifetime: u32,
    /// The profile of the client's tokens; `None` for the default profile of the dialect.
    pub token_profile: Option<TokenProfile>,
    /// The content type that the client's requests must have. Only some dialects check it.
    pub content_type: ContentType,
    /// The rate limit of the client's token requests; `None` if there is no limit.
    pub rate_limit: Option<RateLimit>,
    /// The seconds for which a token of the client is reused; `None` if every request gets a new
    /// token.
    pub token_reuse: Option<NonZeroU32>,
    /// Whether responses to the client carry `Server-Timing`.
    pub server_timing: bool,
    /// The client's static claims as members of a JSON object, each after a comma: `,"k":"v"`.
    pub extra_claims: Box<str>,
}

impl Client {
    /// Whether the client has a secret with a slow hash. Such a secret may be weak enough to be
    /// guessed.
    pub fn is_guessable(&self) -> bool {
        self.secrets.iter().any(|secret| secret.hash.as_slow().is_some())
    }

    /// Returns the audience of the client's tokens, which is `issuer` if the registration has none.
    pub fn audiences<'a>(&'a self, issuer: &'a str) -> impl Iterator<Item = &'a str> + Clone {
        let default = self.audience.is_empty().then_some(issuer);
        self.audience.iter().map(|audience| &**audience).chain(default)
    }

    /// Whether a proxy must forward the client's certificate, because the client may authenticate
    /// with a certificate or because the client's tokens are bound to a certificate.
    pub fn needs_certificate(&self) -> bool {
        let is_by_certificate =
            |method: &AuthMethod| method.is_by_certificate() && self.auth_methods.contains(*method);
        self.has_certificate_bound_tokens || AuthMethod::ALL.iter().any(is_by_certificate)
    }
}

/// A rate limit: bursts of up to `requests` requests, which refill evenly in `seconds` seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    requests: NonZeroU32,
    seconds: u32,
}

impl RateLimit {
    /// `None` if either number is 0, or if a request would refill in less than a nanosecond.
    pub fn new(requests: u32, seconds: u32) -> Option<Self> {
        let is_limit = u64::from(requests) <= u64::from(seconds) * 1_000_000_000;
        Some(Self { requests: NonZeroU32::new(requests).filter(|_| is_limit)?, seconds })
    }

    /// The size of a burst.
    pub fn requests(self) -> u32 {
        self.requests.get()
    }

    /// The seconds in which a burst refills.
    pub fn seconds(self) -> u32 {
        self.seconds
    }
}

/// The format of a token's header and claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenProfile {
    /// The format of RFC 9068.
    AtJwt,
    /// The format in the documents of the `vision` and `firstvision` dialects. The header has no
    /// `kid`. The only claims are `scope`, `client_id`, the client's static claims and `exp`.
    Vision,
}

impl FromStr for TokenProfile {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "at+jwt" => Ok(Self::AtJwt),
            "vision" => Ok(Self::Vision),
            _ => Err("\"at+jwt\" or \"vision\""),
        }
    }
}

/// Client authentication methods, with their registered names (RFC 7591, section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// HTTP Basic, with `client_id` and `client_secret` in the `Authorization` header.
    ClientSecretBasic,
    /// `client_id` and `client_secret` in the body.
    ClientSecretPost,
    /// A JWT signed with the client's private key.
    PrivateKeyJwt,
    /// A certificate with the client's registered subject, issued by an authority that the proxy
    /// trusts.
    TlsClientAuth,
    /// A certificate with one of the client's registered keys.
    SelfSignedTlsClientAuth,
}

impl AuthMethod {
    /// All methods.
    pub const ALL: [Self; 5] = [
        Self::ClientSecretBasic,
        Self::ClientSecretPost,
        Self::PrivateKeyJwt,
        Self::TlsClientAuth,
        Self::SelfSignedTlsClientAuth,
    ];

    /// Whether the method needs a proxy that forwards the client's certificate.
    pub fn is_by_certificate(self) -> bool {
        matches!(self, Self::TlsClientAuth | Self::SelfSignedTlsClientAuth)
    }

    /// The methods of a client whose registration names no methods.
    pub const DEFAULT: [Self; 2] = [Self::ClientSecretBasic, Self::ClientSecretPost];

    /// The registered name of the method.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientSecretBasic => "client_secret_basic",
            Self::ClientSecretPost => "client_secret_post",
            Self::PrivateKeyJwt => "private_key_jwt",
            Self::TlsClientAuth => "tls_client_auth",
            Self::SelfSignedTlsClientAuth => "self_signed_tls_client_auth",
        }
    }
}

impl FromStr for AuthMethod {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|method| method.as_str() == name);
        found.ok_or(
            "not a known authentication method; use one of client_secret_basic, \
             client_secret_post, private_key_jwt, tls_client_auth, self_signed_tls_client_auth",
        )
    }
}

/// A set of [`AuthMethod`]s, with one bit for each method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuthMethods(u8);

impl AuthMethods {
    /// Whether `method` is in the set.
    pub fn contains(self, method: AuthMethod) -> bool {
        self.0 & 1 << method as u8 != 0
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<AuthMethod> for AuthMethods {
    fn from_iter<I: IntoIterator<Item = AuthMethod>>(methods: I) -> Self {
        Self(methods.into_iter().fold(0, |set, method| set | 1 << method as u8))
    }
}

/// Whether `text` has only characters of VSCHAR (%x20-7E), the only characters allowed in
/// `client_id` and `client_secret` (RFC 6749, appendix A.1 and A.2).
pub fn is_vschar(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, 0x20..=0x7E))
}
