//! A registered client (RFC 6749, section 2).

use std::borrow::Borrow;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use governor::clock::Clock as _;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::form::media_type::ContentType;
use crate::jose::public_key::{Algorithm, PublicKey};
use crate::oauth::client_certificate::CertificateSubject;
use crate::oauth::client_secret::ClientSecret;
use crate::oauth::reuse::Reuse;
use crate::oauth::scope::ScopeSet;
use crate::time::UnixTime;

/// A registered client. Every value was validated when the client file was read.
#[derive(Debug, Default)]
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
    /// The subject that the client's certificates must have (`tls_client_auth`).
    pub certificate_subject: Option<CertificateSubject>,
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
    /// The cache of the client's reusable tokens; `None` if every request gets a new token.
    pub token_reuse: Option<Arc<Reuse>>,
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

    /// Whether a proxy must forward the client's certificate, because the client may authenticate
    /// with a certificate or because the client's tokens are bound to a certificate.
    pub fn needs_certificate(&self) -> bool {
        let is_by_certificate =
            |method: &AuthMethod| method.is_by_certificate() && self.auth_methods.contains(*method);
        self.has_certificate_bound_tokens || AuthMethod::ALL.iter().any(is_by_certificate)
    }

    /// Whether both clients have the same registration. State, such as the remaining budget of a
    /// rate limit, is ignored.
    pub fn is_registered_as(&self, other: &Self) -> bool {
        // The pattern names every field, so that a new field cannot be forgotten here.
        let Self {
            id,
            enabled,
            secrets,
            auth_methods,
            keys,
            assertion_algorithm,
            certificate_subject,
            has_certificate_bound_tokens,
            has_dpop_bound_tokens,
            scopes,
            default_scopes,
            audience,
            introspects,
            not_before,
            token_lifetime,
            token_profile,
            content_type,
            rate_limit,
            token_reuse,
            server_timing,
            extra_claims,
        } = self;
        *id == other.id
            && *enabled == other.enabled
            && *secrets == other.secrets
            && *auth_methods == other.auth_methods
            && *keys == other.keys
            && *assertion_algorithm == other.assertion_algorithm
            && *certificate_subject == other.certificate_subject
            && *has_certificate_bound_tokens == other.has_certificate_bound_tokens
            && *has_dpop_bound_tokens == other.has_dpop_bound_tokens
            && *scopes == other.scopes
            && *default_scopes == other.default_scopes
            && *audience == other.audience
            && *introspects == other.introspects
            && *not_before == other.not_before
            && *token_lifetime == other.token_lifetime
            && *token_profile == other.token_profile
            && *content_type == other.content_type
            && *rate_limit == other.rate_limit
            && *token_reuse == other.token_reuse
            && *server_timing == other.server_timing
            && *extra_claims == other.extra_claims
    }
}

/// A rate limit by the generic cell rate algorithm (GCRA).
#[derive(Clone)]
pub struct RateLimit(Arc<Budget>);

struct Budget {
    limiter: DefaultDirectRateLimiter,
    quota: Quota,
}

impl RateLimit {
    /// Creates a limit that allows bursts of up to `requests` requests. The budget refills
    /// continuously, at a rate of `requests` requests per `seconds` seconds. `None` if either
    /// number is 0.
    pub fn new(requests: u32, seconds: u32) -> Option<Self> {
        let requests = NonZeroU32::new(requests)?;
        let quota = Quota::with_period(Duration::from_secs(seconds.into()) / requests.get())?;
        let quota = quota.allow_burst(requests);
        Some(Self(Arc::new(Budget { limiter: RateLimiter::direct(quota), quota })))
    }

    /// Takes one request from the budget.
    ///
    /// # Errors
    ///
    /// If the budget is used up: the seconds until the next request is allowed, at least 1.
    pub fn take(&self) -> Result<(), u32> {
        let limiter = &self.0.limiter;
        limiter.check().map_err(|not_until| {
            let wait = not_until.wait_time_from(limiter.clock().now()).as_secs();
            u32::try_from(wait).unwrap_or(u32::MAX).saturating_add(1)
        })
    }
}

/// Compares the registered limits, not the remaining budgets.
impl PartialEq for RateLimit {
    fn eq(&self, other: &Self) -> bool {
        self.0.quota == other.0.quota
    }
}

impl fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit").finish_non_exhaustive()
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
    pub fn as_str(self) -> &'static str {
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
    type Err = UnknownAuthMethod;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|method| method.as_str() == name).ok_or(UnknownAuthMethod)
    }
}

/// The error for a name that is not the name of an [`AuthMethod`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownAuthMethod;

impl fmt::Display for UnknownAuthMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = AuthMethod::ALL.map(AuthMethod::as_str).join(", ");
        write!(f, "not a known authentication method; use one of {names}")
    }
}

impl std::error::Error for UnknownAuthMethod {}

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

/// All registered clients, by `client_id`.
#[derive(Debug, Default)]
pub struct Registry(HashSet<ById>);

impl Registry {
    /// Creates a registry with room for `clients` clients.
    pub fn with_capacity(clients: usize) -> Self {
        Self(HashSet::with_capacity(clients))
    }

    /// Adds a client. If its id is registered already, keeps the client that was added first and
    /// returns `false`.
    pub fn insert(&mut self, client: Box<Client>) -> bool {
        self.0.insert(ById(client))
    }

    /// Returns the client with this id.
    pub fn get(&self, client_id: &str) -> Option<&Client> {
        self.0.get(client_id).map(|ById(client)| &**client)
    }

    /// Takes over state from the clients of `old`. Each client whose registration has not changed
    /// keeps the remaining budget of its rate limit and, if `same_issuer` is true, its reusable
    /// tokens.
    pub fn continue_from(&mut self, old: &Self, same_issuer: bool) {
        let has_state =
            |client: &&Client| client.rate_limit.is_some() || client.token_reuse.is_some();
        for before in old.iter().filter(has_state) {
            let Some(ById(mut client)) = self.0.take(&*before.id) else { continue };
            if client.is_registered_as(before) {
                client.rate_limit.clone_from(&before.rate_limit);
                if same_issuer {
                    client.token_reuse.clone_from(&before.token_reuse);
                }
            }
            self.0.insert(ById(client));
        }
    }

    /// Returns the clients in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Client> + Clone {
        self.0.iter().map(|ById(client)| &**client)
    }

    /// The number of clients.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no clients.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A client that is hashed and compared by its id, so that the registry can be a set. A map would
/// store each id a second time. The client is boxed to save memory: up to half of the slots of a
/// hash table are empty, and each slot is as large as an element.
#[derive(Debug)]
struct ById(Box<Client>);

impl Borrow<str> for ById {
    fn borrow(&self) -> &str {
        &self.0.id
    }
}

impl Hash for ById {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // `Borrow<str>` requires that the hash of a client equals the hash of the client's id.
        (*self.0.id).hash(state);
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for ById {}

/// Whether `text` has only characters of VSCHAR (%x20-7E), the only characters allowed in
/// `client_id` and `client_secret` (RFC 6749, appendix A.1 and A.2).
pub fn is_vschar(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, 0x20..=0x7E))
}
